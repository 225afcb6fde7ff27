"""Application of the plan of a resize.

Four parts: (a) transactions under the old geometry move what is beyond the new end; (b) the metadata of new groups is written
outside of the old end, and the journal emptied; (c) the switch: one sector of the superblock; (d) transactions under the new
geometry free what the old one used, and the backups follow. An interruption leaves a sound filesystem of the old size or of
the new one; at most it has blocks that are marked as used and belong to nobody. Until the end the first backup says so. The
device grows first and is cut last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..device.base import BlockDevice, ResizableDevice
from ..errors import DeviceError, NeedsCheckError
from ..format.geometry import Geometry
from ..progress import Progress, Silent
from .backup_copies import mark_first_backup, write_backups
from .interruption import is_unfinished
from .new_groups import new_descriptors, write_new_groups
from .preconditions import check_last_group, open_for_resize, resize_map_block
from .resize_plan import ResizePlan
from .switch import drop_resize_inode, finish_groups, restore_resize_inode, switch_geometry
from .transactions import Transactions

if TYPE_CHECKING:
    from .mover import Mover

__all__ = ["ResizeResult", "apply"]


@dataclass(frozen=True, slots=True)
class ResizeResult:
    """Geometry before and after. The device may be larger than the filesystem (``size_bytes`` of the geometry)."""

    old: Geometry
    new: Geometry


def apply(
    device: BlockDevice,
    plan: ResizePlan,
    *,
    device_bytes: int | None = None,
    journaled: bool = True,
    clock: Callable[[], int] = time.time_ns,
    progress: Progress | None = None,
) -> ResizeResult:
    """Resize the filesystem on ``device`` as planned, for which it must not have changed since.

    ``device_bytes``: the size that the device is given: before a growth, after a cut. None: the caller sees to it.
    Without a journal, or if not ``journaled``, an interruption destroys the filesystem: the device must be a copy.

    Raise NeedsCheckError, UnsupportedError, CorruptError and JournalFullError (for a single change that is too large for the
    journal: that of a directory with very many subdirectories) with nothing written; DeviceError.
    """
    opened = open_for_resize(device)
    if opened.superblock.geometry != plan.old:
        raise NeedsCheckError("is not the one that was planned for")
    if is_unfinished(device, opened.superblock):
        raise NeedsCheckError("was interrupted while it was resized")
    check_last_group(device, opened.superblock, opened.groups)
    if device_bytes is not None and device_bytes > device.size:
        _set_size(device, device_bytes)
    if not plan.nothing:
        changes = Transactions(device, opened, clock=clock, journaled=journaled)
        _Application(changes, plan, progress or Silent()).run()
    if device_bytes is not None and device_bytes < device.size:
        _set_size(device, device_bytes)
        device.sync()
    return ResizeResult(plan.old, plan.new)


def _set_size(device: BlockDevice, size: int) -> None:
    if not isinstance(device, ResizableDevice):
        raise DeviceError("the device cannot change its size")
    device.set_size(size)


class _Application:
    def __init__(self, changes: Transactions, plan: ResizePlan, progress: Progress) -> None:
        if plan.new.size_bytes > changes.device.size:
            raise DeviceError(f"{plan.new.size_bytes} bytes do not fit the {changes.device.size} of the device")
        self.device = changes.device
        self.plan = plan
        self.progress = progress
        self.changes = changes
        self.before = self.changes.raw
        self.map_at = resize_map_block(changes.device, changes.superblock, changes.groups)
        self.mover: Mover | None = None
        if plan.moves is not None:
            from .mover import Mover  # with numpy

            self.mover = Mover(changes, plan.moves, plan.new)

    def run(self) -> None:
        plan, changes = self.plan, self.changes
        mark_first_backup(self.device, plan.old, plan.new, self.before)
        if self.mover is not None:
            self.mover.run(self.progress)
        self._leave_old_geometry()
        groups = new_descriptors(plan.old, changes.groups, plan.new)
        if plan.new.groups > plan.old.groups:
            write_new_groups(self.device, plan.old, plan.new, groups)
            self.device.sync()
        switch_geometry(changes, plan.old, plan.new, groups)
        if plan.replaces_resize_inode and plan.new.resize_inode:
            restore_resize_inode(changes, plan.new, self.map_at)
        else:
            restore_resize_inode(changes, plan.new, None)
        left = plan.old._replace(reserved_gdt_blocks=0) if plan.beyond_reserve else plan.old
        finish_groups(changes, left, plan.new)
        changes.close()
        write_backups(self.device, plan.new, changes.raw, changes.groups)

    def _leave_old_geometry(self) -> None:
        """Commit what the new geometry needs and the old one allows."""
        plan, changes = self.plan, self.changes
        if plan.new.blocks < plan.old.blocks:
            end = min(plan.old.blocks, plan.old.first_block(plan.new.groups - 1) + plan.old.blocks_per_group)
            changes.take_run(range(plan.new.blocks, end))
            changes.leaked = end - plan.new.blocks
        map_to = None if plan.moves is None else plan.moves.map_to
        if map_to is not None and self.map_at is not None:
            changes.take_run(range(map_to, map_to + 1))
            changes.free_run(range(self.map_at, self.map_at + 1))
            self.map_at = map_to
        if plan.replaces_resize_inode and self.map_at is not None:
            drop_resize_inode(changes, self.map_at, free=plan.beyond_reserve)
        changes.settle()
