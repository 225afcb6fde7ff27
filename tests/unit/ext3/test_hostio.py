"""Host I/O: every call that saves work is made to fail, and the bytes and holes are right all the same."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ext3 import hostio

KIB = 1 << 10
MIB = 1 << 20

FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]
REFUSALS = [
    errno.ENOSYS, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOTTY, errno.ENODEV, errno.EINVAL,
    errno.EIO, errno.ENOENT, errno.EACCES, errno.EAGAIN, errno.EBADF, errno.ETXTBSY, errno.EISDIR, errno.ESPIPE,
    errno.EOVERFLOW, errno.ENOMEM,
]  # fmt: skip
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the call")
holes = pytest.mark.skipif(sys.platform != "linux", reason="holes are measured as Linux does")


def failing(code: int) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        raise OSError(code, os.strerror(code))

    return call


def forbidden(*_: object, **__: object) -> Any:
    raise AssertionError("not to be called")


class Opened:
    """A source of a few hundred KiB and an empty target, open for reading and writing."""

    def __init__(self, folder: Path) -> None:
        self.data = random.Random(1).randbytes(700 * KIB + 123)
        (folder / "source").write_bytes(self.data)
        (folder / "target").touch()
        flags = os.O_RDWR | hostio.OPEN
        self.source = os.open(folder / "source", flags)
        self.target = os.open(folder / "target", flags)
        self.path = folder / "target"

    def close(self) -> None:
        os.close(self.source)
        os.close(self.target)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Opened]:
    opened = Opened(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(params=["system", "short", "no preadv", "no pread"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What reads and writes do on this host: what they are asked for, less of it, or not all calls are there."""
    if request.param == "short":
        pread, preadv, pwrite, write = os.pread, os.preadv, os.pwrite, os.write
        monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 1000), offset))
        monkeypatch.setattr(os, "preadv", lambda fd, views, offset: preadv(fd, [views[0][:1000]], offset))
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1000], offset))
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:1000]))
    for name in {"no preadv": ["preadv"], "no pread": ["preadv", "pread", "pwrite"]}.get(request.param, []):
        monkeypatch.delattr(os, name, raising=False)
    return str(request.param)


# -- exact reads and writes ----------------------------------------------------------------------------------------


def test_reads_are_exact(files: Opened, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostio, "CALL_BYTES", 64 * KIB)
    size = len(files.data)
    assert hostio.read_at(files.source, 0, size) == files.data
    assert hostio.read_at(files.source, 12345, 200_000) == files.data[12345:212345]
    assert hostio.read_at(files.source, size - 5, 100) == files.data[-5:], "fewer at the end of the file"
    assert hostio.read_at(files.source, size, 100) == hostio.read_at(files.source, 0, 0) == b""
    for offset, length in ((0, size), (77, 200_000), (size - 5, 100), (size, 100), (0, 0)):
        buffer = bytearray(b"?" * length)
        count = hostio.read_into(files.source, offset, memoryview(buffer))
        assert count == min(length, size - offset)
        assert buffer == files.data[offset : offset + count] + b"?" * (length - count)


def test_writes_are_whole(files: Opened, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostio, "CALL_BYTES", 64 * KIB)
    for data in (files.data, bytearray(files.data), memoryview(files.data)):
        os.ftruncate(files.target, 0)
        hostio.write_at(files.target, 5000, data)
        assert files.path.read_bytes() == bytes(5000) + files.data
    os.lseek(files.target, 10, os.SEEK_SET)
    hostio.write_all(files.target, b"0123456789" * 300)
    hostio.write_all(files.target, b"end")
    assert files.path.read_bytes()[10:3013] == b"0123456789" * 300 + b"end"


