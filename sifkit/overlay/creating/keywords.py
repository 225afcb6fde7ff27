"""Options of a new image given as keywords: ``create("o.img", size="500M", from_dir="d", owner="me")``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_args
from uuid import UUID

from ...errors import UsageError, show
from ...text_values import MAX_ID, parse_owner, parse_size
from ..options import CreateOptions, ImageLayout, Profile, XattrPolicy

__all__ = ["options_from"]

_SIZES = {"size": 1 << 20, "inode_ratio": 1, "block_size": 1, "journal_bytes": 1 << 20}
"""Bytes per unit of a bare number given as text, as on the command line."""
_WORDS = {"layout": get_args(ImageLayout), "xattrs": get_args(XattrPolicy), "profile": get_args(Profile)}


def options_from(options: CreateOptions | None, keywords: Mapping[str, Any]) -> CreateOptions:
    """Return ``options`` with the fields named by ``keywords``; sizes, owners and labels may be text, as on the command line.

    Raises TypeError for unknown names and values of another type, UsageError for text that is not what it should be and numbers
    out of range.
    """
    if options is not None and not isinstance(options, CreateOptions):
        raise TypeError(
            f"options must be CreateOptions, not {type(options).__name__}: name what it is, as in from_dir='overlay/'"
        )
    known = {field.name for field in fields(CreateOptions)}
    for name in keywords:
        if name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            raise TypeError(f"there is no option {name}" + (f"; did you mean {close[0]}?" if close else ""))
    given = {name: getattr(options, name) for name in known} if options is not None else {}
    return CreateOptions(**{name: _value(name, value) for name, value in {**given, **keywords}.items()})


def _value(name: str, value: Any) -> Any:
    """Return the value of an option, converted from text and checked. Raises TypeError and UsageError."""
    for text in value if isinstance(value, tuple | list) else (value,):
        _check_text(name, text)
    converted = _converted(name, value)
    _check_range(name, converted)
    return converted


def _check_text(name: str, value: Any) -> None:
    """Raise UsageError for text that no name on the host can have, as one from Python may be."""
    if isinstance(value, str):
        try:
            os.fsencode(value)
        except UnicodeEncodeError:
            raise UsageError(f"{name} {value!r}: cannot be written in the encoding of file names") from None


def _check_range(name: str, value: Any) -> None:
    """Raise UsageError for a number, or a label, that an image or a file cannot have."""
    if name in ("owner", "upper_owner") and value is not None and not all(0 <= one <= MAX_ID for one in value):
        raise UsageError(
            f"{name} {value!r}: user and group IDs are from 0 to {MAX_ID}", hint="give numbers such as (1000, 1000)"
        )
    if name == "mode" and not 0 <= value <= 0o777:
        raise UsageError(f"mode {value}: must be permissions from 0 to 0o777", hint="give 0o600 or 0o644")
    if name == "source_date_epoch" and value is not None and not 0 <= value < 2**32:
        raise UsageError(f"{name} {value}: must be whole seconds since 1970, at most {2**32 - 1:,}")
    if name == "label" and b"\0" in value:
        raise UsageError(f"label {show(value)}: contains a NUL byte", hint="give a text without one")


def _converted(name: str, value: Any) -> Any:
    if name in _SIZES and isinstance(value, str):
        return parse_size(name, value, bare=_SIZES[name])
    if name in ("owner", "upper_owner"):
        if isinstance(value, str):
            return parse_owner(name, value)
        pair = tuple(value) if isinstance(value, list) else value
        return _checked(name, pair, _is_owner, "a pair (uid, gid), or a text such as '1000:1000' or 'me'")
    if name in ("create_dirs", "exclude"):
        text = "a list of texts, not one text" if isinstance(value, str | bytes) else "a list of texts"
        return tuple(_checked(name, value, _is_texts, text))
    if name == "prefix" and _is_path(value):
        return os.fsdecode(value)
    if name == "label" and isinstance(value, str):
        return os.fsencode(value)
    if name in _WORDS:
        words = ", ".join(map(repr, _WORDS[name]))
        if isinstance(value, str) and value not in _WORDS[name]:
            raise UsageError(f"{name} {show(value)}: must be one of {words}", hint="choose one")
        return _checked(name, value, _is_text, f"one of {words}")
    if name == "uuid" and isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            raise UsageError(f"uuid {show(value)}: not a UUID", hint="write 8-4-4-4-12 hexadecimal digits") from None
    check, text = _CHECKS.get(name, (_is_flag, "True or False"))
    return _checked(name, value, check, text)


def _checked(name: str, value: Any, check: Callable[[Any], bool], text: str) -> Any:
    """Return a value that passes the check or is the default. Raises TypeError."""
    if not check(value) and value != CreateOptions.__dataclass_fields__[name].default:
        raise TypeError(f"{name} must be {text}, not {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    return isinstance(value, str | bytes | os.PathLike)


def _is_owner(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_number, value))


def _is_texts(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(map(_is_text, value))


_BYTES = "a number of bytes, or a text such as '500M'"
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "size": (_is_number, _BYTES),
    "inode_ratio": (_is_number, _BYTES),
    "block_size": (_is_number, _BYTES),
    "journal_bytes": (_is_number, _BYTES),
    "inodes": (_is_number, "a number"),
    "inode_size": (_is_number, "a number of bytes"),
    "source_date_epoch": (_is_number, "a number of seconds"),
    "mode": (_is_number, "permission bits such as 0o600"),
    "reserved_percent": (lambda value: _is_number(value) or isinstance(value, float), "a number"),
    "from_dir": (_is_path, "a path"),
    "prefix": (_is_path, "a path in the container"),
    "temporary_dir": (_is_path, "a path"),
    "from_tar": (lambda value: _is_path(value) or hasattr(value, "read"), "a path or a binary file"),
    "label": (lambda value: isinstance(value, bytes), "a text or bytes"),
    "uuid": (lambda value: isinstance(value, UUID), "a UUID, or its text"),
}
"""Test and description of the values of an option; others are flags."""
