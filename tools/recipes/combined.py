"""Recipes of several faults together, of unusual but possible images, and of large amounts of damage."""

from __future__ import annotations

import random
import struct

import numpy as np

from ..damage import Damage, Debugfs, Recipe

__all__ = ["RECIPES"]

FAR = 99_999
SIZE_OF_RANDOM = 40


def _every_file(field: str, value: object, *, under: bytes = b"") -> object:
    """Step that sets a field of all inodes below a directory."""

    def change(damage: Damage) -> None:
        for path, entry in damage.fs.walk():
            if path.startswith(under):
                damage.set(f"inode[{entry.ino}].{field}", value)

    return change


def _symlinks_without_directory(damage: Damage) -> None:
    """The names of /htree become symlinks, and the directory is cleared."""
    for entry in damage.fs.scandir("/htree"):
        if entry.name in (b".", b".."):
            continue
        target = b"target of " + entry.name
        damage.set(f"inode[{entry.ino}].i_mode", 0o120777)
        damage.set(f"inode[{entry.ino}].i_size", len(target))
        damage.set(f"inode[{entry.ino}].i_block", target)
    damage.debugfs("clri <{number[/htree]}>\nunlink htree")


def _short_lost_and_found(damage: Damage) -> None:
    """lost+found has a single block."""
    for logical in range(1, damage.get("inode[/lost+found].i_size") // damage.size):
        damage.set(f"used.block[{damage.block_of('/lost+found', logical)}]", 0)
        damage.set(f"map[/lost+found:{logical}]", 0)
    damage.set("inode[/lost+found].i_size", damage.size)
    damage.set("inode[/lost+found].i_blocks", damage.size // 512)


def _free(damage: Damage) -> list[int]:
    """Return the free blocks."""
    used = np.concatenate([damage.fs.block_bitmap(group) for group in range(len(damage.fs.groups))])
    first = damage.superblock.first_data_block
    return (np.flatnonzero(~used[: damage.superblock.blocks_count - first]) + first).tolist()


def _all_used(damage: Damage) -> None:
    """The bitmaps say that no block is free."""
    for block in _free(damage):
        damage.set(f"used.block[{block}]", 1)


def _no_space(damage: Damage) -> None:
    """One file takes all free blocks, and two others share a block."""
    free = _free(damage)
    pointers = damage.size // 4
    blocks = list(free)
    double, count = blocks.pop(), len(free)
    tables = [blocks.pop() for _ in range(-(-len(blocks) // (pointers + 1)))]
    for index, table in enumerate(tables):
        part = blocks[12 + index * pointers :][:pointers]
        damage.set(f"block[{table}]", struct.pack(f"<{len(part)}I", *part).ljust(damage.size, b"\0"))
    damage.set(f"block[{double}]", struct.pack(f"<{len(tables) - 1}I", *tables[1:]).ljust(damage.size, b"\0"))
    for index, block in enumerate([*blocks[:12], tables[0], double]):
        damage.set(f"inode[/empty].i_block[{index}]", block)
    damage.set("inode[/empty].i_size", len(blocks) * damage.size)
    damage.set("inode[/empty].i_blocks", count * (damage.size // 512))
    for block in free:
        damage.set(f"used.block[{block}]", 1)
    for group in range(len(damage.fs.groups)):
        damage.set(f"group[{group}].bg_free_blocks_count", 0)
    damage.set("super.s_free_blocks_count", 0)
    damage.set("map[/twin:0]", "map[/file:0]")


def _random_inodes(seed: int) -> object:
    """Step that fills inodes with random bytes."""

    def fill(damage: Damage) -> None:
        chance = random.Random(seed)
        for _ in range(SIZE_OF_RANDOM):
            ino = chance.randrange(11, damage.superblock.inodes_count)
            damage.set(f"byte[{damage.inode_offset(ino)}]", chance.randbytes(damage.superblock.inode_size))

    return fill


def _random_fields(seed: int) -> object:
    """Step that changes random fields of inodes in use."""
    names = ["i_mode", "i_size", "i_dtime", "i_links_count", "i_blocks", "i_block[0]", "i_block[5]", "i_block[12]", "i_file_acl",
             "i_size_high", "i_faddr", "i_flags"]  # fmt: skip

    def fill(damage: Damage) -> None:
        chance = random.Random(seed)
        inodes = [entry.ino for _, entry in damage.fs.walk()]
        for _ in range(SIZE_OF_RANDOM):
            value = chance.choice([0, 1, FAR, chance.randrange(12_000), chance.getrandbits(32) & ~0x90000000 & ~0x80000])
            damage.set(f"inode[{chance.choice(inodes)}].{chance.choice(names)}", value)

    return fill


def _random_directories(seed: int) -> object:
    """Step that writes random bytes into directories."""

    def fill(damage: Damage) -> None:
        chance = random.Random(seed)
        for name in ("/", "/dir", "/dir/sub", "/htree", "/lost+found", "/other"):
            for _, physical, count in damage.fs.data_extents(damage.ino(name)):
                for block in range(physical, physical + count):
                    at = chance.randrange(damage.size - 8)
                    damage.set(f"block[{block}:{at}]", chance.randbytes(chance.choice([1, 2, 4, 8])))

    return fill


def _unsorted_attributes(damage: Damage) -> None:
    """The two entries of an attribute block change places."""
    first, second = damage.offset("xattr[/file:0].e_name_len"), damage.offset("xattr[/file:1].e_name_len")
    end = second + 16 + (damage.data[second] + 3 & ~3)
    one, two = bytes(damage.data[first:second]), bytes(damage.data[second:end])
    damage.data[first:end] = two + one


def _attributes_without_extra(damage: Damage) -> None:
    """An inode whose attributes begin at byte 128: i_extra_isize is 0, and the magic number lies in its place."""
    start = damage.offset("inode[/chr].i_extra_isize")
    damage.data[start : start + 128] = bytes(128)
    damage.data[start + 4 : start + 8] = bytes.fromhex("000002ea")


def _as_orphan(name: str, commands: str) -> object:
    """Step that runs commands and puts an inode at the head of the orphan list."""

    def put(damage: Damage) -> None:
        ino = damage.get(f"number[{name}]")
        damage.debugfs(commands)
        damage.set("super.s_last_orphan", ino)

    return put


def _hole_in_directory(damage: Damage) -> None:
    """A directory of 200 000 blocks, all but its own holes."""
    damage.set("inode[/dir].i_size", 200_000 * damage.size)


RECIPES = [
    Recipe("many-names-lost", "ext3", "300 files without a name", (_symlinks_without_directory,)),
    Recipe("many-names-lost-small", "ext2", "lost+found full: 300 files for one block", (_short_lost_and_found, _symlinks_without_directory)),
    Recipe("lost-and-found-missing-many", "ext2", "lost+found missing, 300 files for it", (Debugfs("rmdir lost+found"), _symlinks_without_directory)),
    Recipe("root-cleared-many", "ext3", "root unallocated", (("inode[/dir].i_mode", 0), Debugfs("clri <2>"))),
    Recipe("bitmaps-full", "ext3", "all blocks marked used", (_all_used,)),
    Recipe("no-space-to-clone", "ext2", "block claimed twice, no space", (_no_space,)),
    Recipe("random-inodes-1", "ext3", "inodes of random bytes", (_random_inodes(1),)),
    Recipe("random-inodes-2", "ext2", "inodes of random bytes", (_random_inodes(2),)),
    Recipe("random-inodes-3", "4k", "inodes of random bytes", (_random_inodes(3),)),
    Recipe("random-inodes-4", "bare", "inodes of random bytes", (_random_inodes(4),)),
    Recipe("random-fields-1", "ext3", "random fields of inodes", (_random_fields(1),)),
    Recipe("random-fields-2", "ext2", "random fields of inodes", (_random_fields(2),)),
    Recipe("random-fields-3", "ext3-128", "random fields of inodes", (_random_fields(3),)),
    Recipe("random-fields-4", "ext2-256", "random fields of inodes", (_random_fields(4),)),
    Recipe("random-directories-1", "ext3", "random bytes in directories", (_random_directories(1),)),
    Recipe("random-directories-2", "ext2", "random bytes in directories", (_random_directories(2),)),
    Recipe("random-directories-3", "ext2-256", "random bytes in directories", (_random_directories(3),)),
    Recipe("every-i-blocks", "ext3", "i_blocks wrong in all", (_every_file("i_blocks", 7),), apart="symlinks are kept, which e2fsck takes for damaged"),
    Recipe("every-dtime", "ext2", "dtime set in all", (_every_file("i_dtime", 1_700_000_000),)),
    Recipe("every-links", "ext3", "link count wrong in all", (_every_file("i_links_count", 9),)),
    Recipe("every-mode", "ext2", "mode zero below a directory", (_every_file("i_mode", 0, under=b"dir/"),)),
    Recipe("every-extra-isize", "ext3", "extra_isize wrong in all", (_every_file("i_extra_isize", 3),)),
    Recipe("feature-imagic", "ext2", "feature imagic_inodes", (
        ("super.s_feature_compat", lambda d: d.get("super.s_feature_compat") | 2), ("inode[/file].i_flags", 0x2000)), clean="the feature allows the flag"),
    Recipe("feature-preallocation", "ext2", "feature dir_prealloc", (
        ("super.s_feature_compat", lambda d: d.get("super.s_feature_compat") | 1),), clean="changes nothing for a check"),
    Recipe("xattr-unsorted", "ext2", "xattr block: entries not sorted", (_unsorted_attributes,), clean="the order is not looked at"),
    Recipe("ibody-without-extra", "ext3", "in-inode xattr without an extra area", (_attributes_without_extra,), clean="such inodes are good"),
    Recipe("directory-of-holes", "ext2", "directory of holes", (_hole_in_directory,)),
    Recipe("directory-size-2-gib", "ext3", "directory too big", (("inode[/dir].i_size", 0x80000000),)),
    Recipe("file-largest", "ext2", "file of the largest size", (("inode[/sparse].i_size", 0x04040000), ("inode[/sparse].i_size_high", 4)),
           clean="a hole at the end"),
    Recipe("file-too-large", "ext2", "i_size: above map max", (("inode[/sparse].i_size_high", 64),)),
    Recipe("orphan-directory", "ext3", "orphan list: an empty directory", (_as_orphan("/empty-dir", "unlink empty-dir\nsif <{number[/empty-dir]}> links_count 0"),)),
    Recipe("orphan-directory-full", "ext3", "orphan list: a directory that is not empty", (_as_orphan("/dir", "unlink dir\nsif <{number[/dir]}> links_count 0"),)),
    Recipe("orphan-rev0", "rev0", "orphan list: links 0", (_as_orphan("/file", "unlink file\nsif <{number[/file]}> links_count 0"),)),
    Recipe("orphan-truncated-middle", "ext3", "orphan list: links > 0", (("super.s_last_orphan", "number[/large]"), ("inode[/large].i_size", 100_500))),
    Recipe("orphan-truncated-zero", "4k", "orphan list: links > 0", (("super.s_last_orphan", "number[/large]"), ("inode[/large].i_size", 0))),
    Recipe("orphan-directory-truncated", "ext3", "orphan list: a directory with links", (("super.s_last_orphan", "number[/dir]"),), clean="orphans are not looked at with -n", apart="a directory keeps its attributes, which e2fsck takes away"),
    Recipe("orphan-attributes-damaged", "ext3", "orphan whose attribute block is damaged", (
        ("xattr[/file].h_magic", 0), _as_orphan("/third", "unlink third\nsif <{number[/third]}> links_count 0"))),
    Recipe("orphan-mode-zero", "ext3", "orphan of no type", (_as_orphan("/third", "unlink third\nsif <{number[/third]}> links_count 0\nsif <{number[/third]}> mode 0"),), apart="its blocks are freed with the inode, which e2fsck leaves for later"),
    Recipe("orphan-shares-block", "ext3", "orphan whose block is another file's", (
        ("map[/third:1]", "map[/file:1]"), _as_orphan("/third", "unlink third\nsif <{number[/third]}> links_count 0"))),
    Recipe("group-bitmap-on-descriptors", "ext2", "bitmap over the descriptors", (("group[0].bg_inode_bitmap", 2),)),
    Recipe("group-bitmap-on-superblock-itself", "2k", "bitmap over the superblock", (("group[0].bg_block_bitmap", 0),)),
    Recipe("group-table-on-descriptors", "ext2", "inode table over the descriptors", (("group[0].bg_inode_table", 2),)),
    Recipe("group-descriptors-meta-bg", "meta_bg", "descriptor block zero", (lambda d: d.set(f"block[{d.superblock.geometry.descriptor_block(1)}]", bytes(1024)),)),
    Recipe("groups-swapped", "ext2", "descriptors of two groups swapped", (
        ("group[1].bg_inode_table", "group_backup[1:2].bg_inode_table"), ("group[2].bg_inode_table", "group_backup[1:1].bg_inode_table"))),
    Recipe("reserved-gdt-free", "ext3", "reserved descriptor blocks marked free", (
        lambda d: [d.set(f"used.block[{d.superblock.first_data_block + 2 + number}]", 0) for number in range(20)] and None,)),
    Recipe("reserved-gdt-in-file", "ext3", "reserved descriptor block in a file", (
        ("map[/file:0]", lambda d: d.superblock.first_data_block + 5),)),
    Recipe("flag-end-of-file-blocks", "ext3", "flag EOFBLOCKS", (("inode[/file].i_flags", 0x400000),), clean="not looked at"),
    Recipe("flag-huge-file", "ext2", "flag HUGE_FILE without feature", (("inode[/file].i_flags", 0x40000),), clean="not looked at without the feature"),
    Recipe("flag-attribute-inode", "ext3", "flag EA_INODE without feature", (("inode[/file].i_flags", 0x200000),), clean="not looked at without the feature"),
    Recipe("flag-casefold", "ext3", "flag CASEFOLD without feature", (("inode[/dir].i_flags", 0x40000000),)),
    Recipe("flag-encrypt", "ext3", "flag ENCRYPT without feature", (("inode[/file].i_flags", 0x800),)),
    Recipe("flag-verity", "ext3", "flag VERITY without feature", (("inode[/file].i_flags", 0x100000),), clean="not looked at without the feature"),
    Recipe("device-attributes", "ext3", "attributes of a device", (
        ("inode[/chr].i_file_acl", "inode[/file].i_file_acl"), ("inode[/chr].i_blocks", 2), ("xattr[/file].h_refcount", lambda d: d.get("xattr[/file].h_refcount") + 1)),
        clean="devices may have attributes"),
    Recipe("device-attributes-lost", "ext3", "attributes of a device", (
        ("inode[/chr].i_file_acl", "inode[/file].i_file_acl"), ("inode[/chr].i_links_count", 3))),
    Recipe("lost-directory-file-type", "ext3", "directory without parent, file_type wrong", (
        ("entry[/dir:..].file_type", 1), ("entry[/dir/sub:..].file_type", 5), Debugfs("unlink dir"))),
    Recipe("bad-blocks-table", "ext2", "bad block in an inode table", (
        ("inode[1].i_block[0]", lambda d: d.get("group[1].bg_inode_table") + 2), ("inode[1].i_blocks", 2), ("inode[1].i_size", 1024))),
    Recipe("bad-blocks-superblock", "ext2", "bad block is the superblock", (("inode[1].i_block[0]", 1), ("inode[1].i_blocks", 2), ("inode[1].i_size", 1024))),
    Recipe("bad-blocks-backup", "ext2", "bad block is a superblock copy", (("inode[1].i_block[0]", 2049), ("inode[1].i_blocks", 2), ("inode[1].i_size", 1024)), clean="copies are written elsewhere then"),
    Recipe("bad-blocks-indirect", "ext2", "bad-blocks inode, illegal indirect block", (
        ("inode[1].i_block[12]", FAR), ("inode[1].i_block[3]", 0xFFFFFFF0), ("inode[1].i_blocks", 8), ("inode[1].i_size", 50_000))),
    Recipe("bad-blocks-journal", "ext3", "bad block in the journal", (("inode[1].i_block[0]", "map[8:5]"), ("inode[1].i_blocks", 2), ("inode[1].i_size", 1024))),
    Recipe("journal-64bit", "ext3", "journal feature of ext4", (("journal.s_feature_incompat", 2),), clean="its numbers are read as they are", apart="a journal of ext4 is named, not read"),
    Recipe("journal-checksums", "ext3", "journal feature of ext4", (("journal.s_feature_incompat", 0x10),), apart="a journal of ext4 is named, not dropped"),
    Recipe("journal-lost-and-shared", "ext3", "journal invalid, and its blocks in a file", (
        ("map[8:5]", 0), ("super.s_jnl_backup_type", 0), ("map[/file:0]", "map[8:700]"), ("map[/twin:0]", "map[/file:1]"))),
    Recipe("other-filesystem", "bare", "superblock of another format", (("byte[0]", b"XFSB" + bytes(2044)),)),
    Recipe("groups-and-inodes", "ext3", "descriptor and inodes", (
        ("group[1].bg_inode_bitmap", 0), ("map[/file:1]", FAR), ("entry[/dir:file-2].inode", FAR), ("inode[/twin].i_links_count", 7))),
    Recipe("directory-shares-and-salvage", "ext2", "block of a directory claimed twice, and damaged", (
        ("map[/other:0]", "map[/dir:0]"), ("entry[/dir:file-2].rec_len", 3), ("inode[/dir].i_blocks", 0))),
    Recipe("names-in-two-directories", "ext3", "one block is of two directories and a file", (
        ("map[/other:0]", "map[/dir/sub:0]"), ("map[/third:0]", "map[/dir/sub:0]"))),
    Recipe("self-and-parent", "ext2", "directory that is its own parent", (("entry[/dir/sub:..].inode", "number[/dir/sub]"), ("entry[/dir:sub].inode", "number[/dir]"))),
]  # fmt: skip
