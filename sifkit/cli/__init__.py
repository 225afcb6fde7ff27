"""Command line. ``run`` is the entry point of ``sifkit`` and ``python -m sifkit``; ``main`` is for callers in Python.

The package is light to import: typer and the modules of the verbs are loaded when they are needed.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from .support.console import Console

__all__ = ["main", "run"]

BROKEN_PIPE = 141
NUMPY_THREADS = "OPENBLAS_NUM_THREADS"
INTERRUPTED = 130
LAST_STANDARD_FILE = 2


class Terminated(BaseException):
    """Signal that ends the process, raised so that temporary files are removed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def run() -> NoReturn:
    """Run the command and end the process, without garbage collection or interpreter shutdown: each takes 20 ms and more."""
    gc.disable()  # for good: enabled again, it would scan all objects once more
    _open_standard_files()
    _own_packages_first()
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # full, closed, or missing from the start
            stream.flush()
    os._exit(code)


def _open_standard_files() -> None:
    """Open /dev/null for input, output and error output that the caller has closed: no image or mount may get their numbers.

    The command of a container has them, too, as with Apptainer.
    """
    with suppress(OSError):  # no /dev/null, or no descriptor left
        fd = 0
        while fd <= LAST_STANDARD_FILE:
            fd = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(fd, True)
        os.close(fd)


def _own_packages_first() -> None:
    """Look for modules of PYTHONPATH, of the user and in the working directory last.

    A job sets PYTHONPATH for its own program, often with other versions of the same packages on a slow filesystem.
    """
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    others = {os.path.normpath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path}
    others.add(getattr(sys.modules.get("site"), "USER_SITE", None) or "")
    if sys.path and vars(sys.modules["__main__"]).get("__package__"):  # python -m
        others.add(sys.path[0])
    last = [path for path in sys.path if path in others and path != own]
    sys.path[:] = [path for path in sys.path if path not in last] + last


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. ``argv``: arguments without the program's name (default: ``sys.argv``).

    Never raises. SIGTERM and SIGHUP end the command as Ctrl-C does, so that temporary files are removed.
    """
    from ..errors import OutputError
    from .support.console import Console

    args = list(sys.argv[1:] if argv is None else argv)
    console = Console()
    before_end = args[: args.index("--")] if "--" in args else args
    console.json = "--json" in before_end  # usage errors are JSON too
    try:
        with _terminating_signals(), _one_shot_process(console):
            try:
                code = _run(args, console)
                _flush()
            except (KeyboardInterrupt, BrokenPipeError, Terminated):
                raise
            except Exception as error:  # noqa: BLE001 - all errors become text here; a traceback would be a bug
                from .support.failures import report

                code = report(error, console)
                _flush()
            return code
    except BrokenPipeError:
        _discard_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        console.error("interrupted")
        return INTERRUPTED
    except Terminated as signal:
        console.error("terminated")
        return signal.exit_code
    except (OSError, OutputError) as error:  # stdout itself failed while the error was reported
        _discard_stdout()
        console.json = False
        from .support.failures import report

        return report(error, console)


def _run(args: list[str], console: Console) -> int:
    from .support.quick_run import quick_run

    if (code := quick_run(args, console)) is not None:
        return code
    import typer

    from .root import root
    from .support.failures import report_usage

    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    try:
        with root.make_context("sifkit", args, obj=console) as ctx:
            result = root.invoke(ctx)
            return result if isinstance(result, int) else 0
    except typer.Exit as done:
        return done.exit_code
    except usage_error as error:
        return report_usage(error, console)


@contextmanager
def _terminating_signals() -> Iterator[None]:
    """Raise Terminated on SIGTERM and SIGHUP inside the block; in the main thread only."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise Terminated(number)

    previous = {}
    for number in [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]:
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup's SIG_IGN stays
            previous[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _one_shot_process(console: Console) -> Iterator[None]:
    """Settings for a process that runs one command: no garbage collection, no thread pool for linear algebra."""
    if NUMPY_THREADS not in os.environ:  # read when numpy is first imported
        os.environ[NUMPY_THREADS] = "1"
        console.added_variables = (NUMPY_THREADS,)
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _flush() -> None:
    from ..errors import OutputError

    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror}") from error


def _discard_stdout() -> None:
    """Redirect stdout to /dev/null, so that the interpreter does not fail to flush it at exit."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
