"""Writable backend of a FUSE server: an ext3 filesystem, through its journal.

Node ids are generation and inode, so that an inode that is used again is another node. What the kernel knows of is held: a file
whose last name is removed lives until the kernel forgets it. Overlayfs of a plain user keeps its marks in ``user.overlay.*``,
that of root in ``trusted.overlay.*``: the former are shown, and the mark of opaque directories is stored as both.
Marks of fuse-overlayfs are replaced where a directory is looked into; see ``overlay_marks``.

An fsync below ``work/`` commits nothing: overlayfs is copying a file up there, and its data is on storage before the commit
that gives the file its name in ``upper/``.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from ext3.edit.inode_filesystem import InodeFilesystem
from ext3.errors import NoSpaceError
from ext3.format.indirect_blocks import file_limit
from ext3.format.inode import Stat

from ...vfs.whiteouts import has_whiteout_prefix
from .backend import AttributeChanges, Attributes, Entry, FilesystemTotals, ListedName, format_bits, is_shown_xattr
from .image_device import ImageDevice
from .overlay_marks import OPAQUE, mark_value, opaque_value, remove_opaque, replace_marks, set_opaque, shown_xattrs
from .protocol import ROOT_ID, encode_device
from .removed_names import OVERLAY_MARKS
from .work_files import WorkFiles

__all__ = ["Ext3Backend"]

T = TypeVar("T")
ROOT_INODE = 2
INODE_MASK = 0xFFFF_FFFF
VALID_SECONDS = 3600
POINTER_BLOCKS = 3
"""Levels of blocks that point to others, above the first 256 blocks of content that are added."""
KEPT_BLOCKS = 16
"""Least number of free blocks that content and directories leave: the next overlay makes a work directory in this one, and
whoever frees space by removing files needs some for whiteouts."""
KEPT_INODES, KEPT_SHARE = 16, 16
"""Least number of free inodes that files leave, likewise, or this part of all if that is less."""
WORK_BLOCKS, WORK_INODES = 6, 3
"""Blocks and inodes that whiteouts leave as well: for the work directories that overlayfs makes anew at each start."""
MOUNT_FILES = 4
"""Files that overlayfs makes below its work directory when it is mounted, to see what the filesystem can do."""
NAME_BLOCKS = 2
"""Blocks that a directory may need for another name."""
MOST_ADDED = 16
"""Blocks that no change of names or xattrs adds to an inode."""


class Ext3Backend:
    """Filesystem in ``size`` bytes at ``offset`` of the open file ``fd``.

    ``shown``: user and group that all files belong to, as the mount sees it; ``stored``: those of new files on disk.
    ``has_tmpfile``: overlayfs may make files without a name, in ``work``, and offers them to programs then.
    """

    def __init__(
        self,
        fd: int,
        offset: int,
        size: int,
        *,
        shown: tuple[int, int],
        stored: tuple[int, int],
        work: str = "work",
        has_tmpfile: bool = True,
    ) -> None:
        """Recover the filesystem and open it. Raises Ext3Error.

        ``work``: path of the directory where overlayfs works; empty if none lies above: then there are no marks, and
        everything may be filled.
        """
        self.filesystem = InodeFilesystem(ImageDevice(fd, offset, size), late_checkpoint=True)
        self._block_size = self.filesystem.superblock.block_size
        self._largest_file = file_limit(self._block_size)
        superblock = self.filesystem.superblock
        self._has_overlay = bool(work)
        self._kept = max(KEPT_BLOCKS if work else 0, superblock.reserved_blocks)
        self._mount_files = MOUNT_FILES
        self._kept_inodes = min(KEPT_INODES, superblock.inodes_count // KEPT_SHARE) if work else 0
        self.shown = shown
        self.stored = stored
        self._counts: dict[int, int] = {}
        self._work_path = [name for name in os.fsencode(work).split(b"/") if name]
        self._working = WorkFiles()
        self._has_tmpfile = has_tmpfile
        self._cleared: set[int] = set()
        """Directories without marks of fuse-overlayfs."""

    @property
    def valid_seconds(self) -> int:
        return VALID_SECONDS

    # Commits

    def commit(self) -> None:
        """Bring all changes to stable storage."""
        self.filesystem.sync()

    def has_changes(self) -> bool:
        """Return True if there is something to commit."""
        return self.filesystem.unsynced

    def close(self) -> None:
        """Commit, empty the journal and mark the filesystem as clean.

        Raises OSError, also if a commit failed earlier: the changes since the one before are lost.
        """
        is_usable = self.filesystem.usable
        self.filesystem.close()
        if not is_usable:
            raise OSError(errno.EIO, "changes are lost, since a write to the image's file failed")

    def fsync(self, node: int, /) -> None:
        if self._inode(node) not in self._working:
            self.commit()

    # Nodes

    def lookup(self, directory: int, name: bytes, /) -> Entry | None:
        above = self._directory(directory)
        ino = self.filesystem.find_name(above, name)
        return None if ino is None else self._entry(above, ino)

    def forget(self, node: int, count: int, /) -> None:
        left = self._counts.get(node, 0) - count
        if left > 0:
            self._counts[node] = left
        elif self._counts.pop(node, None) is not None:
            ino = node & INODE_MASK
            self._working.forget(ino)
            self._cleared.discard(ino)
            self.filesystem.release(ino)

    def _entry(self, above: int, ino: int) -> Entry:
        """Return the entry of an inode in directory ``above`` that is handed out to the kernel."""
        found = self.filesystem.stat(ino)
        node = _node(found)
        if node not in self._counts:
            self.filesystem.hold(ino)
        self._counts[node] = self._counts.get(node, 0) + 1
        self._working.note(ino, above)
        return Entry(node, 0, self._shown(found))

    def is_known(self, node: int, /) -> bool:
        return node in self._counts

    def has_removed(self) -> bool:
        return self.filesystem.usable and self.filesystem.has_orphans

    def is_private(self, directory: int, /) -> bool:
        return self._inode(directory) in self._working

    def again(self, node: int, /) -> Entry:
        found = self.filesystem.stat(self._inode(node))
        self._counts[node] += 1
        return Entry(node, 0, self._shown(found))

    def _linked_node(self, directory: int, name: bytes) -> int | None:
        """Return the node of a file that has other names, if the kernel has it. Those of whiteouts are not used."""
        ino = self.filesystem.find_name(directory, name)
        found = None if ino is None else self.filesystem.stat(ino)
        if found is None or found.links < 2 or modes.S_ISDIR(found.mode):
            return None
        if _is_whiteout(found):
            return None
        return _node(found) if _node(found) in self._counts else None

    def _inode(self, node: int) -> int:
        """Return the inode of a node that was handed out. Raises OSError (ESTALE)."""
        if node == ROOT_ID:
            return ROOT_INODE
        if node not in self._counts:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return node & INODE_MASK

    def _directory(self, node: int) -> int:
        """Return the inode of a directory to look into, without marks of fuse-overlayfs."""
        ino = self._inode(node)
        if self._has_overlay and ino not in self._cleared:
            self._find_work()
            if ino not in self._working:
                replace_marks(self.filesystem, ino)
            self._cleared.add(ino)
        return ino

    def _find_work(self) -> None:
        """Find the work directory, which may be made after the start, before overlayfs is mounted."""
        if self._has_overlay and self._working.top is None:
            ino: int | None = ROOT_INODE
            for name in self._work_path:
                ino = None if ino is None else self.filesystem.find_name(ino, name)
            self._working.top = ino

    def attributes(self, node: int, /) -> Attributes:
        return self._shown(self.filesystem.stat(self._inode(node)))

    def _shown(self, found: Stat) -> Attributes:
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
        return self.filesystem.readlink(self._inode(node))

    def read(self, node: int, offset: int, size: int, /) -> bytes:
        return self.filesystem.read_at(self._inode(node), offset, size)

    def data_ranges(self, node: int, /) -> Sequence[tuple[int, int]]:
        return self.filesystem.data_ranges_at(self._inode(node))

    def list_directory(self, node: int, /) -> Sequence[ListedName]:
        entries = self.filesystem.list_directory(self._directory(node)).entries
        return [ListedName(name, ino, format_bits(kind)) for name, ino, kind in entries if name not in (b".", b"..")]

    def entry(self, directory: int, listed: ListedName, /) -> Entry | None:
        with suppress(OSError):
            above = self._directory(directory)
            if self.filesystem.find_name(above, listed.name) == listed.ino:
                return self._entry(above, listed.ino)
        return None

    def xattr(self, node: int, name: bytes, /) -> bytes | None:
        if not is_shown_xattr(name, self.shown[0]):
            return None
        if not self._has_overlay:
            return self.filesystem.xattr(self._inode(node), name)
        if name == OPAQUE:
            return opaque_value(self.filesystem, self._marked(node))
        return mark_value(self.filesystem, self._inode(node), name)

    def xattrs(self, node: int, /) -> Mapping[bytes, bytes]:
        found = self.filesystem.xattrs(self._marked(node))
        shown = shown_xattrs(found) if self._has_overlay else found
        return {name: value for name, value in shown.items() if is_shown_xattr(name, self.shown[0])}

    def _marked(self, node: int) -> int:
        """Return an inode whose xattrs are the kernel's marks, also if fuse-overlayfs made a directory opaque by a file."""
        ino = self._inode(node)
        return self._directory(node) if modes.S_ISDIR(self.filesystem.stat(ino).mode) else ino

    def totals(self) -> FilesystemTotals:
        found = self.filesystem.statfs()
        size = self._block_size
        blocks = (found.total_bytes - found.metadata_bytes) // size
        free = found.free_bytes // size
        free_inodes = max(0, found.free_inodes - self._kept_inodes)
        return FilesystemTotals(blocks, free, max(0, free - self._kept), found.inodes, free_inodes, size)

    # Changes

    def set_attributes(self, node: int, changes: AttributeChanges, /) -> Attributes:
        ino = self._inode(node)
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
        return self._shown(self.filesystem.stat(ino))

    def _mode_without_set_id(self, ino: int) -> int | None:
        """Return the permission bits of a file without set-id bits, None if it has none of them."""
        found = self.filesystem.stat(ino).mode
        is_set_gid = found & modes.S_ISGID and found & modes.S_IXGRP
        if not found & modes.S_ISUID and not is_set_gid:
            return None
        return modes.S_IMODE(found) & ~(modes.S_ISUID | (modes.S_ISGID if is_set_gid else 0))

    def write(self, node: int, offset: int, data: memoryview, clears_set_id: bool, /) -> int:
        ino = self._inode(node)
        if offset < self._largest_file:
            data = data[: self._largest_file - offset]
        mode = self._mode_without_set_id(ino) if clears_set_id else None
        if mode is not None:
            self.filesystem.set_attributes(ino, mode=mode)
        if self._has_room(len(data) // self._block_size + 2):
            self.filesystem.write_at(ino, offset, data)
            return len(data)
        written = self._write_part(ino, offset, data)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    def _write_part(self, ino: int, offset: int, data: memoryview) -> int:
        """Write the beginning of data, as much as there is room for; return its length. What was there is written over."""
        block = self._block_size
        ranges = [(at // block, -(-(at + size) // block)) for at, size in self.filesystem.data_ranges_at(ino)]
        written, piece = 0, len(data)
        while written < len(data):
            start = offset + written
            least = min(block - start % block, len(data) - written)  # to the end of one block
            length = max(least, min((start + piece) // block * block - start, len(data) - written))
            first, end = start // block, -(-(start + length) // block)
            there = sum(max(0, min(end, last) - max(first, low)) for low, last in ranges)
            if there == end - first or self._has_room(end - first - there):
                try:
                    self.filesystem.write_at(ino, start, data[written : written + length])
                except NoSpaceError:  # there is less than was thought: what was written counts
                    break
                written += length
            elif length == least:
                break
            else:
                piece = length // 2
        return written

    def _has_room(self, blocks: int) -> bool:
        """Return whether so many blocks of content, and those that point to them, leave what must stay free."""
        return self.filesystem.free_counts[0] - blocks - blocks // 256 - POINTER_BLOCKS >= self._kept

    def _check_room(self, above: int, blocks: int = NAME_BLOCKS, *, is_mark: bool = False) -> None:
        """Raise OSError (ENOSPC) if a new file in directory ``above`` takes what must stay free. ``is_mark``: a whiteout."""
        if self._has_overlay and above in (ROOT_INODE, self._working.top):  # directories of overlayfs itself
            return
        if self._mount_files and above in self._working:
            self._mount_files -= 1
            return
        free_blocks, free_inodes = self.filesystem.free_counts
        kept, kept_inodes = (WORK_BLOCKS, WORK_INODES) if is_mark else (self._kept, self._kept_inodes)
        if free_blocks - blocks < min(kept, self._kept) or free_inodes <= min(kept_inodes, self._kept_inodes):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _within_room(self, ino: int, change: Callable[[], T], *, is_mark: bool) -> T:
        """Run a change that may add blocks to an inode, unless it takes what must stay free: then raise OSError (ENOSPC).

        ``is_mark``: overlayfs needs it to remove files.
        """
        is_own = self._has_overlay and (ino == ROOT_INODE or ino in self._working)
        if is_own or self.filesystem.free_counts[0] >= self._kept + MOST_ADDED:
            return change()
        kept = min(WORK_BLOCKS, self._kept) if is_mark else self._kept

        def checked() -> T:
            free = self.filesystem.free_counts[0]
            result = change()
            if self.filesystem.free_counts[0] < min(free, kept):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return result

        return self.filesystem.atomically(checked)

    def make_node(self, directory: int, name: bytes, mode: int, device: tuple[int, int], /) -> Entry:
        uid, gid = self.stored
        above = self._place(directory, name)
        self._check_room(above, is_mark=modes.S_ISCHR(mode) and device == (0, 0))
        return self._entry(above, self.filesystem.mknod_at(above, name, mode, rdev=device, uid=uid, gid=gid))

    def make_directory(self, directory: int, name: bytes, mode: int, /) -> Entry:
        uid, gid = self.stored
        above = self._place(directory, name)
        self._check_room(above, NAME_BLOCKS + 1)
        ino = self.filesystem.mkdir_at(above, name, mode, uid=uid, gid=gid)
        self._find_work()
        return self._entry(above, ino)

    def make_symlink(self, directory: int, name: bytes, target: bytes, /) -> Entry:
        uid, gid = self.stored
        above = self._place(directory, name)
        self._check_room(above, NAME_BLOCKS + 1)
        return self._entry(above, self.filesystem.symlink_at(target, above, name, uid=uid, gid=gid))

    def make_nameless(self, directory: int, mode: int, /) -> Entry:
        uid, gid = self.stored
        above = self._directory(directory)
        if above in self._working and not self._has_tmpfile:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self._check_room(above)
        ino = self.filesystem.create_nameless(above, mode, uid=uid, gid=gid)
        try:
            return self._entry(above, ino)
        finally:
            self.filesystem.release(ino)  # the node holds it now

    def link(self, node: int, directory: int, name: bytes, /) -> Entry:
        ino, above = self._inode(node), self._place(directory, name)
        found = self.filesystem.stat(ino)
        add = self.filesystem.link_at if found.links else self.filesystem.name_at
        self._within_room(above, partial(add, ino, above, name), is_mark=_is_whiteout(found))
        return self._entry(above, ino)

    def _place(self, directory: int, name: bytes) -> int:
        """Return the inode of a directory that gets a name. Raises OSError (EINVAL) for names of whiteouts."""
        if self._has_overlay and has_whiteout_prefix(name):
            raise OSError(errno.EINVAL, "names that begin with .wh. are whiteouts")
        return self._directory(directory)

    def unlink(self, directory: int, name: bytes, /) -> int | None:
        above = self._directory(directory)
        left = self._linked_node(above, name)
        self.filesystem.unlink_at(above, name)
        return left

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
    ) -> int | None:
        old, new = self._directory(directory), self._place(new_directory, new_name)
        left = None if exchange else self._linked_node(new, new_name)
        moved = {new: self.filesystem.find_name(old, name)}
        if exchange:
            moved[old] = self.filesystem.find_name(new, new_name)
        is_mark = whiteout or any(ino is not None and _is_whiteout(self.filesystem.stat(ino)) for ino in moved.values())
        rename = partial(self.filesystem.rename_at, old, name, new, new_name, exchange=exchange, replace=replace)
        self._within_room(new, partial(rename, whiteout=whiteout), is_mark=is_mark)
        for above, ino in moved.items():
            if ino is not None:
                self._working.note(ino, above)
        return left

    def set_xattr(self, node: int, name: bytes, value: bytes, /, *, create: bool, replace: bool) -> None:
        ino = self._inode(node)
        if name == OPAQUE and self._has_overlay:
            change = partial(set_opaque, self.filesystem, ino, value)
        else:
            change = partial(self.filesystem.set_xattr_at, ino, name, value, create=create, replace=replace)
        self._within_room(ino, change, is_mark=name.startswith(OVERLAY_MARKS))

    def remove_xattr(self, node: int, name: bytes, /) -> None:
        ino = self._inode(node)
        if name == OPAQUE and self._has_overlay:
            remove_opaque(self.filesystem, ino)
        else:
            self.filesystem.remove_xattr_at(ino, name)


def _is_whiteout(found: Stat) -> bool:
    return modes.S_ISCHR(found.mode) and found.major == found.minor == 0


def _node(found: Stat) -> int:
    """Return the node id of an inode."""
    return found.generation << 32 | found.ino
