"""The same tree in several forms: in memory, as an ext3 image, as a directory of the host, and as the union of two layers.

Devices, other owners, ``trusted.`` attributes and what only root can read are left out for others.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import ext3
from ext3.read.filesystem import Filesystem
from sifkit.vfs.host_tree import HostTree
from sifkit.vfs.union import UnionTree

from .memory_tree import MemoryFile, MemoryNode, MemoryTree
from .trees import is_root, pattern, set_xattr

__all__ = [
    "TreeForms",
    "host_directory_of",
    "image_of",
    "sample_tree",
    "overlay_images",
    "tree_forms",
    "union_layers",
    "xattrs_work",
]

MTIME = 1_600_000_001_123_456_789
STAMP = ext3.Stamp(1_700_000_000, bytes(16), bytes(16))
IMAGE_BYTES = 32 << 20
HOLE = bytes(100 * 4096)


class TreeForms(NamedTuple):
    """One tree in several forms."""

    memory: MemoryTree
    image: Filesystem
    host: HostTree
    union: UnionTree


def xattrs_work(directory: Path) -> bool:
    """Whether the host's filesystem has user attributes."""
    directory.mkdir(parents=True, exist_ok=True)
    return hasattr(os, "setxattr") and set_xattr(directory, "user.probe", b"1") and not os.removexattr(directory, "user.probe")


def sample_tree(*, xattrs: bool = True) -> MemoryTree:
    """One of each, small: lost+found, too, which an image has in any case."""
    tree = MemoryTree()
    owner = {"uid": os.getuid(), "gid": os.getgid()}
    tree.nodes[0] = MemoryNode(0o040755, mtime=MTIME, **owner)

    def add(path: bytes, mode: int, content: bytes = b"", **facts: object) -> int:
        fields = {**owner, "mtime": MTIME + len(tree.nodes) * 1_000_000_007, **facts}
        return tree.add(path, MemoryNode(mode, content, **fields))  # type: ignore[arg-type]

    add(b"lost+found", 0o040700)
    add(b"dir", 0o042750, xattrs={b"user.on": b"directory"} if xattrs else {})
    add(b"dir/deep", 0o040700)
    add(b"dir/deep/file", 0o100755, pattern(3000))
    add(b"empty", 0o100600)
    add(b"set-ids", 0o106711, b"x")
    first = add(b"linked", 0o100644, b"linked\n", xattrs={b"user.note": b"n" * 40} if xattrs else {})
    tree.add(b"dir/linked", first)
    tree.add(b"dir/deep/linked", first)
    add(b"large", 0o100644, pattern(700_001))
    add(b"sparse", 0o100640, HOLE + pattern(2 * 4096) + HOLE + b"end")
    add(b"small-sparse", 0o100640, bytes(4096) + b"data".ljust(4096, b"."))
    add(b"only-hole", 0o100604, HOLE)
    add(b"short-link", 0o120777, b"../no/such")
    tree.add(b"same-link", add(b"long-link", 0o120777, b"t" * 200))
    tree.add(b"same-fifo", add(b"fifo", 0o010620))
    add(b"socket", 0o140600)
    for name in (b"\xff\xfe not utf-8", b"new\nline", b"n" * 255, b"...", b"-rf"):
        add(name, 0o100644, name)
    for number in range(40):
        add(b"dir/many-%02d" % number, 0o100600 | number % 64, pattern(number * 137, number))
    if is_root():
        add(b"locked", 0o100000, b"read without permission")
        add(b"character", 0o020666, device=(1, 3))
        add(b"block", 0o060660, device=(259, 70_000))
        add(b"dir/other-owner", 0o104755, b"theirs", uid=70_000, gid=80_000)
        add(b"owned", 0o041777, uid=1000, gid=1001)
        if xattrs:
            add(b"trusted", 0o100644, b"t", xattrs={b"trusted.note": b"\0\1"})
    return tree


def _pre_order(tree: MemoryTree, node: int = 0, path: bytes = b"") -> Iterator[tuple[bytes, int]]:
    """Yield (path, node) of everything below a directory, parents first, in byte order."""
    for name, below in sorted(tree.nodes[node].entries.items()):
        yield path + name, below
        yield from _pre_order(tree, below, path + name + b"/")


def union_layers(tree: MemoryTree) -> tuple[MemoryTree, MemoryTree]:
    """Two layers, the lower one first, that are ``tree`` together: each hides, replaces and adds something."""
    lower, upper = deepcopy(tree), MemoryTree()
    upper.nodes[0] = replace(lower.nodes[0], entries={})
    for path, node in _pre_order(tree):
        above, _, name = path.rpartition(b"/")
        found = tree.nodes[node]
        if stat.S_ISDIR(found.mode) and name != b"deep":
            upper.add(path, replace(found, entries={}))  # merged
        elif name in (b"large", b"empty", b"short-link"):
            upper.add(path, replace(found))
            lower.nodes[lower.nodes[0].entries[name]] = MemoryNode(0o100600, b"older")
        elif name.startswith(b"many-1"):
            upper.add(path, replace(found))
            directory = lower.nodes[lower.nodes[0].entries[above]]
            del directory.entries[name]
    for path in (b"removed", b"removed by fuse-overlayfs"):
        gone = lower.add(path, MemoryNode(0o040755))
        lower.nodes[gone].entries[b"below"] = lower.add(path + b"/file", MemoryNode(0o100644, b"gone"))
    upper.add(b"removed", MemoryNode(0o020000))
    upper.add(b".wh.removed by fuse-overlayfs", MemoryNode(0o100644))
    if b"dir" in upper.nodes[0].entries:
        lower.add(b"dir/hidden", MemoryNode(0o100644, b"gone"))
        upper.add(b"dir/hidden", MemoryNode(0o020000))
    return lower, upper


