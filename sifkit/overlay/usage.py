"""Space used in an image: totals of the filesystem (df) and of directories (du)."""

from __future__ import annotations

from dataclasses import dataclass

from ext3.errors import Ext3Error
from ext3.read.filesystem import Filesystem

from .view import View

__all__ = ["ImageUsage", "directory_usage", "image_usage"]


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """Totals of a filesystem. ``used_bytes`` includes metadata and journal; ``available_bytes`` is what users may allocate."""

    size_bytes: int
    used_bytes: int
    free_bytes: int
    available_bytes: int
    inodes: int
    inodes_used: int
    inodes_free: int


def image_usage(filesystem: Filesystem) -> ImageUsage:
    """Return the totals of the superblock, clamped to possible values."""
    found = filesystem.superblock
    total = found.blocks_count * found.block_size
    free = min(found.free_blocks * found.block_size, total)
    reserved = min(found.reserved_blocks * found.block_size, free)
    free_inodes = min(found.free_inodes, found.inodes_count)
    return ImageUsage(
        total, total - free, free, free - reserved, found.inodes_count, found.inodes_count - free_inodes, free_inodes
    )


def directory_usage(
    view: View, path: bytes, top: int, *, all_files: bool, problems: list[Exception], seen: set[int]
) -> list[tuple[bytes, int, int, bool]]:
    """Return (path, bytes allocated, inodes, is a directory) of ``path`` (inode ``top``) and everything below, children first.

    A directory's numbers include those below it. Inodes in ``seen`` are not counted again; inodes counted are added to it.
    With ``all_files`` files have rows too.
    """
    if top in seen:
        return []
    found = view.filesystem.stat(top)
    if not found.is_dir:
        seen.add(top)
        return [(path, found.blocks * 512, 1, False)]
    base = path.rstrip(b"/")
    rows: list[tuple[bytes, int, int, bool]] = []
    totals: list[list[int]] = [[found.blocks * 512, 1]]
    """Bytes and inodes of the open directories; 0 inodes: counted before."""
    names: list[bytes] = [base]
    seen.add(top)

    def leave() -> None:
        size, count = totals.pop()
        name = names.pop() or b"/"
        if count:
            rows.append((name, size, count, True))
        if totals:
            totals[-1][0] += size
            totals[-1][1] += count

    for entry_path, entry in view.walk(path, top, problems):
        parent = entry_path[: -len(entry.name) - 1]
        while names[-1] != parent:
            leave()
        stat = entry.stat
        if isinstance(stat, Ext3Error):
            problems.append(stat)
            size, count, is_dir = 0, 0, False
        else:
            size, count = (0, 0) if entry.ino in seen else (stat.blocks * 512, 1)
            is_dir = stat.is_dir
        seen.add(entry.ino)
        if is_dir:
            names.append(entry_path)
            totals.append([size, count])
            continue
        totals[-1][0] += size
        totals[-1][1] += count
        if all_files and count:
            rows.append((entry_path, size, count, False))
    while names:
        leave()
    return rows
