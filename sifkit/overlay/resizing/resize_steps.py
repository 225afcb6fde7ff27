"""Steps of a resize, wherever the filesystem is: its plan, the work inside the filesystem, and what is done after an error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from ext3 import hostio
from ext3.device.base import BlockDevice, FileDevice
from ext3.errors import DeviceError, Ext3Error, GeometryError, TooSmallError
from ext3.format.superblock import read_superblock
from ext3.progress import Progress
from ext3.read.filesystem import Filesystem
from ext3.resize.application import apply
from ext3.resize.prepared import Prepared, prepare
from ext3.resize.resize_plan import ResizePlan

from ...errors import HostFullError, UsageError, human, show
from ...host_space import free_bytes, full_host_errors
from ..images.opening import named_errors
from ..images.window import Window, check_window
from .filesystem_facts import FilesystemFacts, facts_of
from .resize_request import ResizeStart, ResizeTarget
from .unfinished_resize import finish_resize

__all__ = ["PlannedResize", "apply_plan", "data_bytes", "plan_resize", "sound_after_errors"]

MIB = 1 << 20
HOST_BLOCK = 4096
"""Bytes that the host allocates for less."""


@dataclass(frozen=True, slots=True)
class PlannedResize:
    """Plan of a resize of a filesystem. ``before``: its facts. ``target``: bytes that its file or partition gets; where
    that is ``fixed``, bytes of the filesystem."""

    ready: Prepared
    plan: ResizePlan
    before: FilesystemFacts
    target: int
    fixed: bool = False

    @property
    def nothing(self) -> bool:
        """True if both have their sizes already."""
        return self.plan.nothing and (self.fixed or self.target == self.before.file_bytes)

    @property
    def has_journal(self) -> bool:
        return self.ready.superblock.has_journal

    def start(self, path: str, *, copied: int = 0) -> ResizeStart:
        """Return what it does to the image at ``path``. ``copied``: bytes of data, if it is resized as a copy."""
        old, new = self.plan.old, self.plan.new
        needed = copied + self.plan.moved_bytes
        if new.groups > old.groups:
            needed += sum(map(new.head_count, range(old.groups, new.groups))) * new.block_size
            needed += max(2 * new.block_size, HOST_BLOCK) * (new.groups - old.groups)  # bitmaps; inode tables are holes
        return ResizeStart(
            moved_bytes=self.plan.moved_bytes,
            moved_inodes=self.plan.moved_inodes,
            copied_bytes=copied,
            needed_bytes=needed,
            available_bytes=free_bytes(os.path.dirname(os.path.realpath(path))),
        )

    def expected(self) -> FilesystemFacts:
        """Return the facts of the filesystem after the resize, as planned."""
        old, new, before = self.plan.old, self.plan.new, self.before
        room = new.free_blocks - old.free_blocks + (old.resize_inode - new.resize_inode)
        free = before.free_bytes + room * new.block_size
        return replace(
            before,
            file_bytes=before.file_bytes if self.fixed else self.target,
            size_bytes=new.size_bytes,
            used_bytes=new.size_bytes - free,
            free_bytes=free,
            inodes=new.inodes,
            groups=new.groups,
        )


def plan_resize(
    window: Window, target: ResizeTarget, progress: Progress, *, fixed: bool = False, device: BlockDevice | None = None
) -> PlannedResize:
    """Plan the resize of the filesystem in a window. ``fixed``: the window cannot grow. ``device``: what the window holds, if
    that is not what is in the file.

    Nothing is written. Errors name the image, and hints say which sizes are possible.
    """
    check_window(window)
    name = show(window.path)
    with named_errors(window.path, window.offset if fixed else None):
        try:
            device = window.device() if device is None else device
            with Filesystem.open(device) as filesystem:
                before = facts_of(filesystem, window.size)
            progress.phase("plan", None, "files")
            ready = prepare(device)
            present = before.size_bytes if fixed else window.size
            size = target.bytes_from(present, lambda: ready.minimum().size_bytes)
            if fixed and size > window.size:
                text = f"{name}: there are {human(window.size)} up to the end of the partition or file"
                raise UsageError(f"{text}, and {human(size)} are asked for", hint="give a smaller size")
            return PlannedResize(ready, ready.plan(size), before, size, fixed)
        except TooSmallError as error:
            content, journal = human(error.content_bytes), human(error.journal_bytes)
            error.path = window.path
            error.message = f"{name}: the smallest is {human(error.least)} (content {content}, journal {journal})"
            error.hint = f"give --size {-(-error.least // MIB)}M or more, or --minimum"
            raise
        except GeometryError as error:
            if error.most is not None:
                error.hint = (
                    f"the largest size of this filesystem is {human(error.most)}: give --size {error.most >> 10}K or less"
                )
            raise


def apply_plan(
    window: Window,
    planned: PlannedResize,
    start: ResizeStart,
    progress: Progress,
    *,
    device_bytes: int | None = None,
    zero_from: int | None = None,
    file_bytes: int | None = None,
    journaled: bool = True,
) -> FilesystemFacts:
    """Resize the filesystem in a window as planned; return its facts afterwards.

    ``device_bytes``: size that the file is given, None: it has it, or gets it later. ``zero_from``: see ``FileDevice``.
    ``file_bytes``: of the file or partition in the end, None: as planned. ``journaled`` False: a copy, which an
    interruption may destroy.
    """
    device = FileDevice(window.fd, window.offset, window.size, zero_from=zero_from)
    size = window.offset + max(window.size, planned.target)
    with full_host_errors(window.path, start.needed_bytes, size=size, in_place=True), named_errors(window.path):
        apply(device, planned.plan, device_bytes=device_bytes, journaled=journaled, progress=progress)
        progress.done()
        with Filesystem.open(FileDevice(window.fd, window.offset, planned.plan.new.size_bytes)) as filesystem:
            return facts_of(filesystem, planned.target if file_bytes is None else file_bytes)


@contextmanager
def sound_after_errors(window: Window, *, cut: bool) -> Iterator[None]:
    """After an exception in the block, which resizes the filesystem in a window, leave a sound filesystem of either size.

    If the host is full, space that free blocks take is given back to it.
    ``cut``: a file that became larger gets its old size back, unless the filesystem has grown by then.
    """
    try:
        yield
    except BaseException as error:
        with hostio.signals_deferred(), suppress(Ext3Error, OSError):
            end = os.lseek(window.fd, 0, os.SEEK_END)
            device = FileDevice(window.fd, window.offset, end - window.offset)
            if not isinstance(error, Ext3Error) or isinstance(error, DeviceError):
                from ext3.fsck.checking import check  # half of what a resize would load
                from ext3.fsck.context import CheckOptions
                from ext3.fsck.policy import CheckOnly, Preen

                finish_resize(device)
                whole = CheckOptions(force=True)
                if read_superblock(device).needs_recovery or check(device, CheckOnly(), options=whole).findings:
                    check(device, Preen(), options=whole)  # blocks that belong to nobody, for example
            if isinstance(error, HostFullError):
                with suppress(Ext3Error, OSError), Filesystem.open(device, "r+") as filesystem:
                    filesystem.trim()  # what was copied, or has moved away, lies in free blocks, and still takes space
            least = window.offset + max(window.size, read_superblock(device).size_bytes)
            if cut and end > least:
                os.ftruncate(window.fd, least)
        raise


def data_bytes(window: Window) -> int:
    """Return the bytes of a window that hold data; holes are not counted."""
    return sum(size for _, size in hostio.data_ranges(window.fd, window.offset, window.size))
