from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ext3.errors import CorruptError
from ext3.format import acl, xattr
from ext3.format.schema import XATTR_ENTRY, XATTR_HEADER
from ext3.format.violation import Violation
from ext3.format.xattr import Attribute

AREA = 96
ACL = acl.parse_text("user::rwx,user:7:r--,group::r-x,mask::r-x,other::---")


@pytest.mark.parametrize(
    ("full", "parts"),
    [
        (b"user.x", (1, b"x")),
        (b"user.a.b", (1, b"a.b")),
        (b"trusted.overlay.opaque", (4, b"overlay.opaque")),
        (b"security.capability", (6, b"capability")),
        (b"system.posix_acl_access", (2, b"")),
        (b"system.posix_acl_default", (3, b"")),
        (b"system.nfs4_acl", None),
        (b"system.posix_acl_access2", None),
        (b"lustre.lov", None),
        (b"user.", None),
        (b"user", None),
        (b"", None),
    ],
)
def test_split_name(full: bytes, parts: tuple[int, bytes] | None) -> None:
    assert xattr.split_name(full) == parts
    if parts is not None:
        assert xattr.join_name(*parts) == full


def test_join_name_of_what_nobody_named() -> None:
    with pytest.raises(ValueError, match="99"):
        xattr.join_name(99, b"x")


def test_to_disk_sorts_and_converts() -> None:
    given_ = {b"user.bb": b"1", b"trusted.a": b"2", b"user.c": b"3", b"system.posix_acl_access": ACL, b"user.ba": b"4"}
    assert xattr.to_disk(given_) == [
        Attribute(1, b"c", b"3"),
        Attribute(1, b"ba", b"4"),
        Attribute(1, b"bb", b"1"),
        Attribute(2, b"", acl.to_disk(ACL)),
        Attribute(4, b"a", b"2"),
    ]


@pytest.mark.parametrize(
    ("full", "value"),
    [
        (b"lustre.lov", b"1"),
        (b"user." + b"n" * 251, b""),
        (b"user.", b""),
        (b"user.a\0b", b""),
        (b"system.posix_acl_access", b"nonsense"),
    ],
)
def test_to_disk_names_what_it_refuses(full: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match=full[:6].decode()):
        xattr.to_disk({b"user.good": b"1", full: value})


def test_inode_area_byte_by_byte() -> None:
    area, rest = xattr.pack_inode_area([Attribute(1, b"ab", b"value"), Attribute(4, b"x", b"")], AREA)
    entries = struct.pack("<BBHIII4s", 2, 1, 84, 0, 5, 0, b"ab") + struct.pack("<BBHIII4s", 1, 4, 0, 0, 0, 0, b"x")
    want = struct.pack("<I", 0xEA020000) + entries
    assert area == want.ljust(AREA - 8, b"\0") + b"value\0\0\0"
    assert rest == []


def test_inode_area_holds_88_bytes() -> None:
    exact = Attribute(1, b"n" * 4, b"v" * 68)
    area, rest = xattr.pack_inode_area([exact], AREA)
    assert (len(area), rest) == (AREA, [])
    assert xattr.parse_inode_area(area) == {b"user.nnnn": b"v" * 68}
    assert xattr.pack_inode_area([Attribute(1, b"n" * 4, b"v" * 69)], AREA) == (b"", [Attribute(1, b"n" * 4, b"v" * 69)])


def test_first_fit_goes_on_behind_what_does_not_fit() -> None:
    large, small = Attribute(1, b"large", b"v" * 200), Attribute(1, b"small", b"v")
    area, rest = xattr.pack_inode_area([large, small], AREA)
    assert rest == [large]
    assert xattr.parse_inode_area(area) == {b"user.small": b"v"}


def test_block_byte_by_byte() -> None:
    block = xattr.pack_block([Attribute(1, b"b", b"12345"), Attribute(1, b"a", b"")], 1024, 3)
    first, second = xattr.entry_hash(b"a", b""), xattr.entry_hash(b"b", b"12345")
    assert first == ord("a")
    low, high = struct.unpack("<II", b"12345\0\0\0")
    rotated = (ord("b") << 16) ^ low
    assert second == ((rotated << 16 | rotated >> 16) & 0xFFFFFFFF) ^ high
    total = (first << 16 | first >> 16) & 0xFFFFFFFF ^ second
    header = struct.pack("<8I", 0xEA020000, 3, 1, total, 0, 0, 0, 0)
    entries = struct.pack("<BBHIII4s", 1, 1, 0, 0, 0, first, b"a") + struct.pack("<BBHIII4s", 1, 1, 1016, 0, 5, second, b"b")
    assert block == (header + entries).ljust(1016, b"\0") + b"12345\0\0\0"


