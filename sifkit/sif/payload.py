"""The bytes of an object on their way in and out. Holes stay holes, large pieces are copied inside the kernel.

What is written to lies behind the old end of the image's file and reads as zero before: nothing is written for a hole.
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
from .errors import SourceChangedError, SourceError, StoreError
from .format.descriptor import Descriptor
from .store import CHUNK_BYTES, Store, file_descriptor

__all__ = ["Advance", "Hasher", "Source", "SourceLike", "copy_in", "copy_out", "digest_hasher", "open_source"]

SourceLike = str | os.PathLike[str] | os.PathLike[bytes] | int | bytes | bytearray | memoryview | IO[bytes]
"""A path (bytes are content, not a path), a file descriptor, content, or a binary file object, which need not be seekable."""
Advance = Callable[[int], None]
"""Told the number of bytes that came in since it was told last."""

BUFFER_BYTES = 4 << 20
WRITEBACK_BYTES = 32 << 20
PIECE_BYTES = 64 << 10
"""What reads as zero for so long is left out where nobody tells us of holes."""
ZEROS = bytes(PIECE_BYTES)


class Hasher(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def digest_hasher() -> Hasher:
    """For the digest of OCI objects."""
    from hashlib import sha256

    return sha256()


@dataclass(frozen=True, slots=True)
class Source:
    """Content to be copied: ``size`` bytes at ``start`` of ``fd``, or, where ``fd`` is None, what ``read`` gives until it is
    empty. ``size`` None: not known before."""

    label: str
    fd: int | None
    start: int
    size: int | None
    read: Callable[[int], bytes | memoryview]
    stamp: tuple[int, int] | None
    """Size and time of change of a regular file when it was opened."""

    def check_unchanged(self) -> None:
        """Raise SourceChangedError where the file is no longer as it was."""
        if self.fd is not None and self.stamp is not None and _stamp(self.fd) != self.stamp:
            raise self.changed()

    def is_file(self, fd: int | None) -> bool:
        """Whether this is the file that is open as ``fd``."""
        return self.fd is not None and fd is not None and hostio.same_file(self.fd, fd)

    def changed(self) -> SourceChangedError:
        return SourceChangedError(f"{self.label} changed while it was copied", hint="wait until nobody writes it")


@contextmanager
def open_source(source: SourceLike) -> Iterator[Source]:
    """``source`` ready to be read, from where it stands; what is opened here is closed at the end. Raises SourceError.

    After success a descriptor or object stands behind what was read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        yield _of_bytes(memoryview(source).cast("B"))
    elif isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        fd = _open_path(path)
        try:
            yield _of_fd(fd, show(path), 0)
        finally:
            os.close(fd)
    elif isinstance(source, int):
        opened = _of_fd(source, f"file descriptor {source}", None)
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
            opened = _of_fd(own, label, source.tell())
            yield opened
            source.seek(opened.start + (opened.size or 0))


def _read_object(file: IO[bytes], size: int) -> bytes:
    data: bytes | None = file.read(size)
    if data is None:  # a raw object that does not wait; taken for its end, the rest would be missing
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return data


def _open_path(path: str | bytes) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | hostio.OPEN)
    except OSError as error:
        raise SourceError(f"{show(path)}: {error.strerror}", path=path, error=error) from error
    kind = os.fstat(fd).st_mode
    endless = stat.S_ISCHR(kind) and not os.isatty(fd) and os.fsdecode(path) not in (os.devnull, "/dev/stdin")
    if stat.S_ISDIR(kind) or endless:
        os.close(fd)
        what = "a directory" if stat.S_ISDIR(kind) else "a device without an end"
        raise SourceError(f"{show(path)} is {what}", path=path, hint="name a file")
    return fd


def _of_bytes(view: memoryview) -> Source:
    position = 0

    def read(size: int) -> memoryview:
        nonlocal position
        piece = view[position : position + size]
        position += len(piece)
        return piece

    return Source("the content", None, 0, len(view), read, None)


def _of_fd(fd: int, label: str, start: int | None) -> Source:
    """``start`` None: where the descriptor stands."""
    if not _seekable(fd):
        return Source(label, None, 0, None, lambda size: os.read(fd, size), None)
    try:
        begin = os.lseek(fd, 0, os.SEEK_CUR) if start is None else start
        end = os.lseek(fd, 0, os.SEEK_END)
        os.lseek(fd, begin, os.SEEK_SET)
    except OSError as error:
        raise SourceError(f"{label}: {error.strerror}", error=error) from error
    found = _stamp(fd) if hostio.is_regular(fd) else None
    return Source(label, fd, begin, max(0, end - begin), lambda size: b"", found)


def _seekable(fd: int) -> bool:
    try:
        kind = os.fstat(fd).st_mode
    except OSError as error:
        raise SourceError(f"file descriptor {fd}: {error.strerror}", error=error) from error
    return stat.S_ISREG(kind) or stat.S_ISBLK(kind)


def _stamp(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_size, found.st_mtime_ns


def copy_in(source: Source, store: Store, offset: int, *, hasher: Hasher | None = None, advance: Advance | None = None) -> int:
    """Write the source at ``offset``, at or behind the end of the file, and return its size; the file ends behind it then.

    Raises SourceError, SourceChangedError, StoreError; what was written by then is the caller's to cut off.
    """
    writer = _Writer(store, offset, hasher, advance)
    if source.fd is None:
        size = _copy_stream(source, writer)
    else:
        size = source.size or 0
        _copy_file(source, source.fd, writer)
        source.check_unchanged()
    store.set_size(offset + size)
    return size


class _Writer:
    """Takes an object's pieces in their order; keeps the kernel writing them to storage meanwhile."""

    def __init__(self, store: Store, offset: int, hasher: Hasher | None, advance: Advance | None) -> None:
        self.store = store
        self.offset = offset
        self.hasher = hasher
        self.advance = advance
        self._hashed = 0
        self._flushed = 0

    def hash_hole(self, position: int) -> None:
        """Zeros up to ``position`` go into the hash, if there is one."""
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
        self.wrote(position + len(data), len(data))

    def wrote(self, end: int, size: int) -> None:
        if self.advance is not None:
            self.advance(size)
        if self.store.fd is not None and end - self._flushed >= WRITEBACK_BYTES:
            hostio.start_writeback(self.store.fd, self.store.base + self.offset + self._flushed, end - self._flushed)
            self._flushed = end


def _copy_file(source: Source, fd: int, writer: _Writer) -> None:
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
                    writer.wrote(position + done, done)
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
        raise SourceError(f"{source.label}: {error.strerror}", error=error) from error


def _read_piece(source: Source, fd: int, offset: int, buffer: memoryview) -> int:
    try:
        return hostio.read_into(fd, offset, buffer)
    except OSError as error:
        raise SourceError(f"{source.label}: reading at byte {offset}: {error.strerror}", error=error) from error


def _copy_stream(source: Source, writer: _Writer) -> int:
    position = 0
    while True:
        try:
            data = source.read(CHUNK_BYTES)
        except OSError as error:
            raise SourceError(f"{source.label}: {error.strerror}", error=error) from error
        if not data:
            break
        view = memoryview(data)
        for begin, size in _nonzero_pieces(view):
            writer.write(position + begin, view[begin : begin + size])
        position += len(view)
        writer.hash_hole(position)
    return position


def _nonzero_pieces(view: memoryview) -> Iterator[tuple[int, int]]:
    """(offset, size) of what is to be written of some data: all but long zeros, neighbours together."""
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
    """Write an object to a file descriptor or a binary file object, from where it stands.

    Holes are kept where the target is a regular file that ends there. Raises StoreError.
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
