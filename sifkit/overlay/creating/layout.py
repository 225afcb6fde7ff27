"""ImageLayout of an overlay image: the tree of the source, with upper/ and work/ as the runtimes expect them.

The runtimes mount the image and use ``upper/`` as the writable layer of an overlay mount, with ``work/`` as its work
directory. A source that already has this layout becomes the root; any other goes below ``upper/``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ext3.constants import NAME_MAX
from ext3.newfs.builder import Times, TreeBuilder

from ...errors import LayoutError, UsageError, show
from ..options import ImageLayout

if TYPE_CHECKING:
    from ext3.newfs.stamp import Stamp
    from ext3.newfs.tree import Tree

__all__ = ["ImageTree", "RootAttributes", "choose_layout", "split_directory_path", "split_prefix"]

DIRECTORY = 0o040000
DEFAULT_MODE = 0o755
UPPER, WORK, LOST_FOUND = b"upper", b"work", b"lost+found"


def choose_layout(layout: ImageLayout, names: Collection[bytes], source: str, *, prefix: str | None = None) -> ImageLayout:
    """Return the layout for a source with these names at its top, which goes to ``prefix``.

    Raises LayoutError if ``auto`` is ambiguous, and for an overlay that would go to a prefix.
    """
    if layout != "auto":
        return layout
    if UPPER not in names:
        return "upper"
    more = sorted(set(names) - {UPPER, WORK, LOST_FOUND})
    if prefix is not None:
        if more:
            return "upper"
        raise LayoutError(
            f"{show(source)} is an overlay (upper/ at its top), which has its own paths: --prefix {show(prefix)} is not for it",
            path=source,
            hint="leave out --prefix, or give the directory below upper/ that goes there",
        )
    if not more:
        return "root"
    raise LayoutError(
        f"{show(source)} contains upper/ and also {show(more[0])}{' and more' if len(more) > 1 else ''}: it may be an"
        " overlay, or the content of one",
        path=source,
        hint="choose --layout root (it becomes the image's root) or --layout upper (all of it goes below upper/)",
    )


def split_directory_path(path: str, option: str = "--create-dir") -> list[bytes]:
    """Return the components of a path below upper/, given by ``option``. Raises UsageError if it names no directory there."""
    raw = os.fsencode(path)
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UsageError(f"{option} {show(path)}: .. is not supported", hint="write the path it leads to, below upper/")
    if not parts:
        raise UsageError(f"{option} {show(path)}: names no directory", hint="give a path below upper/, like opt/data")
    if b"\0" in raw:
        raise UsageError(f"{option} {show(path)}: a name cannot contain a NUL byte", hint="leave it out")
    longest = max(parts, key=len)
    if len(longest) > NAME_MAX:
        raise UsageError(
            f"{option} {show(longest[:20])}...: a name of {len(longest)} bytes; ext3 allows {NAME_MAX}",
            hint="choose a shorter one",
        )
    return parts


def split_prefix(path: str) -> list[bytes]:
    """Return the components of a ``--prefix`` path; none for ``/``. Raises UsageError if it names no directory."""
    if path and not path.strip("/"):
        return []
    return split_directory_path(path, "--prefix")


@dataclass(frozen=True, slots=True)
class RootAttributes:
    """Attributes of the source's top directory (in an archive: of its entry ``./``); ``mode`` includes the file type."""

    mode: int
    uid: int
    gid: int
    times: Times
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class ImageTree:
    """Tree of an image under construction. ``created``: nodes that are not from the source and get the stamp's time."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self.created: list[int] = []
        self.top = 0
        """Node of the source's top directory."""
        self.upper: int | None = None
        self.work: int | None = None
        self.above_source: list[int] = []
        """Nodes of the directories between upper/ and the source's top directory."""

    def add_root(self, layout: ImageLayout, attributes: RootAttributes, prefix: Sequence[bytes] = ()) -> int:
        """Add the root, and upper/ and the ``prefix`` if the source goes below them; return the node of the source's top."""
        if layout in ("root", "data"):
            node = self._add_source(0, b"", attributes)
        else:
            owner = attributes.uid, attributes.gid
            node = self.make_directory(0, b"", *owner)
            for name in (UPPER, *prefix)[:-1]:
                node = self.make_directory(node, name, *owner)
                if self.upper is None:
                    self.upper = node
                else:
                    self.above_source.append(node)
            node = self._add_source(node, (UPPER, *prefix)[-1], attributes)
            if self.upper is None:
                self.upper = node
        self.top = node
        return node

    def add_missing(self, layout: ImageLayout, attributes: RootAttributes) -> None:
        """Add upper/ and work/, after the source's entries, if the layout has them and the source had not."""
        if layout == "data":
            return
        if self.upper is None:
            self.upper = self.find(0, UPPER)
        if self.upper is None:
            self.upper = self.make_directory(0, UPPER, attributes.uid, attributes.gid)
        self.work = self.find(0, WORK)
        if self.work is None:
            row = self.builder.row(self.upper)
            self.work = self.make_directory(0, WORK, row[1], row[2])
        for node, name in ((self.upper, UPPER), (self.work, WORK)):
            if self.builder.row(node)[0] & 0o170000 != DIRECTORY:
                raise LayoutError(
                    f"{name.decode()} at the top of the source is not a directory",
                    hint="--layout data uses the source as it is, --layout upper puts it below upper/",
                )

    def create_directories(self, paths: Collection[str]) -> None:
        """Create directories below upper/, and their parents, with the owner of upper/; existing ones are kept."""
        for path in paths:
            assert self.upper is not None
            node = self.upper
            for part in split_directory_path(path):
                found = self.find(node, part)
                if found is None:
                    row = self.builder.row(self.upper)
                    found = self.make_directory(node, part, row[1], row[2])
                elif self.builder.row(found)[0] & 0o170000 != DIRECTORY:
                    raise UsageError(
                        f"--create-dir {show(path)}: {show(part)} in the source is not a directory",
                        hint="choose another path, or --exclude it",
                    )
                node = found

    def make_directory(self, parent: int, name: bytes, uid: int, gid: int) -> int:
        node = self.builder.add(parent, name, DIRECTORY | DEFAULT_MODE, uid, gid, 0, (0,) * 6)
        self.created.append(node)
        return node

    def find(self, parent: int, name: bytes) -> int | None:
        """Return the node called ``name`` in ``parent``."""
        names, row = self.builder.names, self.builder.row
        for node, found in enumerate(names):
            if found == name and node and row(node)[3] == parent:
                return node
        return next((node for owner, link, node in self.builder.extra_links if owner == parent and link == name), None)

    def count_source_entries(self, tree: Tree) -> int:
        """Return the number of names from the source, its top directory not counted."""
        return len(tree) + len(tree.extra_links) - int(tree.lost_found_made) - len({0, self.top, *self.created})

    def set_owners(self, tree: Tree, owner: tuple[int, int] | None, upper_owner: tuple[int, int] | None) -> None:
        """Set the owner of every entry (but a lost+found created here), and that of upper/, work/ and the directories
        of a prefix; None leaves them."""
        if owner is not None:
            chosen = slice(0, tree.lost_found if tree.lost_found_made else len(tree))
            tree.nodes["uid"][chosen], tree.nodes["gid"][chosen] = owner
        if upper_owner is not None:
            for node in (self.upper, self.work, *self.above_source):
                if node is not None:
                    tree.nodes["uid"][node], tree.nodes["gid"][node] = upper_owner

    def set_created_times(self, tree: Tree, stamp: Stamp) -> None:
        """Set the times of created nodes to the stamp's."""
        for name in ("atime", "mtime", "ctime"):
            tree.nodes[name][self.created] = stamp.seconds

    def _add_source(self, parent: int, name: bytes, attributes: RootAttributes) -> int:
        node = self.builder.add(parent, name, attributes.mode, attributes.uid, attributes.gid, 0, attributes.times)
        if attributes.xattrs:
            self.builder.xattrs[node] = dict(attributes.xattrs)
        return node
