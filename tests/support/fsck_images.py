"""Images for checks, damaged by hand, and contexts as passes 1 and 2 leave them for a filesystem whose inodes are sound."""

from __future__ import annotations

import ext3
from ext3.check.census_taking import take_census
from ext3.constants import ROOT_INO, S_IFDIR, S_IFMT
from ext3.device.base import MemoryDevice
from ext3.format.dirent_block import delete_record, find_record, set_inode
from ext3.format.group_desc_columns import read_group_columns
from ext3.format.inode import patch_inode
from ext3.format.inode_table import inode_offset
from ext3.format.superblock import read_superblock
from ext3.fsck.context import CheckOptions, Context
from ext3.fsck.finding import Report
from ext3.fsck.policy import Policy, Yes
from ext3.fsck.storage import RepairStorage

__all__ = ["STAMP", "Image", "context_of", "filled_context"]

STAMP = ext3.Stamp(1_700_000_000, bytes(16), bytes(16))


class Image:
    """Bytes of a filesystem, with ways to damage them."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.device = MemoryDevice(data)
        self.superblock = read_superblock(self.device)
        self.groups = read_group_columns(self.device, self.superblock)

    @property
    def data(self) -> bytes:
        return bytes(self.device.data)

    def ino(self, path: str) -> int:
        with ext3.Filesystem.open(self.device) as fs:
            return fs.lookup(path, follow=False)

    def set_inode(self, ino: int, **fields: object) -> None:
        """Set fields of INODE_CORE."""
        at = inode_offset(self.superblock, self.groups, ino)
        raw = self.device.read(at, self.superblock.inode_size)
        self.device.write(at, patch_inode(raw, **fields))

    def _block_of(self, directory: int, name: bytes) -> tuple[int, bytes]:
        size = self.superblock.block_size
        with ext3.Filesystem.open(self.device) as fs:
            extents = fs.block_map(directory).extents
        for _, first, count in extents:
            for block in range(first, first + count):
                data = self.device.read(block * size, size)
                if find_record(data, name):
                    return block, data
        raise LookupError(name)

    def drop_name(self, directory: int, name: bytes) -> None:
        """Remove a name, and nothing else."""
        block, data = self._block_of(directory, name)
        found = find_record(data, name)
        assert found is not None
        self.device.write(block * len(data), delete_record(data, *found))

    def lead_name(self, directory: int, name: bytes, ino: int, file_type: int = 2) -> None:
        """Make a name lead to another inode."""
        block, data = self._block_of(directory, name)
        found = find_record(data, name)
        assert found is not None
        self.device.write(block * len(data), set_inode(data, found[0], ino, file_type))

    def listing(self, ino: int = ROOT_INO) -> dict[bytes, int]:
        """Return the names in a directory without ``.`` and ``..``, and their inodes."""
        with ext3.Filesystem.open(self.device) as fs:
            return {entry.name: entry.ino for entry in fs.scandir(ino)}


def context_of(image: Image, policy: Policy | None = None) -> Context:
    """Return a context before pass 1."""
    storage = RepairStorage(MemoryDevice(image.data), image.superblock.block_size)
    return Context(storage, policy or Yes(), Report(), STAMP, CheckOptions(force=True))


def filled_context(image: Image, policy: Policy | None = None) -> Context:
    """Return a context as passes 1 and 2 leave it; the names of a directory count for the first that has it."""
    context = context_of(image, policy)
    census = context.census = take_census(image_volume(image)).census
    census.names[:] = 0
    with ext3.Filesystem.open(image.device) as fs:
        for ino in census.directories.tolist():
            census.names[ino] += 1
            block = fs.block_map(ino).extents[0][1]
            data = image.device.read(block * image.superblock.block_size, image.superblock.block_size)
            found = find_record(data, b"..")
            assert found is not None
            context.dotdot[ino] = int.from_bytes(data[found[0] : found[0] + 4], "little")
            for entry in fs.scandir(ino):
                census.names[entry.ino] += 1
                if int(census.mode[entry.ino]) & S_IFMT == S_IFDIR:
                    context.parent[entry.ino] = context.parent[entry.ino] or ino
    return context


class image_volume:  # used like a function
    """Volume of an image, for scans."""

    def __init__(self, image: Image) -> None:
        self.device = image.device
        self.superblock = image.superblock
        self.groups = image.groups
