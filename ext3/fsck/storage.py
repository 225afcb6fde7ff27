"""Repair storage: the image with the repairs made so far, which are kept in memory and written out in a safe order.

The order: the superblock loses VALID; new and copied blocks; inodes and directories; bitmaps and descriptors; backups; the
superblock last. Every step is synced before the next, so that a kill at any write leaves an image that is marked as unchecked,
and that a second check repairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from .. import hostio
from ..constants import EXT3_MAGIC, SECTOR, STATE_VALID, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ..device.base import BlockDevice, data_ranges
from ..device.block_overlay import BlockOverlay
from ..errors import DeviceError
from ..format.schema import SUPERBLOCK
from ..journal.transaction import write_blocks

__all__ = ["RepairStorage", "Stage"]

MEMORY_BYTES = 64 << 20
"""Changed blocks in memory above which they are written out at the next safe point."""


class Stage(IntEnum):
    """Order in which changed blocks are written."""

    NEW = 0
    """Blocks that nothing on storage refers to yet."""
    FILES = 1
    """Inode tables, directories, pointer blocks, attribute blocks, the journal."""
    MAPS = 2
    """Bitmaps and group descriptors."""
    BACKUPS = 3
    """Copies of superblock and descriptors."""


class RepairStorage:
    """BlockDevice over ``base`` whose writes stay in memory until ``flush``.

    The superblock is a block like any other, but it is always written last. Writes that are safe by themselves may go to
    ``base`` directly, while nothing is pending.
    """

    def __init__(self, base: BlockDevice, block_size: int) -> None:
        self.base = base
        self.block_size = block_size
        self.blocks: dict[int, bytes] = {}
        self._stages: dict[int, Stage] = {}
        self._overlay = BlockOverlay(base, block_size, self.blocks, self.blocks.__getitem__)
        self._super_block = SUPERBLOCK_OFFSET // block_size
        self.flushed = False
        """True if something was written to ``base``."""

    @property
    def size(self) -> int:
        return self.base.size

    @property
    def pending(self) -> bool:
        return bool(self.blocks)

    @property
    def large(self) -> bool:
        """True if the changes take so much memory that they should be written out."""
        return len(self.blocks) * self.block_size > MEMORY_BYTES

    def read(self, offset: int, size: int) -> bytes:
        return self._overlay.read(offset, size)

    def read_block(self, block: int) -> bytes:
        return self._overlay.read(block * self.block_size, self.block_size)

    def data_ranges(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, size) of the parts of a range that hold data, ascending; gaps read as zero."""
        block_size, end = self.block_size, offset + size
        changed = sorted(b for b in self.blocks if offset < (b + 1) * block_size and b * block_size < end)
        if not changed:
            yield from data_ranges(self.base, offset, size)
            return
        parts = [*data_ranges(self.base, offset, size)]
        parts += [(max(offset, b * block_size), min(end, (b + 1) * block_size) - max(offset, b * block_size)) for b in changed]
        parts.sort()
        low, high = parts[0][0], parts[0][0] + parts[0][1]
        for start, length in parts[1:]:
            if start > high:
                yield low, high - low
                low = start
            high = max(high, start + length)
        yield low, high - low

    def write_block(self, block: int, data: bytes, stage: Stage = Stage.FILES) -> None:
        """Change a whole block. A block keeps the earliest stage that it was given."""
        if len(data) != self.block_size:
            raise ValueError(f"{len(data)} bytes are not a block of {self.block_size}")
        if (block + 1) * self.block_size > self.base.size or block < 0:
            raise DeviceError(f"block {block} lies outside of the image")
        self.blocks[block] = bytes(data)
        before = self._stages.get(block)
        self._stages[block] = stage if before is None else min(stage, before)

    def write(self, offset: int, data: bytes | bytearray | memoryview, stage: Stage = Stage.FILES) -> None:
        """Change any bytes."""
        view = memoryview(data)
        while view:
            block, start = divmod(offset, self.block_size)
            count = min(len(view), self.block_size - start)
            whole = bytearray(self.read_block(block))
            whole[start : start + count] = view[:count]
            self.write_block(block, bytes(whole), stage)
            offset += count
            view = view[count:]

    def make_zero(self, offset: int, size: int) -> None:
        self.write(offset, bytes(size))

    def sync(self) -> None:
        """Do nothing: ``flush`` writes."""

    def discard(self) -> None:
        """Forget the changes that are in memory."""
        self.blocks.clear()
        self._stages.clear()

    def flush(self, *, final: bool) -> None:
        """Write the changes out, in order. Not ``final``: the superblock on storage stays as it was, without VALID.

        Signals that would end the program wait until it is done.
        """
        if self.blocks:
            with hostio.signals_deferred():
                self._flush(final=final)

    def _flush(self, *, final: bool) -> None:
        superblock = self.blocks.pop(self._super_block, None)
        self.flushed = True
        self._clear_valid()
        for stage in Stage:
            some = {block: data for block, data in self.blocks.items() if self._stages[block] is stage}
            if some:
                write_blocks(self.base, some, self.block_size)
                self.base.sync()
        self.discard()
        if superblock is None:
            return
        if final:
            self.base.write(self._super_block * self.block_size, superblock)
            self.base.sync()
        else:
            self.blocks[self._super_block] = superblock
            self._stages[self._super_block] = Stage.MAPS

    def _clear_valid(self) -> None:
        """Mark the image on storage as unchecked."""
        if self.base.size < SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE:
            return
        raw = bytearray(self.base.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE))
        row = SUPERBLOCK.view(raw)[0]
        if row["s_magic"] != EXT3_MAGIC or not row["s_state"] & STATE_VALID:
            return
        row["s_state"] &= ~STATE_VALID & 0xFFFF
        self.base.write(SUPERBLOCK_OFFSET, bytes(raw[:SECTOR]))
        self.base.sync()
