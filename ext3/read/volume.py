"""Volume: what a scan is made of."""

from __future__ import annotations

from typing import Protocol

from ..device.base import BlockDevice
from ..format.layout import Table
from ..format.superblock import Superblock

__all__ = ["Volume"]


class Volume(Protocol):
    """A filesystem as far as its tables go: an open image, one that is edited, or one that is checked and cannot be opened."""

    @property
    def device(self) -> BlockDevice: ...

    @property
    def superblock(self) -> Superblock: ...

    @property
    def groups(self) -> Table:
        """The group descriptors: GROUP_DESC rows, shape (groups,)."""
        ...
