"""A filesystem seen from one of its directories: the whole, or ``upper/`` as a container sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from ext3.read.filesystem import Entry, Filesystem
from ext3.read.path_walk import MAX_COMPONENTS

from .listing import Listings, Row
from .resolve import Resolver, walk
from .whiteouts import SeenFilesystem, is_opaque, is_whiteout

__all__ = ["View", "is_opaque", "is_whiteout"]


@dataclass(frozen=True, slots=True)
class View:
    """Paths start at the root, or at upper/, and neither links nor ``..`` lead above it."""

    resolver: Resolver

    @classmethod
    def of(cls, filesystem: Filesystem, *, upper: bool, marks: bool = True) -> Self:
        """The whole filesystem, or with ``upper`` what lies below upper/; without ``marks`` what containers do not see there
        is left out. Raises PathError where there is no upper/."""
        reads = SeenFilesystem(filesystem) if upper and not marks else filesystem
        return cls(Resolver(reads, upper=upper, hide_whiteouts=False))

    @property
    def filesystem(self) -> Filesystem:
        return self.resolver.filesystem

    @property
    def root(self) -> int:
        """The inode of the directory where paths start."""
        return self.resolver.root

    def lookup(self, path: bytes, *, follow: bool = True) -> int:
        """The inode of a path. PathNotFoundError, PathNotDirectoryError, PathError (ELOOP, ENAMETOOLONG)."""
        return self.resolver.lookup(path, follow=follow)

    def entries(self, directory: int, problems: list[Exception] | None = None) -> list[Entry]:
        """What is in a directory, in byte order. What cannot be read is in ``problems``, and without them raises."""
        return self.resolver.entries(directory, problems)

    def listings(self, *, levels: int = MAX_COMPONENTS) -> Listings:
        """Directories with the facts of what is in them, at most so many ``levels`` deep."""
        return Listings(self.resolver, levels=levels)

    def walk(self, path: bytes, ino: int, problems: list[Exception]) -> Iterator[tuple[bytes, Row]]:
        """Everything below a directory, parents first, in byte order: (path, entry with its facts). Directories that cannot
        be read are in ``problems``."""
        listings = self.listings()
        return walk(ino, path.rstrip(b"/") + b"/", lambda directory: listings.rows(directory, problems), problems)
