"""The bytes of a tar archive, wherever they come from: a file, a pipe, packed with gzip, xz, bzip2 or zstd.

An archive is read forwards, once. The data of its files is then found in a ``Store``: an unpacked archive that can be
sought in is its own store and nothing is copied; what comes from a pipe or a packed archive is put back to back into a
spool. The kind is told by the first bytes, never by the name. Source of the magics: RFC 1952 (gzip), the xz and zstd
format specifications, bzip2's ``compress.c``.
"""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Protocol, cast

from ..device import PathOrFile
from ..errors import SourceError, show
from .tarstore import FileStore, Spool, Store

__all__ = ["BLOCK", "Archive", "open_archive"]

Directory = str | bytes | os.PathLike[str]

BLOCK = 512
DRAIN_LIMIT = 64 << 20
"""So much behind the end marker of a packed archive is unpacked, for the checksum of the packed data lies behind it."""
XZ_MEMORY = 1 << 30
"""xz -9 needs 65 MiB to unpack; an archive that asks for more than this is refused."""
_PIECE = 1 << 18
_READ = 1 << 16

_MAGICS = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))
_OTHERS = (
    (b"\x04\x22\x4d\x18", "lz4 data"),
    (b"LZIP", "lzip data"),
    (b"\x1f\x9d", "compress (.Z) data"),
    (b"\x5d\0\0", "old lzma data"),
    (b"PK", "a zip archive"),
    (b"hsqs", "a squashfs image"),
    (b"#!/usr/bin/env run-singularity", "a SIF image"),
    (b"#!", "a script"),
)


class Archive:
    """An archive read forwards. ``position`` is the offset of the next byte in the unpacked archive."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.position = 0

    def trouble(self, message: str, at: int | None = None, *, error: OSError | None = None, hint: str = "") -> SourceError:
        """The error to raise, with the archive's name and the byte where the trouble is."""
        where = "" if at is None else f" (at byte {at})"
        return SourceError(self.name, message + where, error=error, hint=hint)

    def cut_off(self, what: bytes | str) -> SourceError:
        return self.trouble(
            f"the archive is truncated: it ends inside {show(what[:200])}", self.position, hint="get a complete copy of it"
        )

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer only at the end. The caller has checked that ``size`` is small."""
        raise NotImplementedError

    def keep(self, size: int, what: bytes | str) -> int:
        """Passes over ``size`` bytes of file data; the offset where the store will have them."""
        raise NotImplementedError

    def skip(self, size: int, what: bytes | str) -> None:
        """Passes over ``size`` bytes nobody wants."""
        raise NotImplementedError

    def finish(self) -> Store:
        """The store of what was kept; called once, behind the end marker."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of everything, after a failure."""
        raise NotImplementedError


class _SeekableArchive(Archive):
    """An unpacked archive in a file: data stays where it is. Begins where the file stands."""

    def __init__(self, name: bytes, file: IO[bytes], *, owned: bool) -> None:
        super().__init__(name)
        self._file = file
        self._base = file.tell()
        self._total = max(0, file.seek(0, os.SEEK_END) - self._base)
        self._at = -1
        self._store = FileStore(file, owned=owned, stable=False)

    def read(self, size: int) -> bytes:
        try:
            if self._at != self.position:
                self._file.seek(self._base + self.position)
            data = _read_fully(self._file, size)
        except OSError as error:
            raise self.trouble(f"reading failed: {error.strerror}", self.position, error=error) from error
        self.position += len(data)
        self._at = self.position
        return data

    def keep(self, size: int, what: bytes | str) -> int:
        offset = self._base + self.position
        self.skip(size, what)
        return offset

    def skip(self, size: int, what: bytes | str) -> None:
        if size > self._total - self.position:
            left = max(0, self._total - self.position)
            raise self.trouble(
                f"the archive is truncated: {show(what[:200])} has {size} bytes and only {left} follow",
                self.position,
                hint="get a complete copy of it",
            )
        self.position += size

    def finish(self) -> Store:
        return self._store

    def close(self) -> None:
        self._store.close()


class _PipedArchive(Archive):
    """An archive that comes in pieces: file data goes to a spool."""

    def __init__(self, name: bytes, pieces: Iterator[bytes], packed: str, spool: Spool, closing: Callable[[], None]) -> None:
        super().__init__(name)
        self._pieces = pieces
        self._packed = packed
        self._spool = spool
        self._closing = closing
        self._piece = memoryview(b"")

    def _more(self) -> bool:
        """Whether there is a next byte; it is in ``_piece`` then."""
        try:
            while not self._piece:
                piece = next(self._pieces, None)
                if piece is None:
                    return False
                self._piece = memoryview(piece)
        except (OSError, EOFError, ValueError, MemoryError, zlib.error, lzma.LZMAError) as error:
            text = (getattr(error, "strerror", None) or str(error) or "it ends early").rstrip(".")
            message = f"the {self._packed} data is damaged: {text}" if self._packed else f"reading failed: {text}"
            cause = error if isinstance(error, OSError) and error.errno else None
            raise self.trouble(message, self.position, error=cause) from error
        return True

    def read(self, size: int) -> bytes:
        if len(self._piece) >= size:
            data = bytes(self._piece[:size])
            self._piece = self._piece[size:]
        else:
            parts = []
            left = size
            while left and self._more():
                parts.append(bytes(self._piece[:left]))
                self._piece = self._piece[left:]
                left -= len(parts[-1])
            data = b"".join(parts)
        self.position += len(data)
        return data

    def keep(self, size: int, what: bytes | str) -> int:
        offset = self._spool.size
        try:
            self._pass(size, what, self._spool.write)
        except OSError as error:
            if isinstance(error, SourceError):
                raise
            hint = "it needs room for the unpacked archive; choose another temporary directory"
            raise self.trouble(f"writing its temporary file failed: {error.strerror}", error=error, hint=hint) from error
        return offset

    def skip(self, size: int, what: bytes | str) -> None:
        self._pass(size, what, None)

    def _pass(self, size: int, what: bytes | str, sink: Callable[[memoryview], None] | None) -> None:
        while size:
            if not self._more():
                raise self.cut_off(what)
            piece = self._piece[:size]
            self._piece = self._piece[len(piece) :]
            if sink:
                sink(piece)
            self.position += len(piece)
            size -= len(piece)

    def finish(self) -> Store:
        if self._packed:
            limit = self.position + DRAIN_LIMIT
            while self.position < limit and self._more():
                self.position += len(self._piece)
                self._piece = memoryview(b"")
        self._closing()
        return self._spool.finish()

    def close(self) -> None:
        self._spool.close()
        self._closing()


