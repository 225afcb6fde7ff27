"""Values of options and arguments: text to numbers and names. Every function raises UsageError that names option and value.

Sizes: digits with K M G T or KiB MiB GiB TiB, any case, decimals allowed, powers of 1024. Counts: K = 1000, M = 1,000,000.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from ...errors import UsageError, show
from ...text_values import NUMBER, shown_value
from ...text_values import parse_group as group
from ...text_values import parse_owner as owner
from ...text_values import parse_size as size

if TYPE_CHECKING:
    from uuid import UUID

__all__ = [
    "boolean",
    "choice",
    "closest",
    "count",
    "epoch",
    "globs",
    "group",
    "journal_size",
    "label",
    "levels_below",
    "mode",
    "name",
    "offset",
    "owner",
    "owner_change",
    "percent",
    "seconds",
    "size",
    "uuid",
]

LABEL_BYTES = 16
MAX_LEVELS = 4096
"""Depth of a walk without a limit, see ``vfs.resolve.MAX_COMPONENTS``."""

_DECIMAL = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}
_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def closest(word: str, words: Iterable[str], *, cutoff: float = 0.65) -> str | None:
    """Return the most similar of ``words``, None if none is; ``cutoff``: least similarity, from 0 to 1."""
    import difflib

    found = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return found[0] if found else None


def choice(option: str, text: str, words: Sequence[str]) -> str:
    """Return ``text`` if it is one of ``words``."""
    if text in words:
        return text
    suggested = closest(text, words)
    raise UsageError(
        f"{shown_value(option, text)}: must be one of {', '.join(words)}",
        hint=f"did you mean {suggested}?" if suggested else "choose one",
    )


def offset(option: str, text: str) -> int:
    """Parse a byte offset; bare numbers are bytes."""
    return (
        0 if text.strip().lstrip("0") == "" else size(option, text, bare=1, example="a number of bytes, such as 1048576 or 1M")
    )


def count(option: str, text: str) -> int:
    """Parse a count, at least 1; K is 1000 and M is 1,000,000."""
    match = NUMBER.fullmatch(text.strip())
    factor = _DECIMAL.get(match[2].lower()) if match else None
    if not match or factor is None:
        raise UsageError(f"{shown_value(option, text)}: not a count", hint="write 200000, 500K or 1.5M")
    value = int(Fraction(match[1]) * factor)
    if not 0 < value < 2**32:
        raise UsageError(f"{shown_value(option, text)}: must be from 1 to {2**32 - 1:,}", hint="write 200000 or 500K")
    return value


def levels_below(option: str, text: str | None) -> int:
    """Parse a depth of 0 or more; None is no limit (of a walk, MAX_LEVELS)."""
    if text is None:
        return MAX_LEVELS
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{shown_value(option, text)}: not a number of levels", hint=f"write {option} 2")
    return min(int(text[:5]), MAX_LEVELS)


def percent(option: str, text: str) -> float:
    """Parse a percentage from 0 to 50, the limits of mke2fs for reserved blocks."""
    match = NUMBER.fullmatch(text.strip().removesuffix("%"))
    if not match or match[2] or Fraction(match[1]) > 50:
        raise UsageError(f"{shown_value(option, text)}: must be from 0 to 50", hint=f"write {option} 1, or omit it")
    return float(match[1])


def seconds(option: str, text: str) -> float:
    """Parse a number of seconds; decimals are allowed."""
    if not re.fullmatch(r"[0-9]{1,9}([.][0-9]{1,9})?", text.strip(), re.ASCII):
        raise UsageError(f"{shown_value(option, text)}: not a number of seconds", hint=f"write {option} 60")
    return float(text)


def owner_change(option: str, text: str) -> tuple[int | None, int | None]:
    """Parse OWNER[:GROUP] of chown into (uid, gid), None for unchanged; OWNER: is with the owner's login group."""
    if text == "me":
        return owner(option, text)
    user, colon, name = text.partition(":")
    if not user and not name:
        raise UsageError(f"{shown_value(option, text)}: not an owner", hint="write UID:GID, NAME, NAME:GROUP, :GROUP or me")
    if colon and not name and user.isdigit():
        hint = f"give a group, for example {show(text)}{show(user)}"
        raise UsageError(f"invalid spec: '{show(text)}': a number has no login group", hint=hint)
    uid, login_group = owner(option, user) if user else (None, None)
    if name:
        return uid, group(option, text, name)
    return uid, login_group if colon else None


def mode(option: str, text: str) -> int:
    """Parse permission bits in octal, 0 to 0777."""
    if not re.fullmatch(r"(0o)?[0-7]{3,4}", text, re.ASCII) or int(text, 8) > 0o777:
        raise UsageError(f"{shown_value(option, text)}: must be octal permissions", hint="write 0600 or 0644")
    return int(text, 8)


def journal_size(option: str, text: str) -> int:
    """Parse ``size=16`` (MiB, as mke2fs) or ``size=16M`` into bytes."""
    key, equals, value = text.partition("=")
    if key != "size" or not equals:
        raise UsageError(f"{shown_value(option, text)}: only size= is supported", hint="write -J size=16M")
    return size(option, value, example="size=16M", given=shown_value(option, text))


def uuid(option: str, text: str) -> UUID | None:
    """Parse a UUID; ``random`` gives None."""
    if text == "random":
        return None
    if not _UUID.fullmatch(text):
        raise UsageError(f"{shown_value(option, text)}: not a UUID", hint="write 8-4-4-4-12 hexadecimal digits, or random")
    from uuid import UUID

    return UUID(text)


def label(option: str, text: str) -> bytes:
    """Parse a volume label: at most 16 bytes, no NUL."""
    return name(option, text, LABEL_BYTES, "label", hint="choose a shorter one")


def name(option: str, text: str, limit: int, noun: str, *, hint: str) -> bytes:
    """Parse a name of at most ``limit`` bytes without NUL; ``noun``: for the message."""
    raw = os.fsencode(text)
    if len(raw) > limit or b"\0" in raw:
        what = f"{len(raw)} bytes; a {noun} has at most {limit}" if len(raw) > limit else "contains a NUL byte"
        raise UsageError(f"{shown_value(option, text)}: {what}", hint=hint)
    return raw


def epoch(option: str, text: str) -> int:
    """Parse SOURCE_DATE_EPOCH: whole seconds since 1970 that fit the 32 bits of a superblock."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) >= 2**32:
        raise UsageError(
            f"{option}={show(text)}: must be whole seconds since 1970, at most {2**32 - 1:,}",
            hint=f"set it as in {option}=$(git log -1 --format=%ct)",
        )
    return int(text)


def boolean(name: str, text: str) -> bool:
    """Parse a boolean variable, in the spellings Apptainer accepts."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("", "0", "f", "F", "false", "FALSE", "False"):
        return False
    raise UsageError(f"{name}={show(text)}: must be 1 or 0", hint="unset it, or set it to one of them")


def globs(option: str, path: str, data: bytes) -> tuple[str, ...]:
    """Parse the patterns of an exclude file, one a line; empty lines and those that begin with # are skipped."""
    if b"\0" in data:
        raise UsageError(f"{option} {show(path)}: not a text file", hint="give a file with one pattern per line")
    lines = (line.strip() for line in data.splitlines())
    kept = (line for line in lines if line and not line.startswith(b"#"))
    return tuple(os.fsdecode(line[1:] if line.startswith(b"\\#") else line) for line in kept)
