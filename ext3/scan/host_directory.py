"""Scan: a directory of the host becomes a Tree, its data stays where it is until it is copied.

Everything an inode can hold is taken: modes, 32-bit owners, nanosecond times, hard links, holes, extended attributes.
Names are taken in byte order, so that the same tree gives the same image wherever it lies.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from .. import hostio
from ..errors import SourceError
from ..newfs.builder import Segment, Times, TreeBuilder, TreePart
from ..newfs.host_files import DirectoryContent, open_host_file
from ..progress import Progress, Silent
from ..workers import share_out, workers_for

__all__ = ["ScanOptions", "host_times", "scan_directory"]

SUBTREES = 32
"""So many directories waiting are enough to keep a few processes busy."""
WIDE = 4096
"""After so many names a few waiting directories are enough: the tree is wide rather than deep."""
FEW_SUBTREES = 8
SCAN_JOBS = 1024
SUBTREE_NAMES = 8192
"""A subtree with more names than this is cut: what is left of it is shared out again."""
GRAFTED_NAMES = 1 << 16
"""Added to the tree at once, as far as subtrees go."""
_TREATED_AS_LEFT_OUT = hostio.NO_XATTRS | {errno.EPERM, errno.EACCES}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """``take_attribute(name)`` says which extended attributes go in (None: none, and none is counted);
    ``exclude(path, is_dir)`` which paths (bytes, relative to the source) do not; ``never``: (st_dev, st_ino) of files never
    taken, such as the image being written."""

    take_attribute: Callable[[bytes], bool] | None = lambda name: True
    exclude: Callable[[bytes, bool], bool] | None = None
    never: Container[tuple[int, int]] = ()
    one_file_system: bool = False
    skip_unreadable: bool = False
    allow_changed: bool = False


def host_times(found: os.stat_result) -> Times:
    """The three times of a stat result."""
    row: Any = found  # indexed, the times are whole seconds
    return (
        row[7],
        row[8],
        row[9],
        found.st_atime_ns % 1_000_000_000,
        found.st_mtime_ns % 1_000_000_000,
        found.st_ctime_ns % 1_000_000_000,
    )


Pending = tuple[int, bytes, int]
"""A directory whose entries are still to be read: its node, its path, the device it is on."""


class _Scanner:
    """Fills one builder. The part of a tree below one directory can have a scanner of its own, see ``_Subtree``."""

    def __init__(self, builder: TreeBuilder, options: ScanOptions, prefix: int, device: int) -> None:
        self.builder = builder
        self.options = options
        self.prefix = prefix
        """Length of the source's path, with the slash behind it."""
        self.device = device
        self.directories: dict[int, bytes] = {}
        self.links: dict[tuple[int, int], int] = {}
        self.without_attributes: set[int] = set()
        self.can_list = hasattr(os, "listxattr") and options.take_attribute is not None
        self.can_seek = hasattr(os, "SEEK_DATA")

    def enter(self, pending: Pending) -> tuple[int, list[Pending]]:
        """Add what one directory holds; how many names that were, and the directories among them."""
        node, path, device = pending
        if self.options.one_file_system and device != self.device:
            return 0, []
        base = b"" if path == b"/" else path
        self.directories[node] = base
        try:
            names = os.listdir(path)
        except OSError as error:
            if error.errno != errno.ENOENT:  # removed since it was seen: it goes in empty
                self.builder.unreadable.append((path, error.strerror or str(error)))
            return 0, []
        names.sort()
        inner: list[Pending] = []
        self.directory(node, base + b"/", names, inner)
        return len(names), inner

    def directory(self, parent: int, base: bytes, names: Sequence[bytes], inner: list[Pending]) -> None:
        builder, options, prefix = self.builder, self.options, self.prefix
        exclude, never, lstat, access = options.exclude, options.never, os.lstat, os.access
        found: Any  # as a sequence it has the times in whole seconds
        for name in names:
            path = base + name
            try:
                found = lstat(path)
            except OSError as error:
                if error.errno != errno.ENOENT:  # removed since the directory was listed
                    builder.unreadable.append((path, error.strerror or str(error)))
                continue
            mode, ino, device, nlink, uid, gid, size, atime, mtime, ctime = found[:10]
            kind = mode & 0o170000
            if exclude is not None and exclude(path[prefix:], kind == 0o040000):
                continue
            if never and (device, ino) in never:
                continue
            times = (
                atime,
                mtime,
                ctime,
                found.st_atime_ns % 1_000_000_000,
                found.st_mtime_ns % 1_000_000_000,
                found.st_ctime_ns % 1_000_000_000,
            )
            if kind == 0o040000:
                node = builder.add(parent, name, mode, uid, gid, 0, times)
                inner.append((node, path, device))
            else:
                if nlink > 1:
                    first = self.links.get((device, ino))
                    if first is not None:
                        builder.link(parent, name, first)
                        continue
                if kind == 0o100000:
                    if size and mode & 0o444 != 0o444 and not access(path, os.R_OK):  # what all may read need not be asked for
                        builder.unreadable.append((path, os.strerror(errno.EACCES)))
                        continue
                    segments = None
                    if self.can_seek and found.st_blocks * 512 < size:
                        try:
                            segments = _data_segments(path, size)
                        except OSError as error:
                            if error.errno != errno.ENOENT:
                                builder.unreadable.append((path, error.strerror or os.strerror(error.errno or errno.EIO)))
                            continue
                    node = builder.add(parent, name, mode, uid, gid, size, times)
                    if segments is not None:
                        builder.segments[node] = segments
                elif kind == 0o120000:
                    try:
                        target = os.readlink(path)
                    except OSError as error:
                        builder.unreadable.append((path, error.strerror or str(error)))
                        continue
                    node = builder.add(parent, name, mode, uid, gid, len(target), times)
                    builder.targets[node] = target
                else:
                    node = builder.add(parent, name, mode, uid, gid, 0, times)
                    if kind in (0o020000, 0o060000):
                        builder.devices[node] = (os.major(found.st_rdev), os.minor(found.st_rdev))
                if nlink > 1:
                    self.links[device, ino] = node
            if self.can_list and device not in self.without_attributes:
                self.attributes(node, path, device, kind)

    def attributes(self, node: int, path: bytes, device: int, kind: int = 0o040000) -> None:
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as error:
            if error.errno in hostio.NO_XATTRS:
                if kind in (0o040000, 0o100000):  # of a socket or a symlink it says nothing about the filesystem
                    self.without_attributes.add(device)
            elif error.errno in _TREATED_AS_LEFT_OUT:
                self.builder.left_out.add("attributes that may not be listed", path)
            elif error.errno != errno.ENOENT:
                self.builder.unreadable.append((path, f"its extended attributes: {error.strerror}"))
            return
        if not names:
            return
        for text in sorted(names):
            name = os.fsencode(text)
            if self.options.take_attribute is None or not self.options.take_attribute(name):
                self.builder.left_out.add(text, path)
                continue
            try:
                value = os.getxattr(path, name, follow_symlinks=False)
            except OSError as error:
                if error.errno in _TREATED_AS_LEFT_OUT:
                    self.builder.left_out.add(text, path)
                elif error.errno not in (errno.ENODATA, errno.ENOENT):
                    self.builder.unreadable.append((path, f"its attribute {text}: {error.strerror}"))
                continue
            self.builder.xattrs.setdefault(node, {})[name] = value


