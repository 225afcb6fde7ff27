"""State of an ext3 filesystem, from its superblock: clean, to be replayed, to be checked, in the middle of a resize.

Read without the schemas of the ext3 library: a run asks this at every start.
Sources: Linux ``fs/ext4/ext4.h``; of an interrupted resize ``overlay.unfinished_resize``.
"""

from __future__ import annotations

from typing import NamedTuple

from ext3 import hostio

from ...packed_struct import U16, U32, PackedStruct

__all__ = ["EXT_MAGIC", "GROUP_DESC", "SUPERBLOCK", "SUPERBLOCK_OFFSET", "Ext3State", "is_ext3", "magic_of", "read_state"]

SUPERBLOCK_OFFSET = 1024
SUPERBLOCK = PackedStruct(
    "start of the superblock of ext2, ext3 and ext4",
    264,
    s_inodes_count=U32,
    s_blocks_count=U32,
    s_r_blocks_count=U32,
    s_free_blocks_count=U32,
    s_free_inodes_count=U32,
    s_first_data_block=U32,
    s_log_block_size=U32,
    s_log_cluster_size=U32,
    s_blocks_per_group=U32,
    s_clusters_per_group=U32,
    s_inodes_per_group=U32,
    s_times=12,
    s_magic=U16,
    s_state=U16,
    s_settings=16,
    s_rev_level=U32,
    s_owner_and_first_ino=8,
    s_inode_size=U16,
    s_block_group_nr=U16,
    s_feature_compat=U32,
    s_feature_incompat=U32,
    s_feature_ro_compat=U32,
    s_names=98,
    s_prealloc=4,
    s_reserved_gdt_blocks=U16,
    s_journal=52,
    s_first_meta_bg=U32,
)
GROUP_DESC = PackedStruct(
    "group descriptor",
    32,
    bg_block_bitmap=U32,
    bg_inode_bitmap=U32,
    bg_inode_table=U32,
    bg_free_blocks_count=U16,
    bg_free_inodes_count=U16,
    bg_used_dirs_count=U16,
    bg_rest=14,
)
EXT_MAGIC = 0xEF53
HAS_JOURNAL = 0x4
RECOVER, META_BG = 0x4, 0x10
EXT3_INCOMPAT = 0x2 | RECOVER | META_BG
"""filetype, recover, meta_bg: what the kernel's ext3 and Apptainer accept."""
EXT3_RO_COMPAT = 0x1 | 0x2 | 0x4
SPARSE_SUPER = 0x1
VALID, ERROR = 1, 2
LARGEST_LOG_BLOCK_SIZE = 6
RESIZED = (
    "s_blocks_count",
    "s_inodes_count",
    "s_reserved_gdt_blocks",
    "s_first_meta_bg",
    "s_feature_compat",
    "s_feature_incompat",
)
"""Fields of the first copy of the superblock that a resize changes last."""


class Ext3State(NamedTuple):
    """State of a filesystem.

    ``needs_recovery``: its journal is to be replayed. ``needs_check``: it was not unmounted cleanly in a way that the journal
    does not mend, or errors were found in it. ``may_be_resized``: a resize was interrupted, or may have been. ``inodes``: those
    that it has room for.
    """

    needs_recovery: bool = False
    needs_check: bool = False
    may_be_resized: bool = False
    inodes: int = 0

    @property
    def is_clean(self) -> bool:
        return not (self.needs_recovery or self.needs_check or self.may_be_resized)


def magic_of(head: bytes) -> int:
    """Return the magic number of the superblock in the first bytes of a filesystem; 0 if there are too few."""
    if len(head) < SUPERBLOCK_OFFSET + SUPERBLOCK.size:
        return 0
    return int(SUPERBLOCK.read(head, SUPERBLOCK_OFFSET)["s_magic"])


def is_ext3(head: bytes) -> bool:
    """Return True if a filesystem that begins with ``head`` is one that Apptainer takes as ext3."""
    if magic_of(head) != EXT_MAGIC:
        return False
    found = SUPERBLOCK.read(head, SUPERBLOCK_OFFSET)
    unknown = found["s_feature_incompat"] & ~EXT3_INCOMPAT or found["s_feature_ro_compat"] & ~EXT3_RO_COMPAT
    return bool(found["s_feature_compat"] & HAS_JOURNAL) and not unknown


def read_state(fd: int, offset: int = 0) -> Ext3State:
    """Return the state of the filesystem at ``offset`` of an open file. Raises OSError.

    What has no valid superblock counts as clean: whoever opens it says what is wrong.
    """
    raw = hostio.read_at(fd, offset + SUPERBLOCK_OFFSET, SUPERBLOCK.size)
    if len(raw) < SUPERBLOCK.size:
        return Ext3State()
    found = SUPERBLOCK.read(raw)
    if found["s_magic"] != EXT_MAGIC or found["s_log_block_size"] > LARGEST_LOG_BLOCK_SIZE:
        return Ext3State()
    needs_recovery = bool(found["s_feature_incompat"] & RECOVER)
    return Ext3State(
        needs_recovery=needs_recovery,
        needs_check=found["s_state"] & (VALID | ERROR) != VALID,
        may_be_resized=_may_be_resized(fd, offset, found, needs_recovery=needs_recovery),
        inodes=found["s_inodes_count"],
    )


def _may_be_resized(fd: int, offset: int, found: dict[str, int], *, needs_recovery: bool) -> bool:
    block_size = 1024 << found["s_log_block_size"]
    first, per_group = found["s_first_data_block"], found["s_blocks_per_group"]
    if found["s_blocks_count"] - first <= per_group:  # one group, of which there is no copy
        raw = hostio.read_at(fd, offset + (first + 1) * block_size, GROUP_DESC.size)
        return len(raw) == GROUP_DESC.size and found["s_free_blocks_count"] > GROUP_DESC.read(raw)["bg_free_blocks_count"]
    raw = hostio.read_at(fd, offset + (first + per_group) * block_size, SUPERBLOCK.size)
    if len(raw) < SUPERBLOCK.size:
        return False
    copy = SUPERBLOCK.read(raw)
    if copy["s_magic"] != EXT_MAGIC:
        return False
    ignored = RECOVER if needs_recovery else 0  # only the primary superblock says so
    differs = any(copy[name] != found[name] for name in RESIZED if name != "s_feature_incompat")
    return (
        bool(copy["s_state"] & ERROR) or differs or bool((copy["s_feature_incompat"] ^ found["s_feature_incompat"]) & ~ignored)
    )
