"""Small images in memory: empty ones to be edited, and samples that sessions change through blocks and inodes alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256

import pytest

import ext3
from ext3.constants import S_IFDIR, S_IFREG
from ext3.device.base import BlockDevice, MemoryDevice
from ext3.device.copy_on_write import RecordingDevice
from ext3.edit.orphan_list import add_orphan, cut_inode, remove_orphan
from ext3.edit.session import Session
from ext3.format.group_desc import read_groups
from ext3.format.jbd_schema import JOURNAL_SUPERBLOCK
from ext3.format.schema import INODE_CORE
from ext3.format.superblock import read_superblock
from ext3.journal.log import read_journal
from ext3.newfs.builder import TreeBuilder
from ext3.newfs.content import MemoryContent
from ext3.newfs.plan import ImageOptions
from ext3.newfs.stamp import Stamp
from ext3.newfs.tree import Tree

from .crashes import Recording

__all__ = [
    "COMMIT_START",
    "FILES",
    "OLD_STAMP",
    "SIZE",
    "STAMP",
    "clock",
    "empty_image",
    "empty_tree",
    "errno_of",
    "grow",
    "inode_of",
    "record_session",
    "sample",
    "session",
    "set_size",
    "shorten_log",
    "signature",
    "step",
]

FILES = 6
COMMIT_START = bytes.fromhex("c03b399800000002")
"""The first bytes of a commit block."""
SECONDS = 1_700_000_000
SIZE = {1024: 8 << 20, 4096: 24 << 20}
"""Bytes of an image by the size of its blocks."""
STAMP = Stamp(SECONDS, b"u" * 16, b"h" * 16)
OLD_STAMP = Stamp(SECONDS - 100_000_000, b"u" * 16, b"h" * 16)
"""Of an image that is older than what is done to it by ``clock``."""


def clock() -> int:
    """A time that stands still, in nanoseconds."""
    return SECONDS * 10**9


def empty_tree() -> Tree:
    """A root directory with nothing in it."""
    builder = TreeBuilder()
    builder.add(0, b"", S_IFDIR | 0o755, 0, 0, 0, (SECONDS,) * 3 + (0,) * 3)
    return builder.finish(MemoryContent({}))


def empty_image(
    size: int = 8 << 20,
    *,
    block_size: int = 1024,
    inode_size: int = 256,
    inodes: int | None = None,
    journal: bool = True,
    stamp: Stamp = STAMP,
) -> MemoryDevice:
    """An image with nothing in it but lost+found."""
    options = ImageOptions(size=size, block_size=block_size, inode_size=inode_size, inodes=inodes, journal=journal)
    return MemoryDevice(_empty_bytes(size, options, stamp))


@lru_cache(maxsize=3)
def _empty_bytes(size: int, options: ImageOptions, stamp: Stamp) -> bytearray:
    """Bytes of an empty image; most tests want the same one."""
    device = MemoryDevice(size)
    ext3.build_image(empty_tree(), device, options=options, stamp=stamp)
    return device.data


def errno_of(work: Callable[[], object]) -> int:
    """The errno something fails with; the error is one of the library's, in one line."""
    with pytest.raises(OSError) as caught:
        work()
    assert isinstance(caught.value, ext3.Ext3Error)
    assert "\n" not in str(caught.value)
    return caught.value.errno or 0


def session(device: BlockDevice, *, late_checkpoint: bool = False) -> Session:
    return Session(device, clock=clock, late_checkpoint=late_checkpoint)


def shorten_log(device: MemoryDevice, blocks: int) -> None:
    """Let only so many blocks of the journal's file be used as log."""
    superblock = read_superblock(device)
    journal = read_journal(device, superblock, read_groups(device, superblock))
    JOURNAL_SUPERBLOCK.view(device.data, 1, journal.offset(0))["s_maxlen"] = journal.first + blocks


