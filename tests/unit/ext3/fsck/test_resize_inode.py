"""Resize inode: every pointer is judged, and it is made anew."""

from __future__ import annotations

import pytest

from ext3.constants import DIND_SLOT, RESIZE_INO, Compat, Incompat
from ext3.format.block_map import pack_pointers
from ext3.format.resize_inode import reserved_blocks, resize_blocks, resize_record
from ext3.fsck.policy import Ask, CheckOnly, Preen, Yes

from ....support.fsck_volumes import Volume, assert_sound, codes, run, volume

BACKUP = 8193 * 1024


def map_of(image: Volume) -> int:
    return image.words(RESIZE_INO)[DIND_SLOT]


def put(image: Volume, block: int, slot: int, value: int) -> None:
    image.device.write(block * 1024 + 4 * slot, value.to_bytes(4, "little"))


def without_dind(image: Volume) -> list[int]:
    words = image.words(RESIZE_INO)
    words[3] = 5000
    return words


def test_the_map_of_a_new_filesystem():
    image = volume()
    geometry = image.superblock.geometry
    map_at = map_of(image)
    for first, rows in resize_blocks(geometry, map_at):
        assert image.device.read(first * 1024, len(rows) * 1024) == b"".join(map(pack_pointers, rows))
    record = resize_record(geometry, map_at, now=0)
    assert record.size == 67383296
    assert record.sectors == 2 * (1 + geometry.reserved_gdt_blocks * 2)
    assert len(reserved_blocks(geometry)) == geometry.reserved_gdt_blocks


DAMAGE = {
    "mode": lambda image: image.set_inode(RESIZE_INO, i_mode=0o40755),
    "no mode": lambda image: image.set_inode(RESIZE_INO, i_mode=0),
    "links": lambda image: image.set_inode(RESIZE_INO, i_links_count=0),
    "cleared": lambda image: image.device.write(image.inode_offset(RESIZE_INO), bytes(256)),
    "direct": lambda image: image.set_inode(RESIZE_INO, i_block=without_dind(image)),
    "no map": lambda image: image.set_inode(RESIZE_INO, i_block=0),
    "map outside": lambda image: image.set_inode(RESIZE_INO, i_block=[0] * 13 + [99_999, 0]),
    "map elsewhere": lambda image: image.set_inode(RESIZE_INO, i_block=[0] * 13 + [9000, 0]),
    "first pointer": lambda image: put(image, map_of(image), 1, 0),
    "last pointer": lambda image: put(image, map_of(image), image.superblock.reserved_gdt_blocks, 9000),
    "copy": lambda image: put(image, 3, 0, 9000),
    "last copy": lambda image: put(image, 2 + image.superblock.reserved_gdt_blocks, 0, 0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage(name):
    image = volume()
    DAMAGE[name](image)
    before = image.data
    looked = run(image, CheckOnly())
    assert (looked.exit_code, codes(looked)[0]) == (4, "resize-inode")
    assert image.data == before
    stopped = run(Volume(before), Preen())
    assert stopped.stopped is not None
    assert stopped.stopped.code == "resize-inode"
    report = run(image, Yes())
    assert (report.exit_code, codes(report)[0]) == (1, "resize-inode")
    geometry = image.superblock.geometry
    for first, rows in resize_blocks(geometry, map_of(image)):
        assert image.device.read(first * 1024, len(rows) * 1024) == b"".join(map(pack_pointers, rows))
    assert_sound(image)


def test_a_clean_filesystem_is_not_looked_at():
    image = volume()
    DAMAGE["links"](image)
    report = run(image, Preen(), force=False)
    assert (report.skipped, report.exit_code) == (True, 0)


def test_a_refused_repair():
    image = volume()
    DAMAGE["direct"](image)
    report = run(image, Ask(lambda finding: finding.code != "resize-inode"))
    assert report.exit_code == 4


def test_one_group():
    image = volume(4 << 20)
    DAMAGE["no map"](image)
    reserved = list(reserved_blocks(image.superblock.geometry))
    image.device.write(reserved[0] * 1024, b"\xff" * 1024)
    report = run(image)
    assert report.exit_code == 1
    assert not any(image.device.read(reserved[0] * 1024, 1024))
    assert_sound(image)


def test_blocks_in_one_that_pass_1_clears():
    image = volume()
    image.set_inode(RESIZE_INO, i_flags=0x80000)  # extents
    report = run(image)
    assert codes(report)[:2] == ["inode-extents-invalid", "resize-inode"]
    assert report.exit_code == 1
    assert_sound(image)


def test_without_the_feature():
    image = volume()
    for at in (1024, BACKUP):
        image.set_super(at, s_feature_compat=image.super("s_feature_compat", at) & ~int(Compat.RESIZE_INODE))
    stopped = run(Volume(image.data), Preen())
    assert stopped.stopped is not None
    assert stopped.stopped.code == "resize-reserved-blocks"
    report = run(image)
    assert codes(report)[:2] == ["resize-reserved-blocks", "resize-inode-unused"]
    assert image.super("s_reserved_gdt_blocks") == image.super("s_reserved_gdt_blocks", BACKUP) == 0
    assert not any(image.words(RESIZE_INO))
    assert_sound(image)


def test_not_together_with_meta_bg():
    image = volume()
    image.set_super(s_feature_incompat=image.super("s_feature_incompat") | int(Incompat.META_BG), s_first_meta_bg=1)
    stopped = run(Volume(image.data), Preen())
    assert stopped.stopped is not None
    assert stopped.stopped.code == "resize-inode-meta-bg"
    report = run(image)
    assert codes(report)[0] == "resize-inode-meta-bg"
    assert not image.super("s_feature_compat") & Compat.RESIZE_INODE
    assert_sound(image)
