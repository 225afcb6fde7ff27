"""Compressed streams of tar archives, decompressed piece by piece: gzip, xz, bzip2 and zstd.

A stream that is cut short, even behind the archive's end, or that holds wrong bytes is a CompressionError. Zeros and garbage
behind the last whole stream are ignored, as gzip and xz do. Sources: RFC 1952 (gzip), RFC 8878 (zstd: frames, blocks,
skippable frames), the xz format specification, bzip2's ``compress.c``.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Protocol, cast

from .errors import StreamProblem

__all__ = ["CompressionError", "PeekedFile", "compression_of", "decompressed"]

XZ_MEMORY = 1 << 30
"""xz -9 needs 65 MiB to decompress; a stream that asks for more than this is refused."""
_PIECE = 1 << 18
_READ = 1 << 16

_MAGICS = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))
_NOISE = ("Error -3 while decompressing data: ", "zstd decompress error: ")


class CompressionError(Exception):
    """Stream that cannot be decompressed. ``problem`` says why; ``message`` is one line without the file's name."""

    def __init__(self, message: str, problem: StreamProblem) -> None:
        super().__init__(message)
        self.message = message
        self.problem = problem


def compression_of(head: bytes) -> str:
    """The format that these first bytes begin (gzip, xz, bzip2, zstd), or an empty string."""
    if _is_skippable(head[:4]):
        return "zstd"
    return next((codec for magic, codec in _MAGICS if head.startswith(magic)), "")


