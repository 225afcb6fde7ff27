"""What people write on the command line, turned into numbers and names. Every function raises UsageError with both the
option and the value in it.

Sizes: digits with K M G T or KiB MiB GiB TiB, any case, decimals allowed, powers of 1024. Counts: K = 1000, M = 1,000,000.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from ...errors import UsageError, show

if TYPE_CHECKING:
    from uuid import UUID

__all__ = [
    "choice",
    "closest",
    "count",
    "epoch",
    "globs",
    "group",
    "journal_size",
    "label",
    "mode",
    "owner",
    "percent",
    "size",
    "truth",
    "uuid",
]

MIB = 1 << 20
MAX_BYTES = 1 << 62
MAX_ID = 2**32 - 2
"""Largest uid and gid: 2^32 - 1 means "leave it" to chown and belongs to nobody."""
LABEL_BYTES = 16

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)", re.ASCII)
_BINARY = {"k": 10, "m": 20, "g": 30, "t": 40}
_DECIMAL = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}
_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def _given(option: str, text: str) -> str:
    """An option and its value as they were written; quoted where one would not see the value's ends."""
    shown = show(text)
    return f"{option} {shown}" if shown and " " not in shown else f"{option} '{shown}'"


def closest(word: str, words: Iterable[str], *, cutoff: float = 0.65) -> str | None:
    """The one of ``words`` that ``word`` was probably meant to be; ``cutoff``: how alike it must be, from 0 to 1."""
    import difflib

    found = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return found[0] if found else None


def choice(option: str, text: str, words: Sequence[str]) -> str:
    """``text`` if it is one of ``words``."""
    if text in words:
        return text
    meant = closest(text, words)
    raise UsageError(
        f"{_given(option, text)}: must be one of {', '.join(words)}", hint=f"did you mean {meant}?" if meant else "choose one"
    )


def size(option: str, text: str, *, bare: int = MIB, example: str = "500M or 1.5G") -> int:
    """Bytes; ``bare`` is the unit, in bytes, of a number without one. At least 1. ``example``: what a hint shows."""
    return _size(_given(option, text), text, bare, f"write for example {example}")


