"""Filesystem that may be resized, and the plans for it. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..device.base import BlockDevice
from ..errors import NeedsCheckError
from ..format.group_desc import Groups
from ..format.superblock import Superblock
from .interruption import is_unfinished
from .preconditions import check_last_group, open_for_resize
from .resize_plan import ResizePlan, moves_something, plan

if TYPE_CHECKING:
    from ..check.census import Census
    from .move_plan import MinimumSize

__all__ = ["Prepared", "prepare"]


@dataclass(slots=True)
class Prepared:
    """Filesystem on ``device`` whose superblock, descriptors and resize inode are sound.

    The census, which reads all inodes and directories, is taken once, when the first plan needs it.
    """

    device: BlockDevice
    superblock: Superblock
    groups: Groups
    _census: Census | None = None

    @property
    def census(self) -> Census:
        """Census with owners. Raises NeedsCheckError if anything in the filesystem disagrees with it."""
        if self._census is None:
            from .full_census import whole_census  # with numpy

            self._census = whole_census(self.device, self.superblock, self.groups)
        return self._census

    def plan(self, size_bytes: int) -> ResizePlan:
        """Plan a resize to at most ``size_bytes``. Raise NeedsCheckError, TooSmallError, GeometryError, UnsupportedError."""
        blocks = max(0, size_bytes) // self.superblock.block_size
        if blocks <= self.superblock.first_data_block or moves_something(self.superblock, self.groups, blocks):
            from .bad_blocks import read_bad_blocks

            bad_blocks = read_bad_blocks(self.device, self.superblock, self.groups)
            return plan(self.superblock, self.groups, blocks, census=self.census, bad_blocks=bad_blocks)
        check_last_group(self.device, self.superblock, self.groups)
        return plan(self.superblock, self.groups, blocks)

    def minimum(self) -> MinimumSize:
        """Return the smallest size. Raises NeedsCheckError."""
        from .move_plan import minimum_size

        return minimum_size(self.superblock, self.groups, self.census)


def prepare(device: BlockDevice) -> Prepared:
    """Read what a resize is planned from. Raise NeedsCheckError for a filesystem that has to be checked first (one whose
    resize was interrupted can be finished instead, see ``finish``), UnsupportedError, NotExt3Error, CorruptError, DeviceError.
    """
    opened = open_for_resize(device)
    if is_unfinished(device, opened.superblock):
        raise NeedsCheckError("was interrupted while it was resized")
    return Prepared(device, opened.superblock, opened.groups)
