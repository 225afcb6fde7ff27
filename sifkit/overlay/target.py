"""Where an overlay's filesystem is: a file of its own, or a partition in a SIF image. Either way a window of an open file.

Reading takes no lock. Editing a SIF takes the lock of those who change its structure; a partition that is to be replaced or
removed is locked too, as Apptainer locks the ext3 partitions it mounts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ext3 import hostio
from ext3.device.base import FileDevice

from ..atomic import lock_range
from ..errors import FormatError, NotYetError, SifkitError, UsageError, show
from .in_use import HEAD_BYTES, HostPath, check_unused, head_format, image_kind

if TYPE_CHECKING:
    from ..sif import SIF, Descriptor, Stamp

__all__ = [
    "check_readable",
    "NEEDS_LOCK_HINT",
    "EditedImage",
    "Window",
    "choose",
    "editing",
    "kept_space",
    "lock_partition",
    "no_locks",
    "open_window",
]

NEEDS_LOCK_HINT = "copy the image to a local filesystem, or leave out --require-lock if no one else can use it"


@dataclass(frozen=True, slots=True)
class Window:
    """``size`` bytes at ``offset`` of the open file ``fd``, which is ``path``.

    ``partition`` None: the window is the whole file. ``reasons``: why the runtimes do not use the partition, whatever is in
    it.
    """

    path: str
    fd: int
    offset: int
    size: int
    partition: Descriptor | None = None
    reasons: tuple[str, ...] = ()

    def device(self) -> FileDevice:
        return FileDevice(self.fd, self.offset, self.size)

    @property
    def span(self) -> tuple[int, int] | None:
        """(offset, size) of a partition; None for a whole file."""
        return (self.offset, self.size) if self.partition is not None else None


@dataclass(frozen=True, slots=True)
class EditedImage:
    """A SIF that is open and locked for writing, and the file descriptor it is open as."""

    sif: SIF
    fd: int
    path: str


@contextmanager
def open_window(path: HostPath, partition: str | None = None) -> Iterator[Window]:
    """The image at ``path``, or the ``partition`` ("overlay", "root" or an ID) of the SIF there, open for reading.

    Raises OSError, FormatError for what is no such image, NotYetError for a filesystem this release does not read, UsageError
    for a SIF without ``partition`` and for other files with one, and the SIF library's errors.
    """
    name = os.fsdecode(path)
    kind = image_kind(name)
    if kind != "sif" and partition is not None:
        raise UsageError(f"{show(name)} is not a SIF image, and --partition is for SIF images", hint="leave out --partition")
    if kind == "squashfs":
        raise FormatError(f"{show(name)} is a squashfs image, not ext3", path=name, hint="give an ext3 image")
    if kind == "sif":
        if partition is None:
            raise NotYetError(
                f"{show(name)} is a SIF image, and this release does not show a container's view of it",
                path=name,
                hint=f"--partition overlay shows its overlay; list its objects with: sifkit sif list {show(name)}",
            )
        with _open_partition(name, partition) as window:
            yield window
        return
    fd = os.open(name, os.O_RDONLY | hostio.NO_WAIT)
    try:
        yield Window(name, fd, 0, os.lseek(fd, 0, os.SEEK_END))
    finally:
        os.close(fd)


@contextmanager
def _open_partition(name: str, partition: str) -> Iterator[Window]:
    from ..sif.image import SIF
    from ..sif.loading import open_image_file
    from ..sif.store import FileStore

    fd = open_image_file(name, writable=False)
    try:
        with _concerning(name), SIF(FileStore(fd), path=name) as sif:
            found = choose(sif, partition, name)
            check_readable(sif, fd, found, name)
            window = Window(name, fd, found.offset, found.size, found, _reasons(sif, found))
        yield window
    finally:
        os.close(fd)


@contextmanager
def _concerning(path: str) -> Iterator[None]:
    """Errors of the SIF library that name no file are about this one."""
    from ..sif import SIFError

    try:
        yield
    except SIFError as error:
        if error.path is None:
            error.path = path
            if show(path) not in error.message:
                error.message = f"{show(path)}: {error.message}"
        raise


def choose(sif: SIF, wanted: str, path: str) -> Descriptor:
    """The partition that is meant by "overlay", "root" or an ID.

    Raises UsageError for another word, ObjectNotFoundError, AmbiguousObjectError, FormatError for what is no partition.
    """
    from ..sif import AmbiguousObjectError, DataType, ObjectNotFoundError

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
        raise AmbiguousObjectError(f"{show(path)} has {len(ids)} overlays: {text}", ids=ids, hint=hint)
    return overlays[0]


def check_readable(sif: SIF, fd: int, found: Descriptor, path: str) -> None:
    """Raise where the partition holds no ext3 filesystem, as far as its first bytes and its descriptor tell."""
    from ..sif import FSType, TruncatedError

    if found.end > sif.file_size:
        raise TruncatedError(
            f"{show(path)}: object {found.id} ends at byte {found.end}, the file at {sif.file_size}", path=path
        )
    what = f"{show(path)}: object {found.id}"
    if found.fs_type in (FSType.ENCRYPTED_SQUASHFS, FSType.GOCRYPTFS_SQUASHFS):
        raise FormatError(f"{what} is encrypted", path=path, hint="read it with apptainer exec and its key")
    kind = head_format(hostio.read_at(fd, found.offset, min(HEAD_BYTES, found.size)), found.size)
    if kind == "squashfs":
        raise NotYetError(
            f"{what} is a squashfs filesystem, and this release reads ext3 only",
            path=path,
            hint=f"extract it with: sifkit sif dump {found.id} {show(path)} -o root.sqfs",
        )
    if kind == "unknown" and found.fs_type != FSType.EXT3:
        raise FormatError(
            f"{what} holds no known filesystem",
            path=path,
            hint=f"show its descriptor with: sifkit sif info {found.id} {show(path)}",
        )


def _reasons(sif: SIF, found: Descriptor) -> tuple[str, ...]:
    """Why the runtimes do not use a partition as the overlay."""
    from ..sif import PartType

    root = sif.primary
    if found.part_type != PartType.OVERLAY:
        return ("it is not an overlay partition",)
    if root is None:
        return ("the image has no primary partition",)
    if root.group != found.group:
        return (f"it is in {_group(found)}, but the primary partition is in {_group(root)}",)
    return ()


def _group(descriptor: Descriptor) -> str:
    return f"group {descriptor.group}" if descriptor.group else "no group"


@contextmanager
def editing(path: HostPath, *, stamp: Stamp | None = None, require_lock: bool = False) -> Iterator[EditedImage]:
    """The SIF at ``path``, open for writing; what an interrupted edit left is put right first.

    Raises NotWritableError, ImageInUseError, the errors of what is no SIF image or a damaged one, and with ``require_lock``
    SifkitError where the filesystem has no locks.
    """
    from ..sif.image import SIF
    from ..sif.loading import open_image_file
    from ..sif.store import FileStore

    name = os.fsdecode(path)
    fd = open_image_file(name, writable=True)
    try:
        with SIF(FileStore(fd), path=name, mode="r+", stamp=stamp) as sif:
            if require_lock and not sif.locked:
                raise no_locks(name)
            yield EditedImage(sif, fd, name)
    finally:
        os.close(fd)


def lock_partition(fd: int, path: str, partition: Descriptor, *, write: bool, require_lock: bool = False) -> bool:
    """Lock a partition's bytes until ``fd`` is closed; False where there are no locks. ``write``: nobody may even read it.

    Raises ImageInUseError where a container uses it or a loop device lies over it.
    """
    span = (partition.offset, partition.size)
    check_unused(path, writers_only=not write, span=span)
    locked = lock_range(fd, write=write, offset=partition.offset, size=partition.size, path=path)
    if require_lock and not locked:
        raise no_locks(path)
    check_unused(path, writers_only=not write, span=span, ours=True)  # a loop device may have come between
    return locked


def kept_space(sif: SIF) -> tuple[str, ...]:
    """What to tell where the file could not give up the space of an object that went."""
    return tuple(notice.message for notice in sif.warnings if notice.kind == "space-kept")


def no_locks(path: str) -> SifkitError:
    return SifkitError(f"{show(path)}: its filesystem does not support file locking", path=path, hint=NEEDS_LOCK_HINT)
