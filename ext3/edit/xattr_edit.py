"""Editor of an inode's extended attributes, stored in the inode if they fit, else in its attribute block.

Inodes share blocks of equal content; a shared block is copied before it is changed. Source: Linux ``fs/ext4/xattr.c``
(ext4_xattr_set_handle, ext4_xattr_block_set). Values have the form of the host's system calls; attributes with unknown
prefixes are preserved.
"""

from __future__ import annotations

import errno
from collections import OrderedDict

from ..constants import XATTR_MAGIC, XATTR_REFCOUNT_MAX
from ..errors import CorruptError, XattrError, show
from ..format.block_map import PointerBounds
from ..format.schema import XATTR_HEADER
from ..format.xattr import (
    Attribute,
    AttributeNameError,
    block_attributes,
    disk_name,
    host_values,
    inode_attributes,
    pack_block,
    pack_inode_area,
    split_name,
    to_disk,
)
from .blocks import Blocks

__all__ = ["AttributeEditor", "AttributeSharing", "release_block"]

KEPT_CONTENTS = 4096


class AttributeSharing:
    """Index of a filesystem's attribute blocks by content, so that equal ones are stored once.

    Call ``clear`` when blocks were rolled back: a block in the index may then be free.
    """

    def __init__(self) -> None:
        self._found: OrderedDict[bytes, int] = OrderedDict()
        self._content: dict[int, bytes] = {}

    def find(self, content: bytes) -> int | None:
        """Return a block last seen with this content (with a reference count of 1), else None."""
        return self._found.get(content)

    def remember(self, block: int, content: bytes) -> None:
        """Add a block with its content (with a reference count of 1)."""
        self.forget(block)
        replaced = self._found.pop(content, None)
        if replaced is not None:
            del self._content[replaced]
        if len(self._found) >= KEPT_CONTENTS:
            _, oldest = self._found.popitem(last=False)
            del self._content[oldest]
        self._found[content] = block
        self._content[block] = content

    def forget(self, block: int) -> None:
        """Remove a block that was changed or freed."""
        content = self._content.pop(block, None)
        if content is not None:
            del self._found[content]

    def clear(self) -> None:
        """Remove all blocks."""
        self._found.clear()
        self._content.clear()


