"""Limits of processes and namespaces, named in errors."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import NoReturn

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("containers run on Linux only", allow_module_level=True)

from sifkit.runtime import sys as calls


def test_too_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(BlockingIOError, match="too many processes; see ulimit -u") as failed:
        calls.fork()
    assert failed.value.filename == "fork"


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "too many namespaces; see /proc/sys/user"), (errno.EPERM, "Operation not permitted")]
)
def test_too_many_namespaces(number: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        @staticmethod
        def unshare(flags: int) -> int:
            ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(calls, "_libc", Library)
    with pytest.raises(OSError, match=reason) as failed:
        calls.unshare(calls.CLONE_NEWUSER)
    assert failed.value.errno == number and failed.value.filename == "unshare 0x10000000"
