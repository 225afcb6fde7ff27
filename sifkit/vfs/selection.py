"""Selection of files to extract from an image: directories, parents first, and the other files in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ext3.constants import FileType
from ext3.errors import CorruptError, Ext3Error, PathError, PathNotDirectoryError, PathNotFoundError
from ext3.progress import Progress
from ext3.read.filesystem import Entry, Filesystem

from .host_writer import ExtractResult

__all__ = ["ImageDirectoryReader", "Selection", "select_paths"]

MAX_DEPTH = 4096
BATCH_DIRECTORIES = 512
BATCH_NAMES = 16384
"""Limits of one read of several directories: it ends with the directory that exceeds BATCH_NAMES."""
MAX_SHOWN_BYTES = 4096
"""Longer paths, which no system call accepts, are shortened in messages."""


class ImageDirectoryReader:
    """Reader of the directories of an untrusted image, which rejects blocks shared by directories.

    Otherwise a few shared blocks could list millions of names.
    """

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem
        self._used = np.zeros(filesystem.superblock.blocks_count, np.bool_)  # untouched pages take no memory

    def read(self, ino: int, into: list[Entry]) -> None:
        """Append the readable entries of a directory to ``into``. Raises PathNotDirectoryError, CorruptError, DeviceError."""
        self._claim(ino, [(start, count) for _, start, count in self._filesystem.data_extents(ino)])
        into.extend(self._filesystem.scandir(ino))

    def read_many(self, inos: Sequence[int]) -> list[tuple[list[Entry], Ext3Error | None]]:
        """Read at least the first of these directories: for each its entries, and the error that cut them short."""
        listed: list[tuple[list[Entry], Ext3Error | None]] = []
        names = BATCH_NAMES
        for ino, found in zip(inos, self._filesystem.scandirs(inos, names), strict=False):
            entries: list[Entry] = []
            problem = None
            try:
                if found is None:
                    self.read(ino, entries)
                else:
                    self._claim(ino, [(block, 1) for block in found.blocks])
                    entries = found.entries
            except Ext3Error as error:
                problem = error
            listed.append((entries, problem))
            names -= len(entries)
            if names <= 0:
                break
        return listed

    def _claim(self, ino: int, runs: list[tuple[int, int]]) -> None:
        """Mark blocks as used by a directory. Raises CorruptError if another directory uses one."""
        for start, count in runs:
            used = self._used[start : start + count]
            if used.any():
                shared = start + int(used.argmax())
                raise CorruptError(f"directory inode {ino}", "block", shared, "one that no directory has already")
            used[:] = True


@dataclass(slots=True)
class Selection:
    """Directories (parents first, 0 is the top), and entries in them that are other files."""

    names: list[bytes] = field(default_factory=lambda: [b""])
    parents: list[int] = field(default_factory=lambda: [0])
    inos: list[int] = field(default_factory=list)
    entry_directories: list[int] = field(default_factory=list)
    entry_names: list[bytes] = field(default_factory=list)
    entry_inos: list[int] = field(default_factory=list)

    depth: int = 0
    """Levels of directories below the top."""

    def path(self, directory: int, name: bytes = b"") -> bytes:
        """Return the path of an entry from the top, for messages."""
        parts = [name] if name else []
        size = len(name)
        while directory and size < MAX_SHOWN_BYTES:
            parts.append(self.names[directory])
            size += len(parts[-1]) + 1
            directory = self.parents[directory]
        return (b"..." if directory else b"") + b"/" + b"/".join(reversed(parts))

    def location(self, entry: int) -> tuple[int, bytes]:
        """Return (directory, name) of an entry."""
        return self.entry_directories[entry], self.entry_names[entry]

    def entry_path(self, entry: int) -> bytes:
        return self.path(*self.location(entry))


def select_paths(
    filesystem: Filesystem, top: int, paths: Sequence[bytes], result: ExtractResult, progress: Progress
) -> Selection:
    """Select ``paths`` below the directory inode ``top`` and everything in them; without ``paths`` everything.

    Directories that cannot be read are problems of ``result``. Raises PathError for a path that does not exist or leads
    through a symlink.
    """
    selection = Selection()
    reader = ImageDirectoryReader(filesystem)
    selection.inos.append(top)
    known: dict[tuple[int, bytes], int] = {}
    selected: set[tuple[int, bytes]] = set()
    seen = {top}
    starts: list[int] = []
    for path in paths:
        _add_path(filesystem, path, selection, known, selected, starts)
    if not paths:
        starts.append(0)
    seen.update(selection.inos)
    pending = [(index, 1) for index in starts][::-1]
    while pending:
        batch = [pending.pop() for _ in range(min(len(pending), BATCH_DIRECTORIES))]
        listed = reader.read_many([selection.inos[index] for index, _ in batch])
        pending += reversed(batch[len(listed) :])
        below: list[tuple[int, int]] = []
        for (index, depth), (entries, problem) in zip(batch, listed, strict=False):
            selection.depth = max(selection.depth, depth)
            if problem is not None:
                result.add_problem(selection.path(index), str(problem))
            progress.advance(len(entries))
            for entry in entries:
                if entry.file_type is not FileType.DIRECTORY:
                    if (index, entry.name) not in selected:
                        selection.entry_directories.append(index)
                        selection.entry_names.append(entry.name)
                        selection.entry_inos.append(entry.ino)
                    continue
                if (index, entry.name) in known:
                    if known[index, entry.name] not in starts:
                        below.append((known[index, entry.name], depth + 1))
                    continue
                if entry.ino in seen or depth >= MAX_DEPTH:
                    reason = "nested too deep" if depth >= MAX_DEPTH else "the image is damaged: this directory is in it twice"
                    result.add_problem(selection.path(index, entry.name), reason)
                    continue
                seen.add(entry.ino)
                below.append((_add_directory(selection, index, entry.name, entry.ino), depth + 1))
        pending += reversed(below)
    return selection


def _add_directory(selection: Selection, parent: int, name: bytes, ino: int) -> int:
    selection.names.append(name)
    selection.parents.append(parent)
    selection.inos.append(ino)
    return len(selection.names) - 1


def _add_path(
    filesystem: Filesystem,
    path: bytes,
    selection: Selection,
    known: dict[tuple[int, bytes], int],
    selected: set[tuple[int, bytes]],
    starts: list[int],
) -> None:
    """Add one path, and the directories above it."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise PathError(path, ".. is not supported: write the path it leads to")
    index = 0
    for position, name in enumerate(parts):
        last = position == len(parts) - 1
        found = known.get((index, name))
        if found is None:
            entry = next((entry for entry in filesystem.scandir(selection.inos[index]) if entry.name == name), None)
            if entry is None:
                raise PathNotFoundError(path, "no such file in the image")
            if entry.file_type is not FileType.DIRECTORY:
                if not last or path.endswith(b"/"):
                    raise PathNotDirectoryError(path, "a component is not a directory (symbolic links are not followed here)")
                if (index, name) not in selected:
                    selected.add((index, name))
                    selection.entry_directories.append(index)
                    selection.entry_names.append(name)
                    selection.entry_inos.append(entry.ino)
                return
            if entry.ino in selection.inos:
                raise CorruptError(f"directory inode {entry.ino}", "entries that lead to it", "two or more", 1)
            found = known[index, name] = _add_directory(selection, index, name, entry.ino)
        index = found
    if index not in starts:
        starts.append(index)
