"""Make an image anew without the space that deleted objects left, or with room for another number of objects.

The new image is written beside the old one and takes its name at the end: nothing moves inside a file that a running container
may have mounted, and a crash leaves the old image or the new one.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, replace

from ..atomic import AtomicFile, HostPath
from ..errors import ImageInUseError, counted, show
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
from .gaps import first_nonzero, unowned
from .image import SIF
from .loading import NewFileStore, lock_for_writing
from .payload import Advance, Source, copy_in
from .plan import seconds_for
from .stamp import Stamp
from .state import State, check_header, check_objects, load
from .store import FileStore, Store

__all__ = ["CompactResult", "compact", "plan_compact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactResult:
    """What became of an image. Sizes are bytes of the file; ``used_before`` and ``used_after`` what it takes on disk (holes
    take nothing). ``changed`` False: it was compact already, and is untouched. ``notes``: lines a person should see."""

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
    path: HostPath, *, capacity: int | None = None, stamp: Stamp | None = None, advance: Advance | None = None
) -> CompactResult:
    """Give back the space between the objects of the image at ``path`` and behind them.

    Ids, names, places in the table, the order of the data and alignments stay; what lies between objects is zero afterwards,
    holes in them stay holes; mode and owner are kept. A symbolic link stays one: the file it leads to is replaced. ``capacity``
    is the new number of descriptors (0: as few as there is use for); ``stamp`` gives the time of the change. ``advance`` is
    told how many bytes were copied.

    Raises what ``SIF.open`` does for writing, EditError (a capacity too small or too large), TruncatedError, ImageInUseError
    (an ext3 partition is locked by a container), TargetError, StoreError. A squashfs that is mounted does not mind; whether
    something has mounted a partition without a lock is for the caller to find out.
    """
    name = os.fsdecode(path)
    with SIF.open(name, "r+") as sif:
        store, state, _ = sif._begin()
        fd = store.fd
        if fd is None:
            raise EditError("only a file can be made anew", hint="name the image by its path")
        _lock_partitions(fd, state, name)
        found = os.fstat(fd)
        seconds = seconds_for(state.header, stamp)
        new = plan_compact(state, capacity=capacity, seconds=seconds)
        end = data_end(new.header, new.descriptors)
        notes: list[str] = []
        if _same_places(state, new) and store.size == end and _clean(store, state):
            used = _used_bytes(found)
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
        if found.st_nlink > 1:
            notes.append(f"{counted(found.st_nlink - 1, 'other name')} (hard links) of the image lead to the old one still")
        with AtomicFile(name, stat.S_IMODE(found.st_mode)) as file:
            _write(store, state, NewFileStore(file.fd), new, end, advance)
            notes += _keep_owner(fd, file.fd, found)
            _check_written(file.fd, new)
            _check_same(file.target, fd, found)
            if os.name == "nt":
                sif.close()  # an open file cannot be replaced there
            file.commit(replace=True)
            after = os.stat(file.target)
    moved = sum(one.offset != other.offset for one, other in zip(state.descriptors, new.descriptors, strict=True))
    return CompactResult(
        path=name,
        before_bytes=found.st_size,
        after_bytes=after.st_size,
        used_before=_used_bytes(found),
        used_after=_used_bytes(after),
        capacity=new.header.descriptors_total,
        moved=moved,
        changed=True,
        notes=tuple(notes),
    )


def plan_compact(state: State, *, capacity: int | None, seconds: int) -> State:
    """The image without gaps but those of alignment. Pure. Raises EditError for a capacity that cannot be."""
    total = _new_capacity(state, capacity)
    header = state.header
    home = home_of_table(header, ())  # every object gets a new place
    table_at = TABLE_OFFSET if home is None else home
    table_end = table_at + table_bytes(total)
    same = total == header.descriptors_total and home is not None
    # Images of the first releases begin their data a little behind the table: as long as the table stays, that stays.
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
    header = replace(
        header,
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
        raise EditError(f"a capacity of {capacity} is more than {MAX_CAPACITY} descriptors", hint="48 is usual")
    return capacity


def _alignment(descriptor: Descriptor) -> int:
    """What the object was aligned to, as far as its place and padding tell: a page for partitions; for others with padding the
    power of two its place is a multiple of, up to a page. More than a page only where the padding was larger than that."""
    divides = descriptor.offset & -descriptor.offset
    padding = descriptor.size_with_padding - descriptor.size
    if descriptor.data_type != DataType.PARTITION and padding <= 0:
        return 1
    alignment = min(divides, PAGE_BYTES)
    while alignment <= padding and alignment < divides:
        alignment *= 2
    return max(1, alignment)


def _lock_partitions(fd: int, state: State, path: str) -> None:
    """Keep containers from opening an ext3 partition that is about to be left behind, and see that none has."""
    for descriptor in state.descriptors:
        if descriptor.fs_type == FSType.EXT3 and descriptor.size > 0:
            lock_for_writing(fd, offset=descriptor.offset, size=descriptor.size, path=path)


def _same_places(old: State, new: State) -> bool:
    return replace(new.header, modified=old.header.modified) == old.header and new.descriptors == old.descriptors


def _clean(store: Store, state: State) -> bool:
    spans = unowned(state.header, state.descriptors, store.size)
    return all(first_nonzero(store, begin, size) is None for begin, size in spans)


def _write(store: Store, old: State, target: Store, new: State, end: int, advance: Advance | None) -> None:
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


def _check_written(fd: int, new: State) -> None:
    """The new image reads as it was planned, before it takes the old one's place."""
    store = FileStore(fd)
    written = load(store)
    check_header(written.header, store.size)
    check_objects(written)
    if written != new:
        raise SourceChangedError("the new image does not read as it was written", hint="try again; the old one is untouched")


def _check_same(target: str, fd: int, found: os.stat_result) -> None:
    """Nobody put another file in the image's place, or wrote to it, since it was opened."""
    now, there = os.fstat(fd), os.stat(target)
    if not os.path.samestat(now, there) or (now.st_size, now.st_mtime_ns) != (found.st_size, found.st_mtime_ns):
        raise ImageInUseError(
            f"{show(target)} changed while it was copied", path=target, hint="try again when nobody writes it"
        )


def _keep_owner(source: int, target: int, found: os.stat_result) -> list[str]:
    """Owner and extended attributes (the mode is the file's maker's to set); a note for what could not be kept."""
    notes = []
    made = os.fstat(target)
    if hasattr(os, "fchown") and (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
        try:
            os.fchown(target, found.st_uid, found.st_gid)
        except OSError:
            with suppress(OSError):
                os.fchown(target, -1, found.st_gid)
            notes.append(f"the owner of the image was user {found.st_uid}, and is user {os.fstat(target).st_uid} now")
    if hasattr(os, "listxattr"):
        with suppress(OSError):
            for name in os.listxattr(source):
                if name.startswith(("user.", "system.posix_acl")):
                    os.setxattr(target, name, os.getxattr(source, name))
    return notes


def _used_bytes(found: os.stat_result) -> int:
    blocks: int = getattr(found, "st_blocks", -1)
    return blocks * 512 if blocks >= 0 else found.st_size
