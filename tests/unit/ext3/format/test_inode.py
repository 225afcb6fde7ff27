"""One inode: what is decoded, what is kept that has no field, and rules that hold for one and for columns of many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext3.constants import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, InodeFlag
from ext3.errors import CorruptError
from ext3.format import inode_fields, inode_fields_columns
from ext3.format.inode import (
    InodeRecord,
    check_map_flags,
    checked_target,
    has_block_map,
    inode_violations,
    parse_inode,
    patch_inode,
    target_violations,
)
from ext3.format.schema import INODE_CORE

word = st.integers(0, 0xFFFFFFFF)
mode = st.sampled_from([S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, 0, 0o170000]).map(lambda form: form | 0o644)
SECOND = 1_000_000_000


def column(*values: int) -> inode_fields_columns.Numbers:
    return np.array(values, np.int64)


def test_times_that_were_seen() -> None:
    """As the table in Linux Documentation/filesystems/ext4/inodes.rst has it."""
    for low, epoch, seconds in (
        (0x80000000, 0, -(2**31)), (0xFFFFFFFF, 0, -1), (0, 0, 0), (0x7FFFFFFF, 0, 2**31 - 1), (0x80000000, 1, 2**31),
        (0, 1, 2**32), (0x7FFFFFFF, 2, 2**33 + 2**31 - 1), (0x7FFFFFFF, 3, 2**34 - 2**31 - 1),
    ):  # fmt: skip
        assert inode_fields.decode_time(low, epoch | 5 << 2) == seconds * SECOND + 5
        assert inode_fields.encode_time(seconds * SECOND + 5, wide=True) == (low, epoch | 5 << 2)


@given(word, word)
def test_a_time_of_one_and_of_many(low: int, extra: int) -> None:
    seconds, nano = inode_fields_columns.decode_times(column(low), column(extra))
    assert int(seconds[0]) * SECOND + int(nano[0]) == inode_fields.decode_time(low, extra)


@given(st.integers(-(2**40), 2**40), st.integers(0, SECOND - 1), st.booleans())
def test_a_time_is_stored_as_near_as_it_can_be(seconds: int, nano: int, wide: bool) -> None:
    low, extra = inode_fields.encode_time(seconds * SECOND + nano, wide=wide)
    lows, extras = inode_fields_columns.encode_times((column(seconds), column(nano)), wide=wide)
    assert (int(lows[0]), int(extras[0])) == (low, extra)
    stored = inode_fields.decode_time(low, extra)
    highest = 2**34 - 2**31 - 1 if wide else 2**31 - 1
    if -(2**31) <= seconds <= highest:
        assert stored == seconds * SECOND + (nano if wide else 0)
    else:
        assert stored == min(max(seconds, -(2**31)), highest) * SECOND


@given(mode, word, word)
def test_sizes_and_devices_of_one_and_of_many(mode: int, one: int, two: int) -> None:
    size = int(inode_fields_columns.decode_sizes(column(mode), column(one), column(two & 0x7FFFFFFF))[0])
    assert size == inode_fields.decode_size(mode, one, two & 0x7FFFFFFF)
    major, minor = inode_fields_columns.decode_devices(column(mode), column(one), column(two))
    assert (int(major[0]), int(minor[0])) == inode_fields.decode_device(mode, one, two)


@given(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF))
def test_device_numbers_come_back(major: int, minor: int) -> None:
    old, new = inode_fields.encode_device(major, minor)
    assert inode_fields.decode_device(S_IFCHR, old, new) == (major, minor)
    assert (old == 0) == (max(major, minor) > 255 or (major, minor) == (0, 0))


@pytest.mark.parametrize("numbers", [(0x1000, 0), (0, 0x100000), (-1, 0)])
def test_device_numbers_that_do_not_fit(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        inode_fields.encode_device(*numbers)


@given(st.binary(min_size=256, max_size=256), st.integers(4, 32).map(lambda words: 4 * words))
def test_what_has_no_field_stays(noise: bytes, extra_size: int) -> None:
    """Times apart: what they hold beyond a second is put in order."""
    raw = noise[:128] + extra_size.to_bytes(2, "little") + noise[130:]
    packed = InodeRecord(raw, 12).pack()
    kept = np.ones(256, np.bool_)
    kept[8:20] = kept[132:152] = False
    same = np.frombuffer(packed, np.uint8) == np.frombuffer(raw, np.uint8)
    assert same[kept].all()
    assert parse_inode(packed, 12).i_block == parse_inode(raw, 12).i_block


@given(st.tuples(*[st.integers(-(2**66), 2**66)] * 4), st.sampled_from([0, 4, 12, 16, 20, 24, 32]))
def test_rounded_times_are_those_that_are_stored(times: tuple[int, int, int, int], extra_size: int) -> None:
    record = InodeRecord(bytes(128) + extra_size.to_bytes(2, "little") + bytes(126), 12)
    record.atime, record.mtime, record.ctime, crtime = times
    if extra_size >= 24:
        record.crtime = crtime
    record.round_times()
    assert record.freeze(12) == parse_inode(record.pack().ljust(256, b"\0"), 12)


@pytest.mark.parametrize("size", [2, 130, 132, 0xFFFC])
def test_an_extra_area_that_leaves_the_inode(size: int) -> None:
    raw = bytes(128) + size.to_bytes(2, "little") + bytes(126)
    assert inode_fields_columns.bad_extra_sizes(column(size), 128).all()
    with pytest.raises(CorruptError, match="inode 12: i_extra_isize"):
        parse_inode(raw, 12)


def test_patch_changes_nothing_else() -> None:
    raw = bytes(range(256))
    patched = patch_inode(raw, i_dtime=7, i_block=[9] * 15)
    row = INODE_CORE.view(patched)[0]
    assert (row["i_dtime"], row["i_block"].tolist()) == (7, [9] * 15)
    assert (patched[:20], patched[24:40], patched[100:]) == (raw[:20], raw[24:40], raw[100:])
    assert raw == bytes(range(256))


def inode(form: int, *, extra_size: int = 32, target: bytes = b"", **fields: int) -> bytes:
    words = np.frombuffer(target.ljust(60, b"\0"), "<u4")
    raw = bytes(128) + extra_size.to_bytes(2, "little") + bytes(126)
    return patch_inode(raw, i_mode=form | 0o644, i_block=words, **fields)


def read_as_readers_do(raw: bytes) -> list[str]:
    """What the readers of an inode raise."""
    try:
        found = parse_inode(raw, 12)
        if has_block_map(found, 1024):
            check_map_flags(found.stat.flags, "inode 12")
    except CorruptError as error:
        return [str(error)]
    return []


EXTENTS, INLINE = int(InodeFlag.EXTENTS), int(InodeFlag.INLINE_DATA)
INODES = {
    "file": (inode(S_IFREG), []),
    "fast symlink": (inode(S_IFLNK, i_size=4, target=b"a/b/"), []),
    "fast symlink of 59 bytes": (inode(S_IFLNK, i_size=59, target=b"t" * 59), []),
    "slow symlink": (inode(S_IFLNK, i_size=500, i_blocks=2), []),
    "fast symlink with attributes": (
        inode(S_IFLNK, i_size=4, i_blocks=2, i_file_acl=9, i_flags=EXTENTS, target=b"a/b/"),
        [],
    ),
    "slow symlink with attributes": (inode(S_IFLNK, i_size=0, i_blocks=4, i_file_acl=9), []),
    "flags of a device": (inode(S_IFIFO, i_flags=EXTENTS), []),
    "flags of a fast symlink": (inode(S_IFLNK, i_size=4, i_flags=EXTENTS, target=b"a/b/"), []),
    "extra size": (inode(S_IFREG, extra_size=130), ["i_extra_isize"]),
    "extents": (inode(S_IFREG, i_flags=EXTENTS), ["i_flags"]),
    "inline data": (inode(S_IFDIR, i_flags=INLINE), ["i_flags"]),
    "extents of a slow symlink": (inode(S_IFLNK, i_size=500, i_blocks=2, i_flags=EXTENTS), ["i_flags"]),
    "no target": (inode(S_IFLNK), ["i_size"]),
    "target too long": (inode(S_IFLNK, i_size=60, target=b"t" * 60), ["i_size"]),
    "NUL in a target": (inode(S_IFLNK, i_size=4, target=b"a\0b"), ["i_size"]),
    "extra size and extents": (inode(S_IFREG, extra_size=2, i_flags=EXTENTS | INLINE), ["i_extra_isize", "i_flags"]),
    "extra size and target": (inode(S_IFLNK, extra_size=0xFFFF, i_size=5, target=b"a\0b"), ["i_extra_isize", "i_size"]),
}


@pytest.mark.parametrize("name", INODES)
def test_the_readers_raise_the_first_violation(name: str) -> None:
    raw, fields = INODES[name]
    found = list(inode_violations(raw, 12, block_size=1024))
    assert [violation.field for violation in found] == fields
    assert [str(violation) for violation in found[:1]] == read_as_readers_do(raw)


@given(mode, word, st.integers(0, 70), st.sampled_from([0, 2, 4]), st.sampled_from([0, 9]), st.integers(0, 140))
def test_the_readers_raise_the_first_violation_of_any_inode(
    mode: int, flags: int, size: int, sectors: int, acl: int, extra: int
) -> None:
    raw = inode(mode, extra_size=extra, target=b"t" * 30, i_flags=flags, i_size=size, i_blocks=sectors, i_file_acl=acl)
    found = [str(violation) for violation in inode_violations(raw, 12, block_size=1024)]
    assert found[:1] == read_as_readers_do(raw)
    assert found == [] or not inode_fields_columns.bad_extra_sizes(column(extra), 128).any() or "i_extra_isize" in found[0]


def test_an_inode_without_extra_area() -> None:
    raw = inode(S_IFREG, extra_size=0xFFFF, i_flags=EXTENTS)[:128]
    assert [violation.field for violation in inode_violations(raw, 12, block_size=1024)] == ["i_flags"]


def test_a_target_that_holds_a_nul() -> None:
    assert checked_target(b"abc", 12) == b"abc"
    (found,) = target_violations(b"ab\0c\0", 12)
    with pytest.raises(CorruptError) as caught:
        checked_target(b"ab\0c\0", 12)
    assert str(caught.value) == str(found) == "inode 12: i_size is 5, want 2, where the target ends"
