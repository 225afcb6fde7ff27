"""Tables of squashfs images in memory, their blocks stored uncompressed, for tests of single structures."""

from __future__ import annotations

from pathlib import Path

from sifkit.squashfs.metadata_blocks import MetadataBlocks, MetadataTable
from tools.squashfs_mutants import MemorySource

__all__ = ["FIXTURES", "IMAGES", "metadata_blocks", "never_inflate", "stored_stream", "stored_table"]

FIXTURES = Path(__file__).parents[2] / "fixtures" / "squashfs"
IMAGES = sorted(path.stem for path in FIXTURES.glob("*.sqfs"))


def never_inflate(data: bytes | memoryview, limit: int) -> bytes:
    raise AssertionError("nothing here is compressed")


def stored_stream(stream: bytes, block_bytes: int = 8192) -> bytes:
    """A stream of records as metadata blocks."""
    pieces = [stream[at : at + block_bytes] for at in range(0, len(stream), block_bytes)]
    return b"".join((0x8000 | len(piece)).to_bytes(2, "little") + piece for piece in pieces)


def metadata_blocks(image: bytes) -> MetadataBlocks:
    return MetadataBlocks(MemorySource(image), never_inflate)


def stored_table(stream: bytes, *, block_bytes: int = 8192, before: int = 0) -> MetadataTable:
    """A table with this content, behind ``before`` bytes of something else."""
    image = bytes(before) + stored_stream(stream, block_bytes)
    return MetadataTable(metadata_blocks(image), "table", before, len(image))
