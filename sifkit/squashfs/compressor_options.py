"""Options of the compressor: a metadata block behind the superblock, which an image need not have.

What decompresses does not need them, but the tools that mount and unpack refuse options they do not know. Sources: the kernel's
``*_wrapper.c`` and the structures of the same names in squashfs-tools.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from .codecs import GZIP, LZ4, LZO, XZ, ZSTD
from .errors import CorruptSquashfsError
from .metadata_blocks import METADATA_BYTES, MetadataBlocks
from .schema import SUPERBLOCK
from .superblock import Superblock

__all__ = ["check_compressor_options"]

WHERE = "compressor options"
XZ_FILTERS = 0xFF
"""Bits of the filters: x86, powerpc, ia64, arm, armthumb, sparc, arm64, riscv."""


def check_compressor_options(blocks: MetadataBlocks, superblock: Superblock) -> int:
    """Check the options if the image has some; return the first byte behind them. Raises CorruptSquashfsError and OSError."""
    start = SUPERBLOCK.size
    if not superblock.has_compressor_options:
        if superblock.compression == LZ4:
            raise CorruptSquashfsError(WHERE, "there are none, which lz4 needs", offset=start)
        return start
    data, end = blocks.load(start, superblock.inode_table_start)
    form = _FORMS.get(superblock.compression)
    if form is None:
        raise CorruptSquashfsError(WHERE, "size", len(data), "none for this compressor", offset=start)
    layout, check = form
    if len(data) != struct.calcsize(layout):
        raise CorruptSquashfsError(WHERE, "size", len(data), struct.calcsize(layout), offset=start)
    wrong = check(struct.unpack(layout, data), superblock.block_size)
    if wrong is not None:
        raise CorruptSquashfsError(WHERE, *wrong, offset=start)
    return end


Wrong = tuple[str, int, str] | None
"""Field, the value there and the values allowed."""


def _outside(field: str, value: int, low: int, high: int) -> Wrong:
    return None if low <= value <= high else (field, value, f"{low} to {high}")


def _gzip(values: tuple[int, ...], _: int) -> Wrong:
    level, window, strategies = values
    return (
        _outside("compression_level", level, 1, 9)
        or _outside("window_size", window, 8, 15)
        or _outside("strategy", strategies, 0, 31)
    )


def _lzo(values: tuple[int, ...], _: int) -> Wrong:
    algorithm, level = values
    return _outside("algorithm", algorithm, 0, 4) or _outside("compression_level", level, 0, 9)


def _xz(values: tuple[int, ...], block_size: int) -> Wrong:
    dictionary, filters = values
    lowest = dictionary & -dictionary
    if dictionary not in (lowest, lowest * 3):
        return "dictionary_size", dictionary, "2^n or 2^n + 2^(n+1)"
    return _outside("dictionary_size", dictionary, 1, max(block_size, METADATA_BYTES)) or _outside(
        "flags", filters, 0, XZ_FILTERS
    )


def _lz4(values: tuple[int, ...], _: int) -> Wrong:
    version, flags = values
    return _outside("version", version, 1, 1) or _outside("flags", flags, 0, 1)


def _zstd(values: tuple[int, ...], _: int) -> Wrong:
    return _outside("compression_level", values[0], 1, 22)


_FORMS: Final[dict[int, tuple[str, Callable[[tuple[int, ...], int], Wrong]]]] = {
    GZIP: ("<iHH", _gzip),
    LZO: ("<ii", _lzo),
    XZ: ("<ii", _xz),
    LZ4: ("<ii", _lz4),
    ZSTD: ("<i", _zstd),
}
"""Layout and check of the options by compressor."""
