"""What is to be taken out of an image: directories, parents first, and the names in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .build.progress import Progress
from .constants import FileType
from .errors import CorruptError, Ext3Error, PathError, PathNotDirectoryError, PathNotFoundError
from .filesystem import Filesystem
from .hosttree import Counts

__all__ = ["Survey", "survey_paths"]

MOST_DEPTH = 4096
ENTRY_BYTES = 12
"""The least a directory entry takes."""


@dataclass(slots=True)
class Survey:
    """Directories (0 is the top; parents first) and the names in them that are something else."""

    names: list[bytes] = field(default_factory=lambda: [b""])
    parents: list[int] = field(default_factory=lambda: [0])
    inos: list[int] = field(default_factory=list)
    entry_directories: list[int] = field(default_factory=list)
    entry_names: list[bytes] = field(default_factory=list)
    entry_inos: list[int] = field(default_factory=list)

    def path(self, directory: int, name: bytes = b"") -> bytes:
        parts = [name] if name else []
        while directory:
            parts.append(self.names[directory])
            directory = self.parents[directory]
        return b"/" + b"/".join(reversed(parts))


def survey_paths(
    filesystem: Filesystem, top: int, paths: Sequence[bytes], survey: Survey, counts: Counts, progress: Progress
) -> None:
    """Fill ``survey`` with ``paths`` below the directory inode ``top`` and all they hold; directories that cannot be read
    are told in ``counts``.

    Raises PathError for a path that is not there or leads through a symbolic link, CorruptError for more entries than the
    image has room for.
    """
    room = filesystem.superblock.blocks_count * filesystem.superblock.block_size // ENTRY_BYTES
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
        index, depth = pending.pop()
        try:
            entries = list(filesystem.scandir(survey.inos[index]))
        except Ext3Error as error:
            counts.problem(survey.path(index), str(error))
            continue
        progress.advance(len(entries))
        room -= len(entries)
        if room < 0:
            raise CorruptError("directories", "entries", "more than the image has room for", "blocks that are used once")
        below = []
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
