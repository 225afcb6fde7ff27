"""Tree: what goes into an image, as columns.

A node is a future inode, an entry is a name in a directory that leads to one. Node 0 is the root directory of the
filesystem. Node ``n`` has one first entry (``names[n]`` in directory ``nodes["parent"][n]``); further hard links are kept
apart. The rows of a TreeBuilder (a million files cost 64 bytes each and their names) are seen as one numpy table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, compress, pairwise

import numpy as np
import numpy.typing as npt

from ..constants import LINK_MAX, S_IFDIR, S_IFMT
from ..errors import SourceError
from .builder import BY_NODE, FIELDS, LeftOut, Segment, TreeBuilder, TreePart
from .content import Content

__all__ = ["NODE", "Tree", "finished", "graft"]

NODE = np.dtype([(name, {"I": "<u4", "q": "<i8"}[code]) for name, code in FIELDS.items()])
"""One row of a TreeBuilder."""


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


def finished(builder: TreeBuilder, content: Content) -> Tree:
    """The tree of all that was added; see ``TreeBuilder.finish``."""
    lost_found, made = builder.lost_found()
    nodes = np.frombuffer(builder.rows, NODE)
    np.add.at(nodes["links"], np.array([node for _, _, node in builder.extra_links], np.int64), 1)
    tree = Tree(
        nodes,
        builder.names,
        builder.extra_links,
        builder.targets,
        builder.devices,
        builder.xattrs,
        builder.segments,
        content,
        lost_found,
        made,
        builder.left_out,
        builder.unreadable,
    )
    _check_links(tree)
    return tree


def graft(
    builder: TreeBuilder, parts: Sequence[TreePart], roots: Sequence[int], links: dict[tuple[int, int], int]
) -> list[list[int]]:
    """Add each part below the directory of ``roots`` that its node 0 stands for; the new number of each node, by part.

    ``links``: nodes by the identity of the file. A file known there, or from an earlier part, becomes one more link to what is
    there; new ones are added to it.
    """
    starts = [0, *accumulate(len(part.names) for part in parts)]
    known: dict[int, int] = {}  # rows of files that are in the tree, and which node they are
    again: dict[int, int] = {}  # rows of files that an earlier part has, and the row they have there
    first: dict[tuple[int, int], int] = {}
    for start, part in zip(starts, parts, strict=False):
        for key, node in part.links.items():
            if key in links:
                known[start + node] = links[key]
            elif key in first:
                again[start + node] = first[key]
            else:
                first[key] = start + node
    rows = np.frombuffer(b"".join(part.rows for part in parts), NODE)
    names = list(chain.from_iterable(part.names for part in parts))
    kept = np.ones(len(rows), bool)
    kept[[*starts[:-1], *known, *again]] = False
    numbers = len(builder.names) + np.cumsum(kept) - 1
    numbers[starts[:-1]] = roots
    numbers[list(known)] = list(known.values())
    numbers[list(again)] = numbers[list(again.values())]
    parents = numbers[rows["parent"] + np.repeat(starts[:-1], np.diff(starts))]
    added = rows[kept]
    added["parent"] = parents[kept]
    builder.rows += added.tobytes()
    builder.names += compress(names, kept.tolist())
    links.update((key, int(numbers[row])) for key, row in first.items())
    found = numbers.tolist()
    by_part = [found[begin:end] for begin, end in pairwise(starts)]
    for start, part, new in zip(starts, parts, by_part, strict=False):
        linked = [start + node for node in part.links.values() if not kept[start + node]]
        builder.extra_links += [(int(parents[row]), names[row], found[row]) for row in linked]
        builder.extra_links += [(new[parent], name, new[node]) for parent, name, node in part.extra_links]
        for column in BY_NODE:
            facts = part.facts[column]
            getattr(builder, column).update((new[node], fact) for node, fact in facts.items() if kept[start + node])
        builder.left_out.merge(part.left_out)
        builder.unreadable += part.unreadable
    return by_part


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
