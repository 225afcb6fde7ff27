"""Server of a filesystem that is written to: the requests that change it, and when changes are committed.

There is no writeback cache: a write that has no room fails where it is made. SIGTERM, SIGINT and SIGHUP commit what there is,
and serving goes on; after an unmount all is committed.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Sequence

from .backend import AttributeChanges, Entry, ListedName, WritableBackend
from .protocol import (
    ATTR_OUT,
    GETXATTR_IN,
    OPEN_OUT,
    READ_IN,
    RENAME2_IN,
    SETATTR_IN,
    InitFlag,
    Opcode,
    SetAttribute,
    decode_device,
)
from .server import WANTED, Reply, Server, packed_attributes

__all__ = ["WritableServer"]

COMMITTING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
XATTR_CREATE, XATTR_REPLACE = 1, 2
WRITE_KILL_SUIDGID = 4
KEEP_CACHE = 2
SECOND = 1_000_000_000


class WritableServer(Server):
    """Server of a mount that is written to; see ``Server``. It has one thread."""

    def __init__(self, fd: int, backend: WritableBackend, *, report: Callable[[str], None] | None = None) -> None:
        super().__init__(fd, backend, report=report)
        self.writable = backend
        self.wanted = WANTED & ~InitFlag.NO_OPENDIR_SUPPORT | InitFlag.HANDLE_KILLPRIV_V2
        self._snapshots: dict[int, Sequence[ListedName]] = {}
        self._next_handle = 1
        self._is_busy = False
        self._is_commit_asked = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._handlers |= {
            Opcode.SETATTR: self._setattr,
            Opcode.SYMLINK: self._symlink,
            Opcode.MKNOD: self._mknod,
            Opcode.MKDIR: self._mkdir,
            Opcode.UNLINK: self._unlink,
            Opcode.RMDIR: self._rmdir,
            Opcode.RENAME2: self._rename2,
            Opcode.RENAME: self._rename,
            Opcode.LINK: self._link,
            Opcode.WRITE: self._write,
            Opcode.CREATE: self._create,
            Opcode.SETXATTR: self._setxattr,
            Opcode.REMOVEXATTR: self._removexattr,
            Opcode.FSYNC: self._fsync,
            Opcode.FSYNCDIR: self._fsync,
            Opcode.SYNCFS: self._syncfs,
            Opcode.OPENDIR: self._opendir,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.RELEASE: self._empty,
        }

    def serve(self, *, threads: int = 1) -> None:
        if threads != 1:
            raise ValueError("a filesystem that is written to is served by one thread")
        for number in COMMITTING_SIGNALS:
            signal.signal(number, self._on_signal)
        super().serve()

    def finish(self) -> None:
        """Commit all, and end the work with the filesystem. Raises OSError."""
        self.writable.close()

    def _on_signal(self, _: int, __: object) -> None:
        """Commit at once, or after the request that is being answered."""
        if self._is_busy:
            self._is_commit_asked = True
        else:
            self.commit()

    def commit(self) -> None:
        try:
            self.writable.commit()
        except OSError as error:
            self._report(f"changes cannot be committed: {error}")

    def wait(self) -> None:
        """Wait for a request; commit when changes are old enough, or it was asked for."""
        self._is_busy = False
        if self._is_commit_asked:
            self._is_commit_asked = False
            self.commit()
        while (seconds := self.writable.seconds_to_commit()) is not None:
            if seconds == 0:
                self.commit()
                break
            if self._poll.poll(seconds * 1000 + 1):
                break

    def begin(self) -> None:
        self._is_busy = True

    # Requests

    def _setattr(self, node: int, body: memoryview) -> Reply:
        found = SETATTR_IN.read(body)
        valid = found["valid"]

        def stamp(name: str, given: SetAttribute, now: SetAttribute) -> int | None:
            if valid & now:
                return time.time_ns()
            return _signed(found[name]) * SECOND + found[f"{name}nsec"] if valid & given else None

        changes = AttributeChanges(
            mode=found["mode"] & 0o7777 if valid & SetAttribute.MODE else None,
            uid=found["uid"] if valid & SetAttribute.UID else None,
            gid=found["gid"] if valid & SetAttribute.GID else None,
            size=found["size"] if valid & SetAttribute.SIZE else None,
            atime=stamp("atime", SetAttribute.ATIME, SetAttribute.ATIME_NOW),
            mtime=stamp("mtime", SetAttribute.MTIME, SetAttribute.MTIME_NOW),
            clears_set_id=bool(valid & SetAttribute.KILL_SUIDGID),
        )
        attributes = self.writable.set_attributes(node, changes)
        return (ATTR_OUT.packer.pack(self.backend.valid_seconds, 0, 0, *packed_attributes(attributes)),)

    def _symlink(self, node: int, body: memoryview) -> Reply:
        name, target, _ = bytes(body).split(b"\0", 2)
        return self._entry(self.writable.make_symlink(node, name, target))

    def _mknod(self, node: int, body: memoryview) -> Reply:
        mode, device = _words(body, 2)
        return self._entry(self.writable.make_node(node, bytes(body[16:-1]), mode, decode_device(device)))

    def _mkdir(self, node: int, body: memoryview) -> Reply:
        (mode,) = _words(body, 1)
        return self._entry(self.writable.make_directory(node, bytes(body[8:-1]), mode & 0o7777))

    def _create(self, node: int, body: memoryview) -> Reply:
        _, mode = _words(body, 2)
        (entry,) = self._entry(self.writable.make_node(node, bytes(body[16:-1]), mode, (0, 0)))
        return entry, OPEN_OUT.packer.pack(0, KEEP_CACHE, 0)

    def _entry(self, found: Entry) -> Reply:
        return (self._pack_entry(found),)

    def _unlink(self, node: int, body: memoryview) -> Reply:
        self.writable.unlink(node, bytes(body[:-1]))
        return ()

    def _rmdir(self, node: int, body: memoryview) -> Reply:
        self.writable.rmdir(node, bytes(body[:-1]))
        return ()

    def _rename(self, node: int, body: memoryview) -> Reply:
        return self._move(node, int.from_bytes(body[:8], "little"), 0, bytes(body[8:]))

    def _rename2(self, node: int, body: memoryview) -> Reply:
        new_directory, flags, _ = RENAME2_IN.packer.unpack_from(body)
        return self._move(node, new_directory, flags, bytes(body[RENAME2_IN.size :]))

    def _move(self, node: int, new_directory: int, flags: int, names: bytes) -> Reply:
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        name, new_name, _ = names.split(b"\0", 2)
        self.writable.rename(
            node,
            name,
            new_directory,
            new_name,
            replace=not flags & RENAME_NOREPLACE,
            exchange=bool(flags & RENAME_EXCHANGE),
            whiteout=bool(flags & RENAME_WHITEOUT),
        )
        return ()

    def _link(self, node: int, body: memoryview) -> Reply:
        return self._entry(self.writable.link(int.from_bytes(body[:8], "little"), node, bytes(body[8:-1])))

    def _write(self, node: int, body: memoryview) -> Reply:
        _, offset, size, flags, *_ = READ_IN.packer.unpack_from(body)
        self.writable.write(node, offset, body[READ_IN.size : READ_IN.size + size], bool(flags & WRITE_KILL_SUIDGID))
        return (size.to_bytes(4, "little") + bytes(4),)

    def _setxattr(self, node: int, body: memoryview) -> Reply:
        size, flags = _words(body, 2)
        name, _, value = bytes(body[8:]).partition(b"\0")
        create, replace = bool(flags & XATTR_CREATE), bool(flags & XATTR_REPLACE)
        self.writable.set_xattr(node, name, value[:size], create=create, replace=replace)
        return ()

    def _removexattr(self, node: int, body: memoryview) -> Reply:
        self.writable.remove_xattr(node, bytes(body[:-1]))
        return ()

    def _getxattr(self, node: int, body: memoryview) -> Reply:
        return self._value(self.writable.xattr(node, bytes(body[GETXATTR_IN.size : -1])), body)

    def _fsync(self, node: int, _: memoryview) -> Reply:
        self.writable.fsync(node)
        return ()

    def _syncfs(self, _: int, __: memoryview) -> Reply:
        self.writable.commit()
        return ()

    # Open directories: a snapshot each, so that names removed while one is read shift nothing

    def _opendir(self, node: int, _: memoryview) -> Reply:
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._snapshots[handle] = self.backend.list_directory(node)
        return (OPEN_OUT.packer.pack(handle, 0, 0),)

    def _releasedir(self, _: int, body: memoryview) -> Reply:
        self._snapshots.pop(int.from_bytes(body[:8], "little"), None)
        return ()

    def names_of(self, node: int, handle: int, cookie: int) -> Sequence[ListedName]:
        if cookie == 0 and handle in self._snapshots:  # from the beginning again
            self._snapshots[handle] = self.backend.list_directory(node)
        return self._snapshots.get(handle) or ()


def _words(body: memoryview, count: int) -> tuple[int, ...]:
    return tuple(int.from_bytes(body[4 * number : 4 * number + 4], "little") for number in range(count))


def _signed(value: int) -> int:
    """Return seconds, which the protocol has without a sign, with it."""
    return value - (1 << 64) if value >> 63 else value
