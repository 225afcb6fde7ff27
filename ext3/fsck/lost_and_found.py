"""Lost and found: the directory for inodes that lost their names, found or created; each is named there ``#`` and its number.

Source: e2fsprogs ``e2fsck/pass3.c`` (e2fsck_get_lost_and_found, e2fsck_reconnect_file).
"""

from __future__ import annotations

from ..constants import ROOT_INO, S_IFDIR, SECTOR
from ..errors import CorruptError, NoSpaceError
from ..format.dirent_block import new_directory_block
from ..format.inode import InodeRecord
from ..format.inode_fields import SECOND
from .context import Context, GaveUp
from .directory_names import DirectoryNames, change_inode
from .problem import Place
from .problems.structure import (
    LOST_FOUND_FAILED,
    LOST_FOUND_FULL,
    LOST_FOUND_MISSING,
    LOST_FOUND_NOT_DIRECTORY,
)

__all__ = ["LostAndFound", "create_directory", "set_links", "set_parent"]

NAME = b"lost+found"


def set_links(context: Context, ino: int, links: int) -> None:
    """Set the link count of an inode."""
    context.census.links[ino] = links
    change_inode(context, ino, i_links_count=links)


def set_parent(context: Context, ino: int, parent: int) -> bool:
    """Set ``..`` of a directory, and the counts that follow. Return False if it has none, or a damaged map."""
    try:
        if not DirectoryNames(context, ino).set_parent(parent):
            return False
    except CorruptError:
        return False
    census, before = context.census, int(context.dotdot[ino])
    if 0 < before < len(census.names) and census.names[before]:
        census.names[before] -= 1
    census.names[parent] += 1
    context.dotdot[ino] = parent
    return True


def create_directory(context: Context, ino: int, mode: int) -> None:
    """Write the record and the block of a new directory in the root, or of the root. Raises NoSpaceError.

    It counts as named by its ``.`` alone; two links are stored.
    """
    superblock, census, size = context.superblock, context.census, context.block_size
    block = context.allocate_block(0)
    record = InodeRecord.new(superblock.inode_size, mode=mode, uid=0, gid=0, now=context.now * SECOND, generation=0)
    record.size, record.links, record.sectors = size, 2, size // SECTOR
    record.i_block = (block, *record.i_block[1:])
    context.write(block, new_directory_block(ino, ROOT_INO, block_size=size, filetype=superblock.has_filetype))
    context.write_inode(ino, record.pack())
    census.mode[ino], census.links[ino], census.names[ino] = mode, 2, 1
    context.parent[ino] = context.dotdot[ino] = ROOT_INO


class LostAndFound:
    """Directory /lost+found. To be used within one pass, after the names that ``..`` are were counted."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory: DirectoryNames | None = None
        self._failed = ""
        """Why there is none."""
        self._taken: set[bytes] | None = None
        """Names there that begin with ``#``."""

    def link(self, ino: int) -> bool:
        """Name an inode there, and set ``..`` of a directory. Return False, reported, if that is not possible."""
        try:
            if self.ensure():
                self._link(ino)
                return True
        except (NoSpaceError, CorruptError) as error:
            self._failed = error.message
        self._context.leave(LOST_FOUND_FAILED, Place(ino=ino), got=self._failed)
        return False

    def _link(self, ino: int) -> None:
        context, directory = self._context, self._directory
        assert directory is not None
        if ino == directory.ino:
            raise CorruptError(f"directory inode {ino}", "name", "none", "lost+found")
        name = self._new_name(ino)
        if not directory.add(name, ino):
            if not context.fix(LOST_FOUND_FULL, Place(ino=directory.ino)):
                raise CorruptError("/lost+found", "size", "full", "room for a name")
            directory.add_block(name, ino)
        context.census.names[ino] += 1
        if context.census.is_dir(ino):
            context.parent[ino] = directory.ino
            if set_parent(context, ino, directory.ino):
                set_links(context, directory.ino, min(int(context.census.links[directory.ino]) + 1, 0xFFFF))

    def _new_name(self, ino: int) -> bytes:
        assert self._directory is not None
        if self._taken is None:
            self._taken = {name for name in self._directory.names() if name.startswith(b"#")}
        name, number = b"#%d" % ino, 0
        while name in self._taken:
            number += 1
            name = b"#%d~%d" % (ino, number)
        self._taken.add(name)
        return name

    def ensure(self) -> bool:
        """Find the directory, or create it. Return False if it is missing and stays so, or if damage was left in it."""
        if self._directory is None and not self._failed:
            try:
                ino = self._find_or_create()
                if ino:
                    self._directory = DirectoryNames(self._context, ino)
                    self._context.lost_and_found = ino
            except CorruptError as error:
                self._failed = error.message
        return self._directory is not None

    def _find_or_create(self) -> int:
        """Return its inode, 0 with the reason in ``_failed``."""
        context = self._context
        root = DirectoryNames(context, ROOT_INO)
        found = root.find(NAME)
        if found is not None and found.ino < len(context.census.mode) and context.census.is_dir(found.ino):
            return found.ino
        self._failed = "there is no /lost+found"
        if found is not None:
            if not context.fix(LOST_FOUND_NOT_DIRECTORY, Place(ino=found.ino, parent=ROOT_INO, name=NAME)):
                return 0
            root.remove(found)
            if found.ino < len(context.census.names) and context.census.names[found.ino]:
                context.census.names[found.ino] -= 1
        if not context.fix(LOST_FOUND_MISSING, Place(parent=ROOT_INO, name=NAME)):
            return 0
        try:
            ino = self._create(root)
        except (NoSpaceError, GaveUp) as error:
            self._failed = str(error)
            context.leave(LOST_FOUND_FAILED, Place(ino=ROOT_INO), got=self._failed)
            return 0
        self._failed = ""
        return ino

    def _create(self, root: DirectoryNames) -> int:
        context = self._context
        mode = S_IFDIR | 0o700
        ino = context.allocate_inode(mode)
        try:
            if not root.add(NAME, ino):
                root.add_block(NAME, ino)
        except (CorruptError, NoSpaceError):
            context.free_inode(ino)
            raise
        try:
            create_directory(context, ino, mode)
        except NoSpaceError:
            name = root.find(NAME)
            if name is not None:
                root.remove(name)
            context.free_inode(ino)
            raise
        context.census.names[ino] += 1
        context.census.names[ROOT_INO] += 1
        set_links(context, ROOT_INO, min(int(context.census.links[ROOT_INO]) + 1, 0xFFFF))
        return ino