def _data_segments(path: bytes, size: int) -> list[Segment] | None:
    """The data of a file that has fewer blocks than bytes; None where it has no hole (it may be compressed) or none can be
    seen. Raises SourceError."""
    fd = open_host_file(path)
    try:
        segments = [(begin, length, begin) for begin, length in hostio.data_ranges(fd, 0, size)]
    finally:
        os.close(fd)
    return None if segments == [(0, size, 0)] else segments


def scan_directory(
    builder: TreeBuilder,
    source: bytes,
    root: int,
    options: ScanOptions,
    progress: Progress | None = None,
    *,
    meanwhile: Callable[[], None] | None = None,
) -> DirectoryContent:
    """Add everything below host directory ``source`` below node ``root``, which stands for it and is there already.

    Unreadable files and directories are collected in ``builder.unreadable``; SourceError lists them unless
    ``options.skip_unreadable``. The content returned reads the files' data from the host. ``meanwhile`` is called once, where
    others scan while this process does something else (load numpy, look at a request); what it raises is raised here.
    """
    progress = progress or Silent()
    progress.phase("scan", None, "files")
    found = os.stat(source)
    if not stat.S_ISDIR(found.st_mode):
        raise SourceError(source, "not a directory", hint="--from-dir takes a directory, --from-tar an archive")
    path = source.rstrip(b"/") or b"/"
    top = _Scanner(builder, options, len(source.rstrip(b"/")) + 1, found.st_dev)
    if top.can_list:
        top.attributes(root, path + b"/.", found.st_dev)  # of the directory, also where the source is a symlink to it
    # The upper levels are listed here, in breadth, until there are enough subtrees to share out. Which those are depends on
    # the tree alone: the order of nodes, and so the image, is the same with one process and with many.
    pending = deque([(root, path, found.st_dev)])
    seen = 0
    while pending and len(pending) < (SUBTREES if seen < WIDE else FEW_SUBTREES):
        count, inner = top.enter(pending.popleft())
        pending.extend(inner)
        progress.advance(count)
        seen += count
    _scan_below(list(pending), top, progress, meanwhile)
    return DirectoryContent(builder, options.allow_changed, top.directories)


