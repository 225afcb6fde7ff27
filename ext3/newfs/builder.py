"""TreeBuilder: collects nodes as rows of bytes and makes a Tree of them. Works without numpy: a scan can start before numpy
is loaded.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..constants import NAME_MAX, S_IFDIR, S_IFMT
from ..errors import SourceError
from .content import Content
from .node import PARENT_OFFSET, ROW, Segment, Times

if TYPE_CHECKING:
    from .tree import Tree

__all__ = ["LeftOut", "Segment", "Times", "TreeBuilder"]

LOST_FOUND = b"lost+found"
NO_NAMES = frozenset((b"", b".", b".."))

_pack_node = ROW.pack


@dataclass(slots=True)
class LeftOut:
    """Attributes and files of a source that the image does not contain: by name or description, a count and the first path.

    ``harmless``: those that mean nothing anywhere else.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, bytes] = field(default_factory=dict)
    harmless: set[str] = field(default_factory=set)

    def add(self, what: str, path: bytes) -> None:
        self.counts[what] += 1
        self.first.setdefault(what, path)

    def add_harmless(self, what: str, path: bytes) -> None:
        self.add(what, path)
        self.harmless.add(what)

    def merge(self, later: LeftOut) -> None:
        self.counts += later.counts
        self.first = later.first | self.first
        self.harmless |= later.harmless


class TreeBuilder:
    """Builder of a Tree; ``finish`` returns it.

    Names are checked here (1 to 255 bytes, no ``/`` or NUL, not ``.`` or ``..``). The caller makes sure that they are unique
    in a directory: a host directory guarantees it, an archive reader merges first.
    """

    def __init__(self) -> None:
        self.rows = bytearray()
        """One after the other, as FIELDS says."""
        self.names: list[bytes] = []
        self.extra_links: list[tuple[int, bytes, int]] = []
        self.targets: dict[int, bytes] = {}
        self.devices: dict[int, tuple[int, int]] = {}
        self.xattrs: dict[int, dict[bytes, bytes]] = {}
        self.flags: dict[int, int] = {}
        self.segments: dict[int, Sequence[Segment]] = {}
        self.created = array("q"), array("I")
        """Creation times of the first nodes, in seconds and nanoseconds. 0, and without one: when the image is made."""
        self.left_out = LeftOut()
        self.unreadable: list[tuple[bytes, str]] = []

    def add(self, parent: int, name: bytes, mode: int, uid: int, gid: int, size: int, times: Times) -> int:
        """Add a node named ``name`` to directory ``parent``. Return its number. The first is the root; its name is ignored."""
        node = len(self.names)
        if node:
            _check_name(name)
        atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns = times
        self.rows += _pack_node(
            mode, uid & 0xFFFFFFFF, gid & 0xFFFFFFFF, parent, size, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, 1
        )
        self.names.append(name)
        return node

    def add_rows(self, parent: int, names: Sequence[bytes], rows: bytearray) -> None:
        """Add nodes to directory ``parent`` whose ``rows``, one after the other, are packed already but for the parent."""
        joined = b"".join(names)
        if b"/" in joined or b"\0" in joined or max(map(len, names), default=0) > NAME_MAX or not NO_NAMES.isdisjoint(names):
            for name in names:
                _check_name(name)
        for at, byte in enumerate(parent.to_bytes(4, "little"), PARENT_OFFSET):
            rows[at :: ROW.size] = bytes((byte,)) * len(names)
        self.names += names
        self.rows += rows

    def row(self, node: int) -> tuple[int, ...]:
        """Return the FIELDS of a node."""
        return ROW.unpack_from(self.rows, node * ROW.size)

    def link(self, parent: int, name: bytes, node: int) -> None:
        """Add a hard link to ``node``, which is not a directory."""
        _check_name(name)
        self.extra_links.append((parent, name, node))

    def finish(self, content: Content) -> Tree:
        """Return the tree, with a lost+found. Raise SourceError if a directory or a file has more links than ext3 allows."""
        from .tree import Tree, node_table  # with numpy

        lost_found, made = self.lost_found()
        tree = Tree(
            node_table(self.rows, self.extra_links),
            self.names,
            self.extra_links,
            self.targets,
            self.devices,
            self.xattrs,
            self.flags,
            self.segments,
            self.created,
            content,
            lost_found,
            made,
            self.left_out,
            self.unreadable,
        )
        tree.check_links()
        return tree

    def lost_found(self) -> tuple[int, bool]:
        """The node of the root's lost+found, and whether it had to be made."""
        for node, name in enumerate(self.names):
            if name == LOST_FOUND and node and self.row(node)[3] == 0:
                if self.row(node)[0] & S_IFMT != S_IFDIR:
                    raise SourceError(b"/lost+found", "not a directory; e2fsck needs one of this name", hint="exclude it")
                return node, False
        if any(parent == 0 and name == LOST_FOUND for parent, name, _ in self.extra_links):
            raise SourceError(b"/lost+found", "not a directory; e2fsck needs one of this name", hint="exclude it")
        return self.add(0, LOST_FOUND, S_IFDIR | 0o700, 0, 0, 0, (0,) * 6), True


def _check_name(name: bytes) -> None:
    if len(name) > NAME_MAX:
        raise SourceError(name, f"the name has {len(name)} bytes; ext3 holds {NAME_MAX}")
    if name in NO_NAMES or b"/" in name or b"\0" in name:
        raise SourceError(name, "not a name a directory can hold")
