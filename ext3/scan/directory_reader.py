"""HostDirectoryReader: metadata of the names in a directory of the host.

Readers do not depend on the tree, so that threads can read directories ahead. Known facts of the tree only save system
calls: names whose file has a node already, devices without extended attributes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .. import hostio
from ..constants import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from ..newfs.host_files import open_host_file
from ..newfs.node import ROW, Segment
from .false_sizes import SizeTrust

__all__ = ["Attributes", "HostDirectoryReader", "Found", "FoundNames", "ScanOptions"]

MAX_HELD_BYTES = 256 << 20
"""Most bytes held of all files of a scan whose sizes are false."""
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """``take_attribute(name)``: True for extended attributes to copy (None: copy none, and count none as left out).
    ``exclude(path, is_dir)``: True for paths (bytes, relative to the source) to skip; called once for each, possibly from
    several threads. ``never``: (st_dev, st_ino) of files always skipped, such as the image being written."""

    take_attribute: Callable[[bytes], bool] | None = lambda name: True
    exclude: Callable[[bytes, bool], bool] | None = None
    never: Container[tuple[int, int]] = ()
    one_file_system: bool = False
    skip_unreadable: bool = False
    allow_changed: bool = False


Attributes = list[tuple[bytes, bytes | OSError | None]] | OSError
"""Name and value of each extended attribute in byte order of names, None for one not copied; or the error of the listing."""


class Found(NamedTuple):
    """Name that is not a plain file. ``status`` None: it cannot be read, ``problem`` is the reason. ``detail``: the target of
    a symlink, the data of a sparse file. ``attributes`` None: it has none, or they were not read. ``content``: of a file whose
    reported size is false."""

    name: bytes
    status: os.stat_result | None
    detail: bytes | list[Segment] | None = None
    attributes: Attributes | None = None
    problem: str = ""
    content: bytes | None = None


@dataclass(slots=True)
class FoundNames:
    """Readable names of one directory in byte order, and the rows of their nodes, with parent 0.

    Plain files, with one link, no holes and no extended attributes, have nothing else. ``others`` are the rest, each with the
    number of names before it.
    """

    names: list[bytes] = field(default_factory=list)
    rows: bytearray = field(default_factory=bytearray)
    others: list[tuple[int, Found]] = field(default_factory=list)


@dataclass(slots=True)
class HostDirectoryReader:
    """Reader of the directories of a source on ``device``; ``prefix``: the length of its path and a slash, in bytes.

    The scanner updates ``known``, the nodes of files that may have more links, by (st_dev, st_ino), and
    ``without_attributes``, the devices without extended attributes. ``stopped`` ends reads in other threads.
    """

    options: ScanOptions
    prefix: int
    device: int
    known: dict[tuple[int, int], int] = field(default_factory=dict)
    without_attributes: set[int] = field(default_factory=set)
    stopped: bool = False
    lists_attributes: bool = field(init=False)
    sizes: SizeTrust = field(default_factory=SizeTrust)
    held_bytes: int = 0
    """Content held of files with false sizes."""

    def __post_init__(self) -> None:
        self.lists_attributes = self.options.take_attribute is not None and hasattr(os, "listxattr")

    def enters(self, device: int) -> bool:
        """Return True if directories on ``device`` are read."""
        return not self.options.one_file_system or device == self.device

    def names(self, path: bytes) -> list[bytes]:
        """Return the names in a directory, in byte order. Raise OSError."""
        names = os.listdir(path)
        names.sort()
        return names

    def lookup(self, directory: bytes, names: Sequence[bytes]) -> FoundNames:
        """Look up ``names``. Those excluded or removed since the listing are left out."""
        exclude, never, known, prefix = self.options.exclude, self.options.never, self.known, self.prefix
        lists_attributes, without_attributes = self.lists_attributes, self.without_attributes
        lstat, pack, trusted = os.lstat, ROW.pack, self.sizes.trusted
        base = directory if directory.endswith(b"/") else directory + b"/"
        result = FoundNames()
        taken, rows, others = result.names, result.rows, result.others
        status: Any  # its items have the times in whole seconds
        for name in names:
            if self.stopped:
                break
            path = base + name
            try:
                status = lstat(path)
            except OSError as error:
                others += _missed(len(taken), name, error)
                continue
            mode, ino, device, nlink, uid, gid, size, atime, mtime, ctime = status[:10]
            kind = mode & S_IFMT
            if exclude is not None and exclude(path[prefix:], kind == S_IFDIR):
                continue
            if never and (device, ino) in never:
                continue
            detail: bytes | list[Segment] | None = None
            attributes: Attributes | None = None
            content: bytes | None = None
            if nlink == 1 or kind == S_IFDIR or (device, ino) not in known:
                try:
                    if kind == S_IFREG:
                        if device not in trusted and self.sizes.doubts(device, status.st_blocks):
                            content = self._false_content(path, device)
                        if size and mode & 0o444 != 0o444:  # files readable by all need no check
                            _check_readable(path)
                        if content is not None:
                            size = len(content)
                        elif status.st_blocks * 512 < size:
                            detail = _data_segments(path, size)
                    elif kind == S_IFLNK:
                        detail = os.readlink(path)
                except OSError as error:
                    others += _missed(len(taken), name, error)
                    continue
                if lists_attributes and device not in without_attributes:
                    attributes = self.attributes(path)
            if kind != S_IFREG or nlink > 1 or detail is not None or attributes is not None or content is not None:
                others.append((len(taken), Found(name, status, detail, attributes, content=content)))
                if kind != S_IFREG:
                    size = len(detail) if isinstance(detail, bytes) else 0
            taken.append(name)
            rows += pack(
                mode,
                uid & 0xFFFFFFFF,
                gid & 0xFFFFFFFF,
                0,
                size,
                atime,
                mtime,
                ctime,
                status.st_atime_ns % 1_000_000_000,
                status.st_mtime_ns % 1_000_000_000,
                status.st_ctime_ns % 1_000_000_000,
                1,
            )
        return result

    def _false_content(self, path: bytes, device: int) -> bytes | None:
        """Return the content of a file if it has another size than is reported. Raise OSError."""
        fd = open_host_file(path)
        try:
            if hostio.true_size(fd) is not None:
                return None
            self.sizes.distrust(device)
            read, content = hostio.sequential_reader(fd), bytearray()
            while piece := read(READ_BYTES):
                content += piece
                if self.held_bytes + len(content) > MAX_HELD_BYTES:
                    reported = os.fstat(fd).st_size
                    reason = (
                        f"it has more than the {reported} bytes its filesystem reports; {MAX_HELD_BYTES >> 20} MiB are read"
                    )
                    raise OSError(errno.EFBIG, reason)
        finally:
            os.close(fd)
        self.held_bytes += len(content)
        return bytes(content)

    def attributes(self, path: bytes) -> Attributes | None:
        """Return the extended attributes of a file; symlinks are not followed."""
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as error:
            return error
        if not names:
            return None
        take = self.options.take_attribute
        assert take is not None
        result: list[tuple[bytes, bytes | OSError | None]] = []
        for name in sorted(map(os.fsencode, names)):
            value: bytes | OSError | None = None
            if take(name):
                try:
                    value = os.getxattr(path, name, follow_symlinks=False)
                except OSError as error:
                    value = error.with_traceback(None)  # the traceback would keep this frame and its data alive
            result.append((name, value))
        return result


def _missed(before: int, name: bytes, error: OSError) -> list[tuple[int, Found]]:
    """Return a name that cannot be read; nothing if it was removed since the listing."""
    if error.errno == errno.ENOENT:
        return []
    return [(before, Found(name, None, problem=error.strerror or os.strerror(error.errno or errno.EIO)))]


def _check_readable(path: bytes) -> None:
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _data_segments(path: bytes, size: int) -> list[Segment] | None:
    """Return the data segments of a file with fewer blocks than bytes; None if no holes are found (it may be compressed).
    Raise OSError."""
    if not hasattr(os, "SEEK_DATA"):
        return None  # without opening it
    fd = open_host_file(path)
    try:
        segments = [(begin, length, begin) for begin, length in hostio.data_ranges(fd, 0, size)]
    finally:
        os.close(fd)
    return None if segments == [(0, size, 0)] else segments
