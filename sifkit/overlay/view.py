"""A filesystem seen from one of its directories: the whole, or ``upper/`` as a container sees it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from ext3.constants import ROOT_INO
from ext3.errors import CorruptError, Ext3Error, PathError, PathNotDirectoryError, PathNotFoundError
from ext3.filesystem import Entry, Filesystem, Stat

__all__ = ["OPAQUE_NAMES", "View", "is_opaque", "is_whiteout"]

MAX_SYMLINKS = 40
MAX_COMPONENTS = 4096
OPAQUE_NAMES = (b"trusted.overlay.opaque", b"user.overlay.opaque")


def is_whiteout(found: Stat) -> bool:
    """What overlayfs leaves in upper/ for a file that was removed: a character device 0, 0."""
    return found.mode & 0o170000 == 0o020000 and found.major == found.minor == 0


def is_opaque(xattrs: dict[bytes, bytes]) -> bool:
    """Whether overlayfs hides what lower layers have in the directory with these attributes."""
    return any(xattrs.get(name) == b"y" for name in OPAQUE_NAMES)


@dataclass(frozen=True, slots=True)
class View:
    """Paths start at the directory inode ``root``, and neither links nor ``..`` lead above it."""

    filesystem: Filesystem
    root: int = ROOT_INO

    @classmethod
    def of(cls, filesystem: Filesystem, *, upper: bool) -> View:
        """The whole filesystem, or with ``upper`` what lies below upper/. Raises PathError where there is none."""
        return cls(filesystem, filesystem.lookup(b"/upper/", follow=False) if upper else ROOT_INO)

    def lookup(self, path: bytes, *, follow: bool = True) -> int:
        """The inode of a path; as ``Filesystem.lookup``."""
        if self.root == ROOT_INO:
            return self.filesystem.lookup(path, follow=follow)
        pending = [name for name in path.split(b"/") if name][::-1]
        follow = follow or path.endswith((b"/", b"/."))
        taken = [self.root]
        links = steps = 0
        while pending:
            name = pending.pop()
            steps += 1
            if steps + len(pending) > MAX_COMPONENTS:
                raise _error(path, "the path has too many parts", errno.ENAMETOOLONG)
            if not self.filesystem.stat(taken[-1]).is_dir:
                raise PathNotDirectoryError(path, "a part of the path is not a directory")
            if name == b"..":
                del taken[max(1, len(taken) - 1) :]
            if name in (b".", b".."):
                continue
            ino = next((entry.ino for entry in self.filesystem.scandir(taken[-1]) if entry.name == name), None)
            if ino is None:
                raise PathNotFoundError(path, "there is no such file in upper/")
            if self.filesystem.stat(ino).is_symlink and (pending or follow):
                links += 1
                if links > MAX_SYMLINKS:
                    raise _error(path, "too many symbolic links", errno.ELOOP)
                target = self.filesystem.readlink(ino)
                if target.startswith(b"/"):
                    del taken[1:]
                pending += [part for part in target.split(b"/") if part][::-1]
                continue
            taken.append(ino)
        if path.endswith(b"/") and not self.filesystem.stat(taken[-1]).is_dir:
            raise PathNotDirectoryError(path, "not a directory")
        return taken[-1]

    def walk(self, path: bytes, ino: int, problems: list[Exception]) -> Iterator[tuple[bytes, Entry]]:
        """Everything below a directory, parents first, in byte order: (path, entry). What cannot be read is in ``problems``."""
        seen = {ino}
        pending = [(path.rstrip(b"/") + b"/", iter(self._sorted(ino, problems)))]
        while pending:
            prefix, entries = pending[-1]
            entry = next(entries, None)
            if entry is None:
                pending.pop()
                continue
            yield prefix + entry.name, entry
            if entry.file_type != 2:
                continue
            if entry.ino in seen or len(pending) >= MAX_COMPONENTS:
                problems.append(CorruptError(f"directory inode {entry.ino}", "entries that lead to it", "two or more", 1))
                continue
            seen.add(entry.ino)
            pending.append((prefix + entry.name + b"/", iter(self._sorted(entry.ino, problems))))

    def _sorted(self, ino: int, problems: list[Exception]) -> list[Entry]:
        found: list[Entry] = []
        try:
            found.extend(self.filesystem.scandir(ino))
        except Ext3Error as error:
            problems.append(error)
        return sorted(found)


def _error(path: bytes, message: str, code: int) -> PathError:
    error = PathError(path, message)
    error.errno = code
    return error
