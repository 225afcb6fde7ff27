"""Data of an archive's members, to be read by range once the archive was read to its end.

It lies either in the archive itself, or in a spool: in memory up to 64 MiB, and beyond that in an unnamed temporary file (in
the directory given, else in that of ``tempfile``).
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Iterable
from typing import IO, Protocol, Self, cast

from ext3 import hostio

from .errors import ArchiveChangedError, ArchiveError

__all__ = ["SPOOL_MEMORY", "FileMemberStore", "MemberData", "MemberStore", "Spool", "StoredRange"]

SPOOL_MEMORY = 64 << 20
"""A spool of more bytes than this moves to a file."""
_READ_BYTES = 1 << 24

StoredRange = tuple[int, int, int]
"""(offset in the file, length, offset in the store) in bytes: a part of a member that holds data; the gaps are holes."""


class MemberStore(Protocol):
    """Bytes of members at fixed offsets. ``fd``: a descriptor that can be copied from at these offsets, or None."""

    fd: int | None

    def read_into(self, view: memoryview, offset: int) -> int:
        """Bytes read; fewer than asked only at the end."""
        ...

    def changed(self) -> bool: ...

    def temporary_bytes(self, device: int) -> int: ...

    def close(self) -> None: ...


class _MemoryMemberStore:
    """Spool that stayed in memory."""

    fd: int | None = None

    def __init__(self, data: bytearray) -> None:
        self._data = memoryview(data)

    def read_into(self, view: memoryview, offset: int) -> int:
        piece = self._data[offset : offset + len(view)]
        view[: len(piece)] = piece
        return len(piece)

    def changed(self) -> bool:
        return False

    def temporary_bytes(self, device: int) -> int:
        return 0

    def close(self) -> None:
        self._data.release()


class FileMemberStore:
    """Seekable file. With a descriptor of its own, reads of several threads do not disturb each other.

    ``owned``: ``close`` closes the file. ``stable``: no other process can change it.
    """

    def __init__(self, file: IO[bytes], *, owned: bool, stable: bool) -> None:
        self._file = file
        self._owned = owned
        self._lock = threading.Lock()
        self.fd: int | None = _descriptor(file)
        self._stable = stable
        self._state = self._fingerprint()

    def _fingerprint(self) -> tuple[int, int] | None:
        if self._stable or self.fd is None:
            return None
        state = os.fstat(self.fd)
        return state.st_size, state.st_mtime_ns

    def read_into(self, view: memoryview, offset: int) -> int:
        done = 0
        while done < len(view):
            if self.fd is not None and hasattr(os, "pread"):
                piece = os.pread(self.fd, min(len(view) - done, _READ_BYTES), offset + done)
            else:
                with self._lock:
                    self._file.seek(offset + done)
                    piece = self._file.read(min(len(view) - done, _READ_BYTES))
            if not piece:
                break
            view[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def changed(self) -> bool:
        """Return True if size or modification time differ from those at the start."""
        return self._fingerprint() != self._state

    def temporary_bytes(self, device: int) -> int:
        if not self._stable or self.fd is None:
            return 0
        found = os.fstat(self.fd)
        return getattr(found, "st_blocks", 0) * 512 if found.st_dev == device else 0

    def close(self) -> None:
        if self._owned:
            self._file.close()


class Spool:
    """Data of members written back to back; ``finish`` makes the store."""

    def __init__(self, directory: str | bytes | os.PathLike[str] | None) -> None:
        self._directory = os.fsdecode(directory) if directory is not None else None
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0
        self.written = 0
        """Bytes in its file."""

    @property
    def directory(self) -> bytes:
        """Directory of its file."""
        return os.fsencode(self._directory if self._directory is not None else tempfile.gettempdir())

    def write(self, data: memoryview) -> None:
        self.size += len(data)
        if self._file is None and self.size <= SPOOL_MEMORY:
            self._memory += data
            return
        if self._file is None:
            self._file = cast("IO[bytes]", tempfile.TemporaryFile(dir=self._directory))  # noqa: SIM115
            self._file.write(self._memory)
            self._memory = bytearray()
        self._file.write(data)
        self.written = self.size

    def discard(self, offset: int, size: int) -> None:
        """Gives back the space of data that nobody will read, if the filesystem can do that."""
        if self._file is not None:
            self._file.flush()
            hostio.punch_hole(self._file.fileno(), offset, size)

    def finish(self) -> MemberStore:
        if self._file is None:
            return _MemoryMemberStore(self._memory)
        self._file.flush()
        return FileMemberStore(self._file, owned=True, stable=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class MemberData:
    """Data of an archive's members, read by range. ``path`` is the archive's, for errors.

    ``close`` closes the archive, if it was opened by its path, or the spool.
    """

    def __init__(self, path: bytes, store: MemberStore) -> None:
        self.path = path
        self._store = store

    @property
    def fd(self) -> int | None:
        """A descriptor that can be copied from at the store's offsets, or None."""
        return self._store.fd

    def temporary_bytes(self, device: int) -> int:
        """Space that a temporary file of this data takes on the filesystem ``device`` (st_dev)."""
        return self._store.temporary_bytes(device)

    def read_at(self, view: memoryview, offset: int) -> int:
        """Bytes read at ``offset`` of the store, fewer than asked only at its end. Raises ArchiveError."""
        try:
            return self._store.read_into(view, offset)
        except (OSError, ValueError) as error:
            cause = error if isinstance(error, OSError) else None
            text = (cause and cause.strerror) or str(error)
            raise ArchiveError(self.path, f"reading at byte {offset} failed: {text}", error=cause) from error

    def read_file(self, view: memoryview, ranges: Iterable[StoredRange]) -> None:
        """A whole file of ``len(view)`` bytes; what its ranges do not cover is zeros.

        Raises ArchiveError, ArchiveChangedError.
        """
        done = 0
        for logical, length, offset in ranges:
            if logical > done:
                view[done:logical] = bytes(logical - done)
            done = logical + length
            if self.read_at(view[logical:done], offset) < length:
                raise ArchiveChangedError(self.path, f"ends at byte {offset} of file data; it was longer when it was scanned")
        if done < len(view):
            view[done:] = bytes(len(view) - done)

    def changed(self) -> bool:
        """Return True if the archive was modified since it was opened."""
        return self._store.changed()

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _descriptor(file: IO[bytes]) -> int | None:
    """The descriptor whose bytes are the file's. Objects that decompress have a fileno() too: that of the compressed file."""
    inner = getattr(file, "file", file)
    raw = getattr(inner, "raw", inner)
    return raw.fileno() if isinstance(raw, io.FileIO) else None
