"""POSIX ACLs in three forms: the kernel's system calls, ext3's on-disk form, and the text in archives.

Kernel form: u32 version 2, then 8-byte entries {u16 tag, u16 permissions, u32 id}. Disk form: u32 version 1, then the
same with the id left out for the four tags that have none. Sources: Linux ``include/uapi/linux/posix_acl_xattr.h``,
``fs/ext4/acl.h`` and ``fs/posix_acl.c``; acl(5) for the text. All three functions raise ValueError for an invalid ACL.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from enum import IntEnum

from .schema import ACL_ENTRY, ACL_ENTRY_SHORT, ACL_HEADER

__all__ = ["AclTag", "FindId", "from_disk", "parse_text", "to_disk"]

KERNEL_VERSION = 2
DISK_VERSION = 1
UNDEFINED_ID = 0xFFFFFFFF
"""Id of an entry without one, in kernel form."""
MAX_ENTRIES = 8191
"""Entries in a value of 64 KiB, the largest the kernel accepts."""

Entry = tuple[int, int, int]
"""(tag, permissions, id)."""


FindId = Callable[["AclTag", str], int | None]
"""Looks up a name of a user (AclTag.USER) or a group; its id, None if it is unknown."""


class AclTag(IntEnum):
    """e_tag; the entries of an ACL are in this order."""

    USER_OBJ = 0x01
    USER = 0x02
    GROUP_OBJ = 0x04
    GROUP = 0x08
    MASK = 0x10
    OTHER = 0x20


_NAMED = (AclTag.USER, AclTag.GROUP)
_TAGS = frozenset(AclTag)

_WORDS = {
    "user": (AclTag.USER_OBJ, AclTag.USER),
    "u": (AclTag.USER_OBJ, AclTag.USER),
    "group": (AclTag.GROUP_OBJ, AclTag.GROUP),
    "g": (AclTag.GROUP_OBJ, AclTag.GROUP),
    "mask": (AclTag.MASK, None),
    "m": (AclTag.MASK, None),
    "other": (AclTag.OTHER, None),
    "o": (AclTag.OTHER, None),
}
_PERMISSIONS = re.compile(r"([r-])([w-])([x-])", re.ASCII)
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")
"""Byte of a name in octal, as acl_to_text writes those that would end the name."""


def to_disk(value: bytes) -> bytes:
    """Convert an ACL from kernel to disk form. Raises ValueError if the kernel would not accept it."""
    size = len(value) - ACL_HEADER.size
    if size < 0 or ACL_HEADER.packer.unpack_from(value)[0] != KERNEL_VERSION:
        raise ValueError("not an ACL of version 2")
    if size % ACL_ENTRY.size or size // ACL_ENTRY.size > MAX_ENTRIES:
        raise ValueError(f"an ACL of {len(value)} bytes is no whole number of entries")
    entries = list(ACL_ENTRY.packer.iter_unpack(value[ACL_HEADER.size :]))
    _check(entries)
    pieces = [ACL_HEADER.packer.pack(DISK_VERSION)]
    for tag, permissions, ident in entries:
        if tag in _NAMED:
            pieces.append(ACL_ENTRY.packer.pack(tag, permissions, ident))
        else:
            pieces.append(ACL_ENTRY_SHORT.packer.pack(tag, permissions))
    return b"".join(pieces)


def from_disk(value: bytes) -> bytes:
    """Convert an ACL from disk to kernel form. Order and completeness are not checked, as in the kernel."""
    if len(value) < ACL_HEADER.size or ACL_HEADER.packer.unpack_from(value)[0] != DISK_VERSION:
        raise ValueError("not an ACL of version 1")
    pieces = [ACL_HEADER.packer.pack(KERNEL_VERSION)]
    offset = ACL_HEADER.size
    while offset < len(value):
        if offset + ACL_ENTRY_SHORT.size > len(value):
            raise ValueError(f"the ACL ends inside the entry at byte {offset}")
        tag, permissions = ACL_ENTRY_SHORT.packer.unpack_from(value, offset)
        ident = UNDEFINED_ID
        size = ACL_ENTRY_SHORT.size
        if tag in _NAMED:
            size = ACL_ENTRY.size
            if offset + size > len(value):
                raise ValueError(f"the ACL ends inside the entry at byte {offset}")
            tag, permissions, ident = ACL_ENTRY.packer.unpack_from(value, offset)
        elif tag not in _TAGS:
            raise ValueError(f"ACL tag {tag:#x} is not known")
        if permissions > 7:
            raise ValueError(f"ACL permissions {permissions:#x} are not from 0 to 7")
        pieces.append(ACL_ENTRY.packer.pack(tag, permissions, ident))
        offset += size
    if len(pieces) == 1:
        raise ValueError("an ACL without entries")
    return b"".join(pieces)


def parse_text(text: str, find_id: FindId | None = None) -> bytes:
    """Convert an ACL from text to kernel form: ``user::rwx,user:1000:r-x,group::r-x,mask::rwx,other::r--``.

    Entries are separated by commas or newlines, in any order. Words may be shortened to their first letter. ``#`` starts a
    comment. All entries, or none, begin with ``default:``. A fourth field is a numeric id, which wins over the name in the
    second (star and libarchive write it); else ``find_id`` looks the name up. A name without an id raises ValueError.
    """
    entries: list[Entry] = []
    defaults = 0
    lines = (line.partition("#")[0] for line in text.splitlines())
    for item in (piece.strip() for line in lines for piece in line.split(",")):
        if not item:
            continue
        fields = [field.strip() for field in item.split(":")]
        if fields[0] in ("default", "d"):
            defaults += 1
            del fields[0]
        entries.append(_parse_entry(fields, item, find_id))
        if len(entries) > MAX_ENTRIES:
            raise ValueError(f"an ACL of more than {MAX_ENTRIES} entries")
    if defaults not in (0, len(entries)):
        raise ValueError("an ACL with access and default entries mixed")
    entries.sort(key=lambda entry: (entry[0], entry[2]))
    for one, two in itertools.pairwise(entries):
        if (one[0], one[2]) == (two[0], two[2]):
            raise ValueError(f"two ACL entries for {AclTag(one[0]).name.lower()} {one[2]}")
    _check(entries)
    return ACL_HEADER.packer.pack(KERNEL_VERSION) + b"".join(ACL_ENTRY.packer.pack(*entry) for entry in entries)


def _parse_entry(fields: list[str], item: str, find_id: FindId | None) -> Entry:
    plain, named = _WORDS.get(fields[0], (None, None))
    if plain is None or not 2 <= len(fields) <= 4:
        raise ValueError(f"ACL entry {item!r} is not TYPE:ID:PERMISSIONS")
    if len(fields) == 2:
        if named is not None:
            raise ValueError(f"ACL entry {item!r} is not TYPE:ID:PERMISSIONS")
        fields = [fields[0], "", fields[1]]  # acl(5) and Solaris allow mask and other without the empty field
    who = fields[1]
    permissions = _permissions(fields[2], item)
    if not who:
        return plain, permissions, UNDEFINED_ID
    if named is None:
        raise ValueError(f"ACL entry {item!r}: {fields[0]} takes no id")
    ident = fields[3] if len(fields) == 4 and fields[3] else who
    number = _parse_id(named, ident, find_id)
    if number is None:
        raise ValueError(f"ACL entry {item!r}: {ident!r} is not a numeric id{', nor a known name' if find_id else ''}")
    if number >= UNDEFINED_ID:
        raise ValueError(f"ACL entry {item!r}: the id does not fit 32 bits")
    return named, permissions, number


def _parse_id(tag: AclTag, text: str, find_id: FindId | None) -> int | None:
    if text.isascii() and text.isdecimal():
        return int(text) if len(text) <= 10 else None
    if find_id is None:
        return None
    name = _ESCAPE.sub(lambda match: bytes((int(match[1], 8),)), text.encode("utf-8", "surrogateescape"))
    return find_id(tag, name.decode("utf-8", "surrogateescape"))


def _permissions(text: str, item: str) -> int:
    match = _PERMISSIONS.fullmatch(text)
    if match:
        return sum(bit for bit, letter in zip((4, 2, 1), match.groups(), strict=True) if letter != "-")
    if len(text) == 1 and text in "01234567":
        return int(text)
    raise ValueError(f"ACL entry {item!r}: {text!r} are not permissions like r-x")


def _check(entries: list[Entry]) -> None:
    """Check an ACL as the kernel does on setxattr (posix_acl_valid): known tags in order, the three base entries, a mask."""
    last = 0
    seen: set[int] = set()
    for tag, permissions, ident in entries:
        if tag not in _TAGS:
            raise ValueError(f"ACL tag {tag:#x} is not known")
        if permissions > 7:
            raise ValueError(f"ACL permissions {permissions:#x} are not from 0 to 7")
        if tag < last or (tag == last and tag not in _NAMED):
            raise ValueError(f"ACL entry {AclTag(tag).name.lower()} is out of order or there twice")
        if tag in _NAMED and ident == UNDEFINED_ID:
            raise ValueError(f"ACL entry {AclTag(tag).name.lower()} has no id")
        last = tag
        seen.add(tag)
    for tag in (AclTag.USER_OBJ, AclTag.GROUP_OBJ, AclTag.OTHER):
        if tag not in seen:
            raise ValueError(f"an ACL without a {tag.name.lower()} entry")
    if not seen.isdisjoint(_NAMED) and AclTag.MASK not in seen:
        raise ValueError("an ACL with named users or groups and no mask")
