"""Layers of an overlay as directories of the host: random ones with every mark, and the facts of what is seen of them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from sifkit.vfs.file_tree import FileTree, Stat, TreeStat
from sifkit.vfs.walk import walk

__all__ = ["Folder", "build_layer", "facts_of_mount", "facts_of_tree", "folders"]

MTIME = 1_600_000_000_123_456_789


@dataclass
class Folder:
    """Directory of a layer: entries by name, bytes of a file, text of a symlink, None for a whiteout, or another directory.

    ``mark``: b"y" opaque, b"x" its empty files with an xattr are whiteouts.
    """

    entries: dict[bytes, Any] = field(default_factory=dict)
    mark: bytes = b""


class XattrWhiteout:
    """Empty file that is a whiteout by its xattr."""

    def __repr__(self) -> str:
        return "XATTR"


XATTR_WHITEOUT = XattrWhiteout()


def folders(names: bytes = b"abc", depth: int = 3, *, xattr_whiteouts: bool = True) -> st.SearchStrategy[Folder]:
    """Random directories of a layer."""
    leaves: list[st.SearchStrategy[Any]] = [st.none(), st.sampled_from([b"", b"one", b"two"]), st.sampled_from(["a", "../b"])]
    if xattr_whiteouts:
        leaves.append(st.just(XATTR_WHITEOUT))
    entry: st.SearchStrategy[Any] = st.one_of(*leaves)
    for _ in range(depth):
        entry = st.one_of(*leaves, _folder(entry, names), _folder(entry, names), _folder(entry, names))
    return _folder(entry, names).map(_without_top_mark)


def _folder(entry: st.SearchStrategy[Any], names: bytes) -> st.SearchStrategy[Folder]:
    keys = st.sampled_from([bytes([name]) for name in names])
    marks = st.sampled_from([b"", b"", b"y"])
    return st.builds(Folder, st.dictionaries(keys, entry, max_size=len(names)), marks).map(_marked)


def _marked(folder: Folder) -> Folder:
    if XATTR_WHITEOUT in folder.entries.values():
        folder.mark = b"x"
    return folder


def _without_top_mark(folder: Folder) -> Folder:
    folder.mark = b""
    return folder


def build_layer(folder: Folder, path: Path, prefix: bytes = b"trusted.overlay.", uid: int = 0) -> Path:
    """Create a layer below ``path``. ``prefix``: of the xattrs of its marks."""
    path.mkdir()
    has_xattr_whiteouts = _build(folder, os.fsencode(path), prefix, uid)
    if has_xattr_whiteouts:
        os.setxattr(path, prefix + b"opaque", b"x")  # the kernel looks for it at the top
    return path


def _build(folder: Folder, path: bytes, prefix: bytes, uid: int) -> bool:
    found = folder.mark == b"x"
    for name, entry in folder.entries.items():
        target = path + b"/" + name
        if entry is None:
            os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))
        elif isinstance(entry, str):
            os.symlink(entry, target)
        elif isinstance(entry, Folder):
            os.mkdir(target, 0o700 + len(entry.entries))
            found |= _build(entry, target, prefix, uid)
        else:
            content = b"" if entry is XATTR_WHITEOUT else path[-20:] + entry if entry else b""
            Path(os.fsdecode(target)).write_bytes(content)
            os.setxattr(target, prefix + b"whiteout" if entry is XATTR_WHITEOUT else b"user.note", b"here")
        os.chown(target, uid + len(path) % 7, uid, follow_symlinks=False)
        os.utime(target, ns=(MTIME, MTIME + len(path)), follow_symlinks=False)
    if folder.mark:
        os.setxattr(path, prefix + b"opaque", folder.mark)
    return found


def facts_of_mount(top: Path) -> dict[bytes, tuple[object, ...]]:
    """Facts of everything below a mounted overlay, by path. Names that it lists and does not have are left out."""
    return dict(_facts_of_mount(os.fsencode(top), b""))


def _facts_of_mount(directory: bytes, base: bytes) -> Iterator[tuple[bytes, tuple[object, ...]]]:
    for name in sorted(os.listdir(directory)):
        path = directory + b"/" + name
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            continue
        content: object = None
        if stat.S_ISREG(found.st_mode):
            content = Path(os.fsdecode(path)).read_bytes()
        elif stat.S_ISLNK(found.st_mode):
            content = os.readlink(path)
        names = os.listxattr(path, follow_symlinks=False)
        xattrs = {os.fsencode(one): os.getxattr(path, one, follow_symlinks=False) for one in names}
        size = None if stat.S_ISDIR(found.st_mode) else found.st_size
        facts = (found.st_mode, found.st_uid, found.st_gid, size, found.st_mtime_ns, found.st_nlink, content, xattrs)
        yield base + name, facts
        if stat.S_ISDIR(found.st_mode):
            yield from _facts_of_mount(path, base + name + b"/")


def facts_of_tree(tree: FileTree[Any]) -> dict[bytes, tuple[object, ...]]:
    """Facts of everything in a tree, by path, read in every way that there is; each way says the same."""
    rows = list(walk(tree, tree.root))
    plain = [(walked.path, walked.row.node) for walked in walk(tree, tree.root, stats=False)]
    assert plain == [(walked.path, walked.row.node) for walked in rows]
    loaded = list(tree.load_many([walked.row.node for walked in rows]))
    unordered = list(tree.load_many([walked.row.node for walked in rows], keep_order=False))
    assert sorted(one.position for one in unordered) == list(range(len(rows)))
    facts: dict[bytes, tuple[object, ...]] = {}
    for (path, row, _, _), one in zip(rows, loaded, strict=True):
        assert looked_up(tree, path) == row.node == one.node, path
        found: Stat = tree.stat(row.node)
        assert without_atime(row.stat) == without_atime(found) == without_atime(one.stat), path
        content: object = None
        if stat.S_ISREG(found.mode):
            with tree.open_file(row.node) as file:
                content = file.read_at(0, file.size)
            assert one.content is None or bytes(one.content) == content, path
        elif stat.S_ISLNK(found.mode):
            content = tree.readlink(row.node)
        xattrs = dict(tree.xattrs(row.node))
        assert xattrs == one.xattrs, path
        size = None if stat.S_ISDIR(found.mode) else found.size
        facts[path] = (found.mode, found.uid, found.gid, size, found.mtime, found.links, content, xattrs)
    for one in unordered:
        row = rows[one.position].row
        assert one.node == row.node and without_atime(one.stat) == without_atime(row.stat)
    return facts


def without_atime(found: Any) -> list[int]:
    """All of a Stat but the time that reading changes."""
    return [getattr(found, name) for name in TreeStat._fields if name != "atime"]


def looked_up(tree: FileTree[Any], path: bytes) -> Any:
    node = tree.root
    for name in path.split(b"/"):
        node = tree.find_name(node, name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return node
