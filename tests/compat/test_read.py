"""The reader judged by the kernel and debugfs: images that mke2fs and the kernel made, fact by fact, and damaged ones."""

from __future__ import annotations

import errno
import gzip
import os
import random
import re
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ext3.constants import FileType
from ext3.device.base import MemoryDevice
from ext3.errors import Ext3Error, UnsupportedError
from ext3.format import acl
from ext3.read.filesystem import Filesystem

from ..support.tools import corpus, dumpe2fs, kernel_mount, requires_root, run, wait_until_detached

CORPUS = corpus("e2fsprogs")
CASES = sorted(CORPUS.glob("*/image.gz"))

VARIANTS = {
    "1k": ["-b", "1024"],
    "4k": ["-b", "4096"],
    "2k-inode128": ["-b", "2048", "-I", "128"],
    "1k-inode512": ["-b", "1024", "-I", "512"],
    "nofiletype": ["-b", "1024", "-O", "^filetype"],
    "nojournal": ["-b", "1024", "-O", "^has_journal"],
    "nosparse": ["-b", "1024", "-O", "^sparse_super,^resize_inode"],
    "metabg": ["-b", "1024", "-O", "meta_bg,^resize_inode"],
    "noindex": ["-b", "1024", "-O", "^dir_index"],
}


def make(image: Path, size: int, *options: str, kind: str = "ext3") -> None:
    with image.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-t", kind, *options, image)


@contextmanager
def mounted(image: Path, point: Path, *, rw: bool = False) -> Iterator[Path]:
    """As ``kernel_mount``, for filesystems without a journal too, which the kernel does not call ext3."""
    if "has_journal" in dumpe2fs(image, header_only=True):
        with kernel_mount(image, rw=rw) as root:
            yield root
        return
    point.mkdir(exist_ok=True)
    run("mount", "-t", "ext4", "-o", "loop,noatime," + ("rw" if rw else "ro"), image, point)
    try:
        yield point
    finally:
        run("umount", point)
        wait_until_detached(image)


def sparse_file(path: Path, spots: list[tuple[int, bytes]], size: int) -> None:
    with path.open("wb") as file:
        for offset, data in spots:
            file.seek(offset)
            file.write(data)
        file.truncate(size)


def fill(root: Path) -> None:
    """Everything an ext3 can hold, made by the kernel."""
    rng = random.Random(7)
    (root / "empty").touch()
    (root / "small").write_bytes(b"hello\n")
    (root / "unaligned").write_bytes(rng.randbytes(5001))
    (root / "indirect").write_bytes(rng.randbytes(300_000))
    (root / "double").write_bytes(rng.randbytes(3_000_000))
    (root / "d" / "e" / "f").mkdir(parents=True)
    (root / "d" / "e" / "leaf").write_bytes(b"leaf")
    os.link(root / "small", root / "d" / "hard")
    # Data before, in and behind the first double and triple indirect blocks of 1K blocks.
    spots = [(3 * 1024 + 5, b"one"), (268 * 1024 - 1, b"two"), (65804 * 1024 - 2, b"three"), ((65804 + 70000) * 1024, b"four")]
    sparse_file(root / "sparse", spots, (65804 + 70000) * 1024 + 8000)
    sparse_file(root / "allhole", [], 123_456_789)
    sparse_file(root / "over2g", [((1 << 31) + 77, b"far")], (1 << 31) + 5000)
    for length in (1, 59, 60, 61, 1000):
        os.symlink("t" * length, root / f"link{length}")
    os.symlink("d/e/../e/leaf", root / "tofile")
    os.symlink("/d/e", root / "todir")
    os.symlink("loop2", root / "loop1")
    os.symlink("loop1", root / "loop2")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        here = Path.cwd()
        os.chdir(root)
        try:
            unix.bind("socket")
        finally:
            os.chdir(here)
    for name, form, number in (
        ("null", stat.S_IFCHR, (1, 3)),
        ("wide", stat.S_IFBLK, (259, 0x12345)),
        ("edge", stat.S_IFCHR, (255, 255)),
        ("whiteout", stat.S_IFCHR, (0, 0)),
    ):
        os.mknod(root / name, form | 0o640, os.makedev(*number))
    os.chown(root / "small", 100_000, 200_000)
    os.chown(root / "link1", 4_000_000_000, 70_000, follow_symlinks=False)
    (root / "suid").touch()
    (root / "suid").chmod(0o6755)
    (root / "d").chmod(0o1777)
    for number, seconds in enumerate((0, 1, 946684800_123456789, -(10**9) - 1, (2**31 + 5) * 10**9 + 999_999_999)):
        (root / f"time{number}").touch()
        os.utime(root / f"time{number}", ns=(seconds, seconds + 1))
    many = root / "many"
    many.mkdir()
    for number in range(3000):
        (many / f"a rather long file name {number:06d}").touch()
    for number in range(0, 3000, 3):
        (many / f"a rather long file name {number:06d}").unlink()
    for name in (b"caf\xc3\xa9", b"\xff\xfe raw", b"n" * 255, b"new\nline"):
        Path(os.fsdecode(os.path.join(os.fsencode(root), name))).touch()
    os.setxattr(root / "small", "user.one", b"1")
    os.setxattr(root / "small", "user.empty", b"")
    os.setxattr(root / "small", "trusted." + "n" * 200, b"v" * 300)
    os.setxattr(root / "d", "user.dir", b"x" * 500)
    text = "user::rwx,user:1000:r-x,user:70000:rw-,group::r-x,group:8:---,mask::rwx,other::r--"
    os.setxattr(root / "d", "system.posix_acl_access", acl.parse_text(text))
    os.setxattr(
        root / "d", "system.posix_acl_default", acl.parse_text("default:user::rwx,default:group::---,default:other::---")
    )
    os.setxattr(root / "fifo", "trusted.overlay.opaque", b"y")
    os.setxattr(root / "suid", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))


