"""Everything that changes an open image. Each method is one commit: the file holds the old image or the new one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ..errors import SifkitError
from .descriptor import Descriptor
from .edit import Growth, commit_add, commit_delete, commit_switch, give_back
from .errors import EditError, NotWritableError, StoreError, TruncatedError
from .metadata import Metadata
from .opening import check_unlocked
from .payload import Advance, Source, SourceLike, copy_in, digest_hasher, open_source
from .placement import MAX_ALIGNMENT, data_end
from .plan import (
    UNCHANGED,
    Change,
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
from .types import DataType

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
        name: bytes = b"",
        group: int = 0,
        link: int = 0,
        link_group: int = 0,
        alignment: int | None = None,
        metadata: Metadata | bytes | None = None,
        created: int | None = None,
        advance: Advance | None = None,
    ) -> Descriptor:
        """Append an object with the bytes of ``source``: a path (text or PathLike), a file descriptor, bytes, or a binary file
        object; descriptors and objects are read from where they stand. Holes in files stay holes.

        ``group``, ``link``, ``link_group``: 0 is none. ``alignment`` in bytes (None: 4096 for partitions, else none).
        ``metadata`` is needed by partitions, signatures and SBOMs; OCI digests are made here. ``advance`` is told how many
        bytes came in. Raises SourceError, SourceChangedError and what the class says.
        """
        store, state, seconds = self._begin()
        planned = plan_add(
            state,
            data_type,
            seconds=seconds,
            name=name,
            group=group,
            link=link,
            link_group=link_group,
            alignment=alignment,
            metadata=metadata,
            created=created,
            path=self.path,
        )
        with open_source(source) as opened:
            _check_source(opened, store)
            with_payload(state, planned, opened.size or 0)
            with self._changing(), Growth(store, data_end(state.header, state.descriptors)) as growth:
                descriptor = _filled(store, state, planned, opened, advance)
                return self._commit_add(store, state, descriptor, seconds, growth)

    @contextmanager
    def reserve(
        self,
        size: int,
        metadata: Metadata,
        *,
        data_type: DataType = DataType.PARTITION,
        name: bytes = b"",
        group: int = 0,
        link: int = 0,
        link_group: int = 0,
        alignment: int | None = None,
        created: int | None = None,
    ) -> Iterator[Reservation]:
        """Room for an object of ``size`` bytes that the caller writes in place; at the end of the block it becomes part of the
        image. After an exception the file is cut back to its old length.

            with sif.reserve(size, metadata, group=1) as room:
                os.pwrite(room.fd, data, room.offset)

        The image cannot be edited otherwise inside the block. Needs a file with a descriptor.
        """
        store, state, seconds = self._begin()
        planned = plan_add(
            state,
            data_type,
            seconds=seconds,
            name=name,
            group=group,
            link=link,
            link_group=link_group,
            alignment=alignment,
            metadata=metadata,
            created=created,
            path=self.path,
        )
        with self._room(store, state, planned, size) as (room, growth):
            yield room
            self._commit_add(store, state, room.descriptor, seconds, growth)

    @contextmanager
    def reserve_again(
        self, id: int, size: int, *, metadata: Metadata | None = None, alignment: int | None = None
    ) -> Iterator[Reservation]:
        """As ``reserve``, for new bytes of an object that keeps its id, name, group and link; the old bytes are given back."""
        store, state, seconds = self._begin()
        planned = plan_replace(state, id, seconds=seconds, alignment=alignment, metadata=metadata)
        self._check_unused(store, [self.get(id)])
        with self._room(store, state, planned, size) as (room, growth):
            yield room
            self._commit_replaced(store, state, room.descriptor, seconds, growth)

    def replace(
        self,
        id: int,
        source: SourceLike,
        *,
        metadata: Metadata | None = None,
        alignment: int | None = None,
        advance: Advance | None = None,
    ) -> Descriptor:
        """Give an object other bytes (and metadata); it keeps its id, name, group, link and time of creation.

        The new bytes go behind all others, so a reader has the old object or the new one; the old space is given back.
        """
        store, state, seconds = self._begin()
        planned = plan_replace(state, id, seconds=seconds, alignment=alignment, metadata=metadata)
        self._check_unused(store, [self.get(id)])
        with open_source(source) as opened:
            _check_source(opened, store)
            with_payload(state, planned, opened.size or 0)
            with self._changing(), Growth(store, data_end(state.header, state.descriptors)) as growth:
                descriptor = _filled(store, state, planned, opened, advance)
                return self._commit_replaced(store, state, descriptor, seconds, growth)

    def delete(self, ids: int | Iterable[int], *, zero: bool = False) -> None:
        """Delete objects, all of them at once, and give their space back: the file is cut at its end, punched before that.

        ``zero``: their bytes are written over where the file keeps them. Links to them are left as they are (see
        ``warnings``). In an image that is cut short they go one by one.
        """
        store, state, seconds = self._begin(whole=False)
        found = [self.get(id) for id in dict.fromkeys([ids] if isinstance(ids, int) else ids)]
        self._check_unused(store, found)
        if len(found) > 1 and self._is_whole(store, state):
            new = state.with_slots({descriptor.slot: None for descriptor in found}, modified=seconds)
            with self._changing(), Growth(store, None) as growth:
                commit_switch(store, state, new, growth, size_after=store.size)
                self._adopt(new)
            self._give_back(store, found, zero)
            return
        for descriptor in found:
            old = self._state
            new = old.with_slots({descriptor.slot: None}, modified=seconds)
            with self._changing():
                commit_delete(store, old, new, descriptor.slot)
                self._adopt(new)
            self._give_back(store, [descriptor], zero)

    def set_primary(self, id: int) -> None:
        """Make a system partition the primary one; the one that was becomes a system partition."""
        store, state, seconds = self._begin()
        self._switch(store, state, plan_primary(state, id, seconds=seconds))

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

    def update_all(self, changes: Mapping[int, Change]) -> None:
        """Change several descriptors at once, by id."""
        store, state, seconds = self._begin()
        self._switch(store, state, plan_changes(state, changes, seconds=seconds))

    def _begin(self, *, whole: bool = True) -> tuple[Store, State, int]:
        """The store, the state and the time an edit starts from, after looking whether one may start."""
        store = self._open_store
        if self.mode == "r":
            raise NotWritableError("the image is open for reading only", path=self.path, hint='open it with mode "r+"')
        if self._reserved:
            raise EditError("the image cannot be edited while room in it is reserved", hint="end the reservation first")
        if whole and not self._is_whole(store, self._state):
            raise TruncatedError("the image is cut short: objects in it end behind the end of the file", path=self.path)
        if whole and data_end(self.header, self.descriptors) > store.size + MAX_ALIGNMENT:
            raise TruncatedError("the image says its data ends far behind the end of the file", path=self.path)
        return store, self._state, seconds_for(self.header, self._stamp)

    def _is_whole(self, store: Store, state: State) -> bool:
        size = store.size
        return all(descriptor.end <= size for descriptor in state.descriptors if descriptor.size)

    def _check_unused(self, store: Store, descriptors: Iterable[Descriptor]) -> None:
        for descriptor in descriptors:
            if descriptor.data_type == DataType.PARTITION:
                check_unlocked(store, descriptor.offset, descriptor.size, f"object {descriptor.id}")

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

    def _commit_add(self, store: Store, state: State, descriptor: Descriptor, seconds: int, growth: Growth) -> Descriptor:
        new = state.with_slots({descriptor.slot: descriptor}, modified=seconds)
        if store.size != descriptor.end:
            store.set_size(descriptor.end)
        commit_add(store, state, new, descriptor.slot, growth)
        self._adopt(new)
        return self.get(descriptor.id)

    def _commit_replaced(self, store: Store, state: State, descriptor: Descriptor, seconds: int, growth: Growth) -> Descriptor:
        old = self.get(descriptor.id)
        new = state.with_slots({descriptor.slot: descriptor}, modified=seconds)
        if store.size != descriptor.end:
            store.set_size(descriptor.end)
        commit_switch(store, state, new, growth, size_after=data_end(new.header, new.descriptors))
        self._adopt(new)
        self._give_back(store, [old], False)
        return self.get(descriptor.id)

    def _switch(self, store: Store, state: State, new: State) -> None:
        if new is state:
            return
        with self._changing(), Growth(store, None) as growth:
            commit_switch(store, state, new, growth, size_after=store.size)
            self._adopt(new)

    def _give_back(self, store: Store, removed: Iterable[Descriptor], zero: bool) -> None:
        """The edit is done; what the file keeps all the same is only told of, unless it had to go."""
        try:
            released = give_back(store, self._state, removed, zero=zero)
        except StoreError:
            if zero:
                raise
            released = False
        if not released and all(notice.kind != "space-kept" for notice in self._extra):
            text = "the file keeps the space of what was removed: make the image anew with: sifkit sif compact"
            self._extra.append(Notice("space-kept", text))
        self._adopt(self._state)


def _check_source(source: Source, store: Store) -> None:
    if source.is_file(store.fd):
        raise EditError("an image cannot become an object in itself", hint="copy it first")


def _filled(store: Store, state: State, planned: Descriptor, source: Source, advance: Advance | None) -> Descriptor:
    """Copy the payload to its place; the descriptor with its size and, for OCI objects, its digest."""
    hasher = digest_hasher() if planned.data_type in OCI_TYPES else None
    size = copy_in(source, store, planned.offset, hasher=hasher, advance=advance)
    return with_payload(state, planned, size, digest=hasher.hexdigest() if hasher else None)
