"""Editing of an open image. Each method is one commit: the file holds the old image or the new one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Unpack

from ..errors import SifkitError
from ..host_space import full_host_errors
from .commit import Growth, commit_add, commit_delete, commit_switch, free_space
from .errors import EditError, NotWritableError, StoreError, TruncatedSIFError
from .format.descriptor import Descriptor
from .format.metadata import Metadata
from .format.placement import MAX_ALIGNMENT, data_end
from .format.types import DataType
from .loading import check_partition_unused
from .payload import Advance, Source, SourceLike, copy_in, digest_hasher, open_source
from .plan import (
    UNCHANGED,
    Change,
    ObjectFields,
    Unchanged,
    is_at_end,
    plan_add,
    plan_changes,
    plan_primary,
    plan_replace,
    plan_resize,
    seconds_for,
    with_payload,
)
from .reading import ImageReader
from .select import ObjectId, id_of
from .stamp import SIFStamp
from .state import Notice, State, load, notices
from .store import Store

__all__ = ["ImageEditor", "Reservation"]

OCI_TYPES = (DataType.OCI_ROOT_INDEX, DataType.OCI_BLOB)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Reserved space for an object that is not part of the image yet: ``size`` bytes at ``offset`` of the open file ``fd``,
    which read as zero. ``descriptor``: that of the object."""

    fd: int
    offset: int
    size: int
    descriptor: Descriptor


