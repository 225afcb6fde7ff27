"""Tar archives as streams of bytes: from a file, a pipe, compressed or not (see ``codecs``).

An archive is read forwards, once; afterwards the data of its files is in a store (see ``store``). An uncompressed archive that
can be sought in is its own store, and nothing is copied; from a pipe or a compressed archive data is copied back to back into
a spool. The first bytes decide what it is, never the name.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import IO

from ..errors import show
from .codecs import CompressionError, PeekedFile, compression_of, decompressed
from .errors import (
    ArchiveError,
    ArchiveOpenError,
    CompressedStreamError,
    ContentLimitError,
    EmptyArchiveError,
    NotTarError,
    SpoolError,
    TruncatedArchiveError,
)
from .header import BLOCK, is_header
from .store import FileMemberStore, MemberData, Spool

__all__ = ["STDIN", "Archive", "ArchiveSource", "SpoolDirectory", "open_archive"]

HostPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
ArchiveSource = HostPath | IO[bytes]
SpoolDirectory = str | bytes | os.PathLike[str]

STDIN = b"standard input"
"""``path`` of an archive that is piped in."""
DRAIN_LIMIT = 64 << 20
"""Bytes decompressed behind the end marker of a compressed archive, to reach the stream's checksum."""
NAME_SHOWN = 200
_PIECE = 1 << 18
_READ = 1 << 16

_OTHERS = (
    (b"\x04\x22\x4d\x18", "lz4 data"),
    (b"LZIP", "lzip data"),
    (b"\x1f\x9d", "compress (.Z) data"),
    (b"\x5d\0\0", "old lzma data"),
    (b"PK", "a zip archive"),
    (b"hsqs", "a squashfs image"),
    (b"#!/usr/bin/env run-singularity", "a SIF image"),
    (b"#!", "a script"),
    (b"<!", "a web page"),
    (b"<html", "a web page"),
    (b"{", "JSON text"),
)


class Archive(ABC):
    """Archive that is read forwards. ``position``: offset of the next byte of the decompressed archive.

    ``path``: the archive's, for errors; ``compression``: what it is compressed with, or empty. All methods raise ArchiveError.
    """

    def __init__(self, path: bytes, compression: str = "") -> None:
        self.path = path
        self.compression = compression
        self.position = 0
        self.has_end_marker = True
        """False once its entries were read and no block of zeros follows them."""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer only at the end. The caller has checked that ``size`` is small."""

    @abstractmethod
    def store_data(self, size: int, member: bytes) -> int:
        """Moves ``size`` bytes of a member's data to the store; their offset there."""

    @abstractmethod
    def skip(self, size: int, member: bytes) -> None:
        """Moves ``size`` bytes forward."""

    @abstractmethod
    def discard(self, offset: int, size: int) -> None:
        """Takes back data that was stored at ``offset``: nobody will read it."""

    @abstractmethod
    def finish(self) -> MemberData:
        """The data that was stored; called once, behind the end marker."""

    @abstractmethod
    def close(self) -> None:
        """Closes everything, after a failure."""

    def truncated(self, detail: str, member: bytes | None = None) -> TruncatedArchiveError:
        """The error of an archive that ends at ``position``."""
        return TruncatedArchiveError(self.path, detail, member=member, offset=self.position, compression=self.compression)

    def ends_inside(self, what: str) -> TruncatedArchiveError:
        """The error of an archive that ends in the middle of a header or a map."""
        return self.truncated(f"it ends inside {what}")

    def _read_error(self, error: OSError | ValueError) -> ArchiveError:
        cause = error if isinstance(error, OSError) else None
        text = (cause and cause.strerror) or str(error)
        return ArchiveError(
            self.path, f"reading failed: {text}", offset=self.position, compression=self.compression, error=cause
        )