def overlay_images(tree: MemoryTree, directory: Path) -> tuple[Path, Path, Path]:
    """Create images of three layers that are ``tree`` together: a root, and two overlays with upper/."""
    lower, first = union_layers(tree)
    second = MemoryTree()
    second.nodes[0] = replace(first.nodes[0], entries={})
    for name in (b"large", b"empty"):
        node = first.nodes[first.nodes[0].entries[name]]
        second.add(name, replace(node))
        node.content = b"not the last"
    first.add(b"later removed", MemoryNode(0o100644, b"gone"))
    second.add(b"later removed", MemoryNode(0o020000))
    return (
        image_of(lower, directory / "lower.img"),
        image_of(_below_upper(first), directory / "first.img"),
        image_of(_below_upper(second), directory / "second.img"),
    )


def _below_upper(tree: MemoryTree) -> MemoryTree:
    """Return a tree that has another one as its directory upper/."""
    above = MemoryTree()
    moved = [replace(node, entries={name: below + 1 for name, below in node.entries.items()}) for node in tree.nodes]
    above.nodes += moved
    above.nodes[0].entries[b"upper"] = 1
    return above


def image_of(tree: MemoryTree, path: Path) -> Path:
    """Create an ext3 image of a tree, with its holes."""
    builder = ext3.TreeBuilder()
    content: dict[int, bytes] = {}
    made: dict[int, int] = {}

    def add(parent: int, name: bytes, node: int) -> None:
        found = tree.nodes[node]
        seconds, rest = divmod(found.mtime, 10**9)
        size = 0 if stat.S_ISDIR(found.mode) else len(found.content)
        times = (seconds,) * 3 + (rest,) * 3
        number = made[node] = builder.add(parent, name, found.mode, found.uid, found.gid, size, times)
        if stat.S_ISLNK(found.mode):
            builder.targets[number] = found.content
        elif stat.S_ISREG(found.mode):
            content[number] = found.content
            ranges = MemoryFile(found.content).data_ranges()
            if sum(length for _, length in ranges) < size:
                builder.segments[number] = [(offset, length, offset) for offset, length in ranges]
        elif stat.S_ISCHR(found.mode) or stat.S_ISBLK(found.mode):
            builder.devices[number] = found.device
        if found.xattrs:
            builder.xattrs[number] = dict(found.xattrs)

    add(0, b"", 0)
    directories = {b"": 0}
    for place, node in _pre_order(tree):
        above, _, name = place.rpartition(b"/")
        if node in made:
            builder.link(directories[above], name, made[node])
            continue
        add(directories[above], name, node)
        directories[place] = made[node]
    options = ext3.ImageOptions(size=IMAGE_BYTES)
    ext3.build_image(builder.finish(ext3.MemoryContent(content)), path, options=options, stamp=STAMP)
    return path


def host_directory_of(tree: MemoryTree, top: Path) -> Path:
    """Create a tree, with its holes, below the directory ``top``."""
    top.mkdir(exist_ok=True)
    root = os.fsencode(top)
    made: dict[int, bytes] = {}
    for path, node in _pre_order(tree):
        target, found = root + b"/" + path, tree.nodes[node]
        if node in made:
            os.link(made[node], target, follow_symlinks=False)
            continue
        made[node] = target
        if stat.S_ISDIR(found.mode):
            os.mkdir(target)
        elif stat.S_ISLNK(found.mode):
            os.symlink(found.content, target)
        elif stat.S_ISREG(found.mode):
            with open(target, "wb") as file:
                for offset, length in MemoryFile(found.content).data_ranges():
                    os.pwrite(file.fileno(), found.content[offset : offset + length], offset)
                file.truncate(len(found.content))
        else:
            os.mknod(target, found.mode, os.makedev(*found.device))
    for node, target in reversed([(0, root), *made.items()]):
        _set_attributes(tree.nodes[node], target)
    return top


def _set_attributes(found: MemoryNode, target: bytes) -> None:
    if is_root():
        os.chown(target, found.uid, found.gid, follow_symlinks=False)
    for name, value in found.xattrs.items():
        os.setxattr(target, name, value, follow_symlinks=False)
    if not stat.S_ISLNK(found.mode):
        os.chmod(target, stat.S_IMODE(found.mode))
    os.utime(target, ns=(found.mtime, found.mtime), follow_symlinks=False)


@contextmanager
def tree_forms(directory: Path, tree: MemoryTree | None = None) -> Iterator[TreeForms]:
    """Give a tree (by default ``sample_tree``) in its forms, which are in ``directory``."""
    if tree is None:
        tree = sample_tree(xattrs=xattrs_work(directory))
    host = HostTree(host_directory_of(tree, directory / "host"))
    lower, upper = union_layers(tree)
    with (
        Filesystem.open(image_of(tree, directory / "tree.img")) as image,
        Filesystem.open(image_of(lower, directory / "lower.img")) as below,
    ):
        yield TreeForms(tree, image, host, UnionTree([below, upper]))
