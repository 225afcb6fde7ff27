"""Superblock editor: the superblock as it will be committed, and as it is on storage.

``mark`` changes the one on storage directly, without uncommitted changes.
"""

from __future__ import annotations

from ..constants import STATE_VALID, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ..device.base import BlockDevice
from ..format.schema import SUPERBLOCK
from ..format.superblock import Superblock, set_needs_recovery, write_superblock

__all__ = ["SuperblockEditor"]


class SuperblockEditor:
    """``fixed``: features, and the fields that no edit changes. ``last_orphan``: the head of the orphan list. ``changed``:
    True if a commit is needed for changes made here."""

    def __init__(self, device: BlockDevice, superblock: Superblock, *, changed: bool) -> None:
        self.fixed = superblock
        self.last_orphan = superblock.last_orphan
        self.changed = changed
        self._device = device
        self._stored = device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE)
        self._next = self._stored

    def present(self, free_blocks: int, free_inodes: int) -> Superblock:
        """Return the superblock with these counts."""
        return self.fixed._replace(free_blocks=free_blocks, free_inodes=free_inodes, last_orphan=self.last_orphan)

    def set_orphan(self, ino: int) -> None:
        self.last_orphan = ino
        self.changed = True

    def set_features(self, compat: int, ro_compat: int) -> None:
        self.fixed = self.fixed._replace(compat=compat, ro_compat=ro_compat)
        self.changed = True

    def change(self, superblock: Superblock) -> None:
        """Take label, UUID and reserved blocks from ``superblock``."""
        self.fixed = superblock
        self.changed = True

    def packed(self, free_blocks: int, free_inodes: int, seconds: int) -> bytes:
        """Return the bytes to commit, written at ``seconds`` since 1970. Call ``committed`` when they are on storage."""
        raw = bytearray(self._stored)
        row = SUPERBLOCK.at(raw)
        row["s_free_blocks_count"] = free_blocks
        row["s_free_inodes_count"] = free_inodes
        row["s_last_orphan"] = self.last_orphan
        row["s_feature_compat"], row["s_feature_ro_compat"] = self.fixed.compat, self.fixed.ro_compat
        row["s_r_blocks_count"] = self.fixed.reserved_blocks
        row["s_volume_name"], row["s_uuid"] = self.fixed.label, self.fixed.uuid_bytes
        row["s_wtime"] = seconds & 0xFFFFFFFF
        self._next = bytes(raw)
        return self._next

    def committed(self) -> None:
        """Note that what was packed last is on storage."""
        self._stored = self._next
        self.changed = False

    def mark(self, *, state: int | None = None, recovery: bool | None = None) -> None:
        """Change state (0 or STATE_VALID) and needs_recovery in place, and sync."""
        raw = bytearray(self._stored)
        row = SUPERBLOCK.at(raw)
        if state is not None:
            row["s_state"] = row["s_state"] & ~STATE_VALID | state
        if recovery is not None:
            set_needs_recovery(row, recovery)
        write_superblock(self._device, raw)
        self._device.sync()
        self._stored = bytes(raw)
