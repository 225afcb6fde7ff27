"""Sizes and owners as text, for the command line and for Python. Each function raises UsageError that names option and value.

Sizes: digits with K M G T or KiB MiB GiB TiB, any case, decimals allowed, powers of 1024.
"""

from __future__ import annotations

import os
import re
from fractions import Fraction

from .errors import UsageError, show

__all__ = ["MAX_ID", "NUMBER", "parse_group", "parse_owner", "parse_size", "shown_value"]

MIB = 1 << 20
MAX_BYTES = 1 << 62
MAX_ID = 2**32 - 2
"""Largest uid and gid: 2^32 - 1 means "unchanged" to chown."""
NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]*)", re.ASCII)
"""Number and unit."""
_BINARY = {"k": 10, "m": 20, "g": 30, "t": 40}


def shown_value(option: str, text: str) -> str:
    """Option and value for messages; the value is quoted if it is empty or has spaces."""
    shown = show(text)
    return f"{option} {shown}" if shown and " " not in shown else f"{option} '{shown}'"


def parse_size(option: str, text: str, *, bare: int = MIB, example: str = "500M or 1.5G", given: str | None = None) -> int:
    """Parse a size into bytes, at least 1. ``bare``: bytes per unit of a bare number. ``example``: for the hint.

    ``given``: option and value for messages, if the size is only a part of the value.
    """
    given = given or shown_value(option, text)
    hint = f"write {example}"
    match = NUMBER.fullmatch(text.strip())
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


def parse_owner(option: str, text: str) -> tuple[int, int]:
    """Parse ``UID:GID``, ``UID``, ``NAME``, ``NAME:GROUP`` or ``me`` into (uid, gid).

    A user without a group gets the user's login group; a number unknown on this host gets the group of the same number.
    """
    if text == "me":
        if not hasattr(os, "getuid"):
            raise UsageError(f"{option} me: this system has no user IDs", hint="write numbers, such as 1000:1000")
        return os.getuid(), os.getgid()
    user, colon, group = text.partition(":")
    given = shown_value(option, text)
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
        raise UsageError(f"{given}: no such user {show(text)}", hint="write numbers, such as 1000:1000")
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
        hint = "write numbers, such as 1000:1000"
        raise UsageError(f"{given}: no such group {show(text)}", hint=hint) from error


def _identity(given: str, text: str) -> int | None:
    """Parse a user or group number; None for a name."""
    if not re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
        return None
    if not text.isdigit() or len(text) > 10 or int(text) > MAX_ID:
        raise UsageError(f"{given}: user and group IDs are from 0 to {MAX_ID}", hint="write numbers, such as 1000:1000")
    return int(text)


def parse_group(option: str, text: str, name: str) -> int:
    """Return the gid of the group ``name``, a part of the option's ``text``."""
    return _group(shown_value(option, text), name)
