"""TreeBuilder: nodes are added one by one, each a row of bytes, until there is a Tree. Works without numpy: a scan can begin
before that is loaded.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..constants import NAME_MAX, S_IFDIR, S_IFMT
from ..errors import SourceError
from .content import Content

if TYPE_CHECKING:
    from .tree import Tree

__all__ = ["BY_NODE", "FIELDS", "LeftOut", "Segment", "Times", "TreeBuilder", "TreePart"]

FIELDS = {
    "mode": "I",
    "uid": "I",
    "gid": "I",
    "parent": "I",
    "size": "q",
    "atime": "q",
    "mtime": "q",
    "ctime": "q",
    "atime_ns": "I",
    "mtime_ns": "I",
    "ctime_ns": "I",
    "links": "I",
}
"""The columns of a node and their little-endian struct codes: times are whole seconds since 1970 (may be negative) plus
nanoseconds; links counts its entries, and for directories is left 0 (the plan counts subdirectories)."""

_node_struct = struct.Struct("<" + "".join(FIELDS.values()))
_pack_node = _node_struct.pack
_unpack_node = _node_struct.unpack_from

LOST_FOUND = b"lost+found"

Segment = tuple[int, int, int]
"""(logical offset, length, source offset) in bytes: a part of a file that holds data; what lies between is a hole."""

Times = tuple[int, int, int, int, int, int]
"""atime, mtime, ctime in whole seconds, then the nanoseconds of each."""


@dataclass(slots=True)
class LeftOut:
    """What of a source an image does not hold, by attribute name or in words: how often it was met, and where first."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, bytes] = field(default_factory=dict)

    def add(self, what: str, path: bytes) -> None:
        self.counts[what] += 1
        self.first.setdefault(what, path)

    def merge(self, later: LeftOut) -> None:
        self.counts += later.counts
        self.first = later.first | self.first


BY_NODE = ("targets", "devices", "xattrs", "segments")


@dataclass(frozen=True, slots=True)
class TreePart:
    """A subtree on its way from one builder to another (``tree.graft``). ``facts``: the columns few nodes have, by name and
    node. ``links``: its nodes that may have names elsewhere too, by the identity of the file."""

    rows: bytes
    names: list[bytes]
    links: Mapping[tuple[int, int], int]
    extra_links: list[tuple[int, bytes, int]]
    facts: dict[str, dict[int, Any]]
    left_out: LeftOut
    unreadable: list[tuple[bytes, str]]


class TreeBuilder:
    """Adds nodes one by one; ``finish`` makes the Tree.

    Names are checked here (1 to 255 bytes, no ``/`` or NUL, not ``.`` or ``..``); that they are unique in a directory is
    the caller's care: a host directory guarantees it, an archive reader merges first.
    """

    def __init__(self) -> None:
        self.rows = bytearray()
        """One after the other, as FIELDS says."""
        self.names: list[bytes] = []
        self.extra_links: list[tuple[int, bytes, int]] = []
        self.targets: dict[int, bytes] = {}
        self.devices: dict[int, tuple[int, int]] = {}
        self.xattrs: dict[int, dict[bytes, bytes]] = {}
        self.segments: dict[int, Sequence[Segment]] = {}
        self.left_out = LeftOut()
        self.unreadable: list[tuple[bytes, str]] = []

    def add(self, parent: int, name: bytes, mode: int, uid: int, gid: int, size: int, times: Times) -> int:
        """The number of a new node named ``name`` in directory ``parent``; the first is the root (its name is not used)."""
        node = len(self.names)
        if node and (not 0 < len(name) <= NAME_MAX or name in (b".", b"..") or b"/" in name or b"\0" in name):
            raise SourceError(name, _bad_name(name))
        atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns = times
        self.rows += _pack_node(
            mode, uid & 0xFFFFFFFF, gid & 0xFFFFFFFF, parent, size, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, 1
        )
        self.names.append(name)
        return node

    def row(self, node: int) -> tuple[int, ...]:
        """FIELDS of a node already added."""
        return _unpack_node(self.rows, node * _node_struct.size)

    def link(self, parent: int, name: bytes, node: int) -> None:
        """One more name for ``node``, which is not a directory."""
        if not 0 < len(name) <= NAME_MAX or b"/" in name or b"\0" in name:
            raise SourceError(name, _bad_name(name))
        self.extra_links.append((parent, name, node))

    def part(self, links: Mapping[tuple[int, int], int]) -> TreePart:
        """What was added so far, as one value to graft, in this process or another."""
        facts = {name: getattr(self, name) for name in BY_NODE}
        return TreePart(bytes(self.rows), self.names, links, self.extra_links, facts, self.left_out, self.unreadable)

    def finish(self, content: Content) -> Tree:
        """The finished tree, with a lost+found. SourceError where a directory or a file has more links than ext3 holds."""
        from .tree import finished  # with numpy

        return finished(self, content)

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


def _bad_name(name: bytes) -> str:
    if len(name) > NAME_MAX:
        return f"the name has {len(name)} bytes; ext3 holds {NAME_MAX}"
    return "not a name a directory can hold"
