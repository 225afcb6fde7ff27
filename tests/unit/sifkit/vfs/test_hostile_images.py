"""Images made to hurt: what they may cost an extraction is bounded by what they are, in calls, bytes and names."""

from __future__ import annotations

import os

import pytest

import ext3
from ext3.constants import FileType
from ext3.format.schema import GROUP_DESC, INODE_CORE
from ext3.read.filesystem import Filesystem
from sifkit.vfs.data_limit import SharedBlocksError
from sifkit.vfs.extracting import extract

from ....support.tiny_image import BLOCK, INODES, TinyImage, dirents

STAMP = ext3.Stamp(1_700_000_000, bytes(16), bytes(16))
TIMES = (0, 0, 0, 0, 0, 0)

pytestmark = pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot extract")


class Calls:
    """Counts calls of functions of ``os``."""

    def __init__(self, monkeypatch, *names):
        self.count = dict.fromkeys(names, 0)
        for name in names:
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name, real):
        def call(*args, **options):
            self.count[name] += 1
            return real(*args, **options)

        return call


@pytest.fixture
def alone(monkeypatch):
    """All work in this process, where calls are counted; they are not the system's own then."""
    monkeypatch.setattr("sifkit.vfs.extracting.supported", lambda: True)
    monkeypatch.setattr("sifkit.vfs.extracting.workers_for", lambda jobs: 1)


def built(builder, content, size=16 << 20):
    device = ext3.MemoryDevice(size)
    tree = builder.finish(ext3.MemoryContent(content))
    ext3.build_image(tree, device, options=ext3.ImageOptions(size=size), stamp=STAMP)
    return Filesystem(device)


def test_directories_far_down_are_not_walked_to_for_each_file(tmp_path, monkeypatch, alone):
    builder = ext3.TreeBuilder()
    above = builder.add(0, b"", 0o040755, 0, 0, 0, TIMES)
    for _ in range(200):
        above = builder.add(above, b"d", 0o040755, 0, 0, 0, TIMES)
    below = [builder.add(above, b"%03d" % number, 0o040755, 0, 0, 0, TIMES) for number in range(100)]
    content = {}
    for name in (b"a", b"b", b"c"):  # the data lies in this order: from directory to directory
        for directory in below:
            node = builder.add(directory, name, 0o100644, 0, 0, 3, TIMES)
            content[node] = b"xyz"
    filesystem = built(builder, content)
    calls = Calls(monkeypatch, "open")
    made = extract(filesystem, tmp_path / "out")
    assert (made.files, made.directories, made.failed) == (300, 301, 0)
    assert calls.count["open"] < 300 + 6 * 301


@pytest.mark.slow
@pytest.mark.parametrize("levels", [1, 3])
def test_a_few_calls_for_each_small_file(tmp_path, monkeypatch, alone, levels):
    builder = ext3.TreeBuilder()
    above = builder.add(0, b"", 0o040755, os.getuid(), os.getgid(), 0, TIMES)
    content = {}
    for _ in range(levels):
        above = builder.add(above, b"d", 0o040755, os.getuid(), os.getgid(), 0, TIMES)
        for number in range(200):
            node = builder.add(above, b"%03d" % number, 0o100644, os.getuid(), os.getgid(), 3, TIMES)
            content[node] = b"xyz"
    old = os.umask(0o022)
    try:
        calls = Calls(monkeypatch, "open", "write", "pwrite", "fchown", "fchmod", "fstat", "utime", "close", "stat")
        assert extract(built(builder, content), tmp_path / "out").failed == 0
    finally:
        os.umask(old)
    files = 200 * levels
    assert sum(calls.count.values()) < 4 * files + 100
    assert calls.count["fchown"] + calls.count["fchmod"] < 30


def test_a_hole_of_terabytes_stays_a_hole(tmp_path):
    image = TinyImage()
    for ino in range(11, 31):
        image.entry(b"hole%d" % ino, ino, FileType.REGULAR)
        image.inode(ino, 0o100644, [], i_size=0, i_size_high=3)
    made = extract(image.open(), tmp_path / "out")
    assert (made.files, made.written_bytes) == (20, 0)
    assert all(path.stat().st_size == 3 << 32 for path in (tmp_path / "out").iterdir())
    assert sum(path.stat().st_blocks for path in (tmp_path / "out").iterdir()) * 512 < 1 << 20


def test_a_hole_no_host_can_hold_concerns_one_file(tmp_path):
    image = TinyImage()
    image.entry(b"bad", 11, FileType.REGULAR)
    image.entry(b"good", 12, FileType.REGULAR)
    image.inode(11, 0o100644, [], i_size=0xFFFFFFFF, i_size_high=0xFFFFFFFF)
    image.file(12, b"good")
    made = extract(image.open(), tmp_path / "out")
    assert (made.files, made.failed) == (1, 1)
    assert (tmp_path / "out" / "good").read_bytes() == b"good"


