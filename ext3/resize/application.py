"""A resize, carried out.

Four parts: (a) transactions under the old geometry move what is beyond the new end; (b) the metadata of new groups is written
outside of the old end, and the journal emptied; (c) the switch: one sector of the superblock; (d) transactions under the new
geometry free what the old one used, and the backups follow. An interruption leaves a sound filesystem of the old size or of
the new one; at most it has blocks that are marked as used and belong to nobody. Until the end the first backup says so. The
device grows first and is cut last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..device.base import BlockDevice, ResizableDevice
from ..errors import DeviceError, NeedsCheckError
from ..format.geometry import Geometry
from ..format.group_desc_columns import group_table
from ..progress import Progress, Silent
from .backup_copies import mark_first_backup, write_backups
from .bad_blocks import check_bad_blocks, write_bad_blocks
from .block_moves import BlockMover, Moves
from .inode_moves import InodeMover, read_names
from .journal_relocation import move_journal
from .new_groups import new_descriptors, write_new_groups
from .preconditions import check_last_group, open_for_resize, resize_map_block
from .references import read_references
from .resize_plan import ResizePlan
from .switch import drop_resize_inode, finish_groups, restore_resize_inode, switch_geometry
from .transactions import Transactions
from .unfinished import is_unfinished

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
    check_last_group(device, opened.superblock, group_table(opened.groups))
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
        self.superblock, self.groups = changes.superblock, changes.groups
        self.map_at = resize_map_block(changes.device, self.superblock, self.groups)
        if plan.moves_something:
            self._plan_moves()
        if plan.bad_blocks is not None:
            check_bad_blocks(changes, plan.bad_blocks)

    def _plan_moves(self) -> None:
        plan, changes = self.plan, self.changes
        moves, numbers = Moves(plan.block_from, plan.block_to), Moves(plan.inode_from, plan.inode_to)
        found = read_references(self, plan.new.blocks)
        self.journal_pointers = found.journal
        if len(np.unique(found.pointers.block)) != len(moves.old):
            raise NeedsCheckError("is not the one that was planned for")
        self.blocks = BlockMover(changes, found.pointers, moves)
        self.inodes: InodeMover | None = None
        if len(numbers.old):
            names = read_names(changes, found.directories, plan.new.inodes)
            if not np.array_equal(np.unique(names.ino), numbers.old):
                raise NeedsCheckError("is not the one that was planned for")
            block, start = np.divmod(names.at, plan.old.block_size)
            at = moves.moved(block) * plan.old.block_size + start
            self.inodes = InodeMover(changes, names._replace(at=at), numbers)

    def _move(self) -> None:
        plan = self.plan
        self.progress.phase("moving", plan.moved_bytes, "bytes")
        if len(plan.journal_from):
            move_journal(self.changes, self.journal_pointers, Moves(plan.journal_from, plan.journal_to))
            self.progress.advance(len(plan.journal_from) * plan.old.block_size)
        self.blocks.run(self.progress)
        if self.inodes is not None:
            self.inodes.run()
        self.progress.done()

    def run(self) -> None:
        plan, changes = self.plan, self.changes
        mark_first_backup(self.device, plan.old, plan.new, self.before)
        if plan.bad_blocks is not None:
            write_bad_blocks(changes, plan.bad_blocks)
        if plan.moves_something:
            self._move()
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
        left = replace(plan.old, reserved_gdt_blocks=0) if plan.beyond_reserve else plan.old
        finish_groups(changes, left, plan.new)
        changes.close()
        write_backups(self.device, plan.new, changes.raw, changes.groups)

    def _leave_old_geometry(self) -> None:
        """Commit what the new geometry needs and the old one allows."""
        plan, changes = self.plan, self.changes
        if plan.new.blocks < plan.old.blocks:
            end = min(plan.old.blocks, plan.old.first_block(plan.new.groups - 1) + plan.old.blocks_per_group)
            changes.take_blocks(np.arange(plan.new.blocks, end, dtype=np.int64))
            changes.leaked = end - plan.new.blocks
        if plan.map_to is not None and self.map_at is not None:
            changes.take_blocks(np.array([plan.map_to], np.int64))
            changes.free_blocks(np.array([self.map_at], np.int64))
            self.map_at = plan.map_to
        if plan.replaces_resize_inode and self.map_at is not None:
            drop_resize_inode(changes, self.map_at, free=plan.beyond_reserve)
        changes.settle()
