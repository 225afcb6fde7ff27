"""Geometry: the layout that follows from a superblock, and the choice of one for a new filesystem. Pure arithmetic.

``Geometry`` describes any filesystem: groups, backups, descriptor blocks, inode tables. ``plan_geometry`` chooses as
mke2fs does for the same request (tests compare the two). Source of the rules: e2fsprogs
``misc/mke2fs.c``, ``lib/ext2fs/initialize.c`` and ``lib/ext2fs/closefs.c``; Linux ``fs/ext4/super.c`` (descriptor_loc),
``fs/ext4/balloc.c`` (ext4_bg_has_super, ext4_bg_num_gdb).
Units: blocks unless a name says bytes; group numbers start at 0, inode numbers at 1.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from ..constants import FIRST_INO, MAX_BLOCK_SIZE, MIN_BLOCK_SIZE, MIN_INODE_SIZE, MIN_JOURNAL_BLOCKS, POINTER_SIZE
from ..defaults import default_block_size, default_inode_ratio
from ..errors import GeometryError
from .schema import GROUP_DESC

if TYPE_CHECKING:
    from .geometry_columns import GeometryColumns

__all__ = ["Geometry", "plan_geometry", "reserved_share"]

MIB, TIB = 1 << 20, 1 << 40

MIN_LAST_GROUP_BLOCKS = 50
"""Fewest data blocks of a last group; the blocks of a smaller one stay unused behind the filesystem."""
MIN_BLOCKS_PER_GROUP = 248
"""Fewest blocks of groups that are made smaller to have room for their inodes; mke2fs stops here."""
RESERVED_GROWTH = 1024
"""Growth factor that descriptor blocks are reserved for."""

SPARSE_GROUPS = frozenset({0, 1} | {base**power for base in (3, 5, 7) for power in range(1, 21) if base**power < 1 << 32})
"""Groups with a superblock under sparse_super: 0, which has the primary, 1, and the powers of 3, 5 and 7."""


def backup_groups(groups: int) -> list[int]:
    """Return which of ``groups`` groups hold a superblock backup under sparse_super."""
    return sorted(group for group in SPARSE_GROUPS if 0 < group < groups)


def first_data_block(block_size: int) -> int:
    """Return the block that holds the primary superblock: group 0 begins there."""
    return 1 if block_size == MIN_BLOCK_SIZE else 0


def group_count(blocks: int, first: int, per_group: int) -> int:
    """Count the groups of ``per_group`` blocks from block ``first`` to the end of ``blocks``; the last may be shorter."""
    return -(-(blocks - first) // per_group)


def table_blocks(inodes: int, inode_size: int, block_size: int) -> int:
    """Count the blocks of a table of so many inodes."""
    return -(-inodes * inode_size // block_size)


def descriptor_blocks(groups: int, block_size: int) -> int:
    """Count the blocks of the descriptors of so many groups."""
    return -(-groups // (block_size // GROUP_DESC.size))


def reserved_share(reserved: int, of_blocks: int, blocks: int) -> int:
    """Return how many of ``blocks`` are reserved for root if ``reserved`` of ``of_blocks`` were: the same share.

    One block is not rounded away, since fuse2fs takes 0 for a tenth of the filesystem; more than half is not allowed.
    """
    return min(blocks // 2, max(min(1, reserved), reserved * blocks // of_blocks))


class _Fields(NamedTuple):
    """Numbers that the rest of a geometry follows from."""

    block_size: int
    blocks: int
    first_data_block: int
    blocks_per_group: int
    inodes_per_group: int
    inode_size: int
    reserved_gdt_blocks: int
    reserved_blocks: int
    resize_inode: bool
    sparse_super: bool = True
    first_meta_bg: int | None = None


class Geometry(_Fields):
    """Fixed layout of one filesystem. ``first_meta_bg``: the first descriptor block that lies in a group it describes
    (meta_bg), None if all of them follow the superblock. Where bitmaps and inode tables lie, the descriptors say; the
    places here are those of a fresh filesystem without meta_bg.
    """

    @cached_property
    def groups(self) -> int:
        return group_count(self.blocks, self.first_data_block, self.blocks_per_group)

    @cached_property
    def inodes(self) -> int:
        return self.inodes_per_group * self.groups

    @property
    def size_bytes(self) -> int:
        return self.blocks * self.block_size

    @property
    def log_block_size(self) -> int:
        """Block size as stored in the superblock: log2(block size / 1024)."""
        return (self.block_size // MIN_BLOCK_SIZE).bit_length() - 1

    @cached_property
    def inode_table_blocks(self) -> int:
        """Number of blocks of one group's inode table."""
        return table_blocks(self.inodes_per_group, self.inode_size, self.block_size)

    @property
    def descriptors_per_block(self) -> int:
        return self.block_size // GROUP_DESC.size

    @cached_property
    def descriptor_blocks(self) -> int:
        return descriptor_blocks(self.groups, self.block_size)

    @property
    def leading_descriptor_blocks(self) -> int:
        """Number of descriptor blocks that follow the superblock contiguously."""
        return self.descriptor_blocks if self.first_meta_bg is None else min(self.descriptor_blocks, self.first_meta_bg)

    @property
    def pointers_per_block(self) -> int:
        return self.block_size // POINTER_SIZE

    def has_super(self, group: int) -> bool:
        """Return whether a group begins with a superblock: the primary or a copy."""
        return not self.sparse_super or group in SPARSE_GROUPS

    @cached_property
    def backup_groups(self) -> list[int]:
        """Groups with a backup of the superblock and the descriptors, without group 0."""
        return backup_groups(self.groups) if self.sparse_super else list(range(1, self.groups))

    @property
    def leading_backup_groups(self) -> list[int]:
        """Groups with a backup of the descriptors that follow the primary superblock: all ``backup_groups`` but for meta_bg."""
        if self.first_meta_bg is None:
            return self.backup_groups
        return [group for group in self.backup_groups if group < self.first_meta_bg * self.descriptors_per_block]

    def descriptor_block(self, index: int, copy: int = 0) -> int:
        """Return the block that holds descriptor block ``index`` (0 = groups 0 to descriptors_per_block - 1).

        ``copy``: a backup group, to get the block of its copy; with meta_bg, that of the second group described there.
        """
        if self.first_meta_bg is None or index < self.first_meta_bg:
            return self.first_data_block + copy * self.blocks_per_group + 1 + index
        group = index * self.descriptors_per_block
        if copy and group + 1 < self.groups:
            group += 1
        return self.first_data_block + group * self.blocks_per_group + self.has_super(group)

    def descriptor_copies(self, index: int) -> list[int]:
        """Return the blocks that hold backups of descriptor block ``index``."""
        if self.first_meta_bg is None or index < self.first_meta_bg:
            return [self.descriptor_block(index, group) for group in self.leading_backup_groups]
        first = index * self.descriptors_per_block
        groups = [group for group in (first + 1, first + self.descriptors_per_block - 1) if group < self.groups]
        return [self.first_data_block + group * self.blocks_per_group + self.has_super(group) for group in groups]

    def first_block(self, group: int) -> int:
        """Return the first block of a group."""
        return self.first_data_block + group * self.blocks_per_group

    def block_count(self, group: int) -> int:
        """Return the number of blocks of a group: the same in all but the last."""
        return min(self.blocks_per_group, self.blocks - self.first_block(group))

    def head_count(self, group: int) -> int:
        """Return the number of blocks of superblock, descriptors and reserved descriptors of a group."""
        has_super = self.has_super(group)
        if self.first_meta_bg is None:
            return (1 + self.descriptor_blocks + self.reserved_gdt_blocks) if has_super else 0
        index, place = divmod(group, self.descriptors_per_block)
        if index < self.first_meta_bg:
            return (1 + self.leading_descriptor_blocks) if has_super else 0
        return has_super + (place <= 1 or place == self.descriptors_per_block - 1)

    def overhead(self, group: int) -> int:
        """Return the number of blocks of static metadata of a group."""
        return self.head_count(group) + 2 + self.inode_table_blocks

    @cached_property
    def free_blocks(self) -> int:
        """Number of blocks that are not static metadata."""
        heads = (0, *self.backup_groups) if self.first_meta_bg is None else range(self.groups)  # no other group has one
        others = self.groups * (2 + self.inode_table_blocks)
        return self.blocks - self.first_data_block - sum(map(self.head_count, heads)) - others

    @cached_property
    def columns(self) -> GeometryColumns:
        """The same of all groups, as numpy columns; the first use loads numpy."""
        from .geometry_columns import GeometryColumns

        return GeometryColumns(self)

    def group_of_inode(self, ino: int) -> tuple[int, int]:
        """Return (group, index in its table) of an inode."""
        return divmod(ino - 1, self.inodes_per_group)

    def locate_inode(self, ino: int) -> tuple[int, int, int]:
        """Return (group, block of its table, byte in that block) of an inode's record."""
        group, index = divmod(ino - 1, self.inodes_per_group)
        block, byte = divmod(index * self.inode_size, self.block_size)
        return group, block, byte


