"""MemoryTree: a small FileTree in memory, for tests of everything that reads a tree."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from sifkit.vfs.file_tree import TreeFile, TreeListing, TreeRow, TreeStat, TreeStatFS, file_type_of

__all__ = ["MemoryFile", "MemoryNode", "MemoryTree"]

BLOCK = 4096


@dataclass
class MemoryNode:
    """File: mode with format, content or link target, and the entries of a directory by name."""

    mode: int
    content: bytes = b""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    device: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    entries: dict[bytes, int] = field(default_factory=dict)


class MemoryFile:
    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        return len(self._content)

    def read_at(self, offset: int, size: int, /) -> bytes:
        return self._content[offset : offset + size]

    def data_ranges(self) -> list[tuple[int, int]]:
        """Blocks that are all zeros are holes."""
        ranges: list[tuple[int, int]] = []
        for start in range(0, len(self._content), BLOCK):
            block = self._content[start : start + BLOCK]
            if block.strip(b"\0"):
                first = ranges.pop()[0] if ranges and sum(ranges[-1]) == start else start
                ranges.append((first, start + len(block) - first))
        return ranges

    def host_ranges(self) -> None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        pass


class MemoryTree:
    """Tree of nodes numbered from 0, the root. ``add`` makes a file; the same number under two names is a hard link."""

    def __init__(self) -> None:
        self.nodes: list[MemoryNode] = [MemoryNode(0o040755)]
        self.total_bytes = 1 << 30
        self.data_limit: int | None = None

    def add(self, path: bytes, node: MemoryNode | int) -> int:
        """Add a file at ``path``; its directory exists. Return its number."""
        above, _, name = path.strip(b"/").rpartition(b"/")
        directory = 0
        for part in above.split(b"/") if above else ():
            directory = self.nodes[directory].entries[part]
        if isinstance(node, MemoryNode):
            self.nodes.append(node)
            node = len(self.nodes) - 1
        self.nodes[directory].entries[name] = node
        return node

    @property
    def root(self) -> int:
        return 0

    def stat(self, node: int, /) -> TreeStat:
        found = self.nodes[node]
        is_dir = stat.S_ISDIR(found.mode)
        names = [number for one in self.nodes for number in one.entries.values()]
        links = 2 + sum(stat.S_ISDIR(self.nodes[one].mode) for one in found.entries.values()) if is_dir else names.count(node)
        size = BLOCK if is_dir else len(found.content)
        blocks = -(-size // BLOCK) * (BLOCK // 512)
        times = (found.mtime,) * 3
        return TreeStat(node + 1, 0, found.mode, found.uid, found.gid, size, links, blocks, *times, *found.device)

    def find_name(self, directory: int, name: bytes, /) -> int | None:
        return self._directory(directory).entries.get(name)

    def scan_many(self, directories: Sequence[int], /, *, stats: bool = True) -> Iterator[TreeListing[int]]:
        for directory in directories:
            try:
                entries = sorted(self._directory(directory).entries.items())
            except OSError as error:
                yield TreeListing(directory, [], error, 0)
                continue
            rows = [
                TreeRow(
                    name, node, file_type_of(self.nodes[node].mode), self.stat(node) if stats else None, bool(self.xattrs(node))
                )
                for name, node in entries
            ]
            yield TreeListing(directory, rows, None, BLOCK)

    def load_many(self, nodes: Sequence[int], /, *, keep_order: bool = True, limit: int = 1 << 16) -> Iterator[TreeFile[int]]:
        order = list(enumerate(nodes))
        for position, node in order if keep_order else sorted(order, key=lambda pair: pair[1]):
            found = self.nodes[node]
            whole = sum(length for _, length in MemoryFile(found.content).data_ranges()) == len(found.content)
            small = stat.S_ISREG(found.mode) and whole and len(found.content) <= limit
            yield TreeFile(position, node, self.stat(node), found.xattrs, found.content if small else None)

    def readlink(self, node: int, /) -> bytes:
        if not stat.S_ISLNK(self.nodes[node].mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self.nodes[node].content

    def xattrs(self, node: int, /) -> Mapping[bytes, bytes]:
        return self.nodes[node].xattrs

    def open_file(self, node: int, /) -> MemoryFile:
        if not stat.S_ISREG(self.nodes[node].mode):
            number = errno.EISDIR if stat.S_ISDIR(self.nodes[node].mode) else errno.EINVAL
            raise OSError(number, os.strerror(number))
        return MemoryFile(self.nodes[node].content)

    def statfs(self) -> TreeStatFS:
        count = len(self.nodes)
        return TreeStatFS(self.total_bytes, 0, 0, count, 0, self.data_limit)

    def _directory(self, node: int) -> MemoryNode:
        if not stat.S_ISDIR(self.nodes[node].mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return self.nodes[node]
