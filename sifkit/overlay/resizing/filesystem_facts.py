"""Facts of a filesystem that a command changes as a whole: its size and use, before and after."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from ext3.errors import Ext3Error
from ext3.read.filesystem import Filesystem

__all__ = ["FilesystemFacts", "facts_of", "journal_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemFacts:
    """Size and use of a filesystem, sizes in bytes. ``file_bytes``: of its file or partition, which may be larger."""

    file_bytes: int
    size_bytes: int
    used_bytes: int
    free_bytes: int
    inodes: int
    inodes_used: int
    block_size: int
    inode_size: int
    journal_bytes: int
    groups: int
    uuid: UUID


def facts_of(filesystem: Filesystem, file_bytes: int) -> FilesystemFacts:
    """Return the facts of an open filesystem in a file or partition of ``file_bytes``."""
    found = filesystem.superblock
    return FilesystemFacts(
        file_bytes=file_bytes,
        size_bytes=found.size_bytes,
        used_bytes=found.size_bytes - found.free_blocks * found.block_size,
        free_bytes=found.free_blocks * found.block_size,
        inodes=found.inodes_count,
        inodes_used=found.inodes_count - found.free_inodes,
        block_size=found.block_size,
        inode_size=found.inode_size,
        journal_bytes=journal_bytes(filesystem),
        groups=found.groups_count,
        uuid=found.uuid,
    )


def journal_bytes(filesystem: Filesystem) -> int:
    """Return the size of the journal; 0 without one."""
    found = filesystem.superblock
    if found.has_journal and found.journal_ino:
        with suppress(Ext3Error):
            return filesystem.stat(found.journal_ino).size
    return 0
