"""Command in a container: forked, moved into it, run, and waited for, with signals passed on.

The exit code is the command's, 128 + n after signal n. The command dies with this process, even if that is killed. In a PID
namespace a small init is process 1, which reaps what the command leaves behind.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from ...errors import SifkitError, show
from .. import sys
from ..errors import LaunchError
from ..planning.environment import DEFAULT_PATH
from ..planning.run_plan import Start
from .programs import find_program, is_plain_script, why_not_executed

if TYPE_CHECKING:
    from .terminal import ForegroundTerminal

__all__ = ["run_in_container"]

FORWARDED = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGVTALRM,
        signal.SIGPROF,
        signal.SIGIO,
        signal.SIGPWR,
        signal.SIGXCPU,
        signal.SIGWINCH,
        *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
    }
)
"""Signals that are passed on to the command, unless the terminal has sent them: then the command has them already.

Of those that end a process by default, the ones that processes send to each other."""
WAITED = FORWARDED | {signal.SIGCHLD}
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
SI_KERNEL = 0x80
INIT_NAME = "sifkit-init"
"""Name of process 1 in a PID namespace."""
MESSAGE_BYTES = 4096
FAILED, KILLED = 255, 128
SHELL = "/bin/sh"
"""Shell for scripts without an interpreter line."""


def run_in_container(
    enter: Callable[[], Start],
    *,
    cwd: Sequence[str],
    pid_namespace: bool = False,
    has_init: bool = True,
    no_new_privileges: bool = True,
    before_exec: Callable[[], None] | None = None,
) -> int:
    """Run a command in a child process; return its exit code. Raises LaunchError if it cannot be started.

    ``enter``: makes the container's root that of the child, and gives the command. ``cwd``: the first directory that is there
    becomes the working directory. ``pid_namespace``: this process has unshared it. ``has_init``: its first process is ours.
    ``before_exec``: is called last in the child, without new privileges.
    """
    report, answer = os.pipe2(os.O_CLOEXEC)
    parent = 0 if pid_namespace else os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
    terminal = _terminal()
    pid = sys.fork()
    if pid == 0:
        try:
            os.close(report)
            sys.set_parent_death_signal()
            if os.getppid() != parent:  # it has died before the line above
                os._exit(FAILED)
            has_init = has_init and pid_namespace
            memory = sys.start_memory() if has_init else None  # where the container's root may have no /proc
            start = enter()
            if memory is not None:
                _become_init(memory)
            _become_command(start, cwd, before, no_new_privileges, before_exec)
        except BaseException as error:  # noqa: BLE001 - the parent reports it
            _report(answer, error)
        finally:
            os._exit(FAILED)
    os.close(answer)
    try:
        code = _wait(pid)
        with open(report, "rb") as file:
            message = file.read(MESSAGE_BYTES)
        if code > KILLED and terminal is not None:
            terminal.restore()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if message:
        raise LaunchError(message.decode("utf-8", "surrogateescape"))
    return code


def _terminal() -> ForegroundTerminal | None:
    if not os.isatty(0):
        return None
    from .terminal import foreground_terminal

    return foreground_terminal()


def _become_init(memory: sys.StartMemory) -> None:
    """Fork the command and return in it; in this process wait for it, reap all others, and exit with its code.

    Its files are closed, the words and variables of the caller are cleared, and other copies in its memory are
    protected from root of a user namespace: programs in the container could reach all that by /proc/1.
    """
    # before there is a program that could look; execve(2) gives both back to the command
    sys.clear_dumpable()
    sys.name_process(INIT_NAME, memory.words)
    command = sys.fork()
    if command:
        os.closerange(0, os.sysconf("SC_OPEN_MAX"))
        address, size = memory.variables
        sys.write_memory(address, bytes(size))
        os._exit(_wait(command, reap=True))


def _become_command(
    start: Start,
    cwd: Sequence[str],
    mask: set[signal.Signals | int],
    no_new_privileges: bool,
    before_exec: Callable[[], None] | None,
) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number in IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    _change_directory(cwd)
    if no_new_privileges:
        sys.set_no_new_privileges()
    if before_exec is not None:
        before_exec()
    program = find_program(start.argv[0], start.environment.get("PATH", DEFAULT_PATH))
    try:
        os.execve(program, list(start.argv), dict(start.environment))
    except OSError as error:
        if error.errno == errno.ENOEXEC and is_plain_script(program):
            with suppress(OSError):
                os.execve(SHELL, [SHELL, program, *start.argv[1:]], dict(start.environment))
        raise LaunchError(why_not_executed(program, error)) from error


def _report(answer: int, error: BaseException) -> None:
    if isinstance(error, OSError) and error.strerror:
        named = f"{show(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        text = f"{named}{error.strerror}"
    elif isinstance(error, SifkitError):
        text = error.message + (f"; {error.hint}" if error.hint else "")
    else:
        text = f"internal error: {type(error).__name__}: {error}"
    os.write(answer, text.encode("utf-8", "surrogateescape")[:MESSAGE_BYTES])


def _change_directory(choices: Sequence[str]) -> None:
    for choice in choices:
        with suppress(OSError):
            os.chdir(choice)
            return
    os.chdir("/")


def _wait(pid: int, *, reap: bool = False) -> int:
    """Wait for the process ``pid``, passing signals on; return its exit code. ``reap``: collect other processes, too."""
    while True:
        code = _collect(pid, reap=reap)
        if code is not None:
            return code
        found = signal.sigwaitinfo(WAITED)
        if found.si_signo != signal.SIGCHLD and found.si_code != SI_KERNEL:
            with suppress(ProcessLookupError):
                os.kill(pid, found.si_signo)


def _collect(pid: int, *, reap: bool) -> int | None:
    while True:
        try:
            found, status = os.waitpid(-1 if reap else pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if found == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if found == 0:
            return None
