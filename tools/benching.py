"""What the benches share: whole processes in turn on the same input, medians, and a table of ratios and targets.

Both sides run with a warm cache and sync what they wrote; nothing else on the machine should be busy.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "MIB",
    "ROOT",
    "SBIN",
    "Row",
    "Run",
    "case_parser",
    "compile_packages",
    "in_turn",
    "measure",
    "median",
    "random_file",
    "run_cases",
    "sifkit",
    "timed",
]

MIB = 1 << 20
ROOT = Path(__file__).resolve().parent.parent
SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


@dataclass(frozen=True, slots=True)
class Run:
    """One process: wall seconds and peak memory in bytes."""

    seconds: float
    peak: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``target`` is what the ratio, or our seconds, should not exceed."""

    name: str
    theirs: list[Run]
    ours: list[Run]
    target: str
    met: bool
    note: str = ""

    def line(self) -> str:
        """As Markdown."""
        left, right = median(self.theirs), median(self.ours)
        yes = "yes" if self.met else "NO"
        return f"| {self.name} | {left:.3f} s | {right:.3f} s | {right / left:.3f}x | {self.target} | {yes} | {self.note} |"


def measure(argv: Sequence[str], *, cwd: Path = ROOT) -> Run:
    """Run a command to its end. Raises RuntimeError with its last words where it fails."""
    environment = {**os.environ, "PATH": SBIN, "LC_ALL": "C", "PYTHONPATH": str(ROOT)}
    if hasattr(os, "sync"):
        os.sync()  # nobody pays for what the run before left unwritten
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
            raise RuntimeError(f"{' '.join(argv)} exited {process.returncode}: {text[-2000:]}")
    return Run(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def sifkit(*words: str) -> Run:
    """Run a command of ours, without progress."""
    return measure([sys.executable, "-m", "sifkit", "-q", *words])


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def compile_packages() -> None:
    """As an installation does: no run pays for it."""
    for package in ("ext3", "sifkit"):
        compileall.compile_dir(ROOT / package, quiet=1)


def in_turn(
    runs: int, theirs: Callable[[], Run], ours: Callable[[], Run], *, slow_runs: int | None = None
) -> tuple[list[Run], list[Run]]:
    """Both, one after the other, ``runs`` times; one round before that warms the cache (left out where theirs is slow)."""
    left, right = [], []
    if slow_runs is None:
        theirs()
    ours()
    for number in range(runs):
        if slow_runs is None or number < slow_runs:
            left.append(theirs())
        right.append(ours())
    return left, right


def median(runs: Iterable[Run]) -> float:
    """Seconds of the middle one."""
    return statistics.median(run.seconds for run in runs)


def random_file(path: Path, mebibytes: int) -> Path:
    """A file that nothing can make smaller."""
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(MIB))
    return path


def case_parser(name: str, description: str, cases: Sequence[str], *, runs: int, scratch: str) -> argparse.ArgumentParser:
    """Options of a bench that has cases: --runs, --only and --scratch."""
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--runs", type=int, default=runs, help=f"rounds; the median counts (default {runs})")
    parser.add_argument("--only", default=",".join(cases), help=f"cases, of {','.join(cases)}")
    parser.add_argument("--scratch", type=Path, help=f"where {scratch} (default /var/tmp)")
    return parser


def run_cases(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    cases: Sequence[str],
    peer: str,
    bench: Callable[[Path], object],
    *,
    more: Sequence[str] = (),
) -> int:
    """Print the table: a row for each case, which is a method of what ``bench`` makes in a scratch directory; the exit code."""
    names = [name for name in options.only.split(",") if name]
    if set(names) - set(cases):
        parser.error(f"--only knows {', '.join(cases)}")
    if shutil.which(peer, path=SBIN) is None:
        print(f"{parser.prog}: {peer} is not installed", file=sys.stderr)
        return 2
    compile_packages()
    met = True
    with tempfile.TemporaryDirectory(prefix="sifkit-bench-", dir=options.scratch or "/var/tmp") as scratch:
        cases_of = bench(Path(scratch))
        print(f"| case | {peer} | sifkit | ratio | target | met | |\n|---|---|---|---|---|---|---|", flush=True)
        for name in (*names, *more):
            print(f"{parser.prog}: {name} ...", file=sys.stderr, flush=True)
            row: Row = getattr(cases_of, name)()
            print(row.line(), flush=True)
            met = met and row.met
    return 0 if met else 1
