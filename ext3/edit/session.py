"""Edit session: changes of blocks, inodes, counts and the orphan list, committed together through the journal.

Changes are collected in memory; ``sync`` commits them as one transaction. An ``operation`` that raises is rolled back.
Data of files is written in place and is on storage before the transaction that adds it to the file. The blocks of a commit
are written to their places at once, or with ``late_checkpoint`` when the log is full. Until then they are read from memory,
and data to be written over one of them goes through the journal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

from ..alloc.allocator import BlockAllocator, InodeAllocator
from ..alloc.system_blocks import SystemBlocks
from ..constants import ROOT_INO, STATE_VALID, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ..device.base import BlockDevice
from ..device.block_overlay import BlockOverlay
from ..errors import CheckpointError, CorruptError, DeviceError, JournalFullError, NoSpaceError
from ..format.inode_table import check_number
from ..format.superblock import Superblock
from ..journal.transaction import LogWriter, write_blocks
from .blocks import Run
from .group_blocks import changed_group_blocks
from .log_space import LogSpace
from .opening import Opened, block_bitmaps, inode_bitmaps, open_for_changes
from .orphan_list import process_orphans
from .rollback import Rollback, numbers_within
from .superblock_editor import SuperblockEditor

if TYPE_CHECKING:
    from ..format.layout_columns import Table

__all__ = ["Clock", "Session"]

T = TypeVar("T")
Clock = Callable[[], int]
"""The present time in nanoseconds since 1970."""

MEMORY_BYTES = 64 << 20
"""Bytes of changed blocks in memory above which the end of an operation commits."""
NS = 1_000_000_000


class Session:
    """Image open for changes; implements ``Blocks``. Numbers are block and inode numbers.

    ``device`` reads as the image with all changes (bitmaps, descriptors and superblock as of the last ``flush`` or ``sync``).
    After a failed write nothing more is written: synced changes are safe in the journal.
    """

    def __init__(
        self, device: BlockDevice, *, clock: Clock, opened: Opened | None = None, late_checkpoint: bool = False
    ) -> None:  # fmt: skip
        """Recover the image (journal, orphan list) and begin. Locks and copies are up to the caller.

        ``late_checkpoint``: a commit leaves its blocks in the log. It costs two syncs of the device instead of four.
        ``opened``: tables of an image whose journal was replayed; its state does not matter then, and its orphan list is left
        to the caller.

        Raise NeedsCheckError if the image is marked as damaged, UnsupportedError for features that cannot be written or a
        journal that cannot be read, CorruptError, DeviceError.
        """
        self._base = device
        self._clock = clock
        self._pid = os.getpid()
        ready = open_for_changes(device) if opened is None else opened
        journal = ready.journal
        self.replayed = ready.replayed
        """Number of transactions replayed from the journal."""
        superblock = ready.superblock
        self.block_size = superblock.block_size
        self.descriptors = ready.groups
        """Group descriptors as they were when the image was opened: the counts are the allocators'."""
        self._tables = ready.groups["bg_inode_table"]
        self._system_blocks = SystemBlocks(superblock, self.descriptors, () if journal is None else journal.runs)
        self._log = None if journal is None else LogWriter(device, journal, ready.sequence)
        self._late_checkpoint = late_checkpoint
        self._logged: Mapping[int, object] = {} if self._log is None else self._log.blocks
        """Blocks that are committed and not in their places yet."""
        self._committed = device if self._log is None else BlockOverlay(device, self.block_size, self._logged, self._log.read)
        self.blocks = BlockAllocator(
            first=superblock.first_data_block,
            end=superblock.blocks_count,
            per_group=superblock.blocks_per_group,
            free_counts=list(self.descriptors["bg_free_blocks_count"]),
            load=block_bitmaps(self._committed, superblock, self.descriptors, self._system_blocks),
        )
        self.inodes = InodeAllocator(
            per_group=superblock.inodes_per_group,
            first_ino=superblock.first_ino,
            free_counts=list(self.descriptors["bg_free_inodes_count"]),
            dirs=list(self.descriptors["bg_used_dirs_count"]),
            blocks=self.blocks,
            load=inode_bitmaps(self._committed, superblock, self.descriptors),
        )
        self._check_totals(superblock)
        self._changes = Rollback()
        self._log_space = LogSpace(self._log, self._changes, self.blocks, self.inodes, superblock.geometry)
        self.rollbacks = 0
        """Number of rollbacks; each invalidates cached blocks and inodes."""
        # The kernel updates the superblock's counts at unmount, never through the journal.
        counts = superblock.free_blocks, superblock.free_inodes
        stale = bool(ready.replayed) and counts != (self.blocks.total_free, self.inodes.total_free)
        self._super = SuperblockEditor(device, superblock, changed=stale)
        self._data_written = False
        self._in_use = False
        self._failed = False
        self._closed = False
        self.device: BlockDevice = BlockOverlay(self._committed, self.block_size, self._changes.blocks, self.read)
        self.orphans = process_orphans(self) if self.last_orphan and opened is None else (0, 0)
        """(deleted, truncated): inodes of the orphan list."""
        self.sync()

    # The filesystem as a whole

    def _check_totals(self, superblock: Superblock) -> None:
        """Raise CorruptError if the groups have more free than there is: the superblock could not hold the sum."""
        for field, free, most in (
            ("bg_free_blocks_count", self.blocks.total_free, superblock.blocks_count),
            ("bg_free_inodes_count", self.inodes.total_free, superblock.inodes_count),
        ):
            if free > most:
                raise CorruptError("group descriptors", f"sum of {field}", free, f"<= {most}")

    @property
    def superblock(self) -> Superblock:
        """Superblock with the current counts."""
        return self._super.present(self.blocks.total_free, self.inodes.total_free)

    @property
    def fixed(self) -> Superblock:
        """Superblock with the counts of the opening, as ``superblock`` takes longer to make: for what no allocation changes."""
        return self._super.fixed

    @property
    def free_counts(self) -> tuple[int, int]:
        """Free blocks and inodes."""
        return self.blocks.total_free, self.inodes.total_free

    @property
    def groups(self) -> Table:
        """Group descriptors with the current counts: GROUP_DESC rows, shape (groups,). Loads numpy."""
        from ..format.group_desc_columns import group_table

        table = group_table(self.descriptors).copy()
        table["bg_free_blocks_count"] = self.blocks.free_counts
        table["bg_free_inodes_count"] = self.inodes.free_counts
        table["bg_used_dirs_count"] = self.inodes.dirs
        return table

    @property
    def nanoseconds(self) -> int:
        """Current time of the clock, in nanoseconds since 1970."""
        return self._clock()

    @property
    def seconds(self) -> int:
        return self._clock() // NS

    @property
    def last_orphan(self) -> int:
        return self._super.last_orphan

    @last_orphan.setter
    def last_orphan(self, ino: int) -> None:
        self._changes.remember(self._super.set_orphan, self._super.last_orphan)
        self._super.set_orphan(ino)

    def add_features(self, *, compat: int = 0, ro_compat: int = 0) -> None:
        """Set feature bits in the superblock."""
        have = self._super.fixed
        if have.compat & compat != compat or have.ro_compat & ro_compat != ro_compat:
            self._changes.remember(self._super.set_features, have.compat, have.ro_compat)
            self._super.set_features(have.compat | compat, have.ro_compat | ro_compat)

    def change_superblock(self, superblock: Superblock) -> None:
        """Take label, UUID and reserved blocks from ``superblock``."""
        self._changes.remember(self._super.change, self._super.fixed)
        self._super.change(superblock)

    def write_system(self, block: int, data: bytes) -> None:
        """Change a whole block of the filesystem itself, such as one with a copy of the superblock."""
        self._put(block, bytes(data))

    # Operations

    @contextmanager
    def operation(self) -> Iterator[None]:
        """Run the block as one atomic operation: roll its changes back if it raises. A nested one is rolled back alone."""
        start = self._start_operation()
        try:
            yield
        except BaseException:
            self._take_back(start)
            raise
        finally:
            self._end_operation()
        self._commit_if_needed()

    def _start_operation(self) -> tuple[int, int, int]:
        """Begin an operation; return where it begins: for ``_take_back``."""
        self._check_usable()
        changes = self._changes
        if not changes.depth and self.blocks.total_held > self.blocks.available:
            self.sync()
        changes.depth += 1
        return changes.mark, len(self.blocks.dirty), len(self.inodes.dirty)

    def _take_back(self, start: tuple[int, int, int]) -> None:
        """Roll back the changes since ``start``."""
        mark, *groups = start
        self.rollbacks += self._changes.mark > mark
        self._changes.roll_back(mark)
        for dirty, kept in zip((self.blocks.dirty, self.inodes.dirty), groups, strict=True):
            while len(dirty) > kept:
                dirty.popitem()

    def _end_operation(self) -> None:
        changes = self._changes
        changes.depth -= 1
        if not changes.depth:
            changes.clear_undo()

    def _commit_if_needed(self) -> None:
        if not self._changes.depth and self.should_commit:
            self.sync()

    def _run_once(self, work: Callable[[], T]) -> T:
        """Run ``work`` as ``operation`` runs a block, without what a context manager costs."""
        start = self._start_operation()
        try:
            found = work()
        except BaseException:
            self._take_back(start)
            raise
        finally:
            self._end_operation()
        self._commit_if_needed()
        return found

    def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` as an operation; retry it after a sync if journal or free blocks were short with changes pending."""
        try:
            return self._run_once(work)
        except JournalFullError:
            if self._changes.depth or not self.pending:
                raise
        except NoSpaceError:
            if self._changes.depth or not self.blocks.total_held:
                raise
        self.sync()
        return self._run_once(work)

    @property
    def in_operation(self) -> bool:
        """True while an operation is running: nothing is committed before it ends."""
        return self._changes.depth > 0

    @property
    def usable(self) -> bool:
        """True if it is open, no write failed, and this is no forked child: there it is its parent's."""
        return not (self._failed or self._closed) and self._pid == os.getpid()

    def _check_usable(self) -> None:
        if self.usable:
            return
        why = "an earlier write failed" if self._failed else "it is closed" if self._closed else "this is a forked process"
        raise DeviceError(f"the image is not written any more: {why}", hint="open it again")

    # Blocks

    def read(self, block: int) -> bytes:
        """Return the current content of a block."""
        found = self._changes.blocks.get(block)
        if found is None:
            return self._committed.read(block * self.block_size, self.block_size)
        return found if isinstance(found, bytes) else bytes(found)

    def write(self, block: int, data: bytes) -> None:
        """Change a whole metadata block of a file. Raise CorruptError if it is a system block."""
        if len(data) != self.block_size:
            raise ValueError(f"{len(data)} bytes are not a block of {self.block_size}")
        self._system_blocks.check(block, 1, "block to change")
        self._put(block, bytes(data))

    def write_data(self, block: int, data: bytes | bytearray | memoryview) -> None:
        """Write data of a file in place, from ``block`` on; the blocks are the file's, or newly allocated.

        A rollback does not restore the old data: allocate new blocks if that matters.
        """
        self._check_usable()
        if not data:
            return
        size = self.block_size
        count = -(-len(data) // size)
        self._system_blocks.check(block, count, "data to write")
        changed, logged = self._changes.blocks, self._logged
        if (changed or logged) and any(number in changed or number in logged for number in range(block, block + count)):
            self._write_over(block, memoryview(data))
            return
        self._data_written = True
        self._base.write(block * size, data)

    def data_device(self, block: int, count: int) -> BlockDevice:
        """Return the underlying device, to write data to these newly allocated blocks by other means."""
        self._check_usable()
        self._system_blocks.check(block, count, "data to write")
        self._data_written = True
        return self._base

    def _write_over(self, block: int, data: memoryview) -> None:
        """Write data to blocks of which some are not in their places yet: those are changed through the journal."""
        size = self.block_size
        for start in range(0, len(data), size):
            part = data[start : start + size]
            if block in self._changes.blocks or block in self._logged:
                self._put(block, bytes(part) + self.read(block)[len(part) :])
            else:
                self._data_written = True
                self._base.write(block * size, part)
            block += 1

    def allocate(self, count: int, goal: int) -> list[Run]:
        """Allocate ``count`` blocks near ``goal``. Raise NoSpaceError with none allocated."""
        self._check_usable()
        try:
            runs = self.blocks.allocate(count, goal)
        except NoSpaceError as error:
            error.needed_bytes = count * self.block_size
            error.available_bytes = self.blocks.available * self.block_size
            raise
        self._changes.remember(self.blocks.undo_allocate, runs)
        for run in runs:
            self._system_blocks.check(*run, "free blocks")
        self._log_space.check()
        return runs

    def free(self, runs: Iterable[Run], *, metadata: bool) -> None:
        """Free blocks. ``metadata``: they held a directory, pointers or attributes."""
        self._check_usable()
        given = list(runs)
        for run in given:
            self._system_blocks.check(*run, "blocks to give back")
        self.blocks.free(given)
        self._changes.remember(self.blocks.undo_free, given)
        for first, count in given:
            self._changes.drop(first, count, revoke=metadata)
            if self._logged and not metadata:
                # A replay must not overwrite what these blocks are used for next.
                self._changes.revoke(numbers_within(self._logged, first, count))
        self._log_space.check()

    def goal_of(self, ino: int) -> int:
        """Return the default allocation goal of an inode: the first block of its group."""
        geometry = self._super.fixed.geometry
        return geometry.first_block(geometry.group_of_inode(ino)[0])

    def _put(self, block: int, data: bytes | bytearray) -> None:
        self._check_usable()
        if self._changes.put(block, data):
            self._log_space.check()

    # Space in the journal

    @property
    def pending(self) -> bool:
        """True if there is something to commit: changes, not mere data written over old data."""
        return bool(
            self._changes.blocks or self.blocks.dirty or self.inodes.dirty or self._changes.revoked or self._super.changed
        )

    @property
    def unsynced(self) -> bool:
        """True if ``sync`` has something to do."""
        return self._data_written or self.pending

    @property
    def log_space(self) -> int:
        """Number of blocks that can still be changed before the transaction is full; huge without a journal."""
        return self._log_space.left

    @property
    def should_commit(self) -> bool:
        """True if a quarter of the journal is full, or MEMORY_BYTES are in use."""
        if len(self._changes.blocks) * self.block_size > MEMORY_BYTES:
            return True
        return self._log_space.is_quarter_full

    # Inodes

    def _inode_offset(self, ino: int) -> tuple[int, int]:
        """Return (block, offset in it) of an inode. Raise PathNotFoundError for an invalid number."""
        superblock = self._super.fixed
        check_number(superblock, ino)
        group, block, byte = superblock.geometry.locate_inode(ino)
        return self._tables[group] + block, byte

    def read_inode(self, ino: int) -> bytes:
        """Return the current record of an inode (inode size bytes)."""
        block, offset = self._inode_offset(ino)
        size = self._super.fixed.inode_size
        found = self._changes.blocks.get(block)
        if found is None:
            return self._committed.read(block * self.block_size + offset, size)
        return bytes(found[offset : offset + size])

    def write_inode(self, ino: int, raw: bytes | bytearray) -> None:
        """Change the whole record of an inode."""
        size = self._super.fixed.inode_size
        if len(raw) != size:
            raise ValueError(f"{len(raw)} bytes are not an inode of {size}")
        block, offset = self._inode_offset(ino)
        found = self._changes.blocks.get(block)
        if not isinstance(found, bytearray):
            found = bytearray(self.read(block))
            self._put(block, found)
        self._changes.patch(block, offset, raw)

    def inode_in_use(self, ino: int) -> bool:
        """Return True if the inode bitmap has the inode in use."""
        check_number(self._super.fixed, ino)
        group, index = self._super.fixed.geometry.group_of_inode(ino)
        return bool(self.inodes.bitmap(group).cells[index])

    def allocate_inode(self, parent: int, *, is_dir: bool) -> int:
        """Allocate an inode for a child of directory ``parent``; the caller writes its record. Raise NoFreeInodesError."""
        self._check_usable()
        ino = self.inodes.allocate(parent, is_dir=is_dir, top_level=parent == ROOT_INO)
        self._changes.remember(self.inodes.undo_allocate, ino, is_dir)
        self._log_space.check()
        return ino

    def free_inode(self, ino: int, *, is_dir: bool) -> None:
        """Free an inode's number; its record (links 0, i_dtime set) and blocks are up to the caller (see delete_inode)."""
        self._check_usable()
        self.inodes.free(ino, is_dir=is_dir)
        self._changes.remember(self.inodes.undo_free, ino, is_dir)
        self._log_space.check()

    # Commit

    def flush(self) -> None:
        """Add bitmaps, descriptors and the superblock to the changed blocks; nothing is written."""
        if self._changes.depth:
            raise ValueError("a flush inside an operation")
        if not self.pending:
            return
        changed = self._changes.blocks
        geometry = self._super.fixed.geometry
        changed.update(changed_group_blocks(self.descriptors, self.blocks, self.inodes, geometry, self.read))
        block, offset = divmod(SUPERBLOCK_OFFSET, self.block_size)
        data = bytearray(self.read(block))
        packed = self._super.packed(self.blocks.total_free, self.inodes.total_free, self.seconds)
        data[offset : offset + SUPERBLOCK_SIZE] = packed
        changed[block] = bytes(data)

    def sync(self) -> None:
        """Commit all changes to stable storage.

        After a DeviceError earlier commits are safe, this one may be lost (after a CheckpointError it is safe, too), and the
        session writes nothing more.
        """
        self._check_usable()
        if self._changes.depth:
            raise ValueError("a sync inside an operation")
        if not self.pending:
            if self._data_written:
                self._base.sync()
                self._data_written = False
            return
        self._failed = True  # cleared on success
        self._begin()
        self.flush()
        if self._log is not None:
            self._log.commit(self._changes.blocks, self._changes.revoked, nanoseconds=self._clock())
            if not self._late_checkpoint:
                self._log.checkpoint()
        else:
            write_blocks(self._base, self._changes.blocks, self.block_size)
            self._base.sync()
        self._super.committed()
        if self._log is None:
            self._super.mark(state=STATE_VALID)
        self._changes.clear()
        self.blocks.release()
        self.blocks.dirty.clear()
        self.inodes.dirty.clear()
        self._data_written = self._failed = False

    def _begin(self) -> None:
        """Mark the image before the first write: as needing recovery, or without a journal as not clean."""
        if self._log is None:
            self._super.mark(state=0)
        elif not self._in_use:
            self._super.mark(recovery=True)
            self._in_use = True

    def checkpoint(self) -> None:
        """Commit, empty the log and clear needs_recovery: the image is as after ``close``, and the session goes on."""
        self.sync()
        if self._in_use:
            self._end_use()

    def close(self) -> None:
        """Commit and clear needs_recovery. After a failed write do nothing: the next open recovers."""
        try:
            if self.usable:
                self.sync()
                if self._in_use:
                    self._end_use()
        finally:
            self._closed = True

    def _end_use(self) -> None:
        """Empty the log and clear needs_recovery: everything is committed."""
        assert self._log is not None
        self._failed = True  # cleared on success
        self._log.checkpoint()
        try:
            self._super.mark(recovery=False)
        except DeviceError as error:
            raise CheckpointError(error) from error
        self._in_use = self._failed = False

    def abandon(self) -> None:
        """Close without a commit: unsynced changes are lost."""
        try:
            if self.usable and self._in_use:
                self._end_use()
        finally:
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
