"""An image's header and table as one value, read with every number checked before it is used.

What could hurt a reader or a writer raises: counts, offsets and sizes that are negative, leave the file or overlap. All else
that is wrong is collected as ``Notice`` values and reading goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from .errors import CorruptSIFError, TruncatedError
from .format.descriptor import DESCRIPTOR_BYTES, EMPTY_SLOT, MAX_GROUP, Descriptor
from .format.header import HEADER_BYTES, GlobalHeader
from .format.placement import MAX_CAPACITY, MAX_OFFSET, data_end, first_overlap, home_of_table, table_bytes
from .format.types import Arch, DataType, PartType, arch_meant
from .select import matching, primary
from .store import Store

__all__ = ["MOST_NOTICES", "Notice", "NoticeKind", "State", "check_header", "check_objects", "load", "meant_arch", "notices"]

MOST_NOTICES = 100
"""What is kept of them: a hostile table could give thousands."""

NoticeKind = Literal[
    "interrupted-edit",
    "free-count",
    "data-size",
    "table-size",
    "architecture",
    "unused-slot",
    "outside-file",
    "trailing-bytes",
    "duplicate-id",
    "id-zero",
    "several-primaries",
    "unknown-type",
    "padding",
    "group",
    "link",
    "digest",
    "no-locks",
    "space-kept",
    "more",
]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something wrong that does no harm by itself. ``id``: the object concerned, None for the image."""

    kind: NoticeKind
    message: str
    id: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Header and table at one moment. ``table`` holds the descriptors' bytes, used or not, ``descriptors`` those used."""

    header: GlobalHeader
    table: bytes
    descriptors: tuple[Descriptor, ...]

    @classmethod
    def of(cls, header: GlobalHeader, table: bytes) -> State:
        """``table`` holds at least ``descriptors_total`` records."""
        view = memoryview(table)
        parsed = (Descriptor.parse(view, slot * DESCRIPTOR_BYTES, slot=slot) for slot in range(header.descriptors_total))
        return cls(header, table, tuple(descriptor for descriptor in parsed if descriptor is not None))

    def slot_bytes(self, slot: int) -> bytes:
        return self.table[slot * DESCRIPTOR_BYTES : (slot + 1) * DESCRIPTOR_BYTES]

    @property
    def used_slots(self) -> set[int]:
        return {descriptor.slot for descriptor in self.descriptors}

    def free_slots(self) -> Iterator[int]:
        """Unused slots in table order."""
        used = self.used_slots
        return (slot for slot in range(self.header.descriptors_total) if slot not in used)

    def with_slots(self, changes: dict[int, Descriptor | None], *, modified: int, keep_end: int = 0) -> State:
        """Another state with these slots changed (None: freed) and the header's counters and architecture made to fit.

        Records of other slots stay as they are, byte for byte. ``keep_end``: the data reaches at least that far.
        """
        table = bytearray(self.table)
        for slot, descriptor in changes.items():
            packed = EMPTY_SLOT if descriptor is None else descriptor.pack()
            table[slot * DESCRIPTOR_BYTES : (slot + 1) * DESCRIPTOR_BYTES] = packed
        changed = State.of(self.header, bytes(table))
        end = max(data_end(self.header, changed.descriptors), keep_end)
        root = primary(changed.descriptors)
        before = primary(self.descriptors)
        arch = self.header.arch
        if root is None:
            arch = arch if before is None else Arch.UNKNOWN
        elif isinstance(root.arch, Arch):
            arch = root.arch
        elif root.arch is not None and (before is None or before.id != root.id):
            arch = root.arch  # nothing that is known; what the header said of the same partition is better
        header = replace(
            self.header,
            arch=arch,
            modified=modified,
            descriptors_free=self.header.descriptors_total - len(changed.descriptors),
            data_size=end - self.header.data_offset,
        )
        return replace(changed, header=header)


