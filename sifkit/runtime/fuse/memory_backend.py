"""Writable backend of a FUSE server that keeps a few files in memory: a layer to try out what the kernel can do with one.

It does what overlayfs asks of an upper layer, and no more: there are no times, and nobody reads what it has after the mount.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Mapping, Sequence
from typing import NoReturn

from .backend import AttributeChanges, Attributes, Entry, FilesystemTotals, ListedName
from .protocol import ROOT_ID, encode_device

__all__ = ["MemoryBackend"]


class _Node:
    """File: ``names`` of a directory, ``data`` of another one, or the target of a symlink."""

    def __init__(self, mode: int, device: tuple[int, int] = (0, 0), data: bytes = b"") -> None:
        self.mode = mode
        self.device = device
        self.data = bytearray(data)
        self.names: dict[bytes, int] = {}
        self.xattrs: dict[bytes, bytes] = {}
        self.links = 1


class MemoryBackend:
    """Empty tree. ``owner``: user and group of all files. ``has_tmpfile``: there can be files without a name."""

    valid_seconds = 1

    def __init__(self, owner: tuple[int, int], *, has_tmpfile: bool) -> None:
        self.owner = owner
        self._has_tmpfile = has_tmpfile
        self._nodes = {ROOT_ID: _Node(modes.S_IFDIR | 0o755)}

    def commit(self) -> None: ...

    def close(self) -> None: ...

    def has_changes(self) -> bool:
        return False

    def fsync(self, _: int, /) -> None: ...

    def forget(self, _: int, __: int, /) -> None: ...

    def is_known(self, _: int, /) -> bool:
        return True

    def has_removed(self) -> bool:
        return False

    def is_private(self, _: int, /) -> bool:
        return False

    def again(self, node: int, /) -> Entry:
        return self._entry(node)

    def lookup(self, directory: int, name: bytes, /) -> Entry | None:
        found = self._nodes[directory].names.get(name)
        return None if found is None else self._entry(found)

    def entry(self, directory: int, listed: ListedName, /) -> Entry | None:
        return self.lookup(directory, listed.name)

    def _entry(self, number: int) -> Entry:
        return Entry(number, 0, self.attributes(number))

    def attributes(self, node: int, /) -> Attributes:
        found = self._nodes[node]
        size = len(found.data)
        return Attributes(node, size, size, 0, 0, 0, found.mode, found.links, *self.owner, encode_device(*found.device))

    def readlink(self, node: int, /) -> bytes:
        return bytes(self._nodes[node].data)

    def read(self, node: int, offset: int, size: int, /) -> bytes:
        return bytes(self._nodes[node].data[offset : offset + size])

    def data_ranges(self, node: int, /) -> Sequence[tuple[int, int]]:
        return [(0, len(self._nodes[node].data))]

    def list_directory(self, node: int, /) -> Sequence[ListedName]:
        names = self._nodes[node].names
        return [ListedName(name, number, self._nodes[number].mode >> 12) for name, number in names.items()]

    def xattrs(self, node: int, /) -> Mapping[bytes, bytes]:
        return self._nodes[node].xattrs

    def xattr(self, node: int, name: bytes, /) -> bytes | None:
        return self._nodes[node].xattrs.get(name)

    def totals(self) -> FilesystemTotals:
        return FilesystemTotals(1024, 1024, 1024, 1024, 1024, 4096)

    def set_attributes(self, node: int, changes: AttributeChanges, /) -> Attributes:
        found = self._nodes[node]
        if changes.mode is not None:
            found.mode = modes.S_IFMT(found.mode) | changes.mode
        if changes.size is not None:
            found.data = found.data[: changes.size].ljust(changes.size, b"\0")
        return self.attributes(node)

    def write(self, node: int, offset: int, data: memoryview, _: bool, /) -> int:
        found = self._nodes[node]
        found.data = found.data.ljust(offset, b"\0")
        found.data[offset : offset + len(data)] = data
        return len(data)

    def make_node(self, directory: int, name: bytes, mode: int, device: tuple[int, int], /) -> Entry:
        return self._add(directory, name, _Node(mode, device))

    def make_directory(self, directory: int, name: bytes, mode: int, /) -> Entry:
        return self._add(directory, name, _Node(modes.S_IFDIR | mode))

    def make_symlink(self, directory: int, name: bytes, target: bytes, /) -> Entry:
        return self._add(directory, name, _Node(modes.S_IFLNK | 0o777, data=target))

    def make_nameless(self, _: int, mode: int, /) -> Entry:
        if not self._has_tmpfile:
            self._fail(errno.EOPNOTSUPP)
        number = self._new(_Node(mode))
        self._nodes[number].links = 0
        return self._entry(number)

    def _add(self, directory: int, name: bytes, node: _Node) -> Entry:
        number = self._nodes[directory].names[name] = self._new(node)
        return self._entry(number)

    def _new(self, node: _Node) -> int:
        number = max(self._nodes) + 1
        self._nodes[number] = node
        return number

    def link(self, node: int, directory: int, name: bytes, /) -> Entry:
        self._nodes[directory].names[name] = node
        self._nodes[node].links += 1
        return self._entry(node)

    def unlink(self, directory: int, name: bytes, /) -> None:
        number = self._nodes[directory].names.pop(name)  # the node stays: the kernel may have it open
        self._nodes[number].links -= 1

    def rmdir(self, directory: int, name: bytes, /) -> None:
        if self._nodes[self._nodes[directory].names[name]].names:
            self._fail(errno.ENOTEMPTY)
        self.unlink(directory, name)

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
        old, new = self._nodes[directory].names, self._nodes[new_directory].names
        if not replace and new_name in new:
            self._fail(errno.EEXIST)
        moved = old.pop(name)
        if exchange:
            old[name] = new[new_name]
        elif whiteout:
            self.make_node(directory, name, modes.S_IFCHR, (0, 0))
        new[new_name] = moved

    def set_xattr(self, node: int, name: bytes, value: bytes, /, *, create: bool, replace: bool) -> None:
        found = self._nodes[node].xattrs
        if (create and name in found) or (replace and name not in found):
            self._fail(errno.EEXIST if create else errno.ENODATA)
        found[name] = value

    def remove_xattr(self, node: int, name: bytes, /) -> None:
        if self._nodes[node].xattrs.pop(name, None) is None:
            self._fail(errno.ENODATA)

    @staticmethod
    def _fail(number: int) -> NoReturn:
        raise OSError(number, os.strerror(number))
