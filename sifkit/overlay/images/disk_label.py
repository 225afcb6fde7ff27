"""Partition tables of disk images, MBR and GPT: where a filesystem in a larger file begins and may end.

Sources: UEFI specification, chapter 5 (GUID Partition Table); Linux ``block/partitions/msdos.c`` and ``efi.c``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from ext3 import hostio
from ext3.hostio import HostPath

__all__ = ["DiskPartition", "end_of_room", "offset_hint", "read_partitions"]

SECTOR = 512
GPT_SECTORS = (512, 4096)
"""Sizes of sectors with which a GPT may be written."""
GPT_MAGIC = b"EFI PART"
MOST_ENTRIES = 1024
"""Entries of a GPT that are read at most; 128 are usual."""
MOST_LOGICAL = 128
EXTENDED = (0x05, 0x0F, 0x85)
PROTECTIVE = 0xEE
_FIRST_ENTRY = 446
_entry = struct.Struct("<B3xB3xII")
"""Entry of an MBR: status, type, first sector, number of sectors."""
_gpt_header = struct.Struct("<72xQII")
"""Header of a GPT: sector of the entries, their number, bytes of each."""
_gpt_entry = struct.Struct("<16s16xQQ")
"""Entry of a GPT: type, first and last sector."""
_magic = struct.Struct("<H")


class DiskPartition(NamedTuple):
    """Partition ``number``, from 1, at byte ``offset`` of a disk, with ``size`` bytes."""

    number: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


def read_partitions(fd: int) -> list[DiskPartition]:
    """Return the partitions of the disk image open as ``fd``; none if it has no partition table."""
    size = os.lseek(fd, 0, os.SEEK_END)
    entries = _mbr(fd, 0)
    if any(kind == PROTECTIVE for kind, _, _ in entries):
        found = _gpt(fd)
    else:
        found = [
            DiskPartition(number, first * SECTOR, count * SECTOR)
            for number, (kind, first, count) in enumerate(entries, 1)
            if kind
        ]
        for kind, first, _ in entries:
            if kind in EXTENDED:
                found += _logical(fd, first)
    return [partition for partition in found if 0 < partition.offset < size and partition.size > 0]


def end_of_room(fd: int, offset: int) -> int:
    """Return where a filesystem at ``offset`` has to end: with its partition, before the next one, or with the file."""
    ends = [os.lseek(fd, 0, os.SEEK_END)]
    for partition in read_partitions(fd):
        if partition.offset > offset:
            ends.append(partition.offset)
        elif partition.end > offset:
            ends.append(partition.end)
    return min(ends)


def offset_hint(path: HostPath, offset: int | None) -> str:
    """Return where filesystems like ext3 begin in a disk image in which none was found at ``offset``; "" for another file."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | hostio.NO_WAIT)
        try:
            if offset is not None and _holds_ext(fd, offset * SECTOR):
                return f"--offset is in bytes: sector {offset} is --offset {offset * SECTOR}"
            partitions = read_partitions(fd)
            found = [f"--offset {one.offset} (partition {one.number})" for one in partitions if _holds_ext(fd, one.offset)]
        finally:
            os.close(fd)
        if found:
            return f"the file is a partitioned disk: give {' or '.join(found)}"
        if partitions:
            return "the file is a partitioned disk, and none of its partitions holds ext3"
    return ""


def _holds_ext(fd: int, offset: int) -> bool:
    from ext3.constants import EXT3_MAGIC, SUPERBLOCK_OFFSET  # slow to load, and disks with partitions are rare

    s_magic = offset + SUPERBLOCK_OFFSET + 56
    return _read(fd, s_magic, _magic.size) == _magic.pack(EXT3_MAGIC)


def _read(fd: int, offset: int, size: int) -> bytes:
    """Return bytes of the file, fewer or none after its end, wherever a table says that is."""
    return hostio.read_at(fd, offset, size) if offset < os.lseek(fd, 0, os.SEEK_END) else b""


def _mbr(fd: int, sector: int) -> list[tuple[int, int, int]]:
    """Return (type, first sector, sectors) of the four entries in a boot sector; none if it has no partition table.

    Unused entries are zeros. A boot sector of a filesystem ends as one with a table does, but has code where the entries are.
    """
    data = _read(fd, sector * SECTOR, SECTOR)
    if len(data) < SECTOR or data[510:] != b"\x55\xaa":
        return []
    entries = [_entry.unpack_from(data, at) for at in range(_FIRST_ENTRY, 510, _entry.size)]
    if any(status not in (0, 0x80) for status, _, _, _ in entries):
        return []
    return [(kind, first, count) if first and count else (0, 0, 0) for _, kind, first, count in entries]


def _logical(fd: int, extended: int) -> Iterator[DiskPartition]:
    """Iterate over the logical partitions of an extended one: a chain of boot sectors, each with one of them."""
    sector = extended
    for number in range(5, 5 + MOST_LOGICAL):
        entries = _mbr(fd, sector)
        if not entries:
            return
        for kind, first, count in entries:
            if kind and kind not in EXTENDED:
                yield DiskPartition(number, (sector + first) * SECTOR, count * SECTOR)
                break
        following = next((first for kind, first, _ in entries if kind in EXTENDED), 0)
        if not following:
            return
        sector = extended + following


def _gpt(fd: int) -> list[DiskPartition]:
    for sector in GPT_SECTORS:
        header = _read(fd, sector, _gpt_header.size)
        if len(header) < _gpt_header.size or header[:8] != GPT_MAGIC:
            continue
        table, count, size = _gpt_header.unpack(header)
        if not _gpt_entry.size <= size <= sector:
            continue
        data = _read(fd, table * sector, min(count, MOST_ENTRIES) * size)
        found = []
        for number, at in enumerate(range(0, len(data) - _gpt_entry.size + 1, size), 1):
            kind, first, last = _gpt_entry.unpack_from(data, at)
            if any(kind) and first <= last:
                found.append(DiskPartition(number, first * sector, (last - first + 1) * sector))
        return found
    return []
