"""Byte-range locks: they conflict between open files, and belong to them; files that are replaced before they are locked."""

from __future__ import annotations

import errno
import os

import pytest

from sifkit import file_locks
from sifkit.errors import ImageInUseError
from sifkit.file_locks import lock_range, lock_state, open_locked

from ...support.platforms import linux_locks


@linux_locks
def test_locks_conflict_between_open_files(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    first, second = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    try:
        assert lock_state(second) == ("none", None)
        assert lock_range(first, write=False, offset=10, size=10)
        assert lock_state(second) == ("read", None)
        assert lock_state(second, offset=20) == ("none", None)
        with pytest.raises(ImageInUseError):
            lock_range(second, write=True, path=path)
        assert lock_range(second, write=True, offset=20)  # a range beside it is free
        assert lock_state(first)[0] == "write"
    finally:
        os.close(first)
        os.close(second)


@linux_locks
def test_closing_the_file_gives_the_lock_back(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    second = os.open(path, os.O_RDWR)
    try:
        first = os.open(path, os.O_RDWR)
        assert lock_range(first, write=True)
        with pytest.raises(ImageInUseError):
            lock_range(second, write=True, path=path)
        os.close(first)
        assert lock_range(second, write=True)
    finally:
        os.close(second)


@linux_locks
@pytest.mark.parametrize("times", [0, 1, 3, 99])
def test_a_file_replaced_before_it_was_locked_is_opened_again(tmp_path, times):
    path = tmp_path / "x"
    path.write_bytes(b"0")
    left = times

    def open_file():
        nonlocal left
        fd = os.open(path, os.O_RDWR)
        if left:
            left -= 1
            (tmp_path / "next").write_bytes(b"%d" % left)
            os.replace(tmp_path / "next", path)
        return fd

    before = len(os.listdir("/proc/self/fd"))
    if times > file_locks.MOST_TRIES:
        with pytest.raises(ImageInUseError, match="x keeps being replaced"):
            open_locked(path, open_file, lambda fd: lock_range(fd, write=True, path=path))
    else:
        fd, locked = open_locked(path, open_file, lambda fd: lock_range(fd, write=True, path=path))
        assert locked and os.pread(fd, 9, 0) == path.read_bytes() == b"0"
        with open(path, "rb") as other:
            assert lock_state(other.fileno())[0] == "write"
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before


@linux_locks
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_filesystem_without_locks(tmp_path, monkeypatch, code):
    import fcntl

    def refuse(*_):
        raise OSError(code, "no locks")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert lock_range(0, write=False) is False
    assert lock_state(0) == ("unsupported", None)
