"""Server of a filesystem that is written to: the requests that change it, and when changes are committed.

There is no writeback cache: a write that has no room fails where it is made. SIGTERM, SIGINT and SIGHUP commit what there is,
and serving goes on; after an unmount all is committed.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from .backend import AttributeChanges, Attributes, Entry, ListedName, Names, WritableBackend
from .protocol import (
    ATTR_OUT,
    ENTRY_OUT,
    FORGET_ONE,
    GETXATTR_IN,
    OPEN_OUT,
    READ_IN,
    RENAME2_IN,
    SETATTR_IN,
    InitFlag,
    Opcode,
    OpenFlag,
    SetAttribute,
    decode_device,
)
from .removed_names import METACOPY, NAMELESS, OVERLAY_MARKS, RemovedNames
from .server import CHANGES, FAULTS, SECOND, WANTED, Reply, Server, packed_attributes
from .waiting_call import called_names

__all__ = ["FULL", "FULL_OF_BYTES", "FULL_OF_INODES", "WritableServer"]

COMMITTING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
"""The last is that of our timer."""
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
XATTR_CREATE, XATTR_REPLACE = 1, 2
WRITE_CACHE, WRITE_KILL_SUIDGID = 1, 4
"""The first: changed pages of a mapped file, of which the kernel takes all as written but for an error."""
SET_ID = 0o6000
NOT_OTHERS = frozenset({Opcode.LOOKUP, Opcode.GETXATTR, Opcode.FORGET, Opcode.BATCH_FORGET})
"""Requests that may follow a lookup of a removed name without being another matter; see ``removed_names``."""
COMMIT_SECONDS = 5.0
"""Age of the oldest change that is not committed, at which all are."""
FULL_OF_BYTES, FULL_OF_INODES = 28, 29
"""Exit codes of a server that had no room for a request; all others were carried out."""
FULL: dict[int, Literal["bytes", "inodes"]] = {FULL_OF_BYTES: "bytes", FULL_OF_INODES: "inodes"}
"""Resource that was used up, by exit code."""
FEW_BLOCKS = 16
"""Available blocks at most, where a request has failed for lack of them and not for another limit, as that of xattrs."""
FORGET_DELAY = 16
"""Requests after which the kernel has certainly sent a FORGET: it lets 8 others overtake it (``fuse_dev_do_read``).

