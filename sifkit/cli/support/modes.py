"""Modes as chmod takes them: octal, or symbolic clauses such as ``u+rwX,go=``.

Source: POSIX ``chmod``, and the rule of GNU coreutils that set-id bits of directories stay unless they are named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ...errors import UsageError, show

__all__ = ["ModeChange", "apply_mode", "parse_mode"]

_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000, "X": 0}
_COPIED = {"u": 0o700, "g": 0o070, "o": 0o007}
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION = re.compile(r"([-+=])([rwxXst]*|[ugo])(?=[-+=]|$)")


@dataclass(frozen=True, slots=True)
class ModeChange:
    """One action of a mode. ``who``: mask of the classes it is for, 0 for all within the umask.

    ``value``: bits to add, remove or set. ``named``: bits the mode mentions. ``how``: "bits" takes ``value`` as it is, "copy"
    takes the bits of that class, "maybe" adds x to directories and files that have an x already.
    """

    action: str
    who: int
    value: int
    named: int
    how: Literal["bits", "copy", "maybe"] = "bits"


def parse_mode(text: str, option: str = "MODE") -> tuple[ModeChange, ...]:
    """Parse a mode into its actions. Raises UsageError."""
    if re.fullmatch(r"[0-7]+", text, re.ASCII) and int(text, 8) <= 0o7777:
        value = int(text, 8)
        named = 0o7777 if len(text) > 4 else value & 0o6000 | 0o1777
        return (ModeChange("=", 0o7777, value, named),)
    found: list[ModeChange] = []
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            hint = "write for example 0755 or u+rwX,go-w"
            raise UsageError(f"{'' if option == 'MODE' else option + ' '}invalid mode: '{show(text)}'", hint=hint)
        who = 0
        for letter in match[1]:
            who |= _WHO[letter]
        for action, letters in _ACTION.findall(match[2]):
            found.append(_change(action, letters, who))
    return tuple(found)


def _change(action: str, letters: str, who: int) -> ModeChange:
    if letters in _COPIED:
        return ModeChange(action, who, _COPIED[letters], who & _COPIED[letters] if who else _COPIED[letters], "copy")
    value = 0
    for letter in letters:
        value |= _BITS[letter]
    return ModeChange(action, who, value, who & value if who else value, "maybe" if "X" in letters else "bits")


def apply_mode(changes: tuple[ModeChange, ...], mode: int, *, is_dir: bool, mask: int) -> int:
    """Return the 12 permission bits that a file of ``mode`` gets."""
    new = mode & 0o7777
    for change in changes:
        kept = (0o6000 if is_dir else 0) & ~change.named
        value = change.value
        if change.how == "copy":
            have = new & value
            value = sum(bits for bits in (0o444, 0o222, 0o111) if have & bits)
        elif change.how == "maybe" and (is_dir or new & 0o111):
            value |= 0o111
        value &= (change.who or ~mask) & ~kept & 0o7777
        if change.action == "=":
            new = new & ((~change.who if change.who else 0) | kept) | value
        elif change.action == "+":
            new |= value
        else:
            new &= ~value
    return new
