"""Compaction of an image: a new image without the space of deleted objects, or with another capacity.

The new image is written beside the old one and renamed at the end: nothing moves in a file that a running container may have
mounted, and a crash leaves the old image or the new one.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from ext3 import hostio
from ext3.hostio import HostPath

from ..atomic import AtomicFile
from ..file_attributes import keep_attributes
from ..host_space import filled_holes_notes, full_host_errors
from ..replacing import OpenedFile
from .errors import EditError, SourceChangedError
from .format.descriptor import DESCRIPTOR_BYTES, EMPTY_SLOT, Descriptor
from .format.header import HEADER_BYTES
from .format.placement import (
    MAX_CAPACITY,
    PAGE_BYTES,
    TABLE_OFFSET,
    align,
    data_end,
    home_of_table,
    table_bytes,
)
from .format.schema import DESCRIPTOR
from .format.types import DataType, FSType
from .gaps import first_nonzero, unowned_spans
from .image import SIF
from .loading import NewFileStore, lock_for_writing
from .payload import Advance, Source, copy_in
from .plan import seconds_for
from .stamp import SIFStamp
from .state import State, check_header, check_objects, load
from .store import FileStore, Store

__all__ = ["CompactResult", "compact", "plan_compact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactResult:
    """Result of ``compact``.

    ``before_bytes``, ``after_bytes``: length of the file; ``used_before``, ``used_after``: bytes on disk, without holes.
    ``changed`` False: it was compact already. ``notes``: lines for the user.
    """

    path: str
    before_bytes: int
    after_bytes: int
    used_before: int
    used_after: int
    capacity: int
    moved: int
    changed: bool
    notes: tuple[str, ...] = ()


def compact(
    path: HostPath, *, capacity: int | None = None, stamp: SIFStamp | None = None, advance: Advance | None = None
) -> CompactResult:
    """Free the space between and after the objects of the image at ``path``.

    IDs, names, slots, order of the data, alignment, holes, mode and owner are preserved; gaps are zeroed. A symbolic link is
    followed: the file it leads to is replaced. ``capacity``: new number of descriptors (0: as few as needed). ``stamp``: time
    of the change. ``advance``: called with the number of bytes copied.

    Raises the errors of ``SIF.open`` for writing, EditError (bad capacity), TruncatedSIFError, ImageInUseError (a container has
    locked an ext3 partition), TargetError, StoreError. A mounted squashfs does no harm. The caller checks for mounts without a
    lock.
    """
    name = os.fsdecode(path)
    with SIF.open(name, "r+") as sif:
        store, state, _ = sif._begin()
        fd = store.fd
        if fd is None:
            raise EditError("only a file can be compacted", hint="open the image by its path")
        _lock_partitions(fd, state, name)
        found = os.fstat(fd)
        seconds = seconds_for(state.header, stamp)
        new = plan_compact(state, capacity=capacity, seconds=seconds)
        end = data_end(new.header, new.descriptors)
        if _same_layout(state, new) and store.size == end and _gaps_are_zero(store, state):
            used = hostio.allocated_bytes(found)
            return CompactResult(
                path=name,
                before_bytes=found.st_size,
                after_bytes=found.st_size,
                used_before=used,
                used_after=used,
                capacity=new.header.descriptors_total,
                moved=0,
                changed=False,
            )
        with full_host_errors(name, end), AtomicFile(name, stat.S_IMODE(found.st_mode)) as file:
            _write_image(store, state, NewFileStore(file.fd), new, end, advance)
            notes = keep_attributes(fd, file.fd)
            _verify_written(file.fd, new)
            opened = OpenedFile(fd, found)
            opened.check(file.target)
            if os.name == "nt":
                sif.close()  # an open file cannot be replaced there
            file.commit(opened)
            after = os.stat(file.target)
    moved = sum(one.offset != other.offset for one, other in zip(state.descriptors, new.descriptors, strict=True))
    return CompactResult(
        path=name,
        before_bytes=found.st_size,
        after_bytes=after.st_size,
        used_before=hostio.allocated_bytes(found),
        used_after=hostio.allocated_bytes(after),
        capacity=new.header.descriptors_total,
        moved=moved,
        changed=True,
        notes=(*notes, *filled_holes_notes(name, hostio.allocated_bytes(found), hostio.allocated_bytes(after))),
    )


def plan_compact(state: State, *, capacity: int | None, seconds: int) -> State:
    """Plan the image with no gaps but for alignment. Pure. Raises EditError for a bad capacity."""
    total = _new_capacity(state, capacity)
    header = state.header
    home = home_of_table(header, ())  # every object is moved
    table_at = TABLE_OFFSET if home is None else home
    table_end = table_at + table_bytes(total)
    same = total == header.descriptors_total and home is not None
    # Images of early releases have a gap between table and data; it is kept with the table.
    data_offset = header.data_offset if same else max(table_end, HEADER_BYTES)
    table = bytearray(state.table[: min(total, header.descriptors_total) * DESCRIPTOR_BYTES])
    table += EMPTY_SLOT * (total - len(table) // DESCRIPTOR_BYTES)
    position = data_offset
    for descriptor in sorted(state.descriptors, key=lambda d: (d.offset, d.end, d.slot)):
        offset = align(position, _alignment(descriptor))
        start = descriptor.slot * DESCRIPTOR_BYTES
        fields = DESCRIPTOR.read(table, start)
        fields["Offset"] = offset
        fields["SizeWithPadding"] = offset - position + descriptor.size
        table[start : start + DESCRIPTOR_BYTES] = DESCRIPTOR.build(fields)
        position = offset + descriptor.size
    header = header._replace(
        modified=seconds,
        descriptors_offset=table_at,
        descriptors_total=total,
        descriptors_size=table_bytes(total),
        descriptors_free=total - len(state.descriptors),
        data_offset=data_offset,
        data_size=position - data_offset,
    )
    return State.of(header, bytes(table))


def _new_capacity(state: State, capacity: int | None) -> int:
    least = max((descriptor.slot + 1 for descriptor in state.descriptors), default=1)
    if capacity is None:
        return max(1, state.header.descriptors_total)
    if capacity == 0:
        return least
    if capacity < least:
        raise EditError(f"a capacity of {capacity} is too small: descriptor {least} is in use", hint=f"give {least} or more")
    if capacity > MAX_CAPACITY:
        raise EditError(f"a capacity of {capacity} is too large: the maximum is {MAX_CAPACITY}", hint="48 is usual")
    return capacity


def _alignment(descriptor: Descriptor) -> int:
    """Alignment of an object, inferred from offset and padding: a page for partitions; for others with padding the power of two
    that divides the offset, up to a page. More than a page only if the padding was larger than that."""
    divides = descriptor.offset & -descriptor.offset
    padding = descriptor.size_with_padding - descriptor.size
    if descriptor.data_type != DataType.PARTITION and padding <= 0:
        return 1
    alignment = min(divides, PAGE_BYTES)
    while alignment <= padding and alignment < divides:
        alignment *= 2
    return max(1, alignment)


def _lock_partitions(fd: int, state: State, path: str) -> None:
    """Lock the ext3 partitions, so that no container uses one that is about to be replaced."""
    for descriptor in state.descriptors:
        if descriptor.fs_type == FSType.EXT3 and descriptor.size > 0:
            lock_for_writing(fd, offset=descriptor.offset, size=descriptor.size, path=path)


def _same_layout(old: State, new: State) -> bool:
    return new.header._replace(modified=old.header.modified) == old.header and new.descriptors == old.descriptors


def _gaps_are_zero(store: Store, state: State) -> bool:
    spans = unowned_spans(state.header, state.descriptors, store.size)
    return all(first_nonzero(store, begin, size) is None for begin, size in spans)


def _write_image(store: Store, old: State, target: Store, new: State, end: int, advance: Advance | None) -> None:
    target.write(0, new.header.pack())
    target.write(new.header.descriptors_offset, new.table)
    target.set_size(new.header.data_offset)
    fd = store.fd
    assert fd is not None
    places = {descriptor.slot: descriptor.offset for descriptor in new.descriptors}
    was = os.fstat(fd)
    for descriptor in sorted(old.descriptors, key=lambda d: places[d.slot]):
        if descriptor.size:
            source = Source(
                f"object {descriptor.id}",
                fd,
                store.base + descriptor.offset,
                descriptor.size,
                lambda size: b"",
                (was.st_size, was.st_mtime_ns),
            )
            copy_in(source, target, places[descriptor.slot], advance=advance)
    target.set_size(end)


def _verify_written(fd: int, new: State) -> None:
    """Verify that the new image reads as planned, before it replaces the old one."""
    store = FileStore(fd)
    written = load(store)
    check_header(written.header, store.size)
    check_objects(written)
    if written != new:
        raise SourceChangedError("the new image does not match the plan", hint="try again; the old image is unchanged")
