"""Mounts of FUSE by mount(2), and the processes that serve them."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

from ...errors import SifkitError
from .. import sys
from .server import Server

__all__ = [
    "IGNORED",
    "ServerProcess",
    "close_inherited",
    "mount_fuse",
    "replace_by_nothing",
    "report_error",
    "serve_in_child",
    "start_server",
]

DEVICE = "/dev/fuse"
SERVER_NAME = "sifkit-fuse"
"""Name of the process of a server in ps and top."""
READY, UNMOUNTED = b"\0", b"unmounted"
"""Messages of a server: that it serves, then, in lines, that nothing is mounted any longer, and before or after it a fault."""
MESSAGE_BYTES, FAULT_BYTES = 4096, 1024
FAULTS = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGABRT,
        signal.SIGTRAP,
        signal.SIGSYS,
    }
)
IGNORED = frozenset(signal.Signals) - FAULTS - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
"""Signals that end or warn a whole job, or come from its terminal: a server goes on until its filesystem is unmounted."""


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


class ServerProcess:
    """Process that serves a mount. ``report``: where it says how it fares. ``code``: its exit code if it has ended.

    ``fault``: the first error of its image, as far as it was read.
    """

    __slots__ = ("_was_unmounted", "code", "fault", "pid", "report")

    def __init__(self, pid: int, report: int) -> None:
        self.pid = pid
        self.report = report
        self.code: int | None = None
        self.fault: OSError | None = None
        self._was_unmounted = False

    def await_ready(self) -> None:
        """Return when it serves. Raises OSError with the reason if the server cannot be opened."""
        first = os.read(self.report, len(READY))
        if first != READY:
            message = first + os.read(self.report, MESSAGE_BYTES)
            self.wait()
            raise OSError(errno.EIO, message.decode("utf-8", "replace") or "the server has ended")

    def resume(self) -> None:
        """Let the process go on if it was stopped, as by a job that was suspended: it would never end."""
        if self.code is None:  # not waited for yet: its number is no other's
            os.kill(self.pid, signal.SIGCONT)

    def is_unmounted(self, seconds: float) -> bool:
        """Return True when the filesystem is mounted nowhere, which ``seconds`` are waited for."""
        until = time.monotonic() + seconds
        waiting = select.poll()  # not select(2): the caller may have thousands of files open
        waiting.register(self.report, select.POLLIN)
        while not self._was_unmounted and waiting.poll(max(0, until - time.monotonic()) * 1000):
            self._was_unmounted = not self._read()
        return self._was_unmounted

    def _read(self) -> bool:
        """Read what the process says, a line at least, and keep the fault; return False if it was unmounted or has ended."""
        lines = os.read(self.report, MESSAGE_BYTES).splitlines()
        for line in lines:
            number, _, text = line.partition(b" ")
            if text and self.fault is None:
                self.fault = OSError(int(number), text.decode("utf-8", "replace"))
        return bool(lines) and UNMOUNTED not in lines

    def wait(self) -> int:
        """Return the exit code of the process when it has ended: 0 if all was written; see ``Server.finish``."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._read()
        os.close(self.report)
        return self.code

    def code_if_ended(self) -> int | None:
        """Return the exit code of the process, None if it still serves."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def leave(self) -> None:
        """Let the process go on until the filesystem is unmounted. It lets go of the error output as well."""
        os.close(self.report)
        self.code_if_ended()


def serve_in_child(open_server: Callable[[], Server], *, before: Callable[[], None], threads: int = 1) -> ServerProcess:
    """Serve a mount in a forked process; return when it serves. See ``start_server`` and ``await_ready``."""
    server = start_server(open_server, before=before, threads=threads)
    server.await_ready()
    return server


def start_server(open_server: Callable[[], Server], *, before: Callable[[], None], threads: int = 1) -> ServerProcess:
    """Fork a process that serves a mount. The caller closes its descriptor of the mount.

    ``before``: called in it first. The process is in a session of its own, and ends when the filesystem is unmounted.
    """
    report, answer = os.pipe2(os.O_CLOEXEC)
    pid = sys.fork()
    if pid == 0:
        os.close(report)
        _serve(open_server, threads, before, answer)
    os.close(answer)
    return ServerProcess(pid, report)


def _serve(open_server: Callable[[], Server], threads: int, before: Callable[[], None], answer: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        _show_name()
        before()
        _leave_pipes()
        server = open_server()
        server.report_fault = partial(_report_fault, answer)
        close_inherited()
        _follow_reader(answer)
        os.write(answer, READY)
        code = _serve_until_unmounted(server, threads, answer)
    except Exception as error:  # noqa: BLE001 - the process ends here
        text = str(error) if isinstance(error, OSError | SifkitError) else _internal_error(error)
        os.write(answer, text.encode("utf-8", "replace")[:MESSAGE_BYTES])
    finally:
        os._exit(code)


def _serve_until_unmounted(server: Server, threads: int, answer: int) -> int:
    """Serve, and finish after the unmount; return the exit code of the process."""
    try:
        server.serve(threads=threads)
        signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
        _say(answer, UNMOUNTED)
        return server.finish()
    except OSError as error:
        server.note_fault(error)
    except Exception as error:  # noqa: BLE001 - the process ends here
        server.note_fault(OSError(errno.EIO, _internal_error(error)))
    return 1


def _internal_error(error: Exception) -> str:
    return f"internal error: {type(error).__name__}: {error}"


def _report_fault(answer: int, error: OSError) -> None:
    text = " ".join((error.strerror or str(error)).split())
    _say(answer, f"{error.errno or errno.EIO} {text}".encode("utf-8", "replace")[:FAULT_BYTES])


def _say(answer: int, line: bytes) -> None:
    """Write a line, unless nobody reads it any longer."""
    with suppress(BrokenPipeError):
        os.write(answer, line + b"\n")


def _show_name() -> None:
    """Show this process with a name of its own, and the arguments of the command that it was forked from."""
    with open("/proc/self/cmdline", "rb") as file:
        words = file.read().partition(b"\0")[2]
    sys.name_process(SERVER_NAME, sys.start_memory().words, words)


def _leave_pipes() -> None:
    """Close input and output: whoever reads the command's output sees its end, though the server goes on."""
    replace_by_nothing(0, 1)


def replace_by_nothing(*files: int) -> None:
    """Open the null device as these descriptors."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for file in files:
        os.dup2(nothing, file)
    os.close(nothing)


def close_inherited() -> None:
    """Close the caller's files, such as pipes of his shell: all but ours, which are closed on exec, and the standard ones."""
    for name in os.listdir("/proc/self/fd"):
        if (file := int(name)) > 2:
            with suppress(OSError):  # the descriptor of the listing itself
                if not os.get_inheritable(file):
                    continue
                os.close(file)


def _follow_reader(answer: int) -> None:
    """Close the error output when the process that reads ``answer`` has ended or no longer waits: others may wait for that."""

    def on_change(*_: object) -> None:
        poll = select.poll()
        poll.register(answer, 0)
        if poll.poll(0):  # POLLERR: no reader is left
            replace_by_nothing(2)

    signal.signal(signal.SIGIO, on_change)
    fcntl.fcntl(answer, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(answer, fcntl.F_SETFL, os.O_ASYNC)


def report_error(text: str) -> None:
    os.write(2, f"sifkit: FUSE server: {text}\n".encode("utf-8", "replace"))
