"""Image with inodes of all kinds, ways to damage them, and pass 1 run alone."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import ext3
from ext3.constants import GOOD_INODE_SIZE, S_IFBLK, S_IFCHR, S_IFIFO, SUPERBLOCK_OFFSET
from ext3.device.base import MemoryDevice
from ext3.format.inode_table import inode_offset
from ext3.format.schema import GROUP_DESC, INODE_CORE, INODE_EXTRA, SUPERBLOCK, XATTR_ENTRY
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions, Context, Restart
from ext3.fsck.finding import Report
from ext3.fsck.inodes import InodePass
from ext3.fsck.policy import CheckOnly, Policy, Yes
from ext3.fsck.shared_blocks import separate_shared_blocks

from .fsck_images import Image, context_of

__all__ = ["BLOCK", "LATER", "STAMP", "Inodes", "attribute", "codes", "pass_1", "repair", "sample"]

BLOCK = 1024
STAMP = ext3.Stamp(1_700_000_000, bytes(range(16)), bytes(range(16)))
LATER = ext3.Stamp(2_000_000_000, bytes(range(16)), bytes(range(16)))


class Inodes(Image):
    """The sample image; ``numbers`` of its files by name."""

    def __init__(self, data: bytes | bytearray) -> None:
        super().__init__(data)
        self.numbers = {name.decode(): ino for name, ino in self.listing().items()}

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]

    def core(self, ino: int) -> Any:
        """Fields of INODE_CORE, to be changed."""
        at = inode_offset(self.superblock, self.groups, ino)
        return INODE_CORE.view(self.device.data, 1, at)[0]

    def extra(self, ino: int) -> Any:
        """Fields of INODE_EXTRA, to be changed."""
        at = inode_offset(self.superblock, self.groups, ino)
        return INODE_EXTRA.view(self.device.data, 1, at + GOOD_INODE_SIZE)[0]

    def set_super(self, **fields: int) -> None:
        row = SUPERBLOCK.view(self.device.data, 1, SUPERBLOCK_OFFSET)[0]
        for name, value in fields.items():
            row[name] = value

    def set_group(self, group: int, **fields: int) -> None:
        """Set fields of a descriptor and of its copies."""
        geometry = self.superblock.geometry
        for owner in (0, *geometry.backup_groups):
            at = (geometry.first_block(owner) + 1) * BLOCK + group * GROUP_DESC.size
            row = GROUP_DESC.view(self.device.data, 1, at)[0]
            for name, value in fields.items():
                row[name] = value

    def block(self, number: int) -> bytes:
        return self.device.read(number * BLOCK, BLOCK)

    def set_block(self, number: int, data: bytes) -> None:
        self.device.write(number * BLOCK, data.ljust(BLOCK, b"\0"))

    def set_pointers(self, number: int, pointers: dict[int, int]) -> None:
        """Change pointers in a pointer block, by index."""
        for index, value in pointers.items():
            self.device.write(number * BLOCK + 4 * index, struct.pack("<I", value))

    def set_area(self, ino: int, entries: bytes, extra: int = 32) -> None:
        """Write the attribute area of an inode."""
        self.extra(ino)["i_extra_isize"] = extra
        at = inode_offset(self.superblock, self.groups, ino) + GOOD_INODE_SIZE + extra
        size = self.superblock.inode_size - GOOD_INODE_SIZE - extra
        self.device.write(at, (struct.pack("<I", 0xEA020000) + entries).ljust(size, b"\0")[:size])

    def area(self, ino: int) -> bytes:
        at = inode_offset(self.superblock, self.groups, ino) + GOOD_INODE_SIZE + 32
        return self.device.read(at, self.superblock.inode_size - GOOD_INODE_SIZE - 32)

    def free_block(self, count: int = 1) -> int:
        """The first of ``count`` free blocks in the last group."""
        return self.superblock.blocks_count - 1 - count

    def read(self, name: str) -> bytes:
        with ext3.Filesystem.open(self.device) as fs:
            return fs.read_bytes("/" + name)


def attribute(name: bytes, offset: int, size: int, *, number: int = 0, index: int = 1, inum: int = 0) -> bytes:
    """Entry of an attribute."""
    head = XATTR_ENTRY.packer.pack(len(name), index, offset, inum, size, number)
    return head + name + bytes(-len(name) % 4)


@cache
def _sample(journal: bool) -> bytes:
    device = MemoryDevice(20 << 20)
    ext3.mkfs(device, 20 << 20, block_size=BLOCK, journal=journal, stamp=STAMP)
    with ext3.Filesystem.open(device, "r+", clock=lambda: STAMP.seconds * 10**9) as fs:
        fs.write_bytes("/small", b"s" * 3000)
        fs.write_bytes("/large", bytes(range(256)) * 320)
        fs.write_bytes("/other", b"o" * 20_000)
        fs.write_bytes("/empty", b"")
        fs.mkdir("/dir")
        for number in range(120):
            fs.write_bytes(f"/dir/name-{number:03}-{'n' * 30}", b"")
        fs.symlink("target", "/short")
        fs.symlink("t" * 200, "/long")
        fs.mknod("/fifo", S_IFIFO | 0o644)
        fs.mknod("/char", S_IFCHR | 0o644, (1, 3))
        fs.mknod("/block", S_IFBLK | 0o644, (8, 1))
        for name, value in (("attr1", b"v" * 300), ("attr2", b"w" * 300)):
            fs.write_bytes("/" + name, b"a" * 100)
            fs.set_xattr("/" + name, b"user.long", value)
        fs.set_xattr("/small", b"user.short", b"v" * 20)
    return bytes(device.data)


def sample(*, journal: bool = False) -> Inodes:
    """A new copy of the image: 3 groups of blocks of 1024 bytes, inodes of 256."""
    return Inodes(_sample(journal))


def pass_1(image: Image, policy: Policy | None = None, *, screen: bool = True, shared: bool = False) -> Context:
    """Run pass 1, again after a restart; ``shared``: and 1B to 1D."""
    context = context_of(image, policy)
    for _ in range(3):
        context.begin_passes()
        try:
            InodePass(context, screen=screen).run()
        except Restart:
            continue
        if shared:
            separate_shared_blocks(context)
        break
    return context


def codes(source: Context | Report) -> list[str]:
    """Codes of what was found, notes too, in order."""
    report = source if isinstance(source, Report) else source.report
    return [finding.code for finding in report.findings]


def repair(image: Image, policy: Policy | None = None) -> Report:
    """Run the whole check on the image itself."""
    report = check(image.device, policy or Yes(), options=CheckOptions(force=True), stamp=LATER)
    if policy is None:
        again = check(image.device, CheckOnly(), options=CheckOptions(force=True), stamp=LATER)
        assert not again.findings, [str(finding) for finding in again.findings]
    return report
