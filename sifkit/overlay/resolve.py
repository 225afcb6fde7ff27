"""Where paths lead in a filesystem: from its root, or from ``upper/`` with what overlay filesystems hide left out."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ext3.constants import NAME_MAX, ROOT_INO, FileType
from ext3.errors import CorruptError, Ext3Error, PathError, PathNotDirectoryError, PathNotFoundError
from ext3.read.filesystem import Entry, Filesystem, Stat
from ext3.read.path_walk import MAX_COMPONENTS, MAX_SYMLINKS

from .whiteouts import is_mark, is_whiteout, mark_of, visible

__all__ = ["Named", "Spot", "Tracer", "upper_of", "walk"]

DOTS = (b".", b"..")


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a path leads: the directory ``parent``, the ``name`` in it, and the inode there (None: nothing).

    ``way``: the directories from the top down to ``parent``. The top itself has the name b"". ``marks``: names in ``parent``
    that hide this one from containers. ``covered``: the inode of a file that is there and hidden by another name.
    """

    path: bytes
    parent: int
    name: bytes
    ino: int | None
    way: tuple[int, ...]
    marks: tuple[bytes, ...] = ()
    covered: int | None = None

    @property
    def place(self) -> tuple[int, bytes]:
        return self.parent, self.name

    @property
    def shown(self) -> bytes:
        """The name to give a copy: that of the path as it was written."""
        return self.path.rstrip(b"/").rpartition(b"/")[2]

    @property
    def whiteout(self) -> bool:
        """The name is taken by a whiteout."""
        return bool(self.marks)


def upper_of(filesystem: Filesystem) -> int | None:
    """The inode of upper/, None where the image has none."""
    try:
        ino = filesystem.lookup(b"/upper", follow=False)
    except PathError:
        return None
    return ino if filesystem.stat(ino).is_dir else None


