"""SIF images, with an interface like zipfile's: open or create, read, add, delete, change, close."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import IO, Literal, Self
from uuid import UUID

from ext3.hostio import HostPath

from ..atomic import AtomicFile
from ..errors import SifkitError, counted
from ..file_locks import open_locked
from ..host_space import full_host_errors
from .descriptor_table import open_image_file
from .format.placement import DEFAULT_CAPACITY
from .format.types import Arch
from .loading import SIF_IMAGES, NewFileStore, check_file_object, load_locked, new_file
from .plan import plan_new
from .recover import recover, release_space
from .stamp import SIFStamp
from .state import Notice, check_objects, load
from .store import FileStore, ObjectStore, Store, file_descriptor
from .writing import ImageEditor

__all__ = ["SIF", "Mode"]

Mode = Literal["r", "r+"]


class SIF(ImageEditor):
    """SIF image: a sequence of descriptors of data objects.

        with SIF.open("image.sif") as sif:
            for descriptor in sif:
                ...

    Opening raises NotSIFError, CorruptSIFError and TruncatedSIFError; harmless problems are in ``warnings``. With "r+" an
    interrupted edit is finished first, and the image stays locked against other writers. Each edit is on storage when it
    returns; one that raises leaves the image as it was.
    """

    def __init__(self, store: Store, *, path: str | None = None, mode: Mode = "r", stamp: SIFStamp | None = None) -> None:
        """Open the image in a store, which the caller closes. See ``SIF.open`` and ``SIF.create`` for files."""
        self.path = path
        self.mode: Mode = mode
        self.locked = False
        """True if the image is locked against other writers."""
        self._store: Store | None = store
        self._fd = -1
        self._new: AtomicFile | None = None
        self._replacing = False
        self._unfinished = ExitStack()
        self._stamp = stamp
        self._reserved = False
        self._extra: list[Notice] = []
        if mode == "r":
            state = load(store)
            check_objects(state)
        else:
            state, self.locked = load_locked(store, path)
            check_objects(state)
            state = recover(store, state)
            if store.fd is not None and not self.locked:
                text = "file locking is unavailable: make sure that no other process writes to the image"
                self._extra.append(Notice("no-locks", text))
        self._adopt(state)

    def __repr__(self) -> str:
        name = "" if self.path is None else f" {self.path!r},"
        if self._store is None:
            return f"<SIF{name} closed>"
        return f"<SIF{name} {counted(len(self), 'object')}, mode {self.mode!r}>"

    @classmethod
    def open(cls, where: HostPath | IO[bytes], mode: Mode = "r", *, offset: int = 0, stamp: SIFStamp | None = None) -> SIF:
        """Open the image in a file, from byte ``offset`` on: a path, or a binary file object, which the caller closes.

        ``stamp``: time of edits (default: now). Raises OSError if a path cannot be opened, NotWritableError if it cannot be
        opened for writing, ImageInUseError if another process edits the image.
        """
        if not isinstance(where, str | bytes | os.PathLike):
            fd = file_descriptor(where)
            if mode == "r+":
                check_file_object(where, fd)
            return cls(ObjectStore(where, offset) if fd is None else FileStore(fd, offset), mode=mode, stamp=stamp)
        path = os.fsdecode(where)
        fd = -1
        try:
            if mode == "r":
                fd = open_image_file(path, writable=False)
            else:
                fd, _ = open_locked(
                    path, partial(open_image_file, path, writable=True), lambda fd: load_locked(FileStore(fd, offset), path)
                )
            sif = cls(FileStore(fd, offset), path=path, mode=mode, stamp=stamp)
        except BaseException as error:
            if fd >= 0:
                os.close(fd)
            if isinstance(error, SifkitError):
                error.set_path(path)
            raise
        sif._fd = fd
        return sif

    @classmethod
    def create(
        cls,
        path: HostPath,
        *,
        launch: bytes = b"",
        id: UUID | None = None,
        capacity: int = DEFAULT_CAPACITY,
        arch: Arch = Arch.UNKNOWN,
        stamp: SIFStamp | None = None,
        force: bool = False,
        mode: int = 0o755,
    ) -> SIF:
        """Create an empty image, open for writing. It gets its name when it is closed; after an error nothing is left.

        ``launch``: launch script, at most 31 bytes. ``arch``: until there is a primary partition. ``mode``: before the umask.
        ``force``: replace a SIF image or an empty file. Raises EditError, TargetError, NotReplaceableError.
        """
        used = stamp or SIFStamp.now()
        header = plan_new(used if id is None else replace(used, uuid=id), launch=launch, capacity=capacity, arch=arch)
        file = new_file(path, mode=mode, replace=force)
        with full_host_errors(file.target, header.data_offset), ExitStack() as stack:
            stack.enter_context(file)
            store = NewFileStore(file.fd)
            store.set_size(header.data_offset)
            store.write(0, header.pack())
            sif = cls(store, path=file.target, stamp=stamp)
            sif.mode = "r+"
            sif._new, sif._replacing = file, force
            sif._unfinished = stack.pop_all()
        return sif

    def fileno(self) -> int:
        """Return the descriptor of the file. Raises ValueError if the image is not in one."""
        fd = self._open_store.fd
        if fd is None:
            raise ValueError("the image is not in a file with a descriptor")
        return fd

    def close(self) -> None:
        """Close the image; a new one gets its name. Objects opened from it cannot be read afterwards.

        The space of removed objects that an interrupted edit left is freed, if the image was open for writing.
        """
        new, self._new = self._new, None
        with self._unfinished:
            if self._store is not None and self.mode == "r+" and new is None:
                release_space(self._store, self._state)
            self._release()
            if new is not None:
                new.commit(SIF_IMAGES if self._replacing else None)

    def abandon(self) -> None:
        """Close the image; a new one is discarded."""
        self._new = None
        with self._unfinished:
            self._release()

    def _release(self) -> None:
        self._store = None
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()
