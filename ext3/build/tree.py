"""Tree: what goes into an image, as columns.

A node is a future inode, an entry is a name in a directory that leads to one. Node 0 is the root directory of the
filesystem. Node ``n`` has one first entry (``names[n]`` in directory ``nodes["parent"][n]``); further hard links are kept
apart. Rows are packed as they come (a million files cost 64 bytes each and their names) and seen as one numpy table.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from ..constants import LINK_MAX, NAME_MAX, S_IFDIR, S_IFMT
from ..errors import ContentChangedError, SourceError

__all__ = ["Content", "ContentFile", "LeftOut", "MemoryContent", "NODE", "Segment", "Times", "Tree", "TreeBuilder", "TreePart"]

NODE = np.dtype(
    [
        ("mode", "<u4"),
        ("uid", "<u4"),
        ("gid", "<u4"),
        ("parent", "<u4"),
        ("size", "<i8"),
        ("atime", "<i8"),
        ("mtime", "<i8"),
        ("ctime", "<i8"),
        ("atime_ns", "<u4"),
        ("mtime_ns", "<u4"),
        ("ctime_ns", "<u4"),
        ("links", "<u4"),
    ]
)
"""One node: times are whole seconds since 1970 (may be negative) plus nanoseconds; links counts its entries, and for
directories is left 0 (the plan counts subdirectories)."""

_node_struct = struct.Struct("<4I4q4I")
_pack_node = _node_struct.pack
_unpack_node = _node_struct.unpack_from
assert _node_struct.size == NODE.itemsize

LOST_FOUND = b"lost+found"

Segment = tuple[int, int, int]
"""(logical offset, length, source offset) in bytes: a part of a file that holds data; what lies between is a hole."""

Times = tuple[int, int, int, int, int, int]
"""atime, mtime, ctime in whole seconds, then the nanoseconds of each."""


class ContentFile(Protocol):
    """The open data of one node. ``fd`` is a descriptor to copy from at source offsets, or None."""

    fd: int | None

    def read_into(self, view: memoryview, offset: int) -> int:
        """Bytes read at source ``offset`` into ``view``; fewer than asked only at the end of the data."""
        ...

    def changed(self) -> bool:
        """Whether the source was modified since the tree was made."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Content(Protocol):
    """Where the data of regular files comes from. Both methods raise SourceError with the path concerned.

    Forked processes may call them at the same time, each on its own copy of the object: reading must not depend on the
    position of a file descriptor that they share.
    """

    def read_whole(self, node: int, view: memoryview) -> None:
        """The whole data of a file without holes, exactly ``len(view)`` bytes; ContentChangedError if it is not so long."""
        ...

    def open(self, node: int) -> ContentFile: ...


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


@dataclass(slots=True)
class Tree:
    """Everything that goes in; made by TreeBuilder.

    ``nodes``: NODE table, shape (n,). ``names``: first name of each node. ``extra_links``: (parent, name, node).
    ``targets``: symlink texts; ``devices``: (major, minor); ``xattrs``: attribute name and value as Linux gives them;
    ``segments``: the data of sparse files. ``left_out``: what the image does not hold;
    ``unreadable`` lists what was skipped, as (path, reason). ``lost_found`` is the node of the root's lost+found, which
    every filesystem has; ``lost_found_made`` that the source had none.
    """

    nodes: npt.NDArray[np.void]
    names: list[bytes]
    extra_links: list[tuple[int, bytes, int]]
    targets: dict[int, bytes]
    devices: dict[int, tuple[int, int]]
    xattrs: dict[int, dict[bytes, bytes]]
    segments: dict[int, Sequence[Segment]]
    content: Content
    lost_found: int
    lost_found_made: bool
    left_out: LeftOut = field(default_factory=LeftOut)
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def path(self, node: int) -> bytes:
        """The path of a node's first entry, ``/`` for the root."""
        parts: list[bytes] = []
        parents = self.nodes["parent"]
        while node:
            parts.append(self.names[node])
            node = int(parents[node])
        return b"/" + b"/".join(reversed(parts))

    def is_kind(self, format_bits: int) -> npt.NDArray[np.bool_]:
        """Mask of the nodes with these format bits (S_IFDIR, S_IFREG ...)."""
        mask: npt.NDArray[np.bool_] = (self.nodes["mode"] & S_IFMT) == format_bits
        return mask

    def clamp_times(self, newest: int) -> None:
        """Reproducible times: all three become the modification time, none later than ``newest`` (seconds)."""
        self.nodes = self.nodes.copy()  # the content still compares files with the times they had
        late = self.nodes["mtime"] >= newest
        seconds = np.where(late, newest, self.nodes["mtime"])
        nanoseconds = np.where(late, 0, self.nodes["mtime_ns"])
        for name in ("atime", "mtime", "ctime"):
            self.nodes[name] = seconds
            self.nodes[name + "_ns"] = nanoseconds