class Tracer:
    """Finds places in a filesystem whose paths start at its root, or with ``upper`` at upper/; neither links nor ``..`` lead
    above that. ``hides``: what a container does not see is not there (default: with ``upper``)."""

    def __init__(self, filesystem: Filesystem, *, upper: bool = False, hides: bool | None = None) -> None:
        """Raises PathNotFoundError for ``upper`` without upper/."""
        self.reads = filesystem
        self.upper = upper
        self.hides = upper if hides is None else hides
        found = upper_of(filesystem) if upper else ROOT_INO
        if found is None:
            raise PathNotFoundError(b"/upper", "the image has no upper/")
        self.root = found

    def find(self, directory: int, name: bytes) -> int | None:
        """The inode of a name, hidden or not."""
        return self.reads.find_name(directory, name)

    def stat(self, ino: int) -> Stat:
        return self.reads.stat(ino)

    def spot(self, path: bytes, *, follow: bool) -> Spot:
        """Where ``path`` leads; its last name may be missing. ``follow``: through a link at the end, too.

        Raises PathNotFoundError and PathNotDirectoryError for the directories on the way, PathError (ELOOP, ENAMETOOLONG).
        """
        if not path:
            raise PathNotFoundError(path, "No such file or directory")
        pending = [name for name in path.split(b"/") if name][::-1]
        must_be_directory = path.endswith((b"/", b"/.", b"/.."))
        follow = follow or must_be_directory
        way: list[tuple[int, bytes]] = [(self.root, b"")]
        links = steps = 0
        while pending:
            name = pending.pop()
            steps += 1
            if steps + len(pending) > MAX_COMPONENTS or len(name) > NAME_MAX:
                raise PathError(path, "File name too long", code=errno.ENAMETOOLONG)
            above = way[-1][0]
            if not self.stat(above).is_dir:
                raise PathNotDirectoryError(path, "Not a directory")
            if name == b"..":
                del way[max(1, len(way) - 1) :]
            if name in DOTS:
                continue
            found = self._in(path, above, name, tuple(step[0] for step in way))
            if found.ino is None:
                if [part for part in pending if part != b"."]:
                    raise PathNotFoundError(path, "No such file or directory")
                return found
            if self.stat(found.ino).is_symlink and (pending or follow):
                links += 1
                if links > MAX_SYMLINKS:
                    raise PathError(path, "Too many levels of symbolic links", code=errno.ELOOP)
                target = self.reads.readlink(found.ino)
                if target.startswith(b"/"):
                    del way[1:]
                pending += [part for part in target.split(b"/") if part][::-1]
                continue
            way.append((found.ino, name))
        ino, name = way[-1]
        if must_be_directory and not self.stat(ino).is_dir:
            raise PathNotDirectoryError(path, "Not a directory")
        trail = tuple(step[0] for step in way[:-1])
        return Spot(path, trail[-1] if trail else ino, name, ino, trail or (ino,))

    def _in(self, path: bytes, directory: int, name: bytes, way: tuple[int, ...]) -> Spot:
        """A name in a directory."""
        ino = self.find(directory, name)
        if not self.hides:
            return Spot(path, directory, name, ino, way)
        if is_mark(name):
            return Spot(path, directory, name, None, way, covered=ino)
        marks: list[bytes] = []
        if ino is not None and is_whiteout(self.stat(ino)):
            ino = None
            marks.append(name)
        mark = mark_of(name)
        covered = None
        if mark is not None and self.find(directory, mark) is not None:
            ino, covered = None, ino
            marks.append(mark)
        return Spot(path, directory, name, ino, way, tuple(marks), covered)

    def below(self, spot: Spot, name: bytes) -> Spot:
        """The place of a name in the directory that is at ``spot``."""
        assert spot.ino is not None
        way = spot.way if spot.name == b"" else (*spot.way, spot.ino)
        return self._in(spot.path.rstrip(b"/") + b"/" + name, spot.ino, name, way)

    def look(self, directory: int, name: bytes) -> int | None:
        """The inode of a name, None where nothing is seen."""
        return self._in(name, directory, name, ()).ino if self.hides else self.find(directory, name)

    def existing(self, path: bytes, *, follow: bool) -> int:
        """The inode of ``path``. Raises as ``spot`` does, and PathNotFoundError where nothing is."""
        found = self.spot(path, follow=follow).ino
        if found is None:
            raise PathNotFoundError(path, "No such file or directory")
        return found

    def entries(self, directory: int, problems: list[Exception] | None = None) -> list[Entry]:
        """What is in a directory, in byte order. What cannot be read is in ``problems``, and without them raises."""
        found: list[Entry] = []
        try:
            found.extend(self.reads.scandir(directory))
        except Ext3Error as error:  # what was read before a damaged block is worth showing
            if problems is None:
                raise
            problems.append(error)
        return sorted(visible(self.reads, found) if self.hides else found)

    def entries_of(self, directories: Sequence[int], most_names: int) -> list[tuple[list[Entry], Ext3Error | None]]:
        """``entries`` of the first of these directories, read together; and why there may be more in it. At least one, then no
        more once they have ``most_names``."""
        listed: list[tuple[list[Entry], Ext3Error | None]] = []
        for directory, found in zip(directories, self.reads.scandirs(directories, most_names), strict=False):
            if found is None:
                problems: list[Exception] = []
                entries = self.entries(directory, problems)
                listed.append((entries, next((one for one in problems if isinstance(one, Ext3Error)), None)))
            else:
                listed.append((sorted(visible(self.reads, found.entries) if self.hides else found.entries), None))
            most_names -= len(listed[-1][0])
            if most_names <= 0:
                break
        return listed

    def walk(self, directory: int, path: bytes = b"", problems: list[Exception] | None = None) -> Iterator[tuple[bytes, Entry]]:
        """Everything below a directory, parents first, in byte order: (path, entry).

        What cannot be read is in ``problems``, and without them raises: CorruptError for a directory that is met twice.
        """
        return walk(directory, path, lambda ino: self.entries(ino, problems), problems)


class Named(Protocol):
    """An entry of a directory."""

    @property
    def name(self) -> bytes: ...

    @property
    def ino(self) -> int: ...

    @property
    def file_type(self) -> FileType: ...


T = TypeVar("T", bound=Named)


def walk(
    directory: int, path: bytes, entries_of: Callable[[int], Iterable[T]], problems: list[Exception] | None
) -> Iterator[tuple[bytes, T]]:
    """Everything below a directory, parents first: (path, entry). CorruptError for a directory that is met twice is in
    ``problems``, and without them raised."""
    seen = {directory}
    pending = [(path, iter(entries_of(directory)))]
    while pending:
        prefix, entries = pending[-1]
        for entry in entries:
            name = prefix + entry.name
            yield name, entry
            if entry.file_type is not FileType.DIRECTORY:
                continue
            if entry.ino in seen or len(pending) >= MAX_COMPONENTS:
                error = CorruptError(f"directory inode {entry.ino}", "entries that lead to it", "two or more", 1)
                if problems is None:
                    raise error
                problems.append(error)
                continue
            seen.add(entry.ino)
            pending.append((name + b"/", iter(entries_of(entry.ino))))
            break
        else:
            pending.pop()