def _size(given: str, text: str, bare: int, hint: str) -> int:
    match = _NUMBER.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{given}: not a size", hint=hint)
    number, unit = Fraction(match[1]), match[2].lower()
    if unit in ("kb", "mb", "gb", "tb"):
        shift, power = _BINARY[unit[0]], 1000 ** (_BINARY[unit[0]] // 10)
        decimal, binary = int(number * power), int(number * (1 << shift))
        raise UsageError(
            f"{given}: {match[2]} can mean {decimal:,} or {binary:,} bytes",
            hint=f"write {match[1]}{unit[0].upper()} for {binary:,}, or {-(-decimal // 1024)}K for {decimal:,}",
        )
    if not unit:
        value = int(number * bare)
    elif unit[0] in _BINARY and unit[1:] in ("", "ib"):
        value = int(number * (1 << _BINARY[unit[0]]))
    else:
        raise UsageError(f"{given}: unknown unit {match[2]}", hint=f"use K, M, G or T; {hint}")
    if not 0 < value <= MAX_BYTES:
        raise UsageError(f"{given}: must be above 0 and at most {MAX_BYTES >> 40:,} TiB", hint=hint)
    return value


def count(option: str, text: str) -> int:
    """A count: K is 1000 and M is 1,000,000. At least 1."""
    match = _NUMBER.fullmatch(text.strip())
    factor = _DECIMAL.get(match[2].lower()) if match else None
    if not match or factor is None:
        raise UsageError(f"{_given(option, text)}: not a count", hint="write for example 200000, 500K or 1.5M")
    value = int(Fraction(match[1]) * factor)
    if not 0 < value < 2**32:
        raise UsageError(f"{_given(option, text)}: must be from 1 to {2**32 - 1:,}", hint="write for example 200000 or 500K")
    return value


def percent(option: str, text: str) -> float:
    """A percentage from 0 to 50 (mke2fs's limits for reserved blocks)."""
    match = _NUMBER.fullmatch(text.strip().removesuffix("%"))
    if not match or match[2] or Fraction(match[1]) > 50:
        raise UsageError(f"{_given(option, text)}: must be from 0 to 50", hint="an overlay needs none, leave it out")
    return float(match[1])


def owner(option: str, text: str) -> tuple[int, int]:
    """(uid, gid) of ``UID:GID``, ``UID``, ``NAME``, ``NAME:GROUP`` or ``me``.

    A user without a group gets that user's own group; a bare number this host does not know gets the group of the same
    number.
    """
    if text == "me":
        if not hasattr(os, "getuid"):
            raise UsageError(f"{option} me: this system has no user numbers", hint="write numbers, for example 1000:1000")
        return os.getuid(), os.getgid()
    user, colon, group = text.partition(":")
    given = _given(option, text)
    if not user or (colon and not group) or ":" in group:
        raise UsageError(f"{given}: not an owner", hint="write UID:GID, NAME, NAME:GROUP or me")
    uid, own_gid = _user(given, user)
    return uid, _group(given, group) if colon else own_gid


def _user(given: str, text: str) -> tuple[int, int]:
    uid = _identity(given, text)
    try:
        import pwd
    except ImportError:
        found = None
    else:
        try:
            found = pwd.getpwnam(text) if uid is None else pwd.getpwuid(uid)
        except (KeyError, OverflowError, ValueError):
            found = None
    if uid is None and found is None:
        raise UsageError(f"{given}: this host knows no user {show(text)}", hint="write numbers, for example 1000:1000")
    if uid is None and found is not None:
        return found.pw_uid, found.pw_gid
    assert uid is not None
    return uid, found.pw_gid if found is not None else uid


def _group(given: str, text: str) -> int:
    gid = _identity(given, text)
    if gid is not None:
        return gid
    try:
        import grp

        return grp.getgrnam(text).gr_gid
    except (ImportError, KeyError, ValueError) as error:
        hint = "write numbers, for example 1000:1000"
        raise UsageError(f"{given}: this host knows no group {show(text)}", hint=hint) from error


def _identity(given: str, text: str) -> int | None:
    """The number that ``text`` is; None for a name."""
    if not re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
        return None
    if not text.isdigit() or len(text) > 10 or int(text) > MAX_ID:
        raise UsageError(f"{given}: a user or group number is from 0 to {MAX_ID}", hint="write for example 1000:1000")
    return int(text)


def group(option: str, text: str, name: str) -> int:
    """The number of the group ``name``, which is a part of the option's ``text``."""
    return _group(_given(option, text), name)


def mode(option: str, text: str) -> int:
    """Permission bits written in octal, 0 to 0777."""
    if not re.fullmatch(r"(0o)?[0-7]{3,4}", text, re.ASCII) or int(text, 8) > 0o777:
        raise UsageError(f"{_given(option, text)}: must be octal permissions", hint="write for example 0600 or 0644")
    return int(text, 8)


def journal_size(option: str, text: str) -> int:
    """Bytes of ``size=16`` (MiB, as mke2fs) or ``size=16M``."""
    key, equals, value = text.partition("=")
    if key != "size" or not equals:
        raise UsageError(f"{_given(option, text)}: only size= is known", hint="write for example -J size=16M")
    return _size(_given(option, text), value, MIB, "write for example size=16M")


def uuid(option: str, text: str) -> UUID | None:
    """A UUID in its usual form; ``random`` is None: let it be chosen."""
    if text == "random":
        return None
    if not _UUID.fullmatch(text):
        raise UsageError(
            f"{_given(option, text)}: not a UUID", hint="write 8-4-4-4-12 hexadecimal digits, or leave it out for a random one"
        )
    from uuid import UUID

    return UUID(text)


def label(option: str, text: str) -> bytes:
    """A volume label: at most 16 bytes, none of them NUL."""
    raw = os.fsencode(text)
    if len(raw) > LABEL_BYTES or b"\0" in raw:
        what = f"{len(raw)} bytes; a label has at most {LABEL_BYTES}" if len(raw) > LABEL_BYTES else "holds a NUL byte"
        raise UsageError(f"{_given(option, text)}: {what}", hint="choose a shorter one")
    return raw


def epoch(option: str, text: str) -> int:
    """Whole seconds since 1970, as SOURCE_DATE_EPOCH has them; what a superblock's 32 bits hold."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) >= 2**32:
        raise UsageError(
            f"{option}={show(text)}: must be whole seconds since 1970, at most {2**32 - 1:,}",
            hint=f"set it for example with {option}=$(git log -1 --format=%ct)",
        )
    return int(text)


def truth(name: str, text: str) -> bool:
    """An on/off variable, in the spellings Apptainer takes."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("", "0", "f", "F", "false", "FALSE", "False"):
        return False
    raise UsageError(f"{name}={show(text)}: must be 1 or 0", hint="unset it, or set it to one of them")


def globs(option: str, path: str, data: bytes) -> tuple[str, ...]:
    """The patterns of an exclude file: one a line; empty lines and those that begin with # do not count."""
    if b"\0" in data:
        raise UsageError(f"{option} {show(path)}: not a text file", hint="name a file with one pattern a line")
    lines = (line.strip() for line in data.splitlines())
    kept = (line for line in lines if line and not line.startswith(b"#"))
    return tuple(os.fsdecode(line[1:] if line.startswith(b"\\#") else line) for line in kept)
