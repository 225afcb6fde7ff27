"""What opening an image for writing finishes or puts right: edits that were interrupted, counters that are wrong.

Every step may be interrupted itself; the next opening goes on from there.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from .commit import finish_switch, give_back
from .errors import StoreError
from .format.descriptor import DESCRIPTOR_BYTES, EMPTY_SLOT
from .format.placement import data_end, home_of_table
from .format.schema import DESCRIPTOR
from .format.types import Arch
from .select import primary
from .state import State
from .store import Store

__all__ = ["plan_recovery", "recover"]


def plan_recovery(state: State) -> State:
    """The image as it should be; equal to ``state`` where nothing is to be done. Pure.

    The table goes home from the end of the file; unused descriptors are emptied; free descriptors and data are counted. The
    architecture becomes the primary partition's, if that is one that is known. Without a primary partition it is left alone (a
    new image may be made for one), unless the free descriptors were counted wrong: then adding or deleting it was interrupted.
    """
    header = state.header
    home = home_of_table(header, state.descriptors)
    if home is not None:
        header = replace(header, descriptors_offset=home)
    table = bytearray(state.table)
    used = state.used_slots
    for slot in range(header.descriptors_total):
        if slot not in used:
            table[slot * DESCRIPTOR_BYTES : (slot + 1) * DESCRIPTOR_BYTES] = EMPTY_SLOT
    free = header.descriptors_total - len(used)
    root = primary(state.descriptors)
    arch = header.arch
    if root is not None:
        arch = root.arch if isinstance(root.arch, Arch) else arch
    elif header.descriptors_free != free:
        arch = Arch.UNKNOWN
    data_size = data_end(header, state.descriptors) - header.data_offset
    header = replace(header, arch=arch, descriptors_free=free, data_size=data_size)
    return State(header, bytes(table), state.descriptors)


def recover(store: Store, state: State) -> State:
    """Bring the file from ``state`` to ``plan_recovery(state)``; nothing is written where they are equal.

    The space of an object whose removal or addition was interrupted is given back. Other bytes behind the last object may be
    somebody's and stay: they go with the next edit.
    """
    wanted = plan_recovery(state)
    if wanted == state:
        return state
    gone = _unfinished(store, state, wanted)
    _write(store, state, wanted)
    if gone:
        with suppress(StoreError):  # an image without the space, which a check tells of, is better than none
            give_back(store, wanted, gone, cut=any(begin < store.size <= end for begin, end in gone))
    return wanted


def _unfinished(store: Store, state: State, wanted: State) -> list[tuple[int, int]]:
    """(begin, end) of what unused descriptors tell of, and of what the old table has and the new one has not: where objects
    were, or were to be."""
    table = state.table
    if wanted.header.descriptors_offset != state.header.descriptors_offset:
        table = store.read(wanted.header.descriptors_offset, wanted.header.table_bytes)
    gone = []
    for slot in range(state.header.descriptors_total):
        start = slot * DESCRIPTOR_BYTES
        if table[start : start + DESCRIPTOR_BYTES] != wanted.slot_bytes(slot):
            fields = DESCRIPTOR.read(table, start)
            gone.append((fields["Offset"], fields["Offset"] + fields["Size"]))
    return [(begin, end) for begin, end in gone if 0 < begin < end]


def _write(store: Store, state: State, wanted: State) -> None:
    if wanted.header.descriptors_offset != state.header.descriptors_offset:
        size = store.size
        # The second table is the last thing in the file, unless somebody appended to it: then nothing is cut off.
        ours = size == state.header.table_end
        end = data_end(wanted.header, wanted.descriptors)
        finish_switch(store, wanted, size_after=min(size, end) if ours else size)
        return
    for slot in range(state.header.descriptors_total):
        if state.slot_bytes(slot) != wanted.slot_bytes(slot):
            store.write(state.header.descriptors_offset + slot * DESCRIPTOR_BYTES, wanted.slot_bytes(slot))
    if wanted.header != state.header:
        store.write(0, wanted.header.pack())
    store.sync()
