"""Everything about an open image that does not change it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from ..atomic import AtomicFile, HostPath, new_file_mode
from . import select
from .errors import ObjectSizeError
from .format.descriptor import Descriptor
from .format.header import GlobalHeader
from .object_io import ObjectReader, check_inside
from .payload import Advance, copy_out
from .state import Notice, State
from .store import Store

__all__ = ["ImageReader"]

READ_LIMIT = 32 << 20


class ImageReader:
    """The part of ``SIF`` that only looks. Used after ``close`` it raises ValueError where the file is needed."""

    path: str | None
    """The file's path, where there is one."""
    warnings: tuple[Notice, ...]
    """What is wrong with the image and does no harm by itself."""
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
        """Those in use, in table order."""
        return self._state.descriptors

    @property
    def capacity(self) -> int:
        """How many objects the table has room for."""
        return self.header.descriptors_total

    @property
    def primary(self) -> Descriptor | None:
        """The primary system partition: the container's root."""
        return select.primary(self.descriptors)

    @property
    def overlays(self) -> tuple[Descriptor, ...]:
        """The overlay partitions, whatever their group and filesystem."""
        return select.overlays(self.descriptors)

    @property
    def file_size(self) -> int:
        """Bytes from the image's start to the file's end."""
        return self._open_store.size

    @property
    def offset(self) -> int:
        """Where the image begins in its file."""
        return self._open_store.base

    def get(self, id: int) -> Descriptor:
        """The object with this id. Raises ObjectNotFoundError, AmbiguousObjectError."""
        return select.by_id(self.descriptors, id)

    def by_name(self, name: bytes) -> Descriptor:
        """The object of this name. Raises ObjectNotFoundError, AmbiguousObjectError."""
        return select.by_name(self.descriptors, name)

    def select(
        self,
        *,
        data_type: int | None = None,
        group: int | None = None,
        part_type: int | None = None,
        fs_type: int | None = None,
        link: int | None = None,
        link_group: int | None = None,
        name: bytes | None = None,
    ) -> tuple[Descriptor, ...]:
        """The objects for which all of this holds, in table order; 0 for ``group`` and the links means none."""
        return select.matching(
            self.descriptors,
            data_type=data_type,
            group=group,
            part_type=part_type,
            fs_type=fs_type,
            link=link,
            link_group=link_group,
            name=name,
        )

    def open_object(self, id: int) -> ObjectReader:
        """An object's bytes as a seekable file. Raises TruncatedError where they are not all there."""
        return ObjectReader(self._open_store, self.get(id))

    def read(self, id: int, *, limit: int | None = READ_LIMIT) -> bytes:
        """An object's bytes. Raises ObjectSizeError for more than ``limit`` bytes (None: no limit), TruncatedError."""
        descriptor = self.get(id)
        check_inside(descriptor, self._open_store)
        if limit is not None and descriptor.size > limit:
            raise ObjectSizeError(
                f"object {id} has {descriptor.size} bytes, more than {limit}",
                size_bytes=descriptor.size,
                limit_bytes=limit,
                hint="write it to a file with: sifkit sif dump -o FILE",
            )
        return self._open_store.read(descriptor.offset, descriptor.size)

    def extract(
        self,
        id: int,
        target: HostPath | int | IO[bytes],
        *,
        replace: bool = False,
        mode: int = 0o666,
        advance: Advance | None = None,
    ) -> None:
        """Copy an object's bytes to a new file (whole or not at all), a file descriptor or a binary file object.

        Holes stay holes where the target can have them. ``replace``: a file may be there; ``mode``: of a new file, without
        the umask. ``advance`` is told how many bytes came in. Raises TargetError, StoreError, TruncatedError.
        """
        descriptor = self.get(id)
        check_inside(descriptor, self._open_store)
        if isinstance(target, str | bytes | os.PathLike):
            with AtomicFile(target, new_file_mode(mode)) as file:
                copy_out(self._open_store, descriptor, file.fd, advance=advance)
                file.commit(replace)
        else:
            copy_out(self._open_store, descriptor, target, advance=advance)
