"""Problems of the superblock, the group descriptors, the resize inode and the orphan list.

Source of what preening does with each: e2fsprogs ``e2fsck/problem.c``.
"""

from __future__ import annotations

from ..problem import PreenAnswer, Problem

# Superblock

SUPERBLOCK_UNUSABLE = Problem(
    "superblock-unusable",
    "primary superblock: {got}; the copy in block {want} is sound",
    "write the primary superblock and descriptors from the copy",
)
SUPERBLOCK_COPY_CHOSEN = Problem(
    "superblock-copy-chosen",
    "the superblock in block {want} is used instead of the primary one, which is written from it",
    note=True,
)
DEVICE_TOO_SMALL = Problem("superblock-device-size", "superblock: s_blocks_count is {got}, want {want}", "give up")
INODES_COUNT = Problem("superblock-inodes-count", "superblock: s_inodes_count is {got}, want {want}", "set it")
INODES_PER_GROUP = Problem(
    "superblock-inodes-per-group",
    "superblock: s_inodes_per_group is {got}, which s_inodes_count contradicts",
    "set it to {want}",
)
REVISION_0 = Problem(
    "superblock-revision", "superblock: s_rev_level is 0, but there are features", "set it to 1", preen=PreenAnswer.REPAIR
)
EXTRA_ISIZE = Problem(
    "superblock-extra-isize", "superblock: {got}, want 0, or a multiple of 4 from 4 to {want}", "set it to 32"
)
QUOTA_INODE = Problem("superblock-quota-inode", "superblock: {got}, but quotas are no feature of ext3", "set it to 0")
HURD_FILETYPE = Problem(
    "superblock-hurd-filetype", "superblock: s_creator_os is the Hurd, which has no feature filetype", "clear the feature"
)
NO_UUID = Problem("superblock-no-uuid", "superblock: s_uuid is zero; a random one is set", note=True)
TIME_IN_FUTURE = Problem(
    "superblock-time-in-future", "superblock: {got}, which is in the future; it is set to the present time", note=True
)
TIME_AHEAD = Problem("superblock-time-ahead", "superblock: {got}, which is less than a day in the future", note=True)
NO_HASH_SIGN = Problem(
    "superblock-hash-sign",
    "superblock: s_flags does not say whether directory hashes use signed characters; it is set to signed",
    note=True,
)
NOT_VALID = Problem(
    "superblock-not-valid",
    "superblock: s_state is {got}, want {want}",
    "mark the filesystem as clean",
    preen=PreenAnswer.REPAIR,
    excused=True,
)
TOTALS_TOO_LARGE = Problem("superblock-totals", "superblock: {got}, want at most {want}", note=True)

# Group descriptors

LOCATION_OUTSIDE = Problem(
    "group-location", "group {group}: {got}, want it inside the group: {want}", "place it anew; what it held is lost"
)
UNINIT = Problem(
    "group-uninit",
    "group {group}: marked as not initialised ({got}), which needs a feature that is not set",
    "clear the marks",
    preen=PreenAnswer.REPAIR,
    uncounted=True,
)
COUNTERS_TOO_LARGE = Problem("group-counters", "group {group}: {got}, want at most {want}", note=True)

# Resize inode

RESERVED_BLOCKS = Problem(
    "resize-reserved-blocks", "superblock: s_reserved_gdt_blocks is {got} without the feature resize_inode", "set it to 0"
)
RESIZE_INODE_UNUSED = Problem(
    "resize-inode-unused", "inode {ino}: the resize inode has blocks without the feature resize_inode", "clear it"
)
RESIZE_INODE = Problem("resize-inode", "inode {ino}: {got}, want {want}", "make the resize inode anew")
RESIZE_WITH_META_BG = Problem(
    "resize-inode-meta-bg", "superblock: the features resize_inode and meta_bg exclude each other", "clear resize_inode"
)
RESIZE_NO_SPACE = Problem("resize-inode-no-space", "no free block for the map of the resize inode")

# Orphan list

ORPHAN_DELETED = Problem("orphan-deleted", "inode {ino}: orphan of {got} bytes, to be deleted", note=True)
ORPHAN_CUT = Problem("orphan-truncated", "inode {ino}: orphan, to be truncated to {got} bytes", note=True)
ORPHAN_LIST = Problem(
    "orphan-list", "orphan list: {got}", "drop the rest of the list, and check everything", preen=PreenAnswer.REPAIR
)
