"""UnionTree: layers of trees merged as an overlay filesystem shows them.

Each layer is read as it is, and its marks are interpreted here: whiteouts of the kernel and of fuse-overlayfs, opaque
directories, ``redirect`` and ``metacopy`` (see ``whiteouts``), in lower and upper layers alike, whichever kind of mount wrote
them. What they hide is not shown, nor are they. Marks of the lowest layer's xattrs mean nothing, since nothing is below it. The
top of a layer is merged even if the kernel's xattr says that it is opaque, as the kernel does.

A directory of several layers has the Stat of the highest, with one link: no filesystem counts the others, and the kernel says 1
as well. A metacopy has the blocks of the file with its content. ``dev`` of a Stat is that of the layer's tree; where this is 0,
as in images, it is minus the layer's number, which no device of a host has. Source: Linux ``fs/overlayfs/namei.c``
(ovl_lookup), ``readdir.c`` (ovl_dir_read_merged); tried with Linux 6.18 and fuse-overlayfs 1.13.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

from ext3 import hostio

from ..errors import show
from .errors import LowerContentError, MissingLowerError, TreePathError, unreadable_attributes
from .file_tree import (
    DIRECTORY,
    REGULAR,
    UNKNOWN,
    FileTree,
    Listing,
    Loaded,
    OpenFile,
    Row,
    Stat,
    TreeFile,
    TreeListing,
    TreeRow,
    TreeStat,
    TreeStatFS,
    file_type_of,
    is_directory,
)
from .layer_lookup import FoundEntry, LayerLookup
from .whiteouts import (
    FUSE_OPAQUE_XATTR,
    OPAQUE_WHITEOUT,
    OVERLAY_XATTR_PREFIXES,
    has_whiteout_xattr,
    is_metacopy,
    is_opaque,
    marks_removed_file,
    redirect_of,
    visible_rows,
    without_overlay_xattrs,
)

__all__ = ["IgnoredMarks", "UnionNode", "UnionTree"]

UnionNode = tuple[tuple[int, Any], ...]
"""(number of a layer, node in it) of each layer that the file is in, highest first; see ``UnionTree``."""

MAY_BE_DIRECTORY = (DIRECTORY, UNKNOWN)
MISSING = -1
"""Number in the place of a layer for what no layer has; the node is the path that a redirect gives."""

_row = partial(tuple.__new__, TreeRow)
_file = partial(tuple.__new__, TreeFile)
_stat = partial(tuple.__new__, TreeStat)
"""Values from a tuple, without checking its length: these run once per file."""
_other_fields = attrgetter(*TreeStat._fields[2:])


class IgnoredMarks(NamedTuple):
    """Marks of a layer that Apptainer ignores where a plain user has it read-only: what they hide is there again.

    ``whiteouts``: .wh. files that hide a name; ``opaque``: opaque directories with the same directory below them.
    """

    whiteouts: int
    opaque: int


class UnionTree:
    """Merged view of ``layers``, the lowest first; the root of each is the layer's top.

    A node has a pair for each layer that a directory is merged of, one pair for another file. A metacopy has two, of which the
    last has the content. Where a redirect leads to nothing in the layers given, the last pair is (-1, the path): reading the
    content, or listing the directory, reports that.
    """

    def __init__(self, layers: Sequence[FileTree[Any]]) -> None:
        """Raises OSError if the top of a layer cannot be read."""
        self.layers = tuple(layers)
        self._devices = [-number if number and not tree.stat(tree.root).dev else None for number, tree in enumerate(layers)]
        self._opaque: set[tuple[int, Any]] = set()
        self._whiteouts: dict[tuple[int, Any], int] = {}
        self._root = self._merged_root()

    def _merged_root(self) -> UnionNode:
        pairs: list[tuple[int, Any]] = []
        for number in range(len(self.layers) - 1, -1, -1):
            tree = self.layers[number]
            pairs.append((number, tree.root))
            if number and (
                FUSE_OPAQUE_XATTR in self._marks(number, tree.root) or tree.find_name(tree.root, OPAQUE_WHITEOUT) is not None
            ):
                self._opaque.add(pairs[-1])
                break
        return tuple(pairs)

    @property
    def marks(self) -> dict[int, IgnoredMarks]:
        """Marks met so far, by the number of the layer; layers without any are left out."""
        whiteouts: Counter[int] = Counter()
        for (number, _), count in self._whiteouts.items():
            whiteouts[number] += count
        opaque = Counter(number for number, _ in self._opaque)
        return {number: IgnoredMarks(whiteouts[number], opaque[number]) for number in sorted({*whiteouts, *opaque})}

    def layer_of(self, node: UnionNode) -> int:
        """Return the number of the highest layer that a file is in: what its Stat and xattrs are from."""
        return node[0][0]

    # FileTree

    @property
    def root(self) -> UnionNode:
        return self._root

    def stat(self, node: UnionNode, /) -> Stat:
        number, top = node[0]
        return self._seen_stat(node, self.layers[number].stat(top))

    def find_name(self, directory: UnionNode, name: bytes, /) -> UnionNode | None:
        lookup = LayerLookup(self, directory, name)
        found = self._join(lookup.below(len(self.layers)), lookup)
        return None if found is None else found[0]

    def scan_many(self, directories: Sequence[UnionNode], /, *, stats: bool = True) -> Iterator[TreeListing[UnionNode]]:
        """Iterate over listings. A layer above the lowest is read with Stats in any case: they say what has xattrs."""
        wanted: dict[int, list[Any]] = {}
        for directory in directories:
            for number, node in directory:
                wanted.setdefault(number, []).append(node)
        missing = wanted.pop(MISSING, None)
        scans = {number: self.layers[number].scan_many(nodes, stats=stats or number > 0) for number, nodes in wanted.items()}
        for directory in directories:
            pairs = directory[:-1] if missing and directory[-1][0] == MISSING else directory
            yield self._merge(directory, [(number, next(scans[number])) for number, _ in pairs])

    def load_many(
        self, nodes: Sequence[UnionNode], /, *, keep_order: bool = True, limit: int = 1 << 16
    ) -> Iterator[Loaded[UnionNode]]:
        """Load files; the content of a metacopy is never loaded. Without ``keep_order`` layer by layer."""
        wanted: dict[int, list[int]] = {}
        for position, node in enumerate(nodes):
            wanted.setdefault(node[0][0], []).append(position)
        loads = {
            number: self.layers[number].load_many(
                [nodes[position][0][1] for position in positions], keep_order=keep_order, limit=limit
            )
            for number, positions in wanted.items()
        }
        if keep_order:
            for position, node in enumerate(nodes):
                yield self._seen_file(position, node, next(loads[node[0][0]]))
            return
        for number, load in loads.items():
            for found in load:
                position = wanted[number][found.position]
                yield self._seen_file(position, nodes[position], found)

    def readlink(self, node: UnionNode, /) -> bytes:
        number, top = node[0]
        return self.layers[number].readlink(top)

    def xattrs(self, node: UnionNode, /) -> Mapping[bytes, bytes]:
        number, top = node[0]
        return without_overlay_xattrs(self.layers[number].xattrs(top))

    def open_file(self, node: UnionNode, /) -> OpenFile:
        """Open a regular file. Raises MissingLowerError for a metacopy whose content is in no layer here."""
        number, content = node[-1]
        if number == MISSING:
            number, content = node[0]
            if file_type_of(self.layers[number].stat(content).mode) == REGULAR:
                raise MissingLowerError(None, node[-1][1])
        return self.layers[number].open_file(content)

    def statfs(self) -> TreeStatFS:
        """Return the sums of all layers' totals, which limit a walk, and what is free in the highest."""
        found = [tree.statfs() for tree in self.layers]
        limits = [one.data_limit for one in found]
        return TreeStatFS(
            sum(one.total_bytes for one in found),
            found[-1].free_bytes,
            found[-1].available_bytes,
            sum(one.inodes for one in found),
            found[-1].free_inodes,
            None if None in limits else sum(limit for limit in limits if limit is not None),
            sum(one.metadata_bytes for one in found),
            sum(one.journal_bytes for one in found),
        )

    # Merging

    def _merge(self, node: UnionNode, listings: list[tuple[int, Listing[Any]]]) -> TreeListing[UnionNode]:
        """Merge the listings of one directory, highest first."""
        problem = next((listing.problem for _, listing in listings if listing.problem is not None), None)
        names: dict[bytes, list[FoundEntry]] = {}
        rows: list[Row[UnionNode]] = []
        for number, listing in listings:
            visible, hidden = visible_rows(self.layers[number], listing.rows)
            if hidden:
                self._count_whiteouts(number, listing)
            if len(listings) == 1 and not number:
                rows = [_row((row.name, ((0, row.node),), row.file_type, row.stat, row.may_have_xattrs)) for row in visible]
                break
            for row in visible:
                names.setdefault(row.name, []).append((number, row))
            for name in hidden:
                names.setdefault(name, []).append((number, None))
        for name in sorted(names):
            number, first = names[name][0]
            if (
                first is not None
                and not (number and first.may_have_xattrs)
                and (len(names[name]) == 1 or first.file_type not in MAY_BE_DIRECTORY)
            ):
                rows.append(self._seen_row(((number, first.node),), first))
                continue
            try:
                joined = self._join(iter(names[name]), LayerLookup(self, node, name))
            except OSError as error:
                reason = f"{show(name)}: {unreadable_attributes(error)}"
                problem = problem or TreePathError(None, error.errno or errno.EIO, reason)
                joined = None if first is None else (((number, first.node),), first)
            if joined is not None:
                rows.append(self._seen_row(*joined))
        if problem is None and node[-1][0] == MISSING:
            problem = MissingLowerError(None, node[-1][1])
        return TreeListing(node, rows, problem, sum(listing.directory_bytes for _, listing in listings))

    def _join(self, found: Iterator[FoundEntry], lookup: LayerLookup) -> tuple[UnionNode, Row[Any]] | None:
        """Return the node of a name from its entries in the layers, highest first, and the row of the highest; None: no file.

        Raises OSError for attributes that cannot be read.
        """
        pairs: list[tuple[int, Any]] = []
        top: Row[Any] | None = None
        redirect: bytes | None = None
        wants_lower = False
        entry = next(found, None)
        while entry is not None:
            number, row = entry
            if row is None or (top is not None and not _same_kind(top, row)):
                break
            is_folder = is_directory(row)
            xattrs: Mapping[bytes, bytes] = {}
            if number and row.may_have_xattrs and (is_folder or row.file_type == REGULAR):
                xattrs = self._marks(number, row.node)
            if not is_folder and has_whiteout_xattr(xattrs) and _is_empty(row):
                break
            top = top or row
            pair = (number, row.node)
            redirect = redirect_of(xattrs) if xattrs else None
            if is_folder:
                pairs.append(pair)
                wants_lower = redirect is not None
                if is_opaque(xattrs):
                    self._count_opaque(pair, next(found, None))
                    wants_lower = False
                    break
            else:
                wants_lower = is_metacopy(xattrs) and not _is_empty(row)
                if not pairs or not wants_lower:
                    pairs.append(pair)
                if not wants_lower:
                    break
            if redirect is not None:
                found = lookup.redirected(redirect, number)
            entry = next(found, None)
            if is_folder and entry is not None and number and self._has_opaque_whiteout(pair):
                self._count_opaque(pair, entry)
                wants_lower = False
                break
        if top is None:
            return None
        if wants_lower:
            pairs.append((MISSING, lookup.path))
        return tuple(pairs), top

    def marks_of(self, number: int, directory: Any) -> tuple[bool, bytes | None]:
        """Return whether a directory of a layer is opaque, and its redirect. Those of the lowest layer mean nothing."""
        if not number:
            return False, None
        xattrs = self._marks(number, directory)
        if is_opaque(xattrs):
            return True, None
        return self._has_opaque_whiteout((number, directory)), redirect_of(xattrs)

    def _marks(self, number: int, node: Any) -> Mapping[bytes, bytes]:
        try:
            return self.layers[number].xattrs(node)
        except OSError as error:
            if error.errno in hostio.NO_XATTRS:
                return {}
            raise

    def _has_opaque_whiteout(self, pair: tuple[int, Any]) -> bool:
        number, node = pair
        return self.layers[number].find_name(node, OPAQUE_WHITEOUT) is not None

    def _count_opaque(self, pair: tuple[int, Any], below: FoundEntry | None) -> None:
        if below is not None and below[1] is not None and is_directory(below[1]):
            self._opaque.add(pair)

    def _count_whiteouts(self, number: int, listing: Listing[Any]) -> None:
        count = sum(marks_removed_file(row.name) for row in listing.rows)
        if count:
            self._whiteouts[number, listing.node] = count

    # What is seen of a file

    def _seen_row(self, node: UnionNode, row: Row[Any]) -> TreeRow[UnionNode]:
        stat = row.stat
        if stat is not None and not isinstance(stat, OSError):
            stat = self._seen_stat(node, stat)
        return _row((row.name, node, row.file_type, stat, row.may_have_xattrs))

    def _seen_stat(self, node: UnionNode, found: Stat) -> Stat:
        number, device = node[0][0], self._devices[node[0][0]]
        if len(node) > 1 and node[1][0] != MISSING:
            if file_type_of(found.mode) == DIRECTORY:
                return _stat((found.ino, found.dev if device is None else device, *_other_fields(found)))._replace(links=1)
            number, content = node[-1]
            blocks = self.layers[number].stat(content).blocks
            return _stat((found.ino, found.dev if device is None else device, *_other_fields(found)))._replace(blocks=blocks)
        return found if device is None else _stat((found.ino, device, *_other_fields(found)))

    def _seen_file(self, position: int, node: UnionNode, found: Loaded[Any]) -> Loaded[UnionNode]:
        stat, xattrs, content = found.stat, found.xattrs, found.content
        if not isinstance(stat, OSError):
            stat = self._seen_stat(node, stat)
            if len(node) > 1 and file_type_of(stat.mode) == REGULAR:
                content = LowerContentError(None) if node[-1][0] == MISSING else None
        if not isinstance(xattrs, OSError) and any(name.startswith(OVERLAY_XATTR_PREFIXES) for name in xattrs):
            xattrs = without_overlay_xattrs(xattrs)
        return _file((position, node, stat, xattrs, content))


def _same_kind(one: Row[Any], other: Row[Any]) -> bool:
    """Return True if both are directories, or both regular files."""
    if is_directory(one) or is_directory(other):
        return is_directory(one) and is_directory(other)
    return one.file_type == other.file_type == REGULAR


def _is_empty(row: Row[Any]) -> bool:
    return row.stat is not None and not isinstance(row.stat, OSError) and not row.stat.size