def plan_geometry(
    size_bytes: int,
    *,
    block_size: int | None = None,
    inode_size: int = 256,
    inodes: int | None = None,
    inode_ratio: int | None = None,
    reserved_percent: float = 0.0,
    reserved_blocks: int | None = None,
    resize_inode: bool = True,
) -> Geometry:
    """Return the geometry mke2fs gives a filesystem of ``size_bytes`` (what is not a whole block is left unused).

    ``reserved_blocks`` (a count, for root) overrides ``reserved_percent``, ``inodes`` (a count) overrides ``inode_ratio``
    (bytes per inode). Raise GeometryError if there is none.
    """
    if block_size is None:
        block_size = default_block_size(size_bytes)
    if block_size not in (1024, 2048, 4096):
        raise GeometryError(f"block size {block_size} is not 1024, 2048 or 4096", field="block_size")
    if inode_size & (inode_size - 1) or not MIN_INODE_SIZE <= inode_size <= block_size:
        raise GeometryError(
            f"inode size {inode_size} is not a power of two from {MIN_INODE_SIZE} to the block size {block_size}",
            field="inode_size",
            least=MIN_INODE_SIZE,
            most=block_size,
        )
    if not 0 <= reserved_percent <= 50:
        raise GeometryError(f"reserved percentage {reserved_percent:g} is not from 0 to 50", field="reserved_percent", most=50)
    if inode_ratio is not None and not MIN_BLOCK_SIZE <= inode_ratio <= 64 * MIB:
        raise GeometryError(
            f"{inode_ratio} bytes per inode is not from {MIN_BLOCK_SIZE} to {64 * MIB}",
            field="inode_ratio",
            least=MIN_BLOCK_SIZE,
            most=64 * MIB,
        )
    if inode_ratio is not None and inode_ratio < block_size:
        # More than one inode per block could never be used up.
        inode_ratio = block_size
    blocks = size_bytes // block_size
    if blocks >= 2**32:
        raise GeometryError(
            f"{size_bytes} bytes are too many blocks of {block_size} for ext3",
            field="size",
            most=(2**32 - 1) * block_size,
        )
    first = first_data_block(block_size)
    wanted = inodes if inodes is not None else blocks * block_size // (inode_ratio or default_inode_ratio(size_bytes))
    if inodes is None:
        wanted = max(1, wanted)
    if wanted < 1 or wanted >= 2**32:
        raise GeometryError(
            f"{wanted} inodes: the count must be from 1 to {2**32 - 1}", field="inodes", least=1, most=2**32 - 1
        )
    reserved = int(reserved_percent * blocks / 100) if reserved_blocks is None else min(reserved_blocks, blocks // 2)
    per_group, all_blocks = 8 * block_size, blocks
    smallest = _smallest_bytes(block_size, inode_size, wanted)
    while True:
        if blocks <= first:
            raise GeometryError(f"{size_bytes} bytes are too few for an ext3 filesystem", field="size", least=smallest)
        groups = group_count(blocks, first, per_group)
        per_group_inodes = -(-wanted // groups)
        if per_group_inodes > 8 * block_size:
            # A group's inodes must fit one bitmap block: make groups smaller by multiples of 8, and plan with all blocks again.
            enough = -(-wanted // (8 * block_size))
            per_group = min(per_group - 8, (all_blocks - first - 1) // (enough - 1) // 8 * 8)
            if per_group < MIN_BLOCKS_PER_GROUP:
                raise GeometryError(f"{wanted} inodes are too many for {size_bytes} bytes", field="inodes")
            blocks = all_blocks
            continue
        per_group_inodes = _whole_table(per_group_inodes, groups, block_size, inode_size)
        reserved_gdt = 0
        if resize_inode:
            reserved_gdt = _reserved_gdt(blocks, per_group, block_size)
            if reserved_gdt + descriptor_blocks(groups, block_size) > per_group * 3 // 4:
                raise GeometryError(
                    f"{size_bytes} bytes in blocks of {block_size} need too many group descriptors for ext3",
                    field="block_size",
                    least=MAX_BLOCK_SIZE,
                )
        geometry = Geometry(
            block_size=block_size,
            blocks=blocks,
            first_data_block=first,
            blocks_per_group=per_group,
            inodes_per_group=per_group_inodes,
            inode_size=inode_size,
            reserved_gdt_blocks=reserved_gdt,
            reserved_blocks=reserved,
            resize_inode=resize_inode,
        )
        if geometry.overhead(0) > per_group:
            raise GeometryError(
                f"{wanted} inodes in {size_bytes} bytes: the inode tables leave no room",
                field="inodes",
            )
        overhead = geometry.overhead(groups - 1)
        rest = (blocks - first) % per_group
        if groups == 1 and rest and rest < overhead:
            raise GeometryError(f"{size_bytes} bytes are too few for an ext3 filesystem", field="size", least=smallest)
        if rest and rest < overhead + MIN_LAST_GROUP_BLOCKS and groups > 1:
            share = 100 * reserved / blocks
            blocks -= rest
            if reserved_blocks is None:
                reserved = int(share * blocks / 100)
            continue
        return geometry


def _whole_table(count: int, groups: int, block_size: int, inode_size: int) -> int:
    """Return inodes per group, at least ``count``, so that a table fills whole blocks and a bitmap whole bytes."""
    limit = 65536 - block_size // inode_size  # free counts are 16 bit
    while True:
        whole = table_blocks(min(count, limit), inode_size, block_size)
        fitted = min(max(8, whole * block_size // inode_size) & ~7, 8 * block_size)
        if fitted * groups > FIRST_INO:
            return fitted
        count += 8


def _reserved_gdt(blocks: int, per_group: int, block_size: int) -> int:
    first = first_data_block(block_size)
    most = 0xFFFFFFFF if blocks >= 0xFFFFFFFF // RESERVED_GROWTH else blocks * RESERVED_GROWTH
    now, later = (descriptor_blocks(group_count(count, first, per_group), block_size) for count in (blocks, most))
    return min(later - now, block_size // 4)


def _smallest_bytes(block_size: int, inode_size: int, inodes: int) -> int:
    """Return a size in bytes that holds a filesystem of one group with the smallest journal; for errors."""
    metadata = 64 + table_blocks(inodes, inode_size, block_size) + block_size // 4
    return -(-(metadata + 2 * MIN_JOURNAL_BLOCKS) * block_size // MIB) * MIB
