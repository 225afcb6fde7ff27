"""Server of the FUSE protocol: requests of the kernel, read from /dev/fuse, answered by a backend."""

from __future__ import annotations

import errno
import os
import select
import sys as python
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread

from .backend import Attributes, Backend, Entry, ListedName, Names
from .protocol import (
    ATTR_OUT,
    DIRENT,
    ENTRY_OUT,
    FORGET_ONE,
    GETXATTR_IN,
    GETXATTR_OUT,
    IN_HEADER,
    INIT_IN,
    INIT_OUT,
    KERNEL_STATFS,
    LSEEK_IN,
    LSEEK_OUT,
    MAJOR,
    MIN_MINOR,
    MINOR,
    OPEN_OUT,
    OUT_HEADER,
    READ_IN,
    InitFlag,
    Opcode,
)

__all__ = ["FAULTS", "SECOND", "WANTED", "Reply", "Server", "packed_attributes"]

MAX_PAGES = 256
MAX_WRITE = MAX_PAGES * 4096
BUFFER_BYTES = MAX_WRITE + 4096
"""Bytes that the kernel may send at once: a write and what comes before its data."""
MAX_BACKGROUND, CONGESTION = 64, 48
XATTR_LIST_MAX = 65_536
NAME_MAX = 255
SEEK_DATA, SEEK_HOLE = 3, 4
WANTED = (
    InitFlag.ASYNC_READ
    | InitFlag.BIG_WRITES
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.NO_OPEN_SUPPORT
    | InitFlag.NO_OPENDIR_SUPPORT
)
"""Features for a tree that nobody changes: files and directories need no OPEN."""
CHANGES = frozenset(
    {
        Opcode.SETATTR,
        Opcode.SYMLINK,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.LINK,
        Opcode.WRITE,
        Opcode.SETXATTR,
        Opcode.REMOVEXATTR,
        Opcode.CREATE,
        Opcode.FALLOCATE,
        Opcode.RENAME2,
        Opcode.TMPFILE,
    }
)
FAULTS = frozenset({errno.EIO, errno.EUCLEAN, errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO})
"""Errors of requests that mean that an image is damaged, or that its file cannot be read."""
SECOND = 1_000_000_000
NO_ATTRIBUTES = Attributes(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
FIRST_COOKIE = 2
"""Cookie of the first name of a directory, after ``.`` and ``..``."""

Reply = Sequence[bytes | memoryview]
"""Parts of the answer to a request."""

_in_header, _out_header = IN_HEADER.packer, OUT_HEADER.packer
_entry_out, _attr_out, _dirent, _read_in = ENTRY_OUT.packer, ATTR_OUT.packer, DIRENT.packer, READ_IN.packer


class Server:
    """Server of one mount: ``fd`` is open on /dev/fuse and mounted. ``report``: takes one line per internal error.

    ``report_fault``: is given the first error that is the image's or its file's.
    """

    def __init__(self, fd: int, backend: Backend, *, report: Callable[[str], None] | None = None) -> None:
        if python.byteorder != "little":
            raise OSError(errno.ENOSYS, "FUSE is served on little-endian machines only")
        self.fd = fd
        self.backend = backend
        self.wanted = WANTED
        self.thread = 0
        self.request = memoryview(b"")
        """The request that is being answered, valid until then."""
        self._report = report or (lambda _: None)
        self.report_fault: Callable[[OSError], None] | None = None
        self.faults = FAULTS | {errno.ESTALE}
        """ESTALE: the file was removed on another node. The kernel asks for no node that it has let go."""
        self._ranges: tuple[int, Sequence[tuple[int, int]]] = (0, ())
        """Node that was asked for holes last, and its data: programs ask once for each hole."""
        self._handlers: dict[int, Callable[[int, memoryview], Reply | None]] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._batch_forget,
            Opcode.GETATTR: self._getattr,
            Opcode.READLINK: self._readlink,
            Opcode.READ: self._read,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.STATFS: self._statfs,
            Opcode.LSEEK: self._lseek,
            Opcode.IOCTL: self._ioctl,
            Opcode.INIT: self._init,
            Opcode.INTERRUPT: self._nothing,
            Opcode.DESTROY: self._empty,
        }

    def serve(self, *, threads: int = 1) -> None:
        """Answer requests until the filesystem is unmounted. Further ``threads`` help where the backend decompresses data."""
        helpers = [Thread(target=self._serve, daemon=True) for _ in range(threads - 1)]
        for helper in helpers:
            helper.start()
        self._serve()

    def _serve(self) -> None:
        buffer = bytearray(BUFFER_BYTES)
        view = memoryview(buffer)
        fd = self.fd
        while True:
            self.wait()
            try:
                size = os.readv(fd, [buffer])
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):  # ENOENT: the request was interrupted
                    continue
                if error.errno == errno.ENODEV:  # unmounted
                    return
                raise
            if not size:  # the other end is closed; the kernel never sends this
                return
            self._answer(view[:size])

    def _answer(self, request: memoryview) -> None:
        """Answer one request."""
        _, opcode, unique, node, _, _, self.thread, *_ = _in_header.unpack_from(request)
        self.request = request
        self.begin(opcode)
        handler = self._handlers.get(opcode)
        try:
            if handler is None:
                self._fail(unique, errno.EROFS if opcode in CHANGES else errno.ENOSYS)
                return
            reply = handler(node, request[IN_HEADER.size :])
        except OSError as error:
            number = error.errno or errno.EIO
            if number in self.faults:
                self.note_fault(error)
            self._fail(unique, number)
            return
        except Exception as error:  # noqa: BLE001 - a request must be answered, or its program hangs for ever
            self._report(f"internal error in FUSE operation {opcode}: {type(error).__name__}: {error}")
            self._fail(unique, errno.EIO)
            return
        if reply is not None:
            self._send(unique, reply)

    def note_fault(self, error: OSError) -> None:
        """Report a fault, if it is the first: the others may follow from that."""
        report, self.report_fault = self.report_fault, None
        if report is not None:
            report(error)

    def has_waiting(self) -> bool:
        """Return whether a request can be read."""
        waiting = select.poll()
        waiting.register(self.fd, select.POLLIN)
        return bool(waiting.poll(0))

    def finish(self) -> int:
        """Called after the unmount. Return the exit code of the server's process."""
        return 0

    def wait(self) -> None:
        """Called before a request is read."""

    def begin(self, opcode: int) -> None:
        """Called when a request was read. ``thread``: the thread that waits for its answer."""

    def names_of(self, node: int, handle: int, cookie: int) -> Names:
        """Return the names of an open directory, which is read from ``cookie`` on."""
        return self.backend.list_directory(node)

    def entry_of(self, node: int, listed: ListedName) -> Entry | None:
        """Return the node of a name in a directory that is listed."""
        return self.backend.entry(node, listed)

    def _send(self, unique: int, parts: Reply) -> None:
        header = _out_header.pack(OUT_HEADER.size + sum(map(len, parts)), 0, unique)
        try:
            os.writev(self.fd, [header, *parts])
        except FileNotFoundError:  # the request was interrupted
            pass
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # longer than the kernel has asked for, as a symlink of a damaged image: it has made EIO of it
            self._report(f"an answer of {len(header) + sum(map(len, parts)):,} bytes is refused")

    def _fail(self, unique: int, number: int) -> None:
        """Answer a request with an error."""
        with suppress(FileNotFoundError):
            os.write(self.fd, _out_header.pack(OUT_HEADER.size, -number, unique))

    # Requests: node id and what follows the header; None: no answer

    def _init(self, _: int, body: memoryview) -> Reply:
        major, minor, readahead, flags = INIT_IN.packer.unpack_from(body)
        if major != MAJOR or minor < MIN_MINOR:
            raise OSError(errno.EPROTO, f"the kernel speaks FUSE {major}.{minor}, at least {MAJOR}.{MIN_MINOR} is needed")
        wanted = int(self.wanted) & flags
        if not flags & InitFlag.NO_OPENDIR_SUPPORT:  # before Linux 5.1
            self._handlers.setdefault(Opcode.OPENDIR, self._open_directory)
        return (
            INIT_OUT.packer.pack(
                MAJOR, min(minor, MINOR), readahead, wanted, MAX_BACKGROUND, CONGESTION, MAX_WRITE, 1, MAX_PAGES, 0, 0, b""
            ),
        )

    def _nothing(self, _: int, __: memoryview) -> None:
        return None

    def _empty(self, _: int, __: memoryview) -> Reply:
        return ()

    def _open_directory(self, _: int, __: memoryview) -> Reply:
        return (OPEN_OUT.packer.pack(0, 0, 0),)

    def _ioctl(self, _: int, __: memoryview) -> Reply:
        # not ENOSYS: overlayfs of Linux 5.15 to 5.17 asks for flags of files by ioctl, and copies none up after that
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    def _lookup(self, node: int, body: memoryview) -> Reply | None:
        if len(body) > NAME_MAX + 1:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        found = self.backend.lookup(node, bytes(body[:-1]))
        return (self._pack_entry(found),)

    def _pack_entry(self, found: Entry | None) -> bytes:
        """Pack the answer of a lookup; None: that there is no such name, which the kernel keeps as well."""
        valid = self.backend.valid_seconds
        if found is None:
            return _entry_out.pack(0, 0, valid, 0, 0, 0, *packed_attributes(NO_ATTRIBUTES))
        return _entry_out.pack(found.node, found.generation, valid, valid, 0, 0, *packed_attributes(found.attributes))

    def _forget(self, node: int, body: memoryview) -> None:
        self.backend.forget(node, int.from_bytes(body[:8], "little"))

    def _batch_forget(self, _: int, body: memoryview) -> None:
        count = int.from_bytes(body[:4], "little")
        for node, lookups in FORGET_ONE.packer.iter_unpack(body[8 : 8 + count * FORGET_ONE.size]):
            self.backend.forget(node, lookups)

    def _getattr(self, node: int, _: memoryview) -> Reply:
        return (_attr_out.pack(self.backend.valid_seconds, 0, 0, *packed_attributes(self.backend.attributes(node))),)

    def _readlink(self, node: int, _: memoryview) -> Reply:
        return (self.backend.readlink(node),)

    def _read(self, node: int, body: memoryview) -> Reply:
        _, offset, size, *_ = _read_in.unpack_from(body)
        return (self.backend.read(node, offset, size),)

    def _lseek(self, node: int, body: memoryview) -> Reply:
        """Return the next data or hole: overlayfs and cp leave holes out where they learn of them."""
        _, offset, whence, _ = LSEEK_IN.packer.unpack_from(body)
        size = self.backend.attributes(node).size
        if whence not in (SEEK_DATA, SEEK_HOLE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if offset >= size:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        known = self._ranges  # another thread may ask about another file meanwhile
        if known[0] != node:
            known = self._ranges = node, self.backend.data_ranges(node)
        ranges = known[1]
        from bisect import bisect_right

        index = bisect_right(ranges, offset, key=sum)  # the first range that ends after the offset
        start, length = ranges[index] if index < len(ranges) else (size, 0)
        if whence == SEEK_HOLE:
            found = min(start + length, size) if start <= offset else offset
        elif start < size:
            found = max(start, offset)
        else:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return (LSEEK_OUT.packer.pack(found),)

    def _readdir(self, node: int, body: memoryview) -> Reply:
        return self._list(node, body, plus=False)

    def _readdirplus(self, node: int, body: memoryview) -> Reply:
        return self._list(node, body, plus=True)

    def _list(self, node: int, body: memoryview, *, plus: bool) -> Reply:
        """Pack names from the cookie of the request on, as many as it has room for; with ``plus`` their entries, too."""
        handle, cookie, room, *_ = _read_in.unpack_from(body)
        parts: list[bytes] = []
        unknown = self._pack_entry(None)
        names = self.names_of(node, handle, cookie)
        for index in range(cookie, len(names) + FIRST_COOKIE):
            # the kernel asks for neither . nor .. by lookup; their inode numbers are only shown
            is_dot = index < FIRST_COOKIE
            listed = ListedName((b".", b"..")[index], node, 0o04) if is_dot else names[index - FIRST_COOKIE]
            name, ino, kind, _ = listed
            size = DIRENT.size + len(name)
            padding = -size % 8
            room -= size + padding + (ENTRY_OUT.size if plus else 0)
            if room < 0:
                break
            if plus:
                found = self.entry_of(node, listed) if index >= FIRST_COOKIE else None
                parts.append(unknown if found is None else self._pack_entry(found))
            parts.append(_dirent.pack(ino, index + 1, len(name), kind) + name + bytes(padding))
        return (b"".join(parts),)

    def _getxattr(self, node: int, body: memoryview) -> Reply:
        return self._value(self.backend.xattrs(node).get(bytes(body[GETXATTR_IN.size : -1])), body)

    def _value(self, value: bytes | None, body: memoryview) -> Reply:
        if value is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return _sized(value, body)

    def _listxattr(self, node: int, body: memoryview) -> Reply:
        names = b"".join(name + b"\0" for name in self.backend.xattrs(node))
        if len(names) > XATTR_LIST_MAX:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        return _sized(names, body)

    def _statfs(self, _: int, __: memoryview) -> Reply | None:
        found = self.backend.totals()
        values = (found.blocks, found.free_blocks, found.available_blocks, found.inodes, found.free_inodes)
        return (KERNEL_STATFS.packer.pack(*values, found.block_size, 255, found.block_size, 0, b""),)


def packed_attributes(found: Attributes) -> tuple[int, ...]:
    """Return the fields of ATTR."""
    ino, size, blocks, atime, mtime, ctime, mode, links, uid, gid, rdev = found
    seconds = (
        atime // SECOND & 0xFFFF_FFFF_FFFF_FFFF,
        mtime // SECOND & 0xFFFF_FFFF_FFFF_FFFF,
        ctime // SECOND & 0xFFFF_FFFF_FFFF_FFFF,
    )
    return (ino, size, blocks, *seconds, atime % SECOND, mtime % SECOND, ctime % SECOND, mode, links, uid, gid, rdev, 4096, 0)


def _sized(value: bytes, body: memoryview) -> Reply:
    """Return a value, or its size if that is asked for. Raises OSError (ERANGE) if there is no room for it."""
    room = int.from_bytes(body[:4], "little")
    if room == 0:
        return (GETXATTR_OUT.packer.pack(len(value), 0),)
    if room < len(value):
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return (value,)
