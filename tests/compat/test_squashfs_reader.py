"""Images by mksquashfs in every form, read as they were made, and as the kernel shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sifkit.squashfs.reader import Reader
from sifkit.squashfs.source import ByteSource

from ..support import trees
from ..support.facts import TreeFacts, assert_same, facts_of_host
from ..support.squashfs_images import facts_of_tree, make_squashfs, squashfs_mount, stats_of_tree
from ..support.tools import require

pytestmark = pytest.mark.root

WITHOUT_KERNEL = ("lzma", "filters")
"""What kernels do not read, or only with options that few are built with."""
FORMS = {
    "gzip": ["-comp", "gzip", "-b", "4K"],
    "lz4": ["-comp", "lz4", "-b", "1M"],
    "lzma": ["-comp", "lzma", "-b", "8K"],
    "lzo": ["-comp", "lzo", "-b", "128K"],
    "xz": ["-comp", "xz", "-b", "64K"],
    "zstd": ["-comp", "zstd", "-b", "256K"],
    "no fragments": ["-no-fragments"],
    "always fragments": ["-always-use-fragments", "-b", "32K"],
    "tail ends": ["-tailends", "-b", "16K"],
    "no exports": ["-no-exports", "-comp", "zstd"],
    "no attributes": ["-no-xattrs"],
    "owned by root": ["-all-root"],
    "stored": ["-noI", "-noD", "-noF", "-noX", "-noId"],
    "no sparse files": ["-no-sparse", "-b", "1M"],
    "filters": ["-comp", "xz", "-Xbcj", "x86", "-b", "4K"],
}
MOST_SECONDS = 1 << 32


@pytest.fixture(scope="module")
def source(sample_session: Path) -> tuple[Path, TreeFacts]:
    """A tree with one of each, and its facts as squashfs keeps them."""
    top = trees.everything(sample_session / "squashfs-source", big=False)
    make_long_attributes(top / "attributes" / "long-values")
    return top, facts_of_host(top)


def make_long_attributes(path: Path) -> None:
    """Values so long, and so often, that mksquashfs stores them once."""
    path.mkdir()
    for number in range(20):
        (path / f"{number}").write_bytes(b"v")
        trees.set_xattr(path / f"{number}", "user.long", b"long value" * 40)
        trees.set_xattr(path / f"{number}", "user.own", b"%d" % number)


def as_stored(facts: TreeFacts, *, xattrs: bool = True, root_owned: bool = False) -> TreeFacts:
    """What squashfs keeps of the facts: seconds without a sign, and attributes of three kinds."""
    kept: TreeFacts = {}
    for path, fact in facts.items():
        assert fact.mtime is not None
        seconds = fact.mtime // 10**9
        kept[path] = fact._replace(
            mtime=seconds * 10**9 if 0 <= seconds < MOST_SECONDS else None,
            uid=0 if root_owned else fact.uid,
            gid=0 if root_owned else fact.gid,
            xattrs={k: v for k, v in (fact.xattrs or {}).items() if xattrs and not k.startswith(b"system.")},
        )
    return kept


@pytest.mark.parametrize("form", FORMS)
def test_as_it_was_made(form: str, source: tuple[Path, TreeFacts], scratch: Path) -> None:
    require("mksquashfs")
    options = FORMS[form]
    image = make_squashfs(source[0], scratch / "image.sqfs", *options)
    with Reader.open(image) as reader:
        found = facts_of_tree(reader)
        want = as_stored(source[1], xattrs=form != "no attributes", root_owned=form == "owned by root")
        assert_same(found, want)
        stats = stats_of_tree(reader)
        if form in WITHOUT_KERNEL:
            return
        with squashfs_mount(image) as point:
            assert_same(found, facts_of_host(point))
            for path, stat in stats.items():
                now = os.lstat(os.path.join(os.fsencode(point), path))
                kernel = (
                    now.st_ino,
                    now.st_size,
                    now.st_nlink,
                    now.st_blocks,
                    now.st_mtime_ns,
                    now.st_atime_ns,
                    now.st_ctime_ns,
                )
                assert (stat.ino, stat.size, stat.links, stat.blocks, stat.mtime, stat.atime, stat.ctime) == kernel, path


def test_holes(scratch: Path) -> None:
    """Three gigabytes that are not there; the kernel says the same of the space they take."""
    require("mksquashfs")
    tree = scratch / "tree"
    tree.mkdir()
    trees.write_at(tree / "end", (3 << 30, b"end"))
    trees.write_at(tree / "ends", (0, b"begin"), (1 << 20, bytes(5000)), (200 << 20, b"middle"), size=(300 << 20) + 5)
    image = make_squashfs(tree, scratch / "image.sqfs", "-b", "1M", "-comp", "lz4")
    with Reader.open(image) as reader, squashfs_mount(image) as point:
        for name, starts in (("end", [3 << 30]), ("ends", [0, 200 << 20])):
            node = reader.find_name(reader.root, name.encode())
            assert node is not None
            stat, now = reader.stat(node), os.lstat(point / name)
            assert (stat.size, stat.blocks) == (now.st_size, now.st_blocks)
            with reader.open_file(node) as file, (point / name).open("rb") as kernel:
                ranges = file.data_ranges()
                assert [start for start, _ in ranges] == starts
                for offset in (0, 1 << 20, 200 << 20, (300 << 20) - 5, (3 << 30) - 5):
                    kernel.seek(offset)
                    assert file.read_at(offset, 10_000) == kernel.read(10_000)


def test_many_names(scratch: Path) -> None:
    """70,000 names in one directory: each is found, and the index keeps the search short."""
    require("mksquashfs")
    tree = trees.wide(scratch / "tree", 70_000)
    image = make_squashfs(tree, scratch / "image.sqfs", "-comp", "zstd", "-Xcompression-level", "1", "-no-xattrs")
    with Reader.open(image) as reader, squashfs_mount(image) as point:
        directory = reader.find_name(reader.root, b"wide")
        assert directory is not None
        (listing,) = reader.scan_many([directory])
        names = [row.name for row in listing.rows]
        assert listing.problem is None
        assert names == sorted(os.listdir(os.fsencode(point / "wide")))
        assert 0 < listing.directory_bytes < image.stat().st_size
        kernel = {entry.name: entry.inode() for entry in os.scandir(os.fsencode(point / "wide"))}
        assert {row.name: row.stat.ino for row in listing.rows} == kernel
        for row in listing.rows[::997]:
            counting = CountingSource(reader.source)
            alone = Reader(counting)
            counting.reads = 0
            assert alone.find_name(directory, row.name) == row.node
            assert counting.reads <= 8
            assert alone.find_name(directory, row.name + b"!") is None


class CountingSource:
    """A source that counts what is read of it."""

    def __init__(self, source: ByteSource) -> None:
        self.size = source.size
        self.reads = 0
        self._source = source

    def read_at(self, offset: int, size: int, /) -> bytes:
        self.reads += 1
        return self._source.read_at(offset, size)
