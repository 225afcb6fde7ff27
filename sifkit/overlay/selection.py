"""What is to be taken out of an image: directories, parents first, and the names in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ext3.constants import FileType
from ext3.errors import CorruptError, Ext3Error, PathError, PathNotDirectoryError, PathNotFoundError
from ext3.progress import Progress
from ext3.read.filesystem import Entry, Filesystem

from .host_writer import Counts

__all__ = ["Directories", "Survey", "survey_paths"]

MOST_DEPTH = 4096
WAVE = 512
"""Directories read together at most, and the names after which no more are."""
MOST_NAMES = 16384
SHOWN_BYTES = 4096
"""A longer path, which no program takes, is told in part."""


class Directories:
    """Reads directories of an image that may lie. Each block belongs to one of them, or a few blocks that are used again and
    again would be millions of names."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem
        self._used = np.zeros(filesystem.superblock.blocks_count, np.bool_)  # memory is taken only for what is touched

    def read(self, ino: int, into: list[Entry]) -> None:
        """Append a directory's entries, as far as they can be read. Raises PathNotDirectoryError, CorruptError, DeviceError."""
        self._take(ino, [(start, count) for _, start, count in self._filesystem.data_extents(ino)])
        into.extend(self._filesystem.scandir(ino))

    def read_some(self, inos: Sequence[int]) -> list[tuple[list[Entry], Ext3Error | None]]:
        """The entries of the first of these directories, at least one, and why there may be more in it."""
        listed: list[tuple[list[Entry], Ext3Error | None]] = []
        names = MOST_NAMES
        for ino, found in zip(inos, self._filesystem.scandirs(inos, names), strict=False):
            entries: list[Entry] = []
            problem = None
            try:
                if found is None:
                    self.read(ino, entries)
                else:
                    self._take(ino, [(block, 1) for block in found.blocks])
                    entries = found.entries
            except Ext3Error as error:
                problem = error
            listed.append((entries, problem))
            names -= len(entries)
            if names <= 0:
                break
        return listed

    def _take(self, ino: int, runs: list[tuple[int, int]]) -> None:
        """These blocks are the directory's from now on."""
        for start, count in runs:
            used = self._used[start : start + count]
            if used.any():
                shared = start + int(used.argmax())
                raise CorruptError(f"directory inode {ino}", "block", shared, "one that no directory has already")
            used[:] = True


@dataclass(slots=True)
class Survey:
    """Directories (0 is the top; parents first) and the names in them that are something else."""

    names: list[bytes] = field(default_factory=lambda: [b""])
    parents: list[int] = field(default_factory=lambda: [0])
    inos: list[int] = field(default_factory=list)
    entry_directories: list[int] = field(default_factory=list)
    entry_names: list[bytes] = field(default_factory=list)
    entry_inos: list[int] = field(default_factory=list)

    depth: int = 0
    """How deep directories are nested; the top is not counted."""

    def path(self, directory: int, name: bytes = b"") -> bytes:
        parts = [name] if name else []
        size = len(name)
        while directory and size < SHOWN_BYTES:
            parts.append(self.names[directory])
            size += len(parts[-1]) + 1
            directory = self.parents[directory]
        return (b"..." if directory else b"") + b"/" + b"/".join(reversed(parts))


def survey_paths(
    filesystem: Filesystem, top: int, paths: Sequence[bytes], survey: Survey, counts: Counts, progress: Progress
) -> None:
    """Fill ``survey`` with ``paths`` below the directory inode ``top`` and all they hold; directories that cannot be read
    are told in ``counts``.

    Raises PathError for a path that is not there or leads through a symbolic link.
    """
    directories = Directories(filesystem)
    survey.inos.append(top)
    known: dict[tuple[int, bytes], int] = {}
    taken: set[tuple[int, bytes]] = set()
    seen = {top}
    starts: list[int] = []
    for path in paths:
        _select(filesystem, path, survey, known, taken, starts)
    if not paths:
        starts.append(0)
    seen.update(survey.inos)
    pending = [(index, 1) for index in starts][::-1]
    while pending:
        wave = [pending.pop() for _ in range(min(len(pending), WAVE))]
        listed = directories.read_some([survey.inos[index] for index, _ in wave])
        pending += reversed(wave[len(listed) :])
        below: list[tuple[int, int]] = []
        for (index, depth), (entries, problem) in zip(wave, listed, strict=False):
            survey.depth = max(survey.depth, depth)
            if problem is not None:
                counts.problem(survey.path(index), str(problem))
            progress.advance(len(entries))
            for entry in entries:
                if entry.file_type is not FileType.DIRECTORY:
                    if (index, entry.name) not in taken:
                        survey.entry_directories.append(index)
                        survey.entry_names.append(entry.name)
                        survey.entry_inos.append(entry.ino)
                    continue
                if (index, entry.name) in known:
                    if known[index, entry.name] not in starts:
                        below.append((known[index, entry.name], depth + 1))
                    continue
                if entry.ino in seen or depth >= MOST_DEPTH:
                    why = "nested too deep" if depth >= MOST_DEPTH else "the image is damaged: this directory is in it twice"
                    counts.problem(survey.path(index, entry.name), why)
                    continue
                seen.add(entry.ino)
                below.append((_add(survey, index, entry.name, entry.ino), depth + 1))
        pending += reversed(below)


def _add(survey: Survey, parent: int, name: bytes, ino: int) -> int:
    survey.names.append(name)
    survey.parents.append(parent)
    survey.inos.append(ino)
    return len(survey.names) - 1


def _select(
    filesystem: Filesystem,
    path: bytes,
    survey: Survey,
    known: dict[tuple[int, bytes], int],
    taken: set[tuple[int, bytes]],
    starts: list[int],
) -> None:
    """Add one path that was asked for, and the directories above it."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise PathError(path, ".. is not taken: write the path it leads to")
    index = 0
    for place, name in enumerate(parts):
        last = place == len(parts) - 1
        found = known.get((index, name))
        if found is None:
            entry = next((entry for entry in filesystem.scandir(survey.inos[index]) if entry.name == name), None)
            if entry is None:
                raise PathNotFoundError(path, "there is no such file in the image")
            if entry.file_type is not FileType.DIRECTORY:
                if not last or path.endswith(b"/"):
                    raise PathNotDirectoryError(path, "a part of the path is not a directory (links are not followed here)")
                if (index, name) not in taken:
                    taken.add((index, name))
                    survey.entry_directories.append(index)
                    survey.entry_names.append(name)
                    survey.entry_inos.append(entry.ino)
                return
            if entry.ino in survey.inos:
                raise CorruptError(f"directory inode {entry.ino}", "entries that lead to it", "two or more", 1)
            found = known[index, name] = _add(survey, index, name, entry.ino)
        index = found
    if index not in starts:
        starts.append(index)
