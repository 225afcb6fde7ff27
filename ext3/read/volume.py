"""Volume: a device with the superblock and group descriptors on it, which is all that a scan needs."""

from __future__ import annotations

from typing import Protocol

from ..device.base import BlockDevice
from ..format.layout_columns import Table
from ..format.superblock import Superblock

__all__ = ["Volume"]


class Volume(Protocol):
    """Filesystem as far as its tables go: an open image, one being edited, or one being checked that cannot be opened."""

    @property
    def device(self) -> BlockDevice: ...

    @property
    def superblock(self) -> Superblock: ...

    @property
    def groups(self) -> Table:
        """Group descriptors: GROUP_DESC rows, shape (groups,)."""
        ...
