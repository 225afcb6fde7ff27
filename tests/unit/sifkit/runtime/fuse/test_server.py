"""FUSE servers spoken to as the kernel does, over a socket: negotiation, errors, and the changes of a writable image."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

import ext3
from sifkit.vfs.host_tree import HostTree

if not sys.platform.startswith("linux"):
    pytest.skip("containers run on Linux only", allow_module_level=True)

from sifkit.runtime.fuse.backend import AttributeChanges
from sifkit.runtime.fuse.ext3_backend import Ext3Backend
from sifkit.runtime.fuse.protocol import (
    ENTRY_OUT,
    IN_HEADER,
    INIT_IN,
    INIT_OUT,
    LSEEK_IN,
    OUT_HEADER,
    READ_IN,
    ROOT_ID,
    InitFlag,
    Opcode,
)
from sifkit.runtime.fuse.server import Server
from sifkit.runtime.fuse.tree_backend import TreeBackend
from sifkit.runtime.fuse.writable_server import WritableServer

Ask = Callable[..., "tuple[int, bytes]"]


@contextmanager
def asked(make: Callable[[int], Server]) -> Iterator[Ask]:
    """A function that sends a request and returns errno and answer; the server runs in a thread."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = make(theirs.fileno())
    thread = Thread(target=lambda: Server.serve(server))
    thread.start()

    def ask(opcode: int, body: bytes = b"", node: int = ROOT_ID) -> tuple[int, bytes]:
        size = IN_HEADER.size + len(body)
        ours.send(IN_HEADER.packer.pack(size, opcode, 77, node, 0, 0, 0, 0, 0) + body)
        answer = ours.recv(1 << 20)
        length, error, unique = OUT_HEADER.packer.unpack_from(answer)
        assert (length, unique) == (len(answer), 77)
        return -error, answer[OUT_HEADER.size :]

    try:
        yield ask
    finally:
        ours.close()
        thread.join(10)
        theirs.close()
    assert not thread.is_alive()


def host_backend(directory: Path) -> TreeBackend[bytes]:
    """A directory of the host."""
    return TreeBackend(HostTree(directory))


