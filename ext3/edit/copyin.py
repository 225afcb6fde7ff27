"""Trees: a file or directory of the host copied in, and one of the image removed, name by name."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from typing import Literal, Protocol

from .. import hostio
from ..constants import S_IFREG
from ..errors import (
    CorruptError,
    PathExistsError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    SourceError,
)
from ..format.xattr import split_name
from . import file_data as content
from . import namei as names
from . import setattr as facts
from .inode_cache import Nodes

__all__ = ["PRESERVE", "Progress", "TreeCopier", "remove_tree"]

PRESERVE = frozenset({"mode", "owner", "times", "xattrs", "links"})
SMALL_FILE = 1 << 20
"""Files up to this size are copied in the operation that makes them."""
MOST_DEEP = 4096
"""Directories in each other."""


class Progress(Protocol):
    """Told how far the work is. ``total`` None: not known."""

    def phase(self, name: str, total: int | None, unit: Literal["files", "bytes"]) -> None: ...

    def advance(self, count: int) -> None: ...

    def done(self) -> None: ...


class Editor(Protocol):
    """What is asked of the open image."""

    def unlink_at(self, parent: int, name: bytes) -> None: ...

    def rmdir_at(self, parent: int, name: bytes) -> None: ...

    def create_nameless(self, parent: int, mode: int, *, uid: int, gid: int) -> int: ...

    def release(self, ino: int) -> None: ...


class TreeCopier:
    """Copies from the host. ``preserve``: see PRESERVE; what is not preserved belongs to ``uid`` and ``gid``."""

    def __init__(
        self, editor: Editor, nodes: Nodes, preserve: frozenset[str], uid: int, gid: int, progress: Progress | None
    ) -> None:
        self._editor = editor
        self._nodes = nodes
        self._preserve = preserve
        self._uid = uid
        self._gid = gid
        self._progress = progress
        self._links: dict[tuple[int, int], int] = {}

    def copy(self, source: bytes, parent: int, name: bytes, *, recursive: bool) -> None:
        """Copy ``source`` to a name in a directory of the image."""
        if self._progress is not None:
            self._progress.phase("copy", None, "bytes")
        found = _lstat(source)
        if stat.S_ISDIR(found.st_mode):
            if not recursive:
                raise SourceError(source, "is a directory", error=IsADirectoryError(errno.EISDIR, ""), hint="give -r")
            self._copy_tree(source, found, parent, name)
        else:
            self._copy_one(source, found, parent, name)
        if self._progress is not None:
            self._progress.done()

    def _advance(self, count: int) -> None:
        if self._progress is not None:
            self._progress.advance(count)

    # Directories

    def _copy_tree(self, source: bytes, found: os.stat_result, parent: int, name: bytes) -> None:
        ino = self._make_directory(source, found, parent, name)
        pending = [(source, found, ino, iter(_listed(source)))]
        while pending:
            path, facts_of, ino, entries = pending[-1]
            entry = next(entries, None)
            if entry is None:
                pending.pop()
                # What was made in it changed its time, and its mode may forbid nothing here.
                self._nodes.run(partial(self._dress, path, ino, facts_of))
                continue
            below = os.path.join(path, entry)
            inside = _lstat(below)
            if not stat.S_ISDIR(inside.st_mode):
                self._copy_one(below, inside, ino, entry)
                continue
            if len(pending) >= MOST_DEEP:
                raise SourceError(below, f"directories are nested deeper than {MOST_DEEP}")
            made = self._make_directory(below, inside, ino, entry)
            pending.append((below, inside, made, iter(_listed(below))))

    def _make_directory(self, source: bytes, found: os.stat_result, parent: int, name: bytes) -> int:
        nodes = self._nodes
        there = parent if name == b"." else names.find(nodes, parent, name)
        if there is not None:
            if not nodes.load(there).record.is_dir:
                raise PathNotDirectoryError(name, f"cannot overwrite non-directory with directory {os.fsdecode(source)}")
            return there
        mode = found.st_mode & 0o777
        return nodes.run(lambda: names.make_directory(nodes, parent, name, mode, uid=self._uid, gid=self._gid)).ino

    # Files

    def _copy_one(self, source: bytes, found: os.stat_result, parent: int, name: bytes) -> None:
        nodes = self._nodes
        there = parent if name == b"." else names.find(nodes, parent, name)
        if there is not None and nodes.load(there).record.is_dir:
            raise PathIsDirectoryError(name, f"cannot overwrite directory with non-directory {os.fsdecode(source)}")
        key = found.st_dev, found.st_ino
        twin = self._links.get(key) if found.st_nlink > 1 else None
        if there is not None and (twin is not None or not self._may_refill(found, there)):
            if there == twin:
                return
            self._editor.unlink_at(parent, name)
            there = None
        if twin is not None:
            nodes.run(lambda: names.link(nodes, twin, parent, name))
            return
        ino = self._copy_new(source, found, parent, name, there)
        if found.st_nlink > 1 and "links" in self._preserve:
            self._links[key] = ino

    def _may_refill(self, found: os.stat_result, there: int) -> bool:
        return stat.S_ISREG(found.st_mode) and self._nodes.load(there).record.is_file

    def _copy_new(self, source: bytes, found: os.stat_result, parent: int, name: bytes, there: int | None) -> int:
        if stat.S_ISREG(found.st_mode):
            return self._copy_file(source, found, parent, name, there)
        nodes, mode = self._nodes, found.st_mode
        target = _readlink(source) if stat.S_ISLNK(mode) else b""

        def make() -> int:
            if target:
                node = names.make_symlink(nodes, target, parent, name, uid=self._uid, gid=self._gid)
            else:
                device = (0, 0)
                if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                    device = os.major(found.st_rdev), os.minor(found.st_rdev)
                node = names.make_node(
                    nodes, parent, name, stat.S_IFMT(mode) | mode & 0o777, uid=self._uid, gid=self._gid, device=device
                )
            self._dress(source, node.ino, found)
            return node.ino

        return nodes.run(make)

    def _copy_file(self, source: bytes, found: os.stat_result, parent: int, name: bytes, there: int | None) -> int:
        nodes = self._nodes
        try:
            fd = os.open(source, hostio.READ_REGULAR)
        except OSError as error:
            raise SourceError(source, f"cannot be opened: {error.strerror}", error=error) from error
        try:
            now = os.fstat(fd)
            if not stat.S_ISREG(now.st_mode):
                raise SourceError(source, "is no longer the file it was", hint="copy it again")
            small = there is None and now.st_size <= SMALL_FILE and not _has_holes(now)
            data = _read_whole(fd, source) if small else b""

            def make() -> int:
                mode = S_IFREG | found.st_mode & 0o777
                ino = names.make_node(nodes, parent, name, mode, uid=self._uid, gid=self._gid).ino
                content.write(nodes, ino, 0, data)
                self._dress(source, ino, found)
                return ino

            def name_it() -> None:
                names.give_name(nodes, ino, parent, name)
                self._dress(source, ino, found)

            if small:
                ino = nodes.run(make)
                self._advance(len(data))
                return ino
            if there is not None:
                self._fill(source, fd, there)
                nodes.run(lambda: self._dress(source, there, found))
                return there
            names.check_name(name)
            ino = self._editor.create_nameless(parent, found.st_mode & 0o777, uid=self._uid, gid=self._gid)
            try:
                self._fill(source, fd, ino)
                nodes.run(name_it)
            finally:
                self._editor.release(ino)
            return ino
        finally:
            os.close(fd)

    def _fill(self, source: bytes, fd: int, ino: int) -> None:
        try:
            content.copy_from(self._nodes, ino, fd, self._advance)
        except SourceError as error:
            raise SourceError(source, error.message.partition(": ")[2], error=error, hint=error.hint) from error

    # Facts

    def _dress(self, source: bytes, ino: int, found: os.stat_result) -> None:
        """Give a copy what of the original's owner, mode, attributes and times is to be preserved; in this order."""
        nodes, preserve = self._nodes, self._preserve
        if "owner" in preserve:
            facts.chown(nodes, ino, found.st_uid, found.st_gid)
        if "mode" in preserve and not stat.S_ISLNK(found.st_mode):
            facts.chmod(nodes, ino, found.st_mode)
        if "xattrs" in preserve:
            attributes = _attributes(source)
            for name, value in attributes.items():
                facts.set_attribute(nodes, ino, name, value, create=False, replace=False)
            if not stat.S_ISLNK(found.st_mode):
                for name in {names.ACCESS, names.DEFAULT} - attributes.keys():  # it came from the directory
                    facts.remove_attribute(nodes, ino, name)
        if "times" in preserve:
            facts.set_times(nodes, ino, found.st_atime_ns, found.st_mtime_ns)


