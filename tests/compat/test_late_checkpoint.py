"""Logs with several transactions, judged by others: e2fsck and the kernel play them back, also around the log's end."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

import ext3
from ext3.edit.filesystem import WritableFilesystem

from ..support.crashes import content_of
from ..support.recorded_edits import record_random_edits, state_of
from ..support.sessions import clock, empty_image
from ..support.tools import assert_clean, fill_and_empty, kernel_mount, require, run


def test_cut_anywhere_and_recovered_by_e2fsck(scratch: Path) -> None:
    require("e2fsck")
    recording = record_random_edits("orphans", 1024, syncs=16, most=3, late_checkpoint=True, log_blocks=120)
    path = scratch / "image"
    for number, (happened, left) in enumerate(recording.cuts(seed=5)):
        if number % 9:
            continue
        path.write_bytes(content_of(left))
        run("e2fsck", "-fp", path, ok=(0, 1))
        assert_clean(path)
        with ext3.Filesystem.open(path) as fs:
            assert state_of(fs) in recording.allowed(happened)


@pytest.mark.root
def test_played_back_by_the_kernel(scratch: Path) -> None:
    """Large transactions around the end of the log, right after a sync: directories become data, data becomes directories."""
    require("e2fsck")
    device = empty_image(inodes=2000)
    path = scratch / "image"
    starts = []
    with WritableFilesystem(device, clock=clock, late_checkpoint=True) as fs:
        for number in range(14):
            top = b"/%d" % (number % 3)
            if fs.find_name(2, top[1:]):
                fs.remove_tree(top)
                fs.sync()
            fs.mkdir(top)
            for name in range(120):
                fs.mkdir(b"%s/%d" % (top, name))
                fs.write_bytes(b"%s/%d/f" % (top, name), b"%d " % number * 700)
                fs.truncate(b"%s/%d/f" % (top, name), 1300)
            fs.sync()
            path.write_bytes(device.data)
            with ext3.Filesystem.open(path) as seen:
                starts.append((seen.journal_superblock() or {})["s_start"])
            if number < 8 or number % 2:
                continue
            expected = state_of(fs)
            with kernel_mount(path, rw=True) as point:
                fill_and_empty(point)
            assert_clean(path)
            with ext3.Filesystem.open(path) as seen:
                assert state_of(seen) == expected
    assert starts[0] == 1
    assert sum(one > two for one, two in pairwise(starts)) > 1
    path.write_bytes(device.data)
    assert_clean(path)
