"""Context of a check: the filesystem with its repairs, what the passes found in use, and the report.

Passes are functions of a Context. They report with ``fix``, change blocks and inodes through it, and leave in it what later
passes need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..check.census import Census
from ..constants import STATE_VALID, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ..device.base import BlockDevice
from ..edit.blocks import Run
from ..errors import Ext3Error, NoSpaceError
from ..format.group_desc_columns import read_group_columns
from ..format.inode_table import inode_offset
from ..format.layout_columns import Table
from ..format.schema import GROUP_DESC, SUPERBLOCK
from ..format.superblock import Superblock, parse_superblock
from ..newfs.stamp import Stamp
from .finding import Finding, Report
from .policy import Policy
from .problem import Place, Problem
from .storage import RepairStorage, Stage

__all__ = ["CheckOptions", "Context", "DirectoryBlocks", "GaveUp", "Reopen", "Restart"]

Numbers = npt.NDArray[np.int64]
NOWHERE = Place()
FIRST_WINDOW, LAST_WINDOW = 1 << 10, 1 << 16
"""Blocks that the search for free ones looks at together: first, and as it goes on."""


class Restart(Exception):
    """A repair changed what earlier passes rely on: begin again with pass 1."""


class GaveUp(Exception):
    """The check cannot go on; what was repaired is kept, and faults are left."""


class Reopen(Exception):
    """The journal's replay left a superblock on ``device`` that cannot be used: open the filesystem again, with a backup."""

    def __init__(self, device: BlockDevice, error: Ext3Error) -> None:
        super().__init__(str(error))
        self.device = device
        self.error = error


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """``force``: check a clean filesystem too. ``rebuild_directories``: rebuild and optimise all directories.

    ``superblock``, ``block_size``: block of the superblock copy to use and its block size; 0: find it. ``journal_only``: replay
    the journal and do nothing else.
    """

    force: bool = False
    rebuild_directories: bool = False
    superblock: int = 0
    block_size: int = 0
    journal_only: bool = False


@dataclass(slots=True)
class DirectoryBlocks:
    """Blocks of all directories, from pass 1: equal columns, in any order. ``block`` 0: a hole."""

    parts: list[tuple[Numbers, Numbers, Numbers]] = field(default_factory=list)

    def add(self, ino: Numbers, logical: Numbers, block: Numbers) -> None:
        self.parts.append((ino, logical, block))

    def columns(self) -> tuple[Numbers, Numbers, Numbers]:
        """Return (ino, logical, block), by ascending inode and logical block."""
        none = np.zeros(0, np.int64)
        if len(self.parts) != 1:
            ino, logical, block = (np.concatenate([none, *column]) for column in zip((none,) * 3, *self.parts, strict=True))
        else:
            ino, logical, block = self.parts[0]
        order = np.lexsort((logical, ino))
        self.parts = [(ino[order], logical[order], block[order])]
        return self.parts[0]


