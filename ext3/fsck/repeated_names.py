"""Names that are twice in a directory: of two entries that lead to one inode the second goes, otherwise it is renamed.

Source: e2fsprogs ``e2fsck/rehash.c`` (duplicate_search_and_fix).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..constants import NAME_MAX, InodeFlag
from ..errors import show
from ..format.dirent import DOTS, DirentFields, read_dirents
from ..format.dirent_block import set_inode
from ..format.schema import DIRENT
from .context import Context
from .directory_content import DirectoryContent, directory_map
from .directory_index import drop_index
from .problem import Place
from .problems import directories as problems

__all__ = ["change_names", "separate_names"]

HEAD = DIRENT.size


def separate_names(context: Context, ino: int, content: DirectoryContent) -> dict[int, bytes | None]:
    """Report every entry of a name but the first. Return the new names by the entries' places in the columns, None to delete.

    The census no longer counts entries to delete. What was refused is left out.
    """
    names: set[bytes] = set()
    repeated: set[bytes] = set()
    for name in content.names:
        (repeated if name in names else names).add(name)
    inodes = content.inodes.tolist()
    seen: dict[bytes, set[int]] = {}
    numbers: dict[bytes, int] = {}
    changes: dict[int, bytes | None] = {}
    for at, name in enumerate(content.names):
        if name not in repeated:
            continue
        child = inodes[at]
        others = seen.setdefault(name, set())
        place = Place(ino=child, name=name, parent=ino)
        if child in others:
            if context.fix(problems.ENTRY_DUPLICATE, place):
                context.census.names[child] -= 1
                changes[at] = None
        elif others:
            number, other = _free_name(name, names, numbers.get(name, 0), NAME_MAX)
            if context.fix(problems.ENTRY_NAME_TWICE, place, want=show(other)):
                names.add(other)
                numbers[name] = number + 1
                changes[at] = other
        others.add(child)
    return changes


def _free_name(name: bytes, names: set[bytes], number: int, limit: int) -> tuple[int, bytes]:
    """Return the first name like ``name`` with a number from ``number`` on that is not among ``names``, and its number.

    It has ``limit`` bytes at most, unless the number alone is longer.
    """
    while True:
        suffix = b"~%d" % number
        other = name[: max(0, limit - len(suffix))] + suffix
        if other not in names:
            return number, other
        number += 1


def change_names(context: Context, ino: int, content: DirectoryContent, changes: Mapping[int, bytes | None]) -> None:
    """Make the changes of ``separate_names`` where the entries lie, without a new block.

    A name that is too long for its record becomes a shorter one; if there is none, the entry is left as it is and reported.
    """
    names = {*content.names, *(name for name in changes.values() if name)}
    if content.flags & InodeFlag.INDEX and any(changes.values()):
        drop_index(context, ino)
    inodes = context.superblock.inodes_count
    at = 0
    for first_logical, first, count in directory_map(context, ino, content.raw).runs(0, content.blocks) if changes else ():
        for logical, block in zip(range(first_logical, first_logical + count), range(first, first + count), strict=True):
            data = context.read(block)
            records: list[DirentFields] = []
            read_dirents(data, logical, records, inodes=inodes, where=f"directory inode {ino}")
            for offset, child, rec_len, file_type, name in records if logical else records[len(DOTS) :]:
                if at in changes:
                    other = changes[at]
                    if other is None:
                        data = set_inode(data, offset, 0, 0)
                    else:
                        if HEAD + len(other) > rec_len:
                            _, other = _free_name(name, names, 0, rec_len - HEAD)
                        if HEAD + len(other) > rec_len:
                            context.leave(problems.NAME_NOT_CHANGED, Place(ino=child, name=name, parent=ino))
                        else:
                            names.add(other)
                            record = DIRENT.packer.pack(child, rec_len, len(other), file_type) + other
                            data = data[:offset] + record + data[offset + len(record) :]
                at += 1
            if data != context.read(block):
                context.write(block, data)
