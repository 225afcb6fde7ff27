"""Attributes of one inode and of many that share a block; modes and ACLs that follow each other."""

from __future__ import annotations

import errno
import struct

import pytest

from ext3.edit.permissions import acl_after_chmod, inherit, mode_of_acl
from ext3.edit.xattr_edit import AttributeEditor, AttributeSharing, release_block
from ext3.errors import CorruptError, NoSpaceError, XattrError
from ext3.format import acl, xattr
from ext3.format.block_map import PointerBounds

from ....support.blocks import MemoryBlocks, read_attributes

AREA = 96


def editor(
    blocks: MemoryBlocks, *, area: bytes = bytes(AREA), file_acl: int = 0, sharing: AttributeSharing | None = None
) -> AttributeEditor:
    return AttributeEditor(blocks, area, file_acl, first=blocks.first, end=blocks.end, where="inode 12", sharing=sharing)


def refcount(blocks: MemoryBlocks, block: int) -> int:
    count: int = struct.unpack_from("<I", blocks.read(block), 4)[0]
    return count


def test_in_the_inode_first() -> None:
    blocks = MemoryBlocks(10)
    one = editor(blocks)
    one.set(b"user.a", b"1")
    assert one.file_acl == 0
    assert len(one.area) == AREA
    assert xattr.parse_inode_area(one.area) == {b"user.a": b"1"} == read_attributes(one)
    one.set(b"user.a", b"22")
    one.set(b"user.b", b"")
    assert read_attributes(one) == {b"user.a": b"22", b"user.b": b""}
    one.remove(b"user.a")
    one.remove(b"user.b")
    assert one.area == bytes(AREA)
    assert not blocks.used


def test_what_does_not_fit_goes_to_a_block() -> None:
    blocks = MemoryBlocks(10)
    one = editor(blocks)
    one.set(b"user.small", b"s")
    one.set(b"user.big", b"b" * 300)
    assert one.file_acl
    assert xattr.parse_block(blocks.read(one.file_acl)) == {b"user.big": b"b" * 300}
    assert one.get(b"user.small") == b"s"
    block = one.file_acl
    one.set(b"user.big", b"c" * 300)
    assert one.file_acl == block
    one.set(b"user.big", b"fits")
    assert one.file_acl == 0
    assert xattr.parse_inode_area(one.area) == {b"user.small": b"s", b"user.big": b"fits"}
    assert blocks.gone == [(block, True)]


def test_a_value_that_outgrows_the_inode_moves() -> None:
    blocks = MemoryBlocks(10)
    one = editor(blocks)
    one.set(b"user.a", b"1" * 30)
    one.set(b"user.a", b"2" * 200)
    assert one.area == bytes(AREA)
    assert read_attributes(one) == {b"user.a": b"2" * 200}


def test_small_inodes_have_no_area() -> None:
    blocks = MemoryBlocks(10)
    one = editor(blocks, area=b"")
    one.set(b"user.a", b"1")
    assert one.area == b""
    assert xattr.parse_block(blocks.read(one.file_acl)) == {b"user.a": b"1"}


def test_blocks_are_sorted() -> None:
    blocks = MemoryBlocks(10)
    one = editor(blocks, area=b"")
    names = [b"trusted.z", b"user.bbb", b"user.a", b"security.q", b"user.aaa"]
    for name in names:
        one.set(name, name)
    raw = blocks.read(one.file_acl)
    keys = [(entry.index, len(entry.name), entry.name) for entry in xattr.block_attributes(raw)]
    assert keys == sorted(keys)
    assert raw == xattr.pack_block(xattr.to_disk({name: name for name in names}), 1024, 1)


