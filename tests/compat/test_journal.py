"""Journals judged by others: logs of the kernel and of debugfs played back as e2fsck and the kernel do, and ours by e2fsck."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ext3
from ext3.device.base import MemoryDevice, open_device
from ext3.device.copy_on_write import play
from ext3.edit.orphan_list import delete_inode
from ext3.edit.session import Session
from ext3.format.group_desc import read_groups
from ext3.format.schema import INODE_CORE
from ext3.format.superblock import read_superblock
from ext3.journal.log import read_journal, scan_log
from ext3.journal.replay import recover

from ..support.crashes import content_of
from ..support.sessions import COMMIT_START, FILES, clock, inode_of, record_session, signature, step
from ..support.tools import assert_clean, kernel_mount, require, run


def differing(first: Path, second: Path) -> set[int]:
    """Numbers of the 1 KiB blocks in which two images differ."""
    one, two = first.read_bytes(), second.read_bytes()
    assert len(one) == len(two)
    return {at // 1024 for at in range(0, len(one), 1024) if one[at : at + 1024] != two[at : at + 1024]}


def as_e2fsck(image: Path, scratch: Path) -> int:
    """Play ``image`` back and compare with e2fsck's replay, block by block; how many blocks were in the log."""
    ours, theirs = scratch / "ours.img", scratch / "theirs.img"
    shutil.copyfile(image, ours)
    shutil.copyfile(image, theirs)
    with ours.open("r+b") as file, open_device(file) as device:
        superblock = read_superblock(device)
        journal = read_journal(device, superblock, read_groups(device, superblock))
        count = len(recover(device, superblock, journal).blocks)
    run("e2fsck", "-y", "-E", "journal_only", theirs, ok=(0, 1))
    assert differing(ours, theirs) <= {1}  # the time of the superblock
    with ext3.Filesystem.open(image) as before, ext3.Filesystem.open(theirs) as after:
        assert before.journal_problem is None
        assert [path for path, _ in before.walk()] == [path for path, _ in after.walk()]
        for path, entry in before.walk():
            assert before.stat(entry.ino) == after.stat(entry.ino)
            if before.stat(entry.ino).is_file:
                assert before.read_bytes(path) == after.read_bytes(path)
    return count


def log_blocks(image: Path) -> int:
    with image.open("rb") as file, open_device(file) as device:
        superblock = read_superblock(device)
        journal = read_journal(device, superblock, read_groups(device, superblock))
        return len(scan_log(device, journal, blocks_count=superblock.blocks_count).blocks)


@pytest.mark.root
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_log_of_the_kernel(block_size: int, scratch: Path) -> None:
    """A copy of a mounted image, with directories that were removed (revokes) and a file that begins with the magic."""
    require("e2fsck", "mke2fs", "debugfs")
    image, dirty = scratch / "image", scratch / "dirty"
    run("mke2fs", "-q", "-t", "ext3", "-b", str(block_size), image, "40M")
    with kernel_mount(image, rw=True) as point:
        for number in range(200):
            (point / f"a{number}").mkdir()
        run("sync", "-f", point)
        for number in range(200):
            (point / f"a{number}").rmdir()
        for number in range(40):
            (point / f"f{number}").write_bytes(b"\xc0\x3b\x39\x98" * (1 + 4000 * (number % 3)))
        (point / "link").symlink_to("t" * 200)
        run("sync", "-f", point)
        shutil.copyfile(image, dirty)
    assert log_blocks(dirty) > 10
    if block_size == 1024:
        assert b"Revoke" in run("debugfs", "-R", "logdump -a", dirty).stdout
        assert as_e2fsck(dirty, scratch) > 20
    with dirty.open("r+b") as file, open_device(file) as device, Session(device, clock=clock) as edit:
        assert edit.replayed >= 2
    assert_clean(dirty)
    with ext3.Filesystem.open(dirty) as fs:
        assert fs.read_bytes(b"f1") == b"\xc0\x3b\x39\x98" * 4001


def test_log_of_debugfs(scratch: Path) -> None:
    require("e2fsck", "mke2fs", "debugfs")
    image, data = scratch / "image", scratch / "data"
    run("mke2fs", "-q", "-t", "ext3", "-b", "1024", image, "16M")
    data.write_bytes(b"\xc0\x3b\x39\x98" + b"e" * 1020 + b"x" * 1024)
    for command in ("jw -b 5000,5001", "jw -r 5001", "jw -b 5002,5003", "jw -r 5000,5002", "jw -b 5000,5003"):
        line = command if " -r" in command else f"{command} {data}"
        run("debugfs", "-w", "-f", "-", image, stdin=f"jo\n{line}\njc\n".encode())
    assert as_e2fsck(image, scratch) == 2