def decompressed(codec: str, file: PeekedFile) -> Iterator[bytes]:
    """The data of all streams in ``file``, one behind the other, in pieces of a bounded size.

    ``codec``: as ``compression_of`` names it. Raises CompressionError, and OSError from reading.
    """
    try:
        yield from _DECOMPRESSORS[codec](file)
    except EOFError as error:
        raise CompressionError(f"the {codec} stream is cut short", "truncated") from error
    except (zlib.error, lzma.LZMAError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of reading, not of decompressing (bz2 raises OSErrors without a number)
        raise _corrupt(codec, str(error)) from error


def _corrupt(codec: str, text: str) -> CompressionError:
    for noise in _NOISE:
        text = text.removeprefix(noise)
    if "emory" in text:  # xz: "Memory usage limit was exceeded", zstd: "Frame requires too much memory for decoding"
        return CompressionError(f"the {codec} stream needs too much memory to unpack", "memory")
    detail = text[:1].lower() + text[1:].rstrip(".")
    return CompressionError(f"the {codec} stream is corrupt" + (f": {detail}" if detail else ""), "corrupt")


class PeekedFile:
    """File whose first bytes, ``head``, were read already; they are read again. ``advance`` is told how many bytes are read."""

    def __init__(self, head: bytes, file: IO[bytes], advance: Callable[[int], None] | None = None) -> None:
        self._head = head
        self._file = file
        self._advance = advance

    def read(self, size: int = _READ) -> bytes:
        """At most ``size`` bytes; none only at the end."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
        else:
            data = self._file.read(size) or b""
        if self._advance is not None:
            self._advance(len(data))
        return data


class _Engine(Protocol):
    """Decompressor object of lzma and bz2; gives at most ``max_length`` bytes at once."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gunzip:
    """zlib with the interface of lzma and bz2; checks the CRC and length of each gzip member."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._full and not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self._full = len(piece) == max_length
        return piece


def _streams(file: PeekedFile, engine_of: Callable[[], _Engine], magic: bytes) -> Iterator[bytes]:
    """The data of all members or streams; EOFError where the last one is not whole."""
    data = b""
    while True:
        engine = engine_of()
        while not engine.eof:
            feed = b""
            if engine.needs_input:
                feed, data = data or file.read(), b""
                if not feed:
                    raise EOFError
            yield engine.decompress(feed, _PIECE)
        data = engine.unused_data.lstrip(b"\0")
        while len(data) < len(magic):
            more = file.read()
            if not more:
                return
            data = (data + more).lstrip(b"\0")
        if not data.startswith(magic):
            return


def _is_skippable(magic: bytes) -> bool:
    """Return True if these bytes begin a skippable zstd frame, without data (RFC 8878, 3.1.2: 0x184D2A50 to 0x184D2A5F)."""
    return len(magic) == 4 and magic[0] >> 4 == 5 and magic[1:] == b"\x2a\x4d\x18"


class _ZstdFrames:
    """Bytes of whole zstd frames, for a decompressor that takes the end of a cut stream for the end of a whole one.

    Follows the frames by the sizes in their headers and blocks, one step a block. What lies behind the last frame is not
    given out; EOFError if the data ends inside one.
    """

    def __init__(self, file: PeekedFile) -> None:
        self._file = file
        self._step: Callable[[bytes], bool] = self._magic
        self._want, self._held, self._pass = 4, b"", 0
        self._checksum = self._over = False

    def read(self, size: int) -> bytes:
        data = b"" if self._over else self._file.read(size)
        if not data and not self._over and (self._pass or self._step != self._magic):
            raise EOFError
        return data[: self._follow(data)]

    def _follow(self, data: bytes) -> int:
        """Return how many of these bytes belong to frames."""
        at = 0
        while at < len(data):
            if self._pass:
                step = min(self._pass, len(data) - at)
                self._pass -= step
                at += step
                continue
            piece = data[at : at + self._want - len(self._held)]
            self._held += piece
            at += len(piece)
            if len(self._held) == self._want:
                held, self._held = self._held, b""
                if not self._step(held):
                    self._over = True
                    return max(0, at - len(held))
        return at

    def _next(self, step: Callable[[bytes], bool], want: int, *, behind: int = 0) -> bool:
        self._step, self._want, self._pass = step, want, behind
        return True

    def _magic(self, held: bytes) -> bool:
        if held == b"\x28\xb5\x2f\xfd":
            return self._next(self._descriptor, 1)
        return _is_skippable(held) and self._next(self._skippable, 4)

    def _skippable(self, held: bytes) -> bool:
        return self._next(self._magic, 4, behind=int.from_bytes(held, "little"))

    def _descriptor(self, held: bytes) -> bool:
        """Bits 7-6: width of the content's size; 5: one segment, no window byte; 2: checksum; 1-0: width of the dictionary."""
        flags = held[0]
        single = flags >> 5 & 1
        self._checksum = bool(flags & 4)
        content_size = (single, 2, 4, 8)[flags >> 6]
        return self._next(self._block, 3, behind=1 - single + (0, 1, 2, 4)[flags & 3] + content_size)

    def _block(self, held: bytes) -> bool:
        """Bit 0: last block; bits 2-1: type, of which 1 is one byte repeated; above: size."""
        header = int.from_bytes(held, "little")
        size = 1 if header >> 1 & 3 == 1 else header >> 3
        if not header & 1:
            return self._next(self._block, 3, behind=size)
        return self._next(self._magic, 4, behind=size + 4 * self._checksum)


def _unzstd(file: PeekedFile) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise CompressionError("unpacking zstd needs the Python module zstandard", "module") from None
    frames = cast("IO[bytes]", _ZstdFrames(file))
    with zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True, closefd=False) as reader:
        while True:
            try:
                piece = reader.read1(_PIECE)
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from error
            if not piece:
                return
            yield piece


_DECOMPRESSORS: dict[str, Callable[[PeekedFile], Iterator[bytes]]] = {
    "gzip": lambda file: _streams(file, _Gunzip, b"\x1f\x8b"),
    "xz": lambda file: _streams(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY), b"\xfd7zXZ\0"),
    "bzip2": lambda file: _streams(file, bz2.BZ2Decompressor, b"BZh"),
    "zstd": _unzstd,
}