def load(store: Store) -> State:
    """Read header and table. Raises NotSIFError, CorruptSIFError and TruncatedError; memory is bounded by MAX_CAPACITY."""
    header = GlobalHeader.parse(store.read_some(0, HEADER_BYTES))
    check_header(header, store.size)
    return State.of(header, store.read(header.descriptors_offset, header.table_bytes))


def check_header(header: GlobalHeader, size: int) -> None:
    """Raise unless the table can be read from a file of ``size`` bytes and lies in nobody's way."""

    def wrong(field: str, got: int, want: str) -> CorruptSIFError:
        return CorruptSIFError("global header", field, got, want)

    total = header.descriptors_total
    if not 0 <= total <= MAX_CAPACITY:
        raise wrong("DescriptorsTotal", total, f"0 to {MAX_CAPACITY}")
    if not HEADER_BYTES <= header.descriptors_offset <= MAX_OFFSET - table_bytes(MAX_CAPACITY):
        raise wrong("DescriptorsOffset", header.descriptors_offset, f"at least {HEADER_BYTES}")
    if not table_bytes(total) <= header.descriptors_size <= MAX_OFFSET - header.descriptors_offset:
        raise wrong("DescriptorsSize", header.descriptors_size, f"{table_bytes(total)} for {total} descriptors")
    if not HEADER_BYTES <= header.data_offset <= MAX_OFFSET:
        raise wrong("DataOffset", header.data_offset, f"at least {HEADER_BYTES}")
    if header.descriptors_offset < header.data_offset < header.table_end:
        raise wrong("DataOffset", header.data_offset, f"at least {header.table_end}, behind the descriptors")
    if not 0 <= header.data_size <= MAX_OFFSET - header.data_offset:
        raise wrong("DataSize", header.data_size, "0 or more")
    if header.table_end > size:
        raise TruncatedError(f"the file has {size} bytes and its table of descriptors ends at byte {header.table_end}")


def check_objects(state: State) -> None:
    """Raise where objects have impossible places: negative, over header or table, or over one another."""
    header = state.header
    table = (header.descriptors_offset, header.table_end)
    for descriptor in state.descriptors:
        where = f"object {descriptor.id}"
        if descriptor.size < 0:
            raise CorruptSIFError(where, "Size", descriptor.size, "0 or more")
        if not 0 <= descriptor.offset <= MAX_OFFSET - descriptor.size:
            raise CorruptSIFError(where, "Offset", descriptor.offset, "a place in the file")
        if descriptor.size and descriptor.offset < HEADER_BYTES:
            raise CorruptSIFError(where, "Offset", descriptor.offset, f"at least {HEADER_BYTES}, behind the header")
        if descriptor.size and descriptor.offset < table[1] and descriptor.end > table[0]:
            raise CorruptSIFError(where, "Offset", descriptor.offset, f"not over the descriptors at {table[0]} to {table[1]}")
    if pair := first_overlap(state.descriptors):
        one, other = pair
        raise CorruptSIFError(f"object {other.id}", "Offset", other.offset, f"at least {one.end}, behind object {one.id}")


def meant_arch(descriptor: Descriptor, header: GlobalHeader, root: Descriptor | None) -> Arch | None:
    """The architecture of a partition whose code is the start of a name (see ``types.arch_meant``); ``root``: the primary
    partition, the one the header's architecture is of."""
    code = descriptor.arch
    if not isinstance(code, bytes):
        return None
    return arch_meant(code, header.arch if root is not None and root.slot == descriptor.slot else None)


def notices(state: State, size: int) -> tuple[Notice, ...]:
    """What is wrong and does no harm by itself, in a file of ``size`` bytes; at most MOST_NOTICES of them and one more."""
    kept: list[Notice] = []
    for found in _all_notices(state, size):
        if len(kept) == MOST_NOTICES:
            kept.append(Notice("more", "and more"))
            break
        kept.append(found)
    return tuple(kept)


