"""Plan: the position of everything in a new filesystem. Pure: no clock, no device, nothing written.

Everything but static metadata is laid out by position in the free space (free_space.py), in this order: the root directory,
lost+found, the map of the resize inode, the journal (up to here as mke2fs does), then other
directories, symlink targets, attribute blocks, indirect blocks, small files, large files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..constants import FIRST_INO, MAX_JOURNAL_BLOCKS, MIN_JOURNAL_BLOCKS
from ..defaults import default_block_size, default_journal_blocks
from ..errors import GeometryError, NoInodesError, NoSpaceError, SourceError
from ..format.geometry import Geometry, plan_geometry
from ..format.indirect_blocks import dense_count
from .demand import LARGE_FILE_BYTES, Demand, measure
from .free_space import FreeSpace
from .placed_map import PlacedMap
from .stamp import Stamp
from .tree import Tree

__all__ = ["ImageOptions", "Plan", "plan_image"]

Array64 = npt.NDArray[np.int64]

MIB = 1 << 20
SMALL_TYPE_BYTES = 512 * MIB
"""Filesystems of this size and more have 4 KiB blocks by default."""
PAGE_BYTES = 4096
"""Alignment of files copied in the kernel: host filesystems can then share the blocks (reflink)."""
FOLIO_BYTES = 64 << 10
"""Alignment of large files: Linux copies in pieces of this size, which then are whole folios of the page cache
(1 GiB: 0.44 s instead of 0.63 s)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """Options of a new image. ``size`` in bytes; None takes the content plus ``slack`` (a fraction of it), at least
    ``smallest`` bytes. ``inodes`` wins over ``inode_ratio`` (bytes per inode); if both are None, mke2fs's density or
    twice the inodes the content needs, whichever is more. ``journal_bytes`` None: as mke2fs chooses."""

    size: int | None = None
    slack: float = 0.25
    smallest: int = 64 * MIB
    block_size: int | None = None
    inode_size: int = 256
    inodes: int | None = None
    inode_ratio: int | None = None
    reserved_percent: float = 0.0
    reserved_blocks: int | None = None
    journal_bytes: int | None = None
    journal: bool = True
    label: bytes = b""


@dataclass(slots=True)
class Plan:
    """Positions of everything. Per node, shape (nodes,): ``data_at`` and ``indirect_at`` (0 if it has none)."""

    demand: Demand
    geometry: Geometry
    stamp: Stamp
    options: ImageOptions
    space: FreeSpace
    journal: PlacedMap | None
    journal_at: int
    journal_blocks: int
    resize_map_at: int | None
    directories_at: int
    attributes_at: int
    data_at: Array64
    indirect_at: Array64
    used: int
    gaps: Array64

    @property
    def tree(self) -> Tree:
        return self.demand.tree

    @property
    def free_blocks(self) -> int:
        return self.space.total - self.used + len(self.gaps)

    @property
    def free_inodes(self) -> int:
        return self.geometry.inodes - self.demand.inodes

    def block_map(self, node: int) -> PlacedMap:
        """Return the map of a node's data, by position."""
        at = int(self.data_at[node])
        relative = self.demand.maps.get(node)
        if relative is None:
            relative = [(0, 0, int(self.demand.data_blocks[node]))]
        extents = [(logical, at + position, count) for logical, position, count in relative]
        return PlacedMap(self.space, extents, int(self.indirect_at[node]), self.demand.pointers)


def plan_image(tree: Tree, options: ImageOptions, stamp: Stamp) -> Plan:
    """Plan an image of ``tree``. Raises NoSpaceError, NoInodesError, GeometryError, SourceError, XattrError."""
    seed = hash_seed_words(stamp)
    if options.size is not None:
        geometry = _geometry(options, options.size, 0)  # refuses an impossible request first
        demand = measure(tree, geometry.block_size, options.inode_size, seed)
        try:
            geometry = _geometry(options, options.size, len(tree))
        except GeometryError as error:
            text = f"inodes for {len(tree):,} files leave no room in {geometry.size_bytes:,} bytes"
            raise _no_space(text, demand, geometry, options, seed) from error
    else:
        demand, geometry = _choose(tree, options, seed)
    return _lay_out(demand, geometry, options, stamp)


