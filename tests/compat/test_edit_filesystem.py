"""Edited images, judged by e2fsck, debugfs and the kernel, which edits them too."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.edit.filesystem import WritableFilesystem

from ..support.crashes import content_of
from ..support.edits import Edits, host_options
from ..support.facts import facts_of_image
from ..support.operations import HostTree, ImageTree
from ..support.recorded_edits import record_steps, state
from ..support.tools import assert_clean, fill_and_empty, kernel_mount, require, requires_root, run, why_no_mount

pytestmark = pytest.mark.compat

SHAPES = [
    ("-b", "1024", "-I", "128", "-O", "^dir_index"),
    ("-b", "1024", "-I", "256"),
    ("-b", "2048", "-I", "256", "-O", "^has_journal"),
    ("-b", "4096", "-I", "256"),
    ("-b", "4096", "-I", "128", "-O", "^filetype,^sparse_super,^large_file,^ext_attr,^resize_inode"),
    ("-b", "1024", "-O", "meta_bg,^resize_inode", "-g", "1024"),
]
NAMELESS: dict[str, tuple[int, dict[str, Any]]] = {
    "regular": (0o100644, {}),
    "fast symlink": (0o120777, {"target": b"t" * 59}),
    "slow symlink": (0o120777, {"target": b"t" * 60}),
    "old device": (0o020600, {"rdev": (5, 1)}),
    "device": (0o060600, {"rdev": (300, 70_000)}),
    "fifo": (0o010644, {}),
    "socket": (0o140755, {}),
}
"""Mode and arguments of a file without a name."""


@pytest.fixture(params=SHAPES, ids=" ".join)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An empty image of one shape."""
    require("mke2fs", "e2fsck")
    path = tmp_path / "edited.img"
    with path.open("wb") as file:
        file.truncate(48 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext3", *request.param, path)
    return path


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostTree]:
    """An empty directory that is edited as the image is."""
    top = tmp_path / "host"
    top.mkdir()
    tree = HostTree(top)
    yield tree
    tree.close()


def edit(image: Path, host: HostTree, edits: Edits, rounds: int) -> None:
    """Rounds of operations, the image judged after each."""
    for _ in range(rounds):
        with ext3.Filesystem.open(image, "r+") as fs:
            tree = ImageTree(fs)
            for _ in range(40):
                edits.step(tree, host)
            fs.sync()
            edits.check(fs, host)
        assert_clean(image)


def test_random_operations(image: Path, host: HostTree) -> None:
    edit(image, host, Edits(1, **host_options()), 8)


@requires_root
@pytest.mark.parametrize("image", [shape for shape in SHAPES if "^has_journal" not in shape], indirect=True, ids=" ".join)
def test_by_turns_with_the_kernel(image: Path, host: HostTree) -> None:
    """The kernel edits what we edited, and we what it edited; all three trees are the same."""
    edits = Edits(2, **host_options())
    for _ in range(3):
        edit(image, host, edits, 1)
        with kernel_mount(image, rw=True) as point:
            mounted = HostTree(point)
            edits.check(mounted)
            for _ in range(60):
                edits.step(mounted, host)
            mounted.close()
        with ext3.Filesystem.open(image) as fs:
            edits.check(fs, host)
        assert_clean(image)


@requires_root
def test_a_large_directory_shared_with_the_kernel(tmp_path: Path) -> None:
    """Indexes split by us are split further by the kernel, and the other way round."""
    require("mke2fs", "e2fsck")
    path = tmp_path / "large.img"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", "-N", "30000", path)
    generator = random.Random(3)
    names: set[bytes] = set()

    def fresh(count: int) -> Iterator[bytes]:
        for _ in range(count):
            name = b"%x-" % generator.getrandbits(40) + b"y" * generator.randrange(60)
            names.add(name)
            yield name

    for _ in range(3):
        with ext3.Filesystem.open(path, "r+") as fs:
            for name in fresh(3000):
                fs.create(b"/" + name)
            for name in sorted(names)[::5]:
                fs.unlink(b"/" + name)
                names.discard(name)
        assert_clean(path)
        with kernel_mount(path, rw=True) as point:
            where = os.fsencode(point)
            for name in fresh(3000):
                Path(os.fsdecode(where + b"/" + name)).touch()
            for name in sorted(names)[::7]:
                os.unlink(where + b"/" + name)
                names.discard(name)
            assert set(os.listdir(where)) == names | {b"lost+found"}
        assert_clean(path)
        with ext3.Filesystem.open(path) as fs:
            assert {entry.name for entry in fs.scandir("/")} == names | {b"lost+found"}


