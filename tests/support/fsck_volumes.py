"""Images whose superblock, journal or orphan list is damaged, and a check of them in memory."""

from __future__ import annotations

from functools import cache

import ext3
from ext3.constants import JOURNAL_INO, SUPERBLOCK_OFFSET
from ext3.device.base import BlockDevice, MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.format.group_desc import read_groups
from ext3.format.inode import parse_inode, patch_inode
from ext3.format.inode_table import inode_offset
from ext3.format.jbd_schema import JOURNAL_SUPERBLOCK
from ext3.format.schema import GROUP_DESC, INODE_CORE, SUPERBLOCK
from ext3.format.superblock import Superblock, read_superblock
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.finding import Report
from ext3.fsck.policy import CheckOnly, Policy, Yes
from ext3.journal.log import read_journal

from .sessions import COMMIT_START, SECONDS, clock, sample

__all__ = ["LATER", "Volume", "assert_sound", "codes", "dirty_volume", "run", "volume"]

LATER = ext3.Stamp(SECONDS + 1000, b"U" * 16, b"H" * 16, 4711)
"""Of checks, some time after the images were made."""


class Volume:
    """Bytes of an image, with ways to damage them."""

    def __init__(self, data: bytes) -> None:
        self.device = MemoryDevice(data)

    @property
    def data(self) -> bytes:
        return bytes(self.device.data)

    @property
    def superblock(self) -> Superblock:
        return read_superblock(self.device)

    def super(self, name: str, at: int = SUPERBLOCK_OFFSET) -> int:
        """Return a field of the superblock at a byte."""
        return int(SUPERBLOCK.view(self.device.data, 1, at)[0][name])

    def set_super(self, at: int = SUPERBLOCK_OFFSET, **fields: object) -> None:
        """Set fields of the superblock at a byte."""
        row = SUPERBLOCK.view(self.device.data, 1, at)[0]
        for name, value in fields.items():
            row[name] = value

    def set_group(self, group: int, **fields: object) -> None:
        """Set fields of a descriptor, of a filesystem whose descriptors fit one block."""
        at = self.superblock.geometry.descriptor_block(0) * self.superblock.block_size + group * GROUP_DESC.size
        row = GROUP_DESC.view(self.device.data, 1, at)[0]
        for name, value in fields.items():
            row[name] = value

    def inode_offset(self, ino: int) -> int:
        superblock = self.superblock
        return inode_offset(superblock, read_groups(self.device, superblock), ino)

    def inode(self, ino: int) -> bytes:
        return self.device.read(self.inode_offset(ino), self.superblock.inode_size)

    def set_inode(self, ino: int, **fields: object) -> None:
        """Set fields of INODE_CORE."""
        self.device.write(self.inode_offset(ino), patch_inode(self.inode(ino), **fields))

    def words(self, ino: int) -> list[int]:
        """Return the 15 words of an inode."""
        found: list[int] = INODE_CORE.view(self.inode(ino))[0]["i_block"].tolist()
        return found

    def journal_offset(self) -> int:
        """Return the byte where the journal's superblock lies."""
        return self.words(JOURNAL_INO)[0] * self.superblock.block_size

    def set_journal(self, **fields: object) -> None:
        """Set fields of the journal's superblock."""
        row = JOURNAL_SUPERBLOCK.view(self.device.data, 1, self.journal_offset())[0]
        for name, value in fields.items():
            row[name] = value

    def journal(self, name: str) -> int:
        return int(JOURNAL_SUPERBLOCK.view(self.device.data, 1, self.journal_offset())[0][name])

    def read(self, path: str) -> bytes:
        with ext3.Filesystem.open(self.device) as fs:
            return fs.read_bytes(path)

    def names(self) -> set[str]:
        with ext3.Filesystem.open(self.device) as fs:
            return {entry.name.decode() for entry in fs.scandir(2)}


@cache
def _sample(size: int, block_size: int, journal: bool) -> bytes:
    return bytes(sample(size=size, block_size=block_size, journal=journal).data)


def volume(size: int = 10 << 20, *, block_size: int = 1024, journal: bool = True) -> Volume:
    """Return a sound image with files f0 to f5. The default size makes two groups, the second one with a backup."""
    return Volume(_sample(size, block_size, journal))


@cache
def _dirty() -> bytes:
    before = MemoryDevice(_sample(10 << 20, 1024, True))
    recorded = RecordingDevice(MemoryDevice(bytes(before.data)))
    fs = ext3.Filesystem.open(recorded, "r+", clock=clock)
    for name in ("f0", "f1"):
        fs.hold(fs.lookup(f"/{name}"))  # they become orphans
        fs.unlink(f"/{name}")
    fs.write_bytes("/new", b"\xc0\x3b\x39\x98" * 700)
    fs.mkdir("/d")
    fs.sync()
    commits = [number for number, event in enumerate(recorded.events) if event.data[:8] == COMMIT_START]
    fs.abandon()
    return play(before, recorded.events[: commits[-1] + 1]).read(0, before.size)


def dirty_volume() -> Volume:
    """Return an image with a log to replay: f0 and f1 removed, and orphans, /new and /d made."""
    return Volume(_dirty())


def run(
    damaged: Volume | BlockDevice,
    policy: Policy | None = None,
    *,
    force: bool = True,
    stamp: ext3.Stamp = LATER,
    **options: int,
) -> Report:
    """Check an image in place."""
    device = damaged.device if isinstance(damaged, Volume) else damaged
    return check(device, policy or Yes(), options=CheckOptions(force=force, **options), stamp=stamp)  # type: ignore[arg-type]


def codes(report: Report) -> list[str]:
    """Return the codes of the findings."""
    return [finding.code for finding in report.findings]


def assert_sound(repaired: Volume | BlockDevice) -> None:
    """A second check finds nothing, and would change nothing but what every full check changes."""
    report = run(repaired, CheckOnly())
    assert codes(report) == []
    assert report.exit_code == 0


def inode_links(image: Volume, ino: int) -> int:
    return parse_inode(image.inode(ino), ino).stat.links


def journal_blocks(image: Volume) -> list[int]:
    """Return the blocks of the journal."""
    superblock = image.superblock
    journal = read_journal(image.device, superblock, read_groups(image.device, superblock))
    return [block for _, first, count in journal.extents for block in range(first, first + count)]