def test_a_read_only_server(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with asked(lambda fd: Server(fd, host_backend(tmp_path))) as ask:
        assert ask(Opcode.INIT, b"\7\0\0\0\x1a\0\0\0" + bytes(8)) == (errno.EPROTO, b"")
        number, answer = ask(Opcode.INIT, b"\7\0\0\0\x63\0\0\0\0\0\2\0\xff\xff\xff\xff" + bytes(48))
        found = INIT_OUT.read(answer)
        assert (number, found["major"], found["minor"], found["max_readahead"]) == (0, 7, 36, 1 << 17)
        assert not found["flags"] & 1 << 16  # no writeback cache
        number, answer = ask(Opcode.LOOKUP, b"file\0")
        entry = ENTRY_OUT.read(answer)
        assert (number, entry["size"], entry["nodeid"]) == (0, 7, 2)
        assert ask(Opcode.READ, READ_IN.packer.pack(0, 3, 100, 0, 0, 0, 0), 2) == (0, b"tent")
        assert ENTRY_OUT.read(ask(Opcode.LOOKUP, b"none\0")[1])["nodeid"] == 0
        assert ask(Opcode.MKDIR, bytes(8) + b"x\0")[0] == errno.EROFS
        assert ask(Opcode.GETATTR, bytes(16), 99)[0] == errno.ESTALE
        assert ask(Opcode.OPEN, bytes(8), 2)[0] == ask(Opcode.OPENDIR, bytes(8))[0] == ask(999)[0] == errno.ENOSYS
        assert ask(Opcode.IOCTL, bytes(32), 2)[0] == errno.ENOTTY
        assert ask(Opcode.LOOKUP, b"n" * 256 + b"\0")[0] == errno.ENAMETOOLONG
        assert ENTRY_OUT.read(ask(Opcode.LOOKUP, b"n" * 255 + b"\0")[1])["nodeid"] == 0


@pytest.mark.parametrize("first", [errno.EIO, errno.EUCLEAN, errno.ESTALE])
def test_only_the_first_fault_of_an_image_is_told(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a disk that fails, or an image that is damaged; what else goes wrong is for the program that asks."""
    told = []
    numbers = iter([errno.EACCES, first, errno.EUCLEAN])

    def fail(*_: object) -> None:
        raise OSError(next(numbers), "words")

    def make(fd: int) -> Server:
        server = Server(fd, host_backend(tmp_path))
        server.report_fault = told.append
        monkeypatch.setattr(server.backend, "attributes", fail)
        return server

    with asked(make) as ask:
        answers = [ask(Opcode.GETATTR, bytes(16))[0] for _ in range(3)]
    assert answers == [errno.EACCES, first, errno.EUCLEAN]
    assert [error.errno for error in told] == [first]


def test_linux_4_18_has_directories_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with asked(lambda fd: Server(fd, host_backend(tmp_path))) as ask:
        flags = 0xFFFF_FFFF & ~(InitFlag.NO_OPENDIR_SUPPORT | InitFlag.MAX_PAGES | InitFlag.CACHE_SYMLINKS)
        found = INIT_OUT.read(ask(Opcode.INIT, INIT_IN.packer.pack(7, 27, 1 << 17, flags))[1])
        assert (found["major"], found["minor"]) == (7, 27)
        assert ask(Opcode.OPENDIR, bytes(8)) == (0, bytes(16))
        assert b"file" in ask(Opcode.READDIR, READ_IN.packer.pack(0, 0, 4096, 0, 0, 0, 0))[1]


def test_holes_are_told(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(10 << 20)
        for position in (1 << 20, 4 << 20):
            file.seek(position)
            file.write(b"x" * 65_536)
    with asked(lambda fd: Server(fd, host_backend(tmp_path))) as ask:
        ask(Opcode.LOOKUP, b"file\0")

        def seek(offset: int, whence: int) -> tuple[int, int]:
            number, answer = ask(Opcode.LSEEK, LSEEK_IN.packer.pack(0, offset, whence, 0), 2)
            return number, int.from_bytes(answer, "little")

        first, second, length, end = 1 << 20, 4 << 20, 65_536, 10 << 20
        assert seek(0, os.SEEK_DATA) == seek(first, os.SEEK_DATA) == (0, first)
        assert seek(0, os.SEEK_HOLE) == (0, 0)
        assert seek(first, os.SEEK_HOLE) == seek(first + 5, os.SEEK_HOLE) == (0, first + length)
        assert seek(first + length, os.SEEK_HOLE) == (0, first + length)
        assert seek(first + length, os.SEEK_DATA) == (0, second)
        assert seek(second + 9, os.SEEK_DATA) == (0, second + 9)
        assert seek(second + length, os.SEEK_DATA) == seek(end, os.SEEK_HOLE) == (errno.ENXIO, 0)
        assert seek(end - 1, os.SEEK_HOLE) == (0, end - 1)
        assert seek(0, os.SEEK_SET) == (errno.EINVAL, 0)


def test_a_backend_that_fails_answers_all_the_same(tmp_path: Path) -> None:
    reported: list[str] = []

    class Broken(TreeBackend[bytes]):
        def lookup(self, directory: int, name: bytes, /) -> None:
            raise ZeroDivisionError("in a test")

    with asked(lambda fd: Server(fd, Broken(HostTree(tmp_path)), report=reported.append)) as ask:  # type: ignore[arg-type]
        assert ask(Opcode.LOOKUP, b"x\0") == (errno.EIO, b"")
    assert "in a test" in reported[0]


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Ext3Backend]:
    image = tmp_path / "image"
    ext3.mkfs(image, 8 << 20)
    fd = os.open(image, os.O_RDWR)
    found = Ext3Backend(fd, 0, 8 << 20, shown=(5, 6), stored=(7, 8))
    yield found
    found.close()
    with ext3.Filesystem.open(image) as after:
        assert not after.needs_recovery
    os.close(fd)


def test_a_writable_server(backend: Ext3Backend) -> None:
    with asked(lambda fd: WritableServer(fd, backend)) as ask:
        node = ENTRY_OUT.read(ask(Opcode.MKDIR, b"\xed\1\0\0\0\0\0\0d\0")[1])["nodeid"]
        made = ENTRY_OUT.read(ask(Opcode.MKNOD, (0o100644).to_bytes(4, "little") + bytes(12) + b"f\0", node)[1])
        assert (made["uid"], made["gid"], made["mode"]) == (5, 6, 0o100644)
        write = READ_IN.packer.pack(0, 2, 4, 0, 0, 0, 0) + b"data"
        assert ask(Opcode.WRITE, write, made["nodeid"]) == (0, b"\4\0\0\0\0\0\0\0")
        assert ask(Opcode.READ, READ_IN.packer.pack(0, 0, 100, 0, 0, 0, 0), made["nodeid"]) == (0, b"\0\0data")
        assert ask(Opcode.MKDIR, b"\xed\1\0\0\0\0\0\0d\0")[0] == errno.EEXIST
        assert ask(Opcode.RMDIR, b"d\0")[0] == errno.ENOTEMPTY
        rename = ROOT_ID.to_bytes(8, "little") + b"\4\0\0\0\0\0\0\0f\0g\0"
        assert ask(Opcode.RENAME2, rename, node) == (0, b"")
        assert ask(Opcode.RENAME2, ROOT_ID.to_bytes(8, "little") + b"\x40\0\0\0\0\0\0\0f\0g\0", node)[0] == errno.EINVAL
        left = ENTRY_OUT.read(ask(Opcode.LOOKUP, b"f\0", node)[1])
        assert stat.S_ISCHR(left["mode"]) and left["rdev"] == 0
        hole = LSEEK_IN.packer.pack(0, 0, os.SEEK_HOLE, 0)
        assert ask(Opcode.LSEEK, hole, made["nodeid"]) == (0, (6).to_bytes(8, "little"))
        ask(Opcode.WRITE, READ_IN.packer.pack(0, 6, 4, 0, 0, 0, 0) + b"more", made["nodeid"])
        assert ask(Opcode.LSEEK, hole, made["nodeid"]) == (0, (10).to_bytes(8, "little"))
        assert ask(Opcode.FSYNC, bytes(16), made["nodeid"]) == (0, b"")
    assert backend.filesystem.stat(backend.filesystem.find_name(2, b"g") or 0).uid == 7
    assert not backend.has_changes()


def test_opaque_marks_are_stored_for_both_kinds_of_mounts(backend: Ext3Backend) -> None:
    entry = backend.make_directory(ROOT_ID, b"d", 0o755)
    backend.set_xattr(entry.node, b"user.overlay.opaque", b"y", create=False, replace=False)
    stored = {b"user.overlay.opaque": b"y", b"trusted.overlay.opaque": b"y"}
    assert backend.filesystem.xattrs(entry.attributes.ino) == stored
    assert backend.xattrs(entry.node) == {b"user.overlay.opaque": b"y"}
    backend.filesystem.remove_xattr_at(entry.attributes.ino, b"user.overlay.opaque")
    assert backend.xattr(entry.node, b"user.overlay.opaque") == b"y"
    assert backend.xattr(entry.node, b"trusted.overlay.opaque") is None
    backend.remove_xattr(entry.node, b"user.overlay.opaque")
    assert backend.filesystem.xattrs(entry.attributes.ino) == {}


def test_what_the_kernel_knows_lives_and_set_id_bits_go(backend: Ext3Backend) -> None:
    entry = backend.make_node(ROOT_ID, b"f", 0o106755, (0, 0))
    backend.write(entry.node, 0, memoryview(b"x"), True)
    assert backend.attributes(entry.node).mode == 0o100755
    backend.unlink(ROOT_ID, b"f")
    assert backend.read(entry.node, 0, 10) == b"x"
    changes = AttributeChanges(mode=None, uid=5, gid=None, size=3, atime=None, mtime=9, clears_set_id=False)
    assert backend.set_attributes(entry.node, changes)[1:2] == (3,)
    free = backend.totals().free_inodes
    backend.forget(entry.node, 1)
    assert backend.totals().free_inodes == free + 1
    again = backend.make_node(ROOT_ID, b"f", 0o100600, (0, 0))
    assert again.node != entry.node


def test_an_fsync_below_work_commits_nothing(tmp_path: Path) -> None:
    image = tmp_path / "image"
    ext3.mkfs(image, 8 << 20)
    with ext3.Filesystem.open(image, "r+") as fs:
        fs.mkdir("/work")
        fs.mkdir("/upper")
    fd = os.open(image, os.O_RDWR)
    backend = Ext3Backend(fd, 0, 8 << 20, shown=(0, 0), stored=(0, 0))
    work, upper = backend.lookup(ROOT_ID, b"work"), backend.lookup(ROOT_ID, b"upper")
    assert work is not None and upper is not None
    inner = backend.make_directory(work.node, b"work", 0o755)
    made = backend.make_node(inner.node, b"copy", 0o100644, (0, 0))
    backend.write(made.node, 0, memoryview(b"x"), False)
    backend.fsync(made.node)
    assert backend.has_changes()
    backend.rename(inner.node, b"copy", upper.node, b"file", replace=True, exchange=False, whiteout=False)
    backend.fsync(made.node)
    assert not backend.filesystem.unsynced
    backend.close()
    os.close(fd)
