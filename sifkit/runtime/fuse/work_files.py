"""Files below the work directory of a kernel overlay, where it makes copies before they get their names in upper/."""

from __future__ import annotations

__all__ = ["WorkFiles"]


class WorkFiles:
    """Inodes that were seen below the work directory ``top``, each with the directory that it is in."""

    def __init__(self) -> None:
        self.top: int | None = None
        self._parents: dict[int, int] = {}

    def __contains__(self, ino: int) -> bool:
        """Return whether an inode is the work directory, or in it at any depth."""
        if self.top is None:
            return False
        parents = self._parents
        while ino in parents:
            ino = parents[ino]
        return ino == self.top

    def note(self, ino: int, directory: int) -> None:
        """Note that a name in ``directory`` leads to an inode: it was found, made, linked or moved there."""
        if directory in self and not self._is_above(ino, directory):
            self._parents[ino] = directory
        else:
            self._parents.pop(ino, None)

    def _is_above(self, ino: int, directory: int) -> bool:
        """Return whether an inode is a directory or above it: only a damaged image has such a name."""
        while directory != ino and directory in self._parents:
            directory = self._parents[directory]
        return directory == ino

    def forget(self, ino: int) -> None:
        """Forget an inode that nobody uses. Others below it are reached through it, which keeps it in use."""
        self._parents.pop(ino, None)
