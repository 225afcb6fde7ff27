"""Recorded edits of small images, for tests that interrupt them: fixed steps with a sync after each, and random ones.

Data is only appended, or gets new blocks: what is written over old data is there at once, as on every filesystem.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import ext3
from ext3.constants import STATE_VALID
from ext3.device.base import BlockDevice
from ext3.device.copy_on_write import RecordingDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.format.superblock import read_superblock

from .crashes import Recording
from .edits import Edits
from .facts import digest_of, facts_of_image
from .operations import ImageTree
from .sessions import SIZE, clock, empty_image, shorten_log

__all__ = ["KINDS", "STEPS", "is_valid", "record_random_edits", "record_steps", "state", "state_of"]

ATOMIC = {
    "mkdir", "create", "mknod", "mkdev", "symlink", "link", "unlink", "rmdir", "append", "chmod", "lchmod", "chown", "utimens",
    "rename", "rename_noreplace", "rename_whiteout", "rename_exchange",
}  # fmt: skip
KINDS = {
    "moves": ATOMIC,
    "attributes": {*ATOMIC, "set_xattr", "remove_xattr"},
    "orphans": {*ATOMIC, "write_bytes", "orphan", "truncate", "punch"},
}
"""Verbs of random edits whose tree is whole after each of them."""


def state_of(fs: ext3.Filesystem) -> str:
    """Digest of all that an image holds: names, facts, times, attributes, targets and data."""
    return digest_of(facts_of_image(fs))


def state(device: BlockDevice) -> str:
    """Digest of all that an image holds, through its journal."""
    with ext3.Filesystem.open(device) as fs:
        assert fs.journal_problem is None
        return state_of(fs)


def is_valid(device: BlockDevice) -> bool:
    """Whether an image says that it is in order."""
    return bool(read_superblock(device).state & STATE_VALID)


def _fill(fs: WritableFilesystem) -> None:
    """A directory long enough for an index."""
    for number in range(40):
        fs.write_bytes(b"/d/%d-" % number + b"n" * 100, b"x" * number)


STEPS: list[Callable[[WritableFilesystem], object]] = [
    lambda fs: (fs.mkdir("/d"), fs.mkdir("/d/e"), fs.write_bytes("/f", b"first" * 3000)),
    _fill,
    lambda fs: fs.write_bytes("/f", b"second" * 9000),
    lambda fs: (fs.rename("/f", "/d/moved"), fs.rename("/d/e", "/e")),
    lambda fs: fs.truncate("/d/moved", 7777),
    lambda fs: (fs.punch_hole("/d/moved", 1024, 4096), fs.symlink("t" * 200, "/s"), fs.link("/d/moved", "/l")),
    lambda fs: fs.open_file("/l", "r+").write_at(7777, b"appended" * 2000),
    lambda fs: (fs.set_xattr("/l", b"user.big", b"v" * 700), fs.chown("/l", 1, 2), fs.chmod("/e", 0o700)),
    lambda fs: (fs.write_bytes("/n", b"new"), fs.rename("/n", "/l"), fs.rename("/d", "/e", exchange=True)),
    lambda fs: fs.remove_tree("/e"),
    lambda fs: (fs.mkdir("/e"), fs.write_bytes("/e/again", os.urandom(30_000))),
]


def record_steps(block_size: int, *, journal: bool = True) -> Recording[str]:
    """All steps, each followed by a sync."""
    device = empty_image(SIZE[block_size], block_size=block_size, journal=journal)
    before = bytes(device.data)
    recorded = RecordingDevice(device)
    states, syncs = [state(device)], [(0, 0)]
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        assert fs.superblock.has_journal == journal
        for step in STEPS:
            step(fs)
            fs.sync()
            states.append(state(device))
            syncs.append((len(recorded.events), len(states) - 1))
    assert len(set(states)) == len(states)
    return Recording(before, recorded.events, states, syncs)


def record_random_edits(
    kind: str, block_size: int, *, syncs: int, most: int = 7, late_checkpoint: bool = False, log_blocks: int | None = None
) -> Recording[str]:
    """Some random edits (up to ``most``), a sync, more edits; at the end files without names are still open.

    ``log_blocks``: see ``shorten_log``.
    """
    inode_size = 128 if kind == "attributes" else 256
    device = empty_image(SIZE[block_size], block_size=block_size, inode_size=inode_size)
    edits = Edits(block_size, block_size=block_size, largest=20_000, verbs=KINDS[kind])
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        _prepare(ImageTree(fs), edits, block_size)
    if log_blocks:
        shorten_log(device, log_blocks)
    before = bytes(device.data)
    recorded = RecordingDevice(device)
    fs = WritableFilesystem(recorded, clock=clock, late_checkpoint=late_checkpoint)
    image = ImageTree(fs)
    states, marks = [state_of(fs)], [(0, 0)]
    for number in range(syncs):
        for _ in range(1 + number % most):
            edits.step(image)
            states.append(state_of(fs))
        fs.sync()
        marks.append((len(recorded.events), len(states) - 1))
        assert state(device) == states[-1]
    edits.check(fs)
    fs.abandon()
    assert len(set(states)) > len(states) // 2
    return Recording(before, recorded.events, states, marks)


def _prepare(image: ImageTree, edits: Edits, block_size: int) -> None:
    """Something of every kind to begin with; files of which the maps are large among it."""
    for number in range(40):
        if number % 4 == 0:
            edits.apply(("mkdir", b"/dir%d" % number, 0o755, 0, 0), image)
        else:
            edits.apply(("write_bytes", b"/f%d" % number, b""), image)
    pointers = block_size // 4
    for number in range(1, 30, 4):
        path = b"/f%d" % number
        edits.apply(("append", path, b"large" * 4000), image)
        for place in range(1, 9):
            block = 12 + place * pointers + pointers**2 * (place > 4)
            edits.apply(("write", path, block * block_size, b"far"), image)
        edits.apply(("set_xattr", path, b"trusted.long", b"value" * 100), image)
