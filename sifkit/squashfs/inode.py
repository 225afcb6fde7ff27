"""Inodes: the 14 kinds as one value, and the Stat that the kernel makes of it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from ..vfs.file_tree import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    REGULAR,
    SOCKET,
    SYMLINK,
    UNKNOWN,
    TreeStat,
)
from .errors import CorruptSquashfsError
from .metadata_blocks import MetadataTable
from .schema import (
    DEVICE_INODE,
    DIRECTORY_INODE,
    EXTENDED_DEVICE_INODE,
    EXTENDED_DIRECTORY_INODE,
    EXTENDED_IPC_INODE,
    EXTENDED_REGULAR_INODE,
    IPC_INODE,
    REGULAR_INODE,
    SYMLINK_INODE,
)

__all__ = [
    "DIRECTORY_KIND",
    "FILE_TYPES",
    "REGULAR_KIND",
    "SYMLINK_KIND",
    "Inode",
    "InodeTable",
    "stat_of_inode",
]

DIRECTORY_KIND, REGULAR_KIND, SYMLINK_KIND, BLOCK_KIND, CHARACTER_KIND, FIFO_KIND, SOCKET_KIND = range(1, 8)
"""Kinds of inodes, as directory entries number them; the extended form of each is ``EXTENDED`` more."""
EXTENDED = 7
FILE_TYPES: Final = (UNKNOWN, DIRECTORY, REGULAR, SYMLINK, BLOCK_DEVICE, CHARACTER_DEVICE, FIFO, SOCKET)
"""File types by kind."""
FORMATS: Final = (0, 0o040000, 0o100000, 0o120000, 0o060000, 0o020000, 0o010000, 0o140000)
"""Bits of the type in a mode, by kind."""
INODE_BYTES = EXTENDED_REGULAR_INODE.size
"""Bytes of the longest inode, without what follows its fields."""
NONE = 0xFFFFFFFF
"""Index of a fragment or of attributes that are not there."""
MAX_TARGET = 65535
"""Longest target of a symlink that squashfs-tools write; the kernel takes one page."""
MAX_SIZE = (1 << 63) - 1
MODE_BITS = 0o7777
SECTOR = 512
NANOSECONDS = 10**9


class Inode(NamedTuple):
    """Decoded inode. Fields that its kind does not have are 0 or None.

    * ``kind``: 1 to 7, also for extended inodes. ``mode``: with the bits of the type. ``mtime``: in seconds.
    * Files: ``start_block`` is the byte of the image where the data begins, ``block_list_at`` the reference of the sizes of its
      ``block_count`` blocks, ``sparse_bytes`` how much is holes.
    * Directories: the listing begins at ``offset`` in the block at ``start_block``, in bytes from the start of the table of
      directories; ``size`` is 3 more than that of the listing. ``index_count``: entries of the index. ``parent``: number of the
      inode of the directory above.
    """

    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    ino: int
    links: int
    size: int
    xattr_index: int | None
    start_block: int = 0
    fragment_index: int | None = None
    fragment_offset: int = 0
    block_list_at: int = 0
    block_count: int = 0
    sparse_bytes: int = 0
    rdev: int = 0
    offset: int = 0
    index_count: int = 0
    parent: int = 0


_inode, _stat = partial(tuple.__new__, Inode), partial(tuple.__new__, TreeStat)
"""Inode and TreeStat from a tuple, without checking its length: these run once per file."""
_REGULAR, _EXTENDED_REGULAR = REGULAR_INODE.packer.unpack_from, EXTENDED_REGULAR_INODE.packer.unpack_from
_DIRECTORY, _EXTENDED_DIRECTORY = DIRECTORY_INODE.packer.unpack_from, EXTENDED_DIRECTORY_INODE.packer.unpack_from
_SYMLINK = SYMLINK_INODE.packer.unpack_from
_DEVICE, _EXTENDED_DEVICE = DEVICE_INODE.packer.unpack_from, EXTENDED_DEVICE_INODE.packer.unpack_from
_REGULAR_BYTES, _EXTENDED_BYTES = REGULAR_INODE.size, EXTENDED_REGULAR_INODE.size
_IPC, _EXTENDED_IPC = IPC_INODE.packer.unpack_from, EXTENDED_IPC_INODE.packer.unpack_from


class InodeTable:
    """Inodes by reference. ``ids``: the users and groups that inodes name by index. ``inodes``: their largest number."""

    def __init__(self, table: MetadataTable, ids: Sequence[int], *, inodes: int, block_size: int) -> None:
        self.table = table
        self._ids = ids
        self._inodes = inodes
        self._block_log = block_size.bit_length() - 1
        self._decoders = (
            self._unknown,
            self._directory,
            self._regular,
            self._symlink,
            self._device,
            self._device,
            self._ipc,
            self._ipc,
            self._extended_directory,
            self._extended_regular,
            self._extended_symlink,
            self._extended_device,
            self._extended_device,
            self._extended_ipc,
            self._extended_ipc,
        )

    def read(self, node: int) -> Inode:
        """Return the inode at the reference ``node``. Raises CorruptSquashfsError and OSError."""
        return self.decode(self.table.block(node >> 16), node)

    def decode(self, block: bytes, node: int) -> Inode:
        """Return the inode at the reference ``node``, which lies in ``block``."""
        data, offset = block, node & 0xFFFF
        if offset + INODE_BYTES > len(block):
            if offset >= len(block):
                raise self.corrupt(node, "offset in its block", offset, f"below {len(block)}")
            data, offset = self._across_blocks(node), 0
        try:
            found = self._decoders[data[offset] | data[offset + 1] << 8](data, offset, node)
        except (struct.error, IndexError):
            raise self._diagnosis(data, offset, node) from None
        if not 0 < found.ino <= self._inodes:
            raise self.corrupt(node, "inode_number", found.ino, f"1 to {self._inodes}")
        if found.size > MAX_SIZE:
            raise self.corrupt(node, "file_size", found.size, f"at most {MAX_SIZE}")
        return found

    def corrupt(self, node: int, field: str, got: object, want: object) -> CorruptSquashfsError:
        """Return the error of an inode: its place, the field, the value there and the values allowed."""
        return CorruptSquashfsError(f"inode {node >> 16:#x}:{node & 0xFFFF}", field, got, want, offset=self.table.place(node))

    def _across_blocks(self, node: int) -> bytes:
        """Return the bytes from a reference on: as many as the longest inode has, fewer at the end of the table."""
        data = b""
        for piece, _ in self.table.pieces(node):
            data += piece[:INODE_BYTES]
            if len(data) >= INODE_BYTES:
                break
        return data

    def _diagnosis(self, data: bytes, offset: int, node: int) -> CorruptSquashfsError:
        """Return what is wrong with an inode that does not decode."""
        if len(data) - offset < IPC_INODE.size:
            return self.corrupt(node, "bytes before the end of the table", len(data) - offset, f"at least {IPC_INODE.size}")
        kind, _, user, group = struct.unpack_from("<4H", data, offset)
        if not 0 < kind < len(self._decoders):
            return self.corrupt(node, "inode_type", kind, f"1 to {len(self._decoders) - 1}")
        if max(user, group) >= len(self._ids):
            return self.corrupt(node, "index of its owner", max(user, group), f"below {len(self._ids)}")
        return self.corrupt(node, "bytes before the end of the table", len(data) - offset, "all of the inode")

    def _unknown(self, data: bytes, offset: int, node: int) -> Inode:
        """Refuse type 0, as types beyond the decoders are."""
        raise IndexError

    def _regular(self, data: bytes, offset: int, node: int) -> Inode:
        _, mode, user, group, mtime, ino, start, fragment, in_fragment, size = _REGULAR(data, offset)
        ids = self._ids
        whole = fragment == NONE
        return _inode((
            REGULAR_KIND, 0o100000 | mode & MODE_BITS, ids[user], ids[group], mtime, ino, 1, size, None, start,
            None if whole else fragment, 0 if whole else in_fragment, node + _REGULAR_BYTES, self._block_count(size, whole),
            0, 0, 0, 0, 0,
        ))  # fmt: skip

    def _extended_regular(self, data: bytes, offset: int, node: int) -> Inode:
        _, mode, user, group, mtime, ino, start, size, sparse, links, fragment, in_fragment, xattr = _EXTENDED_REGULAR(
            data, offset
        )
        ids = self._ids
        whole = fragment == NONE
        return _inode((
            REGULAR_KIND, 0o100000 | mode & MODE_BITS, ids[user], ids[group], mtime, ino, links, size, _index(xattr), start,
            None if whole else fragment, 0 if whole else in_fragment, node + _EXTENDED_BYTES, self._block_count(size, whole),
            min(sparse, size), 0, 0, 0, 0,
        ))  # fmt: skip

    def _block_count(self, size: int, whole: bool) -> int:
        """Return the number of a file's blocks; the rest of one that has a fragment is in that."""
        count = size >> self._block_log
        return count + 1 if whole and size & (1 << self._block_log) - 1 else count

    def _directory(self, data: bytes, offset: int, node: int) -> Inode:
        _, mode, user, group, mtime, ino, start, links, size, in_block, parent = _DIRECTORY(data, offset)
        ids = self._ids
        return _inode((
            DIRECTORY_KIND, 0o040000 | mode & MODE_BITS, ids[user], ids[group], mtime, ino, links, size, None, start,
            None, 0, 0, 0, 0, 0, in_block, 0, parent,
        ))  # fmt: skip

    def _extended_directory(self, data: bytes, offset: int, node: int) -> Inode:
        _, mode, user, group, mtime, ino, links, size, start, parent, count, in_block, xattr = _EXTENDED_DIRECTORY(data, offset)
        ids = self._ids
        return _inode((
            DIRECTORY_KIND, 0o040000 | mode & MODE_BITS, ids[user], ids[group], mtime, ino, links, size, _index(xattr), start,
            None, 0, 0, 0, 0, 0, in_block, count, parent,
        ))  # fmt: skip

    def _symlink(self, data: bytes, offset: int, node: int) -> Inode:
        _, mode, user, group, mtime, ino, links, size = _SYMLINK(data, offset)
        if size > MAX_TARGET:
            raise self.corrupt(node, "symlink_size", size, f"at most {MAX_TARGET}")
        ids = self._ids
        return _inode((
            SYMLINK_KIND, 0o120000 | mode & MODE_BITS, ids[user], ids[group], mtime, ino, links, size, None, 0,
            None, 0, 0, 0, 0, 0, 0, 0, 0,
        ))  # fmt: skip

    def _extended_symlink(self, data: bytes, offset: int, node: int) -> Inode:
        found = self._symlink(data, offset, node)
        raw = self.table.read(node + SYMLINK_INODE.size + found.size, 4)
        return found._replace(xattr_index=_index(int.from_bytes(raw, "little")))

    def _device(self, data: bytes, offset: int, node: int) -> Inode:
        kind, mode, user, group, mtime, ino, links, rdev = _DEVICE(data, offset)
        return self._special(kind, mode, user, group, mtime, ino, links, NONE, rdev)

    def _extended_device(self, data: bytes, offset: int, node: int) -> Inode:
        kind, mode, user, group, mtime, ino, links, rdev, xattr = _EXTENDED_DEVICE(data, offset)
        return self._special(kind - EXTENDED, mode, user, group, mtime, ino, links, xattr, rdev)

    def _ipc(self, data: bytes, offset: int, node: int) -> Inode:
        kind, mode, user, group, mtime, ino, links = _IPC(data, offset)
        return self._special(kind, mode, user, group, mtime, ino, links, NONE)

    def _extended_ipc(self, data: bytes, offset: int, node: int) -> Inode:
        kind, mode, user, group, mtime, ino, links, xattr = _EXTENDED_IPC(data, offset)
        return self._special(kind - EXTENDED, mode, user, group, mtime, ino, links, xattr)

    def _special(
        self, kind: int, mode: int, user: int, group: int, mtime: int, ino: int, links: int, xattr: int, rdev: int = 0
    ) -> Inode:
        """Return the inode of a device, FIFO or socket."""
        mode = FORMATS[kind] | mode & MODE_BITS
        return Inode(kind, mode, self._ids[user], self._ids[group], mtime, ino, links, 0, _index(xattr), rdev=rdev)


def _index(raw: int) -> int | None:
    return None if raw == NONE else raw


def stat_of_inode(inode: Inode, xattr_bytes: int = 0) -> TreeStat:
    """Return the Stat of an inode, with the blocks that the kernel reports: those of its data, as it is uncompressed, and of
    attributes of ``xattr_bytes``."""
    blocks = -(-(inode.size - inode.sparse_bytes) // SECTOR) if inode.kind == REGULAR_KIND else 0
    if xattr_bytes:
        blocks += -(-xattr_bytes // SECTOR)
    rdev, time = inode.rdev, inode.mtime * NANOSECONDS
    major, minor = (rdev >> 8 & 0xFFF, rdev & 0xFF | rdev >> 12 & 0xFFF00) if rdev else (0, 0)
    return _stat((
        inode.ino, 0, inode.mode, inode.uid, inode.gid, inode.size, inode.links, blocks, time, time, time, major, minor
    ))  # fmt: skip
