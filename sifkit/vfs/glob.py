"""Patterns of the shell for paths in a tree: ``*``, ``?``, ``[a-z]``, ``[!a-z]``, and a backslash before any of them.

Source: POSIX.1-2017, Shell Command Language, 2.13 Pattern Matching Notation.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Hashable
from typing import TypeVar

from .errors import TreePathError
from .file_tree import FileTree
from .resolve import Resolver

__all__ = ["expand", "has_magic", "name_matcher"]

N = TypeVar("N", bound=Hashable)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_MAGIC = re.compile(rb"[*?[]")


def has_magic(path: bytes) -> bool:
    """True if a path may be a pattern."""
    return _MAGIC.search(path) is not None


def name_matcher(glob: str, *, ignore_case: bool = False) -> Callable[[str], bool]:
    """Return a test of text. A leading dot and slashes are not special in it."""
    plain = _ESCAPED.sub(lambda match: f"[{match[1]}]" if match[1] in "*?[" else match[1], glob).replace("[^", "[!")
    matches = re.compile(fnmatch.translate(plain), re.DOTALL | (re.IGNORECASE if ignore_case else 0)).match
    return lambda text: matches(text) is not None


def expand(tree: FileTree[N], path: bytes) -> list[bytes]:
    """Return the paths that match a pattern, in byte order; ``path`` itself if it exists as it is, or if nothing matches it.

    A leading dot must be in the pattern, as in the shell. Raises the errors of the tree for a directory that cannot be read.
    """
    if not has_magic(path) or _exists(tree, path):
        return [path]
    found = [b"/" if path.startswith(b"/") else b""]
    for name in path.split(b"/"):
        if name:
            found = [longer for shorter in found for longer in _longer(tree, shorter, name)]
    end = b"/" if path.endswith(b"/") else b""
    return [match + end for match in found if not end or _exists(tree, match + end)] or [path]


def _longer(tree: FileTree[N], directory: bytes, glob: bytes) -> list[bytes]:
    """Return the paths of the names in a directory that match; none if it is no directory."""
    start = directory if directory in (b"", b"/") else directory + b"/"
    if not has_magic(glob):
        return [start + glob] if _exists(tree, start + glob) else []
    try:
        node = Resolver(tree).lookup(directory or b"/")
    except TreePathError:
        return []
    if not stat.S_ISDIR(tree.stat(node).mode):
        return []
    matches = name_matcher(os.fsdecode(glob))
    names = []
    for listing in tree.scan_many([node], stats=False):
        if listing.problem is not None:
            raise listing.problem
        names += [row.name for row in listing.rows if glob.startswith(b".") or not row.name.startswith(b".")]
    return [start + name for name in sorted(names) if matches(os.fsdecode(name))]


def _exists(tree: FileTree[N], path: bytes) -> bool:
    try:
        return Resolver(tree).resolve(path, follow=False).node is not None
    except TreePathError:
        return False
