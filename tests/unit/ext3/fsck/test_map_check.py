"""Walk of one block map: what it finds, what it leaves, and that hostile maps end in time."""

from __future__ import annotations

import time

import numpy as np
import pytest

import ext3
from ext3.constants import N_BLOCKS
from ext3.device.base import FileDevice
from ext3.format.group_desc import read_groups
from ext3.format.inode import patch_inode
from ext3.format.inode_table import inode_offset
from ext3.format.superblock import read_superblock
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.map_check import MapCheck, PointerTables
from ext3.fsck.policy import Ask, CheckOnly, Preen, Stopped, Yes
from tests.support.fsck_images import context_of
from tests.support.fsck_inodes import BLOCK, LATER, STAMP, Inodes, codes, pass_1, repair, sample

PER_BLOCK = BLOCK // 4


def walk(image: Inodes, words: list[int], *, ino: int = 100, is_dir: bool = False, policy: object = None) -> MapCheck:
    context = context_of(image, policy or Yes())
    context.census.mark_system(context.superblock, context.groups)
    check = MapCheck(context, PointerTables(context), ino, words, is_dir=is_dir, is_file=not is_dir)
    check.run()
    check.context = context
    return check


def words_of(image: Inodes, name: str) -> list[int]:
    return image.core(image[name])["i_block"].tolist()


def test_sound_map():
    image = sample()
    words = words_of(image, "large")
    check = walk(image, list(words))
    assert check.words == words
    assert (check.last, check.blocks) == (79, 81)
    assert not check.fragmented or check.claims()[0] != check.claims()[-1]
    assert sorted(set(check.claims().tolist())) == sorted(check.claims().tolist())
    assert not check.corrected


def test_illegal_pointers_in_a_pointer_block():
    """They are cleared in memory; the block itself is not changed before it is known to be the inode's alone."""
    image = sample()
    table = words_of(image, "large")[12]
    before = image.block(table)
    image.set_pointers(table, {3: 1 << 30, 5: 1 << 29})
    check = walk(image, words_of(image, "large"))
    assert codes(check.context) == ["inode-illegal-block"] * 2
    assert check.blocks == 79
    assert not check.context.storage.pending
    fixed = np.frombuffer(check.corrected[table], "<u4")
    assert fixed[3] == fixed[5] == 0
    assert fixed[4] == np.frombuffer(before, "<u4")[4]


def test_illegal_pointers_are_cleared_on_the_image():
    image = sample()
    table = words_of(image, "large")[12]
    image.set_pointers(table, {3: 1 << 30})
    content = bytearray(image.read("other"))
    repair(image)
    assert np.frombuffer(image.block(table), "<u4")[3] == 0
    whole = bytearray(bytes(range(256)) * 320)
    whole[15 * BLOCK : 16 * BLOCK] = bytes(BLOCK)
    assert image.read("large") == whole
    assert image.read("other") == content


@pytest.mark.parametrize(("count", "cleared"), [(11, False), (12, True), (30, True)])
def test_inode_with_many_illegal_pointers_is_cleared(count, cleared):
    image = sample()
    table = words_of(image, "large")[12]
    image.set_pointers(table, dict.fromkeys(range(count), 1 << 30))
    before = image.block(table)
    context = pass_1(image)
    assert ("inode-many-illegal-blocks" in codes(context)) == cleared
    assert bool(context.census.mode[image["large"]]) != cleared
    assert codes(context).count("inode-illegal-block") == min(count, 11)
    if cleared:
        assert context.read(table) == before


def test_inode_with_many_illegal_pointers_is_asked_for_once():
    image = sample()
    table = words_of(image, "large")[12]
    image.set_pointers(table, dict.fromkeys(range(40), 1 << 30))
    context = pass_1(image, Ask(lambda finding: finding.code != "inode-many-illegal-blocks"))
    assert codes(context).count("inode-many-illegal-blocks") == 1
    assert codes(context).count("inode-illegal-block") == 40
    assert context.census.mode[image["large"]]


def test_pointer_block_on_metadata():
    """Its pointers are not written; the inode gets a copy."""
    image = sample()
    bitmap = int(image.groups["bg_block_bitmap"][1])
    image.core(image["large"])["i_block"][12] = bitmap
    before = image.block(bitmap)
    context = pass_1(image, CheckOnly())
    assert "pointer-block-on-metadata" in codes(context)
    assert context.read(bitmap) == before
    repair(image)