@requires_root
def test_facts_the_kernel_reads(tmp_path: Path) -> None:
    """Owners, modes, times with nanoseconds, attributes, ACLs, devices and generations, as the kernel sees them."""
    require("mke2fs", "e2fsck")
    path = tmp_path / "facts.img"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", path)
    acl = bytes.fromhex("02000000 01000600ffffffff 02000700e8030000 04000400ffffffff 10000700ffffffff 20000400ffffffff")
    times = (7_999_999_999 * 10**9 + 123_456_789, -(10**9) + 5)
    with ext3.Filesystem.open(path, "r+") as fs:
        fs.mkdir("/d")
        fs.set_xattr("/d", b"system.posix_acl_default", acl)
        fs.mkdir("/d/below", 0o777)
        fs.create("/d/file", 0o666)
        fs.mkdir("/g", 0o2755, gid=77)
        fs.mkdir("/g/below")
        fs.create("/g/file")
        fs.write_bytes("/f", b"content")
        fs.chown("/f", 70_000, 80_000)
        fs.utimens("/f", *times)
        for number in range(20):
            fs.set_xattr("/f", b"user.%d" % number, b"v" * number)
        fs.set_xattr("/f", b"trusted.overlay.opaque", b"y")
        fs.mknod("/chr", 0o020600, (300, 70_000))
        fs.mknod("/blk", 0o060600, (8, 1))
        fs.mknod("/fifo", 0o010644)
        fs.create("/gone")
        fs.rename("/gone", "/here", whiteout=True)
    assert_clean(path)
    with kernel_mount(path) as point:
        assert os.getxattr(point / "d" / "below", "system.posix_acl_default") == acl
        access = os.getxattr(point / "d" / "file", "system.posix_acl_access")
        assert access != acl
        assert (point / "d" / "file").stat().st_mode & 0o777 == 0o664
        assert (point / "g" / "below").stat().st_gid == 77
        assert (point / "g" / "below").stat().st_mode & 0o7777 == 0o2755
        assert (point / "g" / "file").stat().st_gid == 77
        found = (point / "f").stat()
        assert (found.st_uid, found.st_gid) == (70_000, 80_000)
        assert (found.st_atime_ns, found.st_mtime_ns) == times
        for number in range(20):
            assert os.getxattr(point / "f", f"user.{number}") == b"v" * number
        assert os.getxattr(point / "f", "trusted.overlay.opaque") == b"y"
        for name, numbers in (("chr", (300, 70_000)), ("blk", (8, 1)), ("gone", (0, 0))):
            device = (point / name).stat().st_rdev
            assert (os.major(device), os.minor(device)) == numbers
        assert (point / "fifo").is_fifo()


def test_space_and_inodes_run_out(image: Path) -> None:
    """What does not fit leaves the image as it was; what fits afterwards still does."""
    with ext3.Filesystem.open(image, "r+") as fs:
        fs.mkdir("/d")
        _fill_space(fs)
        while True:
            try:
                fs.symlink("short", f"/d/{fs.superblock.free_inodes}")
            except OSError:
                break
        before = facts_of_image(fs)
        free = fs.superblock.free_blocks
        for work in (
            lambda: fs.write_bytes("/d/new", bytes(100_000)),
            lambda: fs.mkdir("/d/new"),
            lambda: fs.create("/d/new"),
        ):
            try:
                work()
            except (ext3.NoSpaceError, ext3.NoFreeInodesError):
                continue
            fs.remove_tree("/d/new")
        assert facts_of_image(fs) == before
        assert fs.superblock.free_blocks >= free
    assert_clean(image)
    with ext3.Filesystem.open(image, "r+") as fs:
        fs.remove_tree("/d")
        fs.mkdir("/again")
    assert_clean(image)


def _fill_space(fs: WritableFilesystem) -> None:
    size = 4 << 20
    number = 0
    while size >= 512:
        try:
            fs.write_bytes(f"/d/fill{number}", b"f" * size)
            number += 1
        except (ext3.NoSpaceError, ext3.NoFreeInodesError):
            size //= 2


