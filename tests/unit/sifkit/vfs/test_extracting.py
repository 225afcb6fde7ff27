"""Extraction to the host: all that an image holds arrives, nothing leaves the directory, damage is told."""

from __future__ import annotations

import errno
import os
import stat
import struct

import pytest

import ext3
from ext3 import hostio
from ext3.read.filesystem import Filesystem
from ext3.read.inode_scan import read_stats
from sifkit.vfs.data_limit import SharedBlocksError
from sifkit.vfs.errors import MissingPathError, NotDirectoryPathError, TreePathError
from sifkit.vfs.extracting import extract

STAMP = ext3.Stamp(1_700_000_000, bytes(16), bytes(16))
TIMES = (1_600_000_000, 1_600_000_001, 1_600_000_002, 5, 123_456_789, 7)


def build(path, entries, size=8 << 20):
    """An image of (path, mode, data or target)."""
    builder = ext3.TreeBuilder()
    nodes = {b"": builder.add(0, b"", 0o040755, os.getuid(), os.getgid(), 0, TIMES)}
    content = {}
    for name, mode, data in entries:
        head, _, last = name.rpartition(b"/")
        regular = stat.S_ISREG(mode)
        node = builder.add(nodes[head], last, mode, os.getuid(), os.getgid(), len(data), TIMES)
        nodes[name] = node
        if regular:
            content[node] = data
        elif stat.S_ISLNK(mode):
            builder.targets[node] = data
    ext3.build_image(builder.finish(ext3.MemoryContent(content)), path, options=ext3.ImageOptions(size=size), stamp=STAMP)
    return path


ENTRIES = [
    (b"dir", 0o040750, b""),
    (b"dir/empty", 0o100600, b""),
    (b"dir/small", 0o100644, b"small\n"),
    (b"dir/large", 0o100444, bytes(range(256)) * 4096),
    (b"dir/link", 0o120777, b"small"),
    (b"dir/\xff\n", 0o100644, b"odd"),
    (b"dir/deep", 0o040700, b""),
    (b"dir/deep/file", 0o100755, b"x" * 3000),
]


@pytest.fixture
def image(tmp_path):
    return build(tmp_path / "a.img", ENTRIES)


def test_everything_arrives(image, tmp_path):
    with Filesystem.open(image) as fs:
        made = extract(fs, tmp_path / "out")
    out = tmp_path / "out" / "dir"
    assert (made.files, made.symlinks, made.failed) == (5, 1, 0)
    for name, mode, data in ENTRIES:
        where = os.fsencode(tmp_path / "out") + b"/" + name
        facts = os.lstat(where)
        if not stat.S_ISLNK(mode):
            assert facts.st_mode == mode
        assert facts.st_mtime_ns == 1_600_000_001_123_456_789
        if stat.S_ISREG(mode):
            with open(where, "rb") as file:
                assert file.read() == data
    assert os.readlink(out / "link") == "small"


@pytest.mark.parametrize("way", ["kernel", "no copy_file_range", "no copy in the kernel", "full"])
def test_large_files(tmp_path, monkeypatch, way):
    data = os.urandom(3_000_123)
    image = build(tmp_path / "a.img", [(b"large", 0o100644, data), (b"hole", 0o100644, b"")], size=16 << 20)
    with Filesystem.open(image, "r+") as fs:
        fs.truncate(b"/hole", 5 << 20)
        with fs.open_file(fs.stat(b"/hole").ino, "r+") as file:
            file.write_at(2 << 20, data[: 1 << 20])
    asked = []
    copy_range, kernel_copy = hostio.copy_range, hostio.kernel_copy
    no_space = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def copy(*arguments):
        asked.append(arguments)
        if way == "full":
            raise no_space
        return 0 if way == "no copy in the kernel" else kernel_copy(*arguments)

    monkeypatch.setattr(hostio, "copy_range", lambda *a: 0 if way == "no copy_file_range" else copy_range(*a))
    monkeypatch.setattr(hostio, "kernel_copy", copy)
    monkeypatch.setattr("sifkit.vfs.extracting.workers_for", lambda jobs: 1)
    with Filesystem.open(image) as fs:
        if way == "full":
            with pytest.raises(OSError) as caught:
                extract(fs, tmp_path / "out")
            assert caught.value.errno == errno.ENOSPC
            return
        made = extract(fs, tmp_path / "out")
    assert asked and (made.files, made.failed) == (2, 0)
    assert (tmp_path / "out" / "large").read_bytes() == data
    assert (tmp_path / "out" / "hole").read_bytes() == bytes(2 << 20) + data[: 1 << 20] + bytes(2 << 20)
    if hasattr(os, "SEEK_DATA"):
        assert (tmp_path / "out" / "hole").stat().st_blocks * 512 < 2 << 20


