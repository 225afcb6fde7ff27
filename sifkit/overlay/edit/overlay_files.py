"""OverlayFiles: the files of an overlay that is edited, found by path, and copied up from lower layers to be changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import XattrError
from ext3.read.filesystem import Stat as InodeStat

from ...vfs.errors import TreePathError, unreadable_attributes
from ...vfs.file_tree import FileTree
from ...vfs.resolve import ResolvedPath, Resolver
from ...vfs.upper_view import find_upper
from ..view.tree_opening import upper_directory, upper_tree
from ..xattr_filter import ACLS
from .copy_up import CopyUp, store_attributes
from .edited_view import EditedView

__all__ = ["OverlayFiles"]


class OverlayFiles(Resolver[int]):
    """Files of an overlay that is open for changes, by paths of its filesystem, of ``upper`` or of a whole container.

    Nodes are inodes, and with ``lower`` layers those of an ``EditedView``: ``copy_up`` gives the inode to change, ``location``
    the directory and name.
    """

    def __init__(
        self,
        filesystem: WritableFilesystem,
        *,
        path: str | None = None,
        upper: bool = False,
        lower: Sequence[FileTree[Any]] | None = None,
    ) -> None:
        """``path``: the file that the filesystem is in. ``lower``: the layers below upper/, the lowest first.

        Raises MissingPathError for ``lower`` or ``upper`` without upper/.
        """
        self.path = path
        self.view: EditedView | None = None
        if lower is not None:
            self.view = EditedView(filesystem, upper_directory(filesystem).root, lower)
        super().__init__(self.view or (upper_tree(filesystem) if upper else filesystem))
        self.filesystem = filesystem
        self.upper = upper or lower is not None
        self.upper_ino = find_upper(filesystem)
        self.copier = None if self.view is None else CopyUp(filesystem, self.view)

    def stat(self, ino: int) -> InodeStat:
        inode = self.upper_inode(ino)
        if inode is not None:
            return self.filesystem.stat(inode)
        assert self.view is not None
        found = self.view.stat(ino)
        owner, times = (found.uid, found.gid), (found.atime, found.mtime, found.ctime)
        numbers = (found.size, found.links, found.blocks)
        return InodeStat(ino, found.mode, *owner, *numbers, *times, None, found.major, found.minor, 0, 0, 0)

    def upper_inode(self, ino: int) -> int | None:
        """Return the inode of a file in the image; None if only lower layers have it."""
        return ino if self.view is None else self.view.upper_inode(ino)

    def is_same(self, one: int, other: int) -> bool:
        """Return True for two names of one file."""
        return one == other if self.view is None else self.view.is_same(one, other)

    def copy_up(self, ino: int) -> int:
        """Return the inode of a file to change it, after copying it up if only lower layers have it.

        Raises TreePathError if a layer cannot be read, and errors of storing the file.
        """
        return ino if self.copier is None else self.copier.copy(ino)

    def location(self, path: ResolvedPath[int]) -> tuple[int, bytes]:
        """Return the inode of the directory that ``path`` is in, copied up, and the name in it."""
        return self.copy_up(path.parent), path.name

    def take_attributes(self, old: int, ino: int) -> None:
        """Set owner, mode and xattrs of a new file of the image that replaces a lower file ``old``, to be those of it."""
        assert self.copier is not None
        try:
            xattrs = self.copier.xattrs_of(old)
        except OSError as error:
            raise TreePathError(None, error.errno or errno.EIO, unreadable_attributes(error)) from error
        store_attributes(self.filesystem, ino, self.stat(old), xattrs)

    def name_copy(self, ino: int, parent: int, name: bytes) -> None:
        """Give a name to a file that stands for a lower one; its directory keeps its times."""
        assert self.copier is not None
        self.copier.give_name(ino, parent, name)

    def remove_xattr(self, ino: int, name: bytes) -> None:
        """Remove an xattr of a file. A lower file that does not have it is not copied up. Raises XattrError."""
        if self.copier is not None and self.upper_inode(ino) is None and name not in self.copier.xattrs_of(ino):
            if name in ACLS:
                return
            raise XattrError(name, "the attribute is not there", error=OSError(errno.ENODATA, os.strerror(errno.ENODATA)))
        self.filesystem.remove_xattr(self.copy_up(ino), name)

    @property
    def guesses_lower(self) -> bool:
        """True if the edits are those of a container whose lower layers are not known."""
        return self.upper and self.view is None

    def find_directory(self, path: bytes) -> tuple[ResolvedPath[int] | None, str]:
        """Resolve a path to a directory that exists; else None and the reason, as a system error."""
        try:
            found = self.resolve(path, follow=True)
        except TreePathError as error:  # also a link that leads to itself, which may be replaced
            return None, error.reason
        if found.node is None:
            return None, os.strerror(errno.ENOENT)
        return (found, "") if self.stat(found.node).is_dir else (None, os.strerror(errno.ENOTDIR))

    def is_outside_upper(self, path: ResolvedPath[int]) -> bool:
        """Return True if no container will see this path: the image has an upper/ and the path is elsewhere."""
        if self.upper or self.upper_ino is None:
            return False
        return self.upper_ino != path.node and self.upper_ino not in path.ancestors