def _choose(tree: Tree, options: ImageOptions, seed: tuple[int, ...]) -> tuple[Demand, Geometry]:
    """Choose the size by the content, and the block size mke2fs uses for that size."""
    if options.block_size is not None:
        choices: tuple[int, ...] = (options.block_size,)
    else:
        # The block size follows the size, and the size the block size: try the small one, and see which it leads to.
        choices = (1024, 4096) if _data_bytes(tree) < SMALL_TYPE_BYTES else (4096,)
    for block_size in choices:
        try:
            demand = measure(tree, block_size, options.inode_size, seed)
        except SourceError:
            if block_size == choices[-1]:
                raise
            continue  # an attribute or a symlink that fits larger blocks
        geometry = _fitting(demand, options, options.slack)
        if options.block_size or default_block_size(geometry.size_bytes) == block_size:
            return demand, geometry
    # 4 KiB blocks led to less than the size that has them: that size surely holds it.
    return demand, _geometry(options, SMALL_TYPE_BYTES, len(tree))


def _data_bytes(tree: Tree) -> int:
    """Count the bytes of data, without holes."""
    sparse = list(tree.segments)
    holes = int(tree.nodes["size"][sparse].sum()) - sum(length for parts in tree.segments.values() for _, length, _ in parts)
    return int(tree.nodes["size"].sum()) - holes


def hash_seed_words(stamp: Stamp) -> tuple[int, ...]:
    return tuple(int.from_bytes(stamp.hash_seed[at : at + 4], "little") for at in range(0, 16, 4))


def _geometry(options: ImageOptions, size: int, nodes: int, block_size: int | None = None) -> Geometry:
    """Return the geometry of ``size`` bytes; if no inode count was asked for, with inodes for twice the content."""

    def plan(inodes: int | None) -> Geometry:
        return plan_geometry(
            size,
            block_size=block_size or options.block_size,
            inode_size=options.inode_size,
            inodes=inodes,
            inode_ratio=options.inode_ratio,
            reserved_percent=options.reserved_percent,
            reserved_blocks=options.reserved_blocks,
        )

    geometry = plan(options.inodes)
    if options.inodes is None and options.inode_ratio is None and 2 * nodes > geometry.inodes:
        geometry = plan(2 * nodes + FIRST_INO)
    return geometry


