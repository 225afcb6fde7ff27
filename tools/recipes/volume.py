"""Recipes of damage to the superblock, the group descriptors, the orphan list and the resize inode."""

from __future__ import annotations

from ..damage import Damage, Debugfs, Recipe

__all__ = ["RECIPES"]

FUTURE = 4_000_000_000
HAS_JOURNAL, RESIZE_INODE, NEEDS_RECOVERY, ERROR = 0x4, 0x10, 0x4, 2
ITABLE_UNUSED = 8
"""Byte of bg_itable_unused in bg_reserved."""


def _without(feature: int, word: str = "compat") -> tuple[str, object]:
    return f"super.s_feature_{word}", lambda damage: damage.get(f"super.s_feature_{word}") & ~feature


def _with(feature: int, word: str = "compat") -> tuple[str, object]:
    return f"super.s_feature_{word}", lambda damage: damage.get(f"super.s_feature_{word}") | feature


def _unused_tables(damage: Damage) -> None:
    offset = damage.offset("group[1].bg_flags")
    damage.data[offset + 2 + ITABLE_UNUSED : offset + 4 + ITABLE_UNUSED] = b"\x20\0"


def _orphans(*names: str, following: int | str = 0) -> tuple[object, ...]:
    """Steps that unlink files and put them on the orphan list, the first at its head; ``following`` is behind the last."""
    commands = "".join(f"unlink {name}\nsif <{{number[{name}]}}> links_count 0\n" for name in names)

    def listed(damage: Damage) -> None:
        numbers = [damage.get(f"number[{name}]") for name in names]
        damage.debugfs(commands)
        damage.set("super.s_last_orphan", numbers[0])
        end = numbers[names.index(following)] if isinstance(following, str) else following
        for number, other in zip(numbers, [*numbers[1:], end], strict=True):
            damage.set(f"inode[{number}].i_dtime", other)

    return (listed,)


def _truncated_orphan(damage: Damage) -> None:
    damage.set("super.s_last_orphan", "number[/large]")
    damage.set("inode[/large].i_size", 5000)


