from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ext3.format import acl

NONE = 0xFFFFFFFF
FULL = "user::rwx,user:1000:r-x,group::r-x,group:8:--x,mask::rwx,other::r--"


def kernel(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_text_gives_the_bytes_of_the_kernel() -> None:
    want = kernel((1, 7, NONE), (2, 5, 1000), (4, 5, NONE), (8, 1, 8), (0x10, 7, NONE), (0x20, 4, NONE))
    assert acl.parse_text(FULL) == want
    assert len(want) == 52


def test_disk_form_leaves_ids_out() -> None:
    disk = acl.to_disk(acl.parse_text(FULL))
    want = struct.pack("<I HH HHI HH HHI HH HH", 1, 1, 7, 2, 5, 1000, 4, 5, 8, 1, 8, 0x10, 7, 0x20, 4)
    assert disk == want
    assert len(disk) == 36
    assert acl.from_disk(disk) == acl.parse_text(FULL)


@pytest.mark.parametrize(
    "text",
    [
        FULL.replace(",", "\n"),
        "other::r--,mask::rwx,group:8:--x,group::r-x,user:1000:r-x,user::rwx",
        "u::rwx, u:1000:r-x, g::r-x, g:8:--x, m::rwx, o::r--",
        "user::rwx,user:alice:r-x:1000,group::r-x,group:mail:--x:8,mask::rwx,other::r--",
        "# file: x\nuser::rwx\nuser:1000:r-x\t#effective:r-x\ngroup::r-x\ngroup:8:--x\nmask:rwx\nother:r--\n",
        ",".join("default:" + entry for entry in FULL.split(",")),
        "user::7,user:1000:5,group::5,group:8:1,mask::7,other::4",
    ],
)
def test_other_spellings(text: str) -> None:
    assert acl.parse_text(text) == acl.parse_text(FULL)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "without"),
        ("user::rwx,group::r-x", "without a other"),
        ("user::rwx,user:alice:r-x,group::r-x,mask::rwx,other::r--", "'alice' is not a numeric id"),
        ("user::rwx,user:1000:r-x,group::r-x,other::r--", "no mask"),
        ("user::rwx,user::r-x,group::r-x,other::r--", "two ACL entries"),
        ("user::rwx,user:5:r-x,user:5:r--,group::r-x,mask::rwx,other::r--", "two ACL entries for user 5"),
        ("user::rwz,group::r-x,other::r--", "permissions"),
        ("user::rwx,group::r-x,other:3:r--", "takes no id"),
        ("user::rwx,default:group::r-x,other::r--", "mixed"),
        ("user::rwx,user:4294967295:r-x,group::r-x,mask::rwx,other::r--", "32 bits"),
        ("user::rwx,user:99999999999999999999:r-x,group::r-x,mask::rwx,other::r--", "numeric"),
        ("user::rwx,user:\u0661:r-x,group::r-x,mask::rwx,other::r--", "numeric"),
        ("somebody::rwx", "TYPE:ID"),
        ("user", "TYPE:ID"),
        ("user:rwx", "TYPE:ID"),
    ],
)
def test_what_is_no_acl_text(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        acl.parse_text(text)


BASE = ((1, 7, NONE), (4, 5, NONE), (0x20, 4, NONE))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x02\0\0",
        struct.pack("<I", 2),
        struct.pack("<I", 1) + kernel(*BASE)[4:],
        kernel(*BASE)[:-1],
        kernel(*BASE[::-1]),
        kernel(*BASE, (0x40, 0, NONE)),
        kernel((1, 8, NONE), *BASE[1:]),
        kernel(BASE[0], *BASE),
        kernel(BASE[0], (2, 7, 5), *BASE[1:]),
        kernel(BASE[0], (2, 7, NONE), BASE[1], (0x10, 7, NONE), BASE[2]),
        kernel(*BASE[:2]),
    ],
)
def test_to_disk_refuses(value: bytes) -> None:
    with pytest.raises(ValueError, match="ACL"):
        acl.to_disk(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        struct.pack("<I", 1),
        struct.pack("<I", 2) + struct.pack("<HH", 1, 7),
        struct.pack("<IHH", 1, 1, 8),
        struct.pack("<IHH", 1, 3, 7),
        struct.pack("<IHH", 1, 2, 7),
        struct.pack("<IH", 1, 1),
    ],
)
def test_from_disk_refuses(value: bytes) -> None:
    with pytest.raises(ValueError, match="ACL"):
        acl.from_disk(value)


permission = st.integers(0, 7)
named = st.dictionaries(st.integers(0, NONE - 1), permission, max_size=6)


@settings(deadline=None)
@given(permission, named, permission, named, permission, permission)
def test_round_trip(user: int, users: dict[int, int], group: int, groups: dict[int, int], mask: int, other: int) -> None:
    entries = [(1, user, NONE), *((2, users[ident], ident) for ident in sorted(users)), (4, group, NONE)]
    entries += [*((8, groups[ident], ident) for ident in sorted(groups)), (0x10, mask, NONE), (0x20, other, NONE)]
    value = kernel(*entries)
    assert acl.from_disk(acl.to_disk(value)) == value


@settings(deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_any_bytes(tail: bytes, headed: bool) -> None:
    value = struct.pack("<I", 1) + tail if headed else tail
    try:
        back = acl.from_disk(value)
    except ValueError:
        return
    assert back[:4] == struct.pack("<I", 2)
