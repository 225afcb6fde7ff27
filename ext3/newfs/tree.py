"""Tree: the content of a new image, as columns.

A node is a future inode, an entry is a name in a directory that leads to one. Node 0 is the root directory of the
filesystem. Node ``n`` has one first entry (``names[n]`` in directory ``nodes["parent"][n]``); further hard links are
separate. The rows of a TreeBuilder (64 bytes per file, and its name) are viewed as one numpy table.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..constants import LINK_MAX, S_IFDIR, S_IFMT
from ..errors import SourceError
from .content import Content
from .node import FIELDS, Segment

if TYPE_CHECKING:
    from .builder import LeftOut

__all__ = ["NODE", "Tree", "node_table"]

NODE = np.dtype([(name, {"I": "<u4", "q": "<i8"}[code]) for name, code in FIELDS.items()])
"""dtype of a row of a TreeBuilder."""


@dataclass(slots=True)
class Tree:
    """Content of a new image; made by TreeBuilder.

    ``nodes``: NODE table, shape (n,). ``names``: first name of each node. ``extra_links``: (parent, name, node).
    ``targets``: symlink texts; ``devices``: (major, minor); ``xattrs``: attribute name and value as Linux gives them;
    ``flags``: of nodes that have some of USER_FLAGS; ``segments``: the data of sparse files. ``created``: see
    TreeBuilder. ``left_out``: what the image
    does not hold; ``unreadable`` lists what was skipped, as (path, reason). ``lost_found`` is the node of the root's
    lost+found, which every filesystem has; ``lost_found_made`` that the source had none.
    """

    nodes: npt.NDArray[np.void]
    names: list[bytes]
    extra_links: list[tuple[int, bytes, int]]
    targets: dict[int, bytes]
    devices: dict[int, tuple[int, int]]
    xattrs: dict[int, dict[bytes, bytes]]
    flags: dict[int, int]
    segments: dict[int, Sequence[Segment]]
    created: tuple[array[int], array[int]]
    content: Content
    lost_found: int
    lost_found_made: bool
    left_out: LeftOut
    unreadable: list[tuple[bytes, str]]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, node: int) -> bytes:
        """Return the path of a node's first entry, ``/`` for the root."""
        parts: list[bytes] = []
        parents = self.nodes["parent"]
        while node:
            parts.append(self.names[node])
            node = int(parents[node])
        return b"/" + b"/".join(reversed(parts))

    def is_kind(self, format_bits: int) -> npt.NDArray[np.bool_]:
        """Return a mask of the nodes with these format bits (S_IFDIR, S_IFREG ...)."""
        mask: npt.NDArray[np.bool_] = (self.nodes["mode"] & S_IFMT) == format_bits
        return mask

    def clamp_times(self, newest: int) -> None:
        """Make times reproducible: set all three to the modification time, but none later than ``newest`` (seconds)."""
        self.nodes = self.nodes.copy()  # the content still compares files with their original times
        late = self.nodes["mtime"] >= newest
        seconds = np.where(late, newest, self.nodes["mtime"])
        nanoseconds = np.where(late, 0, self.nodes["mtime_ns"])
        for name in ("atime", "mtime", "ctime"):
            self.nodes[name] = seconds
            self.nodes[name + "_ns"] = nanoseconds

    def check_links(self) -> None:
        """Raise SourceError if a directory or a file has more links than ext3 allows."""
        directories = np.flatnonzero(self.is_kind(S_IFDIR))
        parents = self.nodes["parent"][directories[directories != 0]]
        counts = np.bincount(parents, minlength=1) if len(parents) else np.zeros(1, np.int64)
        worst = int(counts.argmax())
        if counts[worst] > LINK_MAX - 2:
            raise SourceError(
                self.path(worst),
                f"{counts[worst]} subdirectories; ext3 holds {LINK_MAX - 2} in one directory",
                hint="spread them",
            )
        links = self.nodes["links"]
        if len(links) and int(links.max()) > LINK_MAX:
            worst = int(links.argmax())
            raise SourceError(self.path(worst), f"{links[worst]} hard links; ext3 holds {LINK_MAX} to one file")


def node_table(rows: bytearray, extra_links: Sequence[tuple[int, bytes, int]]) -> npt.NDArray[np.void]:
    """Return the ``rows`` of a TreeBuilder as a NODE table on the same memory, with the links of ``extra_links`` counted."""
    nodes = np.frombuffer(rows, NODE)
    np.add.at(nodes["links"], np.array([node for _, _, node in extra_links], np.int64), 1)
    return nodes
