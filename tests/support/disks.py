"""Disk images with a partition table, MBR or GPT, and filesystems in their partitions."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

__all__ = ["MIB", "SECTOR", "Part", "boot_sector", "fat_sector", "write_gpt", "write_mbr"]

MIB = 1 << 20
SECTOR = 512
Part = tuple[int, int]
"""(byte where a partition begins, size in bytes)."""
LINUX = 0x83
LINUX_GUID = bytes.fromhex("af3dc60f838472478e793d69d8477de4")


def boot_sector(entries: Sequence[tuple[int, int, int]]) -> bytes:
    """A boot sector with entries (type, first sector, sectors)."""
    packed = [struct.pack("<B3xB3xII", 0, *entry) for entry in entries]
    return bytes(446) + b"".join(packed).ljust(64, b"\0") + b"\x55\xaa"


def write_mbr(path: Path, parts: Sequence[Part], *, logical: Sequence[Part] = ()) -> None:
    """Write a partition table with these partitions, up to three if there are ``logical`` ones, into a file that exists."""
    entries = [(LINUX, offset // SECTOR, size // SECTOR) for offset, size in parts]
    with path.open("r+b") as file:
        if logical:
            base = logical[0][0] // SECTOR - 1
            entries.append((0x0F, base, (logical[-1][0] + logical[-1][1]) // SECTOR - base))
            for number, (offset, size) in enumerate(logical):
                at = offset // SECTOR - 1
                chain = [(LINUX, 1, size // SECTOR)]
                if number + 1 < len(logical):
                    chain.append((0x05, logical[number + 1][0] // SECTOR - 1 - base, logical[number + 1][1] // SECTOR + 1))
                os.pwrite(file.fileno(), boot_sector(chain), at * SECTOR)
        os.pwrite(file.fileno(), boot_sector(entries), 0)


def write_gpt(path: Path, parts: Sequence[Part], *, sector: int = SECTOR) -> None:
    """Write a GPT with these partitions, for sectors of this size."""
    entries = b""
    for number, (offset, size) in enumerate(parts):
        unique = number.to_bytes(16, "little")
        entries += struct.pack("<16s16sQQQ72x", LINUX_GUID, unique, offset // sector, (offset + size) // sector - 1, 0)
    header = struct.pack("<8s64xQII", b"EFI PART", 2, 128, 128)
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), boot_sector([(0xEE, 1, 0xFFFFFFFF)]), 0)
        os.pwrite(file.fileno(), header, sector)
        os.pwrite(file.fileno(), entries, 2 * sector)


def fat_sector(name: bytes = b"FAT16   ") -> bytes:
    """The boot sector of a FAT filesystem as mkfs.fat writes it; its code is where a partition table would be."""
    head = b"\xeb\x3c\x90mkfs.fat" + struct.pack("<HBHBHHBHHHII", 512, 4, 4, 2, 512, 40000, 0xF8, 40, 32, 2, 0, 0)
    head += b"\x80\x00\x29" + bytes(4) + b"NO NAME    " + name
    code = bytes.fromhex("0e1fbe5b7cac22c0740b56b40ebb0700cd105eebf032e4cd16cd19ebfe")
    return (head + code + b"This is not a bootable disk.").ljust(510, b"\0") + b"\x55\xaa"
