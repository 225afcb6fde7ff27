"""Whole images in memory: what goes in is what the reader finds; what cannot go in is refused before anything is written."""

from __future__ import annotations

import io
import uuid
from dataclasses import replace

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.format.superblock import parse_superblock
from ext3.newfs.image import plan_tree
from ext3.newfs.metadata import Metadata

MIB = 1 << 20
STAMP = ext3.Stamp(1_700_000_000, uuid.UUID(int=0x1234).bytes, uuid.UUID(int=0x5678).bytes)
TIMES = (1_600_000_001, 1_600_000_002, 1_600_000_003, 11, 22, 33)
SMALL = ext3.ImageOptions(size=8 * MIB)


def tree_of(files: dict[bytes, bytes], *, directories: tuple[bytes, ...] = ()) -> ext3.Tree:
    """A tree with these files (path -> data) and directories below a plain root."""
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o40755, 0, 0, 0, TIMES)
    nodes = {b"": 0}
    data: dict[int, bytes] = {}

    def directory(path: bytes) -> int:
        if path not in nodes:
            parent, _, name = path.rpartition(b"/")
            nodes[path] = builder.add(directory(parent), name, 0o40755, 5, 6, 0, TIMES)
        return nodes[path]

    for path in directories:
        directory(path)
    for path, content in files.items():
        parent, _, name = path.rpartition(b"/")
        node = builder.add(directory(parent), name, 0o100640, 70000, 80000, len(content), TIMES)
        data[node] = content
    return builder.finish(ext3.MemoryContent(data))


def built(tree: ext3.Tree, options: ext3.ImageOptions = SMALL, stamp: ext3.Stamp = STAMP) -> MemoryDevice:
    """An image in memory, over bytes that are anything but zero."""
    plan = plan_tree(tree, options, stamp)
    device = MemoryDevice(b"\xa5" * plan.geometry.size_bytes)
    ext3.build_image(tree, device, options=options, stamp=stamp)
    return device


class Rotten(MemoryDevice):
    """A device on which one bit turns where ``block`` is written."""

    def __init__(self, size: int, block: int) -> None:
        super().__init__(size)
        self.at = block * 1024 + 300

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        super().write(offset, data)
        if offset <= self.at < offset + len(data):
            self.data[self.at] ^= 1


@pytest.mark.parametrize("place", ["inode table", "block bitmap", "group descriptors", "superblock", "directory block"])
def test_a_device_that_lies_is_noticed(place: str) -> None:
    plan = plan_tree(tree_of({b"a": b"data"}), SMALL, STAMP)
    geometry = plan.geometry
    block = {
        "inode table": int(geometry.columns.inode_table[0]),
        "block bitmap": int(geometry.columns.block_bitmap[0]),
        "group descriptors": geometry.first_data_block + 1,
        "superblock": geometry.first_data_block,
        "directory block": plan.space.block(int(plan.data_at[0])),
    }[place]
    device = Rotten(plan.geometry.size_bytes, block)
    if place == "group descriptors":
        device.at = block * 1024 + 12  # bg_free_blocks_count of the first group
    elif place == "superblock":
        device.at = block * 1024 + 12  # s_free_blocks_count
    with pytest.raises(ext3.CorruptError, match=place):
        ext3.build_image(plan.tree, device, options=SMALL, stamp=STAMP)


def test_data_and_facts_come_back() -> None:
    files = {b"a": b"", b"b": b"x" * 1024, b"c": b"y" * 300_000, b"d/e/f": b"deep", b"d/g": b"z" * 13 * 1024}
    with ext3.Filesystem.open(built(tree_of(files))) as fs:
        for path, data in files.items():
            assert fs.read_bytes(path) == data
        stat = fs.stat(b"c")
        assert (stat.uid, stat.gid, stat.mode) == (70000, 80000, 0o100640)
        assert stat.mtime == 1_600_000_002 * 10**9 + 22
        assert stat.atime == 1_600_000_001 * 10**9 + 11
        assert stat.ctime == 1_600_000_003 * 10**9 + 33
        assert {entry.name for entry in fs.scandir(b"/")} == {b"a", b"b", b"c", b"d", b"lost+found"}


