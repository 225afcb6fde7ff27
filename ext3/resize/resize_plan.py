"""Plan of a resize: the new geometry, and what has to move (``move_plan``). Pure: nothing is read or written.

Source of the rules: e2fsprogs ``resize/resize2fs.c``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UnsupportedError
from ..format.block_map import BlockMap
from ..format.geometry import Geometry
from ..format.group_desc import Groups
from ..format.superblock import Superblock
from .new_geometry import resized_geometry

if TYPE_CHECKING:
    from ..check.census import Census
    from .move_plan import PlannedMoves

__all__ = ["ResizePlan", "moves_something", "plan"]


@dataclass(frozen=True, slots=True)
class ResizePlan:
    """Geometry before and after, and what moves; None if nothing does."""

    old: Geometry
    new: Geometry
    moves: PlannedMoves | None = None

    @property
    def nothing(self) -> bool:
        """True if the filesystem stays as it is."""
        return self.old.blocks == self.new.blocks

    @property
    def beyond_reserve(self) -> bool:
        """True if the resize inode is dropped for good."""
        return self.old.resize_inode and not self.new.resize_inode

    @property
    def replaces_resize_inode(self) -> bool:
        """True if the resize inode is dropped or made again: other reserved blocks, or other groups with copies of them."""
        old, new = self.old, self.new
        if not old.resize_inode:
            return False
        pointers = old.pointers_per_block
        same = (old.descriptor_blocks, old.reserved_gdt_blocks) == (new.descriptor_blocks, new.reserved_gdt_blocks)
        same = same and (self.moves is None or self.moves.map_to is None)
        return not (same and new.resize_inode and old.backup_groups[:pointers] == new.backup_groups[:pointers])

    @property
    def moved_inodes(self) -> int:
        """Inodes that get other numbers."""
        return 0 if self.moves is None else self.moves.inodes

    @property
    def moved_bytes(self) -> int:
        """Bytes that are copied."""
        return 0 if self.moves is None else self.moves.blocks * self.old.block_size


def moves_something(superblock: Superblock, groups: Groups, blocks: int) -> bool:
    """Return whether a resize to ``blocks`` moves or frees anything: then the plan needs a census."""
    old = superblock.geometry
    new = resized_geometry(old, groups, blocks)
    return new.blocks < old.blocks or (old.resize_inode and not new.resize_inode)


def plan(
    superblock: Superblock,
    groups: Groups,
    blocks: int,
    *,
    census: Census | None = None,
    bad_blocks: BlockMap | None = None,
) -> ResizePlan:
    """Plan a resize to ``blocks`` blocks; the filesystem may get a little smaller (see ``resized_geometry``).

    ``census``, with owners: of a filesystem where nothing disagrees with it; needed where ``moves_something``. ``bad_blocks``:
    the map of their list; needed if some are beyond the new end. Raise TooSmallError, GeometryError, UnsupportedError.
    """
    if census is not None:
        from .move_plan import check_size  # with numpy

        check_size(superblock, groups, blocks, census)
    old = superblock.geometry
    new = resized_geometry(old, groups, blocks)
    if new.first_meta_bg is not None and not superblock.revision:
        raise UnsupportedError(["revision 0"], hint="a filesystem of revision 0 cannot have meta_bg")
    if new.blocks >= old.blocks:
        return ResizePlan(old, new)
    if census is None:
        raise ValueError("a plan that moves something needs a census")
    from .move_plan import plan_moves

    return ResizePlan(old, new, plan_moves(superblock, new, census, bad_blocks))