def test_directory_pointer_beyond_its_limit():
    image = sample()
    words = [0] * N_BLOCKS
    words[14] = image.free_block(4)
    image.set_block(words[14], bytes(4 * 40) + int.to_bytes(words[14] + 1, 4, "little"))
    image.set_block(words[14] + 1, int.to_bytes(words[14] + 2, 4, "little"))
    image.set_block(words[14] + 2, int.to_bytes(words[14] + 3, 4, "little"))
    assert codes(walk(image, words, is_dir=True).context) == ["directory-too-big"]
    assert not codes(walk(image, words).context)


def test_cleared_block_of_a_directory_is_a_hole():
    image = sample()
    words = words_of(image, "dir")
    words[2] = 1 << 30
    check = walk(image, words, is_dir=True)
    logical, block = check.directory_rows()
    assert logical.tolist() == list(range(len(logical)))
    assert block[2] == 0
    assert block[1]


@pytest.mark.parametrize("screen", [True, False])
def test_directory_with_far_blocks_ends_before_the_holes(screen):
    """Holes are filled with empty blocks, if they are few."""
    image = sample()
    start = image.free_block(3)
    image.core(image["dir"])["i_block"][13] = start
    image.set_pointers(start, {200: start + 1})
    image.set_pointers(start + 1, {0: start + 2})
    names = image.listing(image["dir"])
    context = pass_1(image, screen=screen)
    assert "directory-many-holes" in codes(context)
    ino, logical, _ = context.directory_blocks.columns()
    assert logical[ino == image["dir"]].max() < 12
    repair(image)
    assert image.listing(image["dir"]) == names


def test_directory_with_few_holes_keeps_its_blocks():
    image = sample()
    table = image.free_block(2)
    image.core(image["dir"])["i_block"][12] = table
    image.set_pointers(table, {9: table + 1})
    context = pass_1(image)
    assert "directory-many-holes" not in codes(context)
    ino, logical, block = context.directory_blocks.columns()
    rows = block[ino == image["dir"]]
    assert logical[ino == image["dir"]].max() == 21
    assert rows[-1] == table + 1
    assert not rows[-2]


# -- hostile maps ----------------------------------------------------------------------------------------------------


def timed(image: Inodes, seconds: float = 10) -> list[str]:
    started = time.process_time()
    report = repair(image)
    assert time.process_time() - started < seconds
    return codes(report)


def test_map_that_leads_back_to_itself():
    image = sample()
    block = image.free_block()
    image.set_block(block, int.to_bytes(block, 4, "little") * PER_BLOCK)
    for name in ("small", "other", "empty", "large"):
        image.core(image[name])["i_block"] = [0] * 12 + [block] * 3
    assert "pointer-block-reused" in timed(image)


def test_pointer_blocks_that_many_inodes_share():
    image = sample()
    table = words_of(image, "large")[12]
    for name in image.numbers:
        if name.startswith("attr") or name in ("small", "other", "empty"):
            image.core(image[name])["i_block"][12] = table
    content = image.read("large")[12 * BLOCK :]
    assert timed(image).count("blocks-shared") == 5
    for name in ("large", "small", "other", "attr1", "empty"):
        with_map = image.core(image[name])["i_block"].tolist()
        assert with_map[12]
        assert image.read(name)[12 * BLOCK :][: len(content)] == content


def test_a_million_pointer_blocks_in_a_hole(tmp_path):
    """Pointer blocks that lie in a hole of the image are as many as one likes; reading all of them would take long."""
    path = tmp_path / "image"
    ext3.mkfs(path, 8 << 30, block_size=4096, journal=False, stamp=STAMP)
    with ext3.Filesystem.open(path, "r+") as fs:
        ino = fs.create("/file")
    with path.open("r+b") as file:
        device = FileDevice(file.fileno())
        superblock = read_superblock(device)
        at = inode_offset(superblock, read_groups(device, superblock), ino)
        start = 1_000_000
        words = [0] * 14 + [start]
        device.write(at, patch_inode(device.read(at, superblock.inode_size), i_block=words))
        device.write(start * 4096, np.arange(start + 1, start + 1025, dtype="<u4").tobytes())
        for index in range(1024):
            below = (start + 2000 + index * 900 + np.arange(1024)) % 1_900_000 + 100_000
            device.write((start + 1 + index) * 4096, below.astype("<u4").tobytes())
        started = time.process_time()
        report = check(device, CheckOnly(), options=CheckOptions(force=True), stamp=LATER)
        assert time.process_time() - started < 20
    assert report.exit_code == 4


def test_preening_stops_at_an_illegal_pointer():
    image = sample()
    image.core(image["large"])["i_block"][12] = 1 << 30
    with pytest.raises(Stopped):
        pass_1(image, Preen())
