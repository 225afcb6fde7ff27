"""What an overlay image looks like inside: the source's tree, and upper/ and work/, which the runtimes look for.

The runtimes mount the image and use ``upper/`` as the writable layer of an overlay mount, with ``work/`` as its scratch
space. A source that already is such a pair becomes the root; anything else goes below ``upper/``.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ext3.constants import NAME_MAX
from ext3.newfs.builder import Times, TreeBuilder

from ...errors import LayoutError, UsageError, show
from ..options import Layout

if TYPE_CHECKING:
    from ext3.newfs.stamp import Stamp
    from ext3.newfs.tree import Tree

__all__ = ["ImageTree", "RootFacts", "choose_layout", "split_inner_path"]

DIRECTORY = 0o040000
DEFAULT_MODE = 0o755
UPPER, WORK, LOST_FOUND = b"upper", b"work", b"lost+found"


def choose_layout(layout: Layout, names: Collection[bytes], source: str) -> Layout:
    """The layout for a source with these names at its top; LayoutError where ``auto`` could mean two."""
    if layout != "auto":
        return layout
    if UPPER not in names:
        return "upper"
    more = sorted(set(names) - {UPPER, WORK, LOST_FOUND})
    if not more:
        return "root"
    raise LayoutError(
        f"{show(source)} holds upper/ and also {show(more[0])}{' and more' if len(more) > 1 else ''}: it may be a whole"
        " overlay, or what goes into one",
        path=source,
        hint="say --layout root (it becomes the image's root) or --layout upper (all of it goes below upper/)",
    )


def split_inner_path(path: str) -> list[bytes]:
    """The components of a ``--create-dir`` path below upper/. UsageError for what names no directory there."""
    raw = os.fsencode(path)
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UsageError(f"--create-dir {show(path)}: .. is not taken", hint="write the path it leads to, below upper/")
    if not parts:
        raise UsageError(f"--create-dir {show(path)}: names no directory", hint="give a path below upper/, as opt/data")
    if b"\0" in raw:
        raise UsageError(f"--create-dir {show(path)}: a name cannot hold a NUL byte", hint="leave it out")
    longest = max(parts, key=len)
    if len(longest) > NAME_MAX:
        raise UsageError(
            f"--create-dir {show(longest[:20])}...: a name of {len(longest)} bytes; ext3 holds {NAME_MAX}",
            hint="choose a shorter one",
        )
    return parts


@dataclass(frozen=True, slots=True)
class RootFacts:
    """Mode, owner, times and attributes of the directory that is the source (of an archive: its entry ``./``)."""

    mode: int
    uid: int
    gid: int
    times: Times
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class ImageTree:
    """The tree of an image while it is put together: knows which nodes were made here and need the stamp's time."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self.made: list[int] = []
        self.top = 0
        """The node that stands for the source."""
        self.upper: int | None = None
        self.work: int | None = None

    def start(self, layout: Layout, facts: RootFacts) -> int:
        """Add the root, and upper/ where the source goes below it; the node that stands for the source."""
        if layout in ("root", "data"):
            node = self._add_source(0, b"", facts)
        else:
            self.make_directory(0, b"", facts.uid, facts.gid)
            node = self.upper = self._add_source(0, UPPER, facts)
        self.top = node
        return node

    def complete(self, layout: Layout, facts: RootFacts) -> None:
        """After the source's entries: upper/ and work/ where the layout has them and the source had not."""
        if layout == "data":
            return
        if self.upper is None:
            self.upper = self.find(0, UPPER)
        if self.upper is None:
            self.upper = self.make_directory(0, UPPER, facts.uid, facts.gid)
        self.work = self.find(0, WORK)
        if self.work is None:
            row = self.builder.row(self.upper)
            self.work = self.make_directory(0, WORK, row[1], row[2])
        for node, name in ((self.upper, UPPER), (self.work, WORK)):
            if self.builder.row(node)[0] & 0o170000 != DIRECTORY:
                raise LayoutError(
                    f"{name.decode()} at the top of the source is not a directory",
                    hint="--layout data takes the source as it is, --layout upper puts it below upper/",
                )

    def create_directories(self, paths: Collection[str]) -> None:
        """Directories below upper/, with their parents, owned as upper/ is; those that are there already stay."""
        for path in paths:
            assert self.upper is not None
            node = self.upper
            for part in split_inner_path(path):
                found = self.find(node, part)
                if found is None:
                    row = self.builder.row(self.upper)
                    found = self.make_directory(node, part, row[1], row[2])
                elif self.builder.row(found)[0] & 0o170000 != DIRECTORY:
                    raise UsageError(
                        f"--create-dir {show(path)}: {show(part)} is in the source and not a directory",
                        hint="choose another path, or --exclude it",
                    )
                node = found

    def make_directory(self, parent: int, name: bytes, uid: int, gid: int) -> int:
        node = self.builder.add(parent, name, DIRECTORY | DEFAULT_MODE, uid, gid, 0, (0,) * 6)
        self.made.append(node)
        return node

    def find(self, parent: int, name: bytes) -> int | None:
        """The node called ``name`` in ``parent``."""
        names, row = self.builder.names, self.builder.row
        for node, found in enumerate(names):
            if found == name and node and row(node)[3] == parent:
                return node
        return next((node for owner, link, node in self.builder.extra_links if owner == parent and link == name), None)

    def entries(self, tree: Tree) -> int:
        """How many names the tree has from the source: its top, and what was made here, not counted."""
        return len(tree) + len(tree.extra_links) - int(tree.lost_found_made) - len({0, self.top, *self.made})

    def set_owners(self, tree: Tree, owner: tuple[int, int] | None, upper_owner: tuple[int, int] | None) -> None:
        """Owners asked for: of every entry (not of a lost+found made here), and of upper/ and work/."""
        if owner is not None:
            chosen = slice(0, tree.lost_found if tree.lost_found_made else len(tree))
            tree.nodes["uid"][chosen], tree.nodes["gid"][chosen] = owner
        if upper_owner is not None:
            for node in (self.upper, self.work):
                if node is not None:
                    tree.nodes["uid"][node], tree.nodes["gid"][node] = upper_owner

    def set_made_times(self, tree: Tree, stamp: Stamp) -> None:
        """Give what was made here the stamp's time."""
        for name in ("atime", "mtime", "ctime"):
            tree.nodes[name][self.made] = stamp.seconds

    def _add_source(self, parent: int, name: bytes, facts: RootFacts) -> int:
        node = self.builder.add(parent, name, facts.mode, facts.uid, facts.gid, 0, facts.times)
        if facts.xattrs:
            self.builder.xattrs[node] = dict(facts.xattrs)
        return node