RECIPES = [
    # superblock
    Recipe("super-inodes-count", "ext3", "inodes_count != ipg*groups", (("super.s_inodes_count", 700),)),
    Recipe("super-magic", "wide", "magic bad", (("super.s_magic", 0),)),
    Recipe("super-zero", "wide", "magic bad", (("byte[1024]", bytes(1024)),)),
    Recipe("super-zero-4k", "4k", "magic bad, no backup", (("byte[1024]", bytes(1024)),)),
    Recipe("super-zero-groups", "wide", "superblock and descriptors zero", (("byte[1024]", bytes(2048)),)),
    Recipe("super-zero-small-groups", "ext3", "superblock zero, backup in an unusual place", (("byte[1024]", bytes(1024)),)),
    Recipe("super-log-block-size", "wide", "log size <= 6", (("super.s_log_block_size", 9),)),
    Recipe("super-blocks-per-group-zero", "wide", "bpg limits", (("super.s_blocks_per_group", 0),)),
    Recipe("super-blocks-per-group", "wide", "bpg inconsistent", (("super.s_blocks_per_group", 4000),)),
    Recipe("super-inodes-per-group", "ext3", "ipg limits", (("super.s_inodes_per_group", 60_000),)),
    Recipe("super-blocks-per-group-small-groups", "ext3", "bpg inconsistent", (("super.s_blocks_per_group", 4000),)),
    Recipe("super-reserved-blocks", "wide", "r_blocks <= blocks/2", (("super.s_r_blocks_count", 9000),)),
    Recipe("super-reserved-blocks-above", "wide", "r_blocks > blocks", (("super.s_r_blocks_count", 19000),)),
    Recipe("super-reserved-gdt", "ext3", "reserved_gdt <= bs/4", (("super.s_reserved_gdt_blocks", 300),)),
    Recipe("super-inode-size", "wide", "inode size pow2", (("super.s_inode_size", 200),)),
    Recipe("super-inode-size-zero", "wide", "inode size pow2", (("super.s_inode_size", 0),)),
    Recipe("super-first-ino", "wide", "first_ino 11..", (("super.s_first_ino", 5),)),
    Recipe("super-first-ino-large", "wide", "first_ino 11..", (("super.s_first_ino", 5000),)),
    Recipe("super-larger-than-device", "ext3", "fs larger than device", (("super.s_blocks_count", 12290),)),
    Recipe("super-first-data-block", "wide", "first_data_block wrong", (("super.s_first_data_block", 0),)),
    Recipe("super-first-data-block-4k", "4k", "first_data_block wrong", (("super.s_first_data_block", 1),)),
    Recipe("super-min-extra-isize", "ext3", "min_extra_isize out of range", (("super.s_min_extra_isize", 7),)),
    Recipe("super-want-extra-isize", "ext3", "want_extra_isize out of range", (("super.s_want_extra_isize", 5000),)),
    Recipe("super-uuid", "ext3", "UUID all zero", (("super.s_uuid", bytes(16)),), clean="a new one is made, without a word"),
    Recipe("super-revision-0", "ext2", "rev 0 with features", (("super.s_rev_level", 0),), clean="set without a word"),
    Recipe("super-mount-time", "ext3", "last mount time in future", (("super.s_mtime", FUTURE),)),
    Recipe("super-write-time", "ext3", "last write time in future", (("super.s_wtime", FUTURE),)),
    Recipe("super-lastcheck", "ext3", "lastcheck in the future", (("super.s_lastcheck", FUTURE), ("super.s_checkinterval", 86400)),
           clean="a full check sets s_lastcheck anyway"),
    Recipe("super-hash-flag", "ext3", "dirhash flag missing with dir_index", (("super.s_flags", 0),), clean="set without a word"),
    Recipe("super-state-error", "ext3", "error bit", (("super.s_state", 2),), clean="only the state says so"),
    Recipe("super-state-invalid", "ext2", "VALID cleared", (("super.s_state", 0),), clean="only the state says so"),
    Recipe("super-mount-count", "ext2", "mount count >= max", (("super.s_max_mnt_count", 3), ("super.s_mnt_count", 5)),
           clean="a reason to check, no fault"),
    Recipe("super-free-blocks", "ext3", "superblock totals", (("super.s_free_blocks_count", 17),)),
    Recipe("super-free-inodes", "ext3", "superblock totals", (("super.s_free_inodes_count", 17),)),
    Recipe("super-free-blocks-huge", "ext3", "superblock totals", (("super.s_free_blocks_count", 170_000),)),
    Recipe("super-free-inodes-huge", "ext3", "superblock totals", (("super.s_free_inodes_count", 170_000),)),
    Recipe("super-first-meta-bg", "meta_bg", "first_meta_bg too big", (("super.s_first_meta_bg", 1000),)),
    Recipe("super-creator-hurd", "ext2", "creator_os Hurd", (("super.s_creator_os", 1),), clean="a number only"),
    Recipe("super-desc-size", "ext3", "desc size without 64bit", (("super.s_desc_size", 64),), clean="only read with 64bit"),
    Recipe("super-resize-and-meta-bg", "meta_bg", "resize_inode together with meta_bg", (_with(RESIZE_INODE),)),
    Recipe("super-reserved-gdt-without", "ext3", "reserved_gdt != 0 without resize_inode", (_without(RESIZE_INODE),)),
    Recipe("super-reserved-gdt-zero", "ext3", "resize inode without reserved blocks", (("super.s_reserved_gdt_blocks", 0),)),
    Recipe("super-error-log", "ext3", "error log", (("super.s_error_log", b"\1\0\0\0" + b"\1\2\3\4" * 26),), clean="a record, no fault"),
    Recipe("backup-features", "wide", "feature words differ from a backup superblock", (("backup[1].s_feature_compat", 0),), clean="a reason to check"),
    Recipe("backup-zero", "wide", "backup unusable", (("backup[1].s_magic", 0),), clean="backups are read when they are needed"),
    Recipe("backup-blocks-count", "ext2", "backup differs", (("backup[1].s_blocks_count", 7000),), clean="written again where features differ"),
    Recipe("backup-group-descriptors", "ext2", "backup differs", (("group_backup[1:0].bg_block_bitmap", 7000),), clean="not compared"),
    # group descriptors
    Recipe("group-block-bitmap-zero", "ext3", "bitmap outside its group", (("group[1].bg_block_bitmap", 0),)),
    Recipe("group-block-bitmap-far", "ext3", "bitmap outside its group", (("group[1].bg_block_bitmap", 99_999),)),
    Recipe("group-block-bitmap-other", "ext3", "bitmap outside its group", (("group[1].bg_block_bitmap", 600),)),
    Recipe("group-inode-bitmap-far", "ext3", "bitmap outside its group", (("group[2].bg_inode_bitmap", 0xFFFFFFFF),)),
    Recipe("group-inode-bitmap-zero", "ext2", "bitmap outside its group", (("group[1].bg_inode_bitmap", 0),)),
    Recipe("group-inode-table-far", "ext3", "inode table outside its group", (("group[2].bg_inode_table", 99_999),)),
    Recipe("group-inode-table-zero", "ext2", "inode table outside its group", (("group[3].bg_inode_table", 0),)),
    Recipe("group-inode-table-end", "ext2", "inode table runs out of its group", (("group[3].bg_inode_table", 8190),)),
    Recipe("group-all-zero", "ext3", "all descriptors zero", (("block[2]", bytes(96)),)),
    Recipe("group-bitmaps-same", "ext3", "metadata block conflicts", (("group[1].bg_block_bitmap", "group[1].bg_inode_bitmap"),)),
    Recipe("group-bitmap-in-table", "ext3", "metadata block conflicts", (("group[1].bg_block_bitmap", lambda d: d.get("group[1].bg_inode_table") + 3),)),
    Recipe("group-tables-overlap", "ext2", "metadata block conflicts", (("group[1].bg_inode_table", lambda d: d.get("group[1].bg_inode_bitmap") - 2),)),
    Recipe("group-bitmap-on-superblock", "ext2", "bitmap over a superblock copy", (("group[1].bg_block_bitmap", 2049),)),
    Recipe("group-bitmap-on-file", "ext2", "bitmap over a file", (("group[0].bg_block_bitmap", "map[/twin:0]"),)),
    Recipe("group-flags", "ext3", "uninit flags without csum feature", (("group[1].bg_flags", 3),)),
    Recipe("group-itable-unused", "ext3", "itable_unused non-zero without csum feature", (_unused_tables,)),
    Recipe("group-free-blocks-above", "ext3", "group counters above limits", (("group[0].bg_free_blocks_count", 60_000),)),
    Recipe("group-free-inodes-above", "ext3", "group counters above limits", (("group[1].bg_free_inodes_count", 60_000),)),
    Recipe("group-used-dirs-above", "ext3", "group counters above limits", (("group[1].bg_used_dirs_count", 60_000),)),
    # orphan list
    Recipe("orphan", "ext3", "orphan list: links 0", _orphans("/large")),
    Recipe("orphans", "ext3", "orphan list: links 0", _orphans("/third", "/twin", "/slow", "/chr", "/empty")),
    Recipe("orphans-ext2", "ext2", "orphan list without a journal", _orphans("/third", "/large")),
    Recipe("orphan-truncated", "ext3", "orphan list: links > 0", (_truncated_orphan,)),
    Recipe("orphan-truncated-sparse", "ext2", "orphan list: links > 0", (("super.s_last_orphan", "number[/sparse]"), ("inode[/sparse].i_size", 3))),
    Recipe("orphan-head-range", "ext3", "orphan list head out of range", (("super.s_last_orphan", 99_999),), clean="orphans are not looked at with -n"),
    Recipe("orphan-head-reserved", "ext3", "orphan list head out of range", (("super.s_last_orphan", 5),), clean="orphans are not looked at with -n"),
    Recipe("orphan-next-range", "ext3", "orphan next out of range", _orphans("/third", "/twin", following=99_999)),
    Recipe("orphan-loop", "ext3", "orphan list is a loop", _orphans("/third", "/twin", following="/third")),
    Recipe("orphan-illegal-block", "ext3", "orphan with an illegal block", (("map[/third:1]", 99_999), *_orphans("/third"))),
    Recipe("orphan-error-bit", "ext3", "orphan list with the error bit", (*_orphans("/third", "/large"), ("super.s_state", 3))),
    Recipe("orphan-unlisted", "ext3", "0 < dtime < inode count", (Debugfs("unlink /third\nsif <{number[/third]}> links_count 0\nsif <{number[/third]}> dtime 77"),)),
    Recipe("orphan-unlisted-named", "ext2", "0 < dtime < inode count", (("inode[/third].i_dtime", 77),)),
    # resize inode
    Recipe("resize-double-indirect-zero", "ext3", "resize inode pointers wrong", (("inode[7].i_block[13]", 0),)),
    Recipe("resize-double-indirect-wrong", "ext3", "resize inode pointers wrong", (("inode[7].i_block[13]", "map[/file:0]"),)),
    Recipe("resize-double-indirect-far", "ext2", "resize inode pointers wrong", (("inode[7].i_block[13]", 99_999),)),
    Recipe("resize-pointer", "ext3", "resize inode pointers wrong", (lambda d: d.set(f"pointer[{d.get('inode[7].i_block[13]')}:5]", 900),)),
    Recipe("resize-copies", "ext2", "resize inode pointers wrong", (lambda d: d.set(f"pointer[{d.get('super.s_first_data_block') + 2}:0]", 900),)),
    Recipe("resize-direct", "ext3", "resize inode pointers wrong", (("inode[7].i_block[0]", 900),)),
    Recipe("resize-mode", "ext3", "resize inode not regular", (("inode[7].i_mode", 0o40755),)),
    Recipe("resize-cleared", "ext3", "resize inode pointers wrong", (lambda d: d.set(f"byte[{d.inode_offset(7)}]", bytes(128)),)),
    Recipe("resize-links", "ext3", "resize inode links", (("inode[7].i_links_count", 3),), clean="not looked at"),
    Recipe("resize-size", "ext3", "resize inode size", (("inode[7].i_size", 3),)),
    Recipe("resize-blocks", "ext3", "resize inode i_blocks", (("inode[7].i_blocks", 3),)),
    Recipe("resize-inode-without-feature", "bare", "inode 7 non-zero without it", (("inode[7].i_mode", 0o100600), ("inode[7].i_links_count", 1), ("inode[7].i_block[0]", "map[/file:0]"))),
]  # fmt: skip
