"""Release of inodes: blocks, shared ones, and attribute blocks."""

from __future__ import annotations

import numpy as np

from ext3.format.schema import XATTR_HEADER
from ext3.fsck.attribute_check import with_refcount
from ext3.fsck.context import Context
from ext3.fsck.record import Record
from ext3.fsck.release import owned_blocks, release_inode
from tests.support.fsck_images import STAMP
from tests.support.fsck_inodes import Inodes, pass_1, sample


def used_by(image: Inodes, context: Context, name: str) -> set[int]:
    return set(owned_blocks(context, Record(image[name], context.read_inode(image[name]))).tolist())


def test_file():
    image = sample()
    context = pass_1(image)
    blocks = used_by(image, context, "large")
    before = int(context.census.used.sum())
    release_inode(context, image["large"])
    assert len(blocks) == 81
    assert int(context.census.used.sum()) == before - 81
    assert context.freed == blocks
    assert context.inodes_freed == {image["large"]}
    assert not context.census.mode[image["large"]]
    record = Record(image["large"], context.read_inode(image["large"]))
    assert (record.links, record.flags, record.get("i_dtime")) == (0, 0, STAMP.seconds)


def test_freed_blocks_are_not_given_out():
    image = sample()
    context = pass_1(image)
    blocks = used_by(image, context, "small")
    release_inode(context, image["small"])
    free = int((~context.census.used).sum())
    got = [block for first, count in context.allocate(free - len(blocks) - 2) for block in range(first, first + count)]
    assert not blocks & set(got)


def test_shared_block_stays_in_use():
    image = sample()
    block = int(image.core(image["small"])["i_block"][1])
    image.core(image["other"])["i_block"][0] = block
    context = pass_1(image)
    release_inode(context, image["small"])
    assert context.census.used[block]
    assert block not in context.freed


def test_metadata_stays_in_use():
    image = sample()
    image.core(image["small"])["i_block"][0] = bitmap = int(image.groups["bg_block_bitmap"][0])
    context = pass_1(image)
    release_inode(context, image["small"])
    assert context.census.used[bitmap]


def test_special_files_have_no_blocks():
    image = sample()
    image.core(image["char"])["i_block"][0] = 5000
    context = pass_1(image)
    context.census.used[5000] = True
    release_inode(context, image["char"])
    release_inode(context, image["short"])
    assert context.census.used[5000]
    assert not context.freed


def test_attribute_block():
    image = sample()
    block = int(image.core(image["attr1"])["i_file_acl"])
    image.core(image["attr2"])["i_file_acl"] = block
    image.set_block(block, with_refcount(image.block(block), 2))
    context = pass_1(image)
    release_inode(context, image["attr1"])
    assert XATTR_HEADER.view(context.read(block))[0]["h_refcount"] == 1
    assert context.census.used[block]
    release_inode(context, image["attr2"])
    assert not context.census.used[block]
    assert context.attribute_blocks == {}


def test_hostile_map():
    """A loop ends, and each block is freed once."""
    image = sample()
    block = image.free_block()
    image.set_block(block, int.to_bytes(block, 4, "little") * 256)
    context = pass_1(image)
    image_ino = image["small"]
    record = Record(image_ino, context.read_inode(image_ino))
    record.words = [0] * 14 + [block]
    record.save(context)
    context.census.used[block] = True
    release_inode(context, image_ino)
    assert context.freed == {block}
    assert not np.isin(block, [*context.allocated])