@pytest.mark.parametrize("call", ["pwrite", "write"])
def test_a_write_of_nothing_ends(files: Opened, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(os, call, lambda *_: 0)
    with pytest.raises(OSError, match="nothing was written"):
        if call == "pwrite":
            hostio.write_at(files.target, 0, b"x")
        else:
            hostio.write_all(files.target, b"x")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_trouble_with_reads_and_writes_is_raised(files: Opened, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    for name in ("pread", "preadv", "pwrite", "write"):
        monkeypatch.setattr(os, name, failing(code))
    for call in (
        lambda: hostio.read_at(files.source, 0, 1),
        lambda: hostio.read_into(files.source, 0, memoryview(bytearray(1))),
        lambda: hostio.write_at(files.target, 0, b"x"),
        lambda: hostio.write_all(files.target, b"x"),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == code


# -- copies --------------------------------------------------------------------------------------------------------


def copied(files: Opened, copy: Callable[[int, int, int, int, int], int], size: int) -> int:
    """``copy`` from byte 1000 of the source to byte 500 of the target, until it returns 0; how much that was."""
    done = 0
    while count := copy(files.source, 1000 + done, files.target, 500 + done, size - done):
        done += count
    return done


@linux
@pytest.mark.parametrize("copy", [hostio.copy_range, hostio.send_range, hostio.kernel_copy])
def test_copies_in_the_kernel(files: Opened, copy: Callable[[int, int, int, int, int], int], monkeypatch: Any) -> None:
    monkeypatch.setattr(hostio, "COPY_BYTES", 128 * KIB)
    os.lseek(files.source, 77, os.SEEK_SET)
    os.lseek(files.target, 88, os.SEEK_SET)
    assert copy(files.source, 0, files.target, 0, 1 << 40) <= 128 * KIB
    os.ftruncate(files.target, 0)
    assert copied(files, copy, 300_000) == 300_000
    assert files.path.read_bytes() == bytes(500) + files.data[1000:301_000]
    assert copied(files, copy, MIB) == len(files.data) - 1000, "0 at the end of the source"
    assert files.path.read_bytes() == bytes(500) + files.data[1000:]
    assert os.lseek(files.source, 0, os.SEEK_CUR) == 77
    if copy is hostio.copy_range:
        assert os.lseek(files.target, 0, os.SEEK_CUR) == 88, "several processes may share the position"


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refused_copy_is_no_error(files: Opened, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "copy_file_range", failing(code), raising=False)
    assert hostio.copy_range(files.source, 0, files.target, 0, 10) == 0
    if sys.platform == "linux":
        assert copied(files, hostio.kernel_copy, 400_000) == 400_000, "by sendfile"
        assert files.path.read_bytes() == bytes(500) + files.data[1000:401_000]
    monkeypatch.setattr(os, "sendfile", failing(code), raising=False)
    assert hostio.send_range(files.source, 0, files.target, 0, 10) == 0
    assert hostio.kernel_copy(files.source, 0, files.target, 0, 10) == 0
    os.ftruncate(files.target, 0)
    assert hostio.copy_bytes(files.source, 0, files.target, 0, len(files.data)) == len(files.data)
    assert files.path.read_bytes() == files.data


@pytest.mark.parametrize("code", FULL)
def test_a_full_target_is_told_at_once(files: Opened, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "copy_file_range", failing(code), raising=False)
    with pytest.raises(OSError) as caught:
        hostio.copy_bytes(files.source, 0, files.target, 0, 10)
    assert caught.value.errno == code
    if sys.platform != "linux":
        return
    monkeypatch.setattr(os, "copy_file_range", failing(errno.EXDEV), raising=False)
    monkeypatch.setattr(os, "sendfile", failing(code))
    with pytest.raises(OSError) as caught:
        hostio.copy_bytes(files.source, 0, files.target, 0, 10)
    assert caught.value.errno == code


def test_hosts_that_copy_nothing_in_the_kernel(files: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    monkeypatch.setattr(os, "sendfile", forbidden, raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hostio.kernel_copy(files.source, 0, files.target, 0, 10) == 0
    assert not hostio.clone_file(files.source, files.target)
    assert hostio.copy_bytes(files.source, 7, files.target, 0, 300_000) == 300_000
    assert files.path.read_bytes() == files.data[7:300_007]


@pytest.mark.parametrize("way", ["kernel", "sendfile", "buffer", "nothing copied", "refused later"])
def test_copy_bytes(files: Opened, host: str, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    asked = []
    real = getattr(os, "copy_file_range", lambda *_: 0)

    def refused_later(*arguments: Any) -> int:
        asked.append(arguments)
        if len(asked) == 2:
            raise OSError(errno.EIO, "says a network filesystem")
        return real(arguments[0], arguments[1], min(arguments[2], 100_000), *arguments[3:])

    if way != "kernel":
        call = {"nothing copied": lambda *_: 0, "refused later": refused_later}.get(way, failing(errno.EXDEV))
        monkeypatch.setattr(os, "copy_file_range", call, raising=False)
    if way != "sendfile":
        monkeypatch.setattr(os, "sendfile", failing(errno.EINVAL), raising=False)
    told: list[int] = []
    assert hostio.copy_bytes(files.source, 1000, files.target, 500, 600_000, told.append) == 600_000
    assert files.path.read_bytes() == bytes(500) + files.data[1000:601_000]
    assert sum(told) == 600_000
    assert len(asked) <= 2, "the kernel is not asked again"
    assert hostio.copy_bytes(files.source, 1000, files.target, 500, MIB) == len(files.data) - 1000, "the source ends"
    assert files.path.read_bytes() == bytes(500) + files.data[1000:]
    assert hostio.copy_bytes(files.source, 0, files.target, 0, 0, forbidden) == 0


def test_what_is_wrong_with_which_file(files: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call in the kernel cannot tell: its error is left to the read or write that meets it again."""
    monkeypatch.setattr(os, "copy_file_range", failing(errno.EIO), raising=False)
    monkeypatch.setattr(os, "sendfile", failing(errno.EIO), raising=False)
    monkeypatch.setattr(os, "pwrite", failing(errno.EROFS))
    with pytest.raises(OSError) as caught:
        hostio.copy_bytes(files.source, 0, files.target, 0, 10)
    assert caught.value.errno == errno.EROFS


@linux
def test_cloning(files: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(fcntl, "ioctl", lambda *arguments: asked.append(arguments))
    assert hostio.clone_file(files.source, files.target)
    assert asked == [(files.target, 0x40049409, files.source)]
    for code in REFUSALS:
        monkeypatch.setattr(fcntl, "ioctl", failing(code))
        assert not hostio.clone_file(files.source, files.target), code
    for code in FULL:
        monkeypatch.setattr(fcntl, "ioctl", failing(code))
        with pytest.raises(OSError) as caught:
            hostio.clone_file(files.source, files.target)
        assert caught.value.errno == code


# -- holes and space -----------------------------------------------------------------------------------------------


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[int]:
    """8 MiB: data in the third MiB, and the last byte."""
    fd = os.open(tmp_path / "sparse", os.O_RDWR | os.O_CREAT | hostio.OPEN)
    os.pwrite(fd, os.urandom(MIB), 3 * MIB)
    os.pwrite(fd, b"x", 8 * MIB - 1)
    yield fd
    os.close(fd)


def fake_seek(data: list[tuple[int, int]], size: int) -> Callable[[int, int, int], int]:
    """lseek of a file with data in these (first byte, end), and holes elsewhere."""
    position = 0

    def lseek(fd: int, offset: int, whence: int) -> int:
        nonlocal position
        if whence == os.SEEK_CUR:
            return position
        if whence == os.SEEK_SET:
            position = offset
            return position
        if offset >= size:
            raise OSError(errno.ENXIO, "behind the end")
        inside = next(((low, high) for low, high in data if high > offset), None)
        if whence == os.SEEK_DATA:
            if inside is None:
                raise OSError(errno.ENXIO, "only a hole")
            position = max(offset, inside[0])
        else:
            position = inside[1] if inside and inside[0] <= offset else offset
        return position

    return lseek


@holes
def test_data_ranges_of_a_file(sparse: int) -> None:
    os.lseek(sparse, 1234, os.SEEK_SET)
    ranges = list(hostio.data_ranges(sparse, 0, 8 * MIB))
    assert os.lseek(sparse, 0, os.SEEK_CUR) == 1234, "the position is put back"
    assert ranges[0][0] <= 3 * MIB and ranges[-1][0] + ranges[-1][1] == 8 * MIB
    assert MIB < sum(size for _, size in ranges) < 2 * MIB
    walk = hostio.data_ranges(sparse, 0, 8 * MIB)
    next(walk)
    assert os.lseek(sparse, 0, os.SEEK_CUR) == 1234, "in the middle, too"
    assert list(hostio.data_ranges(sparse, 0, 0)) == list(hostio.data_ranges(sparse, 0, -5)) == []
    assert list(hostio.data_ranges(sparse, 100 * MIB, 5)) == []
    assert list(hostio.data_ranges(sparse, 3 * MIB + 5, 10)) == [(3 * MIB + 5, 10)], "only what was asked for"


@holes
def test_data_ranges_are_cut_to_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "lseek", fake_seek([(10, 20), (30, 40), (50, 60)], 100))
    assert list(hostio.data_ranges(0, 0, 100)) == [(10, 10), (30, 10), (50, 10)]
    assert list(hostio.data_ranges(0, 15, 20)) == [(15, 5), (30, 5)]
    assert (
        list(hostio.data_ranges(0, 20, 10)) == list(hostio.data_ranges(0, 60, 40)) == list(hostio.data_ranges(0, 41, 9)) == []
    )
    monkeypatch.setattr(hostio, "MAX_RANGES", 1)
    assert list(hostio.data_ranges(0, 0, 100)) == [(10, 10), (20, 80)], "the rest as one"


@pytest.mark.parametrize("code", [code for code in [*REFUSALS, *FULL] if code != errno.ENXIO])
def test_all_is_data_where_holes_cannot_be_asked_for(sparse: int, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real = os.lseek

    def lseek(fd: int, offset: int, whence: int) -> int:
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise OSError(code, os.strerror(code))
        return real(fd, offset, whence)

    real(sparse, 99, os.SEEK_SET)
    monkeypatch.setattr(os, "lseek", lseek)
    assert list(hostio.data_ranges(sparse, 5, 8 * MIB)) == [(5, 8 * MIB)]
    assert real(sparse, 0, os.SEEK_CUR) == 99


def test_all_is_data_where_holes_are_not_known(sparse: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "SEEK_DATA", raising=False)
    assert list(hostio.data_ranges(sparse, 5, MIB)) == [(5, MIB)]
    assert list(hostio.data_ranges(sparse, 5, 0)) == []
    reading, writing = os.pipe()
    monkeypatch.undo()
    assert list(hostio.data_ranges(reading, 0, 10)) == [(0, 10)], "a pipe"
    os.close(reading)
    os.close(writing)


@holes
def test_a_file_that_shrinks_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    seek = fake_seek([(10, 20), (30, 40)], 100)
    shrunk = fake_seek([(10, 20)], 25)
    monkeypatch.setattr(os, "lseek", lambda fd, at, whence: (shrunk if whence == os.SEEK_HOLE else seek)(fd, at, whence))
    assert list(hostio.data_ranges(0, 0, 100)) == [(10, 10)]


@holes
@pytest.mark.parametrize("bug", ["data before", "hole before"])
def test_wrong_answers_end(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """Filesystems have answered with places before the one asked about; the walk goes on, and no data is lost."""
    seek = fake_seek([(0, 30)], 30)

    def lseek(fd: int, offset: int, whence: int) -> int:
        found = seek(fd, offset, whence)
        return 0 if whence == (os.SEEK_DATA if bug == "data before" else os.SEEK_HOLE) else found

    monkeypatch.setattr(os, "lseek", lseek)
    ranges = list(hostio.data_ranges(0, 10, 20))
    assert [offset for start, size in ranges for offset in range(start, start + size)] == list(range(10, 30))


@holes
def test_punching(sparse: int) -> None:
    before = os.pread(sparse, 8 * MIB, 0)
    taken = os.fstat(sparse).st_blocks
    assert hostio.punch_hole(sparse, 3 * MIB + 100, MIB // 2)
    assert os.pread(sparse, 8 * MIB, 0) == before[: 3 * MIB + 100] + bytes(MIB // 2) + before[3 * MIB + 100 + MIB // 2 :]
    assert os.fstat(sparse).st_blocks < taken - 900
    assert hostio.punch_hole(sparse, 7 * MIB, 100 * MIB)
    assert os.fstat(sparse).st_size == 8 * MIB, "the file keeps its length"
    assert not os.pread(sparse, 1, 8 * MIB - 1)[0]
    assert hostio.punch_hole(-1, 0, 0), "nothing to do"
    assert not hostio.punch_hole(-1, 0, 10)


def fake_call(*codes: int) -> tuple[Callable[[str], Any], list[tuple[Any, ...]]]:
    """A C library whose functions fail with these errno in turn, and succeed with 0; and what they were asked."""
    asked: list[tuple[Any, ...]] = []
    results = iter(codes)

    def call(*arguments: Any) -> int:
        asked.append(tuple(getattr(argument, "value", argument) for argument in arguments))
        code = next(results)
        ctypes.set_errno(code)
        return -1 if code else 0

    return lambda name: call, asked


@linux
@pytest.mark.parametrize("code", [*REFUSALS, *FULL])
def test_a_refused_hole(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    libc, asked = fake_call(code, errno.EINTR, errno.EINTR, 0)
    monkeypatch.setattr(hostio, "_libc", libc)
    assert not hostio.punch_hole(5, 1 << 40, 10)
    assert hostio.punch_hole(5, 1 << 40, 10), "interrupted calls are repeated"
    assert asked == [(5, 3, 1 << 40, 10)] * 4


def test_hosts_without_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostio, "_libc", lambda name: None)
    assert not hostio.punch_hole(5, 0, 10)
    monkeypatch.setattr(hostio, "_libc", forbidden)
    monkeypatch.setattr(ctypes, "sizeof", lambda kind: 4)
    if sys.platform == "linux":
        monkeypatch.setattr(hostio, "_libc", lambda name: forbidden)
        assert not hostio.punch_hole(5, 0, 10), "32-bit offsets"
    monkeypatch.setattr(hostio, "_libc", forbidden)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not hostio.punch_hole(5, 0, 10)


@pytest.mark.parametrize("code", [None, 0, *REFUSALS])
def test_allocating(files: Opened, monkeypatch: pytest.MonkeyPatch, code: int | None) -> None:
    monkeypatch.setattr(hostio, "ZERO_BYTES", 64 * KIB)
    if code is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    elif code:
        monkeypatch.setattr(os, "posix_fallocate", failing(code), raising=False)
    os.pwrite(files.target, b"before", 0)
    os.ftruncate(files.target, 300_000)
    hostio.allocate(files.target, 6, 400_000)
    assert files.path.read_bytes() == b"before" + bytes(400_000)
    if sys.platform == "linux":
        assert files.path.stat().st_blocks * 512 >= 400_000
    hostio.allocate(files.target, 0, 0)
    assert files.path.read_bytes() == b"before" + bytes(400_000)


@pytest.mark.parametrize("code", FULL)
def test_no_space_to_allocate(files: Opened, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(code), raising=False)
    with pytest.raises(OSError) as caught:
        hostio.allocate(files.target, 0, 100)
    assert caught.value.errno == code
    assert files.path.stat().st_size == 0


# -- synchronisation -----------------------------------------------------------------------------------------------


@linux
def test_starting_writeback(files: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    advised: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: advised.append(arguments))
    hostio.start_writeback(files.source, 0, 1000)
    assert not advised, "the system has the call"
    libc, asked = fake_call(0, errno.ENOSYS)
    monkeypatch.setattr(hostio, "_libc", libc)
    hostio.start_writeback(7, 1 << 40, 10)
    assert asked == [(7, 1 << 40, 10, 2)] and not advised
    hostio.start_writeback(7, 1 << 40, 10)
    assert advised == [(7, 1 << 40, 10, os.POSIX_FADV_DONTNEED)]
    monkeypatch.setattr(hostio, "_libc", lambda name: None)
    hostio.start_writeback(8, 1, 2)
    assert advised[1:] == [(8, 1, 2, os.POSIX_FADV_DONTNEED)]
    for call in (hostio.start_writeback, hostio.drop_cache):
        call(8, 1, 0)
    assert len(advised) == 2, "a length of 0 would mean all that follows"


def test_advice_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fadvise", failing(errno.ESPIPE), raising=False)
    hostio.drop_cache(0, 0, 10)
    monkeypatch.delattr(os, "posix_fadvise")
    hostio.drop_cache(0, 0, 10)


@pytest.mark.parametrize("full", [None, 0, errno.ENOTSUP])
def test_syncing(monkeypatch: pytest.MonkeyPatch, full: int | None) -> None:
    """macOS has a call of its own for what others mean by fsync, not for every filesystem."""
    fcntl = pytest.importorskip("fcntl")
    synced: list[str] = []

    def control(fd: int, command: int) -> None:
        assert (fd, command) == (5, 51)
        if full:
            raise OSError(full, "not here")
        synced.append("full")

    if full is not None:
        monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
        monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(f"fsync {fd}"))
    hostio.sync(5)
    assert synced == (["full"] if full == 0 else ["fsync 5"])
    if full != 0:
        monkeypatch.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            hostio.sync(5)


def test_syncing_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    hostio.sync_directory(tmp_path)
    assert len(synced) == (os.name != "nt")
    hostio.sync_directory(tmp_path / "nothing")
    closed: list[int] = []
    close = os.close
    monkeypatch.setattr(os, "close", lambda fd: (closed.append(fd), close(fd)))
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    hostio.sync_directory(os.fsencode(tmp_path))
    assert len(closed) == (os.name != "nt")


# -- what a descriptor is ------------------------------------------------------------------------------------------


def test_how_a_file_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.touch()
    for flags, append_only, read_write in (
        (os.O_RDWR, False, True),
        (os.O_RDONLY, False, False),
        (os.O_WRONLY, False, False),
        (os.O_RDWR | os.O_APPEND, True, False),
        (os.O_WRONLY | os.O_APPEND, True, False),
    ):
        fd = os.open(path, flags)
        assert hostio.is_regular(fd)
        if hostio.fcntl:
            assert (hostio.is_append_only(fd), hostio.is_read_write(fd)) == (append_only, read_write)
        with monkeypatch.context() as patch:
            patch.setattr(hostio, "fcntl", None)
            assert (hostio.is_append_only(fd), hostio.is_read_write(fd)) == (False, True), "the first write tells"
        os.close(fd)
    reading, writing = os.pipe()
    assert not hostio.is_regular(reading)
    os.close(reading)
    os.close(writing)


def test_same_file(tmp_path: Path) -> None:
    one, other, link = tmp_path / "one", tmp_path / "other", tmp_path / "link"
    one.touch()
    other.touch()
    os.link(one, link)
    fd = os.open(one, os.O_RDONLY)
    assert hostio.same_file(one, link) and hostio.same_file(fd, str(one)) and hostio.same_file(os.fsencode(link), fd)
    assert not hostio.same_file(one, other) and not hostio.same_file(fd, other)
    for missing in (tmp_path / "nothing", one / "below", -1):
        assert not hostio.same_file(missing, one) and not hostio.same_file(one, missing)
    os.close(fd)


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW") or not hasattr(os, "mkfifo"), reason="this system has neither")
def test_flags_for_what_took_a_files_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.symlink("fifo", tmp_path / "link")
    os.close(os.open(tmp_path / "fifo", hostio.READ_REGULAR))  # does not wait for a writer
    with pytest.raises(OSError):
        os.open(tmp_path / "link", hostio.READ_REGULAR)


BARE_HOST = """
import os, sys
for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "O_ACCMODE", "pread", "preadv", "pwrite", "pwritev",
             "copy_file_range", "sendfile", "posix_fadvise", "posix_fallocate", "SEEK_DATA", "SEEK_HOLE"):
    if hasattr(os, name):
        delattr(os, name)
sys.platform = "win32"
sys.modules["fcntl"] = None
from ext3 import hostio
heavy = {name.partition(".")[0] for name in sys.modules} & {"ctypes", "numpy", "construct"}
assert not heavy, heavy
assert [name for name in sys.modules if name.startswith("ext3.")] == ["ext3.hostio"]
source = os.open("source", os.O_RDWR | hostio.OPEN)
target = os.open("target", os.O_RDWR | os.O_CREAT | hostio.NO_WAIT | hostio.NO_FOLLOW)
(whole,) = hostio.data_ranges(source, 0, 300000)
assert whole == (0, 300000)
assert not hostio.clone_file(source, target) and not hostio.punch_hole(source, 0, 10)
assert hostio.copy_bytes(source, 0, target, 0, 300000) == 300000
hostio.allocate(target, 300000, 1000)
hostio.start_writeback(target, 0, 301000)
hostio.drop_cache(target, 0, 301000)
hostio.sync(target)
hostio.sync_directory(".")
assert hostio.is_read_write(target) and not hostio.is_append_only(target) and not hostio.same_file(source, target)
assert hostio.read_at(target, 0, 400000) == hostio.read_at(source, 0, 300000) + bytes(1000)
"""


def test_a_host_with_hardly_any_calls(tmp_path: Path) -> None:
    """As on Windows: the module is imported and everything works, the plain way. It loads nothing that takes long."""
    (tmp_path / "source").write_bytes(random.Random(2).randbytes(300_000))
    done = subprocess.run([sys.executable, "-c", BARE_HOST], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- files whose size only reading tells ---------------------------------------------------------------------------

SMALL_PROC, SMALL_SYS = "/proc/sys/kernel/ostype", "/sys/kernel/mm/transparent_hugepage/enabled"


def test_a_true_size(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for content in (b"", b"1", b"x" * 5000):
        path.write_bytes(content)
        with path.open("rb") as file:
            assert hostio.true_size(file.fileno()) == len(content)
    with path.open("r+b") as file:
        file.truncate(1 << 40)
        assert hostio.true_size(file.fileno()) == 1 << 40


@pytest.mark.parametrize("path", [SMALL_PROC, SMALL_SYS])
def test_a_size_that_is_false(path: str) -> None:
    """proc reports 0 bytes, sysfs 4096."""
    if not os.path.exists(path):
        pytest.skip(f"there is no {path} here")
    with open(path, "rb") as file:
        assert os.fstat(file.fileno()).st_size in (0, 4096)
        assert hostio.true_size(file.fileno()) is None
        assert file.tell() == 0


@pytest.mark.parametrize("reported", [0, 3, 11, 4096])
def test_a_size_that_is_too_little_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: int) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    real = os.fstat
    with (tmp_path / "f").open("rb") as file:
        monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*real(fd)[:6], reported, *real(fd)[7:10]]))
        assert hostio.true_size(file.fileno()) is None


def test_a_file_that_is_written_meanwhile_has_its_last_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 10)
    real = os.pread
    times: list[int] = []

    def pread(fd: int, size: int, offset: int) -> bytes:
        if times[0]:
            times[0] -= 1
            with path.open("ab") as more:
                more.write(b"y" * 5)
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    for count, size in ((1, 15), (100, 15 + 2 * 5)):
        times[:] = [count]
        with path.open("rb") as file:
            assert hostio.true_size(file.fileno()) == size


def test_what_is_no_file_has_no_size() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"data")
        assert hostio.true_size(reading) is None
        assert os.read(reading, 100) == b"data"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_file_that_cannot_be_read_has_no_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").touch()
    monkeypatch.setattr(os, "pread", failing(errno.EIO))
    with (tmp_path / "f").open("rb") as file:
        assert hostio.true_size(file.fileno()) is None
        with pytest.raises(OSError, match="Input/output"):
            hostio.sequential_reader(file.fileno())(10)


def test_reading_on(files: Opened) -> None:
    read = hostio.sequential_reader(files.source)
    pieces = [read(100 * KIB) for _ in range(9)]
    assert b"".join(pieces) == files.data and pieces[-1] == b""
    assert os.lseek(files.source, 0, os.SEEK_CUR) == 0
    assert hostio.sequential_reader(files.source, 7)(3) == files.data[7:10]
    reading, writing = os.pipe()
    os.write(writing, b"data")
    os.close(writing)
    read = hostio.sequential_reader(reading)
    assert (read(2), read(10), read(10)) == (b"da", b"ta", b"")
    os.close(reading)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs pthread_sigmask")
def test_signals_wait_for_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), hostio.signals_deferred():
        with hostio.signals_deferred():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(ValueError, match="other"), hostio.signals_deferred():
        raise ValueError("other")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
