from __future__ import annotations

import errno
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ext3.constants import FileType
from ext3.device.base import MemoryDevice
from ext3.errors import CorruptError, DeviceError, Ext3Error, PathError, PathNotFoundError
from ext3.format import xattr
from ext3.format.dirent import Entry
from ext3.format.schema import INODE_EXTRA
from ext3.read.filesystem import Filesystem

from ....support.tiny_image import BLOCK, BLOCKS, FIRST_FREE, INODES, TABLE, TinyImage, dirents

REG, DIR, LNK = FileType.REGULAR, FileType.DIRECTORY, FileType.SYMLINK


def sample() -> TinyImage:
    image = TinyImage()
    image.file(12, b"content\n")
    image.directory(13, [(b"inner", 14, DIR), (b"up", 15, LNK)])
    image.directory(14, [(b"leaf", 16, REG)], parent=13)
    image.symlink(15, b"../file")
    image.file(16, bytes(range(256)) * 12)
    image.symlink(17, b"/dir/inner/leaf")
    image.symlink(18, b"loop")
    image.symlink(19, b"./" * 50 + b"dir")
    for name, ino, kind in (
        (b"file", 12, REG), (b"dir", 13, DIR), (b"abs", 17, LNK), (b"loop", 18, LNK), (b"long", 19, LNK), (b"\xff", 12, REG),
    ):  # fmt: skip
        image.entry(name, ino, kind)
    return image


@pytest.fixture
def fs() -> Filesystem:
    return sample().open()


@pytest.mark.parametrize(
    ("path", "ino"),
    [
        ("", 2), ("/", 2), (".", 2), ("/..", 2), ("../../..", 2), ("file", 12), (b"/file", 12), ("//dir//inner/./leaf", 16),
        ("dir/inner/..", 13), ("dir/inner/../../file", 12), ("dir/up", 12), ("abs", 16), ("long", 13), ("long/inner/leaf", 16),
        ("dir/", 13), ("long/", 13), (b"\xff", 12), ("\udcff", 12),
    ],
)  # fmt: skip
def test_lookup(fs: Filesystem, path: str | bytes, ino: int) -> None:
    assert fs.lookup(path) == ino


@pytest.mark.parametrize(
    ("path", "ino"), [("abs", 17), ("dir/up", 15), ("long", 19), ("loop", 18), ("long/", 13), ("long/up", 15)]
)
def test_lookup_of_the_link_itself(fs: Filesystem, path: str, ino: int) -> None:
    assert fs.lookup(path, follow=False) == ino


@pytest.mark.parametrize(
    ("path", "kind", "number"),
    [
        ("nothing", FileNotFoundError, errno.ENOENT),
        ("dir/nothing/leaf", FileNotFoundError, errno.ENOENT),
        ("file/x", NotADirectoryError, errno.ENOTDIR),
        ("file/..", NotADirectoryError, errno.ENOTDIR),
        ("file/", NotADirectoryError, errno.ENOTDIR),
        ("loop", PathError, errno.ELOOP),
        ("loop/x", PathError, errno.ELOOP),
        ("dir/../" * 3000, PathError, errno.ENAMETOOLONG),
        ("n" * 256, PathError, errno.ENAMETOOLONG),
        ("n" * 255, FileNotFoundError, errno.ENOENT),
    ],
)
def test_paths_that_lead_nowhere(fs: Filesystem, path: str, kind: type[OSError], number: int) -> None:
    with pytest.raises(kind) as caught:
        fs.lookup(path)
    assert isinstance(caught.value, PathError)
    assert caught.value.errno == number
    assert caught.value.path == path.encode()


def test_inodes_that_are_none(fs: Filesystem) -> None:
    for ino in (0, -1, INODES + 1, 1 << 40):
        with pytest.raises(PathNotFoundError):
            fs.stat(ino)


def test_directories(fs: Filesystem) -> None:
    assert list(fs.scandir("dir")) == [Entry(b"inner", 14, DIR), Entry(b"up", 15, LNK)]
    with pytest.raises(NotADirectoryError):
        fs.scandir("file")
    assert [path for path, _ in fs.walk("dir")] == [b"inner", b"inner/leaf", b"up"]
    assert {path for path, _ in fs.walk()} >= {b"file", b"dir/inner/leaf", b"\xff"}


def test_types_come_from_inodes_where_entries_have_none() -> None:
    image = sample()
    image.superblock(s_feature_incompat=0)
    assert {entry.name: entry.file_type for entry in image.open().scandir()} == {
        b"file": REG, b"dir": DIR, b"abs": LNK, b"loop": LNK, b"long": LNK, b"\xff": REG,
    }  # fmt: skip