def test_a_file_over_two_gigabytes(tmp_path: Path) -> None:
    """The feature large_file is set with the first one."""
    require("mke2fs", "e2fsck", "dumpe2fs")
    path = tmp_path / "sparse.img"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "4096", "-O", "^large_file,^resize_inode", path)
    with ext3.Filesystem.open(path, "r+") as fs:
        fs.create("/f")
        fs.truncate("/f", (1 << 31) - 1)
    assert_clean(path)
    assert b"large_file" not in run("dumpe2fs", "-h", path).stdout
    with ext3.Filesystem.open(path, "r+") as fs, fs.open_file("/f", "r+") as file:
        file.write_at(5 << 30, b"end")
    assert b"large_file" in run("dumpe2fs", "-h", path).stdout
    assert_clean(path)
    with ext3.Filesystem.open(path) as fs:
        assert fs.stat("/f").size == (5 << 30) + 3


def test_files_without_names(tmp_path: Path) -> None:
    """An image that is left while files without names were open: e2fsck and we delete them alike."""
    require("mke2fs", "e2fsck")
    path = tmp_path / "orphans.img"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext3", path)
    with ext3.Filesystem.open(path, "r+") as fs:
        free = fs.superblock.free_blocks
    fs = ext3.Filesystem.open(path, "r+")
    for number in range(5):
        fs.write_bytes(f"/f{number}", bytes(50_000))
    held = [fs.open_file(f"/f{number}", "r+") for number in range(5)]
    for number in range(5):
        fs.unlink(f"/f{number}")
    held[2].close()
    held[1].write_at(60_000, b"more")
    fs.sync()
    copy = tmp_path / "copy.img"
    copy.write_bytes(path.read_bytes())
    for file in held:
        file.close()
    fs.close()
    assert_clean(path)
    run("e2fsck", "-fy", copy, ok=(0, 1))
    assert_clean(copy)
    with ext3.Filesystem.open(path) as fs:
        assert fs.superblock.free_blocks == free
    with ext3.Filesystem.open(copy) as fs:
        assert fs.superblock.free_blocks == free


def test_interrupted_edits_recovered_by_others(tmp_path: Path) -> None:
    """What e2fsck and the kernel recover from edits that were cut off is the tree of a sync, and the image stays usable."""
    require("e2fsck")
    recording = record_steps(1024)
    judges = ["e2fsck"] if why_no_mount() else ["e2fsck", "kernel"]
    path = tmp_path / "cut.img"
    for number, (happened, left) in enumerate(recording.cuts(seed=9)):
        if number % 12:
            continue
        expected = recording.allowed(happened)
        for judge in judges:
            path.write_bytes(content_of(left))
            if judge == "e2fsck":
                run("e2fsck", "-fp", path, ok=(0, 1))
            else:
                with kernel_mount(path, rw=True) as point:
                    fill_and_empty(point)
            assert_clean(path)
            assert state(MemoryDevice(path.read_bytes())) in expected, (number, judge)


@pytest.mark.parametrize("inode_size", [128, 256])
@pytest.mark.parametrize("judge", ["us", "e2fsck -fy", "e2fsck -fp", "kernel"])
def test_files_without_a_name_are_deleted_by_all(judge: str, inode_size: int, tmp_path: Path) -> None:
    """A crash with orphans of every type: a device number or a target is no block map, attribute blocks go with them."""
    require("mke2fs", "e2fsck", "debugfs")
    path = tmp_path / "orphans.img"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", "-I", str(inode_size), path)
    device = MemoryDevice(path.read_bytes())
    with ext3.Filesystem.open(device, "r+") as fs:
        fs.write_bytes("/f", bytes(6_000_000))  # the blocks that such a map would name
        fs.sync()
        free = fs.superblock.free_blocks, fs.superblock.free_inodes
        inos = {}
        for kind, (mode, more) in NAMELESS.items():
            for long in (b"", b"v" * 300):
                inos[kind] = ino = fs.create_nameless(2, mode, **more)
                fs.set_xattr(ino, b"trusted.kind", kind.encode() + long)
                fs.set_attributes(ino, uid=1, gid=2, atime=3, mtime=4)
        fs.write_bytes(inos["regular"], b"data" * 20_000)
        fs.sync()
        path.write_bytes(device.data)
    for kind, needle in (("device", b"Device major/minor number: 300:70000"), ("fast symlink", b'Fast link dest: "ttt')):
        assert needle in run("debugfs", "-R", f"stat <{inos[kind]}>", path).stdout
    if judge == "us":
        with ext3.Filesystem.open(path, "r+"):
            pass
    elif judge == "kernel":
        with kernel_mount(path, rw=True) as point:
            fill_and_empty(point)
    else:
        run(*judge.split(), path, ok=(0, 1))
    assert_clean(path)
    with ext3.Filesystem.open(path) as fs:
        assert (fs.superblock.free_blocks, fs.superblock.free_inodes) == free
        assert fs.read_bytes("/f") == bytes(6_000_000)