_BY_NODE = ("targets", "devices", "xattrs", "segments")


@dataclass(frozen=True, slots=True)
class TreePart:
    """A subtree on its way from one builder to another. ``facts``: the columns few nodes have, by name and node."""

    rows: bytes
    names: list[bytes]
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
        self._rows = bytearray()
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
        self._rows += _pack_node(
            mode, uid & 0xFFFFFFFF, gid & 0xFFFFFFFF, parent, size, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, 1
        )
        self.names.append(name)
        return node

    def row(self, node: int) -> tuple[int, ...]:
        """The fields of NODE for a node already added."""
        return _unpack_node(self._rows, node * NODE.itemsize)

    def link(self, parent: int, name: bytes, node: int) -> None:
        """One more name for ``node``, which is not a directory."""
        if not 0 < len(name) <= NAME_MAX or b"/" in name or b"\0" in name:
            raise SourceError(name, _bad_name(name))
        self.extra_links.append((parent, name, node))

    def part(self) -> TreePart:
        """What was added so far, as one value that ``graft`` takes, in this process or another."""
        facts = {name: getattr(self, name) for name in _BY_NODE}
        return TreePart(bytes(self._rows), self.names, self.extra_links, facts, self.left_out, self.unreadable)

    def graft(self, part: TreePart, root: int, known: Mapping[int, int]) -> npt.NDArray[np.int64]:
        """Add a part below directory ``root``, which its node 0 stands for; the new number of each of its nodes.

        ``known``: nodes of the part (not directories) that are in this tree already; they become links to those.
        """
        rows = np.frombuffer(part.rows, NODE)
        kept = np.ones(len(rows), bool)
        kept[[0, *known]] = False
        numbers = len(self.names) + np.cumsum(kept) - 1
        numbers[0] = root
        for node, there in known.items():
            numbers[node] = there
            self.extra_links.append((int(numbers[rows["parent"][node]]), part.names[node], there))
        added = rows[kept]
        added["parent"] = numbers[added["parent"]]
        self._rows += added.tobytes()
        self.names += [part.names[node] for node in kept.nonzero()[0].tolist()] if known else part.names[1:]
        self.extra_links += [(int(numbers[parent]), name, int(numbers[node])) for parent, name, node in part.extra_links]
        for name in _BY_NODE:
            mine = getattr(self, name)
            mine.update((int(numbers[node]), fact) for node, fact in part.facts[name].items() if kept[node])
        self.left_out.merge(part.left_out)
        self.unreadable += part.unreadable
        return numbers

    def finish(self, content: Content) -> Tree:
        """The finished tree, with a lost+found. SourceError where a directory or a file has more links than ext3 holds."""
        lost_found, made = self._lost_found()
        nodes = np.frombuffer(self._rows, NODE)
        np.add.at(nodes["links"], np.array([node for _, _, node in self.extra_links], np.int64), 1)
        tree = Tree(
            nodes,
            self.names,
            self.extra_links,
            self.targets,
            self.devices,
            self.xattrs,
            self.segments,
            content,
            lost_found,
            made,
            self.left_out,
            self.unreadable,
        )
        _check_links(tree)
        return tree

    def _lost_found(self) -> tuple[int, bool]:
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


def _check_links(tree: Tree) -> None:
    directories = np.flatnonzero(tree.is_kind(S_IFDIR))
    parents = tree.nodes["parent"][directories[directories != 0]]
    counts = np.bincount(parents, minlength=1) if len(parents) else np.zeros(1, np.int64)
    worst = int(counts.argmax())
    if counts[worst] > LINK_MAX - 2:
        raise SourceError(
            tree.path(worst), f"{counts[worst]} subdirectories; ext3 holds {LINK_MAX - 2} in one directory", hint="spread them"
        )
    links = tree.nodes["links"]
    if len(links) and int(links.max()) > LINK_MAX:
        worst = int(links.argmax())
        raise SourceError(tree.path(worst), f"{links[worst]} hard links; ext3 holds {LINK_MAX} to one file")


class _MemoryFile:
    fd: int | None = None

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_into(self, view: memoryview, offset: int) -> int:
        piece = self._data[offset : offset + len(view)]
        view[: len(piece)] = piece
        return len(piece)

    def changed(self) -> bool:
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class MemoryContent:
    """Data of regular files held in memory, by node; nodes that are not in it are empty."""

    def __init__(self, data: Mapping[int, bytes] | Iterable[tuple[int, bytes]] = ()) -> None:
        self.data: dict[int, bytes] = dict(data)

    def read_whole(self, node: int, view: memoryview) -> None:
        data = self.data.get(node, b"")
        if len(data) != len(view):
            raise ContentChangedError(b"", f"{len(data)} bytes where the tree says {len(view)}")
        view[:] = data

    def open(self, node: int) -> ContentFile:
        return _MemoryFile(self.data.get(node, b""))
