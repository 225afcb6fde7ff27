"""Images the kernel was cut off from, with logs, revokes and orphans of its own: read and recovered by us as by the others."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import struct
from pathlib import Path

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.format.jbd_schema import JOURNAL_SUPERBLOCK

from ..support.crashes import content_of
from ..support.edits import Edits
from ..support.operations import KERNEL_VERBS, HostTree
from ..support.recorded_edits import state_of
from ..support.sessions import COMMIT_START
from ..support.tools import assert_clean, kernel_mount, require, run

pytestmark = pytest.mark.root

SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN: nothing reaches the device any more."""
LOG_FLUSHED, NOTHING_FLUSHED = 1, 2


def work(mounted: HostTree, edits: Edits, chance: random.Random) -> None:
    """Some hundred changes, most of which succeed, and now and then a sync; files that lost their names stay open."""
    for _ in range(chance.choice([60, 400])):
        edits.step(mounted)
        if chance.random() < 0.02:
            run("sync", "-f", mounted.path)


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
    mounted = HostTree(point)
    edits = Edits(chance.randrange(1 << 32), block_size=block_size, largest=20_000, verbs=KERNEL_VERBS, lengths=(10, 60))
    try:
        work(mounted, edits, chance)
        run("sync", "-f", point)
        work(mounted, edits, chance)
        shut_down(point, chance.choice([LOG_FLUSHED, NOTHING_FLUSHED]))
    finally:
        mounted.close()
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
    before = MemoryDevice(bytes(device.data))
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
            copy.write_bytes(content_of(play(before, recorded.events[: end + 1])))
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
