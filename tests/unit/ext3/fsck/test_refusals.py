"""Checks in which repairs are refused: they go on, or end early with faults left, and never with an error."""

from __future__ import annotations

import pytest

import ext3
from ext3.constants import STATE_VALID
from ext3.format.schema import GROUP_DESC
from ext3.fsck.finding import Finding
from ext3.fsck.policy import Ask
from tests.support.fsck_volumes import Volume, codes, run, volume
from tests.support.sessions import clock

LOST_AND_FOUND = 11
ROOT = 2
BACKUP_DESCRIPTORS = 8194 * 1024


def damaged_map(ino: int) -> Volume:
    """An image whose directory ``ino`` has a pointer to a block outside of the filesystem."""
    image = volume()
    words = image.words(ino)
    image.set_inode(ino, i_block=[words[0], 1 << 30, *words[2:]], i_size=2048)
    return image


@pytest.mark.parametrize("ino", [ROOT, LOST_AND_FOUND])
def test_a_damaged_map_of_a_directory(ino: int) -> None:
    report = run(damaged_map(ino), Ask(lambda finding: False))
    assert "inode-illegal-block" in codes(report)
    assert (report.exit_code, report.gave_up) == (4, "")


def test_a_name_for_lost_and_found_whose_map_is_damaged() -> None:
    image = damaged_map(LOST_AND_FOUND)
    image.set_inode(12, i_links_count=2)
    wanted = {"link-count"}
    report = run(image, Ask(lambda finding: finding.code in wanted))
    assert report.corrected == 1
    assert report.exit_code == 4


def test_an_inode_table_that_is_not_to_be_allocated() -> None:
    image = volume()
    image.set_group(1, bg_inode_table=0)
    GROUP_DESC.view(image.device.data, 2, BACKUP_DESCRIPTORS)[1]["bg_inode_table"] = 0

    def decide(finding: Finding) -> bool:
        return finding.code != "group-metadata-missing"

    report = run(image, Ask(decide))
    assert report.gave_up == "the inodes of group 1 cannot be read"
    assert report.exit_code == 4


def test_a_state_that_is_not_to_be_set() -> None:
    image = volume()
    image.set_super(s_state=0)
    report = run(image, Ask(lambda finding: False))
    assert codes(report) == ["superblock-not-valid"]
    assert not image.super("s_state") & STATE_VALID
    assert report.exit_code == 0


def test_a_hole_of_a_directory_whose_map_is_damaged() -> None:
    """The hole would be filled through the pointer block that was not to be cleared."""
    image = volume()
    words = image.words(ROOT)
    image.set_inode(ROOT, i_block=[words[0], *[0] * 11, 1 << 30, 0, 0], i_size=14 * 1024)
    image.set_super(s_prealloc_dir_blocks=20)
    report = run(image, Ask(lambda finding: finding.code == "directory-hole"))
    assert report.exit_code == 4


def test_a_directory_whose_map_is_damaged_is_not_rebuilt() -> None:
    image = volume()
    with ext3.Filesystem.open(image.device, "r+", clock=clock) as fs:
        ino = fs.mkdir("/large")
        for number in range(100):
            fs.write_bytes(f"/large/{number:060}", b"")
        for number in range(0, 100, 2):
            fs.unlink(f"/large/{number:060}")
    image.set_inode(ino, i_block=[*image.words(ino)[:14], 1 << 30])
    words = image.words(ino)
    report = run(image, Ask(lambda finding: False), rebuild_directories=True)
    assert report.exit_code == 4
    assert image.words(ino) == words
