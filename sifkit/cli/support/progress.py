"""Progress of long commands on stderr: a bar on a terminal, else a line every 30 s; JSON lines, or nothing."""

from __future__ import annotations

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

Unit = Literal["files", "bytes", "steps"]
"""What is counted; steps have no name of their own."""


class Reporter:
    """Progress reporter that counts and times the phases and shows nothing; base of the others.

    The count never exceeds the total: small files are copied in whole blocks. ``phases``: the phases that are over, as
    (name, unit, count, seconds).
    """

    def __init__(self) -> None:
        self.phases: list[tuple[str, Unit, int, float]] = []
        self._name = ""
        self._unit: Unit = "files"
        self._count = 0
        self._total: int | None = None
        self._began = self._start = time.monotonic()

    def phase(self, name: str, total: int | None, unit: Unit) -> None:
        """Begin a phase. ``total`` None: unknown."""
        self.done()
        self._name, self._total, self._unit, self._count = name, total, unit, 0
        self._start = time.monotonic()
        self.show_begin()

    def advance(self, count: int) -> None:
        """Count ``count`` more files or bytes as done."""
        self._count += count
        if self._total is not None and self._count > self._total:
            count -= self._count - self._total
            self._count = self._total
        self.show_more(count)

    def done(self) -> None:
        """End the phase."""
        if self._name:
            self.show_end()
            self.phases.append((self._name, self._unit, self._count, time.monotonic() - self._start))
        self._name = ""

    def print_times(self, console: Console) -> None:
        """Print how long each phase took, with -v."""
        if self.phases:
            console.detail("time: " + ", ".join(f"{name} {seconds:.2f} s" for name, _, _, seconds in self.phases))

    def show_begin(self) -> None:
        """Show that a phase began."""

    def show_more(self, count: int) -> None:
        """Show that ``count`` more are done."""

    def show_end(self) -> None:
        """Show that the phase is over."""

    def show_last(self, failed: bool) -> None:
        """Show that the command is over."""

    def clear(self) -> None:
        """Make room for a line of text."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.done()
        self.show_last(kind is not None)


class _PlainReporter(Reporter):
    """Progress reporter that prints a line every 30 s."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._next = self._began + EVERY_SECONDS

    def show_more(self, count: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY_SECONDS
            done = {"bytes": human(self._count), "files": counted(self._count, "file")}.get(self._unit, f"{self._count:,}")
            of = f" of {human(self._total) if self._unit == 'bytes' else f'{self._total:,}'}" if self._total is not None else ""
            self._console.note(f"{self._console.program}: {self._name}: {done}{of}")


class _JSONReporter(Reporter):
    """Progress reporter that prints a JSON object when a phase begins and ends, every second, and at the end."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._next = 0.0

    def show_begin(self) -> None:
        self._emit(self._name, self._unit, self._count, self._total)
        self._next = time.monotonic() + JSON_SECONDS

    def show_more(self, count: int) -> None:
        if time.monotonic() >= self._next:
            self.show_begin()

    def show_end(self) -> None:
        self._emit(self._name, self._unit, self._count, self._count)

    def show_last(self, failed: bool) -> None:
        files = next((count for _, unit, count, _ in self.phases if unit == "files"), 0)  # those of the scan, the first phase
        size = sum(count for name, unit, count, _ in self.phases if unit == "bytes" and name != "read")  # that is the source
        times = {name: round(seconds, 3) for name, _, _, seconds in self.phases}
        self._emit("failed" if failed else "done", "bytes", size, size, files=files, phases=times)

    def _emit(self, name: str, unit: Unit, done: int, total: int | None, **more: Any) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        fields = {"phase": name, "unit": unit, "done": done, "total": total, "seconds": seconds, **more}
        import json

        try:
            head = {"sifkit": JSON_SCHEMA, "command": self._console.command}
            sys.stderr.write(json.dumps(head | {"progress": fields}) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass  # stderr is gone


class _BarReporter(Reporter):
    """Progress reporter with tqdm's bar; short phases show none."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._bar: Any = None

    def show_begin(self) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread in a process that may fork or be interrupted
        in_bytes = self._unit == "bytes"
        self._bar = tqdm(
            desc=self._name,
            total=self._total,
            unit={"bytes": "iB", "files": " files"}.get(self._unit, ""),  # MiB, GiB
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

    def clear(self) -> None:
        if self._bar is not None:
            self._bar.clear()

    def show_end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def reporter(mode: str, console: Console) -> Reporter:
    """Return the reporter for ``mode`` (one of MODES), the terminal and -q."""
    if mode == "off" or (console.quiet and mode != "json"):
        return Reporter()
    if mode == "json":
        return _JSONReporter(console)
    if mode == "plain" or not console.err_is_terminal:
        return _PlainReporter(console)
    return _BarReporter(console)
