"""The packings of tar archives, unpacked piece by piece: gzip, xz, bzip2 and zstd.

Each unpacker knows whether the stream it was given is whole: one that is cut short, even behind the archive's end, or that
holds wrong bytes is a PackingError. Zeros and garbage behind the last whole stream are ignored, as gzip and xz do. Sources: RFC
1952 (gzip), RFC 8878 (zstd: frames, blocks, skippable frames), the xz format specification, bzip2's ``compress.c``.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Protocol, cast

__all__ = ["PackingError", "RawBytes", "packing_of", "unpacked"]

XZ_MEMORY = 1 << 30
"""xz -9 needs 65 MiB to unpack; a stream that asks for more than this is refused."""
_PIECE = 1 << 18
_READ = 1 << 16

_MAGICS = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))
_PROGRAMS = {"gzip": "gzip -dc", "xz": "xz -dc", "bzip2": "bzip2 -dc", "zstd": "zstd -dc --long=31"}
_NOISE = ("Error -3 while decompressing data: ", "zstd decompress error: ")


class PackingError(Exception):
    """The packed stream cannot be unpacked. ``again``: another copy of it may be whole; else ``hint`` says what to do."""

    def __init__(self, message: str, *, again: bool = True, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.again = again
        self.hint = hint


def packing_of(head: bytes) -> str:
    """The packing that these first bytes begin (gzip, xz, bzip2, zstd), or an empty string."""
    if _is_skippable(head[:4]):
        return "zstd"
    return next((kind for magic, kind in _MAGICS if head.startswith(magic)), "")


def unpacked(kind: str, raw: RawBytes) -> Iterator[bytes]:
    """The data of all streams of this kind in ``raw``, one behind the other, in pieces of a bounded size.

    Raises PackingError, and OSError from reading.
    """
    try:
        yield from _UNPACKERS[kind](raw)
    except EOFError as error:
        raise PackingError(f"the {kind} stream is cut short") from error
    except (zlib.error, lzma.LZMAError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of reading, not of unpacking (bz2 raises OSErrors without a number)
        raise _corrupt(kind, str(error)) from error


def _corrupt(kind: str, text: str) -> PackingError:
    for noise in _NOISE:
        text = text.removeprefix(noise)
    if "emory" in text:  # xz: "Memory usage limit was exceeded", zstd: "Frame requires too much memory for decoding"
        hint = f"unpack it with {_PROGRAMS[kind]} and give the plain archive"
        return PackingError(f"the {kind} stream needs too much memory to unpack", again=False, hint=hint)
    detail = text[:1].lower() + text[1:].rstrip(".")
    return PackingError(f"the {kind} stream is corrupt" + (f": {detail}" if detail else ""))


class RawBytes:
    """A file whose first bytes were already read."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head = head
        self._file = file

    def read(self, size: int = _READ) -> bytes:
        """At most ``size`` bytes; none only at the end."""
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._file.read(size) or b""


class _Engine(Protocol):
    """How lzma and bz2 unpack: never more than ``max_length`` bytes at once."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gunzip:
    """zlib with the manners of lzma and bz2; checks the CRC and length of each gzip member."""

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
        unpacked = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self._full = len(unpacked) == max_length
        return unpacked


def _streams(raw: RawBytes, engine_of: Callable[[], _Engine], magic: bytes) -> Iterator[bytes]:
    """The data of all members or streams; EOFError where the last one is not whole."""
    data = b""
    while True:
        engine = engine_of()
        while not engine.eof:
            feed = b""
            if engine.needs_input:
                feed, data = data or raw.read(), b""
                if not feed:
                    raise EOFError
            yield engine.decompress(feed, _PIECE)
        data = engine.unused_data.lstrip(b"\0")
        while len(data) < len(magic):
            more = raw.read()
            if not more:
                return
            data = (data + more).lstrip(b"\0")
        if not data.startswith(magic):
            return


def _is_skippable(magic: bytes) -> bool:
    """Whether a zstd frame begins here that holds no data of ours (RFC 8878, 3.1.2: 0x184D2A50 to 0x184D2A5F)."""
    return len(magic) == 4 and magic[0] >> 4 == 5 and magic[1:] == b"\x2a\x4d\x18"


class _ZstdFrames:
    """The bytes of whole zstd frames, for a decompressor that does not tell a stream that was cut from one that ended.

    Follows the frames by the sizes in their headers and blocks, which costs a step for each block. What lies behind the
    last frame is not given out; EOFError where the data ends inside one.
    """

    def __init__(self, raw: RawBytes) -> None:
        self._raw = raw
        self._step: Callable[[bytes], bool] = self._magic
        self._want, self._held, self._pass = 4, b"", 0
        self._checksum = self._over = False

    def read(self, size: int) -> bytes:
        data = b"" if self._over else self._raw.read(size)
        if not data and not self._over and (self._pass or self._step != self._magic):
            raise EOFError
        return data[: self._follow(data)]

    def _follow(self, data: bytes) -> int:
        """How many of these bytes belong to frames."""
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
        """Bit 0: the last one; 2-1: its type, of which 1 is one byte repeated; above: its size."""
        header = int.from_bytes(held, "little")
        size = 1 if header >> 1 & 3 == 1 else header >> 3
        if not header & 1:
            return self._next(self._block, 3, behind=size)
        return self._next(self._magic, 4, behind=size + 4 * self._checksum)


def _unzstd(raw: RawBytes) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        hint = "install that, or unpack it with zstd -dc and give the plain archive"
        raise PackingError("unpacking zstd needs the Python module zstandard", again=False, hint=hint) from None
    frames = cast("IO[bytes]", _ZstdFrames(raw))
    with zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True, closefd=False) as reader:
        while True:
            try:
                piece = reader.read1(_PIECE)
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from error
            if not piece:
                return
            yield piece


_UNPACKERS: dict[str, Callable[[RawBytes], Iterator[bytes]]] = {
    "gzip": lambda raw: _streams(raw, _Gunzip, b"\x1f\x8b"),
    "xz": lambda raw: _streams(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY), b"\xfd7zXZ\0"),
    "bzip2": lambda raw: _streams(raw, bz2.BZ2Decompressor, b"BZh"),
    "zstd": _unzstd,
}
