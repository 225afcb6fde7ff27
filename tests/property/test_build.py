"""Random trees: what the builder was given is what the reader finds, for every block and inode size."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ext3
from ext3.device.base import MemoryDevice

STAMP = ext3.Stamp(1_700_000_000, uuid.UUID(int=1).bytes, uuid.UUID(int=2).bytes)
MIB = 1 << 20

names = st.binary(min_size=1, max_size=255).filter(lambda name: not {b"/", b"\0"} & {bytes([c]) for c in name})
names = names.filter(lambda name: name not in (b".", b"..", b"lost+found"))
short_names = st.text("abcé\n ", min_size=1, max_size=4).map(str.encode)
seconds = st.integers(-(2**31), 2**34 - 2**31 - 1)
nanoseconds = st.integers(0, 999_999_999)
times = st.tuples(seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds)
owners = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
xattrs = st.dictionaries(
    st.sampled_from([b"user.a", b"user.long_name_of_an_attribute", b"trusted.overlay.opaque", b"security.capability"]),
    st.binary(max_size=150),
    max_size=3,
)


@dataclass
class Item:
    kind: str
    permissions: int
    owner: tuple[int, int]
    times: tuple[int, int, int, int, int, int]
    xattrs: dict[bytes, bytes]
    data: bytes = b""
    segments: list[tuple[int, bytes]] = field(default_factory=list)
    size: int = 0
    children: dict[bytes, Item] = field(default_factory=dict)


@st.composite
def items(draw: st.DrawFn, depth: int = 0) -> Item:
    kinds = ["file", "file", "symlink", "fifo", "device", "sparse"] + (["directory"] * 3 if depth < 3 else [])
    kind = "directory" if depth == 0 else draw(st.sampled_from(kinds))
    item = Item(kind, draw(st.integers(0, 0o7777)), draw(owners), draw(times), draw(xattrs))
    if kind == "file":
        item.data = draw(st.binary(max_size=64)) * draw(st.sampled_from([0, 1, 16, 200, 5000]))
    elif kind == "symlink":
        item.data = draw(st.binary(min_size=1, max_size=5)).replace(b"\0", b"x") * draw(st.sampled_from([1, 11, 12, 13, 100]))
    elif kind == "sparse":
        at = 0
        for gap, length in draw(st.lists(st.tuples(st.integers(1, 400_000), st.integers(1, 9000)), max_size=4)):
            item.segments.append((at + gap, bytes([len(item.segments) + 1]) * length))
            at += gap + length
        item.size = at + draw(st.integers(0, 50_000))
    elif kind == "directory":
        found = draw(st.dictionaries(st.one_of(names, short_names), items(depth + 1), max_size=8))
        if depth == 0:
            found.pop(b"lost+found", None)
        item.children = found
    return item


BITS = {"file": 0o100000, "sparse": 0o100000, "directory": 0o40000, "symlink": 0o120000, "fifo": 0o10000, "device": 0o20000}


def _tree(root: Item) -> ext3.Tree:
    builder = ext3.TreeBuilder()
    data: dict[int, bytes] = {}

    def add(item: Item, parent: int, name: bytes) -> None:
        size = {"file": len(item.data), "symlink": len(item.data), "sparse": item.size}.get(item.kind, 0)
        node = builder.add(parent, name, BITS[item.kind] | item.permissions, *item.owner, size, item.times)
        if item.xattrs:
            builder.xattrs[node] = item.xattrs
        if item.kind == "file":
            data[node] = item.data
        elif item.kind == "sparse":
            content, segments = b"", []
            for offset, piece in item.segments:
                segments.append((offset, len(piece), len(content)))
                content += piece
            data[node] = content
            builder.segments[node] = segments
        elif item.kind == "symlink":
            builder.targets[node] = item.data
        elif item.kind == "device":
            builder.devices[node] = (item.owner[0] % 4096, item.owner[1] % (1 << 20))
        for child, inner in item.children.items():
            add(inner, node, child)

    add(root, 0, b"")
    return builder.finish(ext3.MemoryContent(data))


def _compare(fs: ext3.Filesystem, item: Item, ino: int, inode_size: int) -> None:
    stat = fs.stat(ino)
    assert stat.mode == BITS[item.kind] | item.permissions
    assert (stat.uid, stat.gid) == item.owner
    if inode_size > 128:
        assert [stat.atime, stat.mtime, stat.ctime] == [item.times[n] * 10**9 + item.times[n + 3] for n in range(3)]
    assert fs.xattrs(ino) == item.xattrs
    if item.kind == "file":
        assert fs.read_bytes(ino) == item.data
    elif item.kind == "sparse":
        want = bytearray(item.size)
        for offset, piece in item.segments:
            want[offset : offset + len(piece)] = piece
        assert fs.read_bytes(ino) == want
        assert stat.blocks * 512 <= sum(len(piece) + 2 * 4096 for _, piece in item.segments) + 8 * 4096
    elif item.kind == "symlink":
        assert fs.readlink(ino) == item.data
    elif item.kind == "device":
        assert (stat.major, stat.minor) == (item.owner[0] % 4096, item.owner[1] % (1 << 20))
    elif item.kind == "directory":
        found = {entry.name: entry.ino for entry in fs.scandir(ino)}
        found.pop(b"lost+found", None) if ino == 2 else None
        assert found.keys() == item.children.keys()
        for name, child in item.children.items():
            _compare(fs, child, found[name], inode_size)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(items(), st.sampled_from([1024, 2048, 4096]), st.sampled_from([128, 256, 512]))
def test_random_trees_come_back(root: Item, block_size: int, inode_size: int) -> None:
    options = ext3.ImageOptions(size=24 * MIB, block_size=block_size, inode_size=inode_size)
    device = MemoryDevice(b"\x5a" * (24 * MIB))
    ext3.build_image(_tree(root), device, options=options, stamp=STAMP)
    with ext3.Filesystem.open(device) as fs:
        _compare(fs, root, 2, inode_size)
