"""Static metadata of a planned image: superblock, group descriptors, bitmaps, resize inode, journal superblock.

All of it follows from the plan; emit.py writes it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..constants import (
    DEFAULT_MOUNT_ACL,
    DEFAULT_MOUNT_XATTR_USER,
    ERRORS_CONTINUE,
    EXT3_MAGIC,
    EXTRA_ISIZE,
    FIRST_INO,
    FLAGS_SIGNED_HASH,
    GOOD_INODE_SIZE,
    JBD_MAGIC,
    JOURNAL_BACKUP_BLOCKS,
    JOURNAL_INO,
    STATE_VALID,
    Compat,
    HashVersion,
    Incompat,
    JournalBlock,
    RoCompat,
)
from ..format.block_map import Pointers
from ..format.jbd_schema import JOURNAL_SUPERBLOCK
from ..format.resize_inode import resize_blocks
from ..format.schema import GROUP_DESC, SUPERBLOCK
from .plan import Plan, hash_seed_words

__all__ = ["Metadata"]

Array64 = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]


class Metadata:
    """Static metadata of one plan, packed."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        geometry = plan.geometry
        self._used = plan.space.used_per_run(plan.used, geometry.columns.free_counts)
        gaps = plan.space.blocks(plan.gaps) if len(plan.gaps) else np.zeros(0, np.int64)
        self._gap_groups = (gaps - geometry.first_data_block) // geometry.blocks_per_group
        self._gap_bits = (gaps - geometry.first_data_block) % geometry.blocks_per_group
        self._free_blocks = geometry.columns.free_counts - self._used
        np.add.at(self._free_blocks, self._gap_groups, 1)
        first = np.arange(geometry.groups, dtype=np.int64) * geometry.inodes_per_group
        self._used_inodes = np.clip(plan.demand.inodes - first, 0, geometry.inodes_per_group)

    def descriptors(self) -> bytes:
        """The group descriptor table, without padding to a block."""
        plan, geometry = self.plan, self.plan.geometry
        table = GROUP_DESC.zeros(geometry.groups)
        table["bg_block_bitmap"] = geometry.columns.block_bitmap
        table["bg_inode_bitmap"] = geometry.columns.inode_bitmap
        table["bg_inode_table"] = geometry.columns.inode_table
        table["bg_free_blocks_count"] = self._free_blocks
        table["bg_free_inodes_count"] = geometry.inodes_per_group - self._used_inodes
        directory_inos = plan.demand.inos[plan.demand.directories.nodes].astype(np.int64)
        table["bg_used_dirs_count"] = np.bincount((directory_inos - 1) // geometry.inodes_per_group, minlength=geometry.groups)
        return table.tobytes()

    def bitmaps(self) -> Iterator[tuple[int, bytes]]:
        """Yield (block number, block bitmap and inode bitmap) of each group."""
        geometry = self.plan.geometry
        block_patterns: dict[tuple[int, int], bytes] = {}
        inode_patterns: dict[int, bytes] = {}
        with_gaps = set(self._gap_groups.tolist())
        heads = (geometry.columns.group_overhead + self._used).tolist()
        rows = zip(
            heads,
            geometry.columns.group_blocks.tolist(),
            self._used_inodes.tolist(),
            geometry.columns.block_bitmap.tolist(),
            strict=True,
        )
        for group, (head, count, inodes, block) in enumerate(rows):
            blocks = block_patterns.get((head, count))
            if blocks is None:
                blocks = block_patterns[head, count] = self._pattern(head, count)
            if group in with_gaps:
                bits = np.unpackbits(np.frombuffer(blocks, np.uint8), bitorder="little")
                bits[self._gap_bits[self._gap_groups == group]] = 0
                blocks = np.packbits(bits, bitorder="little").tobytes()
            inode_bits = inode_patterns.get(inodes)
            if inode_bits is None:
                inode_bits = inode_patterns[inodes] = self._pattern(inodes, geometry.inodes_per_group)
            yield block, blocks + inode_bits

    def _pattern(self, used: int, count: int) -> bytes:
        """Return a bitmap block of ``used`` set bits, clear ones up to ``count``, then set padding as e2fsck expects."""
        bits = np.zeros(self.plan.geometry.block_size * 8, np.uint8)
        bits[:used] = 1
        bits[count:] = 1
        return np.packbits(bits, bitorder="little").tobytes()

    def superblock(self, group: int = 0) -> bytes:
        """Return the 1024 bytes of the primary superblock, or of the copy in a backup group."""
        plan, geometry, stamp = self.plan, self.plan.geometry, self.plan.stamp
        table = SUPERBLOCK.zeros()
        row = table[0]
        row["s_inodes_count"] = geometry.inodes
        row["s_blocks_count"] = geometry.blocks
        row["s_r_blocks_count"] = geometry.reserved_blocks
        row["s_free_blocks_count"] = plan.free_blocks
        row["s_free_inodes_count"] = plan.free_inodes
        row["s_first_data_block"] = geometry.first_data_block
        row["s_log_block_size"] = row["s_log_frag_size"] = geometry.log_block_size
        row["s_blocks_per_group"] = row["s_frags_per_group"] = geometry.blocks_per_group
        row["s_inodes_per_group"] = geometry.inodes_per_group
        row["s_wtime"] = row["s_lastcheck"] = row["s_mkfs_time"] = stamp.seconds & 0xFFFFFFFF
        row["s_max_mnt_count"] = -1
        row["s_magic"] = EXT3_MAGIC
        # Only the primary has the VALID bit.
        row["s_state"] = 0 if group else STATE_VALID
        row["s_block_group_nr"] = min(group, 0xFFFF)  # as mke2fs writes it
        row["s_errors"] = ERRORS_CONTINUE
        row["s_rev_level"] = 1
        row["s_first_ino"] = FIRST_INO
        row["s_inode_size"] = geometry.inode_size
        compat = Compat.EXT_ATTR | Compat.DIR_INDEX
        if geometry.resize_inode:
            compat |= Compat.RESIZE_INODE
            row["s_reserved_gdt_blocks"] = geometry.reserved_gdt_blocks
        if plan.journal:
            compat |= Compat.HAS_JOURNAL
            self._journal_fields(row)
        row["s_feature_compat"] = compat
        row["s_feature_incompat"] = Incompat.FILETYPE
        row["s_feature_ro_compat"] = RoCompat.SPARSE_SUPER | RoCompat.LARGE_FILE
        row["s_uuid"] = np.void(stamp.uuid)
        row["s_volume_name"] = np.void(plan.options.label.ljust(16, b"\0"))
        row["s_hash_seed"] = hash_seed_words(stamp)
        row["s_def_hash_version"] = HashVersion.HALF_MD4
        row["s_flags"] = FLAGS_SIGNED_HASH
        row["s_default_mount_opts"] = DEFAULT_MOUNT_XATTR_USER | DEFAULT_MOUNT_ACL
        if geometry.inode_size > GOOD_INODE_SIZE:
            row["s_min_extra_isize"] = row["s_want_extra_isize"] = EXTRA_ISIZE
        overhead = int(geometry.columns.group_overhead.sum()) + geometry.first_data_block + plan.journal_blocks
        row["s_overhead_clusters"] = overhead
        return table.tobytes()

    def _journal_fields(self, row: np.void) -> None:
        plan = self.plan
        assert plan.journal is not None
        row["s_journal_inum"] = JOURNAL_INO
        row["s_jnl_backup_type"] = JOURNAL_BACKUP_BLOCKS
        size = plan.journal_blocks * plan.geometry.block_size
        row["s_jnl_blocks"][:15] = plan.journal.pack_inode()
        row["s_jnl_blocks"][15:] = (size >> 32, size & 0xFFFFFFFF)

    def journal_superblock(self, sequence: int) -> bytes:
        """Return the superblock (1024 bytes) of an empty journal whose next transaction is ``sequence``."""
        plan = self.plan
        table = JOURNAL_SUPERBLOCK.zeros()
        row = table[0]
        row["h_magic"] = JBD_MAGIC
        row["h_blocktype"] = JournalBlock.SUPERBLOCK_V2
        row["s_blocksize"] = plan.geometry.block_size
        row["s_maxlen"] = plan.journal_blocks
        row["s_first"] = 1
        row["s_sequence"] = sequence
        row["s_nr_users"] = 1
        row["s_uuid"] = np.void(plan.stamp.uuid)
        return table.tobytes()

    def resize_blocks(self) -> Iterator[tuple[int, list[Pointers]]]:
        """Yield (block number, pointers) of the resize inode's map and of the reserved descriptor blocks."""
        plan = self.plan
        if plan.resize_map_at is not None:
            yield from resize_blocks(plan.geometry, plan.space.block(plan.resize_map_at))
