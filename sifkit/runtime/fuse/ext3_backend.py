"""Writable backend of a FUSE server: an ext3 filesystem.

The id of a node is the generation of its inode and the number, so that an inode that was freed and used again is another node.
Inodes are held while the kernel knows them: a file without a name stays readable until it is closed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Self

from ext3 import WritableFilesystem
from ext3.constants import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from ext3.errors import NoSpaceError
from ext3.format.inode import Stat

from ...vfs.whiteouts import has_whiteout_prefix
from .backend import Attributes, Entry, FilesystemTotals, ListedName
from .overlay_marks import OPAQUE, opaque_value, remove_opaque, replace_marks, set_opaque, shown_xattrs
from .protocol import ROOT_ID, encode_device
from .work_files import WorkFiles

__all__ = ["Ext3Backend"]

ROOT_INO = 2
INO_BITS = 32
INO_MASK = (1 << INO_BITS) - 1
VALID_SECONDS = 86_400
BLOCK_SIZE = 4096
S_ISUID, S_ISGID, S_IXGRP = 0o4000, 0o2000, 0o010
DOTS = (b".", b"..")
_FORMAT_OF_TYPE = (0, 0o10, 0o04, 0o02, 0o06, 0o01, 0o14, 0o12)
"""Format bits of a mode, shifted right by 12, by the file type of a directory entry."""


class Ext3Backend:
    """Filesystem as a backend; ``close`` closes it.

    ``shown_owner``: the user and group that all files belong to in the mount, None: those they have. ``stored_owner``: those
    that new files get in the image, None: those of the program that makes them. Both are given in a user namespace with one
    id; files that nobody gives away keep the owner that they have in the image.
    ``work``: path of the work directory if the filesystem is the upper layer of an overlay of a plain user: an fsync below it
    commits nothing, for such a file has no name yet in any container, and the marks of removed files are translated.
    """

    def __init__(
        self,
        filesystem: WritableFilesystem,
        *,
        shown_owner: tuple[int, int] | None = None,
        stored_owner: tuple[int, int] | None = None,
        work: str | None = None,
    ) -> None:
        self.filesystem = filesystem
        self._shown_owner = shown_owner
        self._stored_owner = stored_owner
        self._work_path = None if work is None else [name for name in os.fsencode(work).split(b"/") if name]
        self._work = WorkFiles()
        self._counts: dict[int, int] = {}
        self._translated: set[int] = set()
        """Directories whose ``.wh.`` files are replaced."""

    @classmethod
    def open(
        cls,
        where: str | bytes | int,
        *,
        offset: int = 0,
        size: int | None = None,
        shown_owner: tuple[int, int] | None = None,
        stored_owner: tuple[int, int] | None = None,
        work: str | None = None,
    ) -> Self:
        """Open the filesystem in a file, or in an open one, at ``offset``. Locks are up to the caller."""
        if isinstance(where, int):
            from ext3.device.base import FileDevice

            filesystem = WritableFilesystem(FileDevice(where, offset, size), late_checkpoint=True)
        else:
            filesystem = WritableFilesystem.open_for_changes(where, offset=offset, size=size, late_checkpoint=True)
        return cls(filesystem, shown_owner=shown_owner, stored_owner=stored_owner, work=work)

    # The filesystem as a whole

    @property
    def valid_seconds(self) -> int:
        return VALID_SECONDS

    @property
    def unsynced(self) -> bool:
        return self.filesystem.unsynced

    def totals(self) -> FilesystemTotals:
        found = self.filesystem.statfs()
        size = self.filesystem.superblock.block_size
        return FilesystemTotals(
            found.total_bytes // size,
            found.free_bytes // size,
            found.available_bytes // size,
            found.inodes,
            found.free_inodes,
            size,
        )

    def sync(self, node: int, /) -> None:
        if self._ino(node) not in self._work:
            self.filesystem.sync()

    def commit(self) -> None:
        self.filesystem.sync()

    def close(self) -> None:
        self._counts.clear()
        self.filesystem.close()

    # Nodes

    def lookup(self, directory: int, name: bytes, /) -> Entry | None:
        above = self._directory(directory)
        ino = self.filesystem.find_name(above, name)
        return None if ino is None else self._entry(ino, above)

    def forget(self, node: int, count: int, /) -> None:
        left = self._counts.get(node)
        if left is None:
            return
        if left > count:
            self._counts[node] = left - count
            return
        del self._counts[node]
        ino = node & INO_MASK
        self._work.forget(ino)
        self._translated.discard(ino)
        self.filesystem.release(ino)

    def attributes(self, node: int, /) -> Attributes:
        return self._attributes(self._stat(self._ino(node)))

    def list_directory(self, node: int, /) -> Sequence[ListedName]:
        entries = self.filesystem.list_directory(self._directory(node)).entries
        return [ListedName(name, ino, _FORMAT_OF_TYPE[kind & 7]) for name, ino, kind in entries if name not in DOTS]

    def named_entry(self, directory: int, listed: ListedName, /) -> Entry | None:
        above = self._directory(directory)
        try:
            if self.filesystem.find_name(above, listed.name) != listed.ino:
                return None
            return self._entry(listed.ino, above)
        except OSError:  # the kernel asks for it by lookup, and the program that wants it gets the error
            return None

    def entry(self, directory: int, index: int, /) -> Entry | None:
        return self.named_entry(directory, self.list_directory(directory)[index])

    def _ino(self, node: int) -> int:
        if node == ROOT_ID:
            return ROOT_INO
        if node not in self._counts:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return node & INO_MASK

    def _directory(self, node: int) -> int:
        """Return the inode of a directory whose marks are those of the kernel."""
        ino = self._ino(node)
        if self._work_path is not None and ino not in self._translated:
            self._find_work()
            if ino not in self._work:
                replace_marks(self.filesystem, ino)
            self._translated.add(ino)
        return ino

    def _find_work(self) -> None:
        """Find the work directory, which is made before the overlay is mounted."""
        if self._work.top is not None or self._work_path is None:
            return
        ino: int | None = ROOT_INO
        for name in self._work_path:
            ino = None if ino is None else self.filesystem.find_name(ino, name)
        self._work.top = ino

    def _stat(self, ino: int) -> Stat:
        return self.filesystem.inode(ino).stat

    def _entry(self, ino: int, directory: int) -> Entry:
        """Return the node of an inode, counted, that a name in ``directory`` leads to."""
        stat = self._stat(ino)
        node = stat.generation << INO_BITS | ino
        known = self._counts.get(node)
        if known is None:
            self.filesystem.hold(ino)
        self._counts[node] = (known or 0) + 1
        if self._work_path is not None:
            self._work.note(ino, directory)
        return Entry(node, stat.generation, self._attributes(stat))

    def _attributes(self, stat: Stat) -> Attributes:
        uid, gid = self._shown_owner or (stat.uid, stat.gid)
        return Attributes(
            stat.ino,
            stat.size,
            stat.blocks,
            stat.atime,
            stat.mtime,
            stat.ctime,
            stat.mode,
            stat.links,
            uid,
            gid,
            encode_device(stat.major, stat.minor),
        )

    # Content and attributes

    def readlink(self, node: int, /) -> bytes:
        return self.filesystem.readlink(self._ino(node))

    def read(self, node: int, offset: int, size: int, /) -> bytes:
        return self.filesystem.read_at(self._ino(node), offset, size)

    def write(self, node: int, offset: int, data: memoryview, /, *, drop_set_id: bool) -> int:
        ino = self._ino(node)
        if drop_set_id:
            mode = self._stat(ino).mode
            kept = _without_set_id(mode)
            if kept != mode:
                self.filesystem.set_attributes(ino, mode=kept & 0o7777)
        try:
            self.filesystem.write_at(ino, offset, data)
        except NoSpaceError:
            written = self._write_part(ino, offset, data)
            if not written:
                raise
            return written
        return len(data)

    def _write_part(self, ino: int, offset: int, data: memoryview) -> int:
        """Write the beginning of data, as much as there is room for; return its length."""
        block = self.filesystem.superblock.block_size
        written, piece = 0, len(data) // 2
        while written < len(data):
            start = offset + written
            least = min(block - start % block, len(data) - written)  # to the end of one block
            length = max(least, min((start + piece) // block * block - start, len(data) - written))
            try:
                self.filesystem.write_at(ino, start, data[written : written + length])
            except NoSpaceError:
                if length == least:
                    break
                piece = length // 2
            else:
                written += length
        return written

    def set_attributes(
        self,
        node: int,
        /,
        *,
        mode: int | None,
        uid: int | None,
        gid: int | None,
        size: int | None,
        atime: int | None,
        mtime: int | None,
        drop_set_id: bool,
    ) -> Attributes:
        ino = self._ino(node)
        if self._stored_owner is not None:
            uid = None if uid is None else self._stored_owner[0]
            gid = None if gid is None else self._stored_owner[1]
        if drop_set_id and mode is None:
            now = self._stat(ino).mode
            kept = _without_set_id(now)
            mode = None if kept == now else kept & 0o7777
        self.filesystem.set_attributes(ino, mode=mode, uid=uid, gid=gid, size=size, atime=atime, mtime=mtime)
        return self._attributes(self._stat(ino))

    def xattrs(self, node: int, /) -> Mapping[bytes, bytes]:
        ino = self._ino(node)
        if self._work_path is None:
            return self.filesystem.xattrs(ino)
        if self._stat(ino).is_dir:
            self._directory(node)
        return shown_xattrs(self.filesystem.xattrs(ino))

    def xattr(self, node: int, name: bytes, /) -> bytes | None:
        ino = self._ino(node)
        if self._work_path is None:
            return self.filesystem.xattr(ino, name)
        if name == OPAQUE:
            if self._stat(ino).is_dir:
                self._directory(node)
            return opaque_value(self.filesystem, ino)
        return None if name.startswith(b"trusted.overlay.") else self.filesystem.xattr(ino, name)

    def set_xattr(self, node: int, name: bytes, value: bytes, /, *, create: bool, replace: bool) -> None:
        ino = self._ino(node)
        if self._work_path is not None and name == OPAQUE:
            set_opaque(self.filesystem, ino, value)
        else:
            self.filesystem.set_xattr(ino, name, value, create=create, replace=replace)

    def remove_xattr(self, node: int, name: bytes, /) -> None:
        ino = self._ino(node)
        if self._work_path is not None and name == OPAQUE:
            remove_opaque(self.filesystem, ino)
        else:
            self.filesystem.remove_xattr(ino, name)

    # Names

    def make_node(self, directory: int, name: bytes, mode: int, /, *, rdev: tuple[int, int], owner: tuple[int, int]) -> Entry:
        above = self._directory(directory)
        self._check_new(name)
        uid, gid = self._stored_owner or owner
        if mode & S_IFMT == S_IFDIR:
            ino = self.filesystem.mkdir_at(above, name, mode & 0o7777, uid=uid, gid=gid)
            self._find_work()
        else:
            mode = mode if mode & S_IFMT else mode | S_IFREG
            ino = self.filesystem.mknod_at(above, name, mode, rdev=rdev, uid=uid, gid=gid)
        return self._entry(ino, above)

    def make_link(self, directory: int, name: bytes, target: bytes, /, *, owner: tuple[int, int]) -> Entry:
        above = self._directory(directory)
        self._check_new(name)
        uid, gid = self._stored_owner or owner
        return self._entry(self.filesystem.symlink_at(target, above, name, uid=uid, gid=gid), above)

    def make_nameless(self, directory: int, mode: int, /, *, owner: tuple[int, int]) -> Entry:
        above = self._directory(directory)
        uid, gid = self._stored_owner or owner
        ino = self.filesystem.create_nameless(above, mode, uid=uid, gid=gid)
        try:
            return self._entry(ino, above)
        finally:
            self.filesystem.release(ino)  # the node holds it

    def link(self, node: int, directory: int, name: bytes, /) -> Entry:
        ino, above = self._ino(node), self._directory(directory)
        self._check_new(name)
        if self._stat(ino).links:
            self.filesystem.link_at(ino, above, name)
        else:
            self.filesystem.name_at(ino, above, name)
        return self._entry(ino, above)

    def unlink(self, directory: int, name: bytes, /) -> None:
        self.filesystem.unlink_at(self._directory(directory), name)

    def rmdir(self, directory: int, name: bytes, /) -> None:
        self.filesystem.rmdir_at(self._directory(directory), name)

    def rename(
        self,
        directory: int,
        name: bytes,
        new_directory: int,
        new_name: bytes,
        /,
        *,
        replace: bool,
        exchange: bool,
        whiteout: bool,
    ) -> None:
        old, new = self._directory(directory), self._directory(new_directory)
        if not exchange:
            self._check_new(new_name)
        self.filesystem.rename_at(old, name, new, new_name, exchange=exchange, replace=replace, whiteout=whiteout)
        if self._work_path is not None and old != new:
            for where, moved in ((new, new_name), (old, name)) if exchange else ((new, new_name),):
                ino = self.filesystem.find_name(where, moved)
                if ino is not None:
                    self._work.note(ino, where)

    def _check_new(self, name: bytes) -> None:
        """Refuse a name that the next overlay would take for a whiteout, as fuse-overlayfs does. Raises OSError (EINVAL)."""
        if self._work_path is not None and has_whiteout_prefix(name):
            raise OSError(errno.EINVAL, f"names that begin with .wh. are whiteouts: {os.fsdecode(name)!r}")


def _without_set_id(mode: int) -> int:
    """Return a mode without what a program that changes the content may not keep."""
    if mode & S_IFMT in (S_IFDIR, S_IFLNK):
        return mode
    return mode & ~(S_ISUID | (S_ISGID if mode & S_IXGRP else 0))