INTERRUPT does not count: it comes before all."""


class WritableServer(Server):
    """Server of a mount that is written to; see ``Server``. It has one thread. ``has_overlay``: overlayfs lies above it."""

    def __init__(
        self,
        fd: int,
        backend: WritableBackend,
        *,
        has_overlay: bool = False,
        report: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(fd, backend, report=report)
        self.writable = backend
        self.faults = FAULTS
        self.wanted = WANTED & ~InitFlag.NO_OPENDIR_SUPPORT | InitFlag.HANDLE_KILLPRIV_V2
        self._snapshots: dict[int, Names] = {}
        self._next_handle = 1
        self._is_busy = False
        self._is_commit_asked = False
        self._full = 0
        self._has_overlay = has_overlay
        self._removed = RemovedNames()
        self._postponed: deque[tuple[int, bytes]] = deque()
        """Requests that are answered after those that wait, each with the turn in which it is at the latest.

        Their answers depend on FORGETs, which the kernel may send after what the program asks next."""
        self._turn = 0
        self._is_retry = False
        self._is_timed = False
        self._has_timer = False
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
            Opcode.TMPFILE: self._tmpfile,
            Opcode.FALLOCATE: self._fallocate,
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
        self._is_timed = True
        super().serve()
        signal.setitimer(signal.ITIMER_REAL, 0)

    def finish(self) -> int:
        """Commit all, and end the work with the filesystem; return 0, or FULL_OF_BYTES or FULL_OF_INODES if
        requests were refused for lack of them. Raises OSError.
        """
        self.writable.close()
        return self._full

    def _fail(self, unique: int, number: int) -> None:
        if number == errno.ENOSPC:
            if self._may_get_room():
                self._postpone()
                return
            self._note_full()
        super()._fail(unique, number)

    def _may_get_room(self) -> bool:
        """Return whether the FORGET of a removed file, which tells that it is no longer open, may be on its way."""
        return not self._is_retry and self.writable.has_removed()

    def _postpone(self) -> None:
        """Answer the request later, when the FORGETs that wait have come."""
        self._postponed.append((self._turn + FORGET_DELAY, bytes(self.request)))

    def _answer_postponed(self) -> None:
        """Answer all postponed requests if no other waits, else those that have been postponed for long."""
        has_waiting = self.has_waiting()
        self._is_retry = True
        while self._postponed and (self._postponed[0][0] <= self._turn or not has_waiting):
            self._answer(memoryview(self._postponed.popleft()[1]))
        self._is_retry = False

    def _note_full(self) -> None:
        if not self._full:
            found = self.backend.totals()
            is_full = found.available_blocks <= FEW_BLOCKS
            self._full = FULL_OF_INODES if not found.free_inodes else FULL_OF_BYTES if is_full else 0

    def _on_signal(self, number: int, _: object) -> None:
        """Commit at once, or after the request that is being answered."""
        if number == signal.SIGALRM:
            self._has_timer = False
        self._is_commit_asked = True
        while self._is_commit_asked and not self._is_busy:  # another signal may come during a commit
            self._is_commit_asked = False
            self._is_busy = True
            self.commit()
            self._is_busy = False

    def commit(self) -> None:
        try:
            self.writable.commit()
        except OSError as error:
            self._report(f"changes cannot be committed: {error}")
            self.note_fault(error)

    def wait(self) -> None:
        """Commit if it was asked for; else see to it that what has changed is committed in time."""
        if self._postponed:
            self._answer_postponed()
        while True:
            if self._is_commit_asked:
                self._is_commit_asked = False
                self.commit()
            if self._is_timed and not self._has_timer and self.writable.has_changes():
                self._has_timer = True
                signal.setitimer(signal.ITIMER_REAL, COMMIT_SECONDS)
            self._is_busy = False  # from here on a signal commits by itself
            if not self._is_commit_asked:
                return
            self._is_busy = True

    def begin(self, opcode: int) -> None:
        self._is_busy = True
        if not self._is_retry and opcode != Opcode.INTERRUPT:
            self._turn += 1
        if self._removed and opcode not in NOT_OTHERS:
            self._removed.other_request(self.thread, is_change=opcode in CHANGES)

    # Answers: the kernel does not see that a write takes set-id bits, so it keeps no attributes that have them

    def _pack_entry(self, found: Entry | None, *, is_kept: bool = True) -> bytes:
        """Pack an answer as ``Server`` does; with ``is_kept`` false the kernel asks for the name each time."""
        if found is None or (is_kept and not found.attributes.mode & SET_ID):
            return super()._pack_entry(found)
        values = packed_attributes(found.attributes)
        valid = self.backend.valid_seconds
        attributes_valid = 0 if found.attributes.mode & SET_ID else valid
        return ENTRY_OUT.packer.pack(found.node, found.generation, valid if is_kept else 0, attributes_valid, 0, 0, *values)

    def _pack_attributes(self, found: Attributes) -> bytes:
        valid = 0 if found.mode & SET_ID else self.backend.valid_seconds
        return ATTR_OUT.packer.pack(valid, 0, 0, *packed_attributes(found))

    def _getattr(self, node: int, _: memoryview) -> Reply:
        return (self._pack_attributes(self.backend.attributes(node)),)

    # Requests

    def _lookup(self, node: int, body: memoryview) -> Reply | None:
        """Find a name, or the file that it led to before it was removed: see ``removed_names``."""
        name = bytes(body[:-1])
        if not self._is_retry and self._removed.has_asked(self.thread, (node, name)):
            self._postpone()
            return None
        if (node, name) not in self._removed:
            found = self._linked(node, name, self.backend.lookup(node, name))
            if self._removed:
                is_file = found is not None and not stat.S_ISDIR(found.attributes.mode)
                self._removed.other_request(self.thread, has_found_file=is_file)
            return (self._pack_entry(found),)
        found = None if name == NAMELESS else self.backend.lookup(node, name)
        present = None if found is None else found.node
        answer = self._removed.answer(self.thread, (node, name), present, called_names(self.thread))
        if answer == present:
            return (self._pack_entry(found),)
        if present is not None:
            self.backend.forget(present, 1)
        again = None if answer is None else self.writable.again(answer)
        return (self._pack_entry(again, is_kept=name == NAMELESS),)  # which is never looked up as a name

    def _linked(self, directory: int, name: bytes, found: Entry | None) -> Entry | None:
        """Note a name that the kernel sees, if it is one of several of a file; return the entry."""
        if found is not None and self._has_overlay and found.attributes.links > 1 and not stat.S_ISDIR(found.attributes.mode):
            self._removed.links.found(found.node, (directory, name))
        return found

    def entry_of(self, node: int, listed: ListedName) -> Entry | None:
        return self._linked(node, listed.name, super().entry_of(node, listed))

    def _forget(self, node: int, body: memoryview) -> None:
        super()._forget(node, body)
        self._forget_removed(node)

    def _batch_forget(self, _: int, body: memoryview) -> None:
        super()._batch_forget(_, body)
        if self._has_overlay:
            count = int.from_bytes(body[:4], "little")
            for node, _ in FORGET_ONE.packer.iter_unpack(body[8 : 8 + count * FORGET_ONE.size]):
                self._forget_removed(node)

    def _forget_removed(self, node: int) -> None:
        if self._has_overlay:
            self._removed.forgotten(node, is_known=self.writable.is_known(node))

    def _setattr(self, node: int, body: memoryview) -> Reply:
        valid, _, _, size, _, atime, mtime, _, atime_rest, mtime_rest, _, mode, _, uid, gid, _ = SETATTR_IN.packer.unpack_from(
            body
        )

        def stamp(seconds: int, rest: int, given: SetAttribute, now: SetAttribute) -> int | None:
            if valid & now:
                return time.time_ns()
            return _signed(seconds) * SECOND + rest if valid & given else None

        changes = AttributeChanges(
            mode=mode & 0o7777 if valid & SetAttribute.MODE else None,
            uid=uid if valid & SetAttribute.UID else None,
            gid=gid if valid & SetAttribute.GID else None,
            size=size if valid & SetAttribute.SIZE else None,
            atime=stamp(atime, atime_rest, SetAttribute.ATIME, SetAttribute.ATIME_NOW),
            mtime=stamp(mtime, mtime_rest, SetAttribute.MTIME, SetAttribute.MTIME_NOW),
            clears_set_id=bool(valid & SetAttribute.KILL_SUIDGID),
        )
        self._ranges = (0, ())
        return (self._pack_attributes(self.writable.set_attributes(node, changes)),)

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
        return self._opened(self.writable.make_node(node, bytes(body[16:-1]), mode, (0, 0)))

    def _tmpfile(self, node: int, body: memoryview) -> Reply:
        _, mode = _words(body, 2)
        found = self.writable.make_nameless(node, mode)
        if self._has_overlay and not self.writable.is_private(node):
            self._removed.add(node, NAMELESS, found.node, is_regular=True)
        return self._opened(found)

    def _opened(self, found: Entry) -> Reply:
        return self._pack_entry(found), OPEN_OUT.packer.pack(0, OpenFlag.KEEP_CACHE, 0)

    def _entry(self, found: Entry) -> Reply:
        return (self._pack_entry(found),)

    def _unlink(self, node: int, body: memoryview) -> Reply:
        name = bytes(body[:-1])
        self._note_removed(node, name, self.writable.unlink(node, name))
        return ()

    def _note_removed(self, directory: int, name: bytes, left: int | None) -> None:
        """Note that a name was removed. ``left``: the node it led to, if that has other names."""
        self._removed.changed(directory, name)
        if left is not None and self._has_overlay:
            is_regular = stat.S_ISREG(self.writable.attributes(left).mode)
            self._removed.add(directory, name, left, is_regular=is_regular)
        else:
            self._removed.links.removed(None, (directory, name))

    def _rmdir(self, node: int, body: memoryview) -> Reply:
        name = bytes(body[:-1])
        self.writable.rmdir(node, name)
        self._note_removed(node, name, None)
        return ()

    def _rename(self, node: int, body: memoryview) -> Reply:
        return self._move(node, int.from_bytes(body[:8], "little"), 0, bytes(body[8:]))

    def _rename2(self, node: int, body: memoryview) -> Reply:
        new_directory, flags, _ = RENAME2_IN.packer.unpack_from(body)
        return self._move(node, new_directory, flags, bytes(body[RENAME2_IN.size :]))

    def _move(self, node: int, new_directory: int, flags: int, names: bytes) -> Reply:
        is_known = not flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)
        if not is_known or (flags & RENAME_EXCHANGE and flags != RENAME_EXCHANGE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        name, new_name, _ = names.split(b"\0", 2)
        left = self.writable.rename(
            node,
            name,
            new_directory,
            new_name,
            replace=not flags & RENAME_NOREPLACE,
            exchange=bool(flags & RENAME_EXCHANGE),
            whiteout=bool(flags & RENAME_WHITEOUT),
        )
        self._removed.changed(node, name)
        is_exchange = bool(flags & RENAME_EXCHANGE)
        if is_exchange:
            self._removed.changed(new_directory, new_name)
        else:
            self._note_removed(new_directory, new_name, left)
        self._removed.links.moved((node, name), (new_directory, new_name), is_exchange=is_exchange)
        return ()

    def _link(self, node: int, body: memoryview) -> Reply:
        name = bytes(body[8:-1])
        found = self.writable.link(int.from_bytes(body[:8], "little"), node, name)
        if self._has_overlay:
            self._removed.links.linked(found.node, (node, name))
        return self._entry(found)

    def _write(self, node: int, body: memoryview) -> Reply:
        _, offset, size, flags, *_ = READ_IN.packer.unpack_from(body)
        data = body[READ_IN.size : READ_IN.size + size]
        self._ranges = (0, ())
        written = self.writable.write(node, offset, data, bool(flags & WRITE_KILL_SUIDGID))
        if written < size:
            if flags & WRITE_CACHE or self._may_get_room():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._note_full()
        return (written.to_bytes(4, "little") + bytes(4),)

    def _statfs(self, node: int, body: memoryview) -> Reply | None:
        if self._may_get_room():  # what was removed counts as free
            self._postpone()
            return None
        return super()._statfs(node, body)

    def _fallocate(self, _: int, __: memoryview) -> Reply:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

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
        name = bytes(body[GETXATTR_IN.size : -1])
        if name == METACOPY:
            self._removed.links.looked_up(node)
        if self._removed:
            if name == METACOPY and self._removed.is_refused(self.thread, node):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            if name == METACOPY or not name.startswith(OVERLAY_MARKS):
                self._removed.other_request(self.thread, has_found_file=name == METACOPY)
        return self._value(self.writable.xattr(node, name), body)

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

    def names_of(self, node: int, handle: int, cookie: int) -> Names:
        if cookie == 0 and handle in self._snapshots:  # from the beginning again
            self._snapshots[handle] = self.backend.list_directory(node)
        return self._snapshots.get(handle) or ()


def _words(body: memoryview, count: int) -> tuple[int, ...]:
    return tuple(int.from_bytes(body[4 * number : 4 * number + 4], "little") for number in range(count))


def _signed(value: int) -> int:
    """Return seconds, which the protocol has without a sign, with it."""
    return value - (1 << 64) if value >> 63 else value
