"""Geometry columns: the layout of all groups of a filesystem, an array for each fact. One group: see ``geometry``.

Every array has the shape (groups,). Units: blocks.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .geometry import Geometry

__all__ = ["GeometryColumns"]

Array64 = npt.NDArray[np.int64]


class GeometryColumns:
    """Columns of a geometry. Places of bitmaps and inode tables are those of a fresh filesystem without meta_bg."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry

    @cached_property
    def group_first(self) -> Array64:
        """First block of each group."""
        geometry = self._geometry
        return geometry.first_data_block + np.arange(geometry.groups, dtype=np.int64) * geometry.blocks_per_group

    @cached_property
    def group_blocks(self) -> Array64:
        """Number of blocks of each group: the same in all but the last."""
        geometry = self._geometry
        counts = np.full(geometry.groups, geometry.blocks_per_group, np.int64)
        counts[-1] = geometry.block_count(geometry.groups - 1)
        return counts

    @cached_property
    def head_blocks(self) -> Array64:
        """Number of blocks of superblock, descriptors and reserved descriptors of each group."""
        geometry = self._geometry
        supers = np.zeros(geometry.groups, np.int64)
        supers[[0, *geometry.backup_groups]] = 1
        if geometry.first_meta_bg is None:
            return supers * geometry.head_count(0)
        index, place = np.divmod(np.arange(geometry.groups), geometry.descriptors_per_block)
        own = (place <= 1) | (place == geometry.descriptors_per_block - 1)
        return np.where(index < geometry.first_meta_bg, supers * (1 + geometry.leading_descriptor_blocks), supers + own)

    @cached_property
    def block_bitmap(self) -> Array64:
        """Block of each group's block bitmap; the inode bitmap and the inode table follow it."""
        return self.group_first + self.head_blocks

    @cached_property
    def inode_bitmap(self) -> Array64:
        return self.block_bitmap + 1

    @cached_property
    def inode_table(self) -> Array64:
        """First block of each group's inode table."""
        return self.block_bitmap + 2

    @cached_property
    def group_overhead(self) -> Array64:
        """Number of blocks of static metadata in each group."""
        return self.head_blocks + 2 + self._geometry.inode_table_blocks

    @cached_property
    def free_first(self) -> Array64:
        """First block behind each group's static metadata."""
        return self.group_first + self.group_overhead

    @cached_property
    def free_counts(self) -> Array64:
        """Number of blocks behind each group's static metadata, for data, directories and journal."""
        return self.group_blocks - self.group_overhead