def test_hash_of_a_block_with_a_hash_of_zero() -> None:
    assert xattr.block_hash([5, 0, 7]) == 0
    assert xattr.block_hash([5]) == 5


def test_block_that_is_exactly_full() -> None:
    room = 1024 - 32 - 4 - 16 - 4
    assert xattr.block_fits([Attribute(1, b"n", b"v" * room)], 1024)
    assert xattr.parse_block(xattr.pack_block([Attribute(1, b"n", b"v" * room)], 1024, 1)) == {b"user.n": b"v" * room}
    assert not xattr.block_fits([Attribute(1, b"n", b"v" * (room + 1))], 1024)
    with pytest.raises(ValueError, match="1028 bytes"):
        xattr.pack_block([Attribute(1, b"n", b"v" * (room + 1))], 1024, 1)


names = st.one_of(
    st.tuples(st.sampled_from([b"user.", b"trusted.", b"security."]), st.binary(min_size=1, max_size=246))
    .filter(lambda parts: b"\0" not in parts[1])
    .map(b"".join),
)


@settings(deadline=None)
@given(st.dictionaries(names, st.binary(max_size=300), max_size=12), st.booleans(), st.sampled_from([96, 28, 12, 352]))
def test_round_trip(attributes: dict[bytes, bytes], with_acl: bool, area_size: int) -> None:
    if with_acl:
        attributes = {**attributes, b"system.posix_acl_access": ACL}
    area, rest = xattr.pack_inode_area(xattr.to_disk(attributes), area_size)
    assert len(area) in (0, area_size)
    found = xattr.parse_inode_area(area)
    if rest:
        found.update(xattr.parse_block(xattr.pack_block(rest, 8192, 1)))
    assert found == attributes


def test_area_without_magic() -> None:
    assert xattr.parse_inode_area(b"") == {}
    assert xattr.parse_inode_area(bytes(AREA)) == {}


GOOD = xattr.pack_block([Attribute(1, b"name", b"value"), Attribute(2, b"", acl.to_disk(ACL))], 1024, 1)


def changed(offset: int, data: bytes) -> bytes:
    return GOOD[:offset] + data + GOOD[offset + len(data) :]


@pytest.mark.parametrize(
    ("block", "field"),
    [
        (changed(3, b"\0"), "h_magic"),
        (changed(8, b"\2"), "h_blocks"),
        (changed(33, b"\0"), "e_name_index"),
        (changed(36, b"\1"), "e_value_inum"),
        (changed(34, b"\xff\xff"), "e_value_offs"),
        (changed(34, b"\x30\0"), "e_value_offs"),
        (changed(40, b"\xff\xff\xff\xff"), "e_value_offs"),
        (changed(GOOD.index(acl.to_disk(ACL)), b"\x09"), "posix_acl_access"),
        (GOOD[:32] + struct.pack("<BBHIII", 255, 1, 0, 0, 0, 0).ljust(272, b"n") * 4, "e_name_len"),
        (GOOD[:32] + struct.pack("<BBHIII", 0, 1, 0, 0, 0, 0) * 62, "attribute entries|e_name_len"),
        (GOOD[:20], "size"),
    ],
)
def test_damage_is_named(block: bytes, field: str) -> None:
    with pytest.raises(CorruptError, match=field) as caught:
        xattr.parse_block(block, where="block 9")
    assert caught.value.where == "block 9"
    assert str(caught.value) == str(xattr.block_violations(block, where="block 9")[0])


def test_a_prefix_nobody_knows_is_not_shown() -> None:
    assert xattr.parse_block(changed(33, b"\x63")) == {b"system.posix_acl_access": ACL}


@settings(deadline=None)
@given(st.binary(min_size=0, max_size=200), st.integers(0, 200))
def test_any_bytes(noise: bytes, at: int) -> None:
    block = bytearray(GOOD)
    block[32 + at : 32 + at + len(noise)] = noise
    for parse, data in ((xattr.parse_block, bytes(block[:1024])), (xattr.parse_inode_area, GOOD[:4] + noise)):
        violations = (xattr.block_violations if parse is xattr.parse_block else xattr.area_violations)(data)
        try:
            found = parse(data)
        except CorruptError as error:
            assert str(error) == str(violations[0])
            continue
        assert not violations
        assert sum(map(len, found.values())) <= 1024 * len(found)


