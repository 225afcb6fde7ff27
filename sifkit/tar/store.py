"""Where the data of an archive's files lies until the image is written.

Either in the archive itself, or in a spool: memory up to 64 MiB, and an unnamed temporary file beyond (in the directory
given, else where ``tempfile`` puts its files).
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
from array import array
from types import TracebackType
from typing import IO, Protocol, Self, cast

from ext3.errors import ContentChangedError, SourceError
from ext3.newfs.builder import Segment
from ext3.newfs.content import ContentFile

__all__ = ["SPOOL_MEMORY", "FileStore", "Spool", "Store", "TarContent"]

SPOOL_MEMORY = 64 << 20
"""A spool of more bytes than this moves to a file."""


class Store(Protocol):
    """Where the data of files lies; offsets are bytes in it. ``fd`` can be copied from at them, or is None."""

    fd: int | None

    def read_into(self, view: memoryview, offset: int) -> int:
        """Bytes read; fewer than asked only at the end."""
        ...

    def changed(self) -> bool: ...

    def close(self) -> None: ...


class _MemoryStore:
    fd: int | None = None

    def __init__(self, data: bytearray) -> None:
        self._data = memoryview(data)

    def read_into(self, view: memoryview, offset: int) -> int:
        piece = self._data[offset : offset + len(view)]
        view[: len(piece)] = piece
        return len(piece)

    def changed(self) -> bool:
        return False

    def close(self) -> None:
        self._data.release()


class FileStore:
    """A file that can be sought in. With a descriptor of its own, reads of several threads do not disturb each other."""

    def __init__(self, file: IO[bytes], *, owned: bool, stable: bool) -> None:
        self._file = file
        self._owned = owned
        self._lock = threading.Lock()
        self.fd: int | None = _descriptor(file)
        self._stable = stable
        self._state = self._look()

    def _look(self) -> tuple[int, int] | None:
        if self._stable or self.fd is None:
            return None
        state = os.fstat(self.fd)
        return state.st_size, state.st_mtime_ns

    def read_into(self, view: memoryview, offset: int) -> int:
        done = 0
        while done < len(view):
            if self.fd is not None and hasattr(os, "pread"):
                piece = os.pread(self.fd, min(len(view) - done, 1 << 24), offset + done)
            else:
                with self._lock:
                    self._file.seek(offset + done)
                    piece = self._file.read(min(len(view) - done, 1 << 24))
            if not piece:
                break
            view[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def changed(self) -> bool:
        return self._look() != self._state

    def close(self) -> None:
        if self._owned:
            self._file.close()


class Spool:
    """Takes the data of files back to back; ``finish`` makes the store."""

    def __init__(self, directory: str | bytes | os.PathLike[str] | None) -> None:
        self._directory = directory
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0

    def write(self, data: memoryview) -> None:
        self.size += len(data)
        if self._file is None and self.size <= SPOOL_MEMORY:
            self._memory += data
            return
        if self._file is None:
            where = os.fsdecode(self._directory) if self._directory is not None else None
            self._file = cast("IO[bytes]", tempfile.TemporaryFile(dir=where))  # noqa: SIM115
            self._file.write(self._memory)
            self._memory = bytearray()
        self._file.write(data)

    def finish(self) -> Store:
        if self._file is None:
            return _MemoryStore(self._memory)
        self._file.flush()
        return FileStore(self._file, owned=True, stable=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _descriptor(file: IO[bytes]) -> int | None:
    """The descriptor whose bytes are the file's. Objects that unpack have a fileno() too: it is of the packed file."""
    inner = getattr(file, "file", file)
    raw = getattr(inner, "raw", inner)
    return raw.fileno() if isinstance(raw, io.FileIO) else None


class _TarFile:
    """One file's data: ``base`` is added to the offsets asked for, ``end`` bounds them."""

    def __init__(self, content: TarContent, store: Store, base: int, end: int | None) -> None:
        self.fd = store.fd if end is None else None
        self._content = content
        self._base = base
        self._end = end

    def read_into(self, view: memoryview, offset: int) -> int:
        if self._end is not None:
            view = view[: max(0, self._end - offset)]
        return self._content.read_at(view, self._base + offset)

    def changed(self) -> bool:
        return self._content.changed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class TarContent:
    """Content of the files of one archive, by node. Owns the archive (if it was given as a path) or the spool: close it.

    Nodes with segments are read at the store's offsets, all others from 0 to their size.
    """

    def __init__(self, name: bytes, store: Store) -> None:
        self.name = name
        self._store = store
        self._first = 0
        self._places = array("q")
        self._segments: dict[int, list[Segment]] = {}

    def begin(self, first: int) -> None:
        """The next node placed will be ``first``."""
        self._first = first

    def place(self, node: int, offset: int, size: int, segments: list[Segment] | None) -> None:
        """Where the data of ``node`` lies; nodes come in ascending order."""
        self._places.extend((0, 0) * (node - self._first - len(self._places) // 2))
        self._places.extend((offset, size))
        if segments is not None:
            self._segments[node] = segments

    def _place(self, node: int) -> tuple[int, int]:
        row = 2 * (node - self._first)
        if 0 <= row < len(self._places):
            return self._places[row], self._places[row + 1]
        return 0, 0

    def read_at(self, view: memoryview, offset: int) -> int:
        """Bytes of the store."""
        try:
            return self._store.read_into(view, offset)
        except (OSError, ValueError) as error:
            cause = error if isinstance(error, OSError) else None
            text = (cause and cause.strerror) or str(error)
            raise SourceError(self.name, f"reading at byte {offset} failed: {text}", error=cause) from error

    def changed(self) -> bool:
        return self._store.changed()

    def read_whole(self, node: int, view: memoryview) -> None:
        offset, size = self._place(node)
        if len(view) != size:
            raise ContentChangedError(self.name, f"a file has {size} bytes where {len(view)} are asked for")
        segments = self._segments.get(node)
        done = 0
        for logical, length, source in ((0, size, offset),) if segments is None else segments:
            view[done:logical] = bytes(logical - done)
            done = logical + length
            if self.read_at(view[logical:done], source) < length:
                raise ContentChangedError(self.name, f"ends at byte {source} of file data; it was longer when it was scanned")
        view[done:] = bytes(size - done)

    def open(self, node: int) -> ContentFile:
        if node in self._segments:
            return _TarFile(self, self._store, 0, None)
        offset, size = self._place(node)
        return _TarFile(self, self._store, offset, size)

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
