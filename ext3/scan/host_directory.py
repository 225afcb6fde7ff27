"""Scan of a directory of the host into a Tree. Data of files is read later, when it is copied, but for those of proc and the
like, whose size only reading them tells.

Copies all metadata of inodes: modes, 32-bit owners, nanosecond times, hard links, holes, extended attributes. The order of
nodes is canonical: directories in pre-order by the bytes of their names; all names of a directory are numbered together, in
byte order. The same tree gives the same image, on any host filesystem and with any number of threads.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from .. import hostio
from ..constants import S_IFBLK, S_IFCHR, S_IFDIR, S_IFMT, S_IFREG
from ..errors import SourceError
from ..newfs.builder import TreeBuilder
from ..newfs.host_files import DirectoryContent
from ..newfs.node import ROW, Times
from ..progress import Progress, Silent
from .directory_reader import Attributes, Found, FoundNames, HostDirectoryReader, ScanOptions
from .host_walk import HostWalk

__all__ = ["ScanOptions", "host_times", "scan_directory"]

TREATED_AS_LEFT_OUT = hostio.NO_XATTRS | {errno.EPERM, errno.EACCES}


def host_times(found: os.stat_result) -> Times:
    """Return the three times of a stat result."""
    row: Any = found  # its items have the times in whole seconds
    return (
        row[7],
        row[8],
        row[9],
        found.st_atime_ns % 1_000_000_000,
        found.st_mtime_ns % 1_000_000_000,
        found.st_ctime_ns % 1_000_000_000,
    )


def scan_directory(
    builder: TreeBuilder, source: bytes, root: int, options: ScanOptions, progress: Progress | None = None
) -> DirectoryContent:
    """Add everything below host directory ``source`` to its existing node ``root``.

    Unreadable files and directories are collected in ``builder.unreadable``. Raise SourceError with a list of them unless
    ``options.skip_unreadable``. The returned content reads the files' data from the host.
    """
    progress = progress or Silent()
    progress.phase("scan", None, "files")
    found = os.stat(source)
    if not stat.S_ISDIR(found.st_mode):
        raise SourceError(source, "not a directory", error=NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    path = source.rstrip(b"/")
    scanner = _Scanner(builder, HostDirectoryReader(options, len(path) + 1, found.st_dev))
    scanner.scan(path or b"/", root, progress)
    return DirectoryContent(builder, options.allow_changed, scanner.directories, scanner.held)


class _Scanner:
    """Adds the findings of a HostDirectoryReader to a builder, in canonical order."""

    def __init__(self, builder: TreeBuilder, reader: HostDirectoryReader) -> None:
        self.builder = builder
        self.reader = reader
        self.directories: dict[int, bytes] = {}
        """Host paths of the directories by node; empty for the host's root."""
        self.held: dict[int, bytes] = {}
        """Content of files whose reported sizes are false."""
        self.nodes: dict[bytes, int] = {}
        """Nodes of the directories yet to be visited, by path."""

    def scan(self, top: bytes, root: int, progress: Progress) -> None:
        """Add the attributes of directory ``top``, whose node is ``root``, and everything below it."""
        if self.reader.lists_attributes:
            path = top + b"/."  # of the directory, also where the source is a symlink to it
            self.add_attributes(root, path, self.reader.device, S_IFDIR, self.reader.attributes(path))
        self.nodes[top] = root
        node = root
        with HostWalk(self.reader) as walk:
            for path, listed, found, error in walk.walk(top):
                if path in self.nodes:  # the first piece
                    node = self.nodes.pop(path)
                    self.directories[node] = path.rstrip(b"/")
                if error is not None and error.errno != errno.ENOENT:  # ENOENT: removed since the listing, it stays empty
                    self.builder.unreadable.append((path, error.strerror or str(error)))
                self.add(node, found)
                progress.advance(listed)

    def add(self, parent: int, found: FoundNames) -> None:
        """Add names of one directory."""
        builder, known = self.builder, self.reader.known
        names, rows, base = found.names, found.rows, self.directories[parent] + b"/"
        done = 0
        for index, one in found.others:
            if one.status is None:
                builder.unreadable.append((base + one.name, one.problem))
                continue
            identity = (one.status.st_dev, one.status.st_ino)
            node = len(builder.names) + index - done
            if one.status.st_nlink > 1 and not stat.S_ISDIR(one.status.st_mode) and known.setdefault(identity, node) != node:
                builder.add_rows(parent, names[done:index], rows[done * ROW.size : index * ROW.size])
                builder.link(parent, one.name, known[identity])
                done = index + 1
            else:
                self.add_other(node, base + one.name, one.status, one)
        builder.add_rows(parent, names[done:], rows[done * ROW.size :])

    def add_other(self, node: int, path: bytes, status: os.stat_result, found: Found) -> None:
        """Add what makes a node more than a plain file."""
        kind, builder = status.st_mode & S_IFMT, self.builder
        if kind == S_IFDIR:
            self.nodes[path] = node
        elif kind in (S_IFCHR, S_IFBLK):
            builder.devices[node] = (os.major(status.st_rdev), os.minor(status.st_rdev))
        elif isinstance(found.detail, bytes):
            builder.targets[node] = found.detail
        elif found.detail is not None:
            builder.segments[node] = found.detail
        elif found.content is not None:
            self.held[node] = found.content
        if found.attributes is not None and status.st_dev not in self.reader.without_attributes:
            self.add_attributes(node, path, status.st_dev, kind, found.attributes)

    def add_attributes(self, node: int, path: bytes, device: int, kind: int, attributes: Attributes | None) -> None:
        """Add the extended attributes of a node, or record why they cannot be read."""
        builder = self.builder
        if isinstance(attributes, OSError):
            if attributes.errno in hostio.NO_XATTRS:
                if kind in (S_IFDIR, S_IFREG):  # for sockets and symlinks the error does not concern the filesystem
                    self.reader.without_attributes.add(device)
            elif attributes.errno in TREATED_AS_LEFT_OUT:
                builder.left_out.add("attributes that may not be listed", path)
            elif attributes.errno != errno.ENOENT:
                builder.unreadable.append((path, f"its extended attributes: {attributes.strerror}"))
            return
        for name, value in attributes or ():
            if isinstance(value, bytes):
                builder.xattrs.setdefault(node, {})[name] = value
            elif value is None or value.errno in TREATED_AS_LEFT_OUT:
                builder.left_out.add(os.fsdecode(name), path)
            elif value.errno not in (errno.ENODATA, errno.ENOENT):
                builder.unreadable.append((path, f"its attribute {os.fsdecode(name)}: {value.strerror}"))