class AttributeEditor:
    """Attributes of one inode. ``area``: the bytes of the inode behind its fields (empty for 128-byte inodes). ``file_acl``:
    its attribute block or 0. Both are to be stored in the inode after a change. [``first``, ``end``): the range of valid
    blocks. ``goal``: the block near which to allocate. An error leaves everything as it was.
    """

    def __init__(
        self,
        blocks: Blocks,
        area: bytes,
        file_acl: int,
        *,
        first: int,
        end: int,
        where: str,
        goal: int = 0,
        sharing: AttributeSharing | None = None,
    ) -> None:
        if file_acl:
            PointerBounds(first, end, where).check(file_acl, "i_file_acl")
        self._blocks = blocks
        self._where = where
        self._goal = goal
        self._sharing = sharing
        self._area = area
        self._block = file_acl

    @property
    def area(self) -> bytes:
        """Area to store in the inode, of unchanged length."""
        return self._area

    @property
    def file_acl(self) -> int:
        """Attribute block, or 0. The inode's i_blocks counts it, even if it is shared."""
        return self._block

    # -- lookup ----------------------------------------------------------------------------------------------------

    def get(self, name: bytes) -> bytes | None:
        """Return the value of an attribute by its full name, None if it does not exist."""
        parts = split_name(name)
        if parts is None:
            return None
        inside, outside, _ = self._load()
        for attribute in inside + outside:
            if attribute[:2] == parts:
                return host_values([attribute], where=self._where)[name]
        return None

    # -- change ----------------------------------------------------------------------------------------------------

    def set(self, name: bytes, value: bytes) -> bool:
        """Set an attribute. Return True if that changed anything.

        Raise XattrError with errno EOPNOTSUPP, ERANGE, EINVAL or ENOSPC if ext3 cannot store it.
        """
        new = self._on_disk(name, value)
        inside, outside, _ = self._load()
        was = next((old for old in inside + outside if old[:2] == new[:2]), None)
        if was == new:
            return False
        area = self._packed_area(_with(inside, new))
        if area is not None:
            if len(kept := _without(outside, new)) != len(outside):
                self._set_block(name, kept)
            self._area = area
            return True
        area = self._packed_area(_without(inside, new))
        assert area is not None  # fewer attributes than before
        self._set_block(name, _with(outside, new))
        self._area = area
        return True

    def remove(self, name: bytes) -> None:
        """Remove an attribute. Raise XattrError with errno ENODATA if it does not exist, as ``set`` for an invalid name."""
        gone = Attribute(*self._disk_name(name), b"")
        inside, outside, _ = self._load()
        if not any(old[:2] == gone[:2] for old in inside + outside):
            raise self._error(errno.ENODATA, f"there is no attribute {show(name)}")
        if len(kept := _without(inside, gone)) != len(inside):
            area = self._packed_area(kept)
            assert area is not None
            self._area = area
        if len(kept := _without(outside, gone)) != len(outside):
            self._set_block(name, kept)

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _disk_name(self, name: bytes) -> tuple[int, bytes]:
        try:
            return disk_name(name)
        except AttributeNameError as error:
            raise self._error(error.number, str(error)) from None

    def _on_disk(self, name: bytes, value: bytes) -> Attribute:
        self._disk_name(name)
        try:
            return to_disk({name: value})[0]
        except ValueError as error:
            raise self._error(errno.EINVAL, str(error)) from None

    def _load(self) -> tuple[list[Attribute], list[Attribute], int]:
        """Return the attributes in the inode, those in the block, and the block's reference count."""
        inside = inode_attributes(self._area, where=self._where)
        if not self._block:
            return inside, [], 0
        where = f"{self._where}, attribute block {self._block}"
        raw = self._blocks.read(self._block)
        outside = block_attributes(raw, where=where)
        count = XATTR_HEADER.packer.unpack_from(raw)[1]
        if not count:
            raise CorruptError(where, "h_refcount", 0, "1 or more")
        return inside, outside, count

    def _packed_area(self, attributes: list[Attribute]) -> bytes | None:
        """Return the area with these attributes, None if they do not all fit."""
        packed, rest = pack_inode_area(attributes, len(self._area))
        if rest:
            return None
        return packed or bytes(len(self._area))

    def _set_block(self, name: bytes, attributes: list[Attribute]) -> None:
        """Set the block to one with these attributes: an equal one, its own changed in place, or a new one."""
        old, count = self._block, self._load()[2]
        if not attributes:
            self._drop(old, count)
            self._block = 0
            return
        size = self._blocks.block_size
        try:
            content = pack_block(attributes, size, 1)
        except ValueError as error:
            hint = f"the attributes of a file share one block of {size} bytes and what is free in its inode"
            raise self._error(errno.ENOSPC, f"no room for {show(name)}: {error}", hint) from None
        twin = self._find_shared(content, old)
        if twin is not None:
            block, sharers = twin
            self._blocks.write(block, _counted(content, sharers + 1))
            if old:
                self._drop(old, count)
        elif old and count == 1:
            block = old
            self._blocks.write(block, content)
            self._remember(block, content)
        else:
            block = self._blocks.allocate(1, self._goal)[0][0]
            if old:
                self._drop(old, count)
            self._blocks.write(block, content)
            self._remember(block, content)
        self._block = block

    def _find_shared(self, content: bytes, own: int) -> tuple[int, int] | None:
        """Return (block, reference count) of another block with this content that can take one more reference, else None."""
        if self._sharing is None or not XATTR_HEADER.packer.unpack_from(content)[3]:
            return None  # without a hash the format forbids sharing
        block = self._sharing.find(content)
        if block is None or block == own:
            return None
        there = self._blocks.read(block)
        count = XATTR_HEADER.packer.unpack_from(there)[1]
        if _counted(there, 1) != content or not 0 < count < XATTR_REFCOUNT_MAX:
            return None
        return block, count

    def _remember(self, block: int, content: bytes) -> None:
        if self._sharing is not None:
            self._sharing.remember(block, content)

    def _drop(self, block: int, count: int) -> None:
        """Drop one reference to a block that has ``count``."""
        if count > 1:
            self._blocks.write(block, _counted(self._blocks.read(block), count - 1))
            return
        if self._sharing is not None:
            self._sharing.forget(block)
        self._blocks.free([(block, 1)], metadata=True)

    def _error(self, number: int, message: str, hint: str = "") -> XattrError:
        return XattrError(self._where, message, error=OSError(number, message), hint=hint)


def release_block(blocks: Blocks, block: int, bounds: PointerBounds) -> None:
    """Drop a deleted inode's reference to an attribute block; the last one frees it.

    Raise CorruptError if it is not an attribute block; its entries are not checked.
    """
    bounds.check(block, "i_file_acl")
    data = blocks.read(block)
    magic, count, *_ = XATTR_HEADER.packer.unpack_from(data)
    if magic != XATTR_MAGIC:
        raise CorruptError(bounds.where, "i_file_acl", block, "an attribute block")
    if count > 1:
        blocks.write(block, _counted(data, count - 1))
    else:
        blocks.free([(block, 1)], metadata=True)


def _with(attributes: list[Attribute], new: Attribute) -> list[Attribute]:
    """Return the attributes with one set: at its old position, or at the end."""
    found = []
    placed = False
    for old in attributes:
        if old[:2] != new[:2]:
            found.append(old)
        elif not placed:
            found.append(new)
            placed = True
    return found if placed else [*found, new]


def _without(attributes: list[Attribute], gone: Attribute) -> list[Attribute]:
    return [old for old in attributes if old[:2] != gone[:2]]


def _counted(block: bytes, count: int) -> bytes:
    """Return an attribute block with another reference count."""
    magic, _, *rest = XATTR_HEADER.packer.unpack_from(block)
    return XATTR_HEADER.packer.pack(magic, count, *rest) + block[XATTR_HEADER.size :]
