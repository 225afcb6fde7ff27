"""Writable backend of a FUSE server: an ext3 filesystem, through its journal.

Node ids are generation and inode, so that an inode that is used again is another node. What the kernel knows of is held: a file
whose last name is removed lives until the kernel forgets it. Overlayfs of a plain user keeps its marks in ``user.overlay.*``,
that of root in ``trusted.overlay.*``: the former are shown, and the mark of opaque directories is stored as both.

An fsync below ``work/`` commits nothing: overlayfs is copying a file up there, and its data is on storage before the commit
that gives the file its name in ``upper/``.
"""

from __future__ import annotations

import stat as modes
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from ext3.device.base import FileDevice
from ext3.edit.filesystem import WritableFilesystem

from .backend import AttributeChanges, Attributes, Entry, FilesystemTotals, ListedName
from .protocol import ROOT_ID, encode_device

__all__ = ["Ext3Backend"]

ROOT_INODE = 2
INODE_MASK = 0xFFFF_FFFF
VALID_SECONDS = 3600
COMMIT_SECONDS = 5.0
"""Age of the oldest change that is not committed, at which all are."""
TRUSTED, USER = b"trusted.overlay.", b"user.overlay."
OPAQUE = b"opaque"
CAPABILITY = b"security.capability"
HIDDEN = (b"trusted.",)
"""Prefixes of attributes that a plain user may not see."""
_FORMAT_OF_TYPE = (0, 0o10, 0o04, 0o02, 0o06, 0o01, 0o14, 0o12)


