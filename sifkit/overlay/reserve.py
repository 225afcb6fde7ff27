"""Blocks reserved for root, and what they leave to a container that runs without root.

Apptainer without root mounts an overlay with fuse2fs, which takes a reserve of 0 blocks for 10 % of the filesystem. Source:
e2fsprogs ``misc/fuse2fs.c`` (op_statfs, fs_can_allocate), tried with 1.47.0 and 1.47.4.
"""

from __future__ import annotations

__all__ = ["user_bytes"]


def user_bytes(*, blocks: int, free: int, reserved: int, block_size: int) -> int:
    """Return how many bytes of the ``free`` blocks a container can write without root; all counts in blocks."""
    return max(0, free - (reserved or blocks // 10)) * block_size
