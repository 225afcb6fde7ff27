"""Reading of an open image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Unpack

from ext3.hostio import HostPath

from ..atomic import AtomicFile, new_file_mode
from ..host_space import full_host_errors
from ..replacing import ANY_FILE, check_output
from . import select
from .errors import ObjectSizeError
from .format.descriptor import Descriptor
from .format.header import GlobalHeader
from .object_io import ObjectReader, check_inside
from .payload import Advance, copy_out
from .select import Criteria, ObjectId, id_of
from .state import Notice, State
from .store import Store

__all__ = ["ImageReader"]

READ_LIMIT = 32 << 20


class ImageReader:
    """Reading part of ``SIF``. After ``close`` methods that need the file raise ValueError."""

    path: str | None
    """Path of the file, if known."""
    warnings: tuple[Notice, ...]
    """Harmless problems of the image."""
    _store: Store | None
    _state: State

    def __iter__(self) -> Iterator[Descriptor]:
        return iter(self._state.descriptors)

    def __len__(self) -> int:
        return len(self._state.descriptors)

    @property
    def _open_store(self) -> Store:
        if self._store is None:
            raise ValueError("the image is closed")
        return self._store

    @property
    def header(self) -> GlobalHeader:
        return self._state.header

    @property
    def descriptors(self) -> tuple[Descriptor, ...]:
        """Descriptors in use, in table order."""
        return self._state.descriptors

    @property
    def capacity(self) -> int:
        """Number of descriptors in the table, used or free."""
        return self.header.descriptors_total

    @property
    def primary(self) -> Descriptor | None:
        """Primary system partition, the container's root."""
        return select.primary(self.descriptors)

    @property
    def overlays(self) -> tuple[Descriptor, ...]:
        """Overlay partitions of any group and filesystem."""
        return select.overlays(self.descriptors)

    @property
    def file_size(self) -> int:
        """Bytes from the start of the image to the end of the file."""
        return self._open_store.size

    @property
    def offset(self) -> int:
        """Offset of the image in its file."""
        return self._open_store.base

    def get(self, id: ObjectId) -> Descriptor:
        """Return the object with this ID. Raises ObjectNotFoundError, AmbiguousObjectError."""
        return select.by_id(self.descriptors, id_of(id))

    __getitem__ = get

    def by_name(self, name: bytes) -> Descriptor:
        """Return the object with this name. Raises ObjectNotFoundError, AmbiguousObjectError."""
        return select.by_name(self.descriptors, name)

    def select(self, **criteria: Unpack[Criteria]) -> tuple[Descriptor, ...]:
        """Return the objects that match all criteria, in table order; 0 for ``group`` and links means none."""
        return select.matching(self.descriptors, **criteria)

    def open_object(self, id: ObjectId) -> ObjectReader:
        """Open an object as a seekable file. Raises TruncatedSIFError."""
        return ObjectReader(self._open_store, self.get(id))

    def read(self, id: ObjectId, *, limit: int | None = READ_LIMIT) -> bytes:
        """Read an object. Raises ObjectSizeError for more than ``limit`` bytes (None: no limit), TruncatedSIFError."""
        descriptor = self.get(id)
        check_inside(descriptor, self._open_store)
        if limit is not None and descriptor.size > limit:
            raise ObjectSizeError(
                f"object {descriptor.id} has {descriptor.size} bytes, more than {limit}",
                size_bytes=descriptor.size,
                limit_bytes=limit,
                hint="write it to a file with: sifkit sif dump -o FILE",
            )
        return self._open_store.read(descriptor.offset, descriptor.size)

    def extract(
        self,
        id: ObjectId,
        target: HostPath | int | IO[bytes],
        *,
        replace: bool = False,
        mode: int = 0o666,
        advance: Advance | None = None,
    ) -> None:
        """Copy an object to a new file (atomically), a file descriptor or a binary file object.

        Holes are preserved if possible. ``replace``: replace an existing file; ``mode``: of a new file, before the umask.
        ``advance``: called with the number of bytes copied. Raises TargetError, ImageInUseError (an image that is in use is not
        replaced), StoreError, TruncatedSIFError.
        """
        descriptor = self.get(id)
        check_inside(descriptor, self._open_store)
        if isinstance(target, str | bytes | os.PathLike):
            name = os.fsdecode(target)
            check_output(name, ANY_FILE, force=replace, noun="output")
            with full_host_errors(name, descriptor.size), AtomicFile(name, new_file_mode(mode)) as file:
                copy_out(self._open_store, descriptor, file.fd, advance=advance)
                file.commit(ANY_FILE if replace else None)
        else:
            copy_out(self._open_store, descriptor, target, advance=advance)