@pytest.mark.parametrize("seconds", [-(2**31), -1, 0, 2**31 - 1, 2**31, 2**32, 2**33 + 5, 2**34 - 2**31 - 1])
def test_times_of_all_epochs(seconds: int) -> None:
    tree = tree_of({b"f": b"1"})
    for name in ("atime", "mtime", "ctime"):
        tree.nodes[name][1] = seconds
    with ext3.Filesystem.open(built(tree)) as fs:
        assert fs.stat(b"f").mtime == seconds * 10**9 + 22


def test_times_out_of_range_stop_at_the_end_of_the_range() -> None:
    tree = tree_of({b"f": b"1", b"g": b"1"})
    tree.nodes["mtime"][1] = 2**40
    tree.nodes["mtime"][2] = -(2**40)
    with ext3.Filesystem.open(built(tree)) as fs:
        assert fs.stat(b"f").mtime // 10**9 == 2**34 - 2**31 - 1
        assert fs.stat(b"g").mtime // 10**9 == -(2**31)


def test_hard_links_and_specials() -> None:
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o41777, 1, 2, 0, TIMES)
    file = builder.add(0, b"file", 0o104755, 0, 0, 3, TIMES)
    builder.link(0, b"again", file)
    short = builder.add(0, b"short", 0o120777, 0, 0, 59, TIMES)
    builder.targets[short] = b"s" * 59
    long = builder.add(0, b"long", 0o120777, 0, 0, 60, TIMES)
    builder.targets[long] = b"l" * 60
    builder.link(0, b"long2", long)
    for name, mode, numbers in ((b"null", 0o020666, (1, 3)), (b"big", 0o060600, (300, 70000))):
        builder.devices[builder.add(0, name, mode, 0, 0, 0, TIMES)] = numbers
    builder.add(0, b"fifo", 0o010600, 0, 0, 0, TIMES)
    builder.add(0, b"sock", 0o140600, 0, 0, 0, TIMES)
    with ext3.Filesystem.open(built(builder.finish(ext3.MemoryContent({file: b"abc"})))) as fs:
        assert fs.stat(b"/").mode == 0o41777
        assert fs.stat(b"file").ino == fs.stat(b"again").ino
        assert fs.stat(b"file").links == 2
        assert fs.readlink(b"short") == b"s" * 59
        assert fs.readlink(b"long2") == b"l" * 60
        kinds = {entry.name: int(entry.file_type) for entry in fs.scandir(b"/")}
        assert (kinds[b"null"], kinds[b"big"], kinds[b"fifo"], kinds[b"sock"]) == (3, 4, 5, 6)


def test_shared_attribute_blocks_are_counted() -> None:
    tree = tree_of({b"f%d" % number: b"" for number in range(1100)})
    for node in range(1, 1101):
        tree.xattrs[node] = {b"user.big": b"v" * 500}
    with ext3.Filesystem.open(built(tree)) as fs:
        blocks = {fs.stat(b"f%d" % number).file_acl for number in range(1100)}
        assert len(blocks) == 2  # 1024 inodes share one, the rest another
        assert fs.xattrs(b"f1099") == {b"user.big": b"v" * 500}


def test_attribute_too_large_names_the_path() -> None:
    tree = tree_of({b"d/f": b""})
    tree.xattrs[2] = {b"user.big": b"v" * 2000}
    with pytest.raises(ext3.XattrError, match=r"/d/f: .*2000 bytes.*1024"):
        built(tree)


def test_no_space_says_how_much_is_needed_and_writes_nothing() -> None:
    tree = tree_of({b"f": b"x" * 12 * MIB})
    file = io.BytesIO(b"untouched")
    with pytest.raises(ext3.NoSpaceError) as caught:
        ext3.build_image(tree, file, options=SMALL, stamp=STAMP)
    assert file.getvalue() == b"untouched"
    built(tree, replace(SMALL, size=caught.value.needed_bytes))
    with pytest.raises(ext3.NoSpaceError):
        built(tree, replace(SMALL, size=caught.value.needed_bytes - MIB))


