"""Bitmaps and inode tables that are missing or in conflict get a new place."""

from __future__ import annotations

import pytest

from ext3.fsck.context import GaveUp
from ext3.fsck.policy import Ask, CheckOnly, Preen, Stopped, Yes
from tests.support.fsck_inodes import Inodes, codes, pass_1, repair, sample

FIELDS = ("bg_block_bitmap", "bg_inode_bitmap", "bg_inode_table")


@pytest.mark.parametrize("field", FIELDS)
def test_missing(field):
    """Files whose inodes are elsewhere are kept."""
    image = sample()
    image.set_group(1, **{field: 0})
    assert codes(pass_1(image, CheckOnly()))[:2] == ["group-metadata-missing", "group-metadata-moved"]
    image.device.data[:] = sample().data
    image.set_group(1, **{field: 0})
    repair(image)
    group = Inodes(image.data).groups[1]
    first = image.superblock.geometry.first_block(1)
    assert first <= int(group[field]) < first + image.superblock.blocks_per_group
    assert image.read("large") == sample().read("large")


@pytest.mark.parametrize("field", FIELDS)
def test_conflict_with_a_table(field):
    image = sample()
    table = int(image.groups["bg_inode_table"][0])
    image.set_group(2, **{field: table + 3})
    codes_found = codes(pass_1(image, CheckOnly()))
    assert codes_found[0] == f"{field[3:].replace('_', '-')}-conflict"
    with pytest.raises(Stopped):
        pass_1(image, Preen())


def test_bitmaps_in_one_block():
    image = sample()
    block = int(image.groups["bg_block_bitmap"][2])
    image.set_group(2, bg_inode_bitmap=block)
    report = repair(image)
    assert "inode-bitmap-conflict" in codes(report)
    group = Inodes(image.data).groups[2]
    assert int(group["bg_inode_bitmap"]) != int(group["bg_block_bitmap"]) == block


def test_table_comes_before_bitmaps():
    """The bitmap in the inode table is moved, and the inodes are kept."""
    image = sample()
    image.set_group(0, bg_block_bitmap=int(image.groups["bg_inode_table"][0]) + 200)
    content = image.read("large")
    report = repair(image)
    assert "block-bitmap-conflict" in codes(report)
    assert image.read("large") == content


def test_refused():
    image = sample()
    image.set_group(1, bg_block_bitmap=0)
    context = pass_1(image, Ask(lambda finding: False))
    assert codes(context) == ["group-metadata-missing"]
    assert not context.storage.pending


def test_no_room():
    image = sample()
    table = int(image.groups["bg_inode_table"][2])
    image.set_group(2, bg_inode_table=0)
    group = image.superblock.geometry.columns.group_first[2]
    ino = image["large"]
    pointers = [block for block in range(int(group), image.superblock.blocks_count) if not table <= block < table]
    # A file takes every second block of the group.
    some = pointers[2::2][:2000]
    tables = [image.free_block(40) - 9000 + at for at in range(-(-len(some) // 256) + 1)]
    image.core(ino)["i_block"] = [0] * 13 + [tables[0], 0]
    image.set_block(tables[0], b"".join(int.to_bytes(block, 4, "little") for block in tables[1:]))
    for at, block in enumerate(tables[1:]):
        image.set_block(block, b"".join(int.to_bytes(one, 4, "little") for one in some[at * 256 : at * 256 + 256]))
    with pytest.raises(GaveUp, match="group 2 has no room for its inode table"):
        pass_1(image)


def test_bad_blocks():
    """A bitmap on the list of bad blocks moves; an inode table keeps its place, and the block leaves the list."""
    image = sample()
    group = image.groups[1]
    listed = [int(group["bg_block_bitmap"]), int(group["bg_inode_table"]) + 1, image.free_block()]
    image.core(1)["i_block"][:3] = listed
    report = repair(image)
    assert codes(report)[:3] == ["bad-block-bitmap", "bad-block-table", "group-metadata-moved"]
    assert image.core(1)["i_block"].tolist()[:3] == [listed[0], 0, listed[2]]
    assert int(Inodes(image.data).groups[1]["bg_block_bitmap"]) != listed[0]


def test_bad_block_of_the_superblock():
    image = sample()
    image.core(1)["i_block"][:2] = [1, 2]
    assert codes(repair(image))[:2] == ["bad-block-primary"] * 2
    image = sample()
    backup = image.superblock.geometry.first_block(1)
    image.core(1)["i_block"][0] = backup
    assert codes(pass_1(image)) == ["bad-block-backup"]


def test_bad_block_of_a_file():
    """The file gets another block."""
    image = sample()
    content = image.read("small")
    block = int(image.core(image["small"])["i_block"][1])
    image.core(1)["i_block"][0] = block
    assert "blocks-shared" in codes(repair(image))
    assert image.core(image["small"])["i_block"][1] != block
    assert image.core(1)["i_block"][0] == block
    assert image.read("small") == content


def test_the_old_place_is_not_given_out_before_the_descriptors_are_written():
    image = sample()
    geometry = image.superblock.geometry
    old = geometry.first_block(1) + 1
    image.set_group(1, bg_inode_table=old)
    context = pass_1(image, Yes())
    assert "inode-table-conflict" in codes(context)
    new = int(context.groups["bg_inode_table"][1])
    table = set(range(old, old + geometry.inode_table_blocks))
    assert not table & set(range(new, new + geometry.inode_table_blocks))
    free = [block for block in table if not context.census.used[block]]
    assert free
    given = [block for first, count in context.allocate(len(free), old) for block in range(first, first + count)]
    assert not table & set(given)
    context.reuse_freed()
    assert table & {block for first, count in context.allocate(1, free[0]) for block in range(first, first + count)}
