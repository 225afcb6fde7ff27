"""Payload of objects: copies into and out of an image, with holes, and inside the kernel if possible.

Objects are written after the old end of the file, which reads as zero: for holes nothing is written.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Protocol

from ext3 import hostio

from ..errors import show
from .errors import SIFSourceError, SourceChangedError, StoreError
from .format.descriptor import Descriptor
from .store import CHUNK_BYTES, Store, file_descriptor

__all__ = ["Advance", "Hasher", "Source", "SourceLike", "copy_in", "copy_out", "digest_hasher", "open_source"]

SourceLike = str | os.PathLike[str] | os.PathLike[bytes] | int | bytes | bytearray | memoryview | IO[bytes]
"""Path (as text or PathLike), file descriptor, content as bytes, or binary file object, which need not be seekable."""
Advance = Callable[[int], None]
"""Callback of copies, called with the number of bytes copied since the last call."""

BUFFER_BYTES = 4 << 20
WRITEBACK_BYTES = 32 << 20
PIECE_BYTES = 64 << 10
"""Runs of zeros of this length become holes, if the source does not report holes."""
ZEROS = bytes(PIECE_BYTES)


class Hasher(Protocol):
    """Interface of hashlib's hash objects."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def digest_hasher() -> Hasher:
    """Return a hasher for the digest of OCI objects."""
    from hashlib import sha256

    return sha256()


@dataclass(frozen=True, slots=True)
class Source:
    """Source of a copy: ``size`` bytes at ``start`` of ``fd``, or, if ``fd`` is None, what ``read`` returns until it is empty.

    ``size`` None: unknown. ``label``: for messages.
    """

    label: str
    fd: int | None
    start: int
    size: int | None
    read: Callable[[int], bytes | memoryview]
    size_and_mtime: tuple[int, int] | None
    """Size and mtime of a regular file when it was opened."""

    def check_unchanged(self) -> None:
        """Raise SourceChangedError if size or mtime of the file have changed."""
        if self.fd is not None and self.size_and_mtime is not None and _size_and_mtime(self.fd) != self.size_and_mtime:
            raise self.changed()

    def is_file(self, fd: int | None) -> bool:
        """Return True if the source is the file open as ``fd``."""
        return self.fd is not None and fd is not None and hostio.same_file(self.fd, fd)

    def changed(self) -> SourceChangedError:
        """Return the error for a source that changed."""
        return SourceChangedError(f"{self.label} changed while it was copied", hint="try again when no process writes to it")


