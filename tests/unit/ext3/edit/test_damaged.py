"""Images whose numbers lie are changed with care: a clear error, nothing of the operation done, the rest still usable."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest

import ext3
from ext3.constants import JOURNAL_INO, SUPERBLOCK_OFFSET, FileType
from ext3.device.base import MemoryDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.edit.orphan_list import orphan_chain
from ext3.edit.session import Session
from ext3.errors import PathNotFoundError
from ext3.format.schema import GROUP_DESC, INODE_CORE, SUPERBLOCK

from ....support.directory_damage import (
    BLOCK_SIZE,
    DIRECTORY,
    INDEX_DAMAGE,
    damaged_index,
    directory_blocks,
    indexed_image,
)
from ....support.image_checks import check_counts
from ....support.sessions import clock, empty_image

BLOCK = 1024


def blank(*, inode_size: int = 256, journal: bool = True) -> MemoryDevice:
    """An image with a directory /d, and files /f, /g of one block each."""
    device = empty_image(4 << 20, inode_size=inode_size, journal=journal)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir("/d")
        for path in ("/f", "/g"):
            fs.write_bytes(path, b"x" * BLOCK)
    return device


def set_inode(device: MemoryDevice, path: str, **fields: int) -> None:
    """Change fields of an inode behind everybody's back."""
    with ext3.Filesystem.open(device) as fs:
        group, index = divmod(fs.lookup(path) - 1, fs.superblock.inodes_per_group)
        at = int(fs.groups["bg_inode_table"][group]) * BLOCK + index * fs.superblock.inode_size
    row = INODE_CORE.view(device.data, 1, at)
    for name, value in fields.items():
        row[name] = value


def set_superblock(device: MemoryDevice, **fields: int) -> None:
    row = SUPERBLOCK.view(device.data, 1, SUPERBLOCK_OFFSET)
    for name, value in fields.items():
        row[name] = value


@pytest.mark.parametrize("block", [4096, 0xFFFFFFFF, 2_000_000])
def test_an_attribute_block_outside(block: int) -> None:
    device = blank()
    set_inode(device, "/f", i_file_acl=block)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        works: list[Callable[[], object]] = [
            lambda: fs.unlink("/f"),
            lambda: fs.set_xattr("/f", b"user.x", b"v"),
            lambda: fs.rename("/g", "/f"),
            lambda: fs.chmod("/f", 0o600),
            lambda: fs.xattrs("/f"),
        ]
        for work in works:
            with pytest.raises(ext3.CorruptError, match="i_file_acl"):
                work()
        fs.unlink("/g")
        assert fs.lookup("/f")


def test_sectors_that_cannot_be_counted_on() -> None:
    """i_blocks at the end of its 32 bits: no attribute block, no other block."""
    device = blank()
    set_inode(device, "/f", i_blocks=0xFFFFFFFF)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        free = fs.superblock.free_blocks
        with pytest.raises(ext3.CorruptError, match="i_blocks"):
            fs.set_xattr("/f", b"user.x", b"v" * 500)
        with pytest.raises(ext3.PathError) as caught, fs.open_file("/f", "r+") as file:
            file.write_at(5000, b"x")
        assert caught.value.errno == errno.EFBIG
        fs.sync()
        assert fs.superblock.free_blocks == free
        assert fs.read_bytes("/f") == b"x" * BLOCK


def test_directories_that_cannot_be_counted_on() -> None:
    """bg_used_dirs_count at the end of its 16 bits stays there."""
    device = blank()
    GROUP_DESC.view(device.data, 1, 2 * BLOCK)["bg_used_dirs_count"] = 0xFFFF
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for number in range(3):
            fs.mkdir(f"/more{number}")
    with ext3.Filesystem.open(device) as fs:
        assert int(fs.groups["bg_used_dirs_count"][0]) == 0xFFFF
        check_counts(fs)


@pytest.mark.parametrize("field", ["bg_free_blocks_count", "bg_free_inodes_count"])
def test_more_free_than_there_is(field: str) -> None:
    """The sum of many such groups would not fit the superblock: the image is refused before anything is changed."""
    device = blank()
    GROUP_DESC.view(device.data, 1, 2 * BLOCK)[field] = 0xFFFF
    before = bytes(device.data)
    with pytest.raises(ext3.CorruptError, match=field) as caught:
        ext3.Filesystem.open(device, "r+", clock=clock)
    assert caught.value.needs_check
    assert bytes(device.data) == before


