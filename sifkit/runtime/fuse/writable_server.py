"""Server of a mount that programs change: further requests, and commits at the right times.

The kernel keeps no written data back (there is no writeback cache), so that write(2) itself fails if there is no room. Changes
are committed at fsync, 5 s after the first one, at SIGTERM, SIGINT and SIGHUP, after which it goes on, and at the end.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from itertools import count
from types import FrameType

from .backend import Attributes, Entry, ListedName, WritableBackend
from .protocol import (
    ATTR_OUT,
    CREATE_IN,
    ENTRY_OUT,
    GETXATTR_IN,
    IN_HEADER,
    LINK_IN,
    MKDIR_IN,
    MKNOD_IN,
    OPEN_OUT,
    READ_IN,
    RENAME2_IN,
    RENAME_IN,
    SETATTR_IN,
    SETXATTR_IN,
    WRITE_OUT,
    AttributeFlag,
    InitFlag,
    Opcode,
    RenameFlag,
    WriteFlag,
    decode_device,
)
from .server import WANTED, Reply, Server, packed, sized

__all__ = ["WritableServer"]

COMMIT_SECONDS = 5.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals after which changes are committed at once."""
S_IFDIR, SET_ID = 0o040000, 0o6000
SECOND = 1_000_000_000
XATTR_CREATE, XATTR_REPLACE = 1, 2

_read_in, _setattr_in = READ_IN.packer, SETATTR_IN.packer