class Context:
    """State of one check.

    ``storage``: the device with all repairs. ``raw``: the primary superblock as it will be written; change it with
    ``set_superblock``. ``groups``: the descriptors, changed in place with ``groups_changed`` set.

    What pass 1 leaves: ``census`` (names are counted by pass 2 on), ``directory_blocks``, ``bad_inodes`` (to be judged when
    their name is known), ``indexed`` (directories with an index). Pass 2 leaves ``parent``, the directory that names each
    directory, and ``dotdot``, the inode in its ``..``. ``to_rebuild`` are directories for pass 3A.
    """

    def __init__(self, storage: RepairStorage, policy: Policy, report: Report, stamp: Stamp, options: CheckOptions) -> None:
        """Read the superblock, which must be one that can be parsed, and the descriptors."""
        self.storage = storage
        self.policy = policy
        self.report = report
        self.stamp = stamp
        self.options = options
        self.raw: bytearray
        self.superblock: Superblock
        self.groups: Table
        self.groups_changed = False
        self.reload()
        self.opening: list[Finding] = []
        """Faults of the superblock that were repaired in memory to open the filesystem; they are not decided on yet."""
        self.unusable = False
        """The superblock on storage was left as it is, and cannot be used: nothing of the context may be written."""
        self.unplaced: set[tuple[int, str]] = set()
        """(group, field) of descriptors whose place was cleared, since it was impossible."""
        self.valid_cleared = False
        """VALID was cleared, by this check, in a superblock that had it."""
        self.must_check = False
        """A full check is needed although the superblock says clean."""
        self.make_journal = False
        """The journal was dropped, and is made again after the passes."""
        self.rebuild_resize_inode = False
        self.write_backups = False
        self.progress: Callable[[int, int, int], None] | None = None
        """Called with (pass, done, total)."""
        self.begin_passes()

    def reload(self) -> None:
        """Read the superblock and the descriptors again, after they were changed on storage."""
        self.raw = bytearray(self.storage.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE))
        self.superblock = parse_superblock(bytes(self.raw), device_size=self.storage.size)
        self.groups = read_group_columns(self.storage, self.superblock).copy()
        self.groups_changed = False

    def begin_passes(self) -> None:
        """Forget what the passes found."""
        for name in ("census", "parent", "dotdot"):
            self.__dict__.pop(name, None)
        self.directory_blocks = DirectoryBlocks()
        self.bad_inodes: set[int] = set()
        self.indexed: set[int] = set()
        self.to_rebuild: set[int] = set()
        self.lost_and_found = 0
        self.attribute_blocks: dict[int, int] = {}
        """Attribute blocks and how many inodes refer to each, from pass 1."""
        self.corrected: dict[int, bytes] = {}
        """Corrected content of pointer and attribute blocks that something else uses too."""
        self.large_file = False
        """A regular file of 2 GiB or more was met."""
        self.allocated: set[int] = set()
        self.freed: set[int] = set()
        """Blocks that repairs allocated and freed: bitmaps and counts on storage do not have them yet, which is no fault."""
        self.inodes_allocated: set[int] = set()
        self.inodes_freed: set[int] = set()
        self.directories_changed: list[tuple[int, int]] = []
        """(inode, 1) of each directory that a repair made, (inode, -1) of each that one freed."""

    # By inode and by block: made when a pass first asks, as a filesystem that is only looked at may be huge

    @cached_property
    def census(self) -> Census:
        return Census(self.superblock)

    @cached_property
    def held(self) -> npt.NDArray[np.bool_]:
        """Blocks that repairs freed. They are not given out: until all is written, storage needs their content."""
        return np.zeros(self.superblock.blocks_count, np.bool_)

    @cached_property
    def parent(self) -> npt.NDArray[np.uint32]:
        return np.zeros(self.superblock.inodes_count + 1, np.uint32)

    @cached_property
    def dotdot(self) -> npt.NDArray[np.uint32]:
        return np.zeros(self.superblock.inodes_count + 1, np.uint32)

    # Problems

    def fix(self, problem: Problem, place: Place = NOWHERE, *, got: object = None, want: object = None) -> bool:
        """Report a problem and return whether to repair it. The caller makes the repair."""
        finding = Finding(problem, place, got, want)
        report = self.report
        if problem.note:
            report.add(finding)
            return True
        finding.repaired = self.policy.repairs(finding)
        report.add(finding)
        if finding.repaired and self.policy.writes:
            report.corrected += not problem.uncounted
        elif not problem.excused:
            report.left += 1
        return finding.repaired

    def leave(self, problem: Problem, place: Place = NOWHERE, *, got: object = None, want: object = None) -> None:
        """Report a problem whose repair is not possible; it is left."""
        self.report.add(Finding(problem, place, got, want))
        self.report.left += 1

    # Superblock and descriptors

    @property
    def now(self) -> int:
        """Seconds since 1970 that repairs are dated with."""
        return self.stamp.seconds & 0xFFFFFFFF

    @property
    def block_size(self) -> int:
        return self.superblock.block_size

    def field(self, name: str) -> int:
        """Return an integer field of the superblock."""
        return int(SUPERBLOCK.view(self.raw)[0][name])

    def set_superblock(self, **fields: object) -> None:
        """Change fields of the primary superblock."""
        row = SUPERBLOCK.view(self.raw)[0]
        for name, value in fields.items():
            row[name] = value
        self.storage.write(SUPERBLOCK_OFFSET, self.raw, Stage.MAPS)
        self.superblock = parse_superblock(bytes(self.raw), device_size=self.storage.size)

    def write_groups(self) -> None:
        """Write the descriptors that differ from those on storage."""
        self.groups_changed = False
        geometry = self.superblock.geometry
        raw = self.groups.tobytes()
        per_block = geometry.descriptors_per_block * GROUP_DESC.size
        for index in range(geometry.descriptor_blocks):
            block = geometry.descriptor_block(index)
            part = raw[index * per_block : (index + 1) * per_block]
            old = self.storage.read_block(block)
            if old[: len(part)] != part:
                self.storage.write_block(block, part + old[len(part) :], Stage.MAPS)

    # Inodes

    def inode_place(self, ino: int) -> int:
        """Return the byte where an inode's record begins."""
        return inode_offset(self.superblock, self.groups, ino)

    def read_inode(self, ino: int) -> bytes:
        """Return the record of an inode, inode size bytes."""
        return self.storage.read(self.inode_place(ino), self.superblock.inode_size)

    def write_inode(self, ino: int, raw: bytes) -> None:
        """Change the record of an inode."""
        self.storage.write(self.inode_place(ino), raw)

    def free_inode(self, ino: int) -> None:
        """Note that an inode in use is free now. Its record and blocks are the caller's."""
        census = self.census
        if census.is_dir(ino):
            self.directories_changed.append((ino, -1))
        census.mode[ino] = census.links[ino] = census.names[ino] = 0
        self.bad_inodes.discard(ino)
        if ino in self.inodes_allocated:
            self.inodes_allocated.discard(ino)
        else:
            self.inodes_freed.add(ino)

    def allocate_inode(self, mode: int) -> int:
        """Return a free inode, now in use with ``mode``. Raises GaveUp if there is none. Its record is the caller's."""
        free = np.flatnonzero(self.census.mode[self.superblock.first_ino :] == 0)
        if not len(free):
            raise GaveUp("no free inode for a repair")
        ino = int(free[0]) + self.superblock.first_ino
        self.note_inode(ino, mode)
        return ino

    def note_inode(self, ino: int, mode: int) -> None:
        """Note that a free inode is in use now, with ``mode``."""
        self.census.mode[ino] = mode
        if self.census.is_dir(ino):
            self.directories_changed.append((ino, 1))
        if ino in self.inodes_freed:
            self.inodes_freed.discard(ino)
        else:
            self.inodes_allocated.add(ino)

    # Blocks (edit.blocks.Blocks): after pass 1, which finds out what is in use

    def read(self, block: int) -> bytes:
        """Return a block with all repairs."""
        return self.storage.read_block(block)

    def write(self, block: int, data: bytes) -> None:
        """Change a whole block."""
        self.storage.write_block(block, data, Stage.NEW if block in self.allocated else Stage.FILES)

    def allocate(self, count: int, goal: int = 0) -> list[Run]:
        """Return runs of ``count`` free blocks, now in use, from ``goal`` on or else anywhere.

        Raises NoSpaceError, with none taken.
        """
        first = self.superblock.first_data_block
        runs: list[Run] = []
        left = count
        for low, high in ((max(goal, first), len(self.census.used)), (first, max(goal, first))):
            for start, length in _free_runs(self.census.used, self.held, low, high):
                runs.append((start, min(length, left)))
                left -= runs[-1][1]
                if not left:
                    break
            if not left:
                break
        if left:
            size = self.block_size
            raise NoSpaceError(
                f"a repair needs {count} free blocks", needed_bytes=count * size, available_bytes=(count - left) * size
            )
        for start, length in runs:
            self.census.used[start : start + length] = True
            self.allocated.update(range(start, start + length))
        return runs

    def allocate_block(self, goal: int = 0) -> int:
        """Return one free block as ``allocate`` does."""
        return self.allocate(1, goal)[0][0]

    def free(self, runs: Iterable[Run], *, metadata: bool = True) -> None:
        """Note that blocks in use by one owner are free now. A shared one loses an owner and stays in use."""
        census = self.census
        for start, length in runs:
            for block in range(start, start + length):
                if census.shared[block]:
                    continue
                census.used[block] = False
                self.held[block] = True
                if block in self.allocated:
                    self.allocated.discard(block)
                else:
                    self.freed.add(block)

    def reuse_freed(self) -> None:
        """Write the repairs out, so that the blocks they freed can be given out. See ``flush_if_large`` for when."""
        if self.policy.writes:
            self.storage.flush(final=False)
        self.held = np.zeros_like(self.held)

    def write_out(self) -> None:
        """Write what was repaired so far, so that the image itself can be worked on."""
        if self.storage.pending:
            state = self.superblock.state
            if self.must_check and state & STATE_VALID:
                state &= ~STATE_VALID
                self.valid_cleared = True
            self.set_superblock(s_state=state)
            self.storage.flush(final=True)

    def settle(self) -> None:
        """Note that bitmaps and counts have all that repairs allocated and freed. What comes after counts anew."""
        for changed in (self.allocated, self.freed, self.inodes_allocated, self.inodes_freed):
            changed.clear()
        self.directories_changed.clear()

    def flush_if_large(self) -> None:
        """Write the repairs out if they take much memory. Call it only where a second check could go on from."""
        if self.storage.large and self.policy.writes:
            self.reuse_freed()


def _free_runs(used: npt.NDArray[np.bool_], held: npt.NDArray[np.bool_], low: int, high: int) -> Iterator[Run]:
    """Yield the runs of free blocks in [low, high) that are not ``held``."""
    start, step = low, FIRST_WINDOW
    while start < high:
        end = min(start + step, high)
        part = ~(used[start:end] | held[start:end])
        edges = np.flatnonzero(np.diff(np.concatenate([[False], part, [False]]).astype(np.int8)))
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            yield start + first, last - first
        start, step = end, min(step * 4, LAST_WINDOW)