def test_old_filesystems_have_no_attributes() -> None:
    """Revision 0 has no feature that says so, and e2fsck would throw the block away."""
    device = blank(inode_size=128, journal=False)
    set_superblock(device, s_rev_level=0, s_feature_compat=0, s_feature_incompat=0, s_feature_ro_compat=1)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        free = fs.superblock.free_blocks
        with pytest.raises(ext3.XattrError) as caught:
            fs.set_xattr("/f", b"user.x", b"v")
        assert caught.value.errno == errno.EOPNOTSUPP
        assert fs.superblock.free_blocks == free
        assert fs.xattrs("/f") == {}


@pytest.mark.parametrize("seconds", [-(2**40), -1, 2**31, 2**32, 2**35, 2**50])
def test_clocks_that_lie(seconds: int) -> None:
    """A time that cannot be stored becomes the nearest one that can."""
    device = blank()
    with ext3.Filesystem.open(device, "r+", clock=lambda: seconds * 10**9) as fs:
        fs.mkdir("/new")
        fs.unlink("/f")
        fs.set_xattr("/g", b"user.x", b"v" * 500)
    with ext3.Filesystem.open(device) as fs:
        assert fs.stat("/new").mtime == min(max(seconds, -(2**31)), 2**34 - 2**31 - 1) * 10**9
        check_counts(fs)


@pytest.mark.parametrize("first", [0, 1, 10, 2000, 0xFFFFFFFF])
def test_first_inodes_that_cannot_be(first: int) -> None:
    """The reserved inodes would be given out, or none."""
    device = blank()
    set_superblock(device, s_first_ino=first)
    before = bytes(device.data)
    with pytest.raises(ext3.CorruptError, match="s_first_ino"):
        ext3.Filesystem.open(device, "r+", clock=clock)
    assert device.data == before


def test_recovery_without_a_journal() -> None:
    device = blank(journal=False)
    set_superblock(device, s_feature_incompat=6)
    before = bytes(device.data)
    with pytest.raises(ext3.NeedsCheckError, match="needs journal recovery but has no journal"):
        ext3.Filesystem.open(device, "r+", clock=clock)
    assert device.data == before
    with ext3.Filesystem.open(device) as fs:
        assert fs.read_bytes("/f") == b"x" * BLOCK


def test_a_parent_that_lies() -> None:
    """ ".." in the image leads elsewhere: paths go by names, and the directory is neither moved nor removed."""
    device = blank()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        inner = fs.mkdir("/d/inner")
        other = fs.mkdir("/other")
        with fs._session.operation():
            fs._nodes.directory(fs._nodes.edit(inner)).set_parent(other)
    for mode in ("r", "r+"):
        with ext3.Filesystem.open(device, mode, **({"clock": clock} if mode == "r+" else {})) as fs:
            assert fs.lookup("/d/inner/..") == fs.lookup("/d")
            assert fs.lookup("/d/inner/../../other") == other
    before = bytes(device.data)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for work in (lambda: fs.rename("/d/inner", "/d/moved"), lambda: fs.rmdir("/d/inner"), lambda: fs.remove_tree("/d")):
            with pytest.raises(ext3.NeedsCheckError):
                work()
    assert bytes(device.data) == before


def test_link_counts_that_lie() -> None:
    """Too low: the file goes with the first name, the others can be told. None at all: it is not touched."""
    device = blank()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.link("/f", "/second")
    set_inode(device, "/f", i_links_count=1)
    set_inode(device, "/g", i_links_count=0)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.unlink("/f")
        for work in (
            lambda: fs.unlink("/second"),
            lambda: fs.write_bytes("/second", b"y"),
            lambda: fs.unlink("/g"),
            lambda: fs.rename("/g", "/h"),
        ):
            with pytest.raises(ext3.CorruptError) as caught:
                work()
            assert caught.value.needs_check
        with pytest.raises(FileNotFoundError):
            fs.link("/g", "/h")
        fs.create("/new")


