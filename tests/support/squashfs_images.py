"""Squashfs images by mksquashfs, their mounts by the kernel, and the facts of any tree to compare them by."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sifkit.vfs.file_tree import FileTree, Stat
from sifkit.vfs.walk import walk

from .facts import Facts, TreeFacts, content_digest
from .tools import Argument, missing, run

__all__ = ["facts_of_tree", "make_squashfs", "squashfs_mount", "stats_of_tree"]

N = TypeVar("N")
PART = 1 << 20


def make_squashfs(source: Path, image: Path, *options: Argument) -> Path:
    """An image of a directory."""
    run("mksquashfs", source, image, "-noappend", "-quiet", "-no-progress", *options)
    return image


@contextmanager
def squashfs_mount(image: Path, offset: int = 0) -> Iterator[Path]:
    """The image mounted by the kernel at a fresh directory during the ``with`` block."""
    with tempfile.TemporaryDirectory(prefix="sifkit-mount-") as scratch:
        point = Path(scratch, "point")
        point.mkdir()
        done = run("mount", "-t", "squashfs", "-o", f"loop,ro,offset={offset}", image, point, ok=range(256))
        if done.returncode:
            missing(f"this kernel does not mount the image: {done.stderr.decode(errors='replace').strip()}")
        try:
            yield point
        finally:
            run("umount", point)


def stats_of_tree(tree: FileTree[N]) -> dict[bytes, Stat]:
    """The Stat of every path, the root's as b""; read one by one, and equal to what many at once give."""
    found: dict[bytes, Stat] = {b"": tree.stat(tree.root)}
    for path, row, _, _ in walk(tree, tree.root):
        found[path] = tree.stat(row.node)
        assert row.stat == found[path], path
    return found


def facts_of_tree(tree: FileTree[N]) -> TreeFacts:
    """Everything there is to know of every path, to the last byte; holes count as zeros. Names are found one by one, too."""
    found: TreeFacts = {}
    first: dict[tuple[int, int], bytes] = {}
    nodes: dict[bytes, N] = {b"": tree.root}
    for path, row, _, _ in walk(tree, tree.root):
        nodes[path] = row.node
    for path, node in sorted(nodes.items()):
        above, _, name = path.rpartition(b"/")
        if path:
            assert tree.find_name(nodes[above], name) == node
        stat = tree.stat(node)
        kind = stat.mode & 0o170000
        size, content = 0, ""
        if kind == 0o100000:
            with tree.open_file(node) as file:
                size, content = file.size, content_digest(_pieces(file))
            assert size == stat.size
        elif kind == 0o120000:
            size, content = stat.size, repr(tree.readlink(node))
        found[b"/" + path] = Facts(
            stat.mode,
            stat.uid,
            stat.gid,
            None if kind == 0o040000 else stat.links,
            (stat.major, stat.minor),
            size,
            content,
            dict(tree.xattrs(node)),
            first.setdefault((stat.dev, stat.ino), b"/" + path),
            stat.mtime,
        )
    return found


def _pieces(file: object) -> Iterator[tuple[int, bytes]]:
    for offset, length in file.data_ranges():  # type: ignore[attr-defined]
        assert offset % 1024 == 0
        for at in range(offset, offset + length, PART):
            data = file.read_at(at, min(PART, offset + length - at))  # type: ignore[attr-defined]
            assert len(data) == min(PART, offset + length - at)
            yield at, data
