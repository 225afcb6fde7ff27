"""The order in which edits reach the file: at every moment, whatever was written last, readers find the old image or the new.

The orders were tried against the reference library. They rest on two facts: one byte is written whole or not at all, and so
is the header, which lies in one sector. ``store.sync`` separates what must not change places.

* An object is added: its data; the header (more data, one free descriptor less); the descriptor, still unused; the byte that
  says it is used. A writer that trusts the header's data size cannot overwrite it at any stage.
* One object is deleted: that byte; the rest of the descriptor; the header; only then is space given back.
* Everything else goes through a second table at the end of the file: it is written; the header points there (this is the
  moment); the table in its place is rewritten; the header points back; the second table is cut off.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from .errors import StoreError
from .format.descriptor import DESCRIPTOR_BYTES, EMPTY_SLOT, USED_OFFSET
from .format.placement import PAGE_BYTES, align, data_end, dead_spans, touched
from .state import State
from .store import Store

__all__ = ["Growth", "commit_add", "commit_delete", "commit_switch", "finish_switch", "give_back"]


class Growth:
    """What an edit writes behind the old end of the file: cut off again when the edit fails.

    ``end``: where the data ends now. What the file has behind it belongs to nothing, and is cut off first, so that everything
    behind ``end`` reads as zero; None where nothing is to be put there but a table.
    """

    def __init__(self, store: Store, end: int | None) -> None:
        self.store = store
        self.end = end
        self.keep = False
        """Something behind the old end is, or may be, in use."""

    def __enter__(self) -> Self:
        self.old_size = self.store.size
        if self.end is not None and self.old_size > self.end:
            self.store.set_size(self.end)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None and not self.keep:
            with suppress(StoreError):
                self.store.set_size(self.old_size)


def _write_header(store: Store, state: State) -> None:
    store.write(0, state.header.pack())
    store.sync()


def _slot_offset(state: State, slot: int) -> int:
    return state.header.descriptors_offset + slot * DESCRIPTOR_BYTES


def commit_add(store: Store, old: State, new: State, slot: int, growth: Growth) -> None:
    """Make the object in ``slot`` of ``new`` part of the image; its data is written, but not yet synced."""
    store.sync()
    offset = _slot_offset(old, slot)
    record = bytearray(new.slot_bytes(slot))
    used, record[USED_OFFSET] = record[USED_OFFSET : USED_OFFSET + 1], 0
    growth.keep = True
    try:
        _write_header(store, new)
        store.write(offset, record)
        store.sync()
        store.write(offset + USED_OFFSET, used)
        store.sync()
    except BaseException:
        # The way back, as careful as the way there: unused, empty, counted as free.
        store.write(offset + USED_OFFSET, b"\0")
        store.sync()
        store.write(offset, old.slot_bytes(slot))
        _write_header(store, old)
        growth.keep = False
        raise


def commit_delete(store: Store, old: State, new: State, slot: int) -> None:
    """Free one descriptor. The space of the object is ``give_back``'s to free."""
    offset = _slot_offset(old, slot)
    try:
        store.write(offset + USED_OFFSET, b"\0")
        store.sync()
        store.write(offset, EMPTY_SLOT)
        _write_header(store, new)
    except BaseException:
        record = bytearray(old.slot_bytes(slot))
        used, record[USED_OFFSET] = record[USED_OFFSET : USED_OFFSET + 1], 0
        _write_header(store, old)
        store.write(offset, record)
        store.sync()
        store.write(offset + USED_OFFSET, used)
        store.sync()
        raise


def commit_switch(store: Store, old: State, new: State, growth: Growth, *, size_after: int) -> None:
    """Replace the whole table at once; ``size_after``: the file's length when all is done."""
    shadow = align(max(store.size, data_end(old.header, old.descriptors), data_end(new.header, new.descriptors)), PAGE_BYTES)
    size = shadow + new.header.table_bytes
    store.write(shadow, new.table[: new.header.table_bytes])
    store.sync()
    growth.keep = True
    pointing = replace(new, header=replace(new.header, descriptors_offset=shadow, data_size=size - new.header.data_offset))
    try:
        _write_header(store, pointing)
    except BaseException:
        _write_header(store, old)
        growth.keep = False
        raise
    try:
        finish_switch(store, new, size_after=size_after)
    except OSError:
        raise  # the next one who opens the image for writing finishes it
    except BaseException:
        finish_switch(store, new, size_after=size_after)
        raise


def finish_switch(store: Store, new: State, *, size_after: int) -> None:
    """The second half: the header points to a table elsewhere, and ``new`` is the image with its table at home."""
    store.write(new.header.descriptors_offset, new.table[: new.header.table_bytes])
    store.sync()
    _write_header(store, new)
    store.set_size(size_after)


def give_back(store: Store, state: State, gone: Iterable[tuple[int, int]], *, zero: bool = False, cut: bool = True) -> bool:
    """Free the space of objects that are no longer in ``state`` and were at ``gone``, (begin, end): holes are punched between
    its objects, and the file is cut behind the last one (``cut`` False: it is not). False where the file could not be made to
    give up something: its bytes stay, unless ``zero`` wants them written over."""
    done = True
    end = data_end(state.header, state.descriptors)
    for begin, size in touched(dead_spans(state.header, state.descriptors), gone):
        released = store.release(begin, min(size, max(0, store.size - begin)))
        if zero and not released:
            store.make_zero(begin, size)
        done &= released
    if cut and store.size > end:
        store.set_size(end)
    if zero:
        store.sync()
    return done
