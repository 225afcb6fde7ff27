"""Problems of passes 1B to 1D: blocks with several owners."""

from __future__ import annotations

from ..problem import Problem

SHARED_BLOCKS = Problem("blocks-shared", "inode {ino}: blocks shared with {want}: {got}", "copy them")
SHARED_DEALT = Problem(
    "blocks-shared-dealt", "inode {ino}: the other owners of blocks it shared got copies; blocks: {got}", note=True
)
COPY_FAILED = Problem("blocks-shared-no-space", "inode {ino}: no space to copy the shared blocks; needed: {got}", note=True)
COPY_UNREADABLE = Problem("blocks-shared-unreadable", "inode {ino}: block {block} cannot be read; its copy is zero", note=True)
DELETE_OWNER = Problem("blocks-shared-delete", "inode {ino}: blocks still shared with {want}: {got}", "delete it")
RESIZE_INODE_SHARED = Problem("resize-inode-shared", "inode 7: block {block} of the resize inode is in use", "rebuild it")
