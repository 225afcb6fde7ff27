"""Problems of bitmaps and free counts.

Sums in the superblock are excused: the kernel keeps them up to date only while it unmounts.
"""

from __future__ import annotations

from ..problem import PreenAnswer, Problem

__all__ = [
    "BLOCK_BITMAP",
    "BLOCK_BITMAP_PADDING",
    "FREE_BLOCKS",
    "FREE_INODES",
    "GROUP_DIRECTORIES",
    "GROUP_FREE_BLOCKS",
    "GROUP_FREE_INODES",
    "INODE_BITMAP",
    "INODE_BITMAP_PADDING",
]

_SAFE = PreenAnswer.REPAIR

BLOCK_BITMAP = Problem("block-bitmap", "group {group}: block bitmap differs: {got}", "write it", preen=_SAFE)
INODE_BITMAP = Problem("inode-bitmap", "group {group}: inode bitmap differs: {got}", "write it", preen=_SAFE)
BLOCK_BITMAP_PADDING = Problem(
    "block-bitmap-padding", "padding of the block bitmap is not set in groups: {got}", "set it", preen=_SAFE
)
INODE_BITMAP_PADDING = Problem(
    "inode-bitmap-padding", "padding of the inode bitmap is not set in groups: {got}", "set it", preen=_SAFE
)
GROUP_FREE_BLOCKS = Problem(
    "group-free-blocks", "group {group}: free blocks count is {got}, want {want}", "set it", preen=_SAFE
)
GROUP_FREE_INODES = Problem(
    "group-free-inodes", "group {group}: free inodes count is {got}, want {want}", "set it", preen=_SAFE
)
GROUP_DIRECTORIES = Problem(
    "group-directories", "group {group}: directories count is {got}, want {want}", "set it", preen=_SAFE
)
FREE_BLOCKS = Problem("free-blocks", "free blocks count is {got}, want {want}", "set it", preen=_SAFE, excused=True)
FREE_INODES = Problem("free-inodes", "free inodes count is {got}, want {want}", "set it", preen=_SAFE, excused=True)
