"""Squashfs images: a tree of files, read from any source of bytes. Names are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import CorruptSquashfsError as CorruptSquashfsError
    from .errors import MissingCodecError as MissingCodecError
    from .errors import NotSquashfsError as NotSquashfsError
    from .errors import SquashfsError as SquashfsError
    from .errors import TruncatedSquashfsError as TruncatedSquashfsError
    from .errors import UnsupportedSquashfsError as UnsupportedSquashfsError
    from .reader import Reader as Reader
    from .source import ByteSource as ByteSource
    from .source import FileWindow as FileWindow
    from .source import SeekableWindow as SeekableWindow
    from .superblock import Superblock as Superblock

_MODULE_OF = {
    "ByteSource": ".source",
    "CorruptSquashfsError": ".errors",
    "FileWindow": ".source",
    "MissingCodecError": ".errors",
    "NotSquashfsError": ".errors",
    "Reader": ".reader",
    "SeekableWindow": ".source",
    "SquashfsError": ".errors",
    "Superblock": ".superblock",
    "TruncatedSquashfsError": ".errors",
    "UnsupportedSquashfsError": ".errors",
}

__all__ = [
    "ByteSource",
    "CorruptSquashfsError",
    "FileWindow",
    "MissingCodecError",
    "NotSquashfsError",
    "Reader",
    "SeekableWindow",
    "SquashfsError",
    "Superblock",
    "TruncatedSquashfsError",
    "UnsupportedSquashfsError",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULE_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
