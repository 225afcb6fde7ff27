"""Sources of copies into an image: what is to be copied, as it was listed when its space was counted."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from ...vfs.file_tree import FileTree, Row, Stat
from ...vfs.host_tree import HostTree
from ...vfs.walk import WalkedDirectory, walk_directories

__all__ = ["CopySource", "identity_of"]

N = TypeVar("N", bound=Hashable)


def identity_of(tree: FileTree[N], stat: Stat) -> tuple[int, int, int]:
    """Return the same for all names of a file, whichever directories of the host they are found in."""
    return 0 if isinstance(tree, HostTree) else id(tree), stat.dev, stat.ino


@dataclass(slots=True)
class CopySource(Generic[N]):
    """File or directory ``node`` of a tree, to be copied; messages call it ``label``.

    ``rows``: of each directory by its path below the node (b"" for the node itself); ``problems``: errors of directories by
    path. ``link_target``: of a symlink in the target image, the inode it leads to.
    """

    tree: FileTree[N]
    node: N
    stat: Stat
    label: str
    rows: dict[bytes, Sequence[Row[N]]] = field(default_factory=dict)
    problems: dict[bytes, OSError] = field(default_factory=dict)
    link_target: int | None = None

    @classmethod
    def of(cls, tree: FileTree[N], node: N, label: str) -> Self:
        """Return a file or directory of a tree as a source, without its directories listed."""
        return cls(tree, node, tree.stat(node), label)

    def walk(self) -> Iterator[WalkedDirectory[N]]:
        """List the directories, parents first, and keep their rows for the copy."""
        for walked in walk_directories(self.tree, self.node, on_problem=self._add_problem):
            self.rows[walked.path] = walked.listing.rows
            yield walked

    def _add_problem(self, path: bytes, error: OSError) -> None:
        self.problems.setdefault(path, error)
