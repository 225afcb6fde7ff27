"""Extended attributes: in the inode behind its fields, and in one block that the inode points to.

Both hold entries growing up, a zero u32 behind the last, and values growing down from the end, each padded to 4
bytes. In an inode value offsets count from the first entry, in a block from its start; a block is sorted and hashed.
Names inside are the full ones (``user.x``); values are in the form the host's system calls use, ACLs therefore converted.
Sources: Linux ``fs/ext4/xattr.c`` and ``xattr.h``; e2fsprogs ``lib/ext2fs/ext_attr.c``, ``e2fsck/pass1.c``.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ..constants import XATTR_MAGIC, XATTR_NAME_MAX, XattrIndex
from ..errors import show
from . import acl
from .schema import XATTR_ENTRY, XATTR_HEADER, XATTR_IBODY_HEADER
from .violation import Violation

__all__ = [
    "Attribute",
    "AttributeNameError",
    "area_violations",
    "block_attributes",
    "block_fits",
    "block_hash",
    "block_violations",
    "disk_name",
    "entry_hash",
    "hash_fits",
    "host_values",
    "inode_attributes",
    "join_name",
    "pack_block",
    "pack_inode_area",
    "parse_block",
    "parse_inode_area",
    "split_name",
    "to_disk",
]

T = TypeVar("T")

TERMINATOR = b"\0\0\0\0"
MASK32 = 0xFFFFFFFF

_PREFIXES = {
    XattrIndex.USER: b"user.",
    XattrIndex.TRUSTED: b"trusted.",
    XattrIndex.SECURITY: b"security.",
    XattrIndex.SYSTEM: b"system.",
}
_WHOLE = {
    b"system.posix_acl_access": XattrIndex.POSIX_ACL_ACCESS,
    b"system.posix_acl_default": XattrIndex.POSIX_ACL_DEFAULT,
    b"system.richacl": XattrIndex.RICHACL,
}
_WHOLE_NAMES = {index: name for name, index in _WHOLE.items()}
_ACLS = (XattrIndex.POSIX_ACL_ACCESS, XattrIndex.POSIX_ACL_DEFAULT)
_WRITTEN = (XattrIndex.USER, XattrIndex.TRUSTED, XattrIndex.SECURITY)
"""Prefixes that can be set; ``system.`` (index 7) is for inline data, and the kernel does not list it."""


class Attribute(NamedTuple):
    """Attribute as ext3 stores it: the prefix as a number, the name behind it, the value in disk form."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which is not used
    name: bytes
    value: bytes