class Ext3Backend:
    """Filesystem in ``size`` bytes at ``offset`` of the open file ``fd``.

    ``shown``: user and group that all files belong to, as the mount sees it; ``stored``: those of new files on disk.
    """

    def __init__(self, fd: int, offset: int, size: int, *, shown: tuple[int, int], stored: tuple[int, int]) -> None:
        """Recover the filesystem and open it. Raises Ext3Error."""
        self.filesystem = WritableFilesystem(FileDevice(fd, offset, size), late_checkpoint=True)
        self.shown = shown
        self.stored = stored
        self._counts: dict[int, int] = {}
        self._working: set[int] = set()
        self._oldest: float | None = None
        work = self.filesystem.find_name(ROOT_INODE, b"work")
        if work is not None:
            self._working.add(work)

    @property
    def valid_seconds(self) -> int:
        return VALID_SECONDS

    # Commits

    def commit(self) -> None:
        """Bring all changes to stable storage."""
        self.filesystem.sync()
        self._oldest = None

    def seconds_to_commit(self) -> float | None:
        """Return the seconds until ``commit`` is due, None without changes. Called after each request."""
        if not self.filesystem.unsynced:
            self._oldest = None
            return None
        now = time.monotonic()
        if self._oldest is None:
            self._oldest = now
        return max(0.0, self._oldest + COMMIT_SECONDS - now)

    def close(self) -> None:
        """Commit, empty the journal and mark the filesystem as clean."""
        self.filesystem.close()

    def fsync(self, node: int, /) -> None:
        if _inode(node) not in self._working:
            self.commit()

    # Nodes

    def lookup(self, directory: int, name: bytes, /) -> Entry | None:
        above = _inode(directory)
        ino = self.filesystem.find_name(above, name)
        if ino is None:
            return None
        if above in self._working:
            self._working.add(ino)
        return self._entry(ino)

    def forget(self, node: int, count: int, /) -> None:
        left = self._counts.get(node, 0) - count
        if left > 0:
            self._counts[node] = left
        elif self._counts.pop(node, None) is not None:
            ino = _inode(node)
            self._working.discard(ino)
            self.filesystem.release(ino)

    def _entry(self, ino: int) -> Entry:
        """Return the entry of an inode that is handed out to the kernel."""
        found = self.filesystem.stat(ino)
        node = found.generation << 32 | ino
        if node not in self._counts:
            self._counts[node] = 0
            self.filesystem.hold(ino)
        self._counts[node] += 1
        return Entry(node, 0, self._attributes_of(ino))

    def attributes(self, node: int, /) -> Attributes:
        return self._attributes_of(_inode(node))

    def _attributes_of(self, ino: int) -> Attributes:
        found = self.filesystem.stat(ino)
        return Attributes(
            found.ino,
            found.size,
            found.blocks,
            found.atime,
            found.mtime,
            found.ctime,
            found.mode,
            found.links,
            *self.shown,
            encode_device(found.major, found.minor),
        )

    # Reading

    def readlink(self, node: int, /) -> bytes:
        return self.filesystem.readlink(_inode(node))

    def read(self, node: int, offset: int, size: int, /) -> bytes:
        return self.filesystem.read_at(_inode(node), offset, size)

    def list_directory(self, node: int, /) -> Sequence[ListedName]:
        entries = self.filesystem.list_directory(_inode(node)).entries
        return [ListedName(name, ino, _FORMAT_OF_TYPE[kind & 7]) for name, ino, kind in entries if name not in (b".", b"..")]

    def entry(self, directory: int, listed: ListedName, /) -> Entry | None:
        with suppress(OSError):
            if self.filesystem.find_name(_inode(directory), listed.name) == listed.ino:
                return self.lookup(directory, listed.name)
        return None

    def xattr(self, node: int, name: bytes, /) -> bytes | None:
        ino = _inode(node)
        if name.startswith(HIDDEN):
            return None
        found = self.filesystem.xattr(ino, name)
        if found is None and name == USER + OPAQUE:
            found = self.filesystem.xattr(ino, TRUSTED + OPAQUE)
        return found

    def xattrs(self, node: int, /) -> Mapping[bytes, bytes]:
        found = self.filesystem.xattrs(_inode(node))
        shown = {name: value for name, value in found.items() if not name.startswith(HIDDEN)}
        if TRUSTED + OPAQUE in found:
            shown.setdefault(USER + OPAQUE, found[TRUSTED + OPAQUE])
        return shown

    def totals(self) -> FilesystemTotals:
        found = self.filesystem.statfs()
        size = self.filesystem.superblock.block_size
        blocks = (found.total_bytes - found.metadata_bytes) // size
        return FilesystemTotals(
            blocks, found.free_bytes // size, found.available_bytes // size, found.inodes, found.free_inodes, size
        )

    # Changes

    def set_attributes(self, node: int, changes: AttributeChanges, /) -> Attributes:
        ino = _inode(node)
        uid, gid = self.stored
        mode = changes.mode
        if mode is None and changes.clears_set_id:
            mode = self._mode_without_set_id(ino)
        self.filesystem.set_attributes(
            ino,
            mode=mode,
            uid=None if changes.uid is None else uid,
            gid=None if changes.gid is None else gid,
            size=changes.size,
            atime=changes.atime,
            mtime=changes.mtime,
        )
        return self._attributes_of(ino)

    def _mode_without_set_id(self, ino: int) -> int | None:
        """Return the permission bits of a file without set-id bits, None if it has none of them."""
        found = self.filesystem.stat(ino).mode
        is_set_gid = found & modes.S_ISGID and found & modes.S_IXGRP
        if not found & modes.S_ISUID and not is_set_gid:
            return None
        return modes.S_IMODE(found) & ~(modes.S_ISUID | (modes.S_ISGID if is_set_gid else 0))

    def write(self, node: int, offset: int, data: memoryview, clears_set_id: bool, /) -> None:
        ino = _inode(node)
        if clears_set_id:
            mode = self._mode_without_set_id(ino)
            if mode is not None:
                self.filesystem.set_attributes(ino, mode=mode)
            if self.filesystem.xattr(ino, CAPABILITY) is not None:
                self.filesystem.remove_xattr(ino, CAPABILITY, follow=False)
        self.filesystem.write_at(ino, offset, data)

    def make_node(self, directory: int, name: bytes, mode: int, device: tuple[int, int], /) -> Entry:
        uid, gid = self.stored
        above = _inode(directory)
        return self._made(above, self.filesystem.mknod_at(above, name, mode, rdev=device, uid=uid, gid=gid))

    def make_directory(self, directory: int, name: bytes, mode: int, /) -> Entry:
        uid, gid = self.stored
        above = _inode(directory)
        return self._made(above, self.filesystem.mkdir_at(above, name, mode, uid=uid, gid=gid))

    def make_symlink(self, directory: int, name: bytes, target: bytes, /) -> Entry:
        uid, gid = self.stored
        above = _inode(directory)
        return self._made(above, self.filesystem.symlink_at(target, above, name, uid=uid, gid=gid))

    def _made(self, above: int, ino: int) -> Entry:
        if above in self._working:
            self._working.add(ino)
        return self._entry(ino)

    def link(self, node: int, directory: int, name: bytes, /) -> Entry:
        ino, above = _inode(node), _inode(directory)
        self.filesystem.link_at(ino, above, name)
        if above not in self._working:
            self._working.discard(ino)
        return self._entry(ino)

    def unlink(self, directory: int, name: bytes, /) -> None:
        self.filesystem.unlink_at(_inode(directory), name)

    def rmdir(self, directory: int, name: bytes, /) -> None:
        self.filesystem.rmdir_at(_inode(directory), name)

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
        old, new = _inode(directory), _inode(new_directory)
        moved = {new: self.filesystem.find_name(old, name)}
        if exchange:
            moved[old] = self.filesystem.find_name(new, new_name)
        self.filesystem.rename_at(old, name, new, new_name, exchange=exchange, replace=replace, whiteout=whiteout)
        for above, ino in moved.items():
            if ino is not None:
                (self._working.add if above in self._working else self._working.discard)(ino)

    def set_xattr(self, node: int, name: bytes, value: bytes, /, *, create: bool, replace: bool) -> None:
        ino = _inode(node)

        def change() -> None:
            self.filesystem.set_xattr(ino, name, value, create=create, replace=replace, follow=False)
            if name == USER + OPAQUE:
                self.filesystem.set_xattr(ino, TRUSTED + OPAQUE, value, follow=False)

        self.filesystem.atomically(change)

    def remove_xattr(self, node: int, name: bytes, /) -> None:
        ino = _inode(node)

        def change() -> None:
            if name == USER + OPAQUE and self.filesystem.xattr(ino, TRUSTED + OPAQUE) is not None:
                self.filesystem.remove_xattr(ino, TRUSTED + OPAQUE, follow=False)
                if self.filesystem.xattr(ino, name) is None:
                    return
            self.filesystem.remove_xattr(ino, name, follow=False)

        self.filesystem.atomically(change)


def _inode(node: int) -> int:
    return ROOT_INODE if node == ROOT_ID else node & INODE_MASK
