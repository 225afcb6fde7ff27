"""Recipes of damage to inodes, block maps and attributes, and of blocks that have two owners."""

from __future__ import annotations

import struct

from ..damage import Damage, Debugfs, Recipe

__all__ = ["RECIPES"]

FAR = 99_999
INDEX, EXTENTS, IMAGIC, COMPRESSED, INLINE, IMMUTABLE = 0x1000, 0x80000, 0x2000, 0x4, 0x10000000, 0x10
EXTENT_MAGIC = 0xF30A


def _flag(name: str, flag: int) -> tuple[str, object]:
    return f"inode[{name}].i_flags", lambda damage: damage.get(f"inode[{name}].i_flags") | flag


def _extents(name: str, *, depth: int = 0, length: int = 5, magic: int = EXTENT_MAGIC) -> tuple[object, ...]:
    """Steps that give a contiguous file an extent tree in place of its pointers."""

    def tree(damage: Damage) -> None:
        start = damage.block_of(name, 0)
        root = struct.pack("<HHHHI", magic, 1, 4, depth, 0) + struct.pack("<IHHI", 0, length, 0, start)
        place = damage.offset(f"inode[{name}].i_block")
        damage.data[place : place + 60] = root.ljust(60, b"\0")

    return tree, _flag(name, EXTENTS)


def _copied_pointers(target: str, source: str, *logical: int) -> tuple[tuple[str, str], ...]:
    return tuple((f"map[{target}:{number}]", f"map[{source}:{number}]") for number in logical)


def _many_bad(name: str, count: int) -> tuple[tuple[str, int], ...]:
    return tuple((f"map[{name}:{number}]", FAR + number) for number in range(count))


def _self_pointing(damage: Damage) -> None:
    """An indirect block that lists itself."""
    block = damage.get("inode[/large].i_block[12]")
    damage.set(f"pointer[{block}:3]", block)


def _as_directory(damage: Damage) -> None:
    """A device whose first block holds '.' and '..'."""
    damage.set("inode[/other].i_mode", 0o020755)


def _bad_blocks(damage: Damage) -> None:
    damage.debugfs(f"sif <1> mode 0\nsif <1> block[0] {damage.get('map[/file:0]')}\nsif <1> blocks 2\nsif <1> size 1024")


def _attribute_bytes(name: str, at: int, data: bytes) -> object:
    return lambda damage: damage.set(f"block[{damage.fs.stat(damage.ino(name)).file_acl}:{at}]", data)