def fields(violations: list[Violation]) -> list[tuple[str, object]]:
    return [(found.field, found.got) for found in violations]


def test_violations_go_on_behind_an_entry() -> None:
    entries = [
        (b"ab", 0, 1020, 0, 4),  # no prefix
        (b"cd", 1, 9, 7, 4),  # a value in inode 7
        (b"ef", 1, 8, 0, 4),  # a value in the header
        (b"g\0", 1, 0, 0, 0),
        (b"", 2, 1016, 0, 4),  # no ACL
        (b"ij", 1, 1022, 0, 4),  # a value beyond the end
    ]
    raw = XATTR_HEADER.packer.pack(0xEA020000, 1, 3, 0, 0, 0, 0, 0)
    for name, *words in entries:
        raw += XATTR_ENTRY.packer.pack(len(name), *words, 0) + name.ljust(-(-len(name) // 4) * 4, b"\0")
    block = raw.ljust(1024, b"\0")
    found = xattr.block_violations(block)
    assert fields(found) == [
        ("h_blocks", 3),
        ("e_name_index", 0),
        ("e_value_inum", 7),
        ("e_value_offs", 8),
        ("e_value_offs", 1022),
        ("e_name", r"user.g\x00"),
        ("system.posix_acl_access", found[-1].got),
    ]
    with pytest.raises(CorruptError, match="h_blocks"):
        xattr.block_attributes(block)
    with pytest.raises(CorruptError, match="e_name is"):
        xattr.host_values([Attribute(1, b"g\0", b""), Attribute(2, b"", b"zero")], where="x")


def test_violations_end_at_an_entry_that_leaves_the_block() -> None:
    block = bytearray(GOOD)
    XATTR_ENTRY.packer.pack_into(block, 32, 4, 0, 9, 0, 9, 0)
    XATTR_ENTRY.packer.pack_into(block, 52, 255, 1, 0, 0, 0, 0)
    XATTR_ENTRY.packer.pack_into(block, 52 + 16 + 256, 255, 0, 0, 0, 0, 0)
    XATTR_ENTRY.packer.pack_into(block, 52 + 2 * (16 + 256), 255, 1, 0, 0, 0, 0)
    XATTR_ENTRY.packer.pack_into(block, 52 + 3 * (16 + 256), 255, 1, 0, 0, 0, 0)
    assert fields(xattr.block_violations(bytes(block))) == [("e_name_index", 0), ("e_name_index", 0), ("e_name_len", 255)]


def test_an_attribute_block_of_another_magic_has_one_violation() -> None:
    assert fields(xattr.block_violations(changed(3, b"\0" * 6))) == [("h_magic", "0x20000")]


def test_hashes_are_judged_on_demand() -> None:
    wrong = changed(44, b"\1\2\3\4")
    assert xattr.parse_block(wrong) == xattr.parse_block(GOOD)
    assert xattr.block_violations(wrong) == xattr.block_violations(GOOD, hashes=True) == []
    right = xattr.entry_hash(b"name", b"value")
    assert [(found.field, found.got, found.want) for found in xattr.block_violations(wrong, hashes=True)] == [
        ("e_hash", "0x4030201", f"{right:#x}")
    ]
    assert fields(xattr.block_violations(changed(44, bytes(4)), hashes=True)) == [("e_hash", "0x0")]


def test_a_hash_in_an_inode_may_be_missing() -> None:
    attribute = Attribute(1, b"name", b"value")
    area, _ = xattr.pack_inode_area([attribute], AREA)
    right = xattr.entry_hash(b"name", b"value")
    for stored, bad in ((0, False), (right, False), (right + 1, True)):
        raw = bytearray(area)
        struct.pack_into("<I", raw, 16, stored)
        assert [found.field for found in xattr.area_violations(bytes(raw), hashes=True)] == ["e_hash"] * bad
        assert not xattr.area_violations(bytes(raw))
        assert xattr.inode_attributes(bytes(raw)) == [attribute]


def test_names_of_signed_bytes() -> None:
    """Kernels took the bytes of names as signed for some years."""
    name, value = "é".encode(), b"abcd"
    signed = xattr.entry_hash(name, value, signed=True)
    assert signed != xattr.entry_hash(name, value)
    assert xattr.hash_fits(signed, name, value) and xattr.hash_fits(xattr.entry_hash(name, value), name, value)
    assert not xattr.hash_fits(signed + 1, name, value)
    assert xattr.entry_hash(b"plain", value, signed=True) == xattr.entry_hash(b"plain", value)
