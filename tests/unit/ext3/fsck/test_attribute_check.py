"""Attributes in inodes and in blocks: which are valid, and how many inodes refer to a block."""

from __future__ import annotations

import pytest

from ext3.constants import XATTR_MAGIC
from ext3.format.schema import XATTR_HEADER, XATTR_IBODY_HEADER
from ext3.format.xattr import Attribute, entry_hash, pack_block, pack_inode_area
from ext3.fsck.attribute_check import area_fault, block_fault, with_refcount
from ext3.fsck.policy import CheckOnly, Preen, Stopped
from tests.support.fsck_inodes import Inodes, attribute, codes, pass_1, repair, sample

AREA = 96
VALUE = b"abcd"


def area(entries: bytes, values: bytes = b"") -> bytes:
    """Area of an inode of 256 bytes: entries from its start, values at its end."""
    head = XATTR_IBODY_HEADER.packer.pack(XATTR_MAGIC) + entries
    return head.ljust(AREA - len(values), b"\0") + values


def block(entries: bytes, values: bytes = b"", *, magic: int = XATTR_MAGIC, blocks: int = 1) -> bytes:
    head = XATTR_HEADER.packer.pack(magic, 1, blocks, 0, 0, 0, 0, 0) + entries
    return head.ljust(1024 - len(values), b"\0") + values


GOOD_HASH = entry_hash(b"ab", VALUE)
HIGH_NAME = "é".encode()
AREAS = {
    "no attribute": (area(b""), None),
    "value at the end": (area(attribute(b"ab", 88, 4), VALUE), None),
    "right hash": (area(attribute(b"ab", 88, 4, number=GOOD_HASH), VALUE), None),
    "wrong hash": (area(attribute(b"ab", 88, 4, number=GOOD_HASH + 1), VALUE), "attribute-hash"),
    "no value": (area(attribute(b"ab", 77, 0)), None),
    "any name index": (area(attribute(b"ab", 0, 0, index=0)), None),
    "list that fills the area but for its end": (area(attribute(b"a" * 72, 0, 0)), None),
    "last word in use": (area(attribute(b"a" * 72, 0, 0), b"\1\2\3\4"), None),
    "list without room for its end": (area(attribute(b"a" * 76, 0, 0)), "attribute-overlap"),
    "name too long": (area(attribute(b"a" * 200, 0, 0))[:AREA], "attribute-overlap"),
    "value too large": (area(attribute(b"ab", 88, 200)), "attribute-value"),
    "value beyond the end": (area(attribute(b"ab", 89, 4)), "attribute-overlap"),
    "value over its entry": (area(attribute(b"ab", 4, 4)), "attribute-overlap"),
    "value over another": (area(attribute(b"ab", 88, 4) + attribute(b"cd", 88, 4)), "attribute-overlap"),
    "value in an inode": (area(attribute(b"ab", 88, 4, inum=12)), "attribute-value-inode"),
    "an area of nothing but the magic": (XATTR_IBODY_HEADER.packer.pack(XATTR_MAGIC), "attribute-overlap"),
}
BLOCKS = {
    "no attribute": (block(b""), None),
    "right hash": (block(attribute(b"ab", 1020, 4, number=GOOD_HASH), VALUE), None),
    "wrong hash": (block(attribute(b"ab", 1020, 4, number=1), VALUE), "attribute-block-hash"),
    "hash of 0": (block(attribute(b"ab", 1020, 4), VALUE), "attribute-block-hash"),
    "magic": (block(b"", magic=0xEA010000), "attribute-block-magic"),
    "blocks": (block(b"", blocks=2), "attribute-block-count"),
    "name index": (block(attribute(b"ab", 0, 0, index=0)), "attribute-block-name"),
    "value beyond the end": (block(attribute(b"ab", 1022, 4)), "attribute-block-value"),
    "value over the header": (block(attribute(b"ab", 4, 4)), "attribute-block-overlap"),
    "value in an inode": (block(attribute(b"ab", 0, 4, inum=12)), "attribute-block-value-inode"),
    "no end": (block(b"".join(attribute(bytes([97 + n]) * 46, 0, 0, number=7) for n in range(16))), "attribute-block-hash"),
}


@pytest.mark.parametrize("name", AREAS)
def test_area(name):
    data, code = AREAS[name]
    fault = area_fault(data)
    assert (fault.problem.code if fault else None) == code


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name):
    data, code = BLOCKS[name]
    fault = block_fault(data)
    assert (fault.problem.code if fault else None) == code


