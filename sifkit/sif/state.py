"""State of an image: header and table as one value, read with every number checked before it is used.

Counts, offsets and sizes that are negative, outside the file or overlapping raise an error. Other problems are collected as
``Notice`` values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from .errors import CorruptSIFError, TruncatedSIFError
from .format.descriptor import DESCRIPTOR_BYTES, EMPTY_SLOT, MAX_GROUP, Descriptor
from .format.header import HEADER_BYTES, GlobalHeader
from .format.placement import MAX_CAPACITY, MAX_OFFSET, data_end, first_overlap, home_of_table, table_bytes
from .format.types import Arch, DataType, PartType, arch_from_prefix
from .select import matching, primary
from .store import Store

__all__ = [
    "INTERRUPTED_EDIT",
    "MAX_NOTICES",
    "Notice",
    "NoticeKind",
    "State",
    "check_header",
    "check_objects",
    "data_size_text",
    "free_count_text",
    "load",
    "notices",
    "table_size_text",
    "truncated_arch",
    "unused_slot_text",
]

MAX_NOTICES = 100
"""Limit of notices: a hostile table could give thousands."""

INTERRUPTED_EDIT = "an edit was interrupted; opening the image for writing finishes it"

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


class Notice(NamedTuple):
    """Harmless problem of an image. ``id``: the object concerned, None for the image."""

    kind: NoticeKind
    message: str
    id: int | None = None


class State(NamedTuple):
    """Header and table. ``table``: bytes of all descriptors, used or not; ``descriptors``: those in use."""

    header: GlobalHeader
    table: bytes
    descriptors: tuple[Descriptor, ...]

    @classmethod
    def of(cls, header: GlobalHeader, table: bytes) -> State:
        """Parse a table of at least ``descriptors_total`` records."""
        view = memoryview(table)
        parsed = (Descriptor.parse(view, slot * DESCRIPTOR_BYTES, slot=slot) for slot in range(header.descriptors_total))
        return cls(header, table, tuple(descriptor for descriptor in parsed if descriptor is not None))

    def slot_bytes(self, slot: int) -> bytes:
        """Return the bytes of a descriptor."""
        return self.table[slot * DESCRIPTOR_BYTES : (slot + 1) * DESCRIPTOR_BYTES]

    @property
    def used_slots(self) -> set[int]:
        return {descriptor.slot for descriptor in self.descriptors}

    def free_slots(self) -> Iterator[int]:
        """Return the unused slots in table order."""
        used = self.used_slots
        return (slot for slot in range(self.header.descriptors_total) if slot not in used)

    def with_slots(self, changes: dict[int, Descriptor | None], *, modified: int, keep_end: int = 0) -> State:
        """Return a state with these slots changed (None: freed), and counts and architecture of the header updated.

        Other slots are kept byte for byte. ``keep_end``: least end of the data.
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
            arch = root.arch  # unknown; for the same partition the header's is better
        header = self.header._replace(
            arch=arch,
            modified=modified,
            descriptors_free=self.header.descriptors_total - len(changed.descriptors),
            data_size=end - self.header.data_offset,
        )
        return changed._replace(header=header)


def load(store: Store) -> State:
    """Read header and table. Raises NotSIFError, CorruptSIFError, TruncatedSIFError. Memory is bounded by MAX_CAPACITY."""
    header = GlobalHeader.parse(store.read_some(0, HEADER_BYTES))
    check_header(header, store.size)
    return State.of(header, store.read(header.descriptors_offset, header.table_bytes))


def check_header(header: GlobalHeader, size: int) -> None:
    """Raise CorruptSIFError or TruncatedSIFError unless the table fits a file of ``size`` bytes and overlaps nothing."""

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
        raise wrong("DataOffset", header.data_offset, f"at least {header.table_end}, after the descriptors")
    if not 0 <= header.data_size <= MAX_OFFSET - header.data_offset:
        raise wrong("DataSize", header.data_size, "0 or more")
    if header.table_end > size:
        raise TruncatedSIFError(f"the descriptor table ends at byte {header.table_end}, the file at byte {size}")


def check_objects(state: State) -> None:
    """Raise CorruptSIFError for objects at negative offsets, or that overlap the header, the table or one another."""
    header = state.header
    table = (header.descriptors_offset, header.table_end)
    for descriptor in state.descriptors:
        where = f"object {descriptor.id}"
        if descriptor.size < 0:
            raise CorruptSIFError(where, "Size", descriptor.size, "0 or more")
        if not 0 <= descriptor.offset <= MAX_OFFSET - descriptor.size:
            raise CorruptSIFError(where, "Offset", descriptor.offset, "an offset in the file")
        if descriptor.size and descriptor.offset < HEADER_BYTES:
            raise CorruptSIFError(where, "Offset", descriptor.offset, f"at least {HEADER_BYTES}, after the header")
        if descriptor.size and descriptor.offset < table[1] and descriptor.end > table[0]:
            raise CorruptSIFError(where, "Offset", descriptor.offset, f"not within the descriptors at {table[0]} to {table[1]}")
    if pair := first_overlap(state.descriptors):
        one, other = pair
        raise CorruptSIFError(f"object {other.id}", "Offset", other.offset, f"at least {one.end}, after object {one.id}")


