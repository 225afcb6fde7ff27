"""Recipes of damage to the tree of directories, link counts, bitmaps and counts."""

from __future__ import annotations

from ..damage import Damage, Debugfs, Recipe

__all__ = ["RECIPES"]

LOST = "/lost+found"


def _lost_and_found_full(damage: Damage) -> None:
    """lost+found whose blocks are full of names of one file, and a directory without a name."""
    import struct

    ino, size = damage.get("number[/file]"), damage.size
    blocks = damage.get(f"inode[{LOST}].i_size") // size
    for logical in range(blocks):
        start = damage.block_of(LOST, logical) * size
        at = 24 if not logical else 0
        if not logical:
            struct.pack_into("<H", damage.data, start + 12 + 4, 12)
        number = 0
        while at < size:
            length = 252 if at + 252 + 12 <= size else size - at
            name = f"{logical:02}-{number}-".encode().ljust(min(244, length - 8), b"f")
            struct.pack_into("<IHBB", damage.data, start + at, ino, length, len(name), 1)
            damage.data[start + at + 8 : start + at + 8 + len(name)] = name
            at += length
            number += 1
    damage.debugfs("unlink third")


def _flip(first: int, count: int, kind: str, value: int) -> object:
    def flip(damage: Damage) -> None:
        for number in range(first, first + count):
            damage.set(f"used.{kind}[{number}]", value)

    return flip


def _bitmap(group: int, kind: str, byte: bytes) -> object:
    return lambda d: d.set(f"block[{d.get(f'group[{group}].bg_{kind}_bitmap')}]", byte * d.size)