def _scan_below(pending: Sequence[Pending], top: _Scanner, progress: Progress, meanwhile: Callable[[], None] | None) -> None:
    """Scan subtrees side by side, in rounds: each until it has some thousand names, then what is left of it. Helpers scan a
    round while this process adds the one before to the tree."""
    if not pending:
        if meanwhile is not None:
            meanwhile()
        return
    starts, origins = pending, [(0, number) for number in range(len(pending))]
    last = _Round([], [], [[node for node, _, _ in pending]])
    most = SUBTREE_NAMES
    while starts:
        subtrees = _share_subtrees(starts, top, most, progress, meanwhile)
        roots = [last.numbers[subtree][node] for subtree, node in origins]
        last = _Round(subtrees, roots)
        meanwhile = partial(last.graft, top)
        left = [(number, start) for number, subtree in enumerate(subtrees) for start in subtree.left]
        starts, origins = [start for _, start in left], [(number, start[0]) for number, start in left]
        most *= 2  # a tree that is one long chain of directories takes few rounds all the same
    last.graft(top)


def _share_subtrees(
    starts: Sequence[Pending], top: _Scanner, most: int, progress: Progress, meanwhile: Callable[[], None] | None
) -> list[_Subtree]:
    jobs = min(len(starts), SCAN_JOBS)  # a wide directory leaves thousands waiting

    def work(number: int, advance: Callable[[int], None]) -> list[_Subtree]:
        low, high = number * len(starts) // jobs, (number + 1) * len(starts) // jobs
        return [_scan_subtree(start, top, most, advance) for start in starts[low:high]]

    scanned = share_out(jobs, work, workers_for(jobs), progress, meanwhile=meanwhile)
    return [subtree for subtrees_of_job in scanned for subtree in subtrees_of_job]


class _Subtree(NamedTuple):
    """What lies below one directory, numbered from 1 on; 0 stands for the directory. ``left``: directories in it that were not
    entered."""

    part: TreePart
    directories: dict[int, bytes]
    left: list[Pending]


@dataclass(slots=True)
class _Round:
    """Subtrees below the nodes ``roots``; once they are grafted, the ``numbers`` in the tree of the nodes of each."""

    subtrees: list[_Subtree]
    roots: Sequence[int]
    numbers: list[list[int]] = field(default_factory=list)

    def graft(self, top: _Scanner) -> None:
        """Add them to the tree; what was added is forgotten here."""
        from ..newfs.tree import graft  # with numpy

        self.subtrees.reverse()
        while self.subtrees:
            some: list[_Subtree] = []
            names = 0
            while self.subtrees and names < GRAFTED_NAMES:
                some.append(self.subtrees.pop())
                names += len(some[-1].part.names)
            roots = self.roots[len(self.numbers) : len(self.numbers) + len(some)]
            numbers = graft(top.builder, [subtree.part for subtree in some], roots, top.links)
            self.numbers += numbers
            for subtree, new in zip(some, numbers, strict=True):
                top.directories.update((new[node], path) for node, path in subtree.directories.items())


def _scan_subtree(start: Pending, top: _Scanner, most: int, advance: Callable[[int], None]) -> _Subtree:
    builder = TreeBuilder()
    builder.add(0, b"", 0, 0, 0, 0, (0,) * 6)
    scanner = _Scanner(builder, top.options, top.prefix, top.device)
    scanner.without_attributes |= top.without_attributes
    _, path, device = start
    stack = [(0, path, device)]
    seen = 0
    while stack and seen < most:
        count, inner = scanner.enter(stack.pop())
        stack.extend(reversed(inner))
        advance(count)
        seen += count
    return _Subtree(builder.part(scanner.links), scanner.directories, stack[::-1])
