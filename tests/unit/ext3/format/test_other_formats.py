"""Hints on files that are no ext3 images."""

from __future__ import annotations

import struct

import pytest

from ext3.device.base import MemoryDevice
from ext3.errors import NotExt3Error
from ext3.format.superblock import read_superblock

from ....support.disks import boot_sector, fat_sector

SIZE = 64 << 10


def hint(data: bytes, at: int = 0) -> str:
    image = bytearray(SIZE)
    image[at : at + len(data)] = data
    with pytest.raises(NotExt3Error) as caught:
        read_superblock(MemoryDevice(image))
    return caught.value.hint


@pytest.mark.parametrize("name", [b"FAT12   ", b"FAT16   ", b"FAT32   ", b"anything"])
def test_fat(name: bytes) -> None:
    """Its boot sector ends as that of a partitioned disk does, as mkfs.fat writes it."""
    assert hint(fat_sector(name)) == "this looks like a FAT filesystem"


@pytest.mark.parametrize(("name", "what"), [(b"NTFS    ", "an NTFS filesystem"), (b"EXFAT   ", "an exFAT filesystem")])
def test_other_boot_sectors(name: bytes, what: str) -> None:
    sector = (b"\xeb\x52\x90" + name).ljust(510, b"\0") + b"\x55\xaa"
    assert hint(sector) == f"this looks like {what}"


def test_partitioned_disks() -> None:
    assert "a partitioned disk" in hint(boot_sector([(0x83, 2048, 4096)]))
    assert "a partitioned disk" in hint(b"EFI PART", 512)


def test_boot_sectors_without_a_partition() -> None:
    """Code where the table would be, or an empty table: no partition that an offset could be of."""
    assert hint(boot_sector([])) == "this looks like a boot sector without a partition table"
    code = bytes(446) + struct.pack("<16B", *range(0x21, 0x31)) * 4 + b"\x55\xaa"
    assert hint(code) == "this looks like a boot sector without a partition table"
