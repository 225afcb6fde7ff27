"""Partition tables: what sfdisk and parted write, and what only looks like a table."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sifkit.overlay.images.disk_label import DiskPartition, end_of_room, offset_hint, read_partitions

from .....support.disks import MIB, SECTOR, Part, fat_sector, write_gpt, write_mbr

PARTS: list[Part] = [(MIB, 4 * MIB), (6 * MIB, 2 * MIB)]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, 16 * MIB)
    return path


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def partitions(path: Path) -> list[DiskPartition]:
    with opened(path) as fd:
        return read_partitions(fd)


def room(path: Path, offset: int) -> int:
    with opened(path) as fd:
        return end_of_room(fd, offset)


def test_mbr(disk: Path) -> None:
    write_mbr(disk, PARTS)
    assert partitions(disk) == [DiskPartition(1, MIB, 4 * MIB), DiskPartition(2, 6 * MIB, 2 * MIB)]


def test_logical_partitions(disk: Path) -> None:
    """They are numbered from 5, and each is found from the one before."""
    logical = [(9 * MIB, MIB), (11 * MIB, MIB), (13 * MIB, 2 * MIB)]
    write_mbr(disk, PARTS, logical=logical)
    found = partitions(disk)
    assert [(one.number, one.offset, one.size) for one in found if one.number >= 5] == [
        (number, *part) for number, part in enumerate(logical, 5)
    ]
    assert room(disk, 9 * MIB) == 10 * MIB
    assert room(disk, 11 * MIB) == 12 * MIB


@pytest.mark.parametrize("sector", [512, 4096])
def test_gpt(disk: Path, sector: int) -> None:
    write_gpt(disk, PARTS, sector=sector)
    assert partitions(disk) == [DiskPartition(1, MIB, 4 * MIB), DiskPartition(2, 6 * MIB, 2 * MIB)]


def test_room(disk: Path) -> None:
    """To the end of the partition, the start of the next, or the end of the file."""
    assert room(disk, 3 * MIB) == 16 * MIB
    write_mbr(disk, PARTS)
    assert room(disk, MIB) == 5 * MIB
    assert room(disk, 2 * MIB) == 5 * MIB
    assert room(disk, 5 * MIB) == 6 * MIB
    assert room(disk, 6 * MIB) == 8 * MIB
    assert room(disk, 9 * MIB) == 16 * MIB
    write_mbr(disk, [(6 * MIB, 100 * MIB)])
    assert room(disk, 6 * MIB) == 16 * MIB


@pytest.mark.parametrize("name", [b"FAT12   ", b"FAT16   ", b"FAT32   ", b"        "])
def test_a_fat_boot_sector_has_no_partitions(disk: Path, name: bytes) -> None:
    with disk.open("r+b") as file:
        file.write(fat_sector(name))
    assert partitions(disk) == []
    assert offset_hint(disk, None) == ""


def test_hints(disk: Path) -> None:
    """They name what holds a filesystem like ext3."""
    magic = struct.pack("<H", 0xEF53)
    write_mbr(disk, PARTS)
    assert "none of its partitions holds ext3" in offset_hint(disk, None)
    with disk.open("r+b") as file:
        os.pwrite(file.fileno(), magic, 6 * MIB + 1080)
        assert offset_hint(disk, None) == f"the file is a partitioned disk: give --offset {6 * MIB} (partition 2)"
        assert offset_hint(disk, 6 * MIB // 512) == f"--offset is in bytes: sector 12288 is --offset {6 * MIB}"
        os.pwrite(file.fileno(), magic, MIB + 1080)
        assert f"--offset {MIB} (partition 1) or --offset {6 * MIB} (partition 2)" in offset_hint(disk, 5)


def test_circles_and_numbers_that_lie(disk: Path) -> None:
    """Extended partitions that lead to themselves, and a GPT that is everywhere: a bounded answer."""
    with disk.open("r+b") as file:
        loop = bytes(446) + struct.pack("<B3xB3xII", 0, 0x83, 1, 8) + struct.pack("<B3xB3xII", 0, 0x05, 0, 8) + bytes(32)
        os.pwrite(file.fileno(), loop + b"\x55\xaa", 8 * SECTOR)
        table = struct.pack("<B3xB3xII", 0, 0x05, 8, 100) * 4
        os.pwrite(file.fileno(), bytes(446) + table + b"\x55\xaa", 0)
        assert len(partitions(disk)) <= 4 * 128
        os.pwrite(file.fileno(), bytes(446) + struct.pack("<B3xB3xII", 0, 0xEE, 1, 1) + bytes(48) + b"\x55\xaa", 0)
        for numbers in [
            (1 << 63, 128, 128),
            (2, 0xFFFFFFFF, 128),
            (2, 128, 0),
            (2, 128, 1 << 31),
            (0xFFFFFFFFFFFFFFFF, 1, 512),
        ]:
            os.pwrite(file.fileno(), struct.pack("<8s64xQII", b"EFI PART", *numbers), 512)
            assert len(partitions(disk)) <= 1024


@pytest.mark.parametrize("seed", range(30))
def test_random_sectors(disk: Path, seed: int) -> None:
    """Any bytes give some partitions inside the file, or none."""
    chance = random.Random(seed)
    with disk.open("r+b") as file:
        for sector in (0, 1, 2, 8):
            os.pwrite(file.fileno(), chance.randbytes(510) + b"\x55\xaa", sector * SECTOR)
        if seed % 2:
            os.pwrite(file.fileno(), b"\0" * 4 + b"\xee", 446)
            os.pwrite(file.fileno(), b"EFI PART", 512)
        for status in range(446, 510, 16):
            os.pwrite(file.fileno(), b"\x80", status)
    for partition in partitions(disk):
        assert 0 < partition.offset < 16 * MIB
        assert partition.size > 0
    offset_hint(disk, chance.choice([None, chance.randrange(1 << 62)]))
