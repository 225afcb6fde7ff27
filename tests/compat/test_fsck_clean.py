"""Clean means clean: nothing is found in images that are sound, whoever made them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import ext3
from ext3.device.base import FileDevice
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.finding import Report
from ext3.fsck.policy import CheckOnly, Preen, Yes
from sifkit.cli import main
from tools.ext3_mutants import samples
from tools.judge_fsck import complaints, e2fsck

from ..support.tools import kernel_mount, require, requires_root, run

UUID = "01234567-89ab-cdef-0123-456789abcdef"
MKE2FS = [
    "-t ext2 -b 1024",
    "-t ext2 -b 2048 -I 128",
    "-t ext2 -b 4096",
    "-t ext3 -b 1024",
    "-t ext3 -b 1024 -I 128 -g 2048",
    "-t ext3 -b 2048 -i 65536",
    "-t ext3 -b 4096 -I 512",
    "-t ext3 -b 1024 -O ^resize_inode,^dir_index",
    "-t ext3 -b 1024 -O ^sparse_super,^large_file,^resize_inode -g 1024",
    "-t ext3 -b 1024 -O meta_bg,^resize_inode -g 256",
    "-t ext3 -b 1024 -O ^filetype",
    "-t ext3 -b 1024 -E resize=1000000",
    "-t ext3 -b 1024 -E packed_meta_blocks=1",
    "-t ext2 -b 1024 -O none",
    "-t ext2 -b 1024 -N 16",
    "-r 0 -b 1024",
    "-r 0 -b 4096",
    "-t ext2 -b 1024 -o hurd",
    "-t ext3 -b 1024 -J size=8",
    "-t ext2 -b 1024 -l BADBLOCKS",
]


def judged(image: Path, policy: CheckOnly | Preen | Yes, *, force: bool = True) -> Report:
    fd = os.open(image, os.O_RDWR if policy.writes else os.O_RDONLY)
    try:
        return check(FileDevice(fd), policy, options=CheckOptions(force=force))
    finally:
        os.close(fd)


def found(report: Report) -> list[str]:
    """Return the faults of a report; what is only worth a note is none."""
    return [str(finding) for finding in report.findings if not finding.problem.note]


def assert_found_clean(image: Path) -> None:
    """Neither e2fsck nor our check finds anything, and a look changes nothing; nor does a run that may write find anything."""
    assert not complaints(*e2fsck(image, "-fn"))
    before = image.read_bytes()
    report = judged(image, CheckOnly())
    assert found(report) == []
    assert report.exit_code == 0
    assert image.read_bytes() == before
    for policy in (Preen(), Yes()):
        report = judged(image, policy)
        assert found(report) == []
        assert report.exit_code == 0
        assert not complaints(*e2fsck(image, "-fn"))


def assert_clean_once_replayed(image: Path) -> None:
    """What e2fsck finds in nothing after the replay and the orphans, our check finds nothing in; and so in its own result."""
    theirs = image.with_name("theirs.img")
    theirs.write_bytes(image.read_bytes())
    e2fsck(theirs, "-E", "journal_only")
    assert e2fsck(theirs, "-p")[0] in (0, 1)
    assert not complaints(*e2fsck(theirs, "-fn"))
    before = image.read_bytes()
    looked = judged(image, CheckOnly())
    assert image.read_bytes() == before
    assert found(looked) == []
    assert looked.exit_code == 0
    done = judged(image, Preen(), force=False)
    assert done.exit_code in (0, 1)
    assert done.orphans == looked.orphans
    assert_found_clean(image)


@pytest.mark.parametrize("words", MKE2FS)
def test_mke2fs(words, scratch):
    require("mke2fs", "e2fsck")
    image, bad = scratch / "a.img", scratch / "bad-blocks"
    bad.write_text("5000\n5001\n7000\n")
    run("mke2fs", "-q", "-F", *words.replace("BADBLOCKS", str(bad)).split(), image, "24M")
    assert_found_clean(image)


def test_mke2fs_with_a_tree(scratch):
    require("mke2fs", "e2fsck")
    tree = scratch / "tree"
    tree.mkdir()
    for number in range(300):
        (tree / f"file-{number}").write_bytes(os.urandom(number * 50))
    (tree / "sparse").write_bytes(b"")
    os.truncate(tree / "sparse", 100 << 20)
    (tree / "link").symlink_to("x" * 200)
    os.link(tree / "file-1", tree / "hard")
    image = scratch / "a.img"
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", "-d", tree, image, "16M")
    assert_found_clean(image)
    run("e2fsck", "-fyD", image, ok=(0, 1))
    assert_found_clean(image)


def test_tune2fs(scratch):
    require("mke2fs", "tune2fs", "e2fsck")
    image = scratch / "a.img"
    run("mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024", image, "24M")
    for words in (
        "-j",
        "-U 01234567-89ab-cdef-0123-456789abcdef",
        "-O ^has_journal",
        "-j",
        "-e remount-ro -c 20 -i 30",
        "-m 1",
    ):
        run("tune2fs", *words.split(), image)
        assert_found_clean(image)


def test_genext2fs(scratch):
    require("genext2fs", "e2fsck")
    tree = scratch / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "dir/file").write_bytes(b"data" * 9000)
    (tree / "link").symlink_to("dir")
    image = scratch / "a.img"
    run("genext2fs", "-B", "1024", "-b", "4096", "-N", "200", "-d", tree, image)
    if complaints(*e2fsck(image, "-fn")):
        e2fsck(image, "-fy")
    assert_found_clean(image)


@pytest.mark.parametrize("size", ["16M", "200M"])
def test_create(size, scratch):
    image = scratch / "a.img"
    assert main(["overlay", "create", "--size", size, str(image)]) == 0
    assert_found_clean(image)


@pytest.mark.parametrize("number", range(5))
def test_our_own(number, scratch):
    """Images of our writer and editor; two of them have a log and orphans."""
    image = scratch / "a.img"
    image.write_bytes(samples()[number].data)
    with ext3.Filesystem.open(image) as fs:
        dirty = fs.superblock.needs_recovery
    if dirty:
        assert_clean_once_replayed(image)
    else:
        assert_found_clean(image)


@pytest.mark.parametrize("words", ["-t ext3 -b 1024", "-t ext3 -b 4096 -I 128", "-t ext2 -b 1024"])
def test_edited(words, scratch):
    require("mke2fs", "e2fsck")
    image = scratch / "a.img"
    run("mke2fs", "-q", "-F", *words.split(), image, "16M")
    chance = random.Random(words)
    with ext3.Filesystem.open(image, "r+") as fs:
        fs.mkdir("/d")
        for number in range(400):
            fs.write_bytes(f"/d/{'n' * (number % 60)}-{number}", bytes(chance.randrange(5000)))
        for number in chance.sample(range(400), 250):
            fs.unlink(f"/d/{'n' * (number % 60)}-{number}")
        for number in range(30):
            fs.mkdir(f"/d/dir-{number}")
            fs.set_xattr(f"/d/dir-{number}", b"user.number", b"%d" % (number // 3) * 90)
        for number in range(0, 30, 2):
            fs.remove_tree(f"/d/dir-{number}")
    assert_found_clean(image)


@requires_root
@pytest.mark.slow
@pytest.mark.parametrize("words", ["-t ext3 -b 1024", "-t ext3 -b 4096", "-t ext3 -b 1024 -I 128"])
def test_kernel(words, scratch):
    require("mke2fs", "e2fsck")
    image = scratch / "a.img"
    run("mke2fs", "-q", "-F", *words.split(), image, "24M")
    with kernel_mount(image, rw=True) as point:
        _fill_mounted(point)
    assert_found_clean(image)


@requires_root
@pytest.mark.slow
def test_kernel_dirty_with_orphans(scratch):
    """A copy of the image while it is mounted and files are open that have no name any more."""
    require("mke2fs", "e2fsck")
    image, copy = scratch / "a.img", scratch / "copy.img"
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", image, "24M")
    with kernel_mount(image, rw=True) as point:
        _fill_mounted(point)
        opened = [(point / "d" / f"long-name-{number}").open("rb") for number in range(120, 126)]
        for number in range(120, 126):
            (point / "d" / f"long-name-{number}").unlink()
        run("sync", "-f", point)
        copy.write_bytes(image.read_bytes())
        for file in opened:
            file.close()
    assert_clean_once_replayed(copy)
    assert_found_clean(image)


def _fill_mounted(point: Path) -> None:
    (point / "d").mkdir()
    for number in range(500):
        (point / "d" / f"long-name-{number}").write_bytes(b"x" * (number * 20))
    for number in range(0, 500, 7):
        (point / "d" / f"long-name-{number}").unlink()
    (point / "link").symlink_to("y" * 100)
    with (point / "sparse").open("wb") as file:
        file.seek(80 << 20)
        file.write(b"end")
    os.mkfifo(point / "fifo")
    os.setxattr(point / "d", "user.much", b"v" * 700)
    os.setxattr(point / "sparse", "user.little", b"v")