class WritableServer(Server):
    """Server of one mount of ``backend``, which it closes at the end."""

    wanted = WANTED & ~InitFlag.NO_OPENDIR_SUPPORT | InitFlag.HANDLE_KILLPRIV_V2
    """Directories are opened, since each reader of one needs names that stay the same while it reads."""

    def __init__(self, fd: int, backend: WritableBackend, *, report: Callable[[str], None] | None = None) -> None:
        super().__init__(fd, backend, report=report)
        self.writable = backend
        self._commit_at: float | None = None
        self._commit_now = False
        self._poll = select.poll()
        self._directories: dict[int, Sequence[ListedName]] = {}
        """Names of open directories by handle."""
        self._handles = count(1)
        changes: dict[int, Callable[[int, memoryview], Reply | None]] = {
            Opcode.SETATTR: self._setattr,
            Opcode.SYMLINK: self._symlink,
            Opcode.MKNOD: self._mknod,
            Opcode.MKDIR: self._mkdir,
            Opcode.UNLINK: self._unlink,
            Opcode.RMDIR: self._rmdir,
            Opcode.RENAME: self._rename,
            Opcode.RENAME2: self._rename2,
            Opcode.LINK: self._link,
            Opcode.WRITE: self._write,
            Opcode.SETXATTR: self._setxattr,
            Opcode.REMOVEXATTR: self._removexattr,
            Opcode.CREATE: self._create,
            Opcode.TMPFILE: self._tmpfile,
            Opcode.FALLOCATE: self._fallocate,
            Opcode.FSYNC: self._fsync,
            Opcode.FSYNCDIR: self._fsync,
            Opcode.SYNCFS: self._syncfs,
            Opcode.OPENDIR: self._opendir,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.RELEASE: self._empty,
        }
        self._handlers.update(changes)

    def serve(self, *, threads: int = 1) -> None:
        """Answer requests until the filesystem is unmounted, then close the backend. One thread does it."""
        if threads != 1:
            raise ValueError("changes are made by one thread")
        os.set_blocking(self.fd, False)
        wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self.fd, select.POLLIN)
        self._poll.register(wake, select.POLLIN)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        self._wake = wake
        try:
            super().serve()
        finally:
            self.writable.close()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._commit_now = True

    def _before_read(self) -> None:
        """Wait for a request, and commit when it is time."""
        while True:
            self._commit_if_due()
            wait = None if self._commit_at is None else max(0.0, self._commit_at - time.monotonic()) * 1000
            ready = [fd for fd, _ in self._poll.poll(wait)]
            if self._wake in ready:
                os.read(self._wake, 4096)
            if self.fd in ready and not self._commit_now:
                return

    def _commit_if_due(self) -> None:
        if not self.writable.unsynced:
            self._commit_at, self._commit_now = None, False
            return
        now = time.monotonic()
        if self._commit_at is None:
            self._commit_at = now + COMMIT_SECONDS
        if not self._commit_now and now < self._commit_at:
            return
        self._commit_at, self._commit_now = now + COMMIT_SECONDS, False
        try:
            self.writable.commit()
        except OSError as error:  # the programs get it as well, at their next change
            self._report(str(error))

    # Answers

    def _valid(self, attributes: Attributes) -> int:
        """Return how long attributes hold: set-id bits are dropped by writes, of which the kernel does not see that."""
        return 0 if attributes.mode & SET_ID else self.backend.valid_seconds

    def _pack_entry(self, found: Entry | None) -> bytes:
        if found is None or not found.attributes.mode & SET_ID:
            return super()._pack_entry(found)
        valid = self.backend.valid_seconds
        return ENTRY_OUT.packer.pack(found.node, found.generation, valid, 0, 0, 0, *packed(found.attributes))

    def _pack_attributes(self, attributes: Attributes) -> bytes:
        return ATTR_OUT.packer.pack(self._valid(attributes), 0, 0, *packed(attributes))

    def _opened(self, entry: Entry) -> Reply:
        return (self._pack_entry(entry), OPEN_OUT.packer.pack(0, 0, 0))

    # Requests that read

    def _getattr(self, node: int, _: memoryview) -> Reply:
        return (self._pack_attributes(self.backend.attributes(node)),)

    def _getxattr(self, node: int, body: memoryview) -> Reply:
        value = self.writable.xattr(node, bytes(body[GETXATTR_IN.size : -1]))
        if value is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return sized(value, body)

    def _opendir(self, _: int, __: memoryview) -> Reply:
        handle = next(self._handles)
        self._directories[handle] = ()
        return (OPEN_OUT.packer.pack(handle, 0, 0),)

    def _releasedir(self, _: int, body: memoryview) -> Reply:
        self._directories.pop(int.from_bytes(body[:8], "little"), None)
        return ()

    def _names(self, node: int, handle: int, cookie: int) -> Sequence[ListedName]:
        if cookie == 0:
            self._directories[handle] = self.backend.list_directory(node)
        return self._directories[handle]

    def _listed_entry(self, node: int, names: Sequence[ListedName], index: int) -> Entry | None:
        return self.writable.named_entry(node, names[index])

    # Requests that change

    def _setattr(self, node: int, body: memoryview) -> Reply:
        valid, _, _, size, _, atime, mtime, _, atime_rest, mtime_rest, _, mode, _, uid, gid, _ = _setattr_in.unpack_from(body)
        now = time.time_ns() if valid & (AttributeFlag.ATIME_NOW | AttributeFlag.MTIME_NOW) else 0

        def time_of(given: int, now_flag: int, seconds: int, rest: int) -> int | None:
            if valid & now_flag:
                return now
            return (seconds - (seconds >> 63 << 64)) * SECOND + rest if valid & given else None

        found = self.writable.set_attributes(
            node,
            mode=mode & 0o7777 if valid & AttributeFlag.MODE else None,
            uid=uid if valid & AttributeFlag.UID else None,
            gid=gid if valid & AttributeFlag.GID else None,
            size=size if valid & AttributeFlag.SIZE else None,
            atime=time_of(AttributeFlag.ATIME, AttributeFlag.ATIME_NOW, atime, atime_rest),
            mtime=time_of(AttributeFlag.MTIME, AttributeFlag.MTIME_NOW, mtime, mtime_rest),
            drop_set_id=bool(valid & AttributeFlag.KILL_SUIDGID),
        )
        return (self._pack_attributes(found),)

    def _write(self, node: int, body: memoryview) -> Reply:
        _, offset, size, flags, *_ = _read_in.unpack_from(body)
        data = body[READ_IN.size : READ_IN.size + size]
        written = self.writable.write(node, offset, data, drop_set_id=bool(flags & WriteFlag.KILL_SUIDGID))
        return (WRITE_OUT.packer.pack(written, 0),)

    def _symlink(self, node: int, body: memoryview) -> Reply:
        name, target, _ = bytes(body).split(b"\0")
        return (self._pack_entry(self.writable.make_link(node, name, target, owner=self._owner(body))),)

    def _mknod(self, node: int, body: memoryview) -> Reply:
        mode, rdev, *_ = MKNOD_IN.packer.unpack_from(body)
        return (self._pack_entry(self._made(node, body, MKNOD_IN.size, mode, decode_device(rdev))),)

    def _mkdir(self, node: int, body: memoryview) -> Reply:
        mode, _ = MKDIR_IN.packer.unpack_from(body)
        return (self._pack_entry(self._made(node, body, MKDIR_IN.size, S_IFDIR | mode & 0o7777)),)

    def _create(self, node: int, body: memoryview) -> Reply:
        _, mode, *_ = CREATE_IN.packer.unpack_from(body)
        return self._opened(self._made(node, body, CREATE_IN.size, mode))

    def _made(self, node: int, body: memoryview, start: int, mode: int, rdev: tuple[int, int] = (0, 0)) -> Entry:
        return self.writable.make_node(node, _name(body[start:]), mode, rdev=rdev, owner=self._owner(body))

    def _tmpfile(self, node: int, body: memoryview) -> Reply:
        _, mode, *_ = CREATE_IN.packer.unpack_from(body)
        return self._opened(self.writable.make_nameless(node, mode, owner=self._owner(body)))

    def _link(self, node: int, body: memoryview) -> Reply:
        (existing,) = LINK_IN.packer.unpack_from(body)
        return (self._pack_entry(self.writable.link(existing, node, _name(body[LINK_IN.size :]))),)

    def _unlink(self, node: int, body: memoryview) -> Reply:
        self.writable.unlink(node, _name(body))
        return ()

    def _rmdir(self, node: int, body: memoryview) -> Reply:
        self.writable.rmdir(node, _name(body))
        return ()

    def _rename(self, node: int, body: memoryview) -> Reply:
        (directory,) = RENAME_IN.packer.unpack_from(body)
        return self._renamed(node, directory, body[RENAME_IN.size :], RenameFlag(0))

    def _rename2(self, node: int, body: memoryview) -> Reply:
        directory, flags, _ = RENAME2_IN.packer.unpack_from(body)
        return self._renamed(node, directory, body[RENAME2_IN.size :], RenameFlag(flags))

    def _renamed(self, node: int, directory: int, names: memoryview, flags: RenameFlag) -> Reply:
        known = RenameFlag.NOREPLACE | RenameFlag.EXCHANGE | RenameFlag.WHITEOUT
        if flags & ~known or (flags & RenameFlag.EXCHANGE and flags != RenameFlag.EXCHANGE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        old, new, _ = bytes(names).split(b"\0")
        self.writable.rename(
            node,
            old,
            directory,
            new,
            replace=not flags & RenameFlag.NOREPLACE,
            exchange=bool(flags & RenameFlag.EXCHANGE),
            whiteout=bool(flags & RenameFlag.WHITEOUT),
        )
        return ()

    def _setxattr(self, node: int, body: memoryview) -> Reply:
        size, flags = SETXATTR_IN.packer.unpack_from(body)
        name = _name(body[SETXATTR_IN.size :])
        start = SETXATTR_IN.size + len(name) + 1
        value = bytes(body[start : start + size])
        self.writable.set_xattr(node, name, value, create=bool(flags & XATTR_CREATE), replace=bool(flags & XATTR_REPLACE))
        return ()

    def _removexattr(self, node: int, body: memoryview) -> Reply:
        self.writable.remove_xattr(node, _name(body))
        return ()

    def _fallocate(self, _: int, __: memoryview) -> Reply:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def _fsync(self, node: int, _: memoryview) -> Reply:
        self.writable.sync(node)
        return ()

    def _syncfs(self, _: int, __: memoryview) -> Reply:
        self.writable.commit()
        return ()

    @staticmethod
    def _owner(body: memoryview) -> tuple[int, int]:
        """Return user and group of the program that sent the request whose ``body`` this is."""
        header = IN_HEADER.packer.unpack_from(body.obj)
        return header[4], header[5]


def _name(body: memoryview) -> bytes:
    """Return the first name of what is given, without the byte 0 behind it."""
    return bytes(body).split(b"\0", 1)[0]
