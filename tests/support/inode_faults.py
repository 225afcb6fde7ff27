"""Faults of inodes: damage to the sample image of ``fsck_inodes``, and what pass 1 finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ext3.constants import BAD_INO, JOURNAL_INO, RESIZE_INO, ROOT_INO, S_IFDIR, S_IFIFO, S_IFREG, Compat, InodeFlag

from .fsck_inodes import BLOCK, Inodes, sample

__all__ = ["BAD", "CASES", "damaged", "fields"]

Damage = Callable[[Inodes], None]


def fields(name: str | int, **values: Any) -> Damage:
    """Damage that sets fields of INODE_CORE."""

    def damage(image: Inodes) -> None:
        image.set_inode(name if isinstance(name, int) else image[name], **values)

    return damage


def extra(name: str, **values: int) -> Damage:
    def damage(image: Inodes) -> None:
        for field, value in values.items():
            image.extra(image[name])[field] = value

    return damage


def flag(name: str | int, value: int) -> Damage:
    def damage(image: Inodes) -> None:
        ino = name if isinstance(name, int) else image[name]
        image.core(ino)["i_flags"] |= np.uint32(value)

    return damage


def late(name: str, field: str) -> Damage:
    """A time before 1970 with both epoch bits."""

    def damage(image: Inodes) -> None:
        row = image.extra(image[name]) if field == "i_crtime" else image.core(image[name])
        row[field] = 0x80000001
        image.extra(image[name])[field + "_extra"] |= np.uint32(3)

    return damage


def pointer(name: str, slot: int, block: int) -> Damage:
    def damage(image: Inodes) -> None:
        image.core(image[name])["i_block"][slot] = block

    return damage


def together(*damages: Damage) -> Damage:
    def damage(image: Inodes) -> None:
        for one in damages:
            one(image)

    return damage


def without(feature: Compat) -> Damage:
    def damage(image: Inodes) -> None:
        image.set_super(s_feature_compat=image.superblock.compat & ~feature)

    return damage


def special_like_directory(image: Inodes) -> None:
    image.set_inode(image["dir"], i_mode=S_IFIFO | 0o755)


NOTHING: list[str] = []
SIZE, COUNT = "inode-size", "inode-blocks-count"
CASES: dict[str, tuple[Damage, list[str]]] = {
    "root is a file": (fields(ROOT_INO, i_mode=S_IFREG | 0o755), ["root-not-directory"]),
    "reserved inode with a mode": (fields(9, i_mode=S_IFREG), ["reserved-inode-mode"]),
    "boot loader that is a directory": (fields(5, i_mode=S_IFDIR), ["reserved-inode-mode"]),
    "boot loader with a mode": (fields(5, i_mode=S_IFREG), NOTHING),
    "resize inode is a fifo": (fields(RESIZE_INO, i_mode=S_IFIFO), ["reserved-inode-mode", COUNT]),
    "bad blocks inode with links": (fields(BAD_INO, i_links_count=1), ["bad-blocks-inode"]),
    "bad block outside": (fields(BAD_INO, i_block=[1 << 30] + [0] * 14), ["bad-block-illegal"]),
    "unused journal inode": (fields(JOURNAL_INO, i_links_count=1), ["journal-inode-unused"]),
    "deleted without a time": (fields("small", i_links_count=0), ["inode-zero-dtime"]),
    "in use with a time": (fields("small", i_dtime=1_700_000_000), ["inode-set-dtime"]),
    "rest of an orphan list": (fields("small", i_dtime=12), ["inode-low-dtime"]),
    "rest of an orphan list, deleted": (fields("small", i_dtime=12, i_links_count=0), ["inode-low-dtime"]),
    "imagic": (flag("small", InodeFlag.IMAGIC), ["inode-imagic-flag"]),
    "encrypt": (flag("small", 0x800), ["inode-encrypt-flag"]),
    "casefold": (flag("dir", 0x40000000), ["inode-casefold-flag"]),
    "other flags of ext4": (flag("small", 0x100000 | 0x200 | 0x4), NOTHING),
    "immutable device": (flag("char", InodeFlag.IMMUTABLE), ["inode-immutable-special"]),
    "append-only symlink": (flag("short", InodeFlag.APPEND), ["inode-immutable-special"]),
    "immutable file": (flag("small", InodeFlag.IMMUTABLE), NOTHING),
    "special file with a size": (fields("fifo", i_size=7), ["inode-special-size"]),
    "special file with a high size": (fields("fifo", i_size_high=7), ["inode-special-size"]),
    "extra size too small": (extra("small", i_extra_isize=2), ["inode-extra-isize"]),
    "extra size too large": (extra("small", i_extra_isize=132), ["inode-extra-isize"]),
    "extra size odd": (extra("empty", i_extra_isize=33), ["inode-extra-isize"]),
    "extra size of the whole inode": (extra("empty", i_extra_isize=128), NOTHING),
    "epoch of atime": (late("small", "i_atime"), ["inode-time-epoch"]),
    "epoch of crtime": (late("small", "i_crtime"), ["inode-time-epoch"]),
    "index on a file": (flag("small", InodeFlag.INDEX), ["index-flag-not-directory"]),
    "index without the feature": (
        together(flag("dir", InodeFlag.INDEX), without(Compat.DIR_INDEX)),
        ["index-flag-no-feature"],
    ),
    "directory with another mode": (special_like_directory, ["inode-is-directory"]),
    "pointer outside": (pointer("small", 1, 1 << 30), ["inode-illegal-block", COUNT]),
    "pointer to block 0 of 1K blocks": (pointer("small", 12, 5_000_000), ["inode-illegal-block"]),
    "symlink with a second block": (pointer("long", 1, 19_000), ["symlink-too-big"]),
    "file shorter than its blocks": (fields("small", i_size=2000), [SIZE]),
    "file that ends in its last block": (fields("small", i_size=2048), NOTHING),
    "file longer than its blocks": (fields("small", i_size=1 << 30), NOTHING),
    "file longer than a map": (fields("small", i_size=0, i_size_high=1 << 10), [SIZE]),
    "directory with half a block": (fields("dir", i_size=1500), [SIZE]),
    "directory shorter than its blocks": (fields("dir", i_size=BLOCK), [SIZE]),
    "directory with high size": (fields("dir", i_size_high=1), [SIZE]),
    "directory with a high size beyond 32 bits of blocks": (fields("dir", i_size_high=1 << 10), NOTHING),
    "directory without blocks": (fields("dir", i_block=[0] * 15), ["directory-no-blocks"]),
    "blocks": (fields("small", i_blocks=8), [COUNT]),
    "blocks of a fifo": (fields("fifo", i_blocks=2), [COUNT]),
    "blocks of a short symlink": (fields("short", i_blocks=2), [COUNT]),
    "blocks of a long symlink": (fields("long", i_blocks=0), [COUNT]),
    "attribute block outside": (fields("empty", i_file_acl=1 << 30), NOTHING),
    "attribute block without the feature": (without(Compat.EXT_ATTR), [COUNT, COUNT]),
    "fragment address": (fields("small", i_faddr=1), NOTHING),
    "high blocks": (fields("small", i_blocks_high=1), NOTHING),
    "unknown mode": (fields("empty", i_mode=0o117003), NOTHING),
}
BAD = {
    "attribute block outside": "empty",
    "fragment address": "small",
    "high blocks": "small",
    "unknown mode": "empty",
    "directory with a high size beyond 32 bits of blocks": "dir",
}
"""Cases that are judged when the name is known."""


def damaged(name: str) -> Inodes:
    image = sample()
    CASES[name][0](image)
    return image