class AttributeNameError(ValueError):
    """Invalid attribute name; ``number`` is the errno that the kernel returns."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def split_name(full: bytes) -> tuple[int, bytes] | None:
    """Return (index, suffix) of a full name: ``user.x`` -> (1, b"x"); None if ext3 has no index for it."""
    index = _WHOLE.get(full)
    if index in _ACLS:
        return int(index), b""
    for prefix_index in _WRITTEN:
        prefix = _PREFIXES[prefix_index]
        if full.startswith(prefix) and len(full) > len(prefix):
            return int(prefix_index), full[len(prefix) :]
    return None


def disk_name(full: bytes) -> tuple[int, bytes]:
    """Split the name of an attribute to set, with the kernel's checks. Raises AttributeNameError.

    Source: Linux ``fs/xattr.c`` (import_xattr_name, xattr_resolve_name).
    """
    shown = show(full[:64])
    if not 0 < len(full) <= XATTR_NAME_MAX or b"\0" in full:
        message = f"the name of the attribute {shown} is empty, longer than {XATTR_NAME_MAX} bytes, or holds a NUL"
        raise AttributeNameError(errno.ERANGE, message)
    parts = split_name(full)
    if parts is None:
        number = errno.EINVAL if full in (_PREFIXES[index] for index in _WRITTEN) else errno.EOPNOTSUPP
        raise AttributeNameError(number, f"ext3 cannot store the attribute {shown}")
    return parts


def join_name(index: int, suffix: bytes) -> bytes:
    """Return the full name of an attribute. Raises ValueError for an unknown index."""
    if index in _WHOLE_NAMES:
        return _WHOLE_NAMES[XattrIndex(index)] + suffix
    if index in _PREFIXES:
        return _PREFIXES[XattrIndex(index)] + suffix
    raise ValueError(f"attribute name index {index} has no name")


def to_disk(attributes: Mapping[bytes, bytes]) -> list[Attribute]:
    """Convert full names and host values to the form ext3 stores, in the order of a block.

    Raises ValueError, naming the attribute, for a name that ext3 cannot store or an invalid ACL.
    """
    found = []
    for full, value in attributes.items():
        index, name = disk_name(full)
        try:
            found.append(Attribute(index, name, acl.to_disk(value) if index in _ACLS else bytes(value)))
        except ValueError as error:
            raise ValueError(f"{show(full)}: {error}") from error
    return sorted(found, key=_order)


def _order(attribute: Attribute) -> tuple[int, int, bytes]:
    return attribute.index, len(attribute.name), attribute.name


def _padded(length: int) -> int:
    return -(-length // 4) * 4


def _need(attribute: Attribute) -> int:
    """Return the bytes of an attribute, entry and value."""
    return XATTR_ENTRY.size + _padded(len(attribute.name)) + _padded(len(attribute.value))


def pack_inode_area(attributes: Iterable[Attribute], area_size: int) -> tuple[bytes, list[Attribute]]:
    """Pack attributes into the area of an inode, first fit in the given order. Return the area and the rest.

    ``area_size`` is inode size - 128 - i_extra_isize, in bytes. The area is exactly that long, or empty if nothing fits.
    Entry hashes are 0: in an inode they are not used.
    """
    room = area_size - XATTR_IBODY_HEADER.size - len(TERMINATOR)
    inside: list[Attribute] = []
    rest: list[Attribute] = []
    for attribute in attributes:
        need = _need(attribute)
        if need <= room:
            room -= need
            inside.append(attribute)
        else:
            rest.append(attribute)
    if not inside:
        return b"", rest
    area = bytearray(area_size)
    XATTR_IBODY_HEADER.packer.pack_into(area, 0, XATTR_MAGIC)
    _pack_entries(area, inside, XATTR_IBODY_HEADER.size, XATTR_IBODY_HEADER.size, [0] * len(inside))
    return bytes(area), rest


def block_fits(attributes: Iterable[Attribute], block_size: int) -> bool:
    """Return True if all of them fit one block."""
    return XATTR_HEADER.size + sum(map(_need, attributes)) + len(TERMINATOR) <= block_size


def pack_block(attributes: Sequence[Attribute], block_size: int, refcount: int) -> bytes:
    """Pack an attribute block, sorted and hashed, for ``refcount`` inodes. Raises ValueError if it does not fit."""
    if not block_fits(attributes, block_size):
        need = XATTR_HEADER.size + sum(map(_need, attributes)) + len(TERMINATOR)
        raise ValueError(f"the attributes need {need} bytes and a block has {block_size}")
    attributes = sorted(attributes, key=_order)
    hashes = [entry_hash(attribute.name, attribute.value) for attribute in attributes]
    block = bytearray(block_size)
    XATTR_HEADER.packer.pack_into(block, 0, XATTR_MAGIC, refcount, 1, block_hash(hashes), 0, 0, 0, 0)
    _pack_entries(block, attributes, XATTR_HEADER.size, 0, hashes)
    return bytes(block)


def _pack_entries(buffer: bytearray, attributes: Sequence[Attribute], first: int, base: int, hashes: Sequence[int]) -> None:
    """Write entries from byte ``first`` up and values from the end down; value offsets count from byte ``base``."""
    end = len(buffer)
    for (index, name, value), number in zip(attributes, hashes, strict=True):
        value_offset = 0  # as the kernel writes for an empty value
        if value:
            end -= _padded(len(value))
            buffer[end : end + len(value)] = value
            value_offset = end - base
        XATTR_ENTRY.packer.pack_into(buffer, first, len(name), index, value_offset, 0, len(value), number)
        first += XATTR_ENTRY.size
        buffer[first : first + len(name)] = name
        first += _padded(len(name))


def entry_hash(name: bytes, value: bytes, *, signed: bool = False) -> int:
    """Return e_hash of an entry in a block: the suffix by bytes, then the value by little-endian words, padded with zeros.

    ``signed``: as some kernels had it, who took the bytes of names as signed.
    """
    number = 0
    for byte in name:
        extended = 0xFFFFFF00 if signed and byte & 0x80 else 0
        number = ((number << 5) & MASK32) ^ (number >> 27) ^ (extended | byte)
    padded = value + bytes(-len(value) % 4)
    for word in struct.unpack(f"<{len(padded) // 4}I", padded):
        number = ((number << 16) & MASK32) ^ (number >> 16) ^ word
    return number


def hash_fits(stored: int, name: bytes, value: bytes) -> bool:
    """Return whether it is the e_hash of an entry, as any kernel makes it. ``value``: with its padding."""
    return stored == entry_hash(name, value) or (not name.isascii() and stored == entry_hash(name, value, signed=True))


def block_hash(hashes: Iterable[int]) -> int:
    """Return h_hash of a block whose entries have these hashes; 0 (do not share) if one of them is 0."""
    total = 0
    for number in hashes:
        if not number:
            return 0
        total = ((total << 16) & MASK32) ^ (total >> 16) ^ number
    return total


def parse_inode_area(area: bytes, *, where: str = "inode") -> dict[bytes, bytes]:
    """Return full name -> host value of the attributes in an inode's area; none if it does not begin with the magic.

    Raises CorruptError (``where``) if an entry leaves the area.
    """
    return host_values(inode_attributes(area, where=where), where=where)


def parse_block(block: bytes, *, where: str = "attribute block") -> dict[bytes, bytes]:
    """Return full name -> host value of the attributes in a block. Raises CorruptError (``where``). Ignores hashes."""
    return host_values(block_attributes(block, where=where), where=where)


def inode_attributes(area: bytes, *, where: str = "inode") -> list[Attribute]:
    """Return the attributes in an inode's area, in order; none if it does not begin with the magic. Raises CorruptError."""
    faults: list[Violation] = []
    return _sound(_walk_area(area, where, faults), faults)


