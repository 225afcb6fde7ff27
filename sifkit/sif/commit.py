"""Commit of edits: the order of writes, chosen so that readers always find the old image or the new one.

The orders were tested with the reference library. They rely on two atomic writes: of one byte, and of the header, which lies
in one sector. ``store.sync`` separates writes that must not be reordered.

* An object is added: its data; the header (larger data size, one free descriptor less); the descriptor, still unused; its
  Used byte. A writer that trusts the header's data size cannot overwrite the object at any stage.
* An object is deleted: its Used byte; the rest of the descriptor; the header; only then its space is freed.
* All other edits go through a second table at the end of the file: it is written; the header points to it (the commit); the
  table at home is rewritten; the header points back; the second table is truncated.
* Bytes after the last object are truncated while the header still counts them as data, so that recovery knows that they belong
  to no object; it does not know that of other bytes there.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

from .errors import StoreError
from .format.descriptor import DESCRIPTOR_BYTES, EMPTY_SLOT, USED_OFFSET
from .format.placement import PAGE_BYTES, align, data_end, dead_spans, intersecting
from .state import State
from .store import Store

__all__ = ["Growth", "commit_add", "commit_delete", "commit_switch", "cut_tail", "finish_switch", "free_space", "write_header"]


class Growth:
    """Growth of the file during an edit; truncated again if the edit fails.

    ``end``: end of the data. Bytes after it belong to no object and are truncated first, so that everything after ``end``
    reads as zero. None if only a table is written there.
    """

    def __init__(self, store: Store, end: int | None) -> None:
        self.store = store
        self.end = end
        self.keep = False
        """Do not truncate: bytes after the old end may be in use."""

    def __enter__(self) -> Self:
        self.old_size = self.store.size
        if self.end is not None and self.old_size > self.end:
            self.store.set_size(self.end)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None and not self.keep:
            with suppress(StoreError):
                self.store.set_size(self.old_size)


def write_header(store: Store, state: State) -> None:
    """Write the header, and sync."""
    store.write(0, state.header.pack())
    store.sync()


def _counting_all(store: Store, state: State) -> State:
    """Return ``state`` with a header that counts all bytes of the file as data, as long as those after the end are there."""
    counted = max(state.header.data_size, store.size - state.header.data_offset)
    return state._replace(header=state.header._replace(data_size=counted))


def cut_tail(store: Store, state: State, *, size_after: int) -> None:
    """Truncate the file to ``size_after``; then write the header of ``state``, which does not count what was after that."""
    store.set_size(size_after)
    store.sync()
    write_header(store, state)


def _slot_offset(state: State, slot: int) -> int:
    return state.header.descriptors_offset + slot * DESCRIPTOR_BYTES


def commit_add(store: Store, old: State, new: State, slot: int, growth: Growth) -> None:
    """Add the object in ``slot`` of ``new`` to the image. Its data is written, but not yet synced."""
    store.sync()
    offset = _slot_offset(old, slot)
    record = bytearray(new.slot_bytes(slot))
    used, record[USED_OFFSET] = record[USED_OFFSET : USED_OFFSET + 1], 0
    growth.keep = True
    try:
        write_header(store, new)
        store.write(offset, record)
        store.sync()
        store.write(offset + USED_OFFSET, used)
        store.sync()
    except BaseException:
        # Roll back in order: unused, empty, counted as free.
        store.write(offset + USED_OFFSET, b"\0")
        store.sync()
        store.write(offset, old.slot_bytes(slot))
        write_header(store, old)
        growth.keep = False
        raise


def commit_delete(store: Store, old: State, new: State, slot: int) -> None:
    """Free one descriptor; ``free_space`` frees the object's space."""
    offset = _slot_offset(old, slot)
    try:
        store.write(offset + USED_OFFSET, b"\0")
        store.sync()
        store.write(offset, EMPTY_SLOT)
        write_header(store, _counting_all(store, new))
    except BaseException:
        record = bytearray(old.slot_bytes(slot))
        used, record[USED_OFFSET] = record[USED_OFFSET : USED_OFFSET + 1], 0
        write_header(store, old)
        store.write(offset, record)
        store.sync()
        store.write(offset + USED_OFFSET, used)
        store.sync()
        raise


def commit_switch(store: Store, old: State, new: State, growth: Growth, *, size_after: int) -> None:
    """Replace the whole table in one commit. ``size_after``: length of the file at the end."""
    shadow = align(max(store.size, data_end(old.header, old.descriptors), data_end(new.header, new.descriptors)), PAGE_BYTES)
    size = shadow + new.header.table_bytes
    store.write(shadow, new.table[: new.header.table_bytes])
    store.sync()
    growth.keep = True
    pointing = new._replace(header=new.header._replace(descriptors_offset=shadow, data_size=size - new.header.data_offset))
    try:
        write_header(store, pointing)
    except BaseException:
        write_header(store, old)
        growth.keep = False
        raise
    try:
        finish_switch(store, new, size_after=size_after)
    except StoreError as error:
        error.mark_committed("the edit is done, and is completed when the image is next opened for writing")
        raise
    except OSError:
        raise  # opening the image for writing finishes it
    except BaseException:
        finish_switch(store, new, size_after=size_after)
        raise


def finish_switch(store: Store, new: State, *, size_after: int) -> None:
    """Finish ``commit_switch``: the header points to the second table, and ``new`` has the table at home."""
    store.write(new.header.descriptors_offset, new.table[: new.header.table_bytes])
    store.sync()
    if store.size > size_after and size_after <= data_end(new.header, new.descriptors):
        write_header(store, _counting_all(store, new))
        cut_tail(store, new, size_after=size_after)
        return
    # What stays after the end belongs to no object: it is not counted.
    write_header(store, new)
    store.set_size(size_after)


def free_space(store: Store, state: State, gone: Iterable[tuple[int, int]], *, zero: bool = False, cut: bool = True) -> bool:
    """Free the space of deleted objects, which were at ``gone``, (begin, end), and are not in ``state``.

    Holes are punched between the remaining objects, and with ``cut`` the file is truncated after the last one. Returns False if
    space could not be freed; its bytes remain, unless ``zero`` overwrites them.
    """
    done = True
    end = data_end(state.header, state.descriptors)
    for begin, size in intersecting(dead_spans(state.header, state.descriptors), gone):
        released = store.release(begin, min(size, max(0, store.size - begin)))
        if zero and not released:
            store.make_zero(begin, size)
        done &= released
    if cut and store.size > end:
        try:
            cut_tail(store, state, size_after=end)
        except OSError:
            raise
        except BaseException:
            cut_tail(store, state, size_after=end)
            raise
    if zero:
        store.sync()
    return done
