"""Images the kernel was cut off from, with logs, revokes and orphans of its own: read and recovered by us as by the others."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import struct
from contextlib import suppress
from pathlib import Path

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.format.jbd_schema import JOURNAL_SUPERBLOCK

from ..crash.test_edit_sequences import state_of
from ..support.sessions import COMMIT_START
from ..support.tools import assert_clean, kernel_mount, require, run

pytestmark = pytest.mark.root

SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN: nothing reaches the device any more."""
LOG_FLUSHED, NOTHING_FLUSHED = 1, 2


def work(top: Path, chance: random.Random) -> list[int]:
    """Some hundred changes, most of which succeed; descriptors of files that lost their names."""
    orphans = []
    for _ in range(chance.choice([60, 400])):
        path, kind = top / f"n{chance.randrange(200)}", chance.random()
        with suppress(OSError):
            if kind < 0.25:
                path.mkdir()
            elif kind < 0.5:
                path.write_bytes(chance.choice([b"\xc0\x3b\x39\x98", b"abc"]) * chance.choice([1, 300, 20_000, 100_000]))
            elif kind < 0.6:
                path.rename(top / f"n{chance.randrange(200)}")
            elif kind < 0.7:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            elif kind < 0.75:
                path.symlink_to("t" * chance.choice([5, 100]))
            elif kind < 0.8:
                os.setxattr(path, "user.x", b"v" * chance.choice([10, 700]), follow_symlinks=False)
            elif kind < 0.85:
                os.truncate(path, chance.randrange(300_000))
            elif kind < 0.87:
                run("sync", "-f", top)
            elif kind < 0.9 and path.is_dir():
                for number in range(60):
                    (path / f"{'k' * 40}{number}").touch()
            elif kind < 0.93 and path.is_dir():
                shutil.rmtree(path)
            elif path.is_file():
                orphans.append(os.open(path, os.O_RDWR))
                path.unlink()
    return orphans


def shut_down(top: Path, how: int) -> None:
    fd = os.open(top, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", how))
    except OSError as error:
        pytest.skip(f"this kernel cannot be cut off: {error}")
    finally:
        os.close(fd)


@pytest.mark.parametrize("mode", ["ordered", "journal", "writeback", "checksum"])
@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
def test_all_recover_alike(block_size: int, mode: str, scratch: Path) -> None:
    require("mke2fs", "e2fsck", "mount")
    image, point = scratch / "image", scratch / "point"
    point.mkdir()
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", str(block_size), "-J", "size=4", image, "40M")
    kind, option = ("ext4", "journal_checksum") if mode == "checksum" else ("ext3", f"data={mode}")
    chance = random.Random(f"{block_size} {mode}")
    run("mount", "-t", kind, "-o", f"loop,{option}", image, point)
    orphans: list[int] = []
    try:
        orphans = work(point, chance)
        run("sync", "-f", point)
        orphans += work(point, chance)
        shut_down(point, chance.choice([LOG_FLUSHED, NOTHING_FLUSHED]))
    finally:
        for fd in orphans:
            os.close(fd)
        run("umount", point)
    copies = {who: scratch / who for who in ("us", "e2fsck", "kernel")}
    for copy in copies.values():
        shutil.copyfile(image, copy)
    with ext3.Filesystem.open(image) as fs:
        assert fs.needs_recovery
        assert fs.journal_problem is None
        seen = state_of(fs)
    with ext3.Filesystem.open(copies["us"], "r+"):
        pass
    run("e2fsck", "-fp", copies["e2fsck"], ok=(0, 1))
    with kernel_mount(copies["kernel"], rw=True):
        pass
    for copy in copies.values():
        assert_clean(copy)
        with ext3.Filesystem.open(copy) as fs:
            assert state_of(fs) == seen


def test_numbers_of_transactions_begin_again(scratch: Path) -> None:
    """Our logs around transaction 2**32 - 1 are played back by the kernel and e2fsck."""
    require("mke2fs", "e2fsck")
    image = scratch / "image"
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", image, "16M")
    device = MemoryDevice(image.read_bytes())
    with ext3.Filesystem.open(device) as fs:
        at = fs.data_extents(8)[0][1] * 1024
    JOURNAL_SUPERBLOCK.view(device.data, 1, at)["s_sequence"] = 0xFFFFFFFE
    before = bytes(device.data)
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+") as fs:
        for number in range(4):
            fs.write_bytes(f"/f{number}", b"x" * 5000)
            fs.sync()
    commits = [at for at, event in enumerate(recorded.events) if event.data[:8] == COMMIT_START]
    numbers = [int.from_bytes(recorded.events[at].data[8:12], "big") for at in commits]
    assert numbers == [0xFFFFFFFE, 0xFFFFFFFF, 0, 1]
    for number, end in enumerate(commits):
        for judge in ("us", "e2fsck", "kernel"):
            copy = scratch / judge
            copy.write_bytes(play(before, recorded.events[: end + 1]).data)
            if judge == "us":
                with ext3.Filesystem.open(copy, "r+") as fs:
                    fs.mkdir("/more")
            elif judge == "e2fsck":
                run("e2fsck", "-fp", copy, ok=(0, 1))
            else:
                with kernel_mount(copy, rw=True) as point:
                    (point / "more").mkdir()
            assert_clean(copy)
            with ext3.Filesystem.open(copy) as fs:
                assert fs.read_bytes(f"/f{number}") == b"x" * 5000