@contextmanager
def open_source(source: SourceLike) -> Iterator[Source]:
    """Open a source for reading, from its current position; a path is closed after the block. Raises SIFSourceError.

    After success the position of a descriptor or file object is after the bytes read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        yield _from_bytes(memoryview(source).cast("B"))
    elif isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        fd = _open_path(path)
        try:
            yield _from_fd(fd, show(path), 0)
        finally:
            os.close(fd)
    elif isinstance(source, int):
        opened = _from_fd(source, f"file descriptor {source}", None)
        yield opened
        if opened.fd is not None:
            os.lseek(source, opened.start + (opened.size or 0), os.SEEK_SET)
    else:
        named = getattr(source, "name", None)
        label = show(named) if isinstance(named, str | bytes) else "the file object"
        own = file_descriptor(source)
        if own is None or not _seekable(own):
            yield Source(label, None, 0, None, lambda size: _read_object(source, size), None)
        else:
            opened = _from_fd(own, label, source.tell())
            yield opened
            source.seek(opened.start + (opened.size or 0))


def _read_object(file: IO[bytes], size: int) -> bytes:
    data: bytes | None = file.read(size)
    if data is None:  # a non-blocking raw object, not at its end
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return data


def _open_path(path: str | bytes) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | hostio.OPEN)
    except OSError as error:
        raise SIFSourceError(f"{show(path)}: {error.strerror}", path=path, error=error) from error
    kind = os.fstat(fd).st_mode
    endless = stat.S_ISCHR(kind) and not os.isatty(fd) and os.fsdecode(path) not in (os.devnull, "/dev/stdin")
    if stat.S_ISDIR(kind) or endless:
        os.close(fd)
        what = "a directory" if stat.S_ISDIR(kind) else "an endless device"
        raise SIFSourceError(f"{show(path)} is {what}", path=path, hint="give a file")
    return fd


def _from_bytes(view: memoryview) -> Source:
    position = 0

    def read(size: int) -> memoryview:
        nonlocal position
        piece = view[position : position + size]
        position += len(piece)
        return piece

    return Source("the content", None, 0, len(view), read, None)


def _from_fd(fd: int, label: str, start: int | None) -> Source:
    """Return a source for a descriptor. ``start`` None: its current position."""
    if not _seekable(fd):
        return Source(label, None, 0, None, lambda size: os.read(fd, size), None)
    if hostio.is_regular(fd) and hostio.true_size(fd) is None:  # of proc, for example
        begin = os.lseek(fd, 0, os.SEEK_CUR) if start is None else start
        return Source(label, None, 0, None, hostio.sequential_reader(fd, begin), None)
    try:
        begin = os.lseek(fd, 0, os.SEEK_CUR) if start is None else start
        end = os.lseek(fd, 0, os.SEEK_END)
        os.lseek(fd, begin, os.SEEK_SET)
    except OSError as error:
        raise SIFSourceError(f"{label}: {error.strerror}", error=error) from error
    found = _size_and_mtime(fd) if hostio.is_regular(fd) else None
    return Source(label, fd, begin, max(0, end - begin), lambda size: b"", found)


def _seekable(fd: int) -> bool:
    try:
        kind = os.fstat(fd).st_mode
    except OSError as error:
        raise SIFSourceError(f"file descriptor {fd}: {error.strerror}", error=error) from error
    return stat.S_ISREG(kind) or stat.S_ISBLK(kind)


def _size_and_mtime(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_size, found.st_mtime_ns


def copy_in(source: Source, store: Store, offset: int, *, hasher: Hasher | None = None, advance: Advance | None = None) -> int:
    """Copy a source to ``offset``, at or after the end of the file, which then ends after it; return its size.

    Raises SIFSourceError, SourceChangedError, StoreError; the caller truncates what was written.
    """
    writer = _PayloadWriter(store, offset, hasher, advance)
    if source.fd is None:
        size = _copy_stream(source, writer)
    else:
        size = source.size or 0
        _copy_file(source, source.fd, writer)
        source.check_unchanged()
    store.set_size(offset + size)
    return size


class _PayloadWriter:
    """Writer of an object's pieces in order, which starts their write-back early."""

    def __init__(self, store: Store, offset: int, hasher: Hasher | None, advance: Advance | None) -> None:
        self.store = store
        self.offset = offset
        self.hasher = hasher
        self.advance = advance
        self._hashed = 0
        self._flushed = 0

    def hash_hole(self, position: int) -> None:
        """Hash zeros up to ``position``, if there is a hasher."""
        while self.hasher is not None and self._hashed < position:
            piece = ZEROS[: min(len(ZEROS), position - self._hashed)]
            self.hasher.update(piece)
            self._hashed += len(piece)

    def write(self, position: int, data: memoryview) -> None:
        self.store.write(self.offset + position, data)
        if self.hasher is not None:
            self.hash_hole(position)
            self.hasher.update(data)
            self._hashed = position + len(data)
        self.account(position + len(data), len(data))

    def account(self, end: int, size: int) -> None:
        if self.advance is not None:
            self.advance(size)
        if self.store.fd is not None and end - self._flushed >= WRITEBACK_BYTES:
            hostio.start_writeback(self.store.fd, self.store.base + self.offset + self._flushed, end - self._flushed)
            self._flushed = end


def _copy_file(source: Source, fd: int, writer: _PayloadWriter) -> None:
    size = source.size or 0
    in_kernel = writer.hasher is None
    buffer = memoryview(bytearray(min(BUFFER_BYTES, max(size, 1))))
    for begin, length in _source_spans(source, fd, size):
        position, end = begin - source.start, begin - source.start + length
        while position < end:
            if in_kernel:
                done = writer.store.copy_from(fd, source.start + position, writer.offset + position, end - position)
                in_kernel = done > 0
                if done:
                    writer.account(position + done, done)
            if not in_kernel:
                done = _read_piece(source, fd, source.start + position, buffer[: end - position])
                writer.write(position, buffer[:done])
            if not done:
                raise source.changed()
            position += done
    writer.hash_hole(size)