def test_links(fs: Filesystem) -> None:
    assert fs.readlink("abs") == b"/dir/inner/leaf"
    assert fs.readlink(19) == b"./" * 50 + b"dir"
    with pytest.raises(PathError) as caught:
        fs.readlink("file")
    assert caught.value.errno == errno.EINVAL


def test_stat_decodes_everything() -> None:
    image = TinyImage()
    image.inode(
        12, 0o104755, i_uid=0x86A0, i_uid_high=1, i_gid=1, i_gid_high=0xFFFF, i_size=5, i_size_high=1, i_blocks=8, i_flags=0x10,
        i_generation=7, i_file_acl=9, i_atime=0xFFFFFFFF, i_mtime=1, i_ctime=2,
    )  # fmt: skip
    extra = INODE_EXTRA.view(image.data, 1, TABLE * BLOCK + 11 * 256 + 128)
    extra["i_extra_isize"] = 32
    extra["i_mtime_extra"], extra["i_ctime_extra"], extra["i_crtime"] = 1 | 999_999_999 << 2, 3, 77
    facts = image.open().stat(12)
    assert (facts.mode, facts.uid, facts.gid, facts.size, facts.blocks) == (0o104755, 100_000, 0xFFFF0001, (1 << 32) + 5, 8)
    assert (facts.flags, facts.generation, facts.file_acl, facts.links) == (0x10, 7, 9, 1)
    assert facts.atime == -1_000_000_000
    assert facts.mtime == (1 + (1 << 32)) * 1_000_000_000 + 999_999_999
    assert facts.ctime == (2 + (3 << 32)) * 1_000_000_000
    assert facts.crtime == 77_000_000_000
    assert (facts.is_file, facts.is_dir, facts.is_symlink) == (True, False, False)
    extra["i_extra_isize"] = 8
    facts = image.open().stat(12)
    assert facts.mtime == 1_000_000_000
    assert facts.ctime == (2 + (3 << 32)) * 1_000_000_000
    assert facts.crtime is None


@pytest.mark.parametrize(
    ("blocks", "numbers"),
    [
        ([0x0103], (1, 3)),
        ([0xFFFF], (255, 255)),
        ([0, 0x12310345], (259, 0x12345)),
        ([0, 0], (0, 0)),
        ([0, 0xFFFFFFFF], (4095, 0xFFFFF)),
    ],
)
def test_device_numbers(blocks: list[int], numbers: tuple[int, int]) -> None:
    image = TinyImage()
    image.inode(12, 0o020600, blocks)
    facts = image.open().stat(12)
    assert (facts.major, facts.minor) == numbers


@pytest.mark.parametrize("extra_isize", [132, 3, 0xFFFF])
def test_extra_area_that_leaves_the_inode(extra_isize: int) -> None:
    image = TinyImage()
    image.inode(12, 0o100644)
    INODE_EXTRA.view(image.data, 1, TABLE * BLOCK + 11 * 256 + 128)["i_extra_isize"] = extra_isize
    with pytest.raises(CorruptError, match="inode 12: i_extra_isize"):
        image.open().stat(12)


def test_attributes_of_inode_and_block() -> None:
    image = TinyImage()
    inside, outside = {b"user.a": b"1", b"user.both": b"new"}, {b"user.both": b"old", b"trusted.b": b"2" * 300}
    area, _ = xattr.pack_inode_area(xattr.to_disk(inside), 96)
    block = image.block(xattr.pack_block(xattr.to_disk(outside), BLOCK, 1))
    image.inode(12, 0o100644, i_file_acl=block)
    place = TABLE * BLOCK + 11 * 256
    image.data[place + 128 : place + 130] = struct.pack("<H", 32)
    image.data[place + 160 : place + 256] = area
    assert image.open().xattrs(12) == {**outside, **inside}
    image.inode(12, 0o100644, i_file_acl=BLOCKS)
    with pytest.raises(CorruptError, match="i_file_acl"):
        image.open().xattrs(12)


def sparse_image() -> tuple[TinyImage, bytes]:
    """Inode 12: data, hole, two neighbouring blocks, hole, data over an indirect block, and an end inside a block."""
    image = TinyImage()
    one, two, three, four = (image.block(bytes([65 + number]) * BLOCK) for number in range(4))
    indirect = image.pointers(0, four)
    image.inode(12, 0o100644, [one, 0, two, three, 0, 0, 0, 0, 0, 0, 0, 0, indirect], i_size=15 * BLOCK - 100, i_blocks=10)
    content = b"A" * BLOCK + bytes(BLOCK) + b"B" * BLOCK + b"C" * BLOCK + bytes(9 * BLOCK) + b"D" * BLOCK + bytes(BLOCK - 100)
    return image, content