def block_attributes(block: bytes, *, where: str = "attribute block") -> list[Attribute]:
    """Return the attributes in a block, in order. Raises CorruptError (``where``). Ignores hashes."""
    faults: list[Violation] = []
    return _sound(_walk_block(block, where, faults), faults)


def host_values(attributes: Iterable[Attribute], *, where: str) -> dict[bytes, bytes]:
    """Return full name -> host value. Raises CorruptError (``where``) for an invalid ACL, or a NUL in a name."""
    faults: list[Violation] = []
    return _sound(_host_values(attributes, where, faults), faults)


def _sound(found: T, faults: list[Violation]) -> T:
    """Return what was read. Raises CorruptError for the first fault."""
    if faults:
        raise faults[0].error
    return found


def area_violations(area: bytes, *, where: str = "inode", hashes: bool = False) -> list[Violation]:
    """Return all that is wrong with an inode's attributes; without ``hashes``, the first is what ``parse_inode_area`` raises.

    Those for which ``inode_attributes`` raises come first. Ends at an entry that cannot be stepped over.
    """
    faults: list[Violation] = []
    _host_values(_walk_area(area, where, faults, hashes=hashes), where, faults)
    return faults


def block_violations(block: bytes, *, where: str = "attribute block", hashes: bool = False) -> list[Violation]:
    """Return all that is wrong with an attribute block, as ``area_violations`` does. Its reference count is not judged."""
    faults: list[Violation] = []
    _host_values(_walk_block(block, where, faults, hashes=hashes), where, faults)
    return faults