@pytest.mark.parametrize("pointers", [1, 12])
def test_one_block_in_every_file_ends_the_extraction(tmp_path, pointers):
    image = TinyImage()
    block = image.block(b"again and again")
    shared = [block] * pointers  # a run of one block, or what is no run
    names = []
    for ino in range(11, INODES + 1):
        image.inode(ino, 0o100644, shared, i_size=pointers * BLOCK, i_blocks=2 * pointers)
        names.append((b"%02d" % ino, ino, FileType.REGULAR))
    root = image.block(dirents([(b".", 2, FileType.DIRECTORY), (b"..", 2, FileType.DIRECTORY), *names]))
    image.inode(2, 0o40755, [root], i_size=BLOCK, i_blocks=2)
    image.superblock(s_blocks_count=53)
    filesystem = image.open()
    with pytest.raises(SharedBlocksError, match="more data than it has room for"):
        extract(filesystem, tmp_path / "out")
    taken = sum(path.stat().st_blocks * 512 for path in (tmp_path / "out").iterdir())
    assert taken < 16 * len(image.data)


def test_blocks_of_directories_are_read_once(tmp_path):
    image = TinyImage()
    names = [(b"%c%c" % (65 + number // 26, 97 + number % 26), 11, FileType.REGULAR) for number in range(80)]
    shared = image.block(dirents([(b".", 30, FileType.DIRECTORY), (b"..", 2, FileType.DIRECTORY), *names]))
    image.entry(b"first", 30, FileType.DIRECTORY)
    image.inode(30, 0o40755, [shared], i_size=BLOCK)
    for number in range(1, 30):
        image.entry(b"d%02d" % number, 30 + number, FileType.DIRECTORY)
        image.inode(30 + number, 0o40755, [shared] * 12, i_size=12 * BLOCK)
    image.inode(11, 0o100644, [])
    made = extract(image.open(), tmp_path / "out")
    assert (made.directories, made.files, made.links, made.failed) == (30, 1, 79, 29)


def test_paths_that_are_told_are_bounded(tmp_path):
    builder = ext3.TreeBuilder()
    above = builder.add(0, b"", 0o040755, 0, 0, 0, TIMES)
    for _ in range(100):
        above = builder.add(above, b"d" * 200, 0o040755, 0, 0, 0, TIMES)
    for number in range(300):
        builder.add(above, b"%03d" % number, 0o100644, 0, 0, 0, TIMES)
    filesystem = built(builder, {})
    size = filesystem.superblock.inode_size
    table = int(filesystem.groups["bg_inode_table"][0]) * filesystem.superblock.block_size
    broken = [entry.ino for _, entry in filesystem.walk() if entry.name.isdigit()]
    assert max(broken) <= filesystem.superblock.inodes_per_group
    for ino in broken:
        INODE_CORE.view(filesystem.device.data, 1, table + (ino - 1) * size)["i_size_high"] = 1 << 31
    made = extract(Filesystem(filesystem.device), tmp_path / "out")
    assert (made.failed, len(made.problems)) == (300, 100)
    assert all(len(path) < 5000 and path.startswith(b".../") for path, _ in made.problems)


@pytest.mark.slow
def test_a_table_that_is_nowhere_concerns_its_files(tmp_path):
    builder = ext3.TreeBuilder()
    top = builder.add(0, b"", 0o040755, 0, 0, 0, TIMES)
    content = {}
    for number in range(4000):
        content[builder.add(top, b"%04d" % number, 0o100644, 0, 0, 1, TIMES)] = b"x"
    device = ext3.MemoryDevice(40 << 20)
    options = ext3.ImageOptions(size=40 << 20, inodes=5000)
    ext3.build_image(builder.finish(ext3.MemoryContent(content)), device, options=options, stamp=STAMP)
    with Filesystem(device) as filesystem:
        assert len(filesystem.groups) > 2
        beyond = 2 * filesystem.superblock.inodes_per_group
        inos = [entry.ino for _, entry in filesystem.walk() if entry.name.isdigit()]
        lost = sum(filesystem.superblock.inodes_per_group < ino <= beyond for ino in inos)
        assert 0 < lost < 4000
        at = (filesystem.superblock.first_data_block + 1) * filesystem.superblock.block_size
    GROUP_DESC.view(device.data, 2, at)["bg_inode_table"][1] = 1 << 30
    with Filesystem(device) as filesystem:
        made = extract(filesystem, tmp_path / "out")
    assert (made.files, made.failed, len(made.problems)) == (4000 - lost, lost, 100)


def test_a_loop_of_directories_is_entered_once(tmp_path):
    image = TinyImage()
    image.entry(b"a", 11, FileType.DIRECTORY)
    image.directory(11, [(b"up", 2, FileType.DIRECTORY), (b"self", 11, FileType.DIRECTORY), (b"file", 12, FileType.REGULAR)])
    image.file(12, b"x")
    made = extract(image.open(), tmp_path / "out")
    assert (made.files, made.directories, made.failed) == (1, 1, 2)
