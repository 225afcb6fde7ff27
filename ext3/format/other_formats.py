"""Other formats that are mistaken for ext3 images: a guess from a few bytes, for errors.

Sources: libmagic; Linux ``block/partitions/msdos.c`` (is_pte_valid) and ``fs/fat/inode.c`` (fat_read_bpb).
"""

from __future__ import annotations

import struct

from ..constants import EXT3_MAGIC, MIN_BLOCK_SIZE, SECTOR, SUPERBLOCK_SIZE
from ..device.base import BlockDevice
from ..errors import DeviceError
from .schema import SUPERBLOCK

__all__ = ["guess_backup", "guess_format"]

_OTHERS = (
    (0, b"hsqs", "a squashfs image"),
    (32, b"SIF_MAGIC", "a SIF image; what is looked for may be a partition inside"),
    (0, b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (0, b"\xfd7zXZ\0", "compressed with xz; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (0, b"BZh", "compressed with bzip2; unpack it first"),
    (0, b"QFI\xfb", "a qcow2 image; convert it to raw first"),
    (0, b"KDMV", "a VMDK image; convert it to raw first"),
    (0, b"LUKS\xba\xbe", "an encrypted (LUKS) volume"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x7fELF", "an executable file"),
    (0, b"XFSB", "an XFS filesystem"),
    (257, b"ustar", "a tar archive"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS image"),
    (0x10040, b"_BHRfS_M", "a Btrfs filesystem"),
    (0x8001, b"CD001", "an ISO 9660 image"),
    (3, b"NTFS    ", "an NTFS filesystem"),
    (3, b"EXFAT   ", "an exFAT filesystem"),
    (512, b"EFI PART", "a partitioned disk; give the offset of the partition"),
)
"""(offset, magic, format), the most reliable magics first."""

_BACKUPS = ((8193, 1024), (16384, 2048), (32768, 4096))
"""(block, block size) of the first backup superblock for common block sizes."""
_BOOT_SIGNATURE = b"\x55\xaa"
_PARTITIONS = 446
"""Byte of the four entries of 16 bytes in a boot sector with a partition table."""
_BPB = struct.Struct("<HBHB")
"""BIOS parameter block at byte 11: bytes per sector, sectors per cluster, reserved sectors, number of FATs."""


def guess_format(device: BlockDevice) -> str:
    """Return a hint on the format of a device that is not ext3, from a few bytes of it."""
    if not device.size:
        return "the file is empty"
    try:
        for offset, magic, what in _OTHERS:
            if offset + len(magic) <= device.size and device.read(offset, len(magic)) == magic:
                return f"this looks like {what}" if not what.startswith("compressed") else f"this is {what}"
        if device.size >= SECTOR and (what := _boot_sector(device.read(0, SECTOR))):
            return f"this looks like {what}"
        if not any(device.read(0, min(device.size, 4096))) and guess_backup(device) is None:
            return "it begins with zeros: no filesystem was made there yet"
    except DeviceError:
        pass
    return ""


def guess_backup(device: BlockDevice) -> tuple[int, int] | None:
    """Return (block, block size) of the first backup superblock of an ext3 filesystem; None if there is none."""
    for block, block_size in _BACKUPS:
        offset = block * block_size
        if offset + SUPERBLOCK_SIZE <= device.size:
            try:
                copy = SUPERBLOCK.record(device.read(offset, SUPERBLOCK_SIZE))
            except DeviceError:
                continue
            if copy["s_magic"] == EXT3_MAGIC and MIN_BLOCK_SIZE << copy["s_log_block_size"] % 32 == block_size:
                return block, block_size
    return None


def _boot_sector(sector: bytes) -> str:
    """Return what begins with this sector, "" if it is no boot sector."""
    if sector[510:512] != _BOOT_SIGNATURE:
        return ""
    bytes_per_sector, per_cluster, reserved, fats = _BPB.unpack_from(sector, 11)
    powers = bytes_per_sector in (512, 1024, 2048, 4096) and per_cluster and not per_cluster & (per_cluster - 1)
    if sector[0] in (0xE9, 0xEB) and powers and reserved and fats in (1, 2):
        return "a FAT filesystem"
    entries = [sector[at : at + 16] for at in range(_PARTITIONS, 510, 16)]
    if all(entry[0] in (0, 0x80) for entry in entries) and any(entry[4] and any(entry[12:]) for entry in entries):
        return "a partitioned disk; give the offset of the partition"
    return "a boot sector without a partition table"