def host_entries(root: Path) -> Iterator[tuple[bytes, bytes]]:
    top = os.fsencode(root)
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(directory, name)
            yield os.path.relpath(path, top), path


def compare_content(fs: Filesystem, ino: int, path: bytes) -> None:
    """Data where the kernel says there is some, and zeros between; long holes are only looked at from both ends."""
    with open(path, "rb") as theirs, fs.open_file(ino) as ours:
        size = os.fstat(theirs.fileno()).st_size
        assert ours.size == size
        if size <= 8 << 20:
            assert ours.read() == theirs.read()
            assert fs.read_bytes(ino) == os.pread(theirs.fileno(), size + 1, 0)
            return
        offset = 0
        while True:
            try:
                start = os.lseek(theirs.fileno(), offset, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
                break
            offset = os.lseek(theirs.fileno(), start, os.SEEK_HOLE)
            before = max(0, start - 5000)
            ours.seek(before)
            length = offset + 5000 - before
            assert ours.read(length) == os.pread(theirs.fileno(), length, before)
        ours.seek(-100, os.SEEK_END)
        assert ours.read(500) == os.pread(theirs.fileno(), 500, size - 100)


def compare(fs: Filesystem, root: Path, *, large_inodes: bool) -> None:
    ours = {path: entry for path, entry in fs.walk() if not path.startswith(b"lost+found/")}
    theirs = dict(host_entries(root))
    assert ours.keys() == theirs.keys()
    resolution = 1 if large_inodes else 10**9
    for name, path in [(b"", os.fsencode(root)), *theirs.items()]:
        want = os.lstat(path)
        ino = fs.lookup(name, follow=False)
        got = fs.stat(ino)
        assert (got.ino, got.mode, got.uid, got.gid, got.links, got.size, got.blocks) == (
            want.st_ino, want.st_mode, want.st_uid, want.st_gid, want.st_nlink, want.st_size, want.st_blocks,
        ), name  # fmt: skip
        for mine, its in ((got.atime, want.st_atime_ns), (got.mtime, want.st_mtime_ns), (got.ctime, want.st_ctime_ns)):
            assert mine == its // resolution * resolution, name
        if stat.S_ISCHR(want.st_mode) or stat.S_ISBLK(want.st_mode):
            assert (got.major, got.minor) == (os.major(want.st_rdev), os.minor(want.st_rdev)), name
        if name in ours:
            assert ours[name].file_type is got.file_type is not FileType.UNKNOWN
            assert ours[name].ino == got.ino
        names = {attribute for attribute in os.listxattr(path, follow_symlinks=False) if attribute != "security.selinux"}
        expected = {os.fsencode(attribute): os.getxattr(path, attribute, follow_symlinks=False) for attribute in names}
        assert fs.xattrs(ino) == expected, name
        if stat.S_ISLNK(want.st_mode):
            assert fs.readlink(ino) == os.readlink(path)
        elif stat.S_ISREG(want.st_mode):
            compare_content(fs, ino, path)


@requires_root
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_kernel_wrote(variant: str, scratch: Path) -> None:
    image = scratch / "kernel.img"
    make(image, 64 << 20, *VARIANTS[variant])
    with mounted(image, scratch / "point", rw=True) as root:
        fill(root)
    with mounted(image, scratch / "point") as root, Filesystem.open(image) as fs:
        compare(fs, root, large_inodes="128" not in VARIANTS[variant])
        assert fs.read_bytes("tofile") == fs.read_bytes(b"/todir/leaf") == fs.read_bytes("/d/e/f/../leaf") == b"leaf"
        assert fs.lookup("/todir/..") == fs.lookup("d")
        with pytest.raises(OSError, match="symbolic links") as caught:
            fs.lookup("loop1")
        assert caught.value.errno == errno.ELOOP
        assert not fs.needs_recovery
    run("e2fsck", "-fn", image)


@pytest.mark.parametrize("variant", VARIANTS)
def test_facts_of_dumpe2fs(variant: str, scratch: Path) -> None:
    image = scratch / "facts.img"
    make(image, 64 << 20, *VARIANTS[variant], "-L", "a label", "-m", "3", "-g", "2048" if variant == "metabg" else "0")
    text = dumpe2fs(image)
    said = dict(re.findall(r"^([A-Z][^:\n]*):\s+(.*?)\s*$", text, re.MULTILINE))
    with Filesystem.open(image) as fs:
        facts = fs.superblock
        assert facts.label == said["Filesystem volume name"].encode() == b"a label"
        assert str(facts.uuid) == said["Filesystem UUID"]
        assert sorted(facts.features) == sorted(said["Filesystem features"].split())
        assert facts.inodes_count == int(said["Inode count"])
        assert facts.blocks_count == int(said["Block count"])
        assert facts.reserved_blocks == int(said["Reserved block count"]) > 0
        assert facts.free_blocks == int(said["Free blocks"])
        assert facts.free_inodes == int(said["Free inodes"])
        assert facts.inode_size == int(said["Inode size"])
        assert facts.reserved_gdt_blocks == int(said.get("Reserved GDT blocks", 0))
        tables = [int(block) for block in re.findall(r"Inode table at (\d+)", text)]
        assert fs.groups["bg_inode_table"].tolist() == tables
        assert fs.groups["bg_free_blocks_count"].sum() == facts.free_blocks
        geometry = fs.geometry()
        used = 0
        for group in range(facts.groups_count):
            used += int(fs.block_bitmap(group)[: geometry.block_count(group)].sum())
        assert facts.blocks_count - facts.first_data_block - used == facts.free_blocks
        inodes = sum(int(fs.inode_bitmap(group)[: facts.inodes_per_group].sum()) for group in range(facts.groups_count))
        assert facts.inodes_count - inodes == facts.free_inodes
        journal = fs.journal_superblock()
        assert (journal is None) == ("nojournal" in variant)
        if journal is not None:
            assert journal["s_start"] == 0
            assert journal["s_maxlen"] == int(said["Total journal blocks"])


@pytest.mark.parametrize("block_size", ["1024", "4096"])
def test_what_mke2fs_took_in(block_size: str, scratch: Path) -> None:
    source = scratch / "source"
    (source / "sub").mkdir(parents=True)
    rng = random.Random(3)
    contents = {f"sub/file{number}": rng.randbytes(rng.randrange(20_000)) for number in range(200)}
    contents["large"] = rng.randbytes(2_000_000)
    for name, data in contents.items():
        (source / name).write_bytes(data)
    image = scratch / "populated.img"
    make(image, 32 << 20, "-b", block_size, "-d", str(source))
    with Filesystem.open(image) as fs:
        for name, data in contents.items():
            assert fs.read_bytes(name) == data
        table = fs.inode_table(0)
        for path, entry in fs.walk():
            group, row = divmod(entry.ino - 1, fs.superblock.inodes_per_group)
            assert group > 0 or table["i_mode"][row] == fs.stat(path, follow=False).mode
            blocks = fs.block_map(entry.ino)
            assert (blocks.mapped + len(blocks.indirect)) * int(block_size) // 512 == fs.stat(entry.ino).blocks


def test_a_window_of_a_file(scratch: Path) -> None:
    image, whole = scratch / "inner.img", scratch / "outer.bin"
    make(image, 8 << 20, "-L", "inner")
    whole.write_bytes(b"x" * 12345 + image.read_bytes() + b"y" * 777)
    with Filesystem.open(whole, offset=12345, size=8 << 20) as fs:
        assert fs.superblock.label == b"inner"
    with whole.open("rb") as file, Filesystem.open(file, offset=12345, size=8 << 20) as fs:
        assert [entry.name for entry in fs.scandir("/")] == [b"lost+found"]


def test_rev_0(scratch: Path) -> None:
    image = scratch / "rev0.img"
    make(image, 4 << 20, "-r", "0", "-O", "none", kind="ext2")
    with Filesystem.open(image) as fs:
        assert (fs.superblock.revision, fs.superblock.inode_size, fs.superblock.first_ino) == (0, 128, 11)
        assert [(entry.name, entry.ino, entry.file_type) for entry in fs.scandir()] == [(b"lost+found", 11, FileType.DIRECTORY)]


def test_ext4_is_named(scratch: Path) -> None:
    image = scratch / "ext4.img"
    make(image, 16 << 20, kind="ext4")
    said = set(re.search(r"Filesystem features:\s+(.*)", dumpe2fs(image, header_only=True))[1].split())  # type: ignore[index]
    with pytest.raises(UnsupportedError) as caught:
        Filesystem.open(image)
    assert {"extent", "64bit", "metadata_csum"} <= set(caught.value.features) <= said
    assert "ext4" in caught.value.hint


def test_a_dirty_journal_is_told(scratch: Path) -> None:
    image = scratch / "dirty.img"
    make(image, 16 << 20)
    block = scratch / "block"
    block.write_bytes(b"z" * 1024)
    run("debugfs", "-w", "-f", "/dev/stdin", image, stdin=f"jo\njw -b 9000 {block}\njc\n".encode())
    with Filesystem.open(image) as fs:
        assert fs.needs_recovery
        journal = fs.journal_superblock()
        assert journal is not None
        assert journal["s_start"] != 0
        assert [entry.name for entry in fs.scandir()] == [b"lost+found"]


def look_at_everything(fs: Filesystem) -> tuple[int, list[Ext3Error]]:
    """Walk and read all there is; (number of entries, errors). Only the kinds of Ext3Error may come."""
    errors: list[Ext3Error] = []
    count = 0
    for _, entry in fs.walk(onerror=errors.append):
        count += 1
        try:
            facts = fs.stat(entry.ino)
            fs.xattrs(entry.ino)
            if facts.is_symlink:
                fs.readlink(entry.ino)
            elif facts.is_file and facts.size:
                with fs.open_file(entry.ino) as file:
                    file.read(1 << 20)
        except Ext3Error as error:
            errors.append(error)
    for group in range(fs.superblock.groups_count):
        for read in (fs.block_bitmap, fs.inode_bitmap, fs.inode_table):
            try:
                read(group)
            except Ext3Error as error:
                errors.append(error)
    try:
        fs.journal_superblock()
    except Ext3Error as error:
        errors.append(error)
    return count, errors


GOOD = {"f_h_normal": 47720, "f_h_unsigned": 47720, "f_orphan": 2, "f_orphan_indirect_inode": 2}
"""Entries of the images e2fsck has nothing against."""


@pytest.mark.skipif(not CASES, reason=f"no images in {CORPUS.name} (SIFKIT_CORPUS names the directory above)")
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.parent.name)
def test_damaged_images(case: Path) -> None:
    device = MemoryDevice(gzip.decompress(case.read_bytes()))
    name = case.parent.name
    try:
        count, errors = look_at_everything(Filesystem(device))
    except Ext3Error as error:
        assert name not in GOOD
        assert str(error)
        return
    assert name not in GOOD or (count == GOOD[name] and not errors)
    assert all(str(error) for error in errors)