def _walk_area(area: bytes, where: str, faults: list[Violation], *, hashes: bool = False) -> list[Attribute]:
    size = XATTR_IBODY_HEADER.size
    if len(area) < size + len(TERMINATOR) or XATTR_IBODY_HEADER.packer.unpack_from(area)[0] != XATTR_MAGIC:
        return []
    return _walk(area, size, size, where, faults, hashes=hashes)


def _walk_block(block: bytes, where: str, faults: list[Violation], *, hashes: bool = False) -> list[Attribute]:
    if len(block) < XATTR_HEADER.size + len(TERMINATOR):
        faults.append(Violation(where, "size", len(block), f">= {XATTR_HEADER.size + len(TERMINATOR)}"))
        return []
    magic, _, blocks, *_ = XATTR_HEADER.packer.unpack_from(block)
    if magic != XATTR_MAGIC:
        faults.append(Violation(where, "h_magic", f"{magic:#x}", f"{XATTR_MAGIC:#x}"))
        return []
    if blocks != 1:
        faults.append(Violation(where, "h_blocks", blocks, 1))
    return _walk(block, XATTR_HEADER.size, 0, where, faults, hashes=hashes)


def _walk(buffer: bytes, first: int, base: int, where: str, faults: list[Violation], *, hashes: bool) -> list[Attribute]:
    """Return the sound ones of the entries from byte ``first`` on; value offsets count from byte ``base``.

    Every step takes 16 bytes or more. ``hashes``: check them too; in an inode, where ``base`` is not 0, one of 0 is none.
    """
    size = len(buffer)
    entries: list[tuple[int, bytes, int, int, int]] = []
    offset = first
    while True:
        if offset + len(TERMINATOR) > size:
            want = f"an end before {size}"
            faults.append(Violation(where, "attribute entries", f"without an end at byte {offset}", want))
            return []
        if buffer[offset : offset + 4] == TERMINATOR:
            break
        if offset + XATTR_ENTRY.size > size:
            faults.append(Violation(where, "attribute entry", f"at byte {offset}", f"inside {size} bytes"))
            return []
        length, index, value_offset, value_inum, value_size, stored = XATTR_ENTRY.packer.unpack_from(buffer, offset)
        offset += XATTR_ENTRY.size
        name = buffer[offset : offset + length]
        offset += _padded(length)
        if offset + len(TERMINATOR) > size:
            faults.append(Violation(where, "e_name_len", length, f"a name inside {size} bytes"))
            return []
        if index == 0:
            faults.append(Violation(where, "e_name_index", 0, "1 or more"))
        if value_inum:
            faults.append(Violation(where, "e_value_inum", value_inum, 0))
            continue  # the value is not in this buffer
        entries.append((index, name, base + value_offset, value_size, stored))
    end_of_entries = offset + len(TERMINATOR)
    found = []
    for index, name, start, length, stored in entries:
        if length and not end_of_entries <= start <= size - length:
            want = f"{length} bytes behind the entries and inside the area"
            faults.append(Violation(where, "e_value_offs", start - base, want))
            continue
        found.append(Attribute(index, name, buffer[start : start + length] if length else b""))
        if hashes and (stored or not base):
            value = buffer[start : start + _padded(length)] if length else b""
            if not hash_fits(stored, name, value):
                faults.append(Violation(where, "e_hash", f"{stored:#x}", f"{entry_hash(name, value):#x}"))
    return found


def _host_values(attributes: Iterable[Attribute], where: str, faults: list[Violation]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for index, name, value in attributes:
        try:
            full = join_name(index, name)
        except ValueError:
            continue  # the kernel does not list attributes of unknown prefixes, either
        if b"\0" in full:  # the system calls end a name there
            faults.append(Violation(where, "e_name", show(full), "a name without NUL"))
            continue
        try:
            found[full] = acl.from_disk(value) if index in _ACLS else value
        except ValueError as error:
            faults.append(Violation(where, show(full), str(error), "an ACL"))
    return found