def _padding(group: int, kind: str) -> object:
    """The bits behind the last block or inode become zero."""

    def clear(damage: Damage) -> None:
        start = damage.get(f"group[{group}].bg_{kind}_bitmap") * damage.size
        bits = damage.superblock.inodes_per_group if kind == "inode" else damage.superblock.blocks_per_group
        damage.data[start + bits // 8 + 1 : start + damage.size] = bytes(damage.size - bits // 8 - 1)

    return clear


def _used(name: str, value: int) -> object:
    return lambda d: d.set(f"used.inode[{d.get(f'number[{name}]')}]", value)


def _lost_bits(damage: Damage) -> None:
    for logical in range(20, 40):
        damage.set(f"used.block[{damage.block_of('/large', logical)}]", 0)


RECIPES = [
    # tree
    Recipe("directory-without-parent", "ext2", "directory without parent", (Debugfs("unlink dir"),)),
    Recipe("directories-without-parent", "ext3", "directory without parent", (Debugfs("unlink dir\nunlink other\nunlink empty-dir"),)),
    Recipe("directory-loop", "ext2", "loop of directories", (
        ("entry[/dir:..].inode", "number[/dir/sub/deep]"), Debugfs("cd dir/sub/deep\nln <{number[/dir]}> up\ncd /\nunlink dir")), apart="e2fsck does not see such a loop and leaves it out of the tree"),
    Recipe("directory-own-child", "ext2", "loop of directories", (
        Debugfs("cd dir/sub/deep\nln <{number[/dir]}> up\ncd /\nunlink dir"),)),
    Recipe("lost-and-found-missing", "ext2", "lost+found missing", (Debugfs("rmdir lost+found"),), clean="not made with -n"),
    Recipe("lost-and-found-missing-lost", "ext3", "lost+found missing", (Debugfs("rmdir lost+found\nunlink third\nunlink dir"),)),
    Recipe("lost-and-found-unlinked", "ext2", "lost+found missing", (Debugfs("unlink lost+found"),)),
    Recipe("lost-and-found-file", "ext2", "lost+found not a directory", (Debugfs("rmdir lost+found\nln third lost+found\nunlink third\nunlink twin"),)),
    Recipe("lost-and-found-mode", "ext3", "lost+found not a directory", ((f"inode[{LOST}].i_mode", 0o100644), Debugfs("unlink third"))),
    Recipe("lost-and-found-full", "ext2", "lost+found full", (_lost_and_found_full,)),
    Recipe("lost-and-found-cleared", "ext3", "lost+found cleared", (Debugfs("clri <{number[/lost+found]}>\nunlink third"),)),
    Recipe("lost-and-found-taken", "ext2", "name in lost+found taken", (
        Debugfs("cd lost+found\nln <{number[/file]}> #{number[/third]}\ncd /\nsif file links_count 3\nunlink third"),)),
    Recipe("root-and-lost", "ext3", "root unallocated", (Debugfs("clri <2>\nclri <{number[/lost+found]}>"),)),
    Recipe("deep-lost", "deep", "directory without parent", (Debugfs("unlink htree"),)),
    # link counts and files without names
    Recipe("links-large", "ext2", "link count differs", (("inode[/twin].i_links_count", 5),)),
    Recipe("links-small", "ext2", "link count differs", (("inode[/file].i_links_count", 1),)),
    Recipe("links-directory", "ext3", "link count differs", (("inode[/dir].i_links_count", 9),)),
    Recipe("links-root", "ext3", "link count differs", (("inode[2].i_links_count", 1),)),
    Recipe("links-65535", "ext3", "link count differs", (("inode[/dir].i_links_count", 65535),)),
    Recipe("file-without-name", "ext2", "other used inode with 0 links", (Debugfs("unlink third"),)),
    Recipe("files-without-name", "ext3", "other used inode with 0 links", (Debugfs("unlink third\nunlink slow\nunlink chr\nunlink sock\nunlink fifo"),)),
    Recipe("empty-file-without-name", "ext2", "regular with no blocks", (Debugfs("unlink empty"),)),
    Recipe("fast-symlink-without-name", "ext2", "symlink with no blocks", (Debugfs("unlink fast"),)),
    Recipe("attribute-file-without-name", "ext3", "no blocks, but in-inode xattr", (
        Debugfs("ea_set empty user.k v\nunlink empty"),)),
    # bitmaps
    Recipe("block-bitmap-lost-bits", "ext2", "block bitmap difference", (_lost_bits,)),
    Recipe("block-bitmap-more-bits", "ext2", "block bitmap difference", (_flip(7000, 20, "block", 1),)),
    Recipe("block-bitmap-zero", "ext3", "block bitmap difference", (_bitmap(0, "block", b"\0"),)),
    Recipe("block-bitmap-ones", "ext3", "block bitmap difference", (_bitmap(1, "block", b"\xff"),)),
    Recipe("block-bitmap-last-zero", "ext3", "block bitmap difference", (_bitmap(2, "block", b"\0"),)),
    Recipe("inode-bitmap-zero", "ext2", "inode bitmap difference", (_bitmap(0, "inode", b"\0"),)),
    Recipe("inode-bitmap-ones", "ext3", "inode bitmap difference", (_bitmap(1, "inode", b"\xff"),)),
    Recipe("inode-bitmap-lost-bit", "ext3", "inode bitmap difference", (_used("/file", 0),)),
    Recipe("inode-bitmap-directory", "ext3", "inode bitmap difference", (_used("/dir", 0),)),
    Recipe("inode-bitmap-more", "ext2", "inode bitmap difference", (_flip(600, 9, "inode", 1),)),
    Recipe("inode-bitmap-reserved", "ext2", "inode bitmap difference", (_flip(5, 3, "inode", 0),)),
    Recipe("padding-blocks", "ext3", "bitmap padding bits not ones", (_padding(2, "block"),)),
    Recipe("padding-inodes", "ext2", "bitmap padding bits not ones", (_padding(1, "inode"),)),
    Recipe("bitmaps-both-zero", "4k", "bitmaps zero", (_bitmap(0, "block", b"\0"), _bitmap(0, "inode", b"\0"))),
    Recipe("bitmaps-meta-bg", "meta_bg", "bitmaps zero", (_bitmap(35, "block", b"\0"), _bitmap(36, "inode", b"\0"))),
    Recipe("bitmap-rev0", "rev0", "bitmaps zero", (_bitmap(0, "block", b"\0"), _bitmap(1, "inode", b"\0"))),
    # counts
    Recipe("count-free-blocks", "ext2", "group free block count", (("group[1].bg_free_blocks_count", 5),)),
    Recipe("count-free-inodes", "ext2", "group free inode count", (("group[1].bg_free_inodes_count", 5),)),
    Recipe("count-directories", "ext2", "group directory count", (("group[0].bg_used_dirs_count", 77),)),
    Recipe("count-all", "ext3", "all counts", (
        ("group[0].bg_free_blocks_count", 5), ("group[0].bg_free_inodes_count", 5), ("group[2].bg_used_dirs_count", 7),
        ("super.s_free_blocks_count", 10), ("super.s_free_inodes_count", 10))),
]  # fmt: skip
