"""How far a long command is, on stderr: a bar on a terminal, a plain line every 30 s elsewhere, JSON lines, or nothing."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import Any, Literal, Self

from ...errors import counted, human
from .console import JSON_SCHEMA, Console

__all__ = ["MODES", "Reporter", "reporter"]

MODES = ("auto", "plain", "json", "off")
EVERY_SECONDS = 30.0
JSON_SECONDS = 1.0

Unit = Literal["files", "bytes"]


class Reporter:
    """Counts and times the phases, and shows nothing: the base of the others.

    What is counted never passes the total that was told: small files are copied in whole blocks. ``phases`` are the
    phases that are over, as (name, unit, count, seconds). Leaving its block ends whatever is on the screen.
    """

    def __init__(self) -> None:
        self.phases: list[tuple[str, Unit, int, float]] = []
        self._name = ""
        self._unit: Unit = "files"
        self._count = 0
        self._total: int | None = None
        self._began = self._start = time.monotonic()

    def phase(self, name: str, total: int | None, unit: Unit) -> None:
        """A new part of the work begins."""
        self.done()
        self._name, self._total, self._unit, self._count = name, total, unit, 0
        self._start = time.monotonic()
        self.show_begin()

    def advance(self, count: int) -> None:
        """``count`` more files or bytes are done."""
        self._count += count
        if self._total is not None and self._count > self._total:
            count -= self._count - self._total
            self._count = self._total
        self.show_more(count)

    def done(self) -> None:
        """The part is over."""
        if self._name:
            self.show_end()
            self.phases.append((self._name, self._unit, self._count, time.monotonic() - self._start))
        self._name = ""

    def tell_times(self, console: Console) -> None:
        """How long each phase took, for -v."""
        if self.phases:
            console.detail("time: " + ", ".join(f"{name} {seconds:.2f} s" for name, _, _, seconds in self.phases))

    def show_begin(self) -> None:
        """A phase began."""

    def show_more(self, count: int) -> None:
        """``count`` more are done, and counted."""

    def show_end(self) -> None:
        """The phase is over."""

    def show_last(self, failed: bool) -> None:
        """All is over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.done()
        self.show_last(kind is not None)


class _Plain(Reporter):
    """A line now and then."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._next = self._began + EVERY_SECONDS

    def show_more(self, count: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY_SECONDS
            done = human(self._count) if self._unit == "bytes" else counted(self._count, "file")
            of = f" of {human(self._total) if self._unit == 'bytes' else f'{self._total:,}'}" if self._total is not None else ""
            self._console.note(f"{self._console.program}: {self._name}: {done}{of}")


class _Json(Reporter):
    """An object when a phase begins, every second, and when it ends; a last one at the end of all."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._next = 0.0

    def show_begin(self) -> None:
        self._tell(self._name, self._unit, self._count, self._total)
        self._next = time.monotonic() + JSON_SECONDS

    def show_more(self, count: int) -> None:
        if time.monotonic() >= self._next:
            self.show_begin()

    def show_end(self) -> None:
        self._tell(self._name, self._unit, self._count, self._count)

    def show_last(self, failed: bool) -> None:
        files = next((count for _, unit, count, _ in self.phases if unit == "files"), 0)  # the scan's, which is the first
        size = sum(count for _, unit, count, _ in self.phases if unit == "bytes")
        times = {name: round(seconds, 3) for name, _, _, seconds in self.phases}
        self._tell("failed" if failed else "done", "bytes", size, size, files=files, phases=times)

    def _tell(self, name: str, unit: Unit, done: int, total: int | None, **more: Any) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        fields = {"phase": name, "unit": unit, "done": done, "total": total, "seconds": seconds, **more}
        try:
            head = {"sifkit": JSON_SCHEMA, "command": self._console.command}
            sys.stderr.write(json.dumps(head | {"progress": fields}) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass  # nobody listens any more


class _Bar(Reporter):
    """tqdm's bar; a phase that is over soon never shows one."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._bar: Any = None

    def show_begin(self) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread beside a program that may fork or be interrupted
        in_bytes = self._unit == "bytes"
        self._bar = tqdm(
            desc=self._name,
            total=self._total,
            unit="B" if in_bytes else " files",
            unit_scale=in_bytes,
            unit_divisor=1024 if in_bytes else 1000,
            leave=False,
            file=sys.stderr,
            ascii=None if self._console.err_is_unicode else True,
            delay=0.3,
            dynamic_ncols=True,
        )

    def show_more(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def show_end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def reporter(mode: str, console: Console) -> Reporter:
    """What fits ``mode`` (one of MODES), the terminal and -q."""
    if mode == "off" or (console.quiet and mode != "json"):
        return Reporter()
    if mode == "json":
        return _Json(console)
    if mode == "plain" or not console.err_is_terminal:
        return _Plain(console)
    return _Bar(console)