def open_archive(source: PathOrFile, is_header: Callable[[bytes], bool], *, spool_dir: Directory | None = None) -> Archive:
    """The archive at ``source``: a path, or a binary file object, which stays the caller's and is read from where it stands.

    ``is_header`` says whether a block of 512 bytes begins an unpacked archive. Raises SourceError for what cannot be read,
    is empty or is something else.
    """
    owned = isinstance(source, (str, bytes, os.PathLike))
    name = _name_of(source)
    try:
        file = open(source, "rb", buffering=_READ) if isinstance(source, (str, bytes, os.PathLike)) else source  # noqa: SIM115
    except IsADirectoryError as error:
        raise SourceError(name, "is a directory, not an archive", error=error) from error
    except OSError as error:
        raise SourceError(name, f"cannot be opened: {error.strerror}", error=error) from error
    try:
        return _recognise(name, file, owned, is_header, spool_dir)
    except OSError as error:
        if owned:
            file.close()
        if isinstance(error, SourceError):
            raise
        raise SourceError(name, f"reading failed: {error.strerror or error}", error=error) from error


def _recognise(
    name: bytes,
    file: IO[bytes],
    owned: bool,
    is_header: Callable[[bytes], bool],
    spool_dir: Directory | None,
) -> Archive:
    seekable = file.seekable()
    start = file.tell() if seekable else 0
    head = _read_fully(file, BLOCK)
    if not head:
        raise SourceError(name, "is empty: not a tar archive")
    packed = ""
    if not (len(head) == BLOCK and is_header(head)):
        zstd_skippable = len(head) > 4 and head[0] >> 4 == 5 and head[1:4] == b"\x2a\x4d\x18"
        packed = "zstd" if zstd_skippable else next((kind for magic, kind in _MAGICS if head.startswith(magic)), "")
        if not packed:
            what = next((what for magic, what in _OTHERS if head.startswith(magic)), "")
            raise SourceError(
                name,
                f"is {what}, not a tar archive" if what else "is not a tar archive",
                hint="tar archives are taken plain or packed with gzip, xz, bzip2 or zstd",
            )
    if seekable and not packed:
        file.seek(start)
        return _SeekableArchive(name, file, owned=owned)
    raw = _Raw(head, file)
    pieces = _OPENERS[packed](raw) if packed else iter(lambda: raw.read(_PIECE), b"")
    return _PipedArchive(name, pieces, packed, Spool(spool_dir), file.close if owned else _nothing)


def _nothing() -> None:
    """Closes nothing: the file is the caller's."""


class _Raw:
    """A file whose first bytes were already read."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head = head
        self._file = file

    def read(self, size: int = _READ) -> bytes:
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


def _unpacked(raw: _Raw, engine_of: Callable[[], _Engine], magic: bytes) -> Iterator[bytes]:
    """The data of all members or streams, one behind the other; zeros and garbage behind the last are ignored."""
    data = b""
    while True:
        engine = engine_of()
        while not engine.eof:
            feed = b""
            if engine.needs_input:
                feed, data = data or raw.read(), b""
                if not feed:
                    raise EOFError("it ends early")
            yield engine.decompress(feed, _PIECE)
        data = engine.unused_data.lstrip(b"\0")
        while len(data) < len(magic):
            more = raw.read()
            if not more:
                return
            data = (data + more).lstrip(b"\0")
        if not data.startswith(magic):
            return


def _unzstd(raw: _Raw) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise ValueError("the module zstandard is not installed") from None
    begun = False
    with zstandard.ZstdDecompressor().stream_reader(cast("IO[bytes]", raw), read_across_frames=True, closefd=False) as reader:
        while True:
            try:
                piece = reader.read1(_PIECE)
            except zstandard.ZstdError as error:
                if begun and "Unknown frame descriptor" in str(error):
                    return  # garbage behind the last frame
                raise ValueError(str(error)) from error
            if not piece:
                return
            begun = True
            yield piece


_OPENERS: dict[str, Callable[[_Raw], Iterator[bytes]]] = {
    "gzip": lambda raw: _unpacked(raw, _Gunzip, b"\x1f\x8b"),
    "xz": lambda raw: _unpacked(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY), b"\xfd7zXZ\0"),
    "bzip2": lambda raw: _unpacked(raw, bz2.BZ2Decompressor, b"BZh"),
    "zstd": _unzstd,
}


def _read_fully(file: IO[bytes], size: int) -> bytes:
    data = file.read(size) or b""
    while data and len(data) < size:
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data


def _name_of(source: PathOrFile) -> bytes:
    if isinstance(source, (str, bytes, os.PathLike)):
        return os.fsencode(source)
    name = getattr(source, "name", None)
    if isinstance(name, (str, bytes)):
        return b"standard input" if name in ("<stdin>", b"<stdin>") else os.fsencode(show(name))
    return b"standard input" if name == 0 else b"archive"
