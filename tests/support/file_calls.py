"""System calls on files in a new directory, each checked: a program, run in a container as ``file_calls.py DIRECTORY``.

They are those that programs rely on and that a filesystem of its own may lack: locks, direct I/O, open files that are removed,
positions in directories, long names, xattrs, events, and a database.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = LIBC.readdir.restype = ctypes.c_void_p
LIBC.readdir.argtypes = LIBC.telldir.argtypes = LIBC.closedir.argtypes = [ctypes.c_void_p]
LIBC.telldir.restype = ctypes.c_long
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
NAME_OFFSET = 19
"""Of the name in a dirent."""
IN_CREATE = 0x100
NEW, RW = os.O_CREAT | os.O_EXCL | os.O_RDWR, os.O_RDWR


def error_of(call: Callable[..., object], *words: object) -> int | None:
    try:
        call(*words)
    except OSError as error:
        return error.errno
    return None


def locks() -> None:
    one, two = os.open("locked", NEW), os.open("locked", RW)
    fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert error_of(fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EWOULDBLOCK
    fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)
    if not (child := os.fork()):
        os._exit(error_of(fcntl.lockf, two, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 7) != errno.EAGAIN)
    assert os.waitpid(child, 0)[1] == 0


def direct_io() -> None:
    memory = mmap.mmap(-1, 8192)
    memory[:] = b"d" * 8192
    fd = os.open("direct", NEW | os.O_DIRECT)
    assert os.writev(fd, [memory]) == 8192 and os.lseek(fd, 4096, os.SEEK_SET) == 4096
    assert os.readv(fd, [memory]) == 4096
    assert Path("direct").read_bytes() == b"d" * 8192


def removed_open_files() -> None:
    fds = [os.open(f"open{number}", NEW) for number in range(200)]
    for number, fd in enumerate(fds):
        os.write(fd, b"%d" % number)
        os.unlink(f"open{number}")
    assert all(os.pread(fd, 9, 0) == b"%d" % number and not os.fstat(fd).st_nlink for number, fd in enumerate(fds))
    for fd in fds:
        os.close(fd)
    before = os.open("named", NEW)
    os.write(before, b"replaced")
    os.rename("direct", "named")
    assert os.pread(before, 9, 0) == b"replaced" and not os.fstat(before).st_nlink
    if (error := error_of(os.open, ".", os.O_TMPFILE | RW, 0o600)) is not None:  # programs use a name then
        assert error == errno.EOPNOTSUPP


def positions_in_directories() -> None:
    os.mkdir("many")
    for number in range(600):
        os.close(os.open(f"many/{number:0100}", NEW))
    stream = LIBC.opendir(b"many")
    seen: list[tuple[int, bytes]] = []
    while True:
        position = LIBC.telldir(stream)
        entry = LIBC.readdir(stream)
        if not entry:
            break
        seen.append((position, ctypes.string_at(entry + NAME_OFFSET)))
    assert len({name for _, name in seen}) == 602
    for index in (0, 1, 300, 601, 7):
        LIBC.seekdir(stream, seen[index][0])
        assert ctypes.string_at(LIBC.readdir(stream) + NAME_OFFSET) == seen[index][1]
    LIBC.closedir(stream)
    with os.scandir("many") as entries:
        for entry in entries:
            os.unlink(entry.path)
    os.rmdir("many")


def names_and_attributes() -> None:
    os.close(os.open("n" * 255, NEW))
    assert error_of(os.open, "n" * 256, NEW) == errno.ENAMETOOLONG
    os.rename("n" * 255, b"\xff\n")
    assert b"\xff\n" in os.listdir(b".")
    os.setxattr("named", "user.a", b"1" * 200)
    os.setxattr("named", "user.overlay.opaque", b"y")  # a program's own, not a mark
    assert sorted(os.listxattr("named")) == ["user.a", "user.overlay.opaque"]
    assert error_of(os.setxattr, "named", "user.large", bytes(5000)) == errno.ENOSPC  # of a block, as on ext3
    assert error_of(os.posix_fallocate, os.open("named", RW), 0, 20_000) is None  # by writing: there is no fallocate
    assert LIBC.fallocate(os.open("named", RW), 0, ctypes.c_long(0), ctypes.c_long(1)) == -1
    assert ctypes.get_errno() == errno.EOPNOTSUPP


def events_and_sockets() -> None:
    events = LIBC.inotify_init()
    assert LIBC.inotify_add_watch(events, b".", IN_CREATE) > 0
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.listen(1)
    assert b"socket" in os.read(events, 4096)
    client = socket.socket(socket.AF_UNIX)
    client.connect("socket")
    client.send(b"hello")
    assert server.accept()[0].recv(9) == b"hello"


def database() -> None:
    connection = sqlite3.connect("database")
    assert connection.execute("pragma journal_mode=wal").fetchone() == ("wal",)
    connection.execute("create table numbers (number, text)")
    for number in range(100):
        connection.execute("insert into numbers values (?, ?)", (number, "x" * 500))
    connection.commit()
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()


if __name__ == "__main__":
    os.makedirs(sys.argv[1])
    os.chdir(sys.argv[1])
    for check in (
        locks,
        direct_io,
        removed_open_files,
        positions_in_directories,
        names_and_attributes,
        events_and_sockets,
        database,
    ):
        check()
        print(check.__name__)
