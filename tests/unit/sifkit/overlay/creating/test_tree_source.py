"""A tree of files as the source of a new image: everything it holds, and what is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.newfs.image import build_image
from ext3.newfs.plan import ImageOptions
from sifkit.overlay.creating.tree_source import TreeContent, scan_tree
from sifkit.vfs.data_limit import SharedBlocksError
from sifkit.vfs.errors import DamagedTreeError
from sifkit.vfs.file_tree import FileTree
from sifkit.vfs.host_tree import HostTree

from .....support.facts import assert_same, facts_of_host, facts_of_image
from .....support.memory_tree import MemoryNode, MemoryTree
from .....support.trees import everything

MIB = 1 << 20


def built(tree: FileTree[int], **options: int) -> MemoryDevice:
    """An image made of a tree."""
    builder = ext3.TreeBuilder()
    made = builder.finish(scan_tree(builder, tree))
    device = MemoryDevice(24 * MIB)
    build_image(made, device, options=ImageOptions(size=device.size, **options))  # type: ignore[arg-type]
    return device


def sample() -> MemoryTree:
    tree = MemoryTree()
    tree.nodes[0] = MemoryNode(0o041755, uid=5, gid=6, mtime=7_000_000_001, xattrs={b"user.top": b"1"})
    tree.add(b"/lost+found", MemoryNode(0o040700))
    tree.add(b"/d", MemoryNode(0o040700, uid=70_000, mtime=-1_500_000_000))
    linked = tree.add(b"/d/file", MemoryNode(0o104755, b"x" * 5000, gid=9, xattrs={b"user.a": b"b", b"trusted.c": b"d" * 300}))
    tree.add(b"/again", linked)
    tree.add(b"/d/holes", MemoryNode(0o100600, b"a" * 4096 + bytes(4096 * 30) + b"b" * 5000))
    tree.add(b"/only hole", MemoryNode(0o100600, bytes(50_000)))
    tree.add(b"/small hole", MemoryNode(0o100600, bytes(16384) + b"c"))
    tree.add(b"/empty", MemoryNode(0o100644))
    tree.add(b"/large", MemoryNode(0o100644, os.urandom(2 * MIB + 5)))
    tree.add(b"/link", MemoryNode(0o120777, b"t" * 200))
    tree.add(b"/fast", MemoryNode(0o120777, b"d/file"))
    tree.add(b"/whiteout", MemoryNode(0o020000, device=(0, 0)))
    tree.add(b"/disk", MemoryNode(0o060660, device=(8, 1)))
    tree.add(b"/fifo", MemoryNode(0o010600))
    tree.add(b"/socket", MemoryNode(0o140600))
    return tree


def test_everything_of_a_tree_is_in_the_image() -> None:
    tree = sample()
    with ext3.Filesystem.open(built(tree)) as fs:
        found = facts_of_image(fs)
        assert len(found) == 15
        for path, fact in found.items():
            number = 0
            for part in filter(None, path.split(b"/")):
                number = tree.nodes[number].entries[part]
            node = tree.nodes[number]
            assert (fact.mode, fact.uid, fact.gid, fact.mtime) == (node.mode, node.uid, node.gid, node.mtime), path
            assert (fact.rdev, fact.xattrs) == (node.device, node.xattrs), path
            if fact.mode & 0o170000 == 0o100000:
                assert fs.read_bytes(path) == node.content
        assert found[b"/again"].first == b"/again" and found[b"/d/file"].first == b"/again" and found[b"/again"].links == 2
        assert fs.readlink("/link") == b"t" * 200 and fs.readlink("/fast") == b"d/file"
        unit = fs.superblock.block_size
        assert [extent[0] * unit for extent in fs.data_extents("/d/holes")] == [0, 31 * 4096]
        assert fs.data_extents("/only hole") == [] and fs.data_extents("/small hole")[0][0] * unit == 16384


def test_a_copy_of_a_copy_is_the_same(tmp_path: Path) -> None:
    """From an image, with other sizes of blocks and inodes between; sparse files keep their holes where blocks allow."""
    everything(tmp_path / "t", big=False)
    first = built(HostTree(tmp_path / "t"), block_size=1024)  # type: ignore[arg-type]
    with ext3.Filesystem.open(first) as fs:
        facts, sparse = facts_of_image(fs), fs.data_extents("/files/many-holes")
        assert_same(facts, facts_of_host(tmp_path / "t"))
        second = built(fs, block_size=4096)
        third = built(fs, block_size=1024)
    for device in (second, third):
        with ext3.Filesystem.open(device) as fs:
            assert_same(facts_of_image(fs), facts)
    with ext3.Filesystem.open(third) as fs:
        assert [(at, count) for at, _, count in fs.data_extents("/files/many-holes")] == [(at, n) for at, _, n in sparse]


def test_large_files_are_copied_from_where_they_lie(tmp_path: Path) -> None:
    """In the kernel, in as many pieces as the file has."""
    image, parts = tmp_path / "a.img", [os.urandom(MIB), os.urandom(MIB + 5)]
    ext3.mkfs(image, 16 * MIB, block_size=1024)
    with ext3.Filesystem.open(image, "r+") as fs:
        for name in ("/one", "/two"):
            fs.create(name)
        for number, part in enumerate(parts):
            for name in ("/one", "/two"):
                with fs.open_file(name, "r+") as file:
                    file.write_at(number * 2 * MIB, part)
    with ext3.Filesystem.open(image) as fs:
        builder = ext3.TreeBuilder()
        content = scan_tree(builder, fs)
        tree = builder.finish(content)
        assert {tree.names[node] for node in tree.segments} == {b"one", b"two"}
        for node, segments in tree.segments.items():
            with content.open(node) as file:
                assert file.fd is not None
                whole = bytearray(3 * MIB + 5)
                for offset, length, place in segments:
                    assert file.read_into(memoryview(whole)[offset : offset + length], place) == length
            assert whole == parts[0] + bytes(MIB) + parts[1]
        build_image(tree, tmp_path / "b.img", options=ImageOptions(size=16 * MIB, block_size=4096))
    with ext3.Filesystem.open(tmp_path / "b.img") as fs:
        assert fs.read_bytes("/two") == whole
        assert [at for at, _, _ in fs.data_extents("/two")] == [0, 512]


def refused(tree: MemoryTree, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        scan_tree(ext3.TreeBuilder(), tree)


def test_a_damaged_tree_is_refused() -> None:
    tree = sample()
    tree.add(b"/d/above", tree.nodes[0].entries[b"d"])
    refused(tree, DamagedTreeError, "in it twice")
    tree = sample()
    tree.add(b"/odd", MemoryNode(0o170644))
    refused(tree, DamagedTreeError, "mode")
    tree = sample()
    tree.data_limit = 2 * MIB
    refused(tree, SharedBlocksError, "more data")


def test_a_name_twice_is_refused() -> None:
    class Twice(MemoryTree):
        def scan_many(self, directories, /, *, stats=True):  # type: ignore[no-untyped-def]
            for listing in super().scan_many(directories, stats=stats):
                yield listing._replace(rows=[row for row in listing.rows for _ in range(1 + (row.name == b"file"))])

    tree = Twice()
    tree.nodes = sample().nodes
    refused(tree, DamagedTreeError, "/d/file: .*twice")


def test_what_cannot_be_read_is_raised_with_its_path() -> None:
    tree = sample()
    content: TreeContent[int] = TreeContent(tree)
    content.add(1, tree.nodes[0].entries[b"empty"], b"/empty")
    with pytest.raises(ext3.ContentChangedError, match="/empty"):
        content.read_whole(1, memoryview(bytearray(5)))
    content.add(2, tree.nodes[0].entries[b"fifo"], b"/fifo")
    for read in (content.open, lambda node: content.read_whole(node, memoryview(bytearray(5)))):
        with pytest.raises(ext3.SourceError, match=r"/fifo.*cannot be read") as caught:
            read(2)
        assert caught.value.errno == errno.EINVAL
