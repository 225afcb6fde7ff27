"""Everything that changes an open image. Each method is one commit: the file holds the old image or the new one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Unpack

from ..errors import SifkitError
from .commit import Growth, commit_add, commit_delete, commit_switch, give_back
from .errors import EditError, NotWritableError, StoreError, TruncatedError
from .format.descriptor import Descriptor
from .format.metadata import Metadata
from .format.placement import MAX_ALIGNMENT, data_end
from .format.types import DataType
from .loading import check_unlocked
from .payload import Advance, Source, SourceLike, copy_in, digest_hasher, open_source
from .plan import (
    UNCHANGED,
    Change,
    ObjectFields,
    Unchanged,
    plan_add,
    plan_changes,
    plan_primary,
    plan_replace,
    seconds_for,
    with_payload,
)
from .reading import ImageReader
from .stamp import Stamp
from .state import Notice, State, load, notices
from .store import Store

__all__ = ["ImageEditor", "Reservation"]

OCI_TYPES = (DataType.OCI_ROOT_INDEX, DataType.OCI_BLOB)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room for an object that is not part of the image yet: ``size`` bytes at ``offset`` of the open file ``fd``, all of
    which read as zero. ``descriptor`` is what it will be."""

    fd: int
    offset: int
    size: int
    descriptor: Descriptor


