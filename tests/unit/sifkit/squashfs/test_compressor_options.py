"""Options of compressors: what mksquashfs writes is right, what no tool accepts is not."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from sifkit.squashfs.codecs import GZIP, LZ4, LZMA, LZO, XZ, ZSTD, decompressor
from sifkit.squashfs.compressor_options import check_compressor_options
from sifkit.squashfs.errors import CorruptSquashfsError
from sifkit.squashfs.metadata_blocks import MetadataBlocks

from ....support.squashfs_data import MemorySource

START = 96


def check(compression: int, options: bytes | None, block_size: int = 131072) -> int:
    raw = b"" if options is None else struct.pack("<H", len(options) | 0x8000) + options
    source = MemorySource(bytes(START) + raw + bytes(100))
    superblock = SimpleNamespace(
        has_compressor_options=options is not None,
        compression=compression,
        inode_table_start=source.size,
        block_size=block_size,
    )
    return check_compressor_options(MetadataBlocks(source, decompressor(GZIP)), superblock)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("compression", "options"),
    [
        (GZIP, struct.pack("<iHH", 9, 15, 0)),
        (GZIP, struct.pack("<iHH", 1, 8, 31)),
        (LZO, struct.pack("<ii", 0, 0)),
        (LZO, struct.pack("<ii", 4, 9)),
        (XZ, struct.pack("<ii", 131072, 0)),
        (XZ, struct.pack("<ii", 8192 + 16384, 0x3F)),
        (LZ4, struct.pack("<ii", 1, 1)),
        (ZSTD, struct.pack("<i", 22)),
    ],
)
def test_sound_options_end_where_data_may_begin(compression: int, options: bytes) -> None:
    assert check(compression, options) == START + 2 + len(options)


@pytest.mark.parametrize("compression", (GZIP, LZMA, LZO, XZ, ZSTD))
def test_images_without_options(compression: int) -> None:
    assert check(compression, None) == START


def test_lz4_needs_options() -> None:
    with pytest.raises(CorruptSquashfsError, match=r"compressor options at byte 96: there are none, which lz4 needs"):
        check(LZ4, None)


@pytest.mark.parametrize(
    ("compression", "options", "wrong"),
    [
        (GZIP, struct.pack("<iHH", 0, 15, 0), "compression_level is 0, want 1 to 9"),
        (GZIP, struct.pack("<iHH", 9, 16, 0), "window_size is 16, want 8 to 15"),
        (GZIP, struct.pack("<iHH", 9, 15, 32), "strategy is 32, want 0 to 31"),
        (GZIP, b"four", "size is 4, want 8"),
        (LZO, struct.pack("<ii", 5, 0), "algorithm is 5, want 0 to 4"),
        (LZO, struct.pack("<ii", 4, 10), "compression_level is 10, want 0 to 9"),
        (XZ, struct.pack("<ii", 5 << 12, 0), "dictionary_size is 20480, want 2.n or"),
        (XZ, struct.pack("<ii", 262144, 0), "dictionary_size is 262144, want 1 to 131072"),
        (XZ, struct.pack("<ii", 0, 0), "dictionary_size is 0"),
        (XZ, struct.pack("<ii", -8192, 0), "dictionary_size is -8192"),
        (XZ, struct.pack("<ii", 8192, 0x100), "flags is 256, want 0 to 255"),
        (LZ4, struct.pack("<ii", 2, 0), "version is 2, want 1 to 1"),
        (LZ4, struct.pack("<ii", 1, 2), "flags is 2, want 0 to 1"),
        (ZSTD, struct.pack("<i", 23), "compression_level is 23, want 1 to 22"),
        (LZMA, b"some", "size is 4, want none for this compressor"),
    ],
)
def test_wrong_options(compression: int, options: bytes, wrong: str) -> None:
    with pytest.raises(CorruptSquashfsError, match=f"compressor options at byte 96: {wrong}"):
        check(compression, options)
