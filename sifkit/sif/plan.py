"""Plans of edits: pure functions that validate a request and return the new descriptors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypedDict

from ..errors import show
from .errors import EditError, ImageFullError, ObjectNotFoundError
from .format.descriptor import MAX_GROUP, NAME_BYTES, Descriptor, join_group, join_link
from .format.header import MAX_LAUNCH_BYTES, GlobalHeader
from .format.metadata import (
    EXTRA_BYTES,
    FINGERPRINT_BYTES,
    Metadata,
    OCIMeta,
    PartitionMeta,
    SignatureMeta,
    metadata_kind,
)
from .format.placement import (
    MAX_CAPACITY,
    MAX_OFFSET,
    TABLE_OFFSET,
    align,
    check_alignment,
    data_end,
    default_alignment,
    table_bytes,
)
from .format.types import Arch, Code, DataType, FSType, PartType
from .select import by_id, matching, primary
from .stamp import SIFStamp
from .state import State

__all__ = [
    "UNCHANGED",
    "Change",
    "ObjectFields",
    "Unchanged",
    "check_launch",
    "is_at_end",
    "plan_add",
    "plan_changes",
    "plan_new",
    "plan_primary",
    "plan_replace",
    "plan_resize",
    "seconds_for",
    "with_payload",
]

NEEDS_METADATA = {DataType.PARTITION, DataType.SIGNATURE, DataType.SBOM}
OVERLAY_FILESYSTEMS = {FSType.EXT3, FSType.SQUASHFS}
"""Filesystems that runtimes mount as an overlay."""


class Unchanged:
    """Type of ``UNCHANGED``."""

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged()
"""Default of values that may be None, for no change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Change of a descriptor; fields that are not given are unchanged. ``group``, ``link``, ``link_group``: 0 is none.

    A link to an object and one to a group exclude each other: setting one removes the other.
    """

    name: bytes | Unchanged = UNCHANGED
    group: int | Unchanged = UNCHANGED
    link: int | Unchanged = UNCHANGED
    link_group: int | Unchanged = UNCHANGED
    metadata: Metadata | bytes | Unchanged = UNCHANGED
    created: int | Unchanged = UNCHANGED


class ObjectFields(TypedDict, total=False):
    """Optional fields of a new object. ``group``, ``link``, ``link_group``: 0 is none; ``alignment`` in bytes (None: 4096 for
    partitions, else none); ``created`` in seconds (None: time of the edit)."""

    name: bytes
    group: int
    link: int
    link_group: int
    alignment: int | None
    created: int | None


def seconds_for(header: GlobalHeader, stamp: SIFStamp | None) -> int:
    """Return the time that an edit writes; a deterministic image stays so, as with the reference library."""
    return header.created if header.deterministic else (stamp or SIFStamp.now()).seconds


def plan_new(stamp: SIFStamp, *, launch: bytes = b"", capacity: int, arch: Arch = Arch.UNKNOWN) -> GlobalHeader:
    """Plan the header of an empty image, laid out as the reference library does. Raises EditError."""
    check_launch(launch)
    if not 1 <= capacity <= MAX_CAPACITY:
        raise EditError(f"a capacity of {capacity} descriptors is not from 1 to {MAX_CAPACITY}", hint="48 is usual")
    return GlobalHeader(
        launch=launch,
        arch=arch,
        id_bytes=stamp.uuid.bytes,
        created=stamp.seconds,
        modified=stamp.seconds,
        descriptors_free=capacity,
        descriptors_total=capacity,
        descriptors_offset=TABLE_OFFSET,
        descriptors_size=table_bytes(capacity),
        data_offset=TABLE_OFFSET + table_bytes(capacity),
        data_size=0,
    )


def check_launch(launch: bytes) -> None:
    """Raise EditError for a launch script that does not fit the header."""
    if len(launch) > MAX_LAUNCH_BYTES or b"\0" in launch:
        raise EditError(f"a launch script has at most {MAX_LAUNCH_BYTES} bytes and no NUL", hint="give a shorter one")


def plan_add(
    state: State,
    data_type: DataType,
    *,
    seconds: int,
    name: bytes = b"",
    group: int = 0,
    link: int = 0,
    link_group: int = 0,
    alignment: int | None = None,
    metadata: Metadata | bytes | None = None,
    created: int | None = None,
    path: str | None = None,
) -> Descriptor:
    """Plan the descriptor of a new object, without its size, which ``with_payload`` adds.

    Raises EditError, ImageFullError, ObjectNotFoundError (a dangling link).
    """
    slot = next(state.free_slots(), None)
    if slot is None:
        raise ImageFullError(len(state.descriptors), state.header.descriptors_total, path=path)
    if not isinstance(data_type, DataType):
        raise EditError(f"{data_type:#x} is not a data type", hint="use one of sifkit.sif.DataType")
    check_name(name)
    check_group(group)
    check_link(state, link, link_group)
    extra = _new_extra(data_type, metadata)
    if isinstance(metadata, PartitionMeta) and metadata.part_type == PartType.PRIMARY_SYSTEM:
        _refuse_second_primary(primary(state.descriptors))
    when = seconds if created is None else check_time(created)
    space = default_alignment(data_type) if alignment is None else check_alignment(alignment)
    return Descriptor(
        data_type=data_type,
        id=_free_id(state, slot),
        group_id=join_group(group),
        linked_id=join_link(link, link_group),
        offset=align(data_end(state.header, state.descriptors), space),
        size=0,
        size_with_padding=0,
        created=when,
        modified=when,
        name=name,
        extra=extra,
        slot=slot,
    )


def plan_replace(
    state: State, id: int, *, seconds: int, alignment: int | None = None, metadata: Metadata | None = None
) -> Descriptor:
    """Plan the descriptor of an object with new content, after all others; ``with_payload`` adds the size."""
    old = by_id(state.descriptors, id)
    space = default_alignment(old.data_type) if alignment is None else check_alignment(alignment)
    return old._replace(
        offset=align(data_end(state.header, state.descriptors), space),
        size=0,
        size_with_padding=0,
        modified=seconds,
        extra=old.extra if metadata is None else _packed(old.data_type, metadata, old.extra),
    )


def plan_resize(state: State, id: int, size: int, *, seconds: int) -> State:
    """Plan another size for the object at the end of the data; returns ``state`` itself if it has that.

    Raises EditError if other objects, or the table, lie behind it, ObjectNotFoundError.
    """
    old = by_id(state.descriptors, id)
    if size <= 0:
        raise EditError(f"object {id} cannot have {size} bytes", hint="delete it with: sifkit sif del")
    if old.offset + size > MAX_OFFSET:
        raise EditError(f"{size} bytes at byte {old.offset} exceed the maximum size of a file", hint="give a smaller size")
    if not is_at_end(state, old):
        raise EditError(f"object {id} is not the last in the file", hint="replace it: new content goes to the end")
    if size == old.size:
        return state
    padded = max(size, old.size_with_padding - old.size + size)
    return state.with_slots({old.slot: old._replace(size=size, size_with_padding=padded, modified=seconds)}, modified=seconds)


def is_at_end(state: State, descriptor: Descriptor) -> bool:
    """Return True if nothing of the image lies behind this object, so that it can grow and shrink in place."""
    others = (other.end for other in state.descriptors if other.slot != descriptor.slot)
    behind = max(others, default=0) > descriptor.offset
    return not behind and data_end(state.header, state.descriptors) == descriptor.end


def with_payload(state: State, planned: Descriptor, size: int, *, digest: str | None = None) -> Descriptor:
    """Complete a planned descriptor with the size of its payload, and for OCI objects its SHA-256 ``digest`` in hexadecimal.

    Padding is counted from the end of the previous object, as in the reference library. Raises EditError.
    """
    if planned.offset + size > MAX_OFFSET:
        raise EditError(f"{size} bytes at byte {planned.offset} exceed the maximum size of a file", hint="add a smaller object")
    gap = planned.offset - data_end(state.header, state.descriptors)
    extra = planned.extra if digest is None else OCIMeta(f"sha256:{digest}".encode()).digest
    return planned._replace(size=size, size_with_padding=gap + size, extra=extra)


def plan_changes(state: State, changes: Mapping[int, Change], *, seconds: int) -> State:
    """Plan changes of descriptors; returns ``state`` itself if nothing changes. Raises EditError, ObjectNotFoundError."""
    slots: dict[int, Descriptor | None] = {}
    for id, change in changes.items():
        old = by_id(state.descriptors, id)
        new = _changed(state, old, change)
        if new != old:
            slots[old.slot] = new._replace(modified=seconds)
    if not slots:
        return state
    new_state = state.with_slots(slots, modified=seconds)
    primaries = [matching(s.descriptors, part_type=PartType.PRIMARY_SYSTEM) for s in (state, new_state)]
    if len(primaries[1]) > max(1, len(primaries[0])):
        _refuse_second_primary(primaries[0][0] if primaries[0] else primaries[1][0])
    return new_state


def _changed(state: State, old: Descriptor, change: Change) -> Descriptor:
    new = old
    if not isinstance(change.name, Unchanged):
        check_name(change.name)
        new = new._replace(name=change.name)
    if not isinstance(change.group, Unchanged):
        check_group(change.group)
        new = new._replace(group_id=join_group(change.group))
    if not (isinstance(change.link, Unchanged) and isinstance(change.link_group, Unchanged)):
        link = 0 if isinstance(change.link, Unchanged) else change.link
        link_group = 0 if isinstance(change.link_group, Unchanged) else change.link_group
        check_link(state, link, link_group)
        new = new._replace(linked_id=join_link(link, link_group))
    if not isinstance(change.metadata, Unchanged):
        new = new._replace(extra=_packed(old.data_type, change.metadata, old.extra))
    if not isinstance(change.created, Unchanged):
        new = new._replace(created=check_time(change.created))
    return new


def plan_primary(state: State, id: int, *, seconds: int) -> State:
    """Plan another primary partition; returns ``state`` itself if it is the primary one already.

    The previous one becomes a system partition. Raises EditError, ObjectNotFoundError.
    """
    chosen = by_id(state.descriptors, id)
    partition = chosen.partition
    if partition is None:
        raise EditError(f"object {id} is not a partition", hint="list objects with: sifkit sif list")
    if partition.part_type == PartType.PRIMARY_SYSTEM:
        return state
    if partition.part_type != PartType.SYSTEM:
        raise EditError(f"object {id} is not a system partition", hint="only a system partition can be the primary one")
    slots: dict[int, Descriptor | None] = {}
    for old in state.descriptors:
        meta = old.partition
        if meta is not None and meta.part_type == PartType.PRIMARY_SYSTEM:
            slots[old.slot] = _with_part_type(old, PartType.SYSTEM, seconds)
    slots[chosen.slot] = _with_part_type(chosen, PartType.PRIMARY_SYSTEM, seconds)
    return state.with_slots(slots, modified=seconds)


def _with_part_type(old: Descriptor, part_type: PartType, seconds: int) -> Descriptor:
    meta = PartitionMeta.parse(old.extra.ljust(EXTRA_BYTES, b"\0"))
    extra = meta._replace(part_type=part_type).pack_onto(old.extra).rstrip(b"\0")
    return old._replace(extra=extra, modified=seconds)


def check_name(name: bytes) -> None:
    if len(name) > NAME_BYTES:
        raise EditError(f"the name has {len(name)} bytes, the maximum is {NAME_BYTES}", hint="give a shorter one with --name")
    if b"\0" in name:
        raise EditError(f"the name {show(name)} contains a NUL", hint="give another one with --name")


def check_group(group: int) -> None:
    if not 0 <= group <= MAX_GROUP:
        raise EditError(f"the group {group} is not from 1 to {MAX_GROUP}", hint="0 is none, 1 is usual")


def check_link(state: State, link: int, link_group: int) -> None:
    if link and link_group:
        raise EditError("an object is linked to an object or to a group, not to both", hint="give one of them")
    for number, what in ((link, "id"), (link_group, "group")):
        if not 0 <= number <= MAX_GROUP:
            raise EditError(f"the link to {what} {number} is not from 1 to {MAX_GROUP}", hint="0 is none")
    if link and all(descriptor.id != link for descriptor in state.descriptors):
        raise ObjectNotFoundError(f"cannot link to object {link}: no such object", hint="list objects with: sifkit sif list")
    if link_group and all(descriptor.group != link_group for descriptor in state.descriptors):
        raise ObjectNotFoundError(
            f"cannot link to group {link_group}: it has no objects", hint="list objects with: sifkit sif list"
        )


def check_time(seconds: int) -> int:
    if not -MAX_OFFSET <= seconds <= MAX_OFFSET:
        raise EditError(f"the time {seconds} is out of range", hint="give seconds since 1970")
    return seconds


def _free_id(state: State, slot: int) -> int:
    """Return the ID of a new object: slot + 1, as the reference library, unless a damaged or foreign image uses that."""
    taken = {descriptor.id for descriptor in state.descriptors}
    if slot + 1 not in taken:
        return slot + 1
    return next(number for number in range(1, len(taken) + 2) if number not in taken)


def _new_extra(data_type: DataType, metadata: Metadata | bytes | None) -> bytes:
    if metadata is not None:
        return _packed(data_type, metadata, b"")
    if data_type in NEEDS_METADATA:
        wanted = metadata_kind(data_type)
        raise EditError(f"a {data_type.word} needs metadata", hint=f"give a {wanted.__name__}" if wanted else "")
    return b""


def _packed(data_type: int, metadata: Metadata | bytes, extra: bytes) -> bytes:
    """Return the Extra bytes with new metadata. Raises EditError for metadata of another type and invalid values."""
    kind = metadata_kind(data_type)
    if isinstance(metadata, bytes):
        if kind is not None or len(metadata) > EXTRA_BYTES:
            raise EditError(f"raw metadata is for types without their own, and at most {EXTRA_BYTES} bytes", hint="omit it")
        return metadata.rstrip(b"\0")
    if kind is not type(metadata):
        what = data_type.word if isinstance(data_type, DataType) else f"{data_type:#x}"
        raise EditError(f"{type(metadata).__name__} is not for objects of type {what}", hint="omit it")
    if isinstance(metadata, PartitionMeta):
        _check_partition(metadata)
    elif isinstance(metadata, SignatureMeta) and len(metadata.entity) not in (0, FINGERPRINT_BYTES):
        raise EditError(f"a fingerprint has {FINGERPRINT_BYTES} bytes, not {len(metadata.entity)}", hint="give all 40 digits")
    elif isinstance(metadata, OCIMeta) and not metadata.valid:
        raise EditError("an OCI digest is sha256: and 64 hexadecimal digits", hint="omit it: it is computed from the content")
    for field in metadata._fields:
        value = getattr(metadata, field)
        if isinstance(value, int) and not isinstance(value, Code):
            raise EditError(f"unknown {field.replace('_', ' ')} {value}", hint="use the codes in sifkit.sif")
    return metadata.pack_onto(extra).rstrip(b"\0")


def _check_partition(metadata: PartitionMeta) -> None:
    if not isinstance(metadata.arch, Arch) or metadata.arch == Arch.UNKNOWN:
        raise EditError("a partition needs an architecture", hint="amd64, arm64 ...: see sifkit sif add -h")
    if metadata.part_type == PartType.OVERLAY and metadata.fs_type not in OVERLAY_FILESYSTEMS:
        what = metadata.fs_type.word if isinstance(metadata.fs_type, FSType) else str(metadata.fs_type)
        raise EditError(f"an overlay is ext3 or squashfs, not {what}", hint="runtimes mount no other filesystem as an overlay")


def _refuse_second_primary(first: Descriptor | None) -> None:
    if first is not None:
        raise EditError(
            f"the image already has a primary partition, object {first.id}",
            hint="make it a system partition (--parttype system), then: sifkit sif setprim ID IMAGE",
        )