def remove_tree(editor: Editor, nodes: Nodes, parent: int, name: bytes) -> None:
    """Remove a name and all that is below it. PathNotFoundError; CorruptError where directories lead in a circle, or have
    more blocks together than there are."""
    if name in (b".", b".."):
        raise PathExistsError(name, "refusing to remove '.' or '..'")
    ino = names.find(nodes, parent, name)
    if ino is None:
        raise PathNotFoundError(name, "No such file or directory")
    if not nodes.load(ino).record.is_dir:
        editor.unlink_at(parent, name)
        return
    seen = {ino}
    left = [nodes.session.superblock.blocks_count]
    pending = [(parent, name, ino, _below(nodes, ino, left))]
    while pending:
        above, name, ino, entries = pending[-1]
        if not entries:
            editor.rmdir_at(above, name)
            pending.pop()
            continue
        entry, child = entries.pop()
        if not nodes.load(child).record.is_dir:
            editor.unlink_at(ino, entry)
            continue
        if child in seen:
            raise CorruptError(f"directory inode {child}", "entries that lead to it", "two or more", 1)
        seen.add(child)
        pending.append((ino, entry, child, _below(nodes, child, left)))


def _below(nodes: Nodes, ino: int, left: list[int]) -> list[tuple[bytes, int]]:
    """(name, inode) of what is in a directory, the first one last. ``left``: blocks that directories may still have."""
    directory = nodes.directory(nodes.load(ino))
    left[0] -= directory.size // nodes.block_size
    if left[0] < 0:
        raise CorruptError(f"directory inode {ino}", "blocks of directories", "more than there are", "each used once")
    found = [(entry.name, entry.ino) for entry in directory.entries() if entry.name not in names.DOTS]
    return found[::-1]


