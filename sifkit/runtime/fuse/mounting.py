"""Mounts of FUSE by mount(2), and the processes that serve them."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import NoReturn, TypeVar

from ...errors import SifkitError
from .. import sys
from .backend import Backend
from .server import Server

__all__ = ["mount_fuse", "report", "serve_in_child"]

B = TypeVar("B", bound=Backend)

DEVICE = "/dev/fuse"
READY, MESSAGE_BYTES = b"\0", 4096
IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
"""Signals that end a whole job, or come from its terminal: a server goes on until its filesystem is unmounted."""


def mount_fuse(point: str, *, name: str, read_only: bool, uid: int = 0, gid: int = 0) -> int:
    """Mount a filesystem at ``point``; return the descriptor to serve it by. ``uid``, ``gid``: of this user namespace.

    The device is opened here, since it belongs to the user namespace in which it is opened.
    """
    fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = sys.MS_NOSUID | sys.MS_NODEV | (sys.MS_RDONLY if read_only else 0)
        options = f"fd={fd},rootmode=40000,user_id={uid},group_id={gid},default_permissions,allow_other"
        sys.mount(name, point, "fuse", flags, options)
    except BaseException:
        os.close(fd)
        raise
    return fd


def serve_in_child(
    fd: int,
    open_backend: Callable[[], B],
    *,
    threads: int = 1,
    before: Callable[[], None],
    make_server: Callable[[int, B], Server] | None = None,
) -> int:
    """Serve a mount in a forked process, and close ``fd`` in this one; return the process's id when it serves.

    ``before``: called in it first. ``make_server``: None for a tree that nobody changes. The process is in a
    session of its own, and ends when the filesystem is unmounted. Its exit code is 0 if all was well. Raises OSError with the
    reason if the backend cannot be opened.
    """
    ready, answer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        _serve(fd, open_backend, threads, before, answer, make_server)
    os.close(fd)
    os.close(answer)
    with open(ready, "rb") as file:
        message = file.read(MESSAGE_BYTES)
    if message != READY:
        os.waitpid(pid, 0)
        raise OSError(errno.EIO, message.decode("utf-8", "replace") or "the server has ended")
    return pid


def _serve(
    fd: int,
    open_backend: Callable[[], B],
    threads: int,
    before: Callable[[], None],
    answer: int,
    make_server: Callable[[int, B], Server] | None,
) -> NoReturn:
    code = 1
    is_ready = False
    try:
        os.setsid()
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        before()
        backend = open_backend()
        server = Server(fd, backend, report=report) if make_server is None else make_server(fd, backend)
        os.write(answer, READY)
        os.close(answer)
        is_ready = True
        server.serve(threads=threads)
        code = 0
    except Exception as error:  # noqa: BLE001 - the process ends here
        text = str(error) if isinstance(error, OSError | SifkitError) else f"internal error: {type(error).__name__}: {error}"
        if is_ready:
            report(text)
        else:
            os.write(answer, text.encode("utf-8", "replace")[:MESSAGE_BYTES])
    finally:
        os._exit(code)


def report(text: str) -> None:
    """Write one line of a server to standard error."""
    os.write(2, f"sifkit: FUSE server: {text}\n".encode("utf-8", "replace"))
