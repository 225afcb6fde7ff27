"""Tables of a whole filesystem as numpy columns, and the census before blocks or inodes move."""

from __future__ import annotations

from dataclasses import dataclass

from ..check.census import Census
from ..check.census_taking import take_census
from ..device.base import BlockDevice
from ..errors import NeedsCheckError
from ..format.group_desc import Groups
from ..format.group_desc_columns import group_table
from ..format.layout_columns import Table
from ..format.superblock import Superblock

__all__ = ["Tables", "tables_of", "whole_census"]

SHOWN = 3
"""Most violations that are named."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Superblock and descriptors of the filesystem on ``device``; a Volume."""

    device: BlockDevice
    superblock: Superblock
    groups: Table


def tables_of(device: BlockDevice, superblock: Superblock, groups: Groups) -> Tables:
    """Return the tables of a filesystem. Counts in descriptors are those that were read."""
    return Tables(device, superblock, group_table(groups))


def whole_census(device: BlockDevice, superblock: Superblock, groups: Groups) -> Census:
    """Return the census of a filesystem, with owners. Raise NeedsCheckError if anything disagrees with it, DeviceError."""
    inventory = take_census(tables_of(device, superblock, groups), owners=True)
    if inventory.violations:
        shown = "; ".join(str(violation.error) for violation in inventory.violations[:SHOWN])
        more = len(inventory.violations) - SHOWN
        raise NeedsCheckError(f"is damaged ({shown}{f'; and {more} more' if more > 0 else ''})")
    return inventory.census
