"""Recipes of damage to directories: entries, records, indexes."""

from __future__ import annotations

import struct

from ..damage import Damage, Debugfs, Recipe

__all__ = ["RECIPES"]

FAR = 99_999
INDEX = 0x1000


def _new_entry(directory: str, name: bytes, ino: str | int, file_type: int = 1) -> object:
    """Step that adds an entry in the room behind the last one of a directory's first block."""

    def add(damage: Damage) -> None:
        block = damage.block_of(directory, 0)
        start = block * damage.size
        at = 0
        while True:
            _, length, name_len, _ = struct.unpack_from("<IHBB", damage.data, start + at)
            if at + length >= damage.size:
                break
            at += length
        least = 8 + (name_len + 3 & ~3)
        struct.pack_into("<H", damage.data, start + at + 4, least)
        at += least
        number = damage.get(ino) if isinstance(ino, str) else ino
        struct.pack_into("<IHBB", damage.data, start + at, number, damage.size - at, len(name), file_type)
        damage.data[start + at + 8 : start + at + 8 + len(name)] = name

    return add


def _hole(name: str, logical: int) -> tuple[tuple[str, object], ...]:
    """Steps that make a hole in a directory, whose block is free then."""
    return (
        (f"inode[{name}].i_blocks", lambda d: d.get(f"inode[{name}].i_blocks") - d.size // 512),
        (lambda d: d.set(f"used.block[{d.get(f'map[{name}:{logical}]')}]", 0)),
        (f"map[{name}:{logical}]", 0),
    )  # fmt: skip


def _garbage(name: str, logical: int, data: bytes) -> object:
    return lambda damage: damage.set(f"block[{damage.block_of(name, logical)}]", data)


def _entry_bytes(name: str, logical: int, at: int, data: bytes) -> object:
    return lambda damage: damage.set(f"block[{damage.block_of(name, logical)}:{at}]", data)


def _linear(name: str) -> tuple[str, object]:
    return f"inode[{name}].i_flags", lambda damage: damage.get(f"inode[{name}].i_flags") & ~INDEX


def _leaf(damage: Damage, name: str, number: int = 0) -> int:
    """Return the logical block of the index root's entry ``number``."""
    return damage.get(f"dx[{name}:{number}].block")


def _swap_leaf_entry(damage: Damage) -> None:
    """A name in a leaf that its hash does not belong to."""
    first, second = _leaf(damage, "/htree", 0), _leaf(damage, "/htree", 1)
    one, two = damage.block_of("/htree", first) * damage.size, damage.block_of("/htree", second) * damage.size
    data = damage.data
    data[one : one + damage.size], data[two : two + damage.size] = data[two : two + damage.size], data[one : one + damage.size]


def _dot_long(damage: Damage) -> None:
    """'.' whose record takes the place of '..' too."""
    damage.set("entry[/dir:.].rec_len", 1024)


def _same_names(damage: Damage) -> None:
    """Two different files of one name, and one file twice under one name, in a directory of several blocks."""
    names = [entry.name for entry in damage.fs.scandir("/htree")]
    first, second, third = (name for name in names if name not in (b".", b"..") and len(name) == 10)
    for name in (second, third):
        damage.set(f"entry[/htree:{name.decode()}].name", first)


RECIPES = [
    # . and ..
    Recipe("dot-inode", "ext2", 'first entry not "."', (("entry[/dir:.].inode", "number[/other]"),)),
    Recipe("dot-inode-zero", "ext2", 'first entry not "."', (("entry[/dir:.].inode", 0),)),
    Recipe("dot-inode-far", "ext3", "first entry: wrong inode", (("entry[/dir:.].inode", FAR),)),
    Recipe("dot-name", "ext2", 'first entry not "."', (("entry[/dir:.].name", b"x"),)),
    Recipe("dot-name-length", "ext2", 'first entry not "."', (("entry[/dir:.].name_len", 3),)),
    Recipe("dot-terminator", "ext2", "first entry not NUL terminated", (("entry[/dir:.].name", b".x"),)),
    Recipe("dot-long", "ext2", "first entry: rec_len", (("entry[/dir:.].rec_len", 24),)),
    Recipe("dot-whole-block", "ext2", "first entry: rec_len", (_dot_long,)),
    Recipe("dot-short", "ext3", "first entry: rec_len < 12", (("entry[/dir:.].rec_len", 8),)),
    Recipe("dot-zero-length", "ext3", "first entry: rec_len 0", (("entry[/dir:.].rec_len", 0),)),
    Recipe("dot-file-type", "ext3", "file_type wrong", (("entry[/dir:.].file_type", 1),)),
    Recipe("dotdot-inode", "ext2", '".." differs from actual parent', (("entry[/dir/sub:..].inode", 2),)),
    Recipe("dotdot-inode-zero", "ext2", 'second entry not ".."', (("entry[/dir/sub:..].inode", 0),)),
    Recipe("dotdot-inode-far", "ext2", 'second entry not ".."', (("entry[/dir/sub:..].inode", FAR),)),
    Recipe("dotdot-inode-file", "ext3", '".." leads to a file', (("entry[/dir/sub:..].inode", "number[/file]"),)),
    Recipe("dotdot-name", "ext2", 'second entry not ".."', (("entry[/dir/sub:..].name", b"xy"),)),
    Recipe("dotdot-name-length", "ext3", 'second entry not ".."', (("entry[/dir/sub:..].name_len", 1),)),
    Recipe("dotdot-terminator", "ext3", "second entry not NUL terminated", (("entry[/dir/sub:..].name", b"..z"),)),
    Recipe("dotdot-short", "ext3", "second entry: rec_len", (("entry[/dir/sub:..].rec_len", 8),)),
    Recipe("dotdot-file-type", "ext3", "file_type wrong", (("entry[/dir/sub:..].file_type", 2 + 5),)),
    Recipe("dotdot-root", "ext2", '".." of the root', (("entry[/:..].inode", "number[/dir]"),)),
    Recipe("dots-later", "ext2", 'later "." or ".."', (_new_entry("/dir", b".", "number[/dir]", 2), _new_entry("/other", b"..", 2, 2))),
    Recipe("dots-swapped", "ext2", 'first entry not ".", second not ".."', (("entry[/dir:.].name", b".."), ("entry[/dir:.].name_len", 2))),
    # records
    Recipe("record-zero", "ext2", "rec_len < 12", (("entry[/dir:file-2].rec_len", 0),)),
    Recipe("record-eight", "ext2", "salvage: rec_len 8", (("entry[/dir:file-2].rec_len", 8),)),
    Recipe("record-unaligned", "ext2", "rec_len not multiple of 4", (("entry[/dir:file-2].rec_len", 17),)),
    Recipe("record-past-end", "ext2", "rec_len past end", (("entry[/dir:file-2].rec_len", 2000),)),
    Recipe("record-short", "ext2", "rec_len shorter than name needs", (("entry[/dir:file-2].name_len", 90),)),
    Recipe("record-last-short", "ext2", "last rec_len does not end at block end", (("entry[/dir:hard].rec_len", 40),)),
    Recipe("record-last-long", "ext3", "last rec_len does not end at block end", (("entry[/dir:hard].rec_len", 4000),)),
    Recipe("record-first-damaged", "ext2", "salvage: first entry", (("dirent[/htree:2:0].rec_len", 7),)),
    Recipe("record-first-zero", "ext3", "salvage: first entry", (("dirent[/htree:2:0].rec_len", 0), _linear("/htree"))),
    Recipe("record-4k", "4k", "rec_len", (("entry[/dir:file-2].rec_len", 5000),)),
    Recipe("record-removed", "ext2", "names inside of an entry's record", (("entry[/dir:file-1].rec_len", 48),)),
    Recipe("block-zero", "ext2", "salvage: block of zeros", (_garbage("/dir", 0, bytes(1024)),)),
    Recipe("block-ones", "ext2", "salvage: block of ones", (_garbage("/dir", 0, b"\xff" * 1024),)),
    Recipe("block-text", "ext3", "salvage: block of text", (_garbage("/dir", 0, b"garbage " * 128),)),
    Recipe("block-text-indexed", "ext3", "salvage: block of text in an indexed directory", (_garbage("/htree", 3, b"garbage " * 128),)),
    Recipe("block-zero-indexed", "ext3", "salvage: block of zeros in an indexed directory", (_garbage("/htree", 3, bytes(1024)),)),
    Recipe("block-zero-lost-and-found", "ext2", "salvage: block of zeros in lost+found", (_garbage("/lost+found", 1, bytes(1024)),)),
    Recipe("block-zero-root", "ext2", "salvage: root of zeros", (_garbage("/", 0, bytes(1024)),)),
    Recipe("block-text-root", "ext3", "salvage: root of text", (_garbage("/", 0, b"garbage " * 128),)),
    Recipe("hole", "ext2", "hole in directory", _hole("/lost+found", 2)),
    Recipe("hole-indexed", "ext3", "hole in directory", _hole("/htree", 2)),
    Recipe("hole-first", "ext3", "hole in directory", _hole("/htree", 0)),
    # names and inodes of entries
    Recipe("entry-self", "ext2", "entry to self under other name", (_new_entry("/dir", b"self", "number[/dir]", 2),)),
    Recipe("entry-root", "ext2", "entry to root", (_new_entry("/dir", b"top", 2, 2),)),
    Recipe("entry-second-parent", "ext2", "entry to a dir that already has a parent", (_new_entry("/other", b"again", "number[/dir/sub]", 2),)),
    Recipe("entry-loop", "ext2", "entry to a dir that already has a parent", (_new_entry("/dir/sub/deep", b"up", "number[/dir]", 2),)),
    Recipe("entry-far", "ext2", "inode number out of range", (("entry[/dir:file-2].inode", FAR),)),
    Recipe("entry-reserved", "ext2", "inode number reserved", (("entry[/dir:file-2].inode", 7),)),
    Recipe("entry-bad-blocks", "ext3", "inode number reserved", (("entry[/dir:file-2].inode", 1),)),
    Recipe("entry-journal", "ext3", "inode number reserved", (("entry[/dir:file-2].inode", 8),)),
    Recipe("entry-unused", "ext2", "entry to unused inode", (("entry[/dir:file-2].inode", 700),)),
    Recipe("entry-zero", "ext2", "deleted entry, inode without a name", (("entry[/dir:file-2].inode", 0),)),
    Recipe("entry-empty-name", "ext2", "zero length name", (("entry[/dir:file-2].name_len", 0),)),
    Recipe("entry-slash", "ext2", "'/' in name", (("entry[/dir:file-2].name", b"fi/e-2"),)),
    Recipe("entry-nul", "ext2", "NUL in name", (("entry[/dir:file-2].name", b"fi\0e-2"),)),
    Recipe("entry-slash-indexed", "ext3", "'/' in name", (("entry[/htree:name-0009-].name", b"na/e"),)),
    Recipe("entry-file-type", "ext2", "file_type wrong", (("entry[/dir:file-2].file_type", 2),)),
    Recipe("entry-file-type-zero", "ext2", "file_type unknown", (("entry[/dir:file-2].file_type", 0),), clean="set without a word"),
    Recipe("entry-file-type-large", "ext3", "file_type wrong", (("entry[/dir:sub].file_type", 77),)),
    Recipe("entry-file-type-symlink", "ext3", "file_type wrong", (("entry[/:fast].file_type", 1),)),
    Recipe("entry-file-type-feature", "bare", "file_type set without feature", (("entry[/:fifo].file_type", 5),)),
    Recipe("entry-type-without-feature", "ext2", "file_type set without feature", (("super.s_feature_incompat", 0),)),
    Recipe("entry-directory-is-file", "ext2", "entry to another inode", (("entry[/dir:sub].inode", "number[/file]"),)),
    # names that occur twice
    Recipe("name-twice", "ext2", "duplicate name", (("entry[/dir:file-3].name", b"file-2"),)),
    Recipe("name-three-times", "ext3", "duplicate name", (("entry[/dir:file-3].name", b"file-2"), ("entry[/dir:file-4].name", b"file-2"))),
    Recipe("name-twice-same-inode", "ext2", "duplicate name and inode", (("entry[/dir:file-3].name", b"file-2"), ("entry[/dir:file-3].inode", "number[/dir/file-2]"))),
    Recipe("name-twice-directory", "ext3", "duplicate name", (_new_entry("/dir", b"sub", "number[/file]"),)),
    Recipe("name-twice-long", "ext2", "duplicate name of 255 bytes", (_new_entry("/other", b"n" * 255, "number[/file]"), _new_entry("/other", b"n" * 255, "number[/twin]"))),
    Recipe("name-twice-indexed", "ext3", "duplicate name", (lambda d: d.set("entry[/htree:name-0018-].name", b"name-0009-"), )),
    Recipe("name-twice-linear", "ext3", "duplicate name in several blocks", (_linear("/htree"), ("entry[/htree:name-0270-].name", b"name-0009-")), clean="not looked for with -n, across blocks without an index"),
    Recipe("name-twice-and-renamed", "ext2", "duplicate name, and ~0 is taken", (
        ("entry[/dir:file-3].name", b"abcde~"), ("entry[/dir:file-4].name", b"abcde~"), ("entry[/dir:file-5].name", b"abcd~0"))),
    # bad inodes
    Recipe("entry-to-garbage", "ext2", "inode marked bad in pass 1", (("inode[/dir/file-2].i_mode", 0x7777), ("inode[/fifo].i_mode", 0x7777))),
    # index
    Recipe("index-hash-version", "ext3", "bad hash version", (("dx[/htree].hash_version", 99),)),
    Recipe("index-info-length", "ext3", "bad root info", (("dx[/htree].info_length", 4),)),
    Recipe("index-reserved", "ext3", "bad root info", (("dx[/htree].reserved_zero", 7),)),
    Recipe("index-flags", "ext3", "incompat flag", (("dx[/htree].unused_flags", 1),)),
    Recipe("index-depth", "ext3", "depth too big", (("dx[/htree].indirect_levels", 5),)),
    Recipe("index-depth-one", "ext3", "depth", (("dx[/htree].indirect_levels", 1),)),
    Recipe("index-limit", "ext3", "limit wrong", (("dx[/htree].limit", 50),)),
    Recipe("index-limit-large", "ext3", "limit wrong", (("dx[/htree].limit", 500),)),
    Recipe("index-count", "ext3", "count wrong", (("dx[/htree].count", 200),)),
    Recipe("index-count-zero", "ext3", "count wrong", (("dx[/htree].count", 0),)),
    Recipe("index-count-small", "ext3", "block not referenced", (("dx[/htree].count", 3),)),
    Recipe("index-block-range", "ext3", "block out of range", (("dx[/htree:2].block", 900),)),
    Recipe("index-block-zero", "ext3", "block is the root", (("dx[/htree:2].block", 0),)),
    Recipe("index-block-twice", "ext3", "referenced twice", (("dx[/htree:2].block", "dx[/htree:1].block"),)),
    Recipe("index-order", "ext3", "unordered hashes", (("dx[/htree:2].hash", 2),)),
    Recipe("index-min-hash", "ext3", "min hash outside parent range", (("dx[/htree:1].hash", lambda d: d.get("dx[/htree:2].hash") - 2),)),
    Recipe("index-leaves-swapped", "ext3", "min/max hash outside parent range", (_swap_leaf_entry,)),
    Recipe("index-root-zero", "ext3", "bad root info", (_entry_bytes("/htree", 0, 24, bytes(200)),)),
    Recipe("index-root-dots", "ext3", "index root without '..'", (("entry[/htree:..].name", b"xx"),)),
    Recipe("index-root-dotdot-record", "ext3", "index root: '..' is short", (("entry[/htree:..].rec_len", 20),)),
    Recipe("index-root-garbage", "ext3", "index root of text", (_garbage("/htree", 0, b"garbage " * 128),)),
    Recipe("index-size", "ext3", "unexpected block", (("inode[/htree].i_size", lambda d: d.get("inode[/htree].i_size") - 2048),)),
    Recipe("index-seed", "ext3", "hashes of another seed", (("super.s_hash_seed[0]", 12345),)),
    Recipe("index-other-hash", "ext3", "hashes of another function", (("dx[/htree].hash_version", 2),)),
    Recipe("index-unsigned", "ext3", "hashes of unsigned characters", (("super.s_flags", 2),), clean="names in ASCII hash alike"),
    Recipe("node-limit", "deep", "limit of a node wrong", (lambda d: d.set(f"node[/htree:{_leaf(d, '/htree')}].limit", 7),)),
    Recipe("node-count", "deep", "count of a node wrong", (lambda d: d.set(f"node[/htree:{_leaf(d, '/htree')}].count", 5000),)),
    Recipe("node-count-zero", "deep", "count of a node wrong", (lambda d: d.set(f"node[/htree:{_leaf(d, '/htree')}].count", 0),)),
    Recipe("node-block-range", "deep", "block out of range", (lambda d: d.set(f"node[/htree:{_leaf(d, '/htree')}:2].block", 5000),)),
    Recipe("node-order", "deep", "unordered hashes", (lambda d: d.set(f"node[/htree:{_leaf(d, '/htree')}:2].hash", 2),)),
    Recipe("node-record", "deep", "node without its empty entry", (lambda d: d.set(f"dirent[/htree:{_leaf(d, '/htree')}:0].rec_len", 100),)),
    Recipe("node-hash-range", "deep", "min hash outside parent range", (lambda d: d.set("dx[/htree:1].hash", d.get("dx[/htree:2].hash") - 2),)),
    Recipe("node-is-leaf", "deep", "index node is a leaf", (lambda d: d.set("dx[/htree:1].block", d.get(f"node[/htree:{_leaf(d, '/htree')}:1].block")),)),
    Recipe("node-garbage", "deep", "index node of text", (lambda d: d.set(f"block[{d.block_of('/htree', _leaf(d, '/htree'))}]", b"garbage " * 128),)),
    # features
    Recipe("large-file-feature", "bare", "file > 2 GiB without large_file", (("inode[/file].i_size", 0x90000000),)),
    Recipe("rev0-names", "rev0", "'/' in name", (("entry[/dir:file-1].name", b"fi/e-1"), ("entry[/:twin].inode", FAR))),
    Recipe("meta-bg-names", "meta_bg", "entries", (("entry[/dir:file-1].name", b"fi/e-1"), ("entry[/:twin].inode", FAR))),
    Recipe("unlinked-big-directory", "ext2", "directory without a name", (Debugfs("unlink htree"),)),
]  # fmt: skip
