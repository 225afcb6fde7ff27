"""Errors of reading squashfs images. Each class carries its facts, and the text is made from them once."""

from __future__ import annotations

import errno

from ..errors import FormatError, SifkitError

__all__ = [
    "CorruptSquashfsError",
    "MissingCodecError",
    "NotSquashfsError",
    "SquashfsError",
    "TruncatedSquashfsError",
    "UnsupportedSquashfsError",
]

EUCLEAN = getattr(errno, "EUCLEAN", errno.EIO)
"""Errno of a damaged filesystem; only Linux has it."""


class SquashfsError(SifkitError, OSError):
    """Base of the errors of this package."""

    def __init__(self, message: str, number: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = number


class NotSquashfsError(SquashfsError, FormatError):
    """Bytes without a squashfs superblock: EINVAL."""

    kind = "not-squashfs"

    def __init__(self) -> None:
        super().__init__("not a squashfs image", errno.EINVAL)


class CorruptSquashfsError(SquashfsError):
    """Contradiction of the format: EUCLEAN.

    ``where``: the structure; ``offset``: its first byte in the image, or None; ``field``: what of it is wrong. ``got`` and
    ``want``: the value there and the values allowed; without ``want`` the field is its own sentence ("does not decompress").
    """

    kind = "corrupt"

    def __init__(self, where: str, field: str, got: object = None, want: object = None, *, offset: int | None = None) -> None:
        place = where if offset is None else f"{where} at byte {offset}"
        super().__init__(f"{place}: {field}" if want is None else f"{place}: {field} is {got}, want {want}", EUCLEAN)
        self.where = where
        self.field = field
        self.got = got
        self.want = want
        self.offset = offset

    def at(self, where: str, offset: int) -> CorruptSquashfsError:
        """Return the same error with another place, for code that knows more of it."""
        return CorruptSquashfsError(where, self.field, self.got, self.want, offset=offset)


class TruncatedSquashfsError(CorruptSquashfsError):
    """Structure of ``size`` bytes at ``offset`` that does not end before the image does, which has ``available_bytes``."""

    kind = "truncated"

    def __init__(self, where: str, *, offset: int, size: int, available_bytes: int) -> None:
        super().__init__(where, "end", offset + size, f"at most {available_bytes}, where the image ends", offset=offset)
        self.size = size
        self.available_bytes = available_bytes


class UnsupportedSquashfsError(SquashfsError):
    """Image of a version or with a compressor that is not read: EOPNOTSUPP. ``feature`` names it."""

    kind = "unsupported"

    def __init__(self, feature: str) -> None:
        super().__init__(f"{feature} is not supported", errno.EOPNOTSUPP)
        self.feature = feature


class MissingCodecError(SquashfsError):
    """Image whose compressor needs a Python package, ``module``, that is not installed: EOPNOTSUPP."""

    kind = "unsupported"

    def __init__(self, compressor: str, module: str) -> None:
        hint = "pip install 'sifkit[codecs]'"
        super().__init__(f"{compressor} needs the Python package {module}", errno.EOPNOTSUPP, hint=hint)
        self.compressor = compressor
        self.module = module
