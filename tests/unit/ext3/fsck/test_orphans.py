"""Orphan list: worked off through the journal or in memory, and dropped where it is damaged."""

from __future__ import annotations

import pytest

import ext3
from ext3.constants import JBD_MAGIC, STATE_ERROR, STATE_VALID
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice
from ext3.format.inode import parse_inode
from ext3.fsck.policy import Ask, CheckOnly, Preen, Yes

from ....support.fsck_volumes import LATER, Volume, assert_sound, codes, run, volume


def with_orphans(*names: str, cut: int | None = None, journal: bool = True) -> Volume:
    """A sound image with files in its orphan list: without a name, or longer than their size."""
    image = volume(journal=journal)
    with ext3.Filesystem.open(image.device) as fs:
        inos = [fs.lookup(f"/{name}") for name in names]
    following = 0
    for name, ino in zip(reversed(names), reversed(inos), strict=True):
        if cut is None:
            with ext3.Filesystem.open(image.device, "r+", clock=lambda: LATER.seconds * 10**9) as fs:
                fs.link(f"/{name}", "/keep")
                fs.unlink(f"/{name}")
                fs.hold(fs.lookup("/keep"))
                fs.unlink("/keep")
                fs.sync()
                lost = bytes(image.device.data)
                fs.abandon()
            image.device.data[:] = lost
            image.set_super(s_last_orphan=0, s_feature_incompat=2, s_state=STATE_VALID)
        else:
            image.set_inode(ino, i_size=cut)
        image.set_inode(ino, i_dtime=following)
        following = ino
    image.set_super(s_last_orphan=following)
    if journal:
        image.set_journal(s_start=0)
    return image


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("policy", [Yes(), Preen()])
def test_files_without_a_name_are_deleted(policy, journal):
    image = with_orphans("f0", "f1", "f2", journal=journal)
    free = image.super("s_free_blocks_count")
    report = run(image, policy, force=False)
    assert (codes(report), report.exit_code, report.orphans) == (["orphan-deleted"] * 3, 0, 3)
    assert report.skipped
    assert [finding.got for finding in report.findings] == [30_000] * 3
    assert image.super("s_last_orphan") == 0
    assert image.super("s_state") == STATE_VALID
    assert image.super("s_free_blocks_count") == free + 3 * 31
    for ino in (finding.place.ino for finding in report.findings):
        assert ino is not None
        assert parse_inode(image.inode(ino), ino).dtime == LATER.seconds
    assert_sound(image)


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("size", [0, 1, 1024, 1500, 20_000])
def test_files_longer_than_their_size_are_cut(size, journal):
    image = with_orphans("f0", cut=size, journal=journal)
    report = run(image, Preen(), force=False)
    assert (codes(report), report.exit_code) == (["orphan-truncated"], 0)
    assert image.read("/f0") == volume().read("/f0")[:size]
    with ext3.Filesystem.open(image.device) as fs:
        stat = fs.stat(fs.lookup("/f0"))
        last = -(-size // 1024)
        assert stat.blocks == 2 * (last + (last > 12))
        assert fs.inode(stat.ino).dtime == 0
        if size % 1024:
            block = fs.inode(stat.ino).i_block[0] if size < 1024 * 12 else None
            if block is not None and size < 1024:
                assert not any(image.device.read(block * 1024 + size, 1024 - size))
    assert_sound(image)


def test_looking_works_it_off_in_memory():
    for journal in (True, False):
        image = with_orphans("f0", "f1", journal=journal)
        before = image.data
        report = run(image, CheckOnly())
        assert (codes(report), report.orphans, report.exit_code) == (["orphan-deleted"] * 2, 2, 0)
        assert image.data == before


def test_it_goes_through_the_journal():
    image = with_orphans("f0", "f1")
    device = RecordingDevice(MemoryDevice(image.data))
    run(device, Preen(), force=False)
    writes = [event for event in device.events if event.kind == "write"]
    commit = JBD_MAGIC.to_bytes(4, "big") + (2).to_bytes(4, "big")
    first_commit = next(number for number, event in enumerate(writes) if event.data[:8] == commit)
    places = {image.inode_offset(ino) // 1024 for ino in range(11, 19)}
    early = [event for event in writes[:first_commit] if event.offset // 1024 in places]
    assert early == []
    assert any(event.offset // 1024 in places for event in writes[first_commit:])


def test_with_the_error_bit_it_is_only_dropped():
    image = with_orphans("f0", "f1")
    image.set_super(s_state=STATE_VALID | STATE_ERROR)
    report = run(image)
    assert report.orphans == 0
    assert codes(report)[:2] == ["inode-low-dtime", "inode-zero-dtime"]
    assert image.super("s_last_orphan") == 0
    assert_sound(image)


@pytest.mark.parametrize("ino", [1, 10, 0xFFFFFFFF, 500])
@pytest.mark.parametrize("journal", [True, False])
def test_a_head_that_is_no_file(ino, journal):
    image = volume(journal=journal)
    image.set_super(s_last_orphan=ino)
    assert run(image, CheckOnly()).exit_code == 4
    report = run(image, Preen(), force=False)
    assert (codes(report), report.exit_code, report.skipped) == (["orphan-list"], 1, False)
    assert image.super("s_last_orphan") == 0
    assert_sound(image)


def test_a_list_that_breaks_off():
    for following in (5, 77_777_777):
        image = with_orphans("f0", "f1")
        ino = image.super("s_last_orphan")
        second = parse_inode(image.inode(ino), ino).dtime
        image.set_inode(second, i_dtime=following)
        report = run(image)
        # The second is done, too; only what should follow is missing.
        assert codes(report)[:3] == ["orphan-deleted", "orphan-deleted", "orphan-list"]
        assert report.exit_code == 1
        assert_sound(image)


def test_a_loop():
    image = with_orphans("f0", "f1")
    ino = image.super("s_last_orphan")
    second = parse_inode(image.inode(ino), ino).dtime
    image.set_inode(second, i_dtime=ino)
    report = run(image)
    assert codes(report)[:3] == ["orphan-deleted", "orphan-deleted", "orphan-list"]
    assert_sound(image)
    image = with_orphans("f0", cut=0)
    image.set_inode(image.super("s_last_orphan"), i_dtime=image.super("s_last_orphan"))
    report = run(image)
    assert report.exit_code in (0, 1)
    assert_sound(image)


def test_an_orphan_with_a_bad_pointer():
    image = with_orphans("f0", "f1")
    image.set_inode(image.super("s_last_orphan"), i_block=[99_999_999] + [0] * 14)
    report = run(image)
    assert codes(report)[0] == "orphan-list"
    assert report.orphans == 0
    assert "inode-low-dtime" in codes(report)
    assert report.exit_code == 1
    assert_sound(image)


def test_a_damaged_list_that_is_left():
    image = volume()
    image.set_super(s_last_orphan=5)
    report = run(image, Ask(lambda finding: False))
    assert (report.exit_code, image.super("s_last_orphan")) == (4, 5)
    assert not image.super("s_state") & STATE_VALID