class _SeekableArchive(Archive):
    """Uncompressed archive in a file, from where the file stands: data stays where it is."""

    def __init__(self, path: bytes, file: IO[bytes], *, owned: bool, advance: Callable[[int], None] | None = None) -> None:
        super().__init__(path)
        self._advance = advance
        self._file = file
        self._base = file.tell()
        self._total = max(0, file.seek(0, os.SEEK_END) - self._base)
        self._at = -1
        self._store = FileMemberStore(file, owned=owned, stable=False)

    def read(self, size: int) -> bytes:
        try:
            if self._at != self.position:
                self._file.seek(self._base + self.position)
            data = _read_fully(self._file, size)
        except OSError as error:
            raise self._read_error(error) from error
        self._move(len(data))
        self._at = self.position
        return data

    def _move(self, size: int) -> None:
        self.position += size
        if self._advance is not None:
            self._advance(size)

    def store_data(self, size: int, member: bytes) -> int:
        offset = self._base + self.position
        self.skip(size, member)
        return offset

    def skip(self, size: int, member: bytes) -> None:
        if size > self._total - self.position:
            left = max(0, self._total - self.position)
            raise self.truncated(f"{show(member[:NAME_SHOWN])} has {size:,} bytes and only {left:,} follow", member)
        self._move(size)

    def discard(self, offset: int, size: int) -> None:
        """Changes nothing: the data is the archive's."""

    def finish(self) -> MemberData:
        return MemberData(self.path, self._store)

    def close(self) -> None:
        self._store.close()


class _PipedArchive(Archive):
    """Archive that comes in pieces: data is copied to a spool, until it holds more than ``data_limit``."""

    def __init__(
        self,
        path: bytes,
        pieces: Iterator[bytes],
        compression: str,
        spool: Spool,
        close_source: Callable[[], None],
        data_limit: int | None,
    ) -> None:
        super().__init__(path, compression)
        self._pieces = pieces
        self._spool = spool
        self._close_source = close_source
        self._data_limit = data_limit
        self._held = 0
        self._piece = memoryview(b"")

    def _more(self) -> bool:
        """Return True if there is a next byte, in ``_piece``."""
        try:
            while not self._piece:
                piece = next(self._pieces, None)
                if piece is None:
                    return False
                self._piece = memoryview(piece)
        except CompressionError as error:
            offset = self.position if error.problem in ("truncated", "corrupt") else None
            raise CompressedStreamError(
                self.path, error.message, problem=error.problem, offset=offset, compression=self.compression
            ) from error
        except (OSError, ValueError) as error:
            raise self._read_error(error) from error
        return True

    def first_block(self) -> bytes:
        """The first 512 bytes, fewer if it is shorter; they are read again afterwards."""
        block = self.read(BLOCK)
        self._piece = memoryview(block + self._piece.tobytes())
        self.position = 0
        return block

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

    def store_data(self, size: int, member: bytes) -> int:
        # what it holds may be replaced by this member, so only the next one would be too much
        needed = max(size, self._held)
        if self._data_limit is not None and needed > self._data_limit:
            raise ContentLimitError(self.path, needed_bytes=needed, limit_bytes=self._data_limit, compression=self.compression)
        offset = self._spool.size
        self._pass(size, member, self._write_spool)
        self._held += size
        return offset

    def discard(self, offset: int, size: int) -> None:
        self._held -= size
        self._spool.discard(offset, size)

    def skip(self, size: int, member: bytes) -> None:
        self._pass(size, member, None)

    def _pass(self, size: int, member: bytes, sink: Callable[[memoryview], None] | None) -> None:
        while size:
            if not self._more():
                raise self.truncated(f"it ends inside {show(member[:NAME_SHOWN])}", member)
            piece = self._piece[:size]
            self._piece = self._piece[len(piece) :]
            if sink:
                sink(piece)
            self.position += len(piece)
            size -= len(piece)

    def _write_spool(self, data: memoryview) -> None:
        try:
            self._spool.write(data)
        except OSError as error:
            raise SpoolError(
                self.path,
                self._spool.directory,
                written=self._spool.written,
                compression=self.compression,
                error=error,
            ) from error

    def finish(self) -> MemberData:
        if self.compression:
            limit = self.position + DRAIN_LIMIT
            while self.position < limit and self._more():
                self.position += len(self._piece)
                self._piece = memoryview(b"")
        self._close_source()
        return MemberData(self.path, self._spool.finish())

    def close(self) -> None:
        self._spool.close()
        self._close_source()


