"""Run sifkit as if a directory lay on a network filesystem: each call that asks of something in it takes longer.

    python tools/slow_source.py --below DIR [--milliseconds 1] [--calls lstat,stat,listxattr,open] -- COMMAND

COMMAND is what follows ``sifkit``, as ``overlay create --from-dir DIR o.img``. As with a real server, nothing else in the
process waits: the interpreter lock is free, and forked processes have waits of their own.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["CALLS", "main", "slowed"]

CALLS = ("lstat", "stat", "listxattr", "open")
"""What a server is asked for each file; ``os.scandir`` in this list: the stat calls of its entries."""


class _Entry:
    """An entry of os.scandir whose stat waits."""

    def __init__(self, entry: os.DirEntry[Any], wait: Callable[[Any], None]) -> None:
        self._entry = entry
        self._wait = wait

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        self._wait(self._entry.path)
        return self._entry.stat(follow_symlinks=follow_symlinks)

    def __fspath__(self) -> Any:
        return self._entry.path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)


class _Entries:
    """What os.scandir returns, with such entries."""

    def __init__(self, found: Any, wait: Callable[[Any], None]) -> None:
        self._found = found
        self._wait = wait
        self.close = found.close

    def __iter__(self) -> Iterator[_Entry]:
        return self

    def __next__(self) -> _Entry:
        return _Entry(next(self._found), self._wait)

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def slowed(below: str, seconds: float, calls: Sequence[str] = CALLS) -> Iterator[None]:
    """Inside the block, the functions ``calls`` of module os first wait ``seconds`` where their path leads into ``below``."""
    top = os.fsencode(os.path.abspath(below)).rstrip(b"/")

    def wait(path: Any) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            raw = os.path.abspath(os.fsencode(path))
            if raw == top or raw.startswith(top + b"/"):
                time.sleep(seconds)

    def slow(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            wait(args[0] if args else options.get("path"))
            return real(*args, **options)

        return call

    def entries(path: Any = ".") -> _Entries:
        return _Entries(kept["scandir"](path), wait)

    kept = {name: getattr(os, name) for name in calls if hasattr(os, name)}
    try:
        for name, real in kept.items():
            setattr(os, name, entries if name == "scandir" else slow(real))
        yield
    finally:
        for name, real in kept.items():
            setattr(os, name, real)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="slow_source", description="run sifkit with a source that answers slowly")
    parser.add_argument("--below", required=True, help="the directory that is slow")
    parser.add_argument("--milliseconds", type=float, default=1.0, help="how long each call waits (default 1)")
    parser.add_argument("--calls", default=",".join(CALLS), help=f"functions of module os (default {','.join(CALLS)})")
    parser.add_argument("command", nargs="+", help="what follows sifkit on its command line")
    options = parser.parse_args(argv)
    from sifkit.cli import main as sifkit

    with slowed(options.below, options.milliseconds / 1000, options.calls.split(",")):
        return sifkit(options.command)


if __name__ == "__main__":
    sys.exit(main())