def _fitting(demand: Demand, options: ImageOptions, slack: float) -> Geometry:
    """Return the smallest geometry (whole MiB, at least ``options.smallest``) that leaves ``slack`` of the content free."""
    size = max(options.smallest, -(-demand.blocks * demand.block_size // MIB) * MIB)
    wanted = demand.blocks + int(demand.blocks * slack)
    while True:
        try:
            geometry = _geometry(options, size, len(demand.tree), demand.block_size)
            missing = wanted + _fixed_blocks(geometry, options) - geometry.free_blocks
        except GeometryError:
            if size >= 2**32 * demand.block_size:
                raise
            missing = size // demand.block_size // 8  # too small for its inodes or its journal
        if missing <= 0:
            return geometry
        size += max(1, -(-missing * demand.block_size // MIB)) * MIB


def _journal_blocks(geometry: Geometry, options: ImageOptions) -> int:
    if not options.journal:
        return 0
    if options.journal_bytes is not None:
        blocks = options.journal_bytes // geometry.block_size
        if not MIN_JOURNAL_BLOCKS <= blocks <= MAX_JOURNAL_BLOCKS:
            raise GeometryError(
                f"a journal of {options.journal_bytes} bytes has {blocks} blocks; it must have {MIN_JOURNAL_BLOCKS} to"
                f" {MAX_JOURNAL_BLOCKS}",
                field="journal",
                least=MIN_JOURNAL_BLOCKS * geometry.block_size,
                most=MAX_JOURNAL_BLOCKS * geometry.block_size,
            )
        if blocks > geometry.free_blocks // 2:
            raise GeometryError(
                f"a journal of {options.journal_bytes} bytes takes over half of {geometry.size_bytes} bytes",
                field="journal",
                most=geometry.free_blocks // 2 * geometry.block_size,
            )
        return blocks
    blocks = default_journal_blocks(geometry.blocks)
    if not blocks:
        raise GeometryError(
            f"{geometry.size_bytes} bytes are too few for a journal",
            field="size",
            least=2048 * geometry.block_size,
        )
    return blocks


def _fixed_blocks(geometry: Geometry, options: ImageOptions) -> int:
    """Count the blocks of the journal and of the resize inode's map, which every filesystem of this geometry has."""
    journal = _journal_blocks(geometry, options)
    return journal + dense_count(journal, geometry.pointers_per_block) + int(geometry.resize_inode)


def _no_space(text: str, demand: Demand, geometry: Geometry, options: ImageOptions, seed: tuple[int, ...]) -> NoSpaceError:
    smallest = replace(options, size=None, smallest=MIB, slack=0.0)
    needed = _choose(demand.tree, smallest, seed)[1].size_bytes
    return NoSpaceError(text, needed_bytes=needed, available_bytes=geometry.size_bytes)


def _lay_out(demand: Demand, geometry: Geometry, options: ImageOptions, stamp: Stamp) -> Plan:
    if demand.inodes > geometry.inodes:
        enough = demand.inodes + 8 * geometry.groups  # a group's count is rounded down to a multiple of 8
        raise NoInodesError(needed=demand.inodes, available=geometry.inodes, enough=enough)
    space = FreeSpace(geometry)
    journal_blocks = _journal_blocks(geometry, options)
    needed = demand.blocks + _fixed_blocks(geometry, options)
    if needed > space.total:
        room = max(0, space.total - _fixed_blocks(geometry, options)) * geometry.block_size
        text = f"the content needs {demand.blocks * demand.block_size:,} bytes and {geometry.size_bytes:,} bytes hold {room:,}"
        raise _no_space(text, demand, geometry, options, hash_seed_words(stamp))
    tree = demand.tree
    data_at = np.zeros(len(tree), np.int64)
    indirect_at = np.zeros(len(tree), np.int64)
    at = 0
    root_and_lost_found = np.array([0, tree.lost_found])
    directories = demand.directories
    for node in root_and_lost_found:
        data_at[node] = at
        at += int(demand.data_blocks[node])
    resize_map_at = None
    if geometry.resize_inode:
        resize_map_at = at
        at += 1
    journal, journal_at = None, at
    if journal_blocks:
        pointers = geometry.pointers_per_block
        first = at + dense_count(journal_blocks, pointers)
        journal = PlacedMap(space, [(0, first, journal_blocks)], at, pointers)
        at = first + journal_blocks
    directories_at = at
    rest = directories.nodes[(directories.nodes != 0) & (directories.nodes != tree.lost_found)]
    for nodes in (rest, demand.slow_symlinks):
        counts = demand.data_blocks[nodes]
        data_at[nodes] = at + np.cumsum(counts) - counts
        at += int(counts.sum())
    attributes_at = at
    at += len(demand.attributes.blocks)
    mapped = np.flatnonzero(demand.indirect_blocks)
    counts = demand.indirect_blocks[mapped]
    indirect_at[mapped] = at + np.cumsum(counts) - counts
    at += int(counts.sum())
    counts = demand.data_blocks[demand.small]
    data_at[demand.small] = at + np.cumsum(counts) - counts
    at += int(counts.sum())
    # Gaps for alignment only where there is room for all of them.
    counts = demand.data_blocks[demand.large]
    folio, page = (size // geometry.block_size for size in (FOLIO_BYTES, PAGE_BYTES))
    aligns = np.where(counts * geometry.block_size >= LARGE_FILE_BYTES, folio, page)
    if at + int(counts.sum()) + 2 * int(aligns.sum()) > space.total:  # twice: a gap may run into the metadata of a group
        aligns[:] = 1
    gaps: list[int] = []
    for node, align in zip(demand.large.tolist(), aligns.tolist(), strict=True):
        while past := space.block(at) % align:
            gaps += range(at, at + align - past)
            at += align - past
        data_at[node] = at
        at += int(demand.data_blocks[node])
    return Plan(
        demand=demand,
        geometry=geometry,
        stamp=stamp,
        options=options,
        space=space,
        journal=journal,
        journal_at=journal_at,
        journal_blocks=journal_blocks,
        resize_map_at=resize_map_at,
        directories_at=directories_at,
        attributes_at=attributes_at,
        data_at=data_at,
        indirect_at=indirect_at,
        used=at,
        gaps=np.array(gaps, np.int64),
    )