def truncated_arch(descriptor: Descriptor, header: GlobalHeader, root: Descriptor | None) -> Arch | None:
    """Return the architecture of a partition whose code is a truncated name (see ``types.arch_from_prefix``).

    ``root``: the primary partition, whose architecture is in the header too.
    """
    code = descriptor.arch
    if not isinstance(code, bytes):
        return None
    return arch_from_prefix(code, header.arch if root is not None and root.slot == descriptor.slot else None)


def free_count_text(header: GlobalHeader, counted: int) -> str:
    """Message for a wrong number of free descriptors in the header."""
    return f"wrong number of free descriptors in the header: {header.descriptors_free}, counted {counted}"


def data_size_text(header: GlobalHeader, counted: int) -> str:
    """Message for a wrong data size in the header."""
    return f"wrong data size in the header: {header.data_size} bytes, counted {counted}"


def table_size_text(header: GlobalHeader) -> str:
    """Message for a wrong table size in the header."""
    return f"wrong table size in the header: {header.descriptors_size} bytes, needed {header.table_bytes}"


def unused_slot_text(slot: int) -> str:
    """Message for an unused descriptor with content."""
    return f"unused descriptor {slot + 1} is not zero"


def notices(state: State, size: int) -> tuple[Notice, ...]:
    """Return the harmless problems, in a file of ``size`` bytes; at most MAX_NOTICES and one more."""
    kept: list[Notice] = []
    for found in _all_notices(state, size):
        if len(kept) == MAX_NOTICES:
            kept.append(Notice("more", "and more problems"))
            break
        kept.append(found)
    return tuple(kept)


def _all_notices(state: State, size: int) -> Iterator[Notice]:
    yield from _header_notices(state, size)
    yield from _object_notices(state.descriptors, size)
    used = state.used_slots
    for slot in range(state.header.descriptors_total):
        if slot not in used and state.slot_bytes(slot) != EMPTY_SLOT:
            yield Notice("unused-slot", unused_slot_text(slot))


def _header_notices(state: State, size: int) -> Iterator[Notice]:
    header, descriptors = state.header, state.descriptors
    if header.table_in_data and home_of_table(header, descriptors) is not None:
        yield Notice("interrupted-edit", INTERRUPTED_EDIT)
    free = header.descriptors_total - len(descriptors)
    if header.descriptors_free != free:
        yield Notice("free-count", free_count_text(header, free))
    end = data_end(header, descriptors)
    if header.data_size != end - header.data_offset:
        yield Notice("data-size", data_size_text(header, end - header.data_offset))
    if header.descriptors_size != header.table_bytes:
        yield Notice("table-size", table_size_text(header))
    if size > end:
        yield Notice("trailing-bytes", f"{size - end} bytes after the last object belong to no object")
    primaries = matching(descriptors, part_type=PartType.PRIMARY_SYSTEM)
    if len(primaries) > 1:
        ids = ", ".join(str(descriptor.id) for descriptor in primaries[:20])
        yield Notice("several-primaries", f"{len(primaries)} primary partitions: objects {ids}")
    elif primaries and header.arch != primaries[0].arch:
        yield Notice("architecture", "the header's architecture is not the primary partition's")


def _object_notices(descriptors: tuple[Descriptor, ...], size: int) -> Iterator[Notice]:
    ids = {descriptor.id for descriptor in descriptors}
    groups = {descriptor.group for descriptor in descriptors}
    seen: set[int] = set()
    for descriptor in descriptors:
        number = descriptor.id
        if number in seen:
            yield Notice("duplicate-id", f"several objects have the ID {number}", number)
        seen.add(number)
        if not number:
            yield Notice("id-zero", f"the object in descriptor {descriptor.slot + 1} has the ID 0", number)
        if descriptor.size and descriptor.end > size:
            yield Notice("outside-file", f"object {number} ends at byte {descriptor.end}, the file at byte {size}", number)
        if not isinstance(descriptor.data_type, DataType):
            yield Notice("unknown-type", f"object {number} has the unknown type {descriptor.data_type:#x}", number)
        if descriptor.size_with_padding < descriptor.size:
            text = (
                f"object {number}: size with padding, {descriptor.size_with_padding}, is less than its size, {descriptor.size}"
            )
            yield Notice("padding", text, number)
        if descriptor.group_id != descriptor.group | ~MAX_GROUP & 0xFFFFFFFF:
            yield Notice("group", f"object {number}: group {descriptor.group} is stored as {descriptor.group_id:#x}", number)
        yield from _link_notices(descriptor, ids, groups)
        metadata = descriptor.metadata
        if not getattr(metadata, "valid", True):
            yield Notice("digest", f"object {number}: its digest is not a SHA-256 digest", number)


def _link_notices(descriptor: Descriptor, ids: Iterable[int], groups: Iterable[int]) -> Iterator[Notice]:
    number = descriptor.id
    if descriptor.link and descriptor.link not in ids:
        yield Notice("link", f"object {number} is linked to object {descriptor.link}, which does not exist", number)
    if descriptor.link_group and descriptor.link_group not in groups:
        yield Notice("link", f"object {number} is linked to group {descriptor.link_group}, which is empty", number)
    if descriptor.linked_id not in (descriptor.link, descriptor.link_group | ~MAX_GROUP & 0xFFFFFFFF):
        yield Notice(
            "link", f"object {number}: the link to object {descriptor.link} is stored as {descriptor.linked_id:#x}", number
        )
