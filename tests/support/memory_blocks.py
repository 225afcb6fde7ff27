"""Blocks in memory, with what an edit may not do checked: free a block twice, write one that is not taken, take too many."""

from __future__ import annotations

from collections.abc import Iterable

from ext3.edit.blocks import Run
from ext3.errors import NoSpaceError

__all__ = ["MemoryBlocks"]


class MemoryBlocks:
    """A filesystem of blocks and nothing else. ``used`` are the blocks taken, ``gone`` those given back, with how."""

    def __init__(self, count: int, *, block_size: int = 1024, first: int = 1) -> None:
        self._block_size = block_size
        self.first = first
        self.end = first + count
        self.content: dict[int, bytes] = {}
        self.used: set[int] = set()
        self.gone: list[tuple[int, bool]] = []
        self.longest = count
        self.cursor = first

    @property
    def block_size(self) -> int:
        return self._block_size

    def read(self, block: int) -> bytes:
        assert self.first <= block < self.end
        return self.content.get(block) or bytes(self._block_size)

    def write(self, block: int, data: bytes) -> None:
        assert isinstance(data, bytes)
        assert len(data) == self._block_size
        assert block in self.used, f"write to block {block}, which is free"
        self.content[block] = data

    def allocate(self, count: int, goal: int) -> list[Run]:
        assert count > 0
        if count > self.end - self.first - len(self.used):
            raise NoSpaceError("full", needed_bytes=count * self._block_size, available_bytes=0)
        runs: list[Run] = []
        block = goal if self.first <= goal < self.end else self.cursor
        left = count
        while left:
            if block >= self.end:
                block = self.first
            start = block
            while block < self.end and left and block not in self.used and block - start < self.longest:
                self.used.add(block)
                block += 1
                left -= 1
            if block > start:
                runs.append((start, block - start))
                if self.longest < count:
                    block += 1
            else:
                block += 1
        self.cursor = block
        return runs

    def free(self, runs: Iterable[Run], *, metadata: bool) -> None:
        for first, count in runs:
            for block in range(first, first + count):
                self.used.remove(block)
                self.gone.append((block, metadata))
