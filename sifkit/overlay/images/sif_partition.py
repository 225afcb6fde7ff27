"""Partitions of SIF images: select one, open it for reading, edit the SIF around it, lock it.

Reading takes no lock. Editing a SIF takes the lock for changes of its structure; a partition to replace or remove is locked as
well, as Apptainer locks the ext3 partitions it mounts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

from ext3 import hostio
from ext3.hostio import HostPath

from ...errors import FormatError, SifkitError, UsageError, shell_quote, show
from .image_format import HEAD_BYTES, head_format, image_kind

if TYPE_CHECKING:
    from ...sif import SIF, Descriptor, Stamp
    from ...sif.descriptor_table import DescriptorTable
    from .window import Window

__all__ = [
    "EditedSif",
    "check_ext3_partition",
    "check_place",
    "edit_sif",
    "filesystem_place",
    "lock_partition",
    "no_locks_error",
    "open_partition",
    "open_sif",
    "overlays_of",
    "partition_at",
    "partition_format",
    "partition_window",
    "select_partition",
    "space_notes",
    "unused_overlay",
    "unused_overlay_of",
]

LOCK_HINT = "copy the image to a local filesystem, or leave out --require-lock if no one else can use it"


class EditedSif(NamedTuple):
    """SIF that is open and locked for writing, and its file descriptor."""

    sif: SIF
    fd: int
    path: str


@contextmanager
def open_partition(name: str, partition: str) -> Iterator[Window]:
    """Open an ext3 partition ("overlay", "root" or an ID) of the SIF ``name`` for reading."""
    with open_sif(name) as (sif, fd):
        with _concerning(name):
            found = select_partition(sif, partition, name)
            check_ext3_partition(sif, fd, found, name)
        yield partition_window(sif, fd, found, name)


@contextmanager
def open_sif(name: str) -> Iterator[tuple[DescriptorTable, int]]:
    """Open the SIF ``name`` to look at its descriptors; give them and the file descriptor, which lives as long."""
    from ...sif.descriptor_table import DescriptorTable, open_image_file

    fd = open_image_file(name, writable=False)
    try:
        with _concerning(name):
            found = DescriptorTable(fd)
        yield found, fd
    finally:
        os.close(fd)


def overlays_of(sif: SIF | DescriptorTable, root: Descriptor) -> tuple[Descriptor, ...]:
    """Return the overlays that a container with this root uses: those of its group, from the lowest up."""
    return tuple(found for found in sif.overlays if found.group == root.group)


def partition_window(sif: SIF | DescriptorTable, fd: int, found: Descriptor, name: str) -> Window:
    """Return the window of a partition of the SIF ``name``, open as ``fd``."""
    from .window import Window

    return Window(name, fd, found.offset, found.size, found, _unused_reasons(sif, found))


@contextmanager
def _concerning(path: str) -> Iterator[None]:
    """Add the path to errors of the SIF library that name no file."""
    from ...sif.errors import SIFError

    try:
        yield
    except SIFError as error:
        error.set_path(path)
        raise


def check_place(name: str, kind: str | None, partition: str | None, offset: int | None) -> None:
    """Raise UsageError for a ``partition`` of an image that is no SIF, or an ``offset`` beside it."""
    if partition is not None and offset is not None:
        raise UsageError("--partition and --offset both say where the filesystem is", hint="give one of them")
    if kind != "sif" and partition is not None:
        raise UsageError(f"{show(name)} is not a SIF image, and --partition is for SIF images", hint="leave out --partition")


def filesystem_place(name: str, partition: str | None, offset: int | None) -> tuple[str | None, int | None]:
    """Return partition and offset of the ext3 filesystem that is meant in an image; a partition if and only if it is a SIF.

    Of a SIF it is by default the overlay. Raises UsageError, FormatError for a squashfs image and for an ``offset`` at which no
    partition of a SIF begins, OSError.
    """
    kind = image_kind(name)
    check_place(name, kind, partition, offset)
    if kind == "squashfs" and offset is None:
        raise FormatError(f"{show(name)} is a squashfs image, not ext3", path=name, hint="give an ext3 image")
    if kind != "sif":
        return None, offset
    return partition_at(name, offset) if offset is not None else partition or "overlay", None


def select_partition(sif: SIF | DescriptorTable, wanted: str, path: str) -> Descriptor:
    """Return the partition "overlay", "root" or with an ID.

    Raises UsageError for another word, ObjectNotFoundError, AmbiguousObjectError, FormatError for other objects.
    """
    from ...sif.errors import AmbiguousObjectError, ObjectNotFoundError
    from ...sif.format.types import DataType

    if wanted.isascii() and wanted.isdigit() and len(wanted) <= 10:
        found = sif.get(int(wanted))
        if found.data_type != DataType.PARTITION:
            raise FormatError(
                f"{show(path)}: object {found.id} is {found.type_text}, not a partition",
                path=path,
                hint=f"extract it with: sifkit sif dump {found.id} {show(path)}",
            )
        return found
    if wanted == "root":
        if sif.primary is None:
            hint = f"list its objects with: sifkit sif list {show(path)}"
            raise ObjectNotFoundError(f"{show(path)} has no primary partition", path=path, hint=hint)
        return sif.primary
    if wanted != "overlay":
        raise UsageError(f"--partition {show(wanted)}: must be overlay, root or an ID", hint="sifkit sif list shows the IDs")
    overlays = sif.overlays
    if not overlays:
        hint = f"create one with: sifkit overlay create --size 500M {show(path)}"
        raise ObjectNotFoundError(f"{show(path)} has no overlay", path=path, hint=hint)
    if len(overlays) > 1:
        ids = tuple(overlay.id for overlay in overlays)
        text = ", ".join(map(str, ids[:20])) + (", ..." if len(ids) > 20 else "")
        hint = f"choose one with: --partition {ids[0]}"
        raise AmbiguousObjectError(f"{show(path)} has {len(ids)} overlays: {text}", ids=ids, path=path, hint=hint)
    return overlays[0]


def partition_at(name: str, offset: int) -> str:
    """Return the ID of the partition that begins at byte ``offset`` of the SIF ``name``. Raises FormatError if none does."""
    from ...sif.format.types import DataType
    from ...sif.image import SIF

    with _concerning(name), SIF.open(name) as sif:
        found = [one for one in sif if one.data_type == DataType.PARTITION and one.offset == offset]
    if not found:
        hint = f"the positions are in: sifkit sif list {show(name)}"
        raise FormatError(f"{show(name)}: no partition begins at byte {offset}", path=name, hint=hint)
    return str(found[0].id)


def partition_format(sif: SIF | DescriptorTable, fd: int, found: Descriptor, path: str) -> Literal["ext3", "squashfs"]:
    """Return the filesystem of a partition, by its first bytes. Raises FormatError for another, TruncatedError."""
    from ...sif.errors import TruncatedSIFError
    from ...sif.format.types import FSType

    if found.end > sif.file_size:
        raise TruncatedSIFError(
            f"{show(path)}: object {found.id} ends at byte {found.end}, the file at {sif.file_size}", path=path
        )
    what = f"{show(path)}: object {found.id}"
    if found.fs_type in (FSType.ENCRYPTED_SQUASHFS, FSType.GOCRYPTFS_SQUASHFS):
        raise FormatError(f"{what} is encrypted", path=path, hint="read it with apptainer exec and its key")
    kind = head_format(hostio.read_at(fd, found.offset, min(HEAD_BYTES, found.size)), found.size)
    if kind == "unknown" and found.fs_type != FSType.EXT3:
        raise FormatError(
            f"{what} holds no known filesystem",
            path=path,
            hint=f"show its descriptor with: sifkit sif info {found.id} {show(path)}",
        )
    return "squashfs" if kind == "squashfs" else "ext3"


def check_ext3_partition(sif: SIF | DescriptorTable, fd: int, found: Descriptor, path: str) -> None:
    """Raise if a partition is no ext3 filesystem, according to its first bytes and its descriptor."""
    if partition_format(sif, fd, found, path) == "squashfs":
        raise FormatError(
            f"{show(path)}: object {found.id} is a squashfs filesystem, not ext3",
            path=path,
            hint=f"look into it with: sifkit ls --partition {found.id} {shell_quote(path)}",
        )


def _unused_reasons(sif: SIF | DescriptorTable, found: Descriptor) -> tuple[str, ...]:
    """Return the reasons for which the runtimes would not use a partition as the overlay."""
    from ...sif.format.types import PartType

    root = sif.primary
    if found.part_type != PartType.OVERLAY:
        return ("it is not an overlay partition",)
    if root is None:
        return ("the image has no primary partition",)
    if root.group != found.group:
        return (f"it is in {_group(found)}, but the primary partition is in {_group(root)}",)
    return ()


def unused_overlay(name: str) -> str:
    """Return why the overlay in the image at ``name`` is not used, naming its object; "" if it has none that is left unused."""
    if image_kind(name) != "sif":
        return ""
    with open_sif(name) as (sif, _):
        return unused_overlay_of(sif)


def unused_overlay_of(sif: SIF | DescriptorTable) -> str:
    """Return why the overlay in a SIF is not used, as ``unused_overlay`` does."""
    for found in sif.overlays:
        if reasons := _unused_reasons(sif, found):
            return f"its overlay, object {found.id}, is not used; {reasons[0]}"
    return ""


def _group(descriptor: Descriptor) -> str:
    return f"group {descriptor.group}" if descriptor.group else "no group"


@contextmanager
def edit_sif(path: HostPath, *, stamp: Stamp | None = None, require_lock: bool = False) -> Iterator[EditedSif]:
    """Open the SIF at ``path`` for writing, after completing an interrupted edit.

    Raises NotWritableError, ImageInUseError, errors of a file that is no SIF or a damaged one, and with ``require_lock``
    SifkitError if file locking is unavailable.
    """
    from ...sif.image import SIF

    name = os.fsdecode(path)
    with SIF.open(name, "r+", stamp=stamp) as sif:
        if require_lock and not sif.locked:
            raise no_locks_error(name)
        yield EditedSif(sif, sif.fileno(), name)


def lock_partition(fd: int, path: str, partition: Descriptor, *, write: bool, require_lock: bool = False) -> bool:
    """Lock a partition until ``fd`` is closed; return False if file locking is unavailable. ``write``: an exclusive lock.

    Raises ImageInUseError if a container, a loop device or a FUSE server uses it.
    """
    from ...file_locks import lock_range
    from ...in_use import check_unused

    span = (partition.offset, partition.size)
    check_unused(path, writers_only=not write, span=span)
    locked = lock_range(fd, write=write, offset=partition.offset, size=partition.size, path=path)
    if require_lock and not locked:
        raise no_locks_error(path)
    check_unused(path, writers_only=not write, span=span, own_lock=True)  # a loop device may have been attached before the lock
    return locked


def space_notes(sif: SIF) -> tuple[str, ...]:
    """Return notes about deleted objects whose space could not be released."""
    return tuple(notice.message for notice in sif.warnings if notice.kind == "space-kept")


def no_locks_error(path: str) -> SifkitError:
    return SifkitError(f"{show(path)}: its filesystem does not support file locking", path=path, hint=LOCK_HINT)