def test_the_columns_say_what_each_inode_says(image):
    with Filesystem.open(image) as fs:
        inos = [entry.ino for _, entry in fs.walk()][::-1] * 2
        assert read_stats(fs, inos) == [fs.stat(ino) for ino in inos]


def test_a_chosen_path_keeps_its_directories(image, tmp_path):
    with Filesystem.open(image) as fs:
        made = extract(fs, tmp_path / "out", [b"/dir/deep", b"/dir/small"])
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*"))
    assert found == ["dir", "dir/deep", "dir/deep/file", "dir/small"]
    assert made.files == 2


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"/nothing", MissingPathError),
        (b"/dir/nothing", MissingPathError),
        (b"/dir/link/x", NotDirectoryPathError),
        (b"/dir/small/", NotDirectoryPathError),
        (b"/dir/small/.", NotDirectoryPathError),
        (b"/dir/../dir/small", TreePathError),
    ],
)
def test_paths_that_are_not_there(image, tmp_path, path, error):
    with Filesystem.open(image) as fs, pytest.raises(error):
        extract(fs, tmp_path / "out", [path])
    assert not (tmp_path / "out").exists()


def test_a_directory_in_use_is_refused_and_forced(image, tmp_path):
    out = tmp_path / "out"
    (out / "dir").mkdir(parents=True)
    (out / "dir" / "small").write_bytes(b"old")
    with Filesystem.open(image) as fs:
        with pytest.raises(FileExistsError):
            extract(fs, out)
        assert (out / "dir" / "small").read_bytes() == b"old"
        assert extract(fs, out, force=True).failed == 0
    assert (out / "dir" / "small").read_bytes() == b"small\n"


def test_links_that_are_there_are_not_followed(image, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"safe")
    out = tmp_path / "out"
    out.mkdir()
    (out / "dir").symlink_to(outside)
    with Filesystem.open(image) as fs:
        extract(fs, out, force=True)
    assert sorted(os.listdir(outside)) == ["victim"]
    assert not (out / "dir").is_symlink()
    (out / "dir" / "small").unlink()
    (out / "dir" / "small").symlink_to(outside / "victim")
    with Filesystem.open(image) as fs:
        extract(fs, out, force=True)
    assert (outside / "victim").read_bytes() == b"safe"


def patch(image, old, new):
    raw = bytearray(image.read_bytes())
    at = raw.index(old)
    raw[at : at + len(old)] = new
    image.write_bytes(raw)


def entry(name, file_type):
    """What a directory entry holds of its name."""
    return struct.pack("<BB", len(name), file_type) + name