@requires_root
def test_random_damage(scratch: Path) -> None:
    """Metadata overwritten at random places: data or an Ext3Error, nothing else, and never without end."""
    image = scratch / "damaged.img"
    make(image, 2 << 20, "-O", "^has_journal", "-N", "128")
    with mounted(image, scratch / "point", rw=True) as root:
        for number in range(20):
            (root / f"dir{number}").mkdir()
            (root / f"dir{number}" / "file").write_bytes(b"x" * 3000)
            os.symlink("a" * (number * 9 + 1), root / f"link{number}")
        (root / "deep").write_bytes(b"y" * 400_000)
        os.setxattr(root / "deep", "user.x", b"v" * 400)
    good = image.read_bytes()
    rng = random.Random(11)
    failures = 0
    with Filesystem(MemoryDevice(good)) as fs:
        table = int(fs.groups["bg_inode_table"][0]) * 1024
        spots = [*range(1024, 1536), *range(2048, 2080), *range(table, table + 80 * 256)]
        for ino in range(1, 80):
            spots += [row[1] * 1024 + at for row in fs.data_extents(ino)[:2] for at in range(64)]
            spots += [block * 1024 + at for block in fs.block_map(ino).indirect for at in range(64)]
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(rng.randrange(1, 12)):
            at = rng.choice(spots)
            damaged[at : at + 4] = struct.pack(
                "<I", rng.choice([0, 1, 2, 11, 40, 0xFFFFFFFF, rng.getrandbits(32), rng.getrandbits(11)])
            )
        try:
            failures += bool(look_at_everything(Filesystem(MemoryDevice(damaged)))[1])
        except Ext3Error:
            failures += 1
    assert failures > 50