def test_no_inodes_says_how_many() -> None:
    tree = tree_of({b"f%d" % number: b"" for number in range(200)})
    with pytest.raises(ext3.NoInodesError) as caught:
        built(tree, replace(SMALL, inodes=100))
    assert caught.value.needed == 211
    built(tree, replace(SMALL, inodes=caught.value.enough))


def test_inodes_follow_the_content_where_nothing_was_asked() -> None:
    tree = tree_of({b"f%d" % number: b"" for number in range(3000)})
    plan = plan_tree(tree, SMALL, STAMP)
    assert plan.geometry.inodes >= 6000


@pytest.mark.parametrize("count", [1, 30, 1000])
def test_automatic_size_leaves_a_quarter_of_the_content(count: int) -> None:
    tree = tree_of({b"f%d" % number: b"x" * 100_000 for number in range(count)})
    plan = plan_tree(tree, ext3.ImageOptions(), STAMP)
    assert plan.geometry.size_bytes >= 64 * MIB
    assert plan.free_blocks >= plan.demand.blocks // 4


@pytest.mark.parametrize("megabytes", [300, 420, 440, 460, 480, 520])
def test_automatic_size_around_the_change_of_block_size(megabytes: int) -> None:
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o40755, 0, 0, 0, TIMES)
    for number in range(megabytes):
        builder.add(0, b"%d" % number, 0o100644, 0, 0, MIB, TIMES)
    plan = plan_tree(builder.finish(ext3.MemoryContent()), ext3.ImageOptions(), STAMP)
    assert plan.geometry.block_size == (1024 if plan.geometry.size_bytes < 512 * MIB else 4096)
    assert plan.free_blocks >= plan.demand.blocks // 4


@pytest.fixture(scope="module")
def many_small_files() -> ext3.Tree:
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o40755, 0, 0, 0, TIMES)
    for number in range(400_000):
        builder.add(0, b"%d" % number, 0o100644, 0, 0, 1, TIMES)
    return builder.finish(ext3.MemoryContent())


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [40, 500])
def test_the_size_that_is_named_is_enough_in_the_blocks_it_has(many_small_files: ext3.Tree, megabytes: int) -> None:
    """Images below 512 MiB have blocks of 1 KiB, larger ones of 4 KiB, in which small files take more."""
    tree = many_small_files
    with pytest.raises(ext3.NoSpaceError) as caught:
        plan_tree(tree, ext3.ImageOptions(size=megabytes * MIB), STAMP)
    plan = plan_tree(tree, ext3.ImageOptions(size=caught.value.needed_bytes), STAMP)
    assert plan.geometry.block_size == 4096


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ext3.ImageOptions(size=1000), "too few"),
        (ext3.ImageOptions(size=MIB), "too few for a journal"),
        (ext3.ImageOptions(size=8 * MIB, block_size=512), "block size 512"),
        (ext3.ImageOptions(size=8 * MIB, inode_size=200), "inode size 200"),
        (ext3.ImageOptions(size=8 * MIB, journal_bytes=5000), "journal of 5000 bytes"),
        (ext3.ImageOptions(size=8 * MIB, journal_bytes=7 * MIB), "over half"),
        (ext3.ImageOptions(size=8 * MIB, reserved_percent=70), "reserved percentage"),
        (ext3.ImageOptions(size=8 * MIB, label=b"x" * 17), "17 bytes"),
        (ext3.ImageOptions(size=8 * MIB, inodes=2_000_000), "inodes"),
    ],
)
def test_numbers_that_make_no_filesystem(options: ext3.ImageOptions, words: str) -> None:
    with pytest.raises(ext3.GeometryError, match=words):
        plan_tree(tree_of({}), options, STAMP)


def test_a_file_called_lost_and_found_is_refused() -> None:
    with pytest.raises(ext3.SourceError, match=r"lost\+found"):
        tree_of({b"lost+found": b""})


def test_a_lost_and_found_of_the_source_is_kept() -> None:
    with ext3.Filesystem.open(built(tree_of({b"lost+found/x": b"kept"}))) as fs:
        assert fs.lookup(b"/lost+found") == 11
        assert fs.read_bytes(b"/lost+found/x") == b"kept"


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"nul\0", b"x" * 256])
def test_impossible_names(name: bytes) -> None:
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o40755, 0, 0, 0, TIMES)
    with pytest.raises(ext3.SourceError):
        builder.add(0, name, 0o100644, 0, 0, 0, TIMES)