def test_a_link_and_a_directory_of_one_name_do_not_lead_out(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    entries = [(b"evil", 0o120777, os.fsencode(outside)), (b"good", 0o040755, b""), (b"good/file", 0o100644, b"data")]
    image = build(tmp_path / "a.img", entries)
    patch(image, entry(b"good", 2), entry(b"evil", 2))
    with Filesystem.open(image) as fs:
        made = extract(fs, tmp_path / "out")
    assert os.listdir(outside) == []
    assert made.failed == 1
    assert (tmp_path / "out" / "evil" / "file").read_bytes() == b"data"


def test_a_link_whose_entry_says_directory_is_not_entered(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    image = build(tmp_path / "a.img", [(b"evil", 0o120777, os.fsencode(outside)), (b"file", 0o100644, b"data")])
    patch(image, entry(b"evil", 7), entry(b"evil", 2))
    with Filesystem.open(image) as fs:
        made = extract(fs, tmp_path / "out")
    assert made.failed == 1
    assert os.listdir(outside) == []
    assert (tmp_path / "out" / "file").read_bytes() == b"data"


@pytest.mark.parametrize("name", [b"../x", b"/abs", b"a\0bc"])
def test_names_that_are_none_are_refused(tmp_path, name):
    image = build(tmp_path / "a.img", [(b"sub", 0o040755, b""), (b"sub/" + b"n" * len(name), 0o100644, b"data")])
    patch(image, entry(b"n" * len(name), 1), entry(name, 1))
    with Filesystem.open(image) as fs:
        made = extract(fs, tmp_path / "out")
    assert made.failed == 1
    assert sorted(os.listdir(tmp_path)) == ["a.img", "out"]
    assert os.listdir(tmp_path / "out" / "sub") == []


def test_files_that_share_their_blocks_fill_no_disk(tmp_path):
    size = 12 << 10
    entries = [(b"f%03d" % number, 0o100644, bytes([number]) * size) for number in range(200)]
    image = build(tmp_path / "a.img", [*entries, (b"big", 0o100644, os.urandom(3 << 20))], size=8 << 20)
    with Filesystem.open(image) as fs:
        big = fs.inode(fs.lookup(b"/big"))
        per_group, inode_size = fs.superblock.inodes_per_group, fs.superblock.inode_size
        assert max(e.ino for e in fs.scandir()) <= per_group
        table = int(fs.groups["bg_inode_table"][0]) * fs.superblock.block_size
        victims = [fs.lookup(b"/f%03d" % number) for number in range(200)]
    raw = bytearray(image.read_bytes())
    source = table + (big.stat.ino - 1) * inode_size
    for ino in victims:
        at = table + (ino - 1) * inode_size
        raw[at : at + inode_size] = raw[source : source + inode_size]
    image.write_bytes(raw)
    with Filesystem.open(image) as fs, pytest.raises(SharedBlocksError):
        extract(fs, tmp_path / "out")
    written = sum(p.stat().st_blocks * 512 for p in (tmp_path / "out").iterdir())
    assert written < 3 * (8 << 20)


def test_names_of_one_file_stay_names_of_one_file(tmp_path):
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o040755, os.getuid(), os.getgid(), 0, TIMES)
    node = builder.add(0, b"one", 0o100644, os.getuid(), os.getgid(), 5, TIMES)
    builder.link(0, b"two", node)
    ext3.build_image(
        builder.finish(ext3.MemoryContent({node: b"hello"})),
        tmp_path / "a.img",
        options=ext3.ImageOptions(size=8 << 20),
        stamp=STAMP,
    )
    with Filesystem.open(tmp_path / "a.img") as fs:
        made = extract(fs, tmp_path / "out")
    assert made.links == 1
    assert os.path.samefile(tmp_path / "out" / "one", tmp_path / "out" / "two")


MODES = [0o600, 0o644, 0o664, 0o666, 0o755, 0o777, 0o4755, 0o2755, 0o1644, 0o000, 0o400]
MODE_ENTRIES = [(b"dir", 0o042775, b"")] + [
    (b"%sf%d%04o" % (place, copy, mode), 0o100000 | mode, b"x") for place in (b"", b"dir/") for copy in (1, 2) for mode in MODES
]


def modes_below(top):
    files = [path for path in top.rglob("f*") if path.is_file()]
    return {os.path.relpath(path, top): stat.S_IMODE(path.lstat().st_mode) for path in files}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("kind", ["plain", "set-group-ID", "default ACL", "merged"])
def test_modes_arrive_whatever_the_host_makes_of_new_files(tmp_path, umask, kind):
    image = build(tmp_path / "a.img", MODE_ENTRIES)
    out = tmp_path / "out"
    out.mkdir()
    if kind == "set-group-ID":
        if os.geteuid() == 0:
            os.chown(out, 0, 12)
        os.chmod(out, 0o2777)
    elif kind == "default ACL":
        acl = bytes.fromhex("0200000001000600ffffffff04000000ffffffff20000000ffffffff")
        try:
            os.setxattr(out, "system.posix_acl_default", acl)
        except (OSError, AttributeError):
            pytest.skip("no ACLs here")
    elif kind == "merged":
        (out / "dir").mkdir(mode=0o2777)
        (out / "dir" / "f10644").write_bytes(b"old")
    old = os.umask(umask)
    try:
        with Filesystem.open(image) as fs:
            made = extract(fs, out, force=kind == "merged")
    finally:
        os.umask(old)
    assert made.failed == 0
    wanted = {os.fsdecode(name): mode & 0o7777 for name, mode, _ in MODE_ENTRIES[1:]}
    assert modes_below(out) == wanted
    if os.geteuid() == 0:
        assert {(path.lstat().st_uid, path.lstat().st_gid) for path in out.rglob("*")} == {(0, 0)}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_an_owner_that_cannot_be_given_leaves_no_privileges(tmp_path):
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o040755, 0, 0, 0, TIMES)
    for name, uid, gid in ((b"minus-one", 0xFFFFFFFF, 0), (b"group", 0, 0xFFFFFFFF), (b"given", 70_000, 80_000)):
        builder.add(0, name, 0o106755, uid, gid, 0, TIMES)
    tree = builder.finish(ext3.MemoryContent({}))
    ext3.build_image(tree, tmp_path / "a.img", options=ext3.ImageOptions(size=8 << 20), stamp=STAMP)
    with Filesystem.open(tmp_path / "a.img") as fs:
        made = extract(fs, tmp_path / "out")
    assert made.owners_left == 2
    found = {path.name: path.stat() for path in (tmp_path / "out").iterdir()}
    assert [stat.S_IMODE(found[name].st_mode) for name in ("minus-one", "group", "given")] == [0o755, 0o755, 0o6755]
    assert (found["given"].st_uid, found["given"].st_gid) == (70_000, 80_000)


