"""How far a long command is, on stderr: a bar on a terminal, a plain line every 30 s elsewhere, JSON lines, or nothing."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import Any, Literal, Self

from .console import Console
from .render import human

__all__ = ["MODES", "Reporter", "reporter"]

MODES = ("auto", "plain", "json", "off")
EVERY_SECONDS = 30.0
JSON_SECONDS = 1.0

Unit = Literal["files", "bytes"]


class Reporter:
    """Silent; the base of the others. Leaving its block ends whatever is on the screen."""

    def phase(self, name: str, total: int | None, unit: Unit) -> None:
        """A new part of the work begins."""

    def advance(self, count: int) -> None:
        """``count`` more files or bytes are done."""

    def done(self) -> None:
        """The part is over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.done()


class _Counting(Reporter):
    """Counts, and calls ``tell`` not more often than every ``interval`` seconds."""

    def __init__(self, console: Console, interval: float) -> None:
        self._console = console
        self._interval = interval
        self._name, self._total, self._unit, self._count = "", None, "files", 0
        self._next = time.monotonic() + interval

    _total: int | None

    def phase(self, name: str, total: int | None, unit: Unit) -> None:
        self._name, self._total, self._unit, self._count = name, total, unit, 0

    def advance(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._interval
            self.tell()

    def tell(self) -> None:
        raise NotImplementedError


class _Plain(_Counting):
    def tell(self) -> None:
        text = human if self._unit == "bytes" else "{:,} files".format
        of = f" of {text(self._total)}" if self._total is not None else ""
        self._console.note(f"{self._console.program}: {self._name}: {text(self._count)}{of}")


class _Json(_Counting):
    def done(self) -> None:
        if self._name:
            self.tell()
        self._name = ""

    def tell(self) -> None:
        fields: dict[str, Any] = {"phase": self._name, "unit": self._unit, "done": self._count, "total": self._total}
        try:
            sys.stderr.write(json.dumps({"sifkit": 1, "command": self._console.command, "progress": fields}) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass


class _Bar(Reporter):
    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Any = None

    def phase(self, name: str, total: int | None, unit: Unit) -> None:
        self.done()
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread beside a program that may fork or be interrupted
        in_bytes = unit == "bytes"
        self._bar = tqdm(
            desc=name,
            total=total,
            unit="B" if in_bytes else " files",
            unit_scale=in_bytes,
            unit_divisor=1024 if in_bytes else 1000,
            leave=False,
            file=sys.stderr,
            delay=0.3,
            dynamic_ncols=True,
        )

    def advance(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def done(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def reporter(mode: str, console: Console) -> Reporter:
    """What fits ``mode`` (one of MODES), the terminal and -q."""
    if mode == "off" or (console.quiet and mode != "json"):
        return Reporter()
    if mode == "json":
        return _Json(console, JSON_SECONDS)
    if mode == "plain" or not console.err_is_terminal:
        return _Plain(console, EVERY_SECONDS)
    return _Bar(console)