def test_files_with_holes() -> None:
    image, content = sparse_image()
    fs = image.open()
    first = FIRST_FREE + 1
    assert fs.data_extents(12) == [(0, first, 1), (2, first + 1, 2), (13, first + 3, 1)]
    assert fs.block_map(12).indirect == [first + 4]
    assert fs.read_bytes(12) == content
    with fs.open_file(12) as file:
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        assert file.seek(-50, io.SEEK_END) == 15 * BLOCK - 150
        assert file.read(1000) == bytes(50)
        assert file.read(1) == b""
        assert file.seek(1 << 40) == 1 << 40
        assert file.read() == b""
        assert file.seek(BLOCK - 1) == file.tell()
        assert file.read(2) == b"A\0"
        assert file.seek(1, io.SEEK_CUR) == BLOCK + 2
        with pytest.raises(ValueError, match="byte -1"):
            file.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 9)
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 16 * BLOCK), st.integers(0, 16 * BLOCK)), max_size=5))
def test_any_part_of_a_file(parts: list[tuple[int, int]]) -> None:
    image, content = sparse_image()
    with image.open().open_file(12) as file:
        for start, length in parts:
            file.seek(start)
            assert file.read(length) == content[start : start + length]
            assert file.read_at(start, length) == content[start : start + length]
            assert file.tell() == min(start + length, max(start, len(content)))
            buffer = np.full(length // 4, 0x55555555, "<u4")
            file.seek(start)
            count = file.readinto(buffer)
            assert buffer.tobytes()[:count] == content[start : start + buffer.nbytes]


class CountingDevice(MemoryDevice):
    reads = 0

    def read(self, offset: int, size: int) -> bytes:
        self.reads += 1
        return super().read(offset, size)


def test_neighbouring_blocks_are_read_at_once() -> None:
    image = TinyImage()
    image.file(12, b"x" * 11 * BLOCK)
    device = CountingDevice(image.data)
    file = Filesystem(device).open_file(12)
    device.reads = 0
    assert len(file.read(1 << 20)) == 11 * BLOCK
    assert device.reads == 1


def test_what_is_no_file(fs: Filesystem) -> None:
    with pytest.raises(IsADirectoryError):
        fs.open_file("dir")
    with pytest.raises(PathError, match="not a regular file"):
        fs.open_file(18)


def test_sizes_that_an_image_only_claims() -> None:
    image = TinyImage()
    image.inode(12, 0o100644, i_size=0, i_size_high=2)
    fs = image.open()
    with fs.open_file(12) as file:
        file.seek(1 << 33)
        assert file.read(1) == b""
        file.seek((1 << 33) - 3)
        assert file.read(10) == bytes(3)
    with pytest.raises(PathError) as caught:
        fs.read_bytes(12)
    assert caught.value.errno == errno.EFBIG
    image.inode(12, 0o100644, i_size_high=0xFFFFFFFF)
    with pytest.raises(CorruptError, match="i_size"):
        image.open().open_file(12)


@pytest.mark.parametrize("size", [0, 5, BLOCK + 4, 0xFFFFFC00, 2 * BLOCK])
def test_directory_sizes_that_cannot_be(size: int) -> None:
    image = sample()
    image.inode(2, 0o40755, i_size=size)
    with pytest.raises(CorruptError, match=r"inode 2: (i_size|directory)"):
        list(image.open().scandir())


@pytest.mark.parametrize(
    ("fields", "blocks", "field"),
    [
        ({"i_size": 0}, [1], "i_size"),
        ({"i_size": 60}, [0x61616161] * 15, "i_size"),
        ({"i_size": 4}, [0x61], "i_size"),
        ({"i_size": BLOCK, "i_blocks": 2}, [FIRST_FREE], "i_size"),
        ({"i_size": 100, "i_blocks": 2}, [0], "i_block"),
        ({"i_size": 100, "i_blocks": 2}, [BLOCKS], "i_block"),
    ],
)
def test_damaged_links(fields: dict[str, int], blocks: list[int], field: str) -> None:
    image = TinyImage()
    image.inode(12, 0o120777, blocks, **fields)
    with pytest.raises(CorruptError, match=f"inode 12: {field}"):
        image.open().readlink(12)


def test_a_directory_in_itself() -> None:
    image = sample()
    image.directory(14, [(b"back", 13, DIR), (b"leaf", 16, REG)], parent=13)
    with pytest.raises(CorruptError, match="directory inode 13"):
        list(image.open().walk())
    errors: list[Ext3Error] = []
    paths = [path for path, _ in image.open().walk(onerror=errors.append)]
    assert b"dir/inner/leaf" in paths
    assert len(errors) == 1


def test_extents_flag_without_the_feature() -> None:
    image = TinyImage()
    image.inode(12, 0o100644, i_size=1, i_flags=0x80000)
    with pytest.raises(CorruptError, match="i_flags"):
        image.open().read_bytes(12)


def test_tables_and_bitmaps() -> None:
    image = sample()
    image.data[3 * BLOCK] = 0b1011
    image.data[4 * BLOCK + 1] = 1
    fs = image.open()
    assert np.flatnonzero(fs.block_bitmap(0)).tolist() == [0, 1, 3]
    assert np.flatnonzero(fs.inode_bitmap(0)).tolist() == [8]
    assert fs.block_bitmap(0).shape == (8 * BLOCK,)
    table = fs.inode_table(0)
    assert table.shape == (INODES,)
    assert [index + 1 for index in np.flatnonzero(table["i_mode"]).tolist()] == [2, *range(12, 20)]
    assert fs.inode_table(0, 3)["i_mode"].tolist() == [0, 0o40755, 0]
    assert fs.inode_table(0, 10**9).shape == (INODES,)
    with pytest.raises(IndexError):
        fs.block_bitmap(1)
    assert fs.geometry().inodes == INODES


@pytest.mark.parametrize("block", [0, BLOCKS, BLOCKS - 1, 0xFFFFFFFF])
def test_an_inode_table_outside(block: int) -> None:
    image = TinyImage()
    image.data[2 * BLOCK + 8 : 2 * BLOCK + 12] = struct.pack("<I", block)
    with pytest.raises(CorruptError, match="group 0: bg_inode_table"):
        image.open().stat(2)


def test_journal_superblock() -> None:
    image = TinyImage()
    assert image.open().journal_superblock() is None
    image.superblock(s_feature_compat=4, s_journal_inum=8)
    with pytest.raises(CorruptError, match="journal: first block"):
        image.open().journal_superblock()
    block = image.block(struct.pack(">3I", 0xC03B3998, 4, 0) + struct.pack(">5I", 1024, 99, 1, 5, 0))
    image.inode(8, 0o100600, [block], i_size=99 * BLOCK)
    found = image.open().journal_superblock()
    assert found is not None
    assert (found["s_maxlen"], found["s_sequence"], found["s_start"]) == (99, 5, 0)
    image.data[block * BLOCK] = 0
    with pytest.raises(CorruptError, match="h_magic"):
        image.open().journal_superblock()
    image.superblock(s_journal_inum=INODES + 1)
    with pytest.raises(CorruptError, match="s_journal_inum"):
        image.open().journal_superblock()


def test_open_closes_what_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"z" * 7 + sample().data)
    with Filesystem.open(path, offset=7) as fs:
        assert fs.read_bytes("file") == b"content\n"
    with pytest.raises(Ext3Error):
        fs.stat(16)
    with path.open("rb") as file:
        with Filesystem.open(file, offset=7, size=BLOCK * BLOCKS) as fs:
            assert fs.lookup("file") == 12
        assert not file.closed
    with Filesystem.open(io.BytesIO(sample().data)) as fs:
        assert fs.read_bytes("abs") == bytes(range(256)) * 12
    with pytest.raises(CorruptError, match="cut short"):
        Filesystem.open(path, offset=7, size=BLOCK * (BLOCKS - 1))
    with pytest.raises(FileNotFoundError):
        Filesystem.open(tmp_path / "missing")
    with pytest.raises(ValueError, match="mode"):
        Filesystem.open(path, "w")