def _shared_attributes(damage: Damage) -> None:
    """/twin gets the attribute block of /file, whose count is not raised."""
    damage.set("inode[/twin].i_file_acl", damage.get("inode[/file].i_file_acl"))
    damage.set("inode[/twin].i_blocks", damage.get("inode[/twin].i_blocks") + damage.size // 512)


def _every_extra(damage: Damage) -> None:
    for name in ("/file", "/twin", "/third"):
        damage.set(f"inode[{name}].i_extra_isize", 200)


def _inode_table_garbage(damage: Damage) -> None:
    start = damage.inode_offset(13)
    damage.data[start : start + 3 * damage.superblock.inode_size] = bytes(range(1, 253)) * 3 + bytes(12) if (
        damage.superblock.inode_size == 256) else bytes(range(128)) * 3  # fmt: skip


RECIPES = [
    # special inodes
    Recipe("root-mode", "ext2", "root not a directory", (("inode[2].i_mode", 0o100644),)),
    Recipe("root-mode-zero", "ext3", "root not a directory", (("inode[2].i_mode", 0),)),
    Recipe("root-cleared", "ext2", "root not a directory", (Debugfs("clri <2>"),)),
    Recipe("root-dtime", "ext2", "root has dtime", (("inode[2].i_dtime", 1_700_000_000),)),
    Recipe("root-links-zero", "ext2", "root with links 0", (("inode[2].i_links_count", 0),)),
    Recipe("reserved-inode-mode", "ext2", "reserved inode with mode", (("inode[9].i_mode", 0o100644),)),
    Recipe("reserved-inode-4", "ext3", "reserved inode with mode", (("inode[4].i_mode", 0o100644), ("inode[4].i_links_count", 1))),
    Recipe("reserved-inode-blocks", "ext3", "reserved inode with blocks", (("inode[5].i_mode", 0o100644), ("inode[5].i_block[0]", "map[/twin:0]"))),
    Recipe("bad-blocks-mode", "ext2", "bad-blocks inode has mode", (("inode[1].i_mode", 0o100644),)),
    Recipe("bad-blocks-owner", "ext2", "bad-blocks inode has uid, gid, links", (("inode[1].i_uid", 7), ("inode[1].i_links_count", 2))),
    Recipe("bad-blocks-file", "ext2", "bad block in a file", (_bad_blocks,)),
    Recipe("bad-blocks-illegal", "ext2", "bad-blocks inode, illegal block", (("inode[1].i_block[0]", FAR), ("inode[1].i_size", 1024))),
    Recipe("bad-blocks-metadata", "ext2", "bad block in metadata", (("inode[1].i_block[0]", "group[1].bg_inode_bitmap"), ("inode[1].i_blocks", 2), ("inode[1].i_size", 1024))),
    # deletion time and links
    Recipe("inode-links-zero", "ext2", "links 0, mode set, dtime 0", (Debugfs("unlink third\nsif <{number[/third]}> links_count 0"),)),
    Recipe("inode-links-zero-named", "ext2", "links 0, mode set, dtime 0", (("inode[/third].i_links_count", 0),)),
    Recipe("inode-links-zero-directory", "ext3", "links 0, mode set, dtime 0", (("inode[/dir].i_links_count", 0),)),
    Recipe("inode-dtime", "ext2", "links > 0, dtime set", (("inode[/file].i_dtime", 1_700_000_000),)),
    Recipe("inode-dtime-directory", "ext3", "links > 0, dtime set", (("inode[/dir].i_dtime", 1_700_000_000),)),
    # flags
    Recipe("flag-extents", "ext2", "EXTENTS flag without feature: no header", (_flag("/file", EXTENTS),)),
    Recipe("flag-extents-valid", "ext3", "EXTENTS flag without feature: valid extent header", _extents("/twin", length=4)),
    Recipe("flag-extents-depth", "ext3", "EXTENTS flag without feature: depth 1 without leaf", _extents("/twin", depth=1)),
    Recipe("flag-extents-directory", "ext3", "EXTENTS flag without feature: no header", (_flag("/dir", EXTENTS),)),
    Recipe("flag-inline-data", "ext2", "INLINE_DATA flag without feature", (_flag("/file", INLINE),)),
    Recipe("flag-inline-data-directory", "ext3", "INLINE_DATA flag without feature", (_flag("/dir", INLINE),)),
    Recipe("flag-inline-data-symlink", "ext3", "INLINE_DATA flag without feature", (_flag("/fast", INLINE),)),
    Recipe("flag-imagic", "ext2", "imagic flag without feature", (_flag("/file", IMAGIC),)),
    Recipe("flag-imagic-directory", "ext3", "imagic flag without feature", (_flag("/dir", IMAGIC),)),
    Recipe("flag-compressed", "ext2", "compressed flag without feature", (_flag("/file", COMPRESSED),), clean="the flag is ext3's, unused"),
    Recipe("flag-index-file", "ext2", "INDEX flag on non-dir", (_flag("/file", INDEX),)),
    Recipe("flag-index-feature", "ext3", "INDEX flag without feature", (("super.s_feature_compat", lambda d: d.get("super.s_feature_compat") & ~0x20),)),
    Recipe("flag-index-plain-directory", "ext3", "INDEX flag, bad root info", (_flag("/dir", INDEX),)),
    Recipe("flag-index-symlink", "ext3", "symlink with INDEX flag", (_flag("/slow", INDEX),)),
    # fields that mark an inode as bad
    Recipe("inode-faddr", "ext2", "i_faddr", (("inode[/file].i_faddr", 1),)),
    Recipe("inode-faddr-directory", "ext3", "i_faddr", (("inode[/dir].i_faddr", 1),)),
    Recipe("inode-fragment", "ext2", "frag", (("inode[/file].i_blocks_high", 0x0101),)),
    Recipe("inode-file-acl-high", "ext2", "file_acl_high", (("inode[/file].i_file_acl_high", 1),)),
    Recipe("inode-file-acl-high-fifo", "ext3", "file_acl_high", (("inode[/fifo].i_file_acl_high", 1),)),
    Recipe("inode-blocks-high", "ext3", "blocks_hi", (("inode[/twin].i_blocks_high", 1),)),
    Recipe("directory-size-high", "ext2", "size_high on dirs", (("inode[/dir].i_size_high", 1),)),
    Recipe("inode-mode-unknown", "ext2", "unknown mode", (("inode[/file].i_mode", 0o030644),)),
    Recipe("inode-mode-unknown-fifo", "ext3", "unknown mode", (("inode[/fifo].i_mode", 0o170644),)),
    Recipe("inode-mode-zero", "ext2", "mode 0, links > 0", (("inode[/third].i_mode", 0),)),
    Recipe("inode-mode-zero-directory", "ext3", "mode 0, links > 0", (("inode[/dir].i_mode", 0),)),
    Recipe("inode-cleared", "ext3", "entry to unused inode", (Debugfs("clri <{number[/dir/file-3]}>"),)),
    Recipe("directory-cleared", "ext3", "entry to unused inode", (Debugfs("clri <{number[/dir]}>"),)),
    Recipe("device-pointers", "ext2", "invalid dev", (("inode[/chr].i_block[4]", 77),), clean="only the first two numbers are a device's"),
    Recipe("device-block", "ext3", "invalid dev", (("inode[/blk].i_block[5]", 77),), clean="only the first two numbers are a device's"),
    Recipe("device-flag", "ext3", "immutable on special file", (_flag("/chr", IMMUTABLE),)),
    Recipe("device-size", "ext2", "special file with size != 0", (("inode[/chr].i_size", 77),)),
    Recipe("fifo-pointers", "ext2", "invalid fifo", (("inode[/fifo].i_block[0]", 77),), clean="only the first two numbers are a device's"),
    Recipe("fifo-size", "ext3", "special file with size != 0", (("inode[/fifo].i_size", 5),)),
    Recipe("fifo-size-high", "ext3", "special file with size_high", (("inode[/fifo].i_size_high", 5),)),
    Recipe("socket-pointers", "ext2", "invalid sock", (("inode[/sock].i_block[0]", 77),), clean="only the first two numbers are a device's"),
    Recipe("fifo-flag", "ext3", "append on special file", (_flag("/fifo", 0x20),)),
    # symlinks
    Recipe("symlink-size", "ext2", "fast: strnlen(i_block) == size", (("inode[/fast].i_size", 7),)),
    Recipe("symlink-size-zero", "ext2", "symlink of size 0", (("inode[/fast].i_size", 0),)),
    Recipe("symlink-size-slow", "ext3", "slow: strnlen(block) == size", (("inode[/slow].i_size", 90),)),
    Recipe("symlink-size-large", "ext3", "slow: size < bs", (("inode[/slow].i_size", 5000),)),
    Recipe("symlink-size-high", "ext3", "symlink: size_high 0", (("inode[/slow].i_size_high", 1),)),
    Recipe("symlink-pointers", "ext3", "slow: only i_block[0] used", (("inode[/slow].i_block[1]", "map[/file:1]"),)),
    Recipe("symlink-block-far", "ext3", "slow: block out of range", (("inode[/slow].i_block[0]", FAR),)),
    Recipe("symlink-block-zero", "ext3", "slow: no block", (("inode[/slow].i_block[0]", 0),)),
    Recipe("symlink-nul", "ext3", "slow: NUL in the target", (lambda d: d.set(f"block[{d.get('map[/slow:0]')}:3]", b"\0"),)),
    Recipe("symlink-fast-blocks", "ext2", "fast symlink with i_blocks", (("inode[/fast].i_blocks", 2),), apart="the symlink is kept, which e2fsck takes for damaged"),
    # extra area, times, attributes in the inode
    Recipe("extra-isize", "ext3", "extra_isize invalid", (("inode[/twin].i_extra_isize", 7),)),
    Recipe("extra-isize-unaligned", "ext3", "extra_isize invalid", (("inode[/chr].i_extra_isize", 30),)),
    Recipe("extra-isize-large", "ext3", "extra_isize invalid", (("inode[/chr].i_extra_isize", 5000),)),
    Recipe("extra-isize-many", "ext3", "extra_isize invalid", (_every_extra,)),
    Recipe("extra-isize-zero", "ext3", "no extra area", (("inode[/chr].i_extra_isize", 0),), clean="such inodes are good"),
    Recipe("epoch-bits", "ext3", "timestamp epoch bits of old wrong encoding", (
        ("inode[/twin].i_mtime", 0xFFFFFF00), ("inode[/twin].i_mtime_extra", 3))),
    Recipe("ibody-name-length", "ext3", "in-inode xattr: name too long", (("ibody[/twin:0].e_name_len", 250),)),
    Recipe("ibody-value-size", "ext3", "in-inode xattr: value too big", (("ibody[/twin:0].e_value_size", 5000),)),
    Recipe("ibody-value-offset", "ext3", "in-inode xattr: value outside", (("ibody[/twin:0].e_value_offs", 500),)),
    Recipe("ibody-value-overlap", "ext3", "in-inode xattr: overlap", (("ibody[/twin:1].e_value_offs", "ibody[/twin:0].e_value_offs"),)),
    Recipe("ibody-value-on-names", "ext3", "in-inode xattr: overlap", (("ibody[/twin:0].e_value_offs", 4),)),
    Recipe("ibody-hash", "ext3", "in-inode xattr: hash", (("ibody[/twin:0].e_hash", 12345),)),
    Recipe("ibody-value-inode", "ext3", "in-inode xattr: value inode", (("ibody[/twin:0].e_value_inum", 12),)),
    Recipe("ibody-magic", "ext3", "in-inode xattr: other bytes in the area", (("ibody[/twin].h_magic", 0x1234),), clean="an area without the magic number is empty"),
    Recipe("ibody-empty", "ext3", "in-inode xattr: magic without entries", (("ibody[/chr].h_magic", 0xEA020000),), clean="an empty list is good"),
    # attribute blocks
    Recipe("xattr-magic", "ext2", "xattr block: bad magic", (("xattr[/file].h_magic", 0),)),
    Recipe("xattr-blocks", "ext2", "xattr block: h_blocks != 1", (("xattr[/file].h_blocks", 2),)),
    Recipe("xattr-entry-overlap", "ext2", "xattr block: overlap", (("xattr[/file:1].e_value_offs", "xattr[/file:0].e_value_offs"),)),
    Recipe("xattr-index-zero", "ext2", "xattr block: index 0", (("xattr[/file:0].e_name_index", 0),)),
    Recipe("xattr-index-large", "ext2", "xattr block: index unknown", (("xattr[/file:0].e_name_index", 99),), clean="any but 0 is good"),
    Recipe("xattr-name-length", "ext2", "xattr block: entry outside", (("xattr[/file:0].e_name_len", 255),)),
    Recipe("xattr-value-size", "ext2", "xattr block: bad value range", (("xattr[/file:0].e_value_size", 2000),)),
    Recipe("xattr-value-offset", "ext2", "xattr block: bad value range", (("xattr[/file:0].e_value_offs", 1020),)),
    Recipe("xattr-hash", "ext2", "xattr block: bad hash", (("xattr[/file:0].e_hash", 77),)),
    Recipe("xattr-header-hash", "ext2", "xattr block: hash of the block", (("xattr[/file].h_hash", 77),), clean="not looked at"),
    Recipe("xattr-value-inode", "ext2", "xattr block: value inode", (("xattr[/file:0].e_value_inum", 12),)),
    Recipe("xattr-refcount", "ext2", "xattr block refcount wrong", (("xattr[/file].h_refcount", 5),)),
    Recipe("xattr-refcount-zero", "ext3", "xattr block refcount wrong", (("xattr[/file].h_refcount", 0),)),
    Recipe("xattr-shared", "ext2", "xattr block refcount wrong", (_shared_attributes,)),
    Recipe("xattr-shared-damaged", "ext2", "xattr block of four files: bad magic", (_shared_attributes, ("xattr[/file].h_magic", 0))),
    Recipe("xattr-far", "ext2", "xattr block number out of range", (("inode[/file].i_file_acl", FAR),)),
    Recipe("xattr-far-directory", "ext3", "xattr block number out of range", (("inode[/dir].i_file_acl", FAR),)),
    Recipe("xattr-far-fifo", "ext3", "xattr block number out of range", (("inode[/fifo].i_file_acl", FAR),)),
    Recipe("xattr-metadata", "ext2", "xattr block is metadata", (("inode[/twin].i_file_acl", "group[0].bg_inode_bitmap"),)),
    Recipe("xattr-is-data", "ext2", "xattr block is a data block", (("inode[/twin].i_file_acl", "map[/file:2]"),)),
    Recipe("xattr-feature", "ext2", "xattr block without the feature", (("super.s_feature_compat", lambda d: d.get("super.s_feature_compat") & ~8),)),
    # block maps
    Recipe("map-far", "ext2", "illegal block number in map", (("map[/file:2]", FAR),)),
    Recipe("map-far-last", "ext2", "illegal block number in map", (("map[/file:4]", 0xFFFFFFFF),)),
    Recipe("map-zero-block", "ext2", "illegal block number: the boot block", (("super.s_first_data_block", 1), ("map[/file:1]", 0))),
    Recipe("map-indirect-far", "ext2", "illegal block number: indirect", (("inode[/large].i_block[12]", FAR),)),
    Recipe("map-double-far", "ext3", "illegal block number: double indirect", (("inode[/large].i_block[13]", FAR),)),
    Recipe("map-triple-far", "ext3", "illegal block number: triple indirect", (("inode[/large].i_block[14]", FAR),)),
    Recipe("map-in-indirect", "ext2", "illegal block number in map", (("map[/large:100]", FAR),)),
    Recipe("map-in-double", "ext3", "illegal block number in map", (("map[/large:275]", FAR),)),
    Recipe("map-in-triple", "ext3", "illegal block number in map", (lambda d: d.set(f"pointer[{d.get('inode[/sparse].i_block[14]')}:0]", FAR),)),
    Recipe("map-directory-far", "ext2", "illegal block number in a directory", (("map[/dir:0]", FAR),)),
    Recipe("map-directory-large-far", "ext3", "illegal block number in a directory", (("map[/htree:3]", FAR),)),
    Recipe("map-many-bad", "ext2", "more than 11 bad pointers", _many_bad("/large", 40)),
    Recipe("map-eleven-bad", "ext2", "11 bad pointers", _many_bad("/large", 11)),
    Recipe("map-twelve-bad", "ext3", "12 bad pointers", _many_bad("/large", 12)),
    Recipe("map-indirect-garbage", "ext2", "more than 11 bad pointers", (lambda d: d.set(f"block[{d.get('inode[/large].i_block[12]')}]", b"\xff" * 1024),)),
    Recipe("map-indirect-self", "ext2", "pointer block listed twice", (_self_pointing,), apart="e2fsck leaves it damaged"),
    Recipe("map-indirect-metadata", "ext2", "indirect block overlaps fs metadata", (("inode[/large].i_block[12]", "group[1].bg_inode_table"),)),
    Recipe("map-indirect-superblock", "ext3", "indirect block overlaps fs metadata", (("inode[/large].i_block[12]", 1),)),
    Recipe("map-indirect-zero", "ext2", "indirect block missing", (("inode[/large].i_block[12]", 0),)),
    Recipe("map-pointers-of-device", "ext3", "directory of a device", (_as_directory,)),
    Recipe("directory-as-fifo", "ext2", "special inode that looks like a directory", (("inode[/dir].i_mode", 0o010755),)),
    Recipe("directory-as-file", "ext2", "directory with the mode of a file", (("inode[/dir].i_mode", 0o100755),)),
    Recipe("file-as-directory", "ext2", "file with the mode of a directory", (("inode[/file].i_mode", 0o40755),)),
    Recipe("fifo-as-directory", "ext3", "directory with no blocks", (("inode[/fifo].i_mode", 0o40755),)),
    Recipe("directory-no-blocks", "ext2", "directory with no blocks", (("inode[/dir].i_block[0]", 0),)),
    # sizes and counts
    Recipe("size-small", "ext2", "i_size: file: size < last block start", (("inode[/file].i_size", 1000),)),
    Recipe("size-zero", "ext3", "i_size: file: size < last block start", (("inode[/large].i_size", 0),)),
    Recipe("size-large", "ext2", "i_size larger than the blocks", (("inode[/file].i_size", 100_000),), clean="a hole at the end"),
    Recipe("size-above-map", "ext2", "i_size: above map max", (("inode[/file].i_size_high", 0x7FFFFFFF),)),
    Recipe("size-directory", "ext2", "i_size: dir not multiple of block", (("inode[/dir].i_size", 1000),)),
    Recipe("size-directory-large", "ext2", "i_size: dir != last+1", (("inode[/dir].i_size", 5120),)),
    Recipe("size-directory-zero", "ext3", "i_size: dir != last+1", (("inode[/dir].i_size", 0),)),
    Recipe("blocks-zero", "ext2", "i_blocks wrong", (("inode[/file].i_blocks", 0),)),
    Recipe("blocks-large", "ext3", "i_blocks wrong", (("inode[/large].i_blocks", 0xFFFFFF),)),
    Recipe("blocks-odd", "ext3", "i_blocks wrong", (("inode[/file].i_blocks", lambda d: d.get("inode[/file].i_blocks") + 1),)),
    Recipe("blocks-directory", "ext3", "i_blocks wrong", (("inode[/dir].i_blocks", 99),)),
    Recipe("blocks-fifo", "ext3", "i_blocks wrong", (("inode[/fifo].i_blocks", 99),)),
    # several faults in one inode, tables of nonsense
    Recipe("inode-messy", "ext2", "several faults", (
        ("inode[/file].i_blocks", 0xFFFF), ("inode[/file].i_faddr", 5), ("inode[/file].i_size_high", 0x10000), ("inode[/file].i_file_acl", FAR),
        ("map[/file:0]", FAR), ("inode[/file].i_dtime", 1_700_000_000), ("inode[/file].i_flags", 0xFFFFFFFF & ~EXTENTS & ~INLINE))),
    Recipe("inode-table-garbage", "ext2", "several faults", (_inode_table_garbage,)),
    Recipe("inode-table-garbage-256", "ext3", "several faults", (_inode_table_garbage,)),
    Recipe("inode-table-ones", "ext2", "several faults", (lambda d: d.set(f"byte[{d.inode_offset(20)}]", b"\xff" * 512),)),
    Recipe("rev0-faults", "rev0", "several faults", (("inode[/file].i_blocks", 1), ("map[/file:3]", FAR), ("inode[/dir].i_size", 5))),
    Recipe("meta-bg-faults", "meta_bg", "several faults", (("inode[/file].i_blocks", 1), ("map[/file:3]", FAR), ("group[33].bg_free_blocks_count", 5))),
    Recipe("large-blocks-faults", "4k", "several faults", (("inode[/file].i_blocks", 1), ("map[/file:3]", FAR), ("inode[/dir].i_size", 5))),
    # multiply claimed blocks
    Recipe("shared-two", "ext2", "block claimed twice", _copied_pointers("/twin", "/file", 0)),
    Recipe("shared-all", "ext2", "block claimed twice", _copied_pointers("/twin", "/file", 0, 1, 2, 3)),
    Recipe("shared-three", "ext3", "block claimed by three", (*_copied_pointers("/twin", "/file", 0, 1), *_copied_pointers("/third", "/file", 1, 2))),
    Recipe("shared-same-file", "ext2", "block claimed twice by one file", (("map[/file:3]", "map[/file:1]"),)),
    Recipe("shared-directory", "ext3", "block claimed by a directory and a file", (("map[/twin:0]", "map[/dir:0]"),)),
    Recipe("shared-directories", "ext3", "block claimed by two directories", (("map[/dir/sub:0]", "map[/empty-dir:0]"),)),
    Recipe("shared-indirect", "ext3", "indirect block claimed twice", (("map[/file:0]", "inode[/large].i_block[12]"),)),
    Recipe("shared-indirect-both", "ext3", "indirect block claimed twice", (("inode[/sparse].i_block[12]", "inode[/large].i_block[12]"),)),
    Recipe("shared-attributes", "ext2", "attribute block claimed by a file", (("map[/twin:1]", "inode[/file].i_file_acl"),)),
    Recipe("shared-symlink", "ext3", "block claimed by a symlink and a file", (("map[/slow:0]", "map[/file:0]"),)),
    Recipe("shared-journal", "ext3", "block claimed by the journal and a file", (("map[/file:0]", "map[8:700]"),)),
    Recipe("shared-resize", "ext3", "block claimed by the resize inode and a file", (("map[/file:0]", "inode[7].i_block[13]"),)),
    Recipe("shared-superblock", "ext2", "block claimed by metadata and a file", (("map[/file:1]", 2049),)),
    Recipe("shared-descriptors", "ext2", "block claimed by metadata and a file", (("map[/file:1]", 2),)),
    Recipe("shared-bitmap", "ext3", "block claimed by metadata and a file", (("map[/file:0]", "group[0].bg_block_bitmap"),)),
    Recipe("shared-inode-table", "ext3", "block claimed by metadata and a file", (("map[/file:0]", "group[0].bg_inode_table"),)),
    Recipe("shared-metadata-directory", "ext3", "block claimed by metadata and a directory", (("map[/dir:0]", "group[1].bg_inode_table"),)),
    Recipe("shared-4k", "4k", "block claimed twice", _copied_pointers("/twin", "/file", 0, 1)),
]  # fmt: skip
