"""Opening an image to change what is in it: who else uses it, locks as Apptainer takes them, signatures, and a safe end.

An image with a journal is changed in place. One without is changed as a copy that takes its name at the end; inside a SIF
it is changed in place, marked as in disorder while it is written.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ext3 import hostio
from ext3.device.base import FileDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import Ext3Error
from ext3.format.superblock import read_superblock

from ..atomic import AtomicFile, lock_range
from ..errors import FormatError, NotYetError, SifkitError, UsageError, show
from .in_use import HostPath, check_unused, image_kind
from .opening import check_window
from .target import Window, check_readable, choose, editing, lock_partition, no_locks

if TYPE_CHECKING:
    from ..sif import Stamp
    from .embedding.reservation import OnSignatures

__all__ = ["EditOptions", "EditedFilesystem", "edit_image"]

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EditOptions:
    """How an image is opened. ``partition``: of a SIF, "overlay", "root" or an ID. ``on_signatures``: those that break make it
    fail, or are removed, or kept. ``require_lock``: no locks, no edit. ``stamp``: the time of changes to the SIF around it.
    ``check``: is given the open filesystem before anything is changed; what it raises leaves the image as it is."""

    partition: str | None = None
    on_signatures: OnSignatures = "refuse"
    require_lock: bool = False
    stamp: Stamp | None = None
    check: Callable[[WritableFilesystem], None] | None = None


@dataclass(slots=True)
class EditedFilesystem:
    """An image that is open for changes. ``copied``: it has no journal, and takes the place of the original at the end.

    ``locked`` False: its filesystem has no locks. ``notes``: what to tell. ``dropped``: ids of signatures that went.
    """

    path: str
    filesystem: WritableFilesystem
    locked: bool = True
    copied: bool = False
    notes: tuple[str, ...] = ()
    dropped: tuple[int, ...] = field(default=())

    def sync(self) -> None:
        """What was done so far is on storage, unless it is a copy that is worked on."""
        with _uninterrupted():
            self.filesystem.sync()


@contextmanager
def edit_image(path: HostPath, options: EditOptions | None = None) -> Iterator[EditedFilesystem]:
    """The ext3 image at ``path``, or in a SIF there, open and locked for changes; committed at the end of the block.

    Leaving the block by an exception drops what was not synced, and leaves the image clean. Raises ImageInUseError,
    NotYetError, FormatError, SignedError, UsageError, OSError where the file cannot be written, and Ext3Error.
    """
    options = options or EditOptions()
    name = os.fsdecode(path)
    kind = image_kind(name)
    if kind == "squashfs":
        raise FormatError(f"{show(name)} is a squashfs image, which cannot be changed", path=name, hint="give an ext3 image")
    if kind == "sif":
        if options.partition is None:
            raise NotYetError(
                f"{show(name)} is a SIF image, and this release does not change what a container sees of it",
                path=name,
                hint="--partition overlay changes its overlay",
            )
        with _edit_partition(name, options.partition, options) as edited:
            yield edited
        return
    if options.partition is not None:
        raise UsageError(f"{show(name)} is no SIF image, and --partition is for SIF images", hint="leave --partition out")
    with _edit_file(name, options) as edited:
        yield edited


@contextmanager
def _edit_file(name: str, options: EditOptions) -> Iterator[EditedFilesystem]:
    fd = os.open(name, os.O_RDWR | hostio.NO_WAIT)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(f"{show(name)} is not a regular file", path=name, hint="give an image file")
        check_unused(name)
        locked = lock_range(fd, write=True, path=name)
        if options.require_lock and not locked:
            raise no_locks(name)
        check_unused(name, ours=True)  # a loop device may have come between
        check_window(Window(name, fd, 0, found.st_size))
        superblock = read_superblock(FileDevice(fd))
        if superblock.has_journal:
            with _changing(FileDevice(fd), options) as filesystem:
                yield EditedFilesystem(name, filesystem, locked)
            return
        with _working_copy(name, fd, found, options) as filesystem:
            yield EditedFilesystem(name, filesystem, locked, copied=True)
    finally:
        os.close(fd)


@contextmanager
def _working_copy(name: str, fd: int, found: os.stat_result, options: EditOptions) -> Iterator[WritableFilesystem]:
    """A copy of the image, which replaces it at the end of the block."""
    from .cloning import copy_data

    with AtomicFile(name, stat.S_IMODE(found.st_mode)) as file:
        if not hostio.clone_file(fd, file.fd):
            copy_data(fd, file.fd, found.st_size, None)
        # Whoever opens the copy under the name it is about to get finds it locked, too.
        lock_range(file.fd, write=True, path=name)
        with _changing(FileDevice(file.fd), options) as filesystem:
            yield filesystem
        if hasattr(os, "fchown"):
            with suppress(OSError):  # another owner's file in a directory of ours
                os.fchown(file.fd, found.st_uid, found.st_gid)
        now = os.fstat(fd)
        if (now.st_mtime_ns, now.st_size) != (found.st_mtime_ns, found.st_size):
            hint = "stop what uses it, then try again"
            raise SifkitError(f"{show(name)} was written to by somebody else meanwhile", path=name, hint=hint)
        file.commit(replace=True)


@contextmanager
def _edit_partition(name: str, partition: str, options: EditOptions) -> Iterator[EditedFilesystem]:
    from .embedding.reservation import apply_signature_policy  # with the SIF library

    with editing(name, stamp=options.stamp, require_lock=options.require_lock) as edited:
        sif = edited.sif
        found = choose(sif, partition, name)
        check_readable(sif, edited.fd, found, name)
        what = f"changing object {found.id}"
        decision = apply_signature_policy(sif, name, what, options.on_signatures, old=found, group=found.group or 1)
        locked = lock_partition(edited.fd, name, found, write=True, require_lock=options.require_lock)
        window = Window(name, edited.fd, found.offset, found.size, found)
        check_window(window)
        with ExitStack() as stack:
            # Opened first: what cannot be changed keeps its signatures.
            filesystem = stack.enter_context(_changing(window.device(), options))
            if decision.dropped:
                sif.delete(decision.dropped)
            yield EditedFilesystem(name, filesystem, locked, notes=decision.notes, dropped=decision.dropped)


@contextmanager
def _changing(device: FileDevice, options: EditOptions) -> Iterator[WritableFilesystem]:
    """The filesystem on ``device``; committed at the end, or put back to the last sync where the block fails."""
    with _uninterrupted():
        filesystem = WritableFilesystem(device)
    try:
        if options.check is not None:
            options.check(filesystem)
        yield filesystem
    except BaseException:
        with _uninterrupted():
            _abandon(filesystem, device)
        raise
    with _uninterrupted():
        filesystem.close()


def _abandon(filesystem: WritableFilesystem, device: FileDevice) -> None:
    """Drop what was not synced. Opening the image once more finishes or drops a commit that was cut short, and deletes what
    was to get a name and did not."""
    with suppress(Ext3Error, OSError):
        filesystem.abandon()
    with suppress(Ext3Error, OSError):
        superblock = read_superblock(device)
        if superblock.needs_recovery or superblock.last_orphan:
            WritableFilesystem(device).close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Signals that end the program wait until the block is over, where the system can do that."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