def _source_spans(source: Source, fd: int, size: int) -> Iterator[tuple[int, int]]:
    try:
        yield from hostio.data_ranges(fd, source.start, size)
    except OSError as error:
        raise SIFSourceError(f"{source.label}: {error.strerror}", error=error) from error


def _read_piece(source: Source, fd: int, offset: int, buffer: memoryview) -> int:
    try:
        return hostio.read_into(fd, offset, buffer)
    except OSError as error:
        raise SIFSourceError(f"{source.label}: reading at byte {offset}: {error.strerror}", error=error) from error


def _copy_stream(source: Source, writer: _PayloadWriter) -> int:
    position = 0
    while True:
        try:
            data = source.read(CHUNK_BYTES)
        except OSError as error:
            raise SIFSourceError(f"{source.label}: {error.strerror}", error=error) from error
        if not data:
            break
        view = memoryview(data)
        for begin, size in _nonzero_pieces(view):
            writer.write(position + begin, view[begin : begin + size])
        position += len(view)
        writer.hash_hole(position)
    return position


def _nonzero_pieces(view: memoryview) -> Iterator[tuple[int, int]]:
    """Yield the pieces of some data to write, as (offset, size): all but long runs of zeros."""
    begin = 0
    for offset in range(0, len(view), PIECE_BYTES):
        piece = view[offset : offset + PIECE_BYTES]
        if piece[0] == 0 and piece == ZEROS[: len(piece)]:
            if offset > begin:
                yield begin, offset - begin
            begin = offset + len(piece)
    if len(view) > begin:
        yield begin, len(view) - begin


def copy_out(store: Store, descriptor: Descriptor, target: int | IO[bytes], *, advance: Advance | None = None) -> None:
    """Copy an object to a file descriptor or a binary file object, at its current position.

    Holes are preserved if the target is a regular file that ends there. Raises StoreError.
    """
    fd = target if isinstance(target, int) else file_descriptor(target)
    if not isinstance(target, int):
        target.flush()
    if fd is None or not hostio.is_regular(fd) or hostio.is_append_only(fd):
        write = partial(hostio.write_all, target) if isinstance(target, int) else partial(_write_object, target)
        for offset in range(descriptor.offset, descriptor.end, CHUNK_BYTES):
            data = store.read(offset, min(CHUNK_BYTES, descriptor.end - offset))
            write(data)
            if advance:
                advance(len(data))
        return
    with _target_errors():
        start = os.lseek(fd, 0, os.SEEK_CUR)
        old_size = os.fstat(fd).st_size
        if old_size < start + descriptor.size:
            os.ftruncate(fd, start + descriptor.size)
    spans = store.data_spans(descriptor.offset, descriptor.size)
    if old_size > start:
        spans = iter([(descriptor.offset, descriptor.size)])
    for begin, length in spans:
        _copy_span_out(store, begin, fd, start + begin - descriptor.offset, length, advance)
    with _target_errors():
        if isinstance(target, int):
            os.lseek(fd, start + descriptor.size, os.SEEK_SET)
        else:
            target.seek(start + descriptor.size)


def _copy_span_out(store: Store, source: int, fd: int, offset: int, size: int, advance: Advance | None) -> None:
    in_kernel = store.fd is not None
    end = source + size
    while source < end:
        done = 0
        with _target_errors():
            if in_kernel and store.fd is not None:
                done = hostio.kernel_copy(store.fd, store.base + source, fd, offset, end - source)
        if not done:
            in_kernel = False
            data = store.read(source, min(BUFFER_BYTES, end - source))
            with _target_errors():
                hostio.write_at(fd, offset, data)
            done = len(data)
        source += done
        offset += done
        if advance:
            advance(done)


def _write_object(target: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


@contextmanager
def _target_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise StoreError(f"writing the copy: {error.strerror}", error=error, hint=hint) from error
