"""Path resolution in a tree: components, symlinks and ``..`` below its root.

Neither symlinks nor ``..`` lead above the root. ``..`` returns to the directory the path came from. Source: Linux
``fs/namei.c`` (link_path_walk, step_into); path_resolution(7).
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from .errors import path_error
from .file_tree import FileTree, Stat

__all__ = ["MAX_COMPONENTS", "MAX_SYMLINKS", "ResolvedPath", "Resolver", "is_dir", "is_symlink"]

N = TypeVar("N", bound=Hashable)
MAX_SYMLINKS = 40
"""Most symlinks followed in one path, as in the kernel."""
MAX_COMPONENTS = 4096
"""Most names in one path, including symlink targets; also the depth limit of a walk."""
NAME_MAX = 255


def is_dir(found: Stat) -> bool:
    return stat.S_ISDIR(found.mode)


def is_symlink(found: Stat) -> bool:
    return stat.S_ISLNK(found.mode)


class ResolvedPath(NamedTuple, Generic[N]):
    """Result of resolving ``path``: the directory ``parent``, the ``name`` in it and its ``node`` (None: no such file).

    ``ancestors``: the directories from the root down to ``parent``. The root itself has the name b"".
    """

    path: bytes
    parent: N
    name: bytes
    node: N | None
    ancestors: tuple[N, ...]

    @property
    def location(self) -> tuple[N, bytes]:
        """(parent, name)."""
        return self.parent, self.name


class Resolver(Generic[N]):
    """Path resolver of one tree."""

    def __init__(self, tree: FileTree[N]) -> None:
        self.tree = tree

    def resolve(self, path: bytes, *, follow: bool = True) -> ResolvedPath[N]:
        """Resolve ``path``; its last component may be missing. ``follow``: also follow a symlink in the last component.

        Raises MissingPathError and NotDirectoryPathError for the directories on the way, TreePathError (ELOOP,
        ENAMETOOLONG), and the errors of the tree.
        """
        if not path:
            raise path_error(path, errno.ENOENT)
        tree = self.tree
        pending = [name for name in path.split(b"/") if name][::-1]
        must_be_directory = path.endswith((b"/", b"/.", b"/..")) or path in (b".", b"..")
        follow = follow or must_be_directory
        chain: list[tuple[N, bytes]] = [(tree.root, b"")]
        links = steps = 0
        while pending:
            name = pending.pop()
            steps += 1
            if steps + len(pending) > MAX_COMPONENTS or len(name) > NAME_MAX:
                raise path_error(path, errno.ENAMETOOLONG)
            above = chain[-1][0]
            if not is_dir(tree.stat(above)):
                raise path_error(path, errno.ENOTDIR)
            if name == b"..":
                del chain[max(1, len(chain) - 1) :]
            if name in (b".", b".."):
                continue
            node = tree.find_name(above, name)
            if node is None:
                if [part for part in pending if part != b"."]:
                    raise path_error(path, errno.ENOENT)
                return ResolvedPath(path, above, name, None, tuple(step[0] for step in chain))
            if (pending or follow) and is_symlink(tree.stat(node)):
                links += 1
                if links > MAX_SYMLINKS:
                    raise path_error(path, errno.ELOOP)
                target = tree.readlink(node)
                if target.startswith(b"/"):
                    del chain[1:]
                pending += [part for part in target.split(b"/") if part][::-1]
                continue
            chain.append((node, name))
        node, name = chain[-1]
        if must_be_directory and not is_dir(tree.stat(node)):
            raise path_error(path, errno.ENOTDIR)
        ancestors = tuple(step[0] for step in chain[:-1])
        return ResolvedPath(path, ancestors[-1] if ancestors else node, name, node, ancestors or (node,))

    def child(self, directory: ResolvedPath[N], name: bytes) -> ResolvedPath[N]:
        """Resolve a name in a directory that exists."""
        assert directory.node is not None
        ancestors = directory.ancestors if directory.name == b"" else (*directory.ancestors, directory.node)
        path = directory.path.rstrip(b"/") + b"/" + name
        return ResolvedPath(path, directory.node, name, self.tree.find_name(directory.node, name), ancestors)

    def lookup(self, path: bytes, *, follow: bool = True) -> N:
        """Return the node of ``path``. Raises as ``resolve`` does, and MissingPathError if there is no such file."""
        node = self.resolve(path, follow=follow).node
        if node is None:
            raise path_error(path, errno.ENOENT)
        return node
