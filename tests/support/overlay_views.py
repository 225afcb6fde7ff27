"""Two layers as the mounts of Apptainer show them: an independent, slow model; and random layers with marks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Literal

from ext3.constants import S_IFCHR, S_IFDIR, S_IFREG
from ext3.edit.filesystem import WritableFilesystem
from sifkit.vfs.file_tree import FileTree, file_type_of

from .memory_tree import MemoryNode, MemoryTree

__all__ = ["MARKS", "VIEWS", "View", "make_upper", "random_base", "random_upper", "seen"]

View = Literal["writer", "user", "root", "read-only"]
"""``writer``: every mark holds; ``user``: a plain user's writable mount, by fuse-overlayfs; ``root``: by the kernel for root;
``read-only``: by the kernel for a plain user."""
VIEWS: tuple[View, ...] = ("user", "root", "read-only")
HONOURED: dict[View, tuple[bytes, ...]] = {
    "writer": (b"trusted.overlay.opaque", b"user.overlay.opaque", b"user.fuseoverlayfs.opaque"),
    "user": (b"user.overlay.opaque", b"user.fuseoverlayfs.opaque"),
    "root": (b"trusted.overlay.opaque",),
    "read-only": (),
}
MARKS = {
    "none": ((), ()),
    "fuse": ((b"user.fuseoverlayfs.opaque",), (b".wh..wh..opq", b".wh..opq")),
    "nested": ((b"user.fuseoverlayfs.opaque",), (b".wh..wh..opq",)),
    "file": ((), (b".wh..wh..opq",)),
    "root": ((b"trusted.overlay.opaque",), ()),
    "user": ((b"user.overlay.opaque",), ()),
    "both": ((b"trusted.overlay.opaque", b"user.overlay.opaque"), ()),
}
"""Forms of an opaque directory: its xattrs, and names in it."""
NAMES = (b"a", b"b", b"c", b"d")
DIRECTORY, DEVICE = 2, 3

Layer = dict[bytes, "Layer | str"]
"""Directory: its entries are directories, "file", "device" (a whiteout) or, with a .wh. name, "file". Key b"" is its mark."""


def seen(upper: FileTree[Any], base: FileTree[Any], view: View) -> dict[bytes, tuple[str, int]]:
    """Path -> (layer, file type) of everything shown. A whiteout that is listed as a name has the layer "dead"."""
    found: dict[bytes, tuple[str, int]] = {}
    _merge(upper, upper.root, base, base.root, view, b"", found)
    return found


def _merge(
    upper: FileTree[Any], above: Any, base: FileTree[Any], below: Any, view: View, path: bytes, found: dict[bytes, Any]
) -> None:
    rows = {row.name: row for row in _rows(upper, above)}
    by_name = view in ("writer", "user")
    opaque = by_name and b".wh..wh..opq" in rows
    honoured = [name for name in HONOURED[view] if path or name == b"user.fuseoverlayfs.opaque"]
    if above is not None and any(upper.xattrs(above).get(name) == b"y" for name in honoured):
        opaque = True
    if opaque:
        below = None
    hidden = {name[4:] for name in rows if by_name and name.startswith(b".wh.")}
    shown: dict[bytes, tuple[str, Any, Any]] = {}
    for row in _rows(base, below):
        shown[row.name] = ("base", None, row.node)
    for name, row in rows.items():
        if by_name and name.startswith(b".wh."):
            continue
        if file_type_of(upper.stat(row.node).mode) == DEVICE:
            shown.pop(name, None)
            if below is None and not by_name and above is not None:
                shown[name] = ("dead", None, None)
            continue
        both = name in shown and _is_dir(upper, row.node) and _is_dir(base, shown[name][2])
        shown[name] = ("upper", row.node, shown[name][2] if both else None)
    for name in hidden:
        shown.pop(name, None)
    for name, (layer, top, lower) in shown.items():
        place = path + b"/" + name
        tree, node = (base, lower) if layer == "base" else (upper, top)
        kind = 0 if layer == "dead" else file_type_of(tree.stat(node).mode)
        found[place] = (layer, kind)
        if kind == DIRECTORY:
            _merge(upper, top, base, lower, view, place, found)


def _rows(tree: FileTree[Any], directory: Any) -> Any:
    return () if directory is None else next(iter(tree.scan_many([directory]))).rows


def _is_dir(tree: FileTree[Any], node: Any) -> bool:
    return file_type_of(tree.stat(node).mode) == DIRECTORY


def random_base(chance: random.Random, depth: int = 3) -> MemoryTree:
    """A tree of directories and files."""
    tree = MemoryTree()

    def fill(path: bytes, levels: int) -> None:
        for name in NAMES:
            kind = chance.choice(("none", "file", "directory", "directory") if levels else ("none", "file"))
            if kind == "file":
                tree.add(path + b"/" + name, MemoryNode(S_IFREG | 0o644))
            elif kind == "directory":
                tree.add(path + b"/" + name, MemoryNode(S_IFDIR | 0o755))
                fill(path + b"/" + name, levels - 1)

    fill(b"", depth)
    return tree


def random_upper(chance: random.Random, depth: int = 3, marks: tuple[str, ...] = tuple(MARKS)) -> Layer:
    """A layer of directories, files and marks. No name has a .wh. file beside it, unless it is a device."""
    layer: Layer = {}
    for name in NAMES:
        kind = chance.choice(("none", "file", "device", "mark", "directory", "directory"))
        if kind == "directory" and depth:
            mark = chance.choice(("none", "none", *marks))
            layer[name] = {**random_upper(chance, depth - 1, marks), b"": mark}
        elif kind in ("file", "device"):
            layer[name] = kind
        if kind == "mark" or (kind == "device" and not chance.randrange(4)):
            layer[b".wh." + name] = "file"
    return layer


def make_upper(filesystem: WritableFilesystem, layer: Layer, path: bytes = b"/upper", mtime: int = 10**18) -> None:
    """Create a layer in an image."""
    ino = filesystem.mkdir(path)
    for place, kind in _flat(layer):
        name = path + b"/" + place
        if kind == "directory":
            filesystem.mkdir(name)
        elif kind == "file":
            filesystem.create(name, 0o644)
        elif kind == "device":
            filesystem.mknod(name, S_IFCHR)
        else:
            filesystem.set_xattr(name, kind.encode(), b"y")
    for _, entry in list(filesystem.walk(path)):
        if filesystem.stat(entry.ino).is_dir:
            filesystem.utimens(entry.ino, mtime, mtime)
    filesystem.utimens(ino, mtime, mtime)


def _flat(layer: Layer, path: bytes = b"") -> Iterator[tuple[bytes, str]]:
    for name, kind in layer.items():
        if name == b"":
            assert isinstance(kind, str)
            xattrs, names = MARKS[kind]
            yield from ((path.rstrip(b"/"), xattr.decode()) for xattr in xattrs)
            yield from ((path + one, "device" if one == b".wh..opq" else "file") for one in names)
        elif isinstance(kind, dict):
            yield path + name, "directory"
            yield from _flat(kind, path + name + b"/")
        else:
            yield path + name, kind