def test_dirty_images_are_read_and_told() -> None:
    image = sample()
    image.superblock(s_feature_incompat=6)
    with image.open() as fs:
        assert fs.needs_recovery
        assert fs.read_bytes("file") == b"content\n"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1024, (FIRST_FREE + 14) * BLOCK - 1), st.binary(min_size=1, max_size=4)), max_size=8))
def test_any_damage(changes: list[tuple[int, bytes]]) -> None:
    """Data or an Ext3Error, and never without end."""
    image = sample()
    for at, data in changes:
        image.data[at : at + len(data)] = data
    try:
        fs = image.open()
    except Ext3Error:
        return
    errors: list[Ext3Error] = []
    try:
        entries = list(fs.walk(onerror=errors.append))
    except Ext3Error:
        return
    assert len(entries) <= BLOCK * BLOCKS // 12
    for path, entry in entries:
        for look in (fs.stat, fs.xattrs, fs.data_extents):
            try:
                look(entry.ino)  # type: ignore[operator]
                assert fs.lookup(path, follow=False)
            except Ext3Error as error:
                errors.append(error)
        try:
            with fs.open_file(path) as file:
                file.read(5000)
        except Ext3Error as error:
            errors.append(error)
    assert all(str(error) for error in errors)


def test_dirents_helper_tiles_the_block() -> None:
    assert len(dirents([(b"a", 1, 1), (b"bc", 2, 1)])) == BLOCK


def test_closed_filesystem_reads_no_file_that_has_its_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(sample().data)
    with Filesystem.open(path) as fs:
        pass
    with path.open("rb"), path.open("rb"), pytest.raises(DeviceError, match="Bad file descriptor"):  # one has its number
        fs.device.read(0, 10)
