"""The command line. ``run`` is the entry point of ``sifkit`` and ``python -m sifkit``; ``main`` is for who calls from Python.

Light to import: typer, the verbs' modules and everything below them load when they are needed.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

__all__ = ["main", "run"]

BROKEN_PIPE = 141
INTERRUPTED = 130


def run() -> NoReturn:
    """Do what the process was started for and end it. Nobody hunts for cycles before, nor takes the interpreter apart after:
    each takes 20 ms and more."""
    gc.disable()  # and stays so: enabled again, it would look through everything once more
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # full, closed, or none from the start
            stream.flush()
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command (``argv`` without the program's name; None: the process's own); the exit code.

    No exception leaves it. SIGTERM and SIGHUP end it as Ctrl-C does, so that temporary files are removed.
    """
    from ..errors import OutputError
    from .support.console import Console
    from .support.failures import Terminated, report

    args = list(sys.argv[1:] if argv is None else argv)
    console = Console()
    before_end = args[: args.index("--")] if "--" in args else args
    console.json = "--json" in before_end  # an error in the arguments is reported as asked for, too
    try:
        with _signals(), _short_process():
            try:
                code = _run(args, console)
                _flush()
            except (KeyboardInterrupt, BrokenPipeError, Terminated):
                raise
            except Exception as error:  # noqa: BLE001 - a traceback would be a bug: this is where all errors become text
                code = report(error, console)
                _flush()
            return code
    except BrokenPipeError:
        _forget_output()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        console.error("interrupted")
        return INTERRUPTED
    except Terminated as signal:
        console.error("terminated")
        return signal.exit_code
    except (OSError, OutputError) as error:  # stdout itself failed while the error was reported
        _forget_output()
        console.json = False
        return report(error, console)


def _run(args: list[str], console: object) -> int:
    import typer

    from .root import root
    from .support.console import Console
    from .support.failures import report_usage

    assert isinstance(console, Console)
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
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated inside the block; only the main thread can have that."""
    import signal
    import threading

    from .support.failures import Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise Terminated(number)

    kept = {}
    for number in [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]:
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup's SIG_IGN stays
            kept[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def _short_process() -> Iterator[None]:
    """What pays in a process that does one thing and ends: no hunt for cycles, no pool of threads for linear algebra."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is first imported
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


def _forget_output() -> None:
    """Nothing more can be written to stdout: keep the interpreter from trying, and complaining, when it ends."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
