"""View of an open image: paths, entries and walks below its root or ``upper/``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from ext3.read.filesystem import Entry, Filesystem
from ext3.read.path_walk import MAX_COMPONENTS

from .listing import DirectoryLister, Row
from .resolve import Resolver, walk
from .whiteouts import UpperView

__all__ = ["View"]


@dataclass(frozen=True, slots=True)
class View:
    """View of a filesystem. Paths start at the root or at upper/; neither symlinks nor ``..`` lead above it."""

    resolver: Resolver

    @classmethod
    def of(cls, filesystem: Filesystem, *, upper: bool, whiteouts: bool = True) -> Self:
        """Return the view of the whole filesystem, or with ``upper`` of upper/.

        Without ``whiteouts`` upper/ is shown as containers see it (``UpperView``). Raises PathError if there is no upper/.
        """
        shown = UpperView(filesystem) if upper and not whiteouts else filesystem
        return cls(Resolver(shown, upper=upper, hide_whiteouts=False))

    @property
    def filesystem(self) -> Filesystem:
        return self.resolver.filesystem

    @property
    def root(self) -> int:
        """Inode of the directory where paths start."""
        return self.resolver.root

    def lookup(self, path: bytes, *, follow: bool = True) -> int:
        """Return the inode of a path. Raises PathNotFoundError, PathNotDirectoryError, PathError (ELOOP, ENAMETOOLONG)."""
        return self.resolver.lookup(path, follow=follow)

    def entries(self, directory: int, problems: list[Exception] | None = None) -> list[Entry]:
        """Return the entries of a directory in byte order. Errors are appended to ``problems``; without it they are raised."""
        return self.resolver.entries(directory, problems)

    def lister(self, *, levels: int = MAX_COMPONENTS) -> DirectoryLister:
        """Return a lister of directories with the Stats of their entries, for a walk ``levels`` deep."""
        return DirectoryLister(self.resolver, levels=levels)

    def walk(self, path: bytes, ino: int, problems: list[Exception]) -> Iterator[tuple[bytes, Row]]:
        """Walk everything below a directory, parents first, in byte order: (path, row).

        Errors of reading directories are appended to ``problems``.
        """
        lister = self.lister()
        return walk(ino, path.rstrip(b"/") + b"/", lambda directory: lister.rows(directory, problems), problems)
