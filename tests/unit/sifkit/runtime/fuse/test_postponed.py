"""Requests whose answers depend on FORGETs that come late: the server is spoken to as on a busy machine, where several wait."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ext3

if not sys.platform.startswith("linux"):
    pytest.skip("containers run on Linux only", allow_module_level=True)

from sifkit.runtime.fuse.ext3_backend import Ext3Backend
from sifkit.runtime.fuse.protocol import ENTRY_OUT, IN_HEADER, OUT_HEADER, READ_IN, ROOT_ID, Opcode
from sifkit.runtime.fuse.writable_server import FORGET_DELAY, FULL_OF_BYTES, WRITE_CACHE, WritableServer

Request = tuple[int, bytes, int]
"""Opcode, body and node."""
Answer = tuple[int, bytes]
"""Errno and what follows the header."""
OTHER: Request = (Opcode.GETATTR, bytes(16), ROOT_ID)
INTERRUPT: Request = (Opcode.INTERRUPT, bytes(8), 0)
STATFS: Request = (Opcode.STATFS, b"", ROOT_ID)
OVERTAKING = 8
"""Requests that the kernel sends at most before a FORGET that waits."""


class Kernel:
    """The kernel's end of a server of an image. ``order``: numbers of the requests, from 0, as they were answered.

    ``code``: the exit code that the server is to have.
    """

    def __init__(self, backend: Ext3Backend) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server = WritableServer(self.theirs.fileno(), backend, has_overlay=True)
        self.backend = backend
        self.order: list[int] = []
        self.code = 0

    def ask(self, *requests: Request) -> dict[int, Answer]:
        """Send requests, all of them before one is answered; return the answers."""
        for number, (opcode, body, node) in enumerate(requests):
            header = IN_HEADER.packer.pack(IN_HEADER.size + len(body), opcode, number, node, 0, 0, os.getpid(), 0, 0)
            self.ours.send(header + body)
        while self.server.has_waiting():
            self.server.wait()
            self.server._answer(memoryview(self.theirs.recv(1 << 21)))
        self.server.wait()
        answers: dict[int, Answer] = {}
        while True:
            try:
                answer = self.ours.recv(1 << 21, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            _, error, number = OUT_HEADER.packer.unpack_from(answer)
            answers[number] = -error, answer[OUT_HEADER.size :]
        self.order = list(answers)
        return answers

    def made(self, name: bytes) -> int:
        """Make a file; return its node."""
        error, answer = self.ask((Opcode.MKNOD, (0o100644).to_bytes(4, "little") + bytes(12) + name + b"\0", ROOT_ID))[0]
        assert not error
        return int(ENTRY_OUT.read(answer)["nodeid"])

    def close(self) -> None:
        assert self.server.finish() == self.code
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    ext3.mkfs(path, 4 << 20)
    return path


@pytest.fixture
def kernel(image: Path) -> Iterator[Kernel]:
    fd = os.open(image, os.O_RDWR)
    backend = Ext3Backend(fd, 0, 4 << 20, shown=(0, 0), stored=(0, 0))
    found = Kernel(backend)
    yield found
    found.close()
    os.close(fd)


def unlink(name: bytes) -> Request:
    return Opcode.UNLINK, name + b"\0", ROOT_ID


def lookup(name: bytes) -> Request:
    return Opcode.LOOKUP, name + b"\0", ROOT_ID


def forget(node: int, count: int = 1) -> Request:
    return Opcode.FORGET, count.to_bytes(8, "little"), node


def write(node: int, size: int, flags: int = 0) -> Request:
    return Opcode.WRITE, READ_IN.packer.pack(0, 0, size, flags, 0, 0, 0) + bytes(size), node


def free_inodes(answer: Answer) -> int:
    return int.from_bytes(answer[1][32:40], "little")


def test_each_request_waits_for_its_own_forget(kernel: Kernel) -> None:
    """Also when another one was postponed long before it, and when signals interrupt others."""
    free = free_inodes(kernel.ask(STATFS)[0])
    held, removed = kernel.made(b"held"), kernel.made(b"removed")
    kernel.ask(unlink(b"held"))
    between = [OTHER] * (FORGET_DELAY - 2)
    overtaking = [*[OTHER] * OVERTAKING, *[INTERRUPT] * FORGET_DELAY]
    first, second = 0, 2 + len(between)
    answers = kernel.ask(
        STATFS, *between, unlink(b"removed"), STATFS, *overtaking, forget(removed), *[OTHER] * 2 * FORGET_DELAY
    )  # fmt: skip
    assert free_inodes(answers[first]) == free - 2
    assert free_inodes(answers[second]) == free - 1
    assert kernel.order.index(second) < len(answers) - FORGET_DELAY // 2  # not after all the others
    assert kernel.ask(forget(held), STATFS)[1][1][32:40] == free.to_bytes(8, "little")


def test_nothing_is_postponed_when_every_file_has_a_name(kernel: Kernel) -> None:
    """Also if the kernel still knows one that had none."""
    answer = kernel.ask((Opcode.TMPFILE, bytes(4) + (0o100644).to_bytes(4, "little") + bytes(8) + b"/\0", ROOT_ID))[0][1]
    late = ENTRY_OUT.read(answer)["nodeid"]
    kernel.ask(STATFS, OTHER, OTHER)
    assert kernel.order == [1, 2, 0]
    kernel.ask((Opcode.LINK, late.to_bytes(8, "little") + b"file\0", ROOT_ID))
    kernel.ask(STATFS, OTHER, OTHER)
    assert kernel.order == [0, 1, 2]


def test_a_full_image_is_said_to_be_full_when_the_room_of_removed_files_is_used(kernel: Kernel) -> None:
    held, removed, new, other = (kernel.made(name) for name in (b"held", b"removed", b"new", b"other"))
    size = 100_000
    everything = (size).to_bytes(4, "little") + bytes(4)
    assert kernel.ask(write(held, size), write(removed, size + 20_000))[0] == (0, everything)
    totals = kernel.backend.totals()
    kernel.backend.write(kernel.made(b"rest"), 0, memoryview(bytes(totals.available_blocks * totals.block_size)), False)
    assert kernel.ask(write(new, size))[0][1] != everything
    kernel.ask(unlink(b"held"), unlink(b"removed"))
    answers = kernel.ask(write(new, size), *[OTHER] * OVERTAKING, forget(removed))
    assert answers[0] == (0, everything)
    answers = kernel.ask(write(other, size), write(other, size, WRITE_CACHE), OTHER)
    assert kernel.order == [2, 0, 1]
    assert not answers[0][0] and answers[0][1] < everything
    assert answers[1] == (errno.ENOSPC, b"")
    kernel.code = FULL_OF_BYTES


def test_a_lookup_of_a_removed_name_is_answered_though_others_wait(kernel: Kernel) -> None:
    file = kernel.made(b"first")
    kernel.ask((Opcode.LINK, file.to_bytes(8, "little") + b"second\0", ROOT_ID), unlink(b"first"), OTHER)
    answers = kernel.ask(lookup(b"first"))
    assert ENTRY_OUT.read(answers[0][1])["nodeid"] == file
    waiting = [OTHER] * (4 * FORGET_DELAY)
    answers = kernel.ask(lookup(b"first"), *waiting[:OVERTAKING], forget(file), *waiting)
    assert ENTRY_OUT.read(answers[0][1])["nodeid"] == 0  # it was wrong before: the kernel has forgotten it
    assert OVERTAKING < kernel.order.index(0) <= 2 * FORGET_DELAY