def test_equal_blocks_are_shared_and_parted() -> None:
    blocks = MemoryBlocks(20)
    sharing = AttributeSharing()
    some = [editor(blocks, sharing=sharing) for _ in range(3)]
    for one in some:
        one.set(b"user.big", b"b" * 300)
    assert len({one.file_acl for one in some}) == 1
    shared = some[0].file_acl
    assert refcount(blocks, shared) == 3
    assert len(blocks.used) == 1
    some[0].set(b"user.big", b"c" * 300)
    assert some[0].file_acl != shared
    assert refcount(blocks, shared) == 2
    assert some[1].get(b"user.big") == b"b" * 300
    some[1].remove(b"user.big")
    assert some[1].file_acl == 0
    release_block(blocks, shared, PointerBounds(blocks.first, blocks.end, "inode 12"))
    sharing.forget(shared)
    assert blocks.gone == [(shared, True)]
    late = editor(blocks, sharing=sharing)
    late.set(b"user.big", b"b" * 300)
    assert late.file_acl in blocks.used
    some[0].set(b"user.big", b"b" * 300)
    assert some[0].file_acl == late.file_acl
    assert len(blocks.used) == 1


def test_a_shared_block_is_copied_without_a_cache() -> None:
    blocks = MemoryBlocks(20)
    one = editor(blocks)
    one.set(b"user.big", b"b" * 300)
    content = blocks.read(one.file_acl)
    blocks.write(one.file_acl, xattr.pack_block(xattr.block_attributes(content), 1024, 7))
    two = editor(blocks, file_acl=one.file_acl)
    two.set(b"user.other", b"o" * 300)
    assert two.file_acl != one.file_acl
    assert refcount(blocks, one.file_acl) == 6
    assert read_attributes(two) == {b"user.big": b"b" * 300, b"user.other": b"o" * 300}


def test_a_share_is_given_up_only_in_an_attribute_block() -> None:
    blocks = MemoryBlocks(10)
    blocks.allocate(1, 5)
    blocks.content[5] = bytes(1024)
    for block in (5, 11, 1 << 31):
        with pytest.raises(CorruptError, match="inode 12: i_file_acl"):
            release_block(blocks, block, PointerBounds(blocks.first, blocks.end, "inode 12"))
    assert blocks.used == {5}


def test_no_more_than_1024_inodes_share() -> None:
    blocks = MemoryBlocks(20)
    sharing = AttributeSharing()
    some = [editor(blocks, sharing=sharing) for _ in range(1025)]
    for one in some:
        one.set(b"user.big", b"b" * 300)
    assert refcount(blocks, some[0].file_acl) == 1024
    assert some[-1].file_acl != some[0].file_acl


def test_errors_leave_everything_as_it_was() -> None:
    blocks = MemoryBlocks(2)
    one = editor(blocks)
    one.set(b"user.a", b"1")
    one.set(b"user.big", b"b" * 800)
    before = one.area, one.file_acl, dict(blocks.content)
    for name, value, number in [
        (b"user.c", b"c" * 200, errno.ENOSPC),
        (b"user.big", b"b" * 2000, errno.ENOSPC),
        (b"user." + b"n" * 256, b"", errno.ERANGE),
        (b"other.a", b"", errno.EOPNOTSUPP),
        (b"user.", b"", errno.EINVAL),
        (b"user.a\0b", b"", errno.ERANGE),
        (b"", b"", errno.ERANGE),
        (b"system.posix_acl_access", b"no ACL", errno.EINVAL),
    ]:
        with pytest.raises(XattrError) as error:
            one.set(name, value)
        assert error.value.errno == number, name
        assert error.value.kind == "xattr"
    for name, number in (
        (b"user.none", errno.ENODATA),
        (b"other.a", errno.EOPNOTSUPP),
        (b"user.a\0", errno.ERANGE),
        (b"user." + b"n" * 251, errno.ERANGE),
    ):
        with pytest.raises(XattrError) as error:
            one.remove(name)
        assert error.value.errno == number, name
    assert (one.area, one.file_acl, blocks.content) == before
    two = editor(blocks)
    two.set(b"user.big", b"d" * 300)
    three = editor(blocks)
    three.set(b"user.a", b"1")
    area = three.area
    with pytest.raises(NoSpaceError):
        three.set(b"user.a", b"e" * 300)
    assert three.area == area