def test_too_many_subdirectories_are_refused() -> None:
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o40755, 0, 0, 0, TIMES)
    parent = builder.add(0, b"wide", 0o40755, 0, 0, 0, TIMES)
    for number in range(31_999):
        builder.add(parent, b"%d" % number, 0o40755, 0, 0, 0, TIMES)
    with pytest.raises(ext3.SourceError, match=r"/wide: 31999 subdirectories"):
        builder.finish(ext3.MemoryContent())


def test_backups_differ_from_the_primary_in_state_and_number_only() -> None:
    plan = plan_tree(tree_of({}), ext3.ImageOptions(size=64 * MIB), STAMP)
    primary, backup = Metadata(plan).superblock(), Metadata(plan).superblock(3)
    assert {at for at in range(1024) if primary[at] != backup[at]} == {0x3A, 0x5A}


def test_an_offset_in_a_file_object_leaves_the_rest_alone() -> None:
    file = io.BytesIO(b"H" * 5000 + b"\xee" * (9 * MIB))
    ext3.mkfs(file, 8 * MIB, stamp=STAMP, offset=5000)
    assert file.getvalue()[:5000] == b"H" * 5000
    assert file.getvalue()[5000 + 8 * MIB :] == b"\xee" * (MIB)
    with ext3.Filesystem.open(file, offset=5000) as fs:
        assert [entry.name for entry in fs.scandir(b"/")] == [b"lost+found"]


def test_same_input_same_bytes_and_stamp_derived_from_it() -> None:
    first, second = tree_of({b"a": b"1", b"b/c": b"2"}), tree_of({b"a": b"1", b"b/c": b"2"})
    stamps = [ext3.Stamp.derived(1_000_000_000, tree, "x") for tree in (first, second)]
    assert stamps[0] == stamps[1]
    assert ext3.Stamp.derived(1_000_000_001, first, "x") != stamps[0]
    assert ext3.Stamp.derived(1_000_000_000, first, "y") != stamps[0]
    assert built(first, stamp=stamps[0]).data == built(second, stamp=stamps[1]).data


def test_content_that_changed_length_is_an_error() -> None:
    tree = tree_of({b"f": b"12345"})
    assert isinstance(tree.content, ext3.MemoryContent)
    tree.content.data[1] = b"123"
    with pytest.raises(ext3.ContentChangedError):
        built(tree)


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
def test_large_files_begin_where_a_folio_does(block_size: int) -> None:
    """Where there is room; the blocks in between stay free."""
    data = {b"file%d" % number: bytes([number]) * (MIB + 1000 * number) for number in range(1, 12)} | {b"small": b"s" * 5000}
    options = ext3.ImageOptions(size=40 * MIB, block_size=block_size)
    device = built(tree_of(data), options)
    with ext3.Filesystem.open(device) as fs:
        for name, content in data.items():
            assert fs.read_bytes(name) == content
            if len(content) > MIB:
                _, block, _ = next(iter(fs.data_extents(fs.stat(name).ino)))
                assert block * block_size % (64 << 10) == 0
    needed = plan_tree(
        tree_of(data), ext3.ImageOptions(block_size=block_size, slack=0.0, smallest=MIB), STAMP
    ).geometry.size_bytes
    tight = built(tree_of(data), ext3.ImageOptions(size=needed, block_size=block_size))
    with ext3.Filesystem.open(tight) as fs:
        assert all(fs.read_bytes(name) == content for name, content in data.items())


def test_backups_in_groups_beyond_16_bits() -> None:
    """Their superblocks have the highest number the field holds, as mke2fs writes them."""
    options = ext3.ImageOptions(size=640 << 30, block_size=1024, inodes=90_000)
    metadata = Metadata(plan_tree(tree_of({}), options, STAMP))
    numbers = [parse_superblock(metadata.superblock(group), device_size=640 << 30).group_number for group in (0, 3**10, 5**7)]
    assert numbers == [0, 3**10, 65535]
