"""Transactions of a resize: blocks, bitmaps, descriptors and superblock, changed together through the journal.

Which blocks and inodes are taken and freed is decided by the plan; here nothing is chosen. The log is empty after each
transaction. ``switch`` changes the geometry, which no transaction may do: the kernel fixes its number of groups before it
replays. Without a journal, or where it is not to be used, the changes are written in place, and the image is marked as not
clean until ``settle``: it has to be a private copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..constants import SECTOR, STATE_VALID, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ..device.base import BlockDevice
from ..edit.opening import Opened
from ..errors import CorruptError
from ..format.bitmap import FREE, USED, GroupBitmap
from ..format.group_desc import Groups
from ..format.inode_table import inode_offset
from ..format.schema import SUPERBLOCK
from ..format.superblock import Superblock, parse_superblock, set_needs_recovery, write_superblock
from ..journal.log import Journal
from ..journal.transaction import LogWriter, log_blocks, write_blocks
from .descriptors import pack_descriptors

if TYPE_CHECKING:
    from .scattered_changes import Numbers

__all__ = ["Transactions"]

NS = 1_000_000_000
BATCH_BYTES = 64 << 20
"""Bytes of changed blocks in one transaction that could be several."""


class Transactions:
    """Changes of the image on ``device``, committed by ``commit``. Numbers are those of blocks and inodes.

    ``superblock`` and the counts of ``groups`` are as they will be committed. After an error nothing more may be written.
    """

    def __init__(self, device: BlockDevice, opened: Opened, *, clock: Callable[[], int], journaled: bool = True) -> None:
        self.device = device
        self.journal: Journal | None = opened.journal
        self.sequence = opened.sequence
        """Number of the next transaction; 0 without a journal."""
        self.leaked = 0
        """Blocks that are marked as used and belong to nobody for now. The superblock counts them as free, so that ``finish``
        finds them after an interruption."""
        self.superblock: Superblock = opened.superblock
        self.groups = Groups(opened.groups.raw, len(opened.groups))
        self.clock = clock
        self._log: LogWriter | None = None
        if opened.journal is not None and journaled:
            self._log = LogWriter(device, opened.journal, opened.sequence)
        self._stored = device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE)
        self._fields: dict[str, Any] = {}
        self._blocks: dict[int, bytes | bytearray] = {}
        self._bitmaps: dict[str, dict[int, GroupBitmap]] = {"bg_block_bitmap": {}, "bg_inode_bitmap": {}}
        self._changed_groups: set[int] = set()
        self._in_use = False

    @property
    def block_size(self) -> int:
        return self.superblock.block_size

    @property
    def raw(self) -> bytes:
        """Superblock as it is on storage, 1024 bytes."""
        return self._stored

    # Changes

    def read(self, block: int) -> bytes:
        """Return the content of a block, with the changes of the running transaction."""
        found = self._blocks.get(block)
        return self.device.read(block * self.block_size, self.block_size) if found is None else bytes(found)

    def put(self, block: int, data: bytes | bytearray) -> None:
        """Change a whole block."""
        self._blocks[block] = data

    def patch(self, offset: int, data: bytes) -> None:
        """Change bytes of one block, at byte ``offset`` of the image."""
        block, start = divmod(offset, self.block_size)
        found = self._blocks.get(block)
        if not isinstance(found, bytearray):
            found = self._blocks[block] = bytearray(self.read(block))
        found[start : start + len(data)] = data

    def read_inode(self, ino: int) -> bytes:
        """Return the record of an inode."""
        block, start = divmod(inode_offset(self.superblock, self.groups, ino), self.block_size)
        return self.read(block)[start : start + self.superblock.inode_size]

    def write_inode(self, ino: int, record: bytes) -> None:
        """Change the record of an inode."""
        self.patch(inode_offset(self.superblock, self.groups, ino), record)

    def set_fields(self, **fields: Any) -> None:
        """Change fields of the superblock that do not change the geometry of the groups."""
        self._fields |= fields
        self._adopt(self._packed())

    def _adopt(self, raw: bytes) -> None:
        self.superblock = parse_superblock(raw, device_size=self.device.size)

    def take_run(self, blocks: range) -> None:
        """Mark a run of free blocks in one group as used. Raises CorruptError if one is in use."""
        self._change_run(blocks, FREE, USED)

    def free_run(self, blocks: range) -> None:
        """Mark a run of blocks in one group as free. Raises CorruptError if one is free already."""
        self._change_run(blocks, USED, FREE)

    def _change_run(self, blocks: range, before: int, after: int) -> None:
        if blocks:
            superblock = self.superblock
            group, index = divmod(blocks.start - superblock.first_data_block, superblock.blocks_per_group)
            bitmap = self.bitmap("bg_block_bitmap", "bg_free_blocks_count", group)
            bitmap.change(index, len(blocks), before, after)
            self.count("bg_free_blocks_count", group, len(blocks) if after == FREE else -len(blocks))

    def count(self, field: str, group: int, more: int) -> None:
        """Change a count of a group."""
        self.groups[field][group] += more
        self._changed_groups.add(group)

    def take_blocks(self, blocks: Numbers) -> None:
        """Mark free blocks, in any order, as used. Raises CorruptError if one is in use."""
        from .scattered_changes import change_blocks  # with numpy

        change_blocks(self, blocks, FREE, USED)

    def free_blocks(self, blocks: Numbers) -> None:
        """Mark blocks, in any order, as free. Raises CorruptError if one is free already."""
        from .scattered_changes import change_blocks

        change_blocks(self, blocks, USED, FREE)

    def take_inodes(self, inos: Numbers, *, directories: Numbers) -> None:
        """Mark free inodes as used; ``directories``: those of them that are directories. Raises CorruptError."""
        from .scattered_changes import change_inodes

        change_inodes(self, inos, directories, FREE, USED)

    def free_inodes(self, inos: Numbers, *, directories: Numbers) -> None:
        """Mark inodes as free. Raises CorruptError if one is free already."""
        from .scattered_changes import change_inodes

        change_inodes(self, inos, directories, USED, FREE)

    def bitmap(self, column: str, counts: str, group: int) -> GroupBitmap:
        """Return a bitmap of a group, which may be changed. Raises CorruptError if the group's count is not that of it."""
        found = self._bitmaps[column].get(group)
        if found is None:
            geometry = self.superblock.geometry
            is_blocks = column == "bg_block_bitmap"
            count = geometry.block_count(group) if is_blocks else geometry.inodes_per_group
            name = f"{'block' if is_blocks else 'inode'} bitmap of group {group}"
            found = GroupBitmap(self.read(self.groups[column][group]), count, name)
            if found.free != self.groups[counts][group]:
                raise CorruptError(f"group {group}", counts, self.groups[counts][group], found.free)
            self._bitmaps[column][group] = found
        return found

    # Commit

    @property
    def capacity(self) -> int:
        """Log blocks that a transaction may take; huge without a journal."""
        return 1 << 40 if self._log is None else self._log.capacity

    @property
    def batch_capacity(self) -> int:
        """Log blocks that a transaction of many independent steps should take: as many as the memory is meant to hold."""
        return min(self.capacity, BATCH_BYTES // self.block_size)

    @property
    def needed(self) -> int:
        """Most log blocks that the running transaction takes."""
        bitmaps = sum(map(len, self._bitmaps.values()))
        return self.blocks_needed(len(self._blocks) + bitmaps, self._changed_groups)

    def blocks_needed(self, blocks: int, groups: Iterable[int]) -> int:
        """Return the log blocks for so many changed blocks, bitmaps among them, and the descriptors of ``groups``."""
        per_block = self.superblock.geometry.descriptors_per_block
        return log_blocks(blocks + len({group // per_block for group in groups}) + 1, 0, self.block_size)

    def commit(self) -> None:
        """Commit the changes; they are on storage and in their places afterwards. Raises JournalFullError, DeviceError."""
        blocks = self._gather()
        if not blocks:
            return
        self._begin()
        place = SUPERBLOCK_OFFSET // self.block_size
        if place in blocks:
            blocks[place] = self._with_superblock(blocks[place], recovery=self._log is not None)
        if self._log is not None:
            self._log.commit(blocks, (), nanoseconds=self.clock())
            self._log.checkpoint()
            self.sequence = self._log.sequence
        else:
            write_blocks(self.device, blocks, self.block_size)
            self.device.sync()
        if place in blocks:
            start = SUPERBLOCK_OFFSET % self.block_size
            self._stored = bytes(blocks[place][start : start + SUPERBLOCK_SIZE])
            self._fields.clear()
        self._forget()

    def _forget(self) -> None:
        self._blocks = {}
        for known in self._bitmaps.values():
            known.clear()
        self._changed_groups.clear()

    def _gather(self) -> dict[int, bytes | bytearray]:
        """Return all changed blocks: the superblock among them, with a place holder, if it changed."""
        blocks, size, geometry = self._blocks, self.block_size, self.superblock.geometry
        for column, known in self._bitmaps.items():
            for group, bitmap in known.items():
                blocks[self.groups[column][group]] = bitmap.pack()
        per_block = geometry.descriptors_per_block
        for index in sorted({group // per_block for group in self._changed_groups}):
            block = geometry.descriptor_block(index)
            rows = pack_descriptors(self.groups, index * per_block, (index + 1) * per_block)
            blocks[block] = rows + self.read(block)[len(rows) :]
        row = SUPERBLOCK.at(self._stored)
        if self._fields or any(row[name] != count for name, count in self._free_counts().items()):
            place = SUPERBLOCK_OFFSET // size
            blocks[place] = self.read(place)
        return blocks

    def _free_counts(self) -> dict[str, int]:
        return {
            "s_free_blocks_count": sum(self.groups["bg_free_blocks_count"]) + self.leaked,
            "s_free_inodes_count": sum(self.groups["bg_free_inodes_count"]),
        }

    def _packed(self) -> bytes:
        """Return the superblock with the changed fields and the counts."""
        raw = bytearray(self._stored)
        row = SUPERBLOCK.at(raw)
        for name, value in (self._free_counts() | self._fields).items():
            row[name] = value
        row["s_wtime"] = self.clock() // NS & 0xFFFFFFFF
        return bytes(raw)

    def _with_superblock(self, block: bytes | bytearray, *, recovery: bool) -> bytes:
        raw = bytearray(self._packed())
        set_needs_recovery(SUPERBLOCK.at(raw), recovery)
        start = SUPERBLOCK_OFFSET % self.block_size
        return bytes(block[:start]) + raw + bytes(block[start + SUPERBLOCK_SIZE :])

    def _begin(self) -> None:
        """Mark the image before the first change: as needing recovery, or without a journal as not clean."""
        if not self._in_use:
            self._mark(used=True)

    def _mark(self, *, used: bool) -> None:
        raw = bytearray(self._stored)
        row = SUPERBLOCK.at(raw)
        if self._log is not None:
            set_needs_recovery(row, used)
        else:
            row["s_state"] = row["s_state"] & ~STATE_VALID | (0 if used else STATE_VALID)
        write_superblock(self.device, raw)
        self.device.sync()
        self._stored = bytes(raw)
        self._in_use = used

    def settle(self) -> None:
        """Commit, and clear needs_recovery: the log is empty, and nobody replays anything."""
        self.commit()
        if self._in_use and self._log is not None:
            self._mark(used=False)

    def close(self) -> None:
        """Commit, and mark the image as clean."""
        self.commit()
        if self._in_use:
            self._mark(used=False)

    def switch(self, groups: Groups, *, leaked: int, **fields: Any) -> None:
        """Change the geometry: ``fields`` of the superblock, and the counts of ``groups``, in one write of one sector.

        ``leaked``: blocks that are nobody's in the new geometry. What that needs is on storage by then; of the changes before,
        none may be left in the log.
        """
        self.settle()
        if self._log is None:
            self._begin()
        self.groups, self.leaked = groups, leaked
        self._fields = fields
        raw = self._packed()
        end = SECTOR
        if raw[end:] != self._stored[end:]:
            raise ValueError("a field of the switch lies outside of the first sector")
        write_superblock(self.device, raw)
        self.device.sync()
        self._stored = raw
        self._fields = {}
        self._adopt(raw)

    def restart_log(self, journal: Journal) -> None:
        """Go on in another journal, which is empty. The old one must be, too (``settle``)."""
        self.journal = journal
        if self._log is not None:
            self._log = LogWriter(self.device, journal, self.sequence)

    def write_fields(self, **fields: Any) -> None:
        """Change fields of the first sector of the superblock in place, outside of a transaction."""
        raw = bytearray(self._stored)
        row = SUPERBLOCK.at(raw)
        for name, value in fields.items():
            row[name] = value
        write_superblock(self.device, raw)
        self.device.sync()
        self._stored = bytes(raw)
        self._adopt(self._stored)
