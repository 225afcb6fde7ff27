"""Recovery of an image that is opened for writing: interrupted edits and wrong counts.

Every step may be interrupted itself; the next recovery continues.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from .commit import finish_switch, free_space
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
    """Plan the recovery; returns a state equal to ``state`` if there is nothing to do. Pure.

    The table is moved home from the end of the file, unused descriptors are zeroed, free descriptors and data are counted. The
    architecture becomes the primary partition's, if that is known. Without a primary partition it is kept (a new image may be
    created for one), unless the count of free descriptors is wrong: then adding or deleting the partition was interrupted.
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
    """Write ``plan_recovery(state)`` to the file; nothing is written if it equals ``state``.

    The space of objects whose removal or addition was interrupted is freed. Other bytes after the last object may be of use and
    are kept until the next edit.
    """
    wanted = plan_recovery(state)
    if wanted == state:
        return state
    gone = _interrupted_spans(store, state, wanted)
    _write_recovered(store, state, wanted)
    if gone:
        with suppress(StoreError):  # a check reports the space; the image is usable
            free_space(store, wanted, gone, cut=any(begin < store.size <= end for begin, end in gone))
    return wanted


def _interrupted_spans(store: Store, state: State, wanted: State) -> list[tuple[int, int]]:
    """Return (begin, end) of objects whose removal or addition was interrupted: those of unused descriptors, and those that are
    in only one of the two tables."""
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


def _write_recovered(store: Store, state: State, wanted: State) -> None:
    if wanted.header.descriptors_offset != state.header.descriptors_offset:
        size = store.size
        # The second table is at the end of the file, unless data was appended: then nothing is truncated.
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
