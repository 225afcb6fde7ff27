"""Inodes as columns say what one inode after the other says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext3.constants import S_IFBLK, S_IFDIR, S_IFREG
from ext3.errors import CorruptError
from ext3.format.inode import Stat, parse_inode
from ext3.format.inode_table_columns import decode_columns, nanoseconds, pack_table, stats_of

NOW = 1_600_000_000


@given(st.lists(st.binary(min_size=256, max_size=256), max_size=6), st.sampled_from([128, 256]))
def test_columns_of_any_bytes(records: list[bytes], inode_size: int) -> None:
    raw = np.frombuffer(b"".join(record[:inode_size] for record in records), np.uint8).reshape(-1, inode_size)
    columns = decode_columns(raw, np.arange(12, 12 + len(records)))
    stats = stats_of(columns)
    assert len(stats) == len(records)
    for row, found in enumerate(stats):
        assert isinstance(found, Stat)
        if columns.bad[row]:
            with pytest.raises(CorruptError):
                parse_inode(raw[row].tobytes(), 12 + row)
        else:
            assert found == parse_inode(raw[row].tobytes(), 12 + row).stat


@pytest.mark.parametrize("reach", [0, 4, 8, 12, 16, 20, 24, 28, 32, 128])
def test_fields_that_the_extra_area_reaches(reach: int) -> None:
    record = bytes([1, 0x81]) + b"\x7f" * 126 + reach.to_bytes(2, "little") + b"\x55" * 126
    columns = decode_columns(np.frombuffer(record, np.uint8).reshape(1, -1), np.array([12]))
    assert not columns.bad[0]
    assert stats_of(columns) == [parse_inode(record, 12).stat]
    assert (stats_of(columns)[0].crtime is None) == (reach < 20)


def column(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


@pytest.mark.parametrize("inode_size", [128, 256])
def test_what_was_packed_comes_back(inode_size: int) -> None:
    i_block = np.arange(45, dtype=np.uint32).reshape(3, 15)
    i_block[2, :2] = 0, 0x12310345
    room = inode_size > 128
    records = pack_table(
        inode_size,
        mode=column(S_IFREG | 0o644, S_IFDIR | 0o755, S_IFBLK | 0o600),
        uid=column(70_000, 0, 0xFFFFFFFE),
        gid=column(1, 80_000, 3),
        size=column(5 << 32 | 7, 4096, 0),
        links=column(1, 2, 3),
        sectors=column(8, 16, 0),
        flags=column(0, 0x1000, 0x10),
        file_acl=column(0, 99, 0),
        atime=(column(1, -1, 2**33), column(2, 0, 4)),
        mtime=(column(NOW, 2**31, 0), column(999_999_999, 7, 0)),
        ctime=(column(3, 4, 5), column(6, 7, 8)),
        crtime=(column(NOW), column(0)),
        i_block=i_block,
        areas={1: b"area"} if room else {},
    )
    assert records.shape == (3, inode_size)
    file, directory, device = (parse_inode(records[row].tobytes(), 12 + row) for row in range(3))
    assert (file.stat.mode, file.stat.uid, file.stat.gid, file.stat.size) == (0o100644, 70_000, 1, 5 << 32 | 7)
    assert (directory.stat.links, directory.stat.blocks, directory.stat.flags, directory.stat.file_acl) == (2, 16, 0x1000, 99)
    assert (device.stat.uid, device.stat.major, device.stat.minor) == (0xFFFFFFFE, 259, 0x12345)
    assert file.i_block == tuple(range(15))
    latest = 2**33 * 10**9 + 4 if room else (2**31 - 1) * 10**9
    assert device.stat.atime == latest
    assert file.stat.mtime == NOW * 10**9 + (999_999_999 if room else 0)
    assert file.stat.crtime == (NOW * 10**9 if room else None)
    assert directory.area == (b"area".ljust(inode_size - 160, b"\0") if room else b"")


def test_nanoseconds_that_do_not_fit_64_bits() -> None:
    assert nanoseconds((column(2**40, 1), column(5, 6))) == [2**40 * 10**9 + 5, 10**9 + 6]