class ImageEditor(ImageReader):
    """The part of ``SIF`` that writes. What is refused raises EditError (and ImageFullError, ObjectNotFoundError,
    TruncatedError, NotWritableError) before a byte is written; StoreError is the file's trouble."""

    mode: str
    _stamp: Stamp | None
    _reserved: bool
    _extra: list[Notice]

    def add(
        self,
        source: SourceLike,
        data_type: DataType,
        *,
        metadata: Metadata | bytes | None = None,
        advance: Advance | None = None,
        drop: Iterable[int] = (),
        **fields: Unpack[ObjectFields],
    ) -> Descriptor:
        """Append an object with the bytes of ``source``: a path (text or PathLike), a file descriptor, bytes, or a binary file
        object; descriptors and objects are read from where they stand. Holes in files stay holes.

        ``metadata`` is needed by partitions, signatures and SBOMs; OCI digests are made here. ``advance`` is told how many
        bytes came in. ``drop``: ids of objects that go in the same commit (signatures that the edit breaks). ``fields``:
        ``name``, ``group``, ``link``, ``link_group``, ``alignment``, ``created``, see ObjectFields. Raises SourceError,
        SourceChangedError and what the class says.
        """
        store, state, seconds = self._begin()
        dropped = self._found(store, drop)
        planned = plan_add(state, data_type, seconds=seconds, metadata=metadata, path=self.path, **fields)
        with open_source(source) as opened:
            _check_source(opened, store)
            with_payload(state, planned, opened.size or 0)
            with self._changing(), Growth(store, data_end(state.header, state.descriptors)) as growth:
                descriptor = _filled(store, state, planned, opened, advance)
                return self._commit(store, state, descriptor, dropped, seconds, growth)

    @contextmanager
    def reserve(
        self,
        size: int,
        metadata: Metadata,
        *,
        data_type: DataType = DataType.PARTITION,
        drop: Iterable[int] = (),
        **fields: Unpack[ObjectFields],
    ) -> Iterator[Reservation]:
        """Room for an object of ``size`` bytes that the caller writes in place; at the end of the block it becomes part of the
        image. After an exception the file is cut back to its old length. ``drop`` and ``fields`` as for ``add``.

            with sif.reserve(size, metadata, group=1) as room:
                os.pwrite(room.fd, data, room.offset)

        The image cannot be edited otherwise inside the block. Needs a file with a descriptor.
        """
        store, state, seconds = self._begin()
        dropped = self._found(store, drop)
        planned = plan_add(state, data_type, seconds=seconds, metadata=metadata, path=self.path, **fields)
        with self._room(store, state, planned, size) as (room, growth):
            yield room
            self._commit(store, state, room.descriptor, dropped, seconds, growth)

    @contextmanager
    def reserve_again(
        self,
        id: int,
        size: int,
        *,
        metadata: Metadata | None = None,
        alignment: int | None = None,
        drop: Iterable[int] = (),
    ) -> Iterator[Reservation]:
        """As ``reserve``, for new bytes of an object that keeps its id, name, group and link; the old bytes are given back."""
        store, state, seconds = self._begin()
        planned = plan_replace(state, id, seconds=seconds, alignment=alignment, metadata=metadata)
        gone = self._found(store, [id, *drop])
        with self._room(store, state, planned, size) as (room, growth):
            yield room
            self._commit(store, state, room.descriptor, gone, seconds, growth)

    def replace(
        self,
        id: int,
        source: SourceLike,
        *,
        metadata: Metadata | None = None,
        alignment: int | None = None,
        advance: Advance | None = None,
        drop: Iterable[int] = (),
    ) -> Descriptor:
        """Give an object other bytes (and metadata); it keeps its id, name, group, link and time of creation.

        The new bytes go behind all others, so a reader has the old object or the new one; the old space is given back.
        ``drop`` as for ``add``.
        """
        store, state, seconds = self._begin()
        planned = plan_replace(state, id, seconds=seconds, alignment=alignment, metadata=metadata)
        gone = self._found(store, [id, *drop])
        with open_source(source) as opened:
            _check_source(opened, store)
            with_payload(state, planned, opened.size or 0)
            with self._changing(), Growth(store, data_end(state.header, state.descriptors)) as growth:
                descriptor = _filled(store, state, planned, opened, advance)
                return self._commit(store, state, descriptor, gone, seconds, growth)

    def delete(self, ids: int | Iterable[int], *, zero: bool = False) -> None:
        """Delete objects, all of them at once, and give their space back: the file is cut at its end, punched before that.

        ``zero``: their bytes are written over where the file keeps them. Links to them are left as they are (see
        ``warnings``). In an image that is cut short they go one by one.
        """
        store, state, seconds = self._begin(whole=False)
        found = self._found(store, [ids] if isinstance(ids, int) else ids)
        if len(found) > 1 and self._is_whole(store, state) and not self._ends_far_behind(store, state):
            self._switch(store, state, state, found, seconds, zero=zero)
            return
        for descriptor in found:
            old = self._state
            new = old.with_slots({descriptor.slot: None}, modified=seconds)
            with self._changing():
                commit_delete(store, old, new, descriptor.slot)
                self._adopt(new)
            self._give_back(store, [descriptor], zero)

    def set_primary(self, id: int, *, drop: Iterable[int] = ()) -> None:
        """Make a system partition the primary one; the one that was becomes a system partition. ``drop`` as for ``add``."""
        store, state, seconds = self._begin()
        dropped = self._found(store, drop)
        self._switch(store, state, plan_primary(state, id, seconds=seconds), dropped, seconds)

    def after_primary(self, id: int) -> tuple[Descriptor, ...]:
        """The descriptors as ``set_primary`` would leave them; raises what it would of the request. Nothing is written."""
        return plan_primary(self._state, id, seconds=0).descriptors

    def after_update(self, changes: Mapping[int, Change]) -> tuple[Descriptor, ...]:
        """The descriptors as ``update_all`` would leave them; raises what it would of the changes. Nothing is written."""
        return plan_changes(self._state, changes, seconds=0).descriptors

    def update(
        self,
        id: int,
        *,
        name: bytes | Unchanged = UNCHANGED,
        group: int | Unchanged = UNCHANGED,
        link: int | Unchanged = UNCHANGED,
        link_group: int | Unchanged = UNCHANGED,
        metadata: Metadata | bytes | Unchanged = UNCHANGED,
        created: int | Unchanged = UNCHANGED,
    ) -> Descriptor:
        """Change what the descriptor says of an object; 0 takes a group or link away."""
        change = Change(name=name, group=group, link=link, link_group=link_group, metadata=metadata, created=created)
        self.update_all({id: change})
        return self.get(id)

    def update_all(self, changes: Mapping[int, Change], *, drop: Iterable[int] = ()) -> None:
        """Change several descriptors at once, by id. ``drop`` as for ``add``."""
        store, state, seconds = self._begin()
        dropped = self._found(store, drop)
        self._switch(store, state, plan_changes(state, changes, seconds=seconds), dropped, seconds)

    def _begin(self, *, whole: bool = True) -> tuple[Store, State, int]:
        """The store, the state and the time an edit starts from, after looking whether one may start."""
        store = self._open_store
        if self.mode == "r":
            raise NotWritableError("the image is open for reading only", path=self.path, hint='open it with mode "r+"')
        if self._reserved:
            raise EditError("the image cannot be edited while room in it is reserved", hint="end the reservation first")
        if whole and not self._is_whole(store, self._state):
            raise TruncatedError("the image is cut short: objects in it end behind the end of the file", path=self.path)
        if whole and self._ends_far_behind(store, self._state):
            raise TruncatedError("the image says its data ends far behind the end of the file", path=self.path)
        return store, self._state, seconds_for(self.header, self._stamp)

    def _is_whole(self, store: Store, state: State) -> bool:
        size = store.size
        return all(descriptor.end <= size for descriptor in state.descriptors if descriptor.size)

    def _ends_far_behind(self, store: Store, state: State) -> bool:
        """Whether a second table would have to go to an absurd place."""
        return data_end(state.header, state.descriptors) > store.size + MAX_ALIGNMENT

    def _found(self, store: Store, ids: Iterable[int]) -> list[Descriptor]:
        """The objects that an edit takes away, each once; nobody uses them."""
        found = [self.get(id) for id in dict.fromkeys(ids)]
        for descriptor in found:
            if descriptor.data_type == DataType.PARTITION:
                check_unlocked(store, descriptor.offset, descriptor.size, f"object {descriptor.id}")
        return found

    def _adopt(self, state: State) -> None:
        self._state = state
        self.warnings = (*self._extra, *notices(state, self._open_store.size))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """After trouble, what counts is what the file says."""
        try:
            yield
        except BaseException:
            with suppress(SifkitError, OSError):
                self._adopt(load(self._open_store))
            raise

    @contextmanager
    def _room(self, store: Store, state: State, planned: Descriptor, size: int) -> Iterator[tuple[Reservation, Growth]]:
        if store.fd is None:
            raise EditError("room is reserved only in a file that has a descriptor", hint="open the image by its path")
        if size <= 0:
            raise EditError(f"{size} bytes cannot be reserved", hint="give a size of at least 1")
        descriptor = with_payload(state, planned, size)
        with self._changing(), Growth(store, data_end(state.header, state.descriptors)) as growth:
            store.set_size(descriptor.end)
            self._reserved = True
            try:
                yield Reservation(store.fd, store.base + descriptor.offset, size, descriptor), growth
            finally:
                self._reserved = False

    def _commit(
        self, store: Store, state: State, descriptor: Descriptor, gone: list[Descriptor], seconds: int, growth: Growth
    ) -> Descriptor:
        """Make ``descriptor``, whose bytes are written, part of the image, and take ``gone`` out of it, at one moment."""
        new = state.with_slots({**_freed(gone), descriptor.slot: descriptor}, modified=seconds)
        if store.size != descriptor.end:
            store.set_size(descriptor.end)
        if gone:
            commit_switch(store, state, new, growth, size_after=data_end(new.header, new.descriptors))
        else:
            commit_add(store, state, new, descriptor.slot, growth)
        self._adopt(new)
        if gone:
            self._give_back(store, gone, False)
        return self.get(descriptor.id)

    def _switch(
        self, store: Store, state: State, new: State, gone: list[Descriptor], seconds: int, *, zero: bool = False
    ) -> None:
        """Go from one table to another, without ``gone``, at one moment. What belongs to nothing behind the last object goes
        with this edit as with every other."""
        if gone:
            new = new.with_slots(_freed(gone), modified=seconds)
        if new is state:
            return
        with self._changing(), Growth(store, None) as growth:
            end = data_end(new.header, new.descriptors)
            commit_switch(store, state, new, growth, size_after=min(store.size, end))
            self._adopt(new)
        if gone:
            self._give_back(store, gone, zero)

    def _give_back(self, store: Store, removed: Iterable[Descriptor], zero: bool) -> None:
        """The edit is done; what the file keeps all the same is only told of, unless it had to go."""
        try:
            gone = [(descriptor.offset, descriptor.end) for descriptor in removed if descriptor.size]
            released = give_back(store, self._state, gone, zero=zero)
        except StoreError:
            if zero:
                raise
            released = False
        if not released and all(notice.kind != "space-kept" for notice in self._extra):
            text = "the file keeps the space of what was removed: make the image anew with: sifkit sif compact"
            self._extra.append(Notice("space-kept", text))
        self._adopt(self._state)


def _freed(gone: Iterable[Descriptor]) -> dict[int, Descriptor | None]:
    return {descriptor.slot: None for descriptor in gone}


def _check_source(source: Source, store: Store) -> None:
    if source.is_file(store.fd):
        raise EditError("an image cannot become an object in itself", hint="copy it first")


def _filled(store: Store, state: State, planned: Descriptor, source: Source, advance: Advance | None) -> Descriptor:
    """Copy the payload to its place; the descriptor with its size and, for OCI objects, its digest."""
    hasher = digest_hasher() if planned.data_type in OCI_TYPES else None
    size = copy_in(source, store, planned.offset, hasher=hasher, advance=advance)
    return with_payload(state, planned, size, digest=hasher.hexdigest() if hasher else None)
