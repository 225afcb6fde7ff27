"""Entries of an OCI layer: the files of upper/ in byte order, and whiteouts for removed files and opaque directories.

Whiteouts of fuse-overlayfs (``.wh.`` names) are recognised here; those of the kernel are left to ``layer_export``, which loads
the files. Sources: OCI image specification, ``layer.md``; Linux ``Documentation/filesystems/overlayfs.rst``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from stat import S_ISREG
from typing import Generic, NamedTuple, TypeVar

from ...tar.writer import PATH_LIMIT
from ...vfs.errors import reason_of
from ...vfs.file_tree import FileTree, Row, is_directory
from ...vfs.walk import Walker
from ...vfs.whiteouts import (
    AUFS_PREFIX,
    FUSE_LEFTOVER,
    OPAQUE_WHITEOUT,
    WHITEOUT_PREFIX,
    has_whiteout_prefix,
    is_opaque,
    is_redirected,
    is_whiteout,
)

__all__ = ["LayerEntry", "walk_layer"]

N = TypeVar("N", bound=Hashable)

OnProblem = Callable[[bytes, str], None]
"""Callback for an entry that is left out: its path from the top of the layer, with a leading slash, and the reason."""


class LayerEntry(NamedTuple, Generic[N]):
    """Entry of a layer: its path without a leading or trailing slash, b"" for the top.

    A whiteout is an empty file with the times of ``node``. ``is_dir``: the type in the directory entry. ``is_cut_off``: in an
    opaque directory, or below one, where whiteouts have nothing to hide and are left out. The top does not count: the kernel
    ignores that it is opaque.
    """

    path: bytes
    node: N
    is_dir: bool
    is_whiteout: bool
    may_have_xattrs: bool
    is_cut_off: bool = False


_entry = partial(tuple.__new__, LayerEntry)
"""LayerEntry from a tuple, without checking its length: this runs once per file."""


def walk_layer(tree: FileTree[N], on_problem: OnProblem) -> Iterator[LayerEntry[N]]:
    """Iterate over the root of ``tree`` and everything below it, parents first, an opaque whiteout before the rest.

    Files that cannot be read or cannot be in a layer are passed to ``on_problem`` and left out.
    """

    def report(path: bytes, error: OSError) -> None:
        if not isinstance(error, NotADirectoryError):  # reported when the file is loaded
            on_problem(path, reason_of(error))

    walker = Walker(tree, tree.root, on_problem=report)
    pending: list[Iterator[LayerEntry[N]]] = [iter([LayerEntry(b"", tree.root, True, False, True)])]
    while pending:
        for entry in pending[-1]:
            if not entry.is_dir:
                yield entry
                continue
            path = b"/" + entry.path
            if entry.path and not walker.may_enter(path, entry.node, len(pending) - 1):
                continue
            yield entry
            listing = walker.read(path, entry.node)
            if listing is None:
                return
            pending.append(iter(_directory_entries(tree, entry, listing.rows, on_problem)))
            break
        else:
            pending.pop()


def _directory_entries(
    tree: FileTree[N], directory: LayerEntry[N], rows: Sequence[Row[N]], on_problem: OnProblem
) -> list[LayerEntry[N]]:
    """Return the layer entries of a directory in order, an opaque whiteout first."""
    xattrs: Mapping[bytes, bytes] = {}
    if directory.may_have_xattrs:
        with suppress(OSError):  # reported when the directory is loaded
            xattrs = tree.xattrs(directory.node)
        if is_redirected(xattrs):
            reason = "the directory was renamed: its content in lower layers is not in the layer"
            on_problem(b"/" + directory.path, reason)
    prefix = directory.path + b"/" if directory.path else b""
    prefixed = [row for row in rows if has_whiteout_prefix(row.name)]
    found = []
    cut_off = directory.is_cut_off
    if is_opaque(xattrs) or any(row.name == OPAQUE_WHITEOUT for row in prefixed):
        found.append(LayerEntry(prefix + OPAQUE_WHITEOUT, directory.node, False, True, False))
        cut_off = cut_off or directory.path != b""
    if prefixed or len(prefix) + max((len(row.name) for row in rows), default=0) + 1 >= PATH_LIMIT:
        return found + _filter_whiteouts(prefix, rows, on_problem, cut_off=cut_off)
    found += [_entry((prefix + row.name, row.node, is_directory(row), False, row.may_have_xattrs, cut_off)) for row in rows]
    return found


def _filter_whiteouts(prefix: bytes, rows: Sequence[Row[N]], on_problem: OnProblem, *, cut_off: bool) -> list[LayerEntry[N]]:
    """Return the layer entries of a directory with whiteouts of fuse-overlayfs or long paths."""
    whiteouts = {
        row.name
        for row in rows
        if has_whiteout_prefix(row.name) and row.name != OPAQUE_WHITEOUT and _is_whiteout(prefix, row, on_problem)
    }
    found = []
    for row in rows:
        path = prefix + row.name
        is_dir = is_directory(row)
        if len(path) + is_dir >= PATH_LIMIT:
            on_problem(b"/" + path[:200] + b"...", f"the path is too long: {len(path)} bytes")
        elif row.name in whiteouts:
            if not cut_off:
                found.append(LayerEntry(path, row.node, False, True, False))
        elif not has_whiteout_prefix(row.name) and WHITEOUT_PREFIX + row.name not in whiteouts:
            found.append(LayerEntry(path, row.node, is_dir, False, row.may_have_xattrs, cut_off))
    return found


def _is_whiteout(prefix: bytes, row: Row[N], on_problem: OnProblem) -> bool:
    """Return True for a whiteout of fuse-overlayfs; other files with such names are problems, except those it leaves behind."""
    found = row.stat
    assert found is not None  # the walk asks for it
    if isinstance(found, OSError):
        on_problem(b"/" + prefix + row.name, reason_of(found))
        return False
    is_reserved = row.name == WHITEOUT_PREFIX or row.name.startswith(AUFS_PREFIX)
    if S_ISREG(found.mode) and not found.size and not is_reserved:
        return True
    if row.name == FUSE_LEFTOVER and is_whiteout(found):
        return False
    reason = "a name that begins with .wh. would be a whiteout where the layer is used"
    on_problem(b"/" + prefix + row.name, reason)
    return False
