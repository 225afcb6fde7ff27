"""Entries of the user in the passwd and group files of a container. Pure.

Lines that are not understood stay as they are; a file without a newline at its end gets one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...errors import UsageError, show
from ..planning.run_plan import Account

__all__ = ["group_text", "passwd_text"]

PASSWD_FIELDS = 7


def passwd_text(raw: bytes, account: Account) -> bytes:
    """Return passwd with an entry of the account; an entry of the same number gets its home directory."""
    _check(account)
    home = _encode(account.home)

    def changed(fields: list[bytes]) -> list[bytes]:
        return [*fields[:5], home, *fields[6:]]

    lines, found = _lines(raw, PASSWD_FIELDS, account.uid, changed)
    if not found:
        texts = (account.name, "x", account.uid, account.gid, account.gecos, account.home, account.shell)
        lines.append(b":".join(_encode(str(text)) for text in texts))
    return _joined(lines)


def group_text(raw: bytes, account: Account) -> bytes:
    """Return group with entries of the account's groups at its end.

    An entry of the same number stays: names come from it, since it is found first, and membership from the new one, as with
    Apptainer.
    """
    _check(account)
    lines = raw.splitlines()
    for gid, name in dict([(account.gid, account.group), *account.groups]).items():
        lines.append(b":".join(_encode(str(text)) for text in (name, "x", gid, account.name)))
    return _joined(lines)


def _check(account: Account) -> None:
    """Raise UsageError for a text that would be read as another field or entry."""
    for text in (
        account.name,
        account.group,
        account.home,
        account.shell,
        account.gecos,
        *(name for _, name in account.groups),
    ):
        if ":" in text or "\n" in text or "\0" in text:
            raise UsageError(f"{show(text)} cannot be in passwd or group: it has a colon or a newline")


def _lines(raw: bytes, fields: int, number: int, changed: Callable[[list[bytes]], list[bytes]]) -> tuple[list[bytes], bool]:
    """Return the lines, those of ``number`` as ``changed`` makes them, and whether there is one."""
    found = False

    def each() -> Iterator[bytes]:
        nonlocal found
        for line in raw.splitlines():
            parts = line.split(b":")
            if _number(parts, fields) == number:
                found = True
                yield b":".join(changed(parts))
            else:
                yield line

    return list(each()), found


def _number(fields: list[bytes], count: int) -> int | None:
    """Return the number of an entry of ``count`` fields; None if it is none."""
    if len(fields) != count or not fields[2].isdigit() or len(fields[2]) > 10:
        return None
    return int(fields[2])


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