def test_names_of_signed_bytes():
    """Kernels took the bytes of names as signed for some years."""
    number = 0
    for byte in HIGH_NAME:
        number = ((number << 5) & 0xFFFFFFFF) ^ (number >> 27) ^ (byte | 0xFFFFFF00)
    assert number != entry_hash(HIGH_NAME, b"")
    assert block_fault(block(attribute(HIGH_NAME, 0, 0, number=number))) is None
    assert area_fault(area(attribute(HIGH_NAME, 0, 0, number=number))) is None
    assert area_fault(area(attribute(HIGH_NAME, 0, 0, number=number + 1))) is not None


def test_what_the_packers_make_is_sound():
    attributes = [Attribute(1, b"name", b"value"), Attribute(6, b"selinux", b"v" * 20)]
    packed, rest = pack_inode_area(attributes, AREA)
    assert not rest
    assert area_fault(packed) is None
    assert block_fault(pack_block(attributes, 1024, 3)) is None


@pytest.mark.parametrize("cut", range(4, AREA))
def test_any_end_of_an_area(cut):
    """No area makes the check read beyond it."""
    area_fault(area(attribute(b"ab", 88, 4) + attribute(b"cdefg", 70, 9), VALUE)[:cut])


def shared_attributes(image: Inodes) -> int:
    """Have two inodes share an attribute block. Return it."""
    block = int(image.core(image["attr1"])["i_file_acl"])
    image.core(image["attr2"])["i_file_acl"] = block
    return block


def refcount(image: Inodes, block: int) -> int:
    return int(XATTR_HEADER.view(image.block(block))[0]["h_refcount"])


@pytest.mark.parametrize("stored", [0, 1, 3, 1024, 0xFFFFFFFF])
def test_reference_count(stored):
    image = sample()
    block = shared_attributes(image)
    image.set_block(block, with_refcount(image.block(block), stored))
    assert codes(pass_1(image, CheckOnly())) == ["attribute-block-refcount"]
    with pytest.raises(Stopped):
        pass_1(image, Preen())
    repair(image)
    assert refcount(image, block) == 2
    assert image.core(image["attr2"])["i_file_acl"] == block


def test_right_reference_count():
    image = sample()
    block = shared_attributes(image)
    image.set_block(block, with_refcount(image.block(block), 2))
    context = pass_1(image)
    assert not context.report.findings
    assert context.attribute_blocks == {block: 2}


def test_bad_block_is_detached_from_each_inode():
    image = sample()
    block = shared_attributes(image)
    image.set_block(block, b"")
    report = repair(image)
    assert codes(report).count("attribute-block-magic") == 2
    assert image.core(image["attr1"])["i_file_acl"] == image.core(image["attr2"])["i_file_acl"] == 0
    assert image.read("attr1") == b"a" * 100


def test_attributes_in_the_inode_are_removed():
    image = sample()
    image.set_area(image["empty"], attribute(b"ab", 88, 200))
    image.set_area(image["other"], attribute(b"ab", 88, 4))
    repair(image)
    assert image.area(image["empty"])[:4] == bytes(4)
    assert image.area(image["other"])[:4] != bytes(4)


def test_area_behind_an_extra_size_of_0():
    """The magic can lie where i_extra_isize and the checksum are."""
    image = sample()
    image.extra(image["empty"])["i_extra_isize"] = 0
    image.extra(image["empty"])["i_checksum_hi"] = XATTR_MAGIC >> 16
    # Times are read as an entry with a name of one byte, and a value in inode 12.
    image.extra(image["empty"])["i_ctime_extra"] = 0x0101
    image.extra(image["empty"])["i_mtime_extra"] = 12
    assert codes(pass_1(image)) == codes(pass_1(image, screen=False)) == ["attribute-value-inode"]


def test_inode_that_is_cleared_gives_its_attribute_block_up():
    image = sample()
    block = int(image.core(image["attr1"])["i_file_acl"])
    pointers = dict.fromkeys(range(12), 1 << 31)
    image.core(image["attr1"])["i_block"] = [*pointers.values(), 0, 0, 0]
    context = pass_1(image)
    assert codes(context)[-1] == "inode-many-illegal-blocks"
    assert block not in context.attribute_blocks
    assert not context.census.used[block]