class ImageEditor(ImageReader):
    """Editing part of ``SIF``. Invalid requests raise EditError (and ImageFullError, ObjectNotFoundError, TruncatedSIFError,
    NotWritableError) before a byte is written; failed I/O raises StoreError."""

    mode: str
    _stamp: SIFStamp | None
    _reserved: bool
    _extra: list[Notice]

    def add(
        self,
        source: SourceLike,
        data_type: DataType,
        *,
        metadata: Metadata | bytes | None = None,
        advance: Advance | None = None,
        drop: Iterable[ObjectId] = (),
        **fields: Unpack[ObjectFields],
    ) -> Descriptor:
        """Add an object with the content of ``source``: a path (text or PathLike), a file descriptor, bytes, or a binary file
        object; the last two kinds of files are read from their current position. Holes are preserved.

        ``metadata``: required for partitions, signatures and SBOMs; OCI digests are computed. ``advance``: called with the
        number of bytes copied. ``drop``: IDs of objects to delete in the same commit (signatures that the edit breaks).
        ``fields``: ``name``, ``group``, ``link``, ``link_group``, ``alignment``, ``created``, see ObjectFields. Raises
        SIFSourceError, SourceChangedError and the errors of the class.
        """
        store, state, seconds = self._begin()
        dropped = self._removable(store, drop)
        planned = plan_add(state, data_type, seconds=seconds, metadata=metadata, path=self.path, **fields)
        return self._copy_and_commit(store, state, planned, source, dropped, seconds, advance)

    @contextmanager
    def reserve(
        self,
        size: int,
        metadata: Metadata,
        *,
        data_type: DataType = DataType.PARTITION,
        drop: Iterable[ObjectId] = (),
        **fields: Unpack[ObjectFields],
    ) -> Iterator[Reservation]:
        """Reserve space for an object of ``size`` bytes that the caller writes in place; after the block it is part of the
        image. After an exception the file is truncated to its old length. ``drop`` and ``fields`` as for ``add``.

            with sif.reserve(size, metadata, group=1) as reservation:
                os.pwrite(reservation.fd, data, reservation.offset)

        No other edit is possible inside the block. The image must be in a file with a descriptor.
        """
        store, state, seconds = self._begin()
        dropped = self._removable(store, drop)
        planned = plan_add(state, data_type, seconds=seconds, metadata=metadata, path=self.path, **fields)
        with self._reserve(store, state, planned, size, dropped, seconds) as reservation:
            yield reservation

    @contextmanager
    def reserve_again(
        self,
        id: ObjectId,
        size: int,
        *,
        metadata: Metadata | None = None,
        alignment: int | None = None,
        drop: Iterable[ObjectId] = (),
    ) -> Iterator[Reservation]:
        """Reserve space for new content of an object, which keeps its ID, name, group and link. Otherwise as ``reserve``."""
        store, state, seconds = self._begin()
        planned = plan_replace(state, id_of(id), seconds=seconds, alignment=alignment, metadata=metadata)
        gone = self._removable(store, [id, *drop])
        with self._reserve(store, state, planned, size, gone, seconds) as reservation:
            yield reservation

    def replace(
        self,
        id: ObjectId,
        source: SourceLike,
        *,
        metadata: Metadata | None = None,
        alignment: int | None = None,
        advance: Advance | None = None,
        drop: Iterable[ObjectId] = (),
    ) -> Descriptor:
        """Replace the content (and metadata) of an object; ID, name, group, link and creation time are kept.

        The new content is written after all objects, so that readers find the old object or the new one; the old space is
        freed. ``drop`` as for ``add``.
        """
        store, state, seconds = self._begin()
        planned = plan_replace(state, id_of(id), seconds=seconds, alignment=alignment, metadata=metadata)
        gone = self._removable(store, [id, *drop])
        return self._copy_and_commit(store, state, planned, source, gone, seconds, advance)

    def resize_object(self, id: ObjectId, size: int) -> Descriptor:
        """Change the size of the object at the end of the data, in place, to ``size`` bytes.

        What is added reads as zero; what is cut off is lost. The file grows before the descriptor says so, and is truncated
        after. Raises EditError for another object (see ``is_at_end``).
        """
        store, state, seconds = self._begin()
        (old,) = self._removable(store, [id])
        new = plan_resize(state, old.id, size, seconds=seconds)
        if new is state:
            return old
        end = data_end(new.header, new.descriptors)
        with self._reload_on_error(), Growth(store, old.end) as growth:
            if end > old.end:
                store.set_size(end)
            commit_switch(store, state, new, growth, size_after=end)
            self._adopt(new)
        return self.get(id)

    def is_at_end(self, id: ObjectId) -> bool:
        """Return True if nothing of the image lies behind an object, so that ``resize_object`` can change its size."""
        return is_at_end(self._state, self.get(id))

    def delete(self, ids: ObjectId | Iterable[ObjectId], *, zero: bool = False) -> None:
        """Delete objects in one commit, and free their space: the file is truncated at its end, holes are punched before.

        ``zero``: overwrite content that cannot be freed. Links to the objects are kept (see ``warnings``). In a truncated image
        objects are deleted one by one.
        """
        store, state, seconds = self._begin(complete=False)
        found = self._removable(store, [ids] if isinstance(ids, ObjectId) else ids)
        if len(found) > 1 and self._is_complete(store, state) and not self._ends_far_beyond_file(store, state):
            self._switch(store, state, state, found, seconds, zero=zero)
            return
        for descriptor in found:
            old = self._state
            new = old.with_slots({descriptor.slot: None}, modified=seconds)
            with self._reload_on_error():
                commit_delete(store, old, new, descriptor.slot)
                self._adopt(new)
            self._free_space(store, [descriptor], zero)

    def set_primary(self, id: ObjectId, *, drop: Iterable[ObjectId] = ()) -> None:
        """Make a system partition the primary one; the previous one becomes a system partition. ``drop`` as for ``add``."""
        store, state, seconds = self._begin()
        dropped = self._removable(store, drop)
        self._switch(store, state, plan_primary(state, id_of(id), seconds=seconds), dropped, seconds)

    def after_primary(self, id: ObjectId) -> tuple[Descriptor, ...]:
        """Return the descriptors after ``set_primary``, without writing. Raises its errors for invalid requests."""
        return plan_primary(self._state, id_of(id), seconds=0).descriptors

    def after_update(self, changes: Mapping[int, Change]) -> tuple[Descriptor, ...]:
        """Return the descriptors after ``update_all``, without writing. Raises its errors for invalid changes."""
        return plan_changes(self._state, changes, seconds=0).descriptors

    def update(
        self,
        id: ObjectId,
        *,
        name: bytes | Unchanged = UNCHANGED,
        group: int | Unchanged = UNCHANGED,
        link: int | Unchanged = UNCHANGED,
        link_group: int | Unchanged = UNCHANGED,
        metadata: Metadata | bytes | Unchanged = UNCHANGED,
        created: int | Unchanged = UNCHANGED,
    ) -> Descriptor:
        """Change the descriptor of an object; 0 removes a group or link."""
        change = Change(name=name, group=group, link=link, link_group=link_group, metadata=metadata, created=created)
        self.update_all({id_of(id): change})
        return self.get(id)

    def update_all(self, changes: Mapping[int, Change], *, drop: Iterable[ObjectId] = ()) -> None:
        """Change several descriptors in one commit, by ID. ``drop`` as for ``add``."""
        store, state, seconds = self._begin()
        dropped = self._removable(store, drop)
        self._switch(store, state, plan_changes(state, changes, seconds=seconds), dropped, seconds)

    def _begin(self, *, complete: bool = True) -> tuple[Store, State, int]:
        """Return store, state and time for an edit, after checking that one is possible."""
        store = self._open_store
        if self.mode == "r":
            raise NotWritableError("the image is open read-only", path=self.path, hint='open it with mode "r+"')
        if self._reserved:
            raise EditError("the image cannot be edited while space in it is reserved", hint="end the reservation first")
        if complete and not self._is_complete(store, self._state):
            raise TruncatedSIFError("the image is truncated: objects extend beyond the end of the file", path=self.path)
        if complete and self._ends_far_beyond_file(store, self._state):
            raise TruncatedSIFError("the image is truncated: its data extends far beyond the end of the file", path=self.path)
        return store, self._state, seconds_for(self.header, self._stamp)

    def _is_complete(self, store: Store, state: State) -> bool:
        size = store.size
        return all(descriptor.end <= size for descriptor in state.descriptors if descriptor.size)

    def _ends_far_beyond_file(self, store: Store, state: State) -> bool:
        """Return True if a second table would be far beyond the end of the file."""
        return data_end(state.header, state.descriptors) > store.size + MAX_ALIGNMENT

    def _removable(self, store: Store, ids: Iterable[ObjectId]) -> list[Descriptor]:
        """Return the objects that an edit removes, each once. Raises ImageInUseError for partitions in use."""
        found = [self.get(id) for id in dict.fromkeys(map(id_of, ids))]
        for descriptor in found:
            if descriptor.data_type == DataType.PARTITION:
                check_partition_unused(store, descriptor.offset, descriptor.size, f"object {descriptor.id}")
        return found

    def _adopt(self, state: State) -> None:
        self._state = state
        self.warnings = (*self._extra, *notices(state, self._open_store.size))

    @contextmanager
    def _reload_on_error(self) -> Iterator[None]:
        """Reload the state from the file after an exception in the block."""
        try:
            yield
        except BaseException:
            with suppress(SifkitError, OSError):
                self._adopt(load(self._open_store))
            raise

    @contextmanager
    def _reserve(
        self, store: Store, state: State, planned: Descriptor, size: int, gone: list[Descriptor], seconds: int
    ) -> Iterator[Reservation]:
        """Reserve space for ``planned``; commit it, and the removal of ``gone``, after the block."""
        if store.fd is None:
            raise EditError("space is reserved only in a file with a descriptor", hint="open the image by its path")
        if size <= 0:
            raise EditError(f"{size} bytes cannot be reserved", hint="give a size of at least 1")
        descriptor = with_payload(state, planned, size)
        with self._reload_on_error(), Growth(store, data_end(state.header, state.descriptors)) as growth:
            store.set_size(descriptor.end)
            self._reserved = True
            try:
                yield Reservation(store.fd, store.base + descriptor.offset, size, descriptor)
            finally:
                self._reserved = False
            self._commit(store, state, descriptor, gone, seconds, growth)

    def _copy_and_commit(
        self,
        store: Store,
        state: State,
        planned: Descriptor,
        source: SourceLike,
        gone: list[Descriptor],
        seconds: int,
        advance: Advance | None,
    ) -> Descriptor:
        """Copy the content of ``planned`` into the image; commit it, and the removal of ``gone``."""
        with open_source(source) as opened:
            _check_source(opened, store)
            with_payload(state, planned, opened.size or 0)
            with self._reload_on_error(), Growth(store, data_end(state.header, state.descriptors)) as growth:
                with self._full_host_errors(opened):
                    descriptor = _write_payload(store, state, planned, opened, advance)
                return self._commit(store, state, descriptor, gone, seconds, growth)

    def _full_host_errors(self, source: Source) -> AbstractContextManager[None]:
        """Say how much space a source needs, if that and the path of the image are known."""
        if self.path is None or source.size is None:
            return nullcontext()
        return full_host_errors(self.path, source.size)

    def _commit(
        self, store: Store, state: State, descriptor: Descriptor, gone: list[Descriptor], seconds: int, growth: Growth
    ) -> Descriptor:
        """Commit ``descriptor``, whose content is written, and the removal of ``gone``, at once."""
        new = state.with_slots({**_cleared_slots(gone), descriptor.slot: descriptor}, modified=seconds)
        if store.size != descriptor.end:
            store.set_size(descriptor.end)
        if gone:
            commit_switch(store, state, new, growth, size_after=data_end(new.header, new.descriptors))
        else:
            commit_add(store, state, new, descriptor.slot, growth)
        self._adopt(new)
        if gone:
            self._free_space(store, gone, False)
        return self.get(descriptor.id)

    def _switch(
        self, store: Store, state: State, new: State, gone: list[Descriptor], seconds: int, *, zero: bool = False
    ) -> None:
        """Commit another table, without ``gone``. Bytes after the last object are truncated, as with every edit."""
        if gone:
            new = new.with_slots(_cleared_slots(gone), modified=seconds)
        if new is state:
            return
        with self._reload_on_error(), Growth(store, None) as growth:
            end = data_end(new.header, new.descriptors)
            commit_switch(store, state, new, growth, size_after=min(store.size, end))
            self._adopt(new)
        if gone:
            self._free_space(store, gone, zero)

    def _free_space(self, store: Store, removed: Iterable[Descriptor], zero: bool) -> None:
        """Free the space of removed objects. The edit is done: a failure is a warning, unless ``zero`` is set."""
        try:
            gone = [(descriptor.offset, descriptor.end) for descriptor in removed if descriptor.size]
            released = free_space(store, self._state, gone, zero=zero)
        except StoreError as error:
            if zero:
                error.mark_committed("the objects are deleted, but their content is still in the file")
                raise
            released = False
        if not released and all(notice.kind != "space-kept" for notice in self._extra):
            text = "the space of removed objects was not freed; free it with: sifkit sif compact"
            self._extra.append(Notice("space-kept", text))
        self._adopt(self._state)


def _cleared_slots(gone: Iterable[Descriptor]) -> dict[int, Descriptor | None]:
    return {descriptor.slot: None for descriptor in gone}


def _check_source(source: Source, store: Store) -> None:
    if source.is_file(store.fd):
        raise EditError("an image cannot be added to itself", hint="copy it first")


def _write_payload(store: Store, state: State, planned: Descriptor, source: Source, advance: Advance | None) -> Descriptor:
    """Copy the payload into the image; return the descriptor with its size and, for OCI objects, its digest."""
    hasher = digest_hasher() if planned.data_type in OCI_TYPES else None
    size = copy_in(source, store, planned.offset, hasher=hasher, advance=advance)
    return with_payload(state, planned, size, digest=hasher.hexdigest() if hasher else None)