def test_ours_by_debugfs_and_e2fsck(scratch: Path) -> None:
    """After every sync the image is clean; a log that we wrote and never put in place is played back by e2fsck as meant."""
    require("e2fsck", "debugfs")
    image = scratch / "image"
    recording = record_session(1024, 6)
    checked = 0
    for end, _ in recording.syncs[1:]:
        left = play(MemoryDevice(recording.before), recording.events[:end])
        if not read_superblock(left).last_orphan:  # with -n such inodes are complaints
            image.write_bytes(content_of(left))
            assert_clean(image)
            checked += 1
    assert checked > 2
    commits = [n for n, event in enumerate(recording.events) if event.kind == "write" and event.data[:8] == COMMIT_START]
    image.write_bytes(content_of(play(MemoryDevice(recording.before), recording.events[: commits[-1] + 1])))
    dump = run("debugfs", "-R", "logdump -a", image).stdout
    assert b"Revoke FS block" in dump
    assert b"sequence 6, type 2 (commit block)" in dump
    assert as_e2fsck(image, scratch) > 5


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_cut_anywhere_and_recovered_by_e2fsck(block_size: int, scratch: Path) -> None:
    require("e2fsck")
    recording = record_session(block_size, 4)
    image = scratch / "image"
    for number, (happened, left) in enumerate(recording.cuts(seed=7)):
        if number % 2:
            continue
        image.write_bytes(content_of(left))
        text = run("e2fsck", "-fy", image, ok=(0, 1)).stdout
        assert b"? yes" not in text, text
        assert_clean(image)
        assert signature(MemoryDevice(image.read_bytes())) in recording.allowed(happened)


@pytest.mark.root
def test_cut_and_recovered_by_the_kernel(scratch: Path) -> None:
    """Committed and not in place: the kernel plays it back, fills the image, and nothing is damaged."""
    require("e2fsck")
    recording = record_session(1024, 3)
    commits = [n for n, event in enumerate(recording.events) if event.kind == "write" and event.data[:8] == COMMIT_START]
    image = scratch / "image"
    for end, expected in ((commits[-1], recording.states[2]), (commits[-1] + 1, recording.states[3])):
        image.write_bytes(content_of(play(MemoryDevice(recording.before), recording.events[:end])))
        with kernel_mount(image, rw=True) as point:
            (point / "more").mkdir()
            for number in range(30):
                (point / "more" / str(number)).write_bytes(bytes(50_000))
        assert_clean(image)
        assert signature(MemoryDevice(image.read_bytes())) == expected


@pytest.mark.parametrize(
    "options",
    [
        ["-b", "1024"],
        ["-b", "4096"],
        ["-b", "2048", "-I", "128"],
        ["-b", "4096", "-O", "^has_journal"],
        ["-b", "1024", "-O", "^resize_inode,meta_bg"],
        ["-b", "1024", "-g", "4096"],
        ["-b", "1024", "-r", "0", "-O", "none"],
    ],
)
def test_images_of_mke2fs(options: list[str], scratch: Path) -> None:
    """Space and inodes taken and given back, on all kinds of images."""
    require("e2fsck", "mke2fs", "debugfs")
    image, data = scratch / "image", scratch / "data"
    run("mke2fs", "-q", *(["-t", "ext3"] if "none" not in options else []), *options, image, "24M")
    data.write_bytes(bytes(range(256)) * 1200)
    for number in range(FILES):
        run("debugfs", "-w", "-R", f"write {data} f{number}", image)
    with image.open("r+b") as file, open_device(file, writable=True) as device:
        for _ in range(2):
            with Session(device, clock=clock) as edit:
                for number in range(12):
                    with edit.operation():
                        step(edit, number)
                    if number % 4 == 3:
                        edit.sync()
                        assert edit.last_orphan == 0
                        assert_clean(image)
                with edit.operation():
                    for number in range(FILES):
                        delete_and_remake(edit, inode_of(number))
            assert_clean(image)


def delete_and_remake(edit: Session, ino: int) -> None:
    """Delete the inode, and take one with the same record again: its name stays right."""
    raw = edit.read_inode(ino)
    delete_inode(edit, ino)
    assert edit.allocate_inode(2, is_dir=False) == ino
    row = INODE_CORE.view(bytearray(raw))
    row["i_block"] = row["i_size"] = row["i_blocks"] = row["i_file_acl"] = 0
    edit.write_inode(ino, row.tobytes().ljust(len(raw), b"\0")[:128] + raw[128:])
