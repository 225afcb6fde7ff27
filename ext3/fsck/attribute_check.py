"""Extended attributes checked: the area of an inode, attribute blocks, and how many inodes refer to each block.

Source of the rules: e2fsprogs ``e2fsck/pass1.c`` (check_ea_in_inode, check_ext_attr, adjust_extattr_refcount),
``lib/ext2fs/ext_attr.c`` (ext2fs_ext_attr_hash_entry).
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..constants import XATTR_MAGIC, Compat
from ..errors import DeviceError
from ..format.schema import XATTR_ENTRY, XATTR_HEADER, XATTR_IBODY_HEADER
from ..format.xattr import hash_fits
from .context import Context
from .problem import Place, Problem
from .problems import inodes as problems
from .record import Record

__all__ = ["AttributeBlocks", "AttributeFault", "area_fault", "block_fault", "with_refcount"]

Numbers = npt.NDArray[np.int64]

TERMINATOR = 4
"""Bytes of the zero word behind the last entry."""
UNKNOWN = -1
"""Reference count of a block that is not sound."""


class AttributeFault(NamedTuple):
    """Fault of attributes: its problem, what was found, and what the format wants."""

    problem: Problem
    got: object
    want: object = None


class _Region:
    """Bytes of an area that something occupies."""

    def __init__(self, size: int) -> None:
        self._taken = bytearray(size)

    def take(self, start: int, size: int) -> bool:
        """Occupy a range. Return False if it leaves the area or a part is taken."""
        if start + size > len(self._taken) or any(self._taken[start : start + size]):
            return False
        self._taken[start : start + size] = b"\1" * size
        return True


def _padded(size: int) -> int:
    return -(-size // 4) * 4


def area_fault(area: bytes) -> AttributeFault | None:
    """Return what is wrong with the attribute area of an inode, which begins with the magic; None if nothing is."""
    head = XATTR_IBODY_HEADER.size
    region = _Region(len(area))
    left = len(area) - head
    at = head
    region.take(0, head)
    while left >= XATTR_ENTRY.size and area[at : at + TERMINATOR] != bytes(TERMINATOR):
        length, _, offset, inum, size, stored = XATTR_ENTRY.packer.unpack_from(area, at)
        name_at = at + XATTR_ENTRY.size
        if not region.take(at, XATTR_ENTRY.size + _padded(length)):
            return AttributeFault(problems.AREA_OVERLAP, None)
        left -= XATTR_ENTRY.size
        if _padded(length) > left:
            return AttributeFault(problems.AREA_NAME, length)
        left -= _padded(length)
        if inum:
            return AttributeFault(problems.AREA_VALUE_INODE, inum)
        if size > left:
            return AttributeFault(problems.AREA_VALUE, size)
        value_at = head + offset
        if size and not region.take(value_at, _padded(size)):
            return AttributeFault(problems.AREA_OVERLAP, None)
        value = area[value_at : value_at + _padded(size)] if size else b""
        if stored and not hash_fits(stored, area[name_at : name_at + length], value):
            return AttributeFault(problems.AREA_HASH, f"{stored:#x}")
        left -= size
        at = name_at + _padded(length)
    if not region.take(at, TERMINATOR):
        return AttributeFault(problems.AREA_OVERLAP, None)
    return None


def block_fault(block: bytes) -> AttributeFault | None:
    """Return what is wrong with an attribute block, its reference count aside; None if nothing is."""
    magic, _, blocks, *_ = XATTR_HEADER.packer.unpack_from(block)
    if magic != XATTR_MAGIC:
        return AttributeFault(problems.BLOCK_MAGIC, f"{magic:#x}", f"{XATTR_MAGIC:#x}")
    if blocks != 1:
        return AttributeFault(problems.BLOCK_BLOCKS, blocks)
    region = _Region(len(block))
    at = XATTR_HEADER.size
    region.take(0, at)
    while at < len(block) and block[at : at + TERMINATOR] != bytes(TERMINATOR):
        if at + XATTR_ENTRY.size > len(block):
            return AttributeFault(problems.BLOCK_OVERLAP, None)
        length, index, offset, inum, size, stored = XATTR_ENTRY.packer.unpack_from(block, at)
        name_at = at + XATTR_ENTRY.size
        if not region.take(at, XATTR_ENTRY.size + _padded(length)):
            return AttributeFault(problems.BLOCK_OVERLAP, None)
        if not index:
            return AttributeFault(problems.BLOCK_NAME, index)
        if inum:
            return AttributeFault(problems.BLOCK_VALUE_INODE, inum)
        if offset + size > len(block):
            return AttributeFault(problems.BLOCK_VALUE, size)
        if size and not region.take(offset, _padded(size)):
            return AttributeFault(problems.BLOCK_OVERLAP, None)
        value = block[offset : offset + _padded(size)] if size else b""
        if not hash_fits(stored, block[name_at : name_at + length], value):
            return AttributeFault(problems.BLOCK_HASH, f"{stored:#x}")
        at = name_at + _padded(length)
    if not region.take(at, TERMINATOR):
        return AttributeFault(problems.BLOCK_OVERLAP, None)
    return None


class AttributeBlocks:
    """Attribute blocks met so far, and the inodes that refer to each."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._enabled = bool(context.superblock.compat & Compat.EXT_ATTR)
        self._stated: dict[int, int] = {}
        """h_refcount of the sound blocks."""
        self._counted: Counter[int] = Counter()

    def sound(self, block: int) -> bool:
        """Return whether a block inside the filesystem is a sound attribute block that inodes may refer to."""
        return self._enabled and self._look(block) is None

    def _look(self, block: int) -> AttributeFault | None:
        if block in self._stated:
            return None
        try:
            raw = self._context.read(block)
        except DeviceError as error:
            return AttributeFault(problems.BLOCK_UNREADABLE, error.message)
        fault = block_fault(raw)
        if fault is None:
            self._stated[block] = int(XATTR_HEADER.view(raw)[0]["h_refcount"])
        return fault

    def count(self, blocks: Numbers) -> None:
        """Count references of inodes to sound blocks, one element for each inode."""
        distinct, counts = np.unique(blocks, return_counts=True)
        fresh = [block for block in distinct.tolist() if block not in self._counted]
        self._context.census.claim(np.array(fresh, np.int64))
        for block, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            self._counted[block] += count

    def check(self, record: Record) -> bool:
        """Check the attribute block of an inode in use, and detach a bad one. Return whether the inode has one to count.

        A number outside of the filesystem is left for when the inode's name is known.
        """
        context, block = self._context, record.get("i_file_acl")
        if not block:
            return False
        superblock = context.superblock
        if not self._enabled or not superblock.first_data_block <= block < superblock.blocks_count:
            context.bad_inodes.add(record.ino)
            return False
        fault = self._look(block)
        if fault is not None:
            if context.fix(fault.problem, Place(ino=record.ino, block=block), got=fault.got, want=fault.want):
                record.core["i_file_acl"] = 0
                return False
            self._stated[block] = UNKNOWN
        return True

    def finish(self) -> None:
        """Correct the reference counts."""
        context = self._context
        for block, count in sorted(self._counted.items()):
            stated = self._stated[block]
            if stated in (count, UNKNOWN):
                continue
            if context.fix(problems.BLOCK_REFCOUNT, Place(block=block), got=stated, want=count):
                context.corrected[block] = with_refcount(context.read(block), count)
        context.attribute_blocks = dict(self._counted)


def with_refcount(block: bytes, count: int) -> bytes:
    """Return an attribute block with another reference count."""
    raw = bytearray(block)
    XATTR_HEADER.view(raw)[0]["h_refcount"] = count
    return bytes(raw)