def _lstat(path: bytes) -> os.stat_result:
    try:
        return os.lstat(path)
    except OSError as error:
        raise SourceError(path, error.strerror or "cannot be read", error=error) from error


def _listed(path: bytes) -> list[bytes]:
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        raise SourceError(path, f"cannot be read: {error.strerror}", error=error) from error


def _readlink(path: bytes) -> bytes:
    try:
        return os.readlink(path)
    except OSError as error:
        raise SourceError(path, f"cannot be read: {error.strerror}", error=error) from error


def _has_holes(found: os.stat_result) -> bool:
    blocks = getattr(found, "st_blocks", None)
    return blocks is not None and blocks * 512 < found.st_size


def _read_whole(fd: int, path: bytes) -> bytes:
    pieces = []
    try:
        while piece := os.read(fd, SMALL_FILE + 1):
            pieces.append(piece)
            if sum(map(len, pieces)) > 2 * SMALL_FILE:
                raise SourceError(path, "grew while it was copied", hint="copy it again")
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(path, f"reading: {error.strerror}", error=error) from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _attributes(path: bytes) -> dict[bytes, bytes]:
    """The attributes of a file on the host that ext3 can hold; none where hosts have none."""
    if not hasattr(os, "listxattr"):
        return {}
    try:
        found = [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in found if split_name(name) is not None}
    except OSError as error:
        if error.errno in hostio.NO_XATTRS:
            return {}
        raise SourceError(path, f"reading attributes: {error.strerror}", error=error) from error