def test_foreign_prefixes_are_kept() -> None:
    """Index 10 has no name here; it stays where it is when others change."""
    foreign = xattr.Attribute(10, b"x", b"kept")
    area, _ = xattr.pack_inode_area([foreign], AREA)
    one = editor(MemoryBlocks(10), area=area)
    one.set(b"user.a", b"1")
    one.set(b"user.b", b"2")
    one.remove(b"user.a")
    assert foreign in xattr.inode_attributes(one.area)
    assert read_attributes(one) == {b"user.b": b"2"}


def test_blocks_that_contradict_the_format() -> None:
    blocks = MemoryBlocks(10)
    good = xattr.pack_block(xattr.to_disk({b"user.a": b"1"}), 1024, 1)
    blocks.allocate(1, 5)
    for raw, field in [
        (good[:4] + bytes(4) + good[8:], "h_refcount"),
        (bytes(1024), "h_magic"),
        (good[:8] + b"\2" + good[9:], "h_blocks"),
        (good[:34] + b"\xff\xff" + good[36:], "e_value_offs"),
        (good[:32] + b"\xff" * 992, "e_value_inum"),
    ]:
        blocks.content[5] = raw
        one = editor(blocks, file_acl=5)
        for work in (
            lambda one=one: one.get(b"user.a"),
            lambda one=one: one.set(b"user.b", b"1"),
            lambda one=one: one.remove(b"user.a"),
        ):
            with pytest.raises(CorruptError, match="inode 12") as corrupt:
                work()
            assert corrupt.value.field == field
    assert blocks.content == {5: raw}
    for block in (11, 1 << 31):
        with pytest.raises(CorruptError, match="i_file_acl"):
            editor(blocks, file_acl=block)


def test_acls_go_through() -> None:
    value = acl.parse_text("u::rwx,u:1000:r-x,g::r-x,m::r-x,o::r--")
    one = editor(MemoryBlocks(10))
    one.set(b"system.posix_acl_access", value)
    assert one.get(b"system.posix_acl_access") == value
    assert xattr.inode_attributes(one.area)[0].value == acl.to_disk(value)


DEFAULT = acl.parse_text("u::rwx,u:1000:rwx,g::r-x,m::rwx,o::---")
PLAIN = acl.parse_text("u::rwx,g::r-x,o::---")


def test_inherit() -> None:
    made = inherit(DEFAULT, 0o100644, directory=False, umask=0o777)
    assert made.mode == 0o100640
    assert made.access == acl.parse_text("u::rw-,u:1000:rwx,g::r-x,m::r--,o::---")
    assert made.default is None
    inside = inherit(DEFAULT, 0o41777, directory=True)
    assert inside.mode == 0o41770
    assert inside.access == DEFAULT
    assert inside.default == DEFAULT


def test_inherit_a_plain_acl() -> None:
    assert inherit(PLAIN, 0o100666, directory=False) == (0o100640, None, None)
    assert inherit(PLAIN, 0o40777, directory=True) == (0o40750, None, PLAIN)
    assert inherit(None, 0o100666, directory=False, umask=0o22) == (0o100644, None, None)


def test_modes_of_acls() -> None:
    assert mode_of_acl(DEFAULT, 0o104000) == (0o104770, True)
    assert mode_of_acl(PLAIN, 0o100777) == (0o100750, False)
    assert acl_after_chmod(DEFAULT, 0o741) == acl.parse_text("u::rwx,u:1000:rwx,g::r-x,m::r--,o::--x")
    assert acl_after_chmod(PLAIN, 0o614) == acl.parse_text("u::rw-,g::--x,o::r--")
    with pytest.raises(ValueError, match="ACL"):
        inherit(b"x", 0o644, directory=False)