@pytest.mark.parametrize(("inside", "left"), [(None, 1), (b"#12", 3)])
def test_the_owner_of_an_empty_lost_found_is_not_missed(tmp_path, monkeypatch, inside, left):
    """Every ext3 filesystem has that directory, of root's: a user who extracts their own files has lost nothing."""
    uid, gid = os.geteuid(), os.getegid()
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o040755, uid, gid, 0, TIMES)
    builder.add(0, b"mine", 0o100644, uid, gid, 0, TIMES)
    builder.add(0, b"lost+found", 0o040700, uid + 1, gid, 0, TIMES)
    builder.add(0, b"theirs", 0o040755, uid + 1, gid, 0, TIMES)
    if inside:
        builder.add(2, inside, 0o100644, uid + 1, gid, 0, TIMES)
    tree = builder.finish(ext3.MemoryContent({}))
    ext3.build_image(tree, tmp_path / "a.img", options=ext3.ImageOptions(size=8 << 20), stamp=STAMP)
    with Filesystem.open(tmp_path / "a.img") as fs:
        made = extract(fs, tmp_path / "out", owners=False)
    assert made.owners_left == left and made.failed == 0
    assert stat.S_IMODE((tmp_path / "out/lost+found").stat().st_mode) == 0o700


def test_the_method_takes_text_and_gives_what_was_made(image, tmp_path):
    with Filesystem.open(image) as fs:
        made = extract(fs, tmp_path / "out", ["/dir/deep"])
    assert (made.files, made.directories) == (1, 2)
    assert (tmp_path / "out" / "dir" / "deep" / "file").stat().st_size == 3000


def test_holes_of_the_image_file_that_are_data_stay_data(tmp_path):
    image = build(tmp_path / "a.img", [(b"zeros", 0o100644, bytes(100_000))])
    with Filesystem.open(image) as fs:
        assert extract(fs, tmp_path / "out").written_bytes in (0, 100_000)
    assert (tmp_path / "out" / "zeros").read_bytes() == bytes(100_000)


def test_what_a_device_cannot_give_concerns_the_files_that_lie_there(tmp_path):
    """The image ends early: files of one run that lie before the end are read all the same."""
    entries = [(b"f%03d" % number, 0o100644, bytes([number + 1]) * 1000) for number in range(100)]
    image = build(tmp_path / "a.img", entries)
    with Filesystem.open(image) as fs:
        ends = sorted(fs.data_extents(b"/f%03d" % number)[0][1] for number in range(100))
        cut = ends[50] * fs.superblock.block_size
        size = image.stat().st_size
    os.truncate(image, cut)
    with Filesystem.open(image, size=size) as fs:
        made = extract(fs, tmp_path / "out")
    assert (made.files, made.failed) == (50, 50)
    assert sum(path.stat().st_size == 1000 for path in (tmp_path / "out").iterdir() if path.is_file()) == 50