def sample(*, size: int = 8 << 20, block_size: int = 1024, journal: bool = True, length: int = 30_000) -> MemoryDevice:
    """An image with files f0 .. f5 in its root, each of ``length`` bytes."""
    builder = TreeBuilder()
    times = (SECONDS,) * 3 + (0,) * 3
    builder.add(0, b"", S_IFDIR | 0o755, 0, 0, 0, times)
    data = {}
    for number in range(FILES):
        node = builder.add(0, b"f%d" % number, S_IFREG | 0o644, 0, 0, length, times)
        pattern = bytes((number * 7 + at * 31) % 251 for at in range(251))
        data[node] = (pattern * (length // 251 + 1))[:length]
    device = MemoryDevice(size)
    options = ImageOptions(size=size, block_size=block_size, journal=journal)
    ext3.build_image(builder.finish(MemoryContent(data)), device, options=options, stamp=STAMP)
    return device


def inode_of(number: int) -> int:
    """The inode of file ``number`` in a sample."""
    return 12 + number


def set_size(session: Session, ino: int, size: int) -> None:
    """Cut a file to ``size`` bytes, or make it longer by a hole."""
    raw = bytearray(session.read_inode(ino))
    INODE_CORE.view(raw)["i_size"] = size
    session.write_inode(ino, raw)
    cut_inode(session, ino)


def grow(session: Session, ino: int, blocks: int, fill: int) -> None:
    """Give an empty file ``blocks`` blocks (12 at most) full of the byte ``fill``."""
    size = session.block_size
    runs = session.allocate(blocks, session.goal_of(ino))
    raw = bytearray(session.read_inode(ino))
    row = INODE_CORE.view(raw)
    pointers = [block for first, count in runs for block in range(first, first + count)]
    for first, count in runs:
        session.write_data(first, bytes((fill,)) * (count * size))
    row["i_block"][0, :blocks] = pointers
    row["i_size"], row["i_blocks"] = blocks * size, blocks * size // 512
    session.write_inode(ino, raw)


def signature(device: BlockDevice) -> tuple[str, ...]:
    """What the files of a sample hold."""
    with ext3.Filesystem.open(device) as fs:
        assert fs.journal_problem is None
        return tuple(sha256(fs.read_bytes(b"f%d" % number)).hexdigest() for number in range(FILES))


def step(edit: Session, number: int) -> None:
    """One change: of a file's length and blocks, its data, attribute-like blocks that come and go, the orphan list."""
    ino = inode_of(number % FILES)
    set_size(edit, ino, (number * 977) % 14_000)
    if number % 3 == 0:
        set_size(edit, ino, 0)
        grow(edit, ino, 1 + number % 12, 1 + number)
    if number % 4 == 1:
        add_orphan(edit, inode_of((number + 1) % FILES))
    if number % 4 == 3 and edit.last_orphan:
        remove_orphan(edit, edit.last_orphan)
    runs = edit.allocate(3, 0)
    for first, count in runs:
        for block in range(first, first + count):
            edit.write(block, bytes((number,)) * edit.block_size)
    edit.free(runs, metadata=True)


def record_session(
    block_size: int, steps: int, *, late_checkpoint: bool = False, log_blocks: int | None = None
) -> Recording[tuple[str, ...]]:
    """Some steps, each followed by a sync; ``states`` are signatures. ``log_blocks``: see ``shorten_log``."""
    device = sample(block_size=block_size, size=SIZE[block_size])
    if log_blocks:
        shorten_log(device, log_blocks)
    before = bytes(device.data)
    recorded = RecordingDevice(device)
    states, syncs = [signature(device)], [(0, 0)]
    with session(recorded, late_checkpoint=late_checkpoint) as edit:
        for number in range(steps):
            with edit.operation():
                step(edit, number)
            edit.sync()
            states.append(signature(device))
            syncs.append((len(recorded.events), len(states) - 1))
    return Recording(before, recorded.events, states, syncs)
