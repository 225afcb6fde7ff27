"""Recovery of an image that is opened for writing: interrupted edits and wrong counts.

Every step may be interrupted itself; the next recovery continues.
"""

from __future__ import annotations

from contextlib import suppress

from ..errors import SifkitError
from .commit import cut_tail, write_header
from .format.descriptor import DESCRIPTOR_BYTES, EMPTY_SLOT
from .format.header import HEADER_BYTES, GlobalHeader
from .format.placement import MAX_OFFSET, data_end, home_of_table
from .format.schema import DESCRIPTOR
from .format.types import Arch
from .gaps import occupied_gaps
from .select import primary
from .state import State
from .store import Store

__all__ = ["plan_recovery", "recover", "release_space"]


def plan_recovery(state: State) -> State:
    """Plan the recovery; returns a state equal to ``state`` if there is nothing to do. Pure.

    The table is moved home from the end of the file, unused descriptors are zeroed, free descriptors and data are counted. The
    architecture becomes the primary partition's, if that is known. Without a primary partition it is kept (a new image may be
    created for one), unless the count of free descriptors is wrong: then adding or deleting the partition was interrupted.
    """
    header = state.header
    home = home_of_table(header, state.descriptors)
    if home is not None:
        header = header._replace(descriptors_offset=home)
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
    header = header._replace(arch=arch, descriptors_free=free, data_size=data_size)
    return State(header, bytes(table), state.descriptors)


def recover(store: Store, state: State) -> State:
    """Write ``plan_recovery(state)`` to the file, except for a data size that is too large; nothing if it equals ``state``.

    ``release_space`` is for the end of the session: an edit that is refused leaves the image as it is.
    """
    wanted = plan_recovery(state)
    if wanted != state:
        _recover(store, state, wanted)
    return wanted


def _recover(store: Store, state: State, wanted: State) -> None:
    """Write table and header. The header goes on counting bytes after the end, which marks them as belonging to no object."""
    end = data_end(wanted.header, wanted.descriptors)
    if store.size > end:
        counted = max(end, state.header.data_offset + state.header.data_size, _interrupted_end(state, store.size))
        header = wanted.header._replace(data_size=counted - wanted.header.data_offset)
        wanted = wanted._replace(header=header)
    if wanted.header.descriptors_offset != state.header.descriptors_offset:
        store.write(wanted.header.descriptors_offset, wanted.table[: wanted.header.table_bytes])
        store.sync()
        write_header(store, wanted)
        return
    if wanted.header != state.header:
        write_header(store, wanted)
    for slot in range(state.header.descriptors_total):
        if state.slot_bytes(slot) != wanted.slot_bytes(slot):
            store.write(state.header.descriptors_offset + slot * DESCRIPTOR_BYTES, wanted.slot_bytes(slot))
    store.sync()


def release_space(store: Store, state: State) -> None:
    """Free what an interrupted edit left: bytes between objects, and those after the last one that the header counts as data.

    Other bytes after the last object may be of use and are kept until the next edit.
    """
    with suppress(OSError, SifkitError):  # a check reports the space; the image is usable
        for begin, size in occupied_gaps(store, state.header, state.descriptors):
            store.release(begin, size)
        header = GlobalHeader.parse(store.read_some(0, HEADER_BYTES))
        size, end = store.size, data_end(state.header, state.descriptors)
        counted = header.data_offset + header.data_size
        if counted <= end:
            return
        state = state._replace(header=state.header._replace(data_size=end - header.data_offset))
        if end < size <= counted:
            cut_tail(store, state, size_after=end)
            return
        store.release(end, min(size, counted) - end)
        write_header(store, state)


def _interrupted_end(state: State, size: int) -> int:
    """Return the end of an object at the end of the file that was being added or deleted: its descriptor is unused. Else 0."""
    found = 0
    used = state.used_slots
    for slot in range(state.header.descriptors_total):
        if slot not in used and state.slot_bytes(slot) != EMPTY_SLOT:
            fields = DESCRIPTOR.read(state.table, slot * DESCRIPTOR_BYTES)
            if 0 < fields["Offset"] < size <= fields["Offset"] + fields["Size"] <= MAX_OFFSET:
                found = max(found, fields["Offset"] + fields["Size"])
    return found