def _all_notices(state: State, size: int) -> Iterator[Notice]:
    yield from _header_notices(state, size)
    yield from _object_notices(state.descriptors, size)
    used = state.used_slots
    for slot in range(state.header.descriptors_total):
        if slot not in used and state.slot_bytes(slot) != EMPTY_SLOT:
            yield Notice("unused-slot", f"the unused descriptor {slot + 1} is not empty")


def _header_notices(state: State, size: int) -> Iterator[Notice]:
    header, descriptors = state.header, state.descriptors
    if header.table_in_data and home_of_table(header, descriptors) is not None:
        yield Notice("interrupted-edit", "an edit was interrupted; opening the image for writing finishes it")
    free = header.descriptors_total - len(descriptors)
    if header.descriptors_free != free:
        yield Notice("free-count", f"the header counts {header.descriptors_free} free descriptors, there are {free}")
    end = data_end(header, descriptors)
    if header.data_size != end - header.data_offset:
        yield Notice("data-size", f"the header counts {header.data_size} bytes of data, there are {end - header.data_offset}")
    if header.descriptors_size != header.table_bytes:
        text = f"the header gives the table {header.descriptors_size} bytes, it takes {header.table_bytes}"
        yield Notice("table-size", text)
    if size > end:
        yield Notice("trailing-bytes", f"{size - end} bytes behind the last object belong to nothing")
    primaries = matching(descriptors, part_type=PartType.PRIMARY_SYSTEM)
    if len(primaries) > 1:
        ids = ", ".join(str(descriptor.id) for descriptor in primaries[:20])
        yield Notice("several-primaries", f"{len(primaries)} partitions say they are primary: {ids}")
    elif primaries and header.arch != primaries[0].arch:
        yield Notice("architecture", "the header's architecture is not the primary partition's")


def _object_notices(descriptors: tuple[Descriptor, ...], size: int) -> Iterator[Notice]:
    ids = {descriptor.id for descriptor in descriptors}
    groups = {descriptor.group for descriptor in descriptors}
    seen: set[int] = set()
    for descriptor in descriptors:
        number = descriptor.id
        if number in seen:
            yield Notice("duplicate-id", f"several objects have the id {number}", number)
        seen.add(number)
        if not number:
            yield Notice("id-zero", f"the object in descriptor {descriptor.slot + 1} has the id 0", number)
        if descriptor.size and descriptor.end > size:
            yield Notice("outside-file", f"object {number} ends at byte {descriptor.end}, the file at {size}", number)
        if not isinstance(descriptor.data_type, DataType):
            yield Notice("unknown-type", f"object {number} is of the unknown type {descriptor.data_type:#x}", number)
        if descriptor.size_with_padding < descriptor.size:
            text = f"object {number}: {descriptor.size_with_padding} bytes with padding, {descriptor.size} without"
            yield Notice("padding", text, number)
        if descriptor.group_id != descriptor.group | ~MAX_GROUP & 0xFFFFFFFF:
            yield Notice("group", f"object {number}: the group is written as {descriptor.group_id:#x}", number)
        yield from _link_notices(descriptor, ids, groups)
        metadata = descriptor.metadata
        if not getattr(metadata, "valid", True):
            yield Notice("digest", f"object {number}: its digest is not one of SHA-256", number)


def _link_notices(descriptor: Descriptor, ids: Iterable[int], groups: Iterable[int]) -> Iterator[Notice]:
    number = descriptor.id
    if descriptor.link and descriptor.link not in ids:
        yield Notice("link", f"object {number} is linked to object {descriptor.link}, which is not there", number)
    if descriptor.link_group and descriptor.link_group not in groups:
        yield Notice("link", f"object {number} is linked to group {descriptor.link_group}, which is empty", number)
    if descriptor.linked_id not in (descriptor.link, descriptor.link_group | ~MAX_GROUP & 0xFFFFFFFF):
        yield Notice("link", f"object {number}: the link is written as {descriptor.linked_id:#x}", number)