def test_many_files_without_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The orphan list is not walked for each of them; any of them may go first."""
    reads = []
    read_inode = Session.read_inode
    monkeypatch.setattr(Session, "read_inode", lambda self, ino: reads.append(ino) or read_inode(self, ino))
    device = blank()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        free = fs.superblock.free_inodes
        files = []
        for number in range(120):
            files.append(fs.open_file(fs.create(f"/{number}"), "r+"))
        reads.clear()
        for number in range(120):
            fs.unlink(f"/{number}")
        assert len(reads) < 120 * 10
        chain = list(orphan_chain(fs._session))
        assert len(chain) == 120
        random.Random(1).shuffle(files)
        reads.clear()
        for number, file in enumerate(files):
            file.close()
            if number == 60:
                fs.sync()
                assert list(orphan_chain(fs._session)) == [ino for ino in chain if ino in {rest.ino for rest in files[61:]}]
                reads.clear()
        assert len(reads) < 60 * 10
        assert fs.superblock.free_inodes == free
        assert not fs.superblock.last_orphan
    with ext3.Filesystem.open(device) as fs:
        check_counts(fs)


def shared_directories(fs: WritableFilesystem, count: int) -> None:
    """Directories beside each other, all of which have the same blocks."""
    fs.mkdir("/top")
    ino = fs.mkdir("/top/0")
    for number in range(200):
        fs.create(f"/top/0/{number}-" + "n" * 200)
    node = fs._nodes.load(ino)

    def work() -> None:
        for number in range(1, count):
            child = fs._nodes.new(node, mode=0o40755, uid=0, gid=0, is_dir=True, now=0)
            child.record.links, child.record.size = 2, node.record.size
            child.record.i_block, child.record.sectors = node.record.i_block, node.record.sectors
            fs._nodes.store(child)
            top = fs._nodes.edit(fs.lookup("/top"))
            fs._nodes.directory(top).insert(b"%d" % number, child.ino, FileType.DIRECTORY)
            fs._nodes.store_directory(top, 0)

    fs._run(work)


def test_directories_that_share_their_blocks() -> None:
    """A walk, and the removal of all of them, end when more blocks were seen than there are."""
    device = blank(journal=False)
    fs = ext3.Filesystem.open(device, "r+", clock=clock)
    shared_directories(fs, 200)
    fs.close()
    with ext3.Filesystem.open(device) as opened:
        blocks = opened.superblock.blocks_count
        size = opened.stat("/top/0").size // BLOCK
        assert size * 200 > blocks
        with pytest.raises(ext3.CorruptError, match="more than there are"):
            list(opened.walk())
        errors: list[ext3.Ext3Error] = []
        found = list(opened.walk(onerror=errors.append))
        assert len(found) <= blocks * 4
        assert errors
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs, pytest.raises(ext3.Ext3Error):
        fs.remove_tree("/top")


def test_a_path_without_end() -> None:
    """Directories in each other with long names: a walk tells when it becomes too much, in a message of modest length."""
    device = empty_image(4 << 20, inodes=400, journal=False)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        above = 2
        for _ in range(300):
            above = fs.mkdir_at(above, b"n" * 255)
        fs.create_at(above, b"deepest")
        fs.create("/zzz")
    with ext3.Filesystem.open(device) as fs:
        with pytest.raises(ext3.PathError) as caught:
            list(fs.walk())
        assert caught.value.errno == errno.ENAMETOOLONG
        assert len(str(caught.value)) < 1000
        errors: list[ext3.Ext3Error] = []
        paths = [path for path, _ in fs.walk(onerror=errors.append)]
        assert len(errors) == 1
        assert paths[-1] == b"zzz"
        assert max(map(len, paths)) < 1 << 17
        assert [len(path.split(b"/")) for path in paths[1:-1]] == list(range(1, len(paths) - 1))


@pytest.mark.parametrize("lie", ["/", "/other", "/f"])
def test_a_directory_whose_parent_entry_lies(lie: str) -> None:
    """What ".." says decides who loses a link, and whether a directory would go below itself: a wrong one is no guide."""
    device = blank()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for path in ("/other", "/d/mid", "/d/mid/low"):
            fs.mkdir(path)
        node = fs._nodes.edit(fs.lookup("/d/mid"))
        wrong = fs.lookup(lie)
        fs._run(lambda: fs._nodes.directory(node).replace(b"..", wrong, FileType.DIRECTORY))
        fs.sync()
        before = bytes(device.data)
        works: list[Callable[[], object]] = [
            lambda: fs.rename("/d/mid", "/mid"),
            lambda: fs.rename("/d/mid", "/other", exchange=True),
            lambda: fs.rename("/d", "/d/mid/low/d"),
            lambda: fs.rename("/other", "/d/mid/low", exchange=True),
        ]
        for work in works:
            with pytest.raises(ext3.NeedsCheckError, match=r'"\.\."') as caught:
                work()
            assert caught.value.needs_check
        fs.sync()
        assert bytes(device.data) == before


@pytest.mark.parametrize("ino", [1, 7, JOURNAL_INO, 9, 500])
def test_names_that_lead_to_what_is_no_file(ino: int) -> None:
    """The journal, reserved or free inodes are not deleted or written through a planted name."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.create("/trap")
        block = fs.data_extents("/")[0][1]
    at = bytes(device.data).index(b"trap", block * 1024) - 8
    device.data[at : at + 4] = ino.to_bytes(4, "little")
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        before = bytes(device.data)
        for work in (
            lambda: fs.unlink("/trap"),
            lambda: fs.remove_tree("/trap"),
            lambda: fs.rename("/trap", "/x"),
            lambda: fs.write_bytes("/trap", b"x"),
            lambda: fs.chmod("/trap", 0),
            lambda: fs.link("/trap", "/x"),
        ):
            with pytest.raises(ext3.CorruptError) as caught:
                work()
            assert caught.value.needs_check
        fs.sync()
        assert bytes(device.data) == before


