"""Compressors of squashfs: decompression of one block, with a limit of its size.

Every codec releases the interpreter's lock while it works, so threads decompress side by side. The functions may be called from
any thread. Libraries are loaded when an image needs them. Numbers of compressors: the kernel's ``squashfs_fs.h``; what their
blocks look like: the compressor wrappers of squashfs-tools and the kernel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from .errors import CorruptSquashfsError, MissingCodecError, UnsupportedSquashfsError

__all__ = ["COMPRESSORS", "Inflate", "decompressor"]

Inflate = Callable[[bytes | memoryview, int], bytes]
"""``inflate(data, limit)``: the decompressed bytes. Raises CorruptSquashfsError, without a place, if the data is damaged or
decompresses to more than ``limit`` bytes."""

GZIP, LZMA, LZO, XZ, LZ4, ZSTD = range(1, 7)
COMPRESSORS: Final = {GZIP: "gzip", LZMA: "lzma", LZO: "lzo", XZ: "xz", LZ4: "lz4", ZSTD: "zstd"}
"""Names of the compressors by their numbers in the superblock."""

LZMA_MEMORY = 32 << 20
"""Memory for lzma and xz. Dictionaries are not larger than a block, which has at most 1 MiB."""
ZSTD_WINDOW = 8 << 20
"""Largest window of zstd, as its own tools allow by default. That of a block is not larger than the block."""
LZMA_PROPERTIES, LZMA_HEADER = 5, 13
"""Header of an lzma stream: properties, then the uncompressed size in 8 bytes."""
SIZE_UNKNOWN = b"\xff" * 8


def decompressor(compression: int) -> Inflate:
    """Return the decompressor of a compressor's number. Raises UnsupportedSquashfsError and MissingCodecError."""
    load = _LOADERS.get(compression)
    if load is None:
        raise UnsupportedSquashfsError(f"compressor {compression}")
    return load()


def _damaged(codec: str) -> CorruptSquashfsError:
    return CorruptSquashfsError("compressed block", f"its {codec} data is damaged")


def _too_large(limit: int) -> CorruptSquashfsError:
    return CorruptSquashfsError("compressed block", "uncompressed size", f"more than {limit}", f"at most {limit}")


def _load_gzip() -> Inflate:
    """zlib streams: by libdeflate where it is installed, which takes a third of the time."""
    try:
        import deflate
    except ImportError:
        return _with_zlib()

    def with_libdeflate(data: bytes | memoryview, limit: int) -> bytes:
        try:
            return bytes(deflate.zlib_decompress(data, limit))
        except deflate.DeflateError:
            return _with_zlib()(data, limit)  # which tells what is wrong

    return with_libdeflate


def _with_zlib() -> Inflate:
    import zlib

    def inflate(data: bytes | memoryview, limit: int) -> bytes:
        stream = zlib.decompressobj()
        try:
            found = stream.decompress(data, limit + 1)
        except zlib.error as error:
            raise _damaged("gzip") from error
        if len(found) > limit:
            raise _too_large(limit)
        if not stream.eof:
            raise _damaged("gzip")
        return found

    return inflate


def _load_lzma() -> Inflate:
    """lzma streams (".lzma"), with the size in the header.

    squashfs-tools write the size and a marker of the end, which decoders did not always allow together, so it is decompressed
    as a stream of unknown size.
    """
    import lzma

    def inflate(data: bytes | memoryview, limit: int) -> bytes:
        size = int.from_bytes(data[LZMA_PROPERTIES:LZMA_HEADER], "little")
        if len(data) < LZMA_HEADER:
            raise _damaged("lzma")
        if size > limit:
            raise _too_large(limit)
        stream = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=LZMA_MEMORY)
        try:
            head = stream.decompress(bytes(data[:LZMA_PROPERTIES]) + SIZE_UNKNOWN, size)
            found = head + stream.decompress(data[LZMA_HEADER:], size - len(head))
            rest = b"" if stream.eof else stream.decompress(b"", 1)  # the marker of the end is read
        except (lzma.LZMAError, EOFError, MemoryError) as error:
            raise _damaged("lzma") from error
        if len(found) != size or rest or not (stream.eof or stream.needs_input):
            raise _damaged("lzma")
        return found

    return inflate


def _load_xz() -> Inflate:
    """xz streams, with any filters that liblzma has."""
    import lzma

    def inflate(data: bytes | memoryview, limit: int) -> bytes:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY)
        try:
            found = stream.decompress(data, limit + 1)
        except (lzma.LZMAError, EOFError, MemoryError) as error:
            raise _damaged("xz") from error
        if len(found) > limit:
            raise _too_large(limit)
        if not stream.eof:
            raise _damaged("xz")
        return found

    return inflate


def _load_lzo() -> Inflate:
    """LZO1X. Its library has no limit: a block takes up to 255 times its compressed size for a moment before it is refused."""
    try:
        from lzallright import LZOCompressor, LZOError
    except ImportError:
        raise MissingCodecError("lzo", "lzallright") from None

    def inflate(data: bytes | memoryview, limit: int) -> bytes:
        try:
            found: bytes = LZOCompressor.decompress(data, limit)
        except LZOError:
            raise _damaged("lzo") from None  # the error may hold the decompressed data
        if len(found) > limit:
            raise _too_large(limit)
        return found

    return inflate


def _load_lz4() -> Inflate:
    """lz4 blocks without a frame."""
    try:
        import lz4.block
    except ImportError:
        raise MissingCodecError("lz4", "lz4") from None

    def inflate(data: bytes | memoryview, limit: int) -> bytes:
        try:
            found: bytes = lz4.block.decompress(data, uncompressed_size=limit)
        except (lz4.block.LZ4BlockError, ValueError) as error:
            raise _damaged("lz4") from error  # also if it is too large: the library does not tell
        return found

    return inflate


def _load_zstd() -> Inflate:
    """zstd frames."""
    try:
        import zstandard
    except ImportError:
        raise MissingCodecError("zstd", "zstandard") from None
    local = threading.local()  # a decompressor serves one call at a time

    def inflate(data: bytes | memoryview, limit: int) -> bytes:
        try:
            stream = local.stream
        except AttributeError:
            stream = local.stream = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        try:
            if zstandard.frame_content_size(data) > limit:  # the library would allocate it
                raise _too_large(limit)
            found: bytes = stream.decompress(data, max_output_size=limit, allow_extra_data=False)
        except (zstandard.ZstdError, MemoryError) as error:
            raise _damaged("zstd") from error
        return found

    return inflate


_LOADERS: Final[dict[int, Callable[[], Inflate]]] = {
    GZIP: _load_gzip,
    LZMA: _load_lzma,
    LZO: _load_lzo,
    XZ: _load_xz,
    LZ4: _load_lz4,
    ZSTD: _load_zstd,
}
