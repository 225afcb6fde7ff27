"""Where the data of an archive's files lies until the image is written.

Either in the archive itself, or in a spool: memory up to 64 MiB, and an unnamed temporary file beyond (in the directory
given, else where ``tempfile`` puts its files).
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
from typing import IO, Protocol, cast

__all__ = ["SPOOL_MEMORY", "FileStore", "Spool", "Store"]

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
            self._file = cast("IO[bytes]", tempfile.TemporaryFile(dir=where))
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