def test_directories_in_a_circle() -> None:
    """A ".." that leads nowhere, and a directory that holds itself, end in an error."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        a = fs.mkdir("/a")
        b = fs.mkdir("/a/b")
        fs.mkdir("/c")
        node = fs._nodes.edit(a)
        with fs._session.operation():
            fs._nodes.directory(node).set_parent(b)
            fs._nodes.directory(fs._nodes.edit(b)).insert(b"loop", a, FileType.DIRECTORY)
        with pytest.raises(ext3.NeedsCheckError, match="loop"):
            fs.rename("/c", "/a/b/c")
        with pytest.raises(ext3.NeedsCheckError, match=r'"\.\." is'):
            fs.remove_tree("/a")


def test_a_file_over_metadata_is_not_written() -> None:
    """A planted pointer to the inode table: writing the file does not touch it."""
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.write_bytes("/f", b"x" * 1024)
        ino = fs.lookup("/f")
        table = int(fs.groups["bg_inode_table"][0])
        raw = bytearray(fs._session.read_inode(ino))
        INODE_CORE.view(raw)["i_block"][0, 0] = table
        with fs._session.operation():
            fs._session.write_inode(ino, raw)
    before = bytes(device.data)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for work in (
            lambda: fs.open_file("/f", "r+").write_at(0, b"y" * 1024),
            lambda: fs.truncate("/f", 5),
            lambda: fs.unlink("/f"),
        ):
            with pytest.raises(ext3.CorruptError):
                work()
    assert bytes(device.data)[table * 1024 : (table + 8) * 1024] == before[table * 1024 : (table + 8) * 1024]


# -- removal of a directory whose index is damaged ---------------------------------------------------------------------


def swap_leaves(image: bytearray) -> None:
    """Each name is where the index does not look for it, and each leaf looks sound once it is empty."""
    third, fourth = directory_blocks(image)[3:5]
    block = image[third : third + BLOCK_SIZE]
    image[third : third + BLOCK_SIZE] = image[fourth : fourth + BLOCK_SIZE]
    image[fourth : fourth + BLOCK_SIZE] = block


def swap_two_names(image: bytearray) -> None:
    """Two names are where the index does not look for them, and no other one."""
    third, fourth = directory_blocks(image)[3:5]
    length = image[third + 6]
    assert length == image[fourth + 6]
    name = image[third + 8 : third + 8 + length]
    image[third + 8 : third + 8 + length] = image[fourth + 8 : fourth + 8 + length]
    image[fourth + 8 : fourth + 8 + length] = name


@pytest.mark.slow
@pytest.mark.parametrize("case", [*INDEX_DAMAGE, "leaves", "names"])
def test_a_directory_with_a_damaged_index_is_removed(case: str) -> None:
    """By the scan that listed its names. e2fsck is then content (tests/compat)."""
    image = bytearray(indexed_image(1)) if case not in INDEX_DAMAGE else damaged_index(INDEX_DAMAGE[case])
    if case not in INDEX_DAMAGE:
        (swap_leaves if case == "leaves" else swap_two_names)(image)
    with ext3.Filesystem.open(MemoryDevice(image), "r+", clock=clock) as fs:
        free = fs.statfs()
        count = sum(1 for _ in fs.walk(DIRECTORY))
        fs.remove_tree(DIRECTORY)
        assert fs.find_name(fs.root, DIRECTORY[1:]) is None
        assert fs.statfs().free_inodes - free.free_inodes == count + 1
        with pytest.raises(PathNotFoundError):
            fs.remove_tree(DIRECTORY)