def open_archive(
    source: ArchiveSource,
    *,
    spool_dir: SpoolDirectory | None = None,
    data_limit: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Archive:
    """The archive at ``source``: a path, or a binary file object, which stays the caller's and is read from where it stands.

    ``data_limit``: of data in the spool; beyond it reading raises ContentLimitError. ``advance`` is told how many bytes of the
    source are read or passed over. Raises ArchiveOpenError, NotTarError and
    ArchiveError.
    """
    owned = isinstance(source, (str, bytes, os.PathLike))
    path = _path_of(source)
    try:
        file = open(source, "rb", buffering=_READ) if isinstance(source, (str, bytes, os.PathLike)) else source  # noqa: SIM115
    except IsADirectoryError as error:
        raise ArchiveOpenError(path, "is a directory, not an archive", error=error) from error
    except OSError as error:
        raise ArchiveOpenError(path, error.strerror or "cannot be opened", error=error) from error
    try:
        return _recognise(path, file, owned, spool_dir, data_limit, advance)
    except OSError as error:
        if owned:
            file.close()
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(path, f"reading failed: {error.strerror or error}", error=error) from error


def _recognise(
    path: bytes,
    file: IO[bytes],
    owned: bool,
    spool_dir: SpoolDirectory | None,
    data_limit: int | None,
    advance: Callable[[int], None] | None,
) -> Archive:
    seekable = file.seekable()
    start = file.tell() if seekable else 0
    head = _read_fully(file, BLOCK)
    if not head:
        raise EmptyArchiveError(path)
    compression = "" if len(head) == BLOCK and is_header(head) else compression_of(head)
    if not compression:
        _check_first(path, "", head)
    if seekable and not compression:
        file.seek(start)
        return _SeekableArchive(path, file, owned=owned, advance=advance)
    peeked = PeekedFile(head, file, advance)
    pieces = decompressed(compression, peeked) if compression else iter(lambda: peeked.read(_PIECE), b"")
    close_source = file.close if owned else _leave_open
    archive = _PipedArchive(path, pieces, compression, Spool(spool_dir), close_source, data_limit)
    try:
        _check_first(path, compression, archive.first_block())
    except BaseException:
        archive.close()
        raise
    return archive


def _check_first(path: bytes, compression: str, block: bytes) -> None:
    """Raises NotTarError if no archive begins with this block."""
    if len(block) == BLOCK and is_header(block):
        return
    inner = compression_of(block)
    found = f"{inner} data" if inner else next((what for magic, what in _OTHERS if block.startswith(magic)), "")
    if compression:
        content = found or ("something else" if block else "nothing")
        reason = f"is packed with {compression} and holds {content}, not a tar archive"
    else:
        reason = f"is {found}, not a tar archive" if found else "is not a tar archive"
    raise NotTarError(path, reason, found=found, compression=compression)


def _leave_open() -> None:
    """Closes nothing: the file is the caller's."""


def _read_fully(file: IO[bytes], size: int) -> bytes:
    data = file.read(size) or b""
    while data and len(data) < size:
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data


def _path_of(source: ArchiveSource) -> bytes:
    """Return the name of the archive for errors: its path, a file object's name, or a word if there is none."""
    if isinstance(source, (str, bytes, os.PathLike)):
        return os.fsencode(source)
    name = getattr(source, "name", None)
    if isinstance(name, str):
        name = name.encode("utf-8", "backslashreplace")
    if isinstance(name, bytes):
        return STDIN if name == b"<stdin>" else os.fsencode(show(name))
    return STDIN if name == 0 else b"archive"
