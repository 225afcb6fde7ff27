"""Allocators of blocks and inodes, over bitmaps loaded group by group. They never touch a device.

The policy is the kernel's: blocks at the goal, else behind it in its group, else in other groups; directories
spread over the groups with more free than average, files go beside their directory. Blocks reserved for root
(s_r_blocks_count) are allocated like all others: whoever edits an image owns it. Source of the policy: Linux
``fs/ext4/balloc.c``, ``fs/ext4/ialloc.c`` (find_group_orlov, find_group_other).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from ..errors import CorruptError, NoFreeInodesError, NoSpaceError
from ..format.bitmap import FREE, HELD, USED, GroupBitmap

__all__ = ["BlockAllocator", "InodeAllocator", "Run"]

Run = tuple[int, int]
"""(first block, count)."""

Load = Callable[[int], GroupBitmap]
"""Loads the bitmap of a group, checked."""

DIRS_MAX = 0xFFFF
"""Largest value of bg_used_dirs_count."""
NEAR_GROUPS = 16
"""Groups searched for a whole run before pieces are taken."""


class BlockAllocator:
    """Allocator of blocks ``first`` to ``end`` - 1 in groups of ``per_group``; ``free_counts`` are the descriptors' counts.

    Freed blocks are held: they count as free, but are not allocated before ``release``. ``dirty`` are the groups that
    changed, in the order of their first change.
    """

    def __init__(self, *, first: int, end: int, per_group: int, free_counts: list[int], load: Load) -> None:
        self.first = first
        self.end = end
        self.per_group = per_group
        self.free_counts = free_counts
        self.dirty: dict[int, None] = {}
        self.held: dict[int, int] = {}
        self.total_free = sum(free_counts)
        self.total_held = 0
        self._load = load
        self._bitmaps: dict[int, GroupBitmap] = {}

    @property
    def available(self) -> int:
        """Blocks that can be allocated now."""
        return self.total_free - self.total_held

    def bitmap(self, group: int) -> GroupBitmap:
        """Return the bitmap of a group. Raises CorruptError if it disagrees with the group descriptor."""
        found = self._bitmaps.get(group)
        if found is None:
            found = self._load(group)
            if found.free != self.free_counts[group]:
                raise CorruptError(f"group {group}", "bg_free_blocks_count", self.free_counts[group], found.free)
            self._bitmaps[group] = found
        return found

    def allocate(self, count: int, goal: int) -> list[Run]:
        """Allocate ``count`` blocks near ``goal`` in as few runs as possible. Raises NoSpaceError, with none allocated."""
        if count <= 0:
            return []
        if count > self.available:
            raise NoSpaceError(
                f"no space left in the image: blocks needed {count:,}, free {self.available:,}",
                needed_bytes=0,
                available_bytes=0,
                hint="remove files, or make the image larger",
            )
        goal = goal if self.first <= goal < self.end else self.first
        group, index = divmod(goal - self.first, self.per_group)
        runs: list[Run] = []
        need = count
        try:
            if self._free_now(group):
                run = self.bitmap(group).free_run(index, need)
                if run:
                    self._take(group, index, run, runs)
                    need -= run
                    index += run
                if need:
                    need = self._whole_run(group, index, need, runs)
            if need:
                need = self._elsewhere(group, need, runs)
        except CorruptError:
            self.undo_allocate(runs)
            raise
        if need:
            self.undo_allocate(runs)
            raise CorruptError("superblock", "free blocks", self.available, count - need)
        return runs

    def _free_now(self, group: int) -> int:
        return self.free_counts[group] - self.held.get(group, 0)

    def _whole_run(self, group: int, start: int, need: int, runs: list[Run]) -> int:
        """Allocate ``need`` blocks as one run of the group if it has one. Return the number still needed."""
        if self._free_now(group) < need:
            return need
        at = self.bitmap(group).find(need, start)
        if at < 0:
            return need
        self._take(group, at, need, runs)
        return 0

    def _elsewhere(self, group: int, need: int, runs: list[Run]) -> int:
        for other in islice(self._having(group), NEAR_GROUPS):
            need = self._whole_run(other, 0, need, runs)
            if not need:
                return 0
        having = self._having(group)
        while need and (groups := list(islice(having, NEAR_GROUPS))):
            need = self._pieces(groups, need, runs)
        return need

    def _having(self, group: int) -> Iterator[int]:
        """Yield the groups with blocks that can be allocated now, from ``group`` on and then from 0."""
        free, held = self.free_counts, self.held
        for other in _cycle(group, len(free)):
            if free[other] and free[other] > held.get(other, 0):
                yield other

    def _pieces(self, groups: list[int], need: int, runs: list[Run]) -> int:
        """Allocate the longest runs of the groups, in ascending order. Return the number still needed."""
        pieces = [(group, index, length) for group in groups for index, length in self.bitmap(group).free_runs()]
        longest = sorted(range(len(pieces)), key=lambda at: -pieces[at][2])
        chosen = []
        left = need
        for at in longest:
            if left <= 0:
                break
            chosen.append(at)
            left -= pieces[at][2]
        for at in sorted(chosen):
            group, index, length = pieces[at]
            count = min(length, need)
            self._take(group, index, count, runs)
            need -= count
        return need

    def _take(self, group: int, index: int, count: int, runs: list[Run]) -> None:
        self.bitmap(group).change(index, count, FREE, USED)
        self.free_counts[group] -= count
        self.total_free -= count
        self.dirty[group] = None
        block = self.first + group * self.per_group + index
        if runs and runs[-1][0] + runs[-1][1] == block:
            runs[-1] = (runs[-1][0], runs[-1][1] + count)
        else:
            runs.append((block, count))

    def _parts(self, runs: Iterable[Run]) -> Iterable[tuple[int, int, int]]:
        """Yield (group, index, count) of runs, split at group boundaries."""
        for block, count in runs:
            if count <= 0 or block < self.first or block + count > self.end:
                raise CorruptError("blocks to give back", "block", block, f"from {self.first} to {self.end - 1}")
            start, left = block - self.first, count
            while left:
                group, index = divmod(start, self.per_group)
                part = min(left, self.per_group - index)
                yield group, index, part
                start += part
                left -= part

    def _change(self, runs: Iterable[Run], before: int, after: int, *, free: int, held: int) -> None:
        """Change all blocks of ``runs`` from ``before`` to ``after``, or none if one is not ``before``.

        The counts change by ``free`` and ``held`` per block.
        """
        done: list[tuple[int, int, int]] = []
        try:
            for part in self._parts(runs):
                group, index, count = part
                self.bitmap(group).change(index, count, before, after)
                done.append(part)
        except CorruptError:
            for group, index, count in done:
                self.bitmap(group).change(index, count, after, before)
            raise
        for group, _, count in done:
            self.free_counts[group] += free * count
            self.total_free += free * count
            self.dirty[group] = None
            if held:
                self.held[group] = self.held.get(group, 0) + held * count
                self.total_held += held * count

    def free(self, runs: Iterable[Run]) -> None:
        """Free blocks. Raises CorruptError, with nothing changed, if one was not in use."""
        self._change(runs, USED, HELD, free=1, held=1)

    def undo_free(self, runs: Iterable[Run]) -> None:
        self._change(runs, HELD, USED, free=-1, held=-1)

    def undo_allocate(self, runs: Iterable[Run]) -> None:
        self._change(runs, USED, FREE, free=1, held=0)

    def release(self) -> None:
        """Let freed blocks be allocated again: the transaction that freed them is committed."""
        for group in self.held:
            self.bitmap(group).release()
        self.held.clear()
        self.total_held = 0


class InodeAllocator:
    """Allocator of inodes in groups of ``per_group``, from ``first_ino`` on. The lists are the descriptors' counts."""

    def __init__(
        self, *, per_group: int, first_ino: int, free_counts: list[int], dirs: list[int], blocks: BlockAllocator, load: Load
    ) -> None:
        self.per_group = per_group
        self.first_ino = first_ino
        self.free_counts = free_counts
        self.dirs = dirs
        self.dirty: dict[int, None] = {}
        self.total_free = sum(free_counts)
        self.total_dirs = sum(dirs)
        self._blocks = blocks
        self._load = load
        self._bitmaps: dict[int, GroupBitmap] = {}

    def bitmap(self, group: int) -> GroupBitmap:
        found = self._bitmaps.get(group)
        if found is None:
            found = self._load(group)
            if found.free != self.free_counts[group]:
                raise CorruptError(f"group {group}", "bg_free_inodes_count", self.free_counts[group], found.free)
            self._bitmaps[group] = found
        return found

    def allocate(self, parent: int, *, is_dir: bool, top_level: bool) -> int:
        """Allocate an inode for a child of directory ``parent`` (``top_level``: of the root). Raises NoFreeInodesError."""
        groups = len(self.free_counts)
        if self.total_free:
            own = (parent - 1) // self.per_group
            group = self._for_directory(own, top_level) if is_dir else self._for_file(own)
            for step in range(groups):
                candidate = (group + step) % groups
                if not self.free_counts[candidate]:
                    continue
                start = self.first_ino - 1 if candidate == 0 else 0
                index = self.bitmap(candidate).cells.find(FREE, start)
                if index >= 0:
                    ino = candidate * self.per_group + index + 1
                    self._change(ino, FREE, USED, is_dir=is_dir, free=-1)
                    return ino
        raise NoFreeInodesError(groups * self.per_group)

    def _for_file(self, own: int) -> int:
        if self.free_counts[own] and self._blocks.free_counts[own]:
            return own
        groups = len(self.free_counts)
        step, candidate = 1, own
        while step < groups:
            candidate = (candidate + step) % groups
            if self.free_counts[candidate] and self._blocks.free_counts[candidate]:
                return candidate
            step *= 2
        return own

    def _for_directory(self, own: int, top_level: bool) -> int:
        groups = len(self.free_counts)
        inodes, blocks, dirs = self.free_counts, self._blocks.free_counts, self.dirs
        mean_inodes, mean_blocks = self.total_free // groups, self._blocks.total_free // groups
        least_inodes = max(1, mean_inodes)
        if top_level:
            good = [group for group in range(groups) if inodes[group] >= least_inodes and blocks[group] >= mean_blocks]
            if good:
                return min(good, key=dirs.__getitem__)
        some_inodes = max(1, mean_inodes - self.per_group // 4)
        some_blocks = mean_blocks - self._blocks.per_group // 4
        most_dirs = self.total_dirs // groups + self.per_group // 16
        for group in _cycle(own, groups):
            if inodes[group] >= some_inodes and blocks[group] >= some_blocks and dirs[group] <= most_dirs:
                return group
        for least in (least_inodes, 1):
            for group in _cycle(own, groups):
                if inodes[group] >= least:
                    return group
        return own

    def free(self, ino: int, *, is_dir: bool) -> None:
        """Free an inode. Raises CorruptError if it was not in use."""
        self._change(ino, USED, FREE, is_dir=is_dir, free=1)

    def undo_allocate(self, ino: int, is_dir: bool) -> None:
        self._change(ino, USED, FREE, is_dir=is_dir, free=1)

    def undo_free(self, ino: int, is_dir: bool) -> None:
        self._change(ino, FREE, USED, is_dir=is_dir, free=-1)

    def _change(self, ino: int, before: int, after: int, *, is_dir: bool, free: int) -> None:
        group, index = divmod(ino - 1, self.per_group)
        if not 0 <= group < len(self.free_counts) or (group == 0 and index < self.first_ino - 1):
            raise CorruptError("inode to change", "number", ino, f"from {self.first_ino} on")
        self.bitmap(group).change(index, 1, before, after)
        self.free_counts[group] += free
        self.total_free += free
        if is_dir:
            # A count that was wrong before must stay within 16 bits.
            dirs = min(max(0, self.dirs[group] - free), DIRS_MAX)
            self.total_dirs += dirs - self.dirs[group]
            self.dirs[group] = dirs
        self.dirty[group] = None


def _cycle(first: int, count: int) -> Iterable[int]:
    """Return the numbers from ``first`` to ``count`` - 1, then those from 0."""
    return chain(range(first, count), range(first))
