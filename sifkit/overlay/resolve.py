"""Path resolution: components, symlinks and ``..`` below the root or ``upper/``, with whited-out names left out on request."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ext3.constants import NAME_MAX, ROOT_INO, FileType
from ext3.errors import CorruptError, Ext3Error, PathError, PathNotDirectoryError, PathNotFoundError
from ext3.read.filesystem import Entry, Filesystem, Stat
from ext3.read.path_walk import MAX_COMPONENTS, MAX_SYMLINKS

from .whiteouts import has_whiteout_prefix, is_whiteout, whiteout_name, without_whiteouts

__all__ = ["DirectoryEntry", "ResolvedPath", "Resolver", "find_upper", "walk"]

DOTS = (b".", b"..")


@dataclass(frozen=True, slots=True)
class ResolvedPath:
    """Result of resolving ``path``: the directory ``parent``, the ``name`` in it and its inode ``ino`` (None: no such file).

    ``ancestors``: the directories from the top down to ``parent``. The top itself has the name b"". ``whiteouts``: names in
    ``parent`` that hide this one. ``hidden_ino``: the inode of a file that exists and is hidden by another name.
    """

    path: bytes
    parent: int
    name: bytes
    ino: int | None
    ancestors: tuple[int, ...]
    whiteouts: tuple[bytes, ...] = ()
    hidden_ino: int | None = None

    @property
    def location(self) -> tuple[int, bytes]:
        """(parent, name)."""
        return self.parent, self.name


def find_upper(filesystem: Filesystem) -> int | None:
    """Return the inode of upper/, None if the image has none."""
    try:
        ino = filesystem.lookup(b"/upper", follow=False)
    except PathError:
        return None
    return ino if filesystem.stat(ino).is_dir else None


class Resolver:
    """Path resolver of one filesystem. Paths start at its root, or with ``upper`` at upper/.

    Neither symlinks nor ``..`` lead above that. With ``hide_whiteouts`` (default: as ``upper``) whiteouts and the names they
    hide are treated as missing.
    """

    def __init__(self, filesystem: Filesystem, *, upper: bool = False, hide_whiteouts: bool | None = None) -> None:
        """Raises PathNotFoundError for ``upper`` without upper/."""
        self.filesystem = filesystem
        self.upper = upper
        self.hide_whiteouts = upper if hide_whiteouts is None else hide_whiteouts
        root = find_upper(filesystem) if upper else ROOT_INO
        if root is None:
            raise PathNotFoundError(b"/upper", "the image has no upper/")
        self.root = root

    def find_name(self, directory: int, name: bytes) -> int | None:
        """Return the inode of a name, hidden or not."""
        return self.filesystem.find_name(directory, name)

    def stat(self, ino: int) -> Stat:
        return self.filesystem.stat(ino)

    def resolve(self, path: bytes, *, follow: bool) -> ResolvedPath:
        """Resolve ``path``; its last component may be missing. ``follow``: also follow a symlink in the last component.

        Raises PathNotFoundError and PathNotDirectoryError for the directories on the way, PathError (ELOOP, ENAMETOOLONG).
        """
        if not path:
            raise PathNotFoundError(path, "No such file or directory")
        pending = [name for name in path.split(b"/") if name][::-1]
        must_be_directory = path.endswith((b"/", b"/.", b"/.."))
        follow = follow or must_be_directory
        chain: list[tuple[int, bytes]] = [(self.root, b"")]
        links = steps = 0
        while pending:
            name = pending.pop()
            steps += 1
            if steps + len(pending) > MAX_COMPONENTS or len(name) > NAME_MAX:
                raise PathError(path, "File name too long", code=errno.ENAMETOOLONG)
            above = chain[-1][0]
            if not self.stat(above).is_dir:
                raise PathNotDirectoryError(path, "Not a directory")
            if name == b"..":
                del chain[max(1, len(chain) - 1) :]
            if name in DOTS:
                continue
            found = self._resolve_name(path, above, name, tuple(step[0] for step in chain))
            if found.ino is None:
                if [part for part in pending if part != b"."]:
                    raise PathNotFoundError(path, "No such file or directory")
                return found
            if self.stat(found.ino).is_symlink and (pending or follow):
                links += 1
                if links > MAX_SYMLINKS:
                    raise PathError(path, "Too many levels of symbolic links", code=errno.ELOOP)
                target = self.filesystem.readlink(found.ino)
                if target.startswith(b"/"):
                    del chain[1:]
                pending += [part for part in target.split(b"/") if part][::-1]
                continue
            chain.append((found.ino, name))
        ino, name = chain[-1]
        if must_be_directory and not self.stat(ino).is_dir:
            raise PathNotDirectoryError(path, "Not a directory")
        ancestors = tuple(step[0] for step in chain[:-1])
        return ResolvedPath(path, ancestors[-1] if ancestors else ino, name, ino, ancestors or (ino,))

    def _resolve_name(self, path: bytes, directory: int, name: bytes, ancestors: tuple[int, ...]) -> ResolvedPath:
        """Resolve one name in a directory."""
        ino = self.find_name(directory, name)
        if not self.hide_whiteouts:
            return ResolvedPath(path, directory, name, ino, ancestors)
        if has_whiteout_prefix(name):
            return ResolvedPath(path, directory, name, None, ancestors, hidden_ino=ino)
        whiteouts: list[bytes] = []
        if ino is not None and is_whiteout(self.stat(ino)):
            ino = None
            whiteouts.append(name)
        file_whiteout = whiteout_name(name)
        hidden_ino = None
        if file_whiteout is not None and self.find_name(directory, file_whiteout) is not None:
            ino, hidden_ino = None, ino
            whiteouts.append(file_whiteout)
        return ResolvedPath(path, directory, name, ino, ancestors, tuple(whiteouts), hidden_ino)

    def child(self, directory: ResolvedPath, name: bytes) -> ResolvedPath:
        """Resolve a name in a directory that exists."""
        assert directory.ino is not None
        ancestors = directory.ancestors if directory.name == b"" else (*directory.ancestors, directory.ino)
        return self._resolve_name(directory.path.rstrip(b"/") + b"/" + name, directory.ino, name, ancestors)

    def find_visible(self, directory: int, name: bytes) -> int | None:
        """Return the inode of a name, None if there is none or it is hidden."""
        return self._resolve_name(name, directory, name, ()).ino if self.hide_whiteouts else self.find_name(directory, name)

    def lookup(self, path: bytes, *, follow: bool = True) -> int:
        """Return the inode of ``path``. Raises as ``resolve`` does, and PathNotFoundError if there is no such file."""
        ino = self.resolve(path, follow=follow).ino
        if ino is None:
            raise PathNotFoundError(path, "No such file or directory")
        return ino

    def entries(self, directory: int, problems: list[Exception] | None = None) -> list[Entry]:
        """Return the entries of a directory in byte order. Errors are appended to ``problems``; without it they are raised."""
        found: list[Entry] = []
        try:
            found.extend(self.filesystem.scandir(directory))
        except Ext3Error as error:  # the entries before a damaged block are still worth showing
            if problems is None:
                raise
            problems.append(error)
        return sorted(without_whiteouts(self.filesystem, found) if self.hide_whiteouts else found)

    def scan_many(self, directories: Sequence[int], max_names: int) -> list[tuple[list[Entry], Ext3Error | None]]:
        """Read the first of these directories together: for each its ``entries``, and the error that cut them short.

        Reads at least one directory, and no more once there are ``max_names`` names.
        """
        listed: list[tuple[list[Entry], Ext3Error | None]] = []
        for directory, found in zip(directories, self.filesystem.scandirs(directories, max_names), strict=False):
            if found is None:
                problems: list[Exception] = []
                entries = self.entries(directory, problems)
                listed.append((entries, next((one for one in problems if isinstance(one, Ext3Error)), None)))
            else:
                shown = without_whiteouts(self.filesystem, found.entries) if self.hide_whiteouts else found.entries
                listed.append((sorted(shown), None))
            max_names -= len(listed[-1][0])
            if max_names <= 0:
                break
        return listed

    def walk(self, directory: int, path: bytes = b"", problems: list[Exception] | None = None) -> Iterator[tuple[bytes, Entry]]:
        """Walk everything below a directory, parents first, in byte order: (path, entry).

        Errors are appended to ``problems``; without it they are raised, among them CorruptError for a directory met twice.
        """
        return walk(directory, path, lambda ino: self.entries(ino, problems), problems)


class DirectoryEntry(Protocol):
    """Entry of a directory."""

    @property
    def name(self) -> bytes: ...

    @property
    def ino(self) -> int: ...

    @property
    def file_type(self) -> FileType: ...


E = TypeVar("E", bound=DirectoryEntry)


def walk(
    directory: int, path: bytes, entries_of: Callable[[int], Iterable[E]], problems: list[Exception] | None
) -> Iterator[tuple[bytes, E]]:
    """Walk everything below a directory, parents first: (path, entry).

    CorruptError for a directory met twice is appended to ``problems``; without it it is raised.
    """
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
