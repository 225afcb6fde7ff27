"""mke2fs and sifkit in turn on the same trees, in one run: medians, ratios, and whether the targets are met.

    python tools/bench.py [--runs 5] [--only real,empty] [--tree DIR] [--scratch DIR] [--linear]

Both are whole processes with a warm cache, and both sync the image before they end. Needs mke2fs; nothing else on the machine
should be busy. ``small`` takes mke2fs minutes, so that side is run once (see --slow-runs).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benching import MIB, Row, Run, case_parser, in_turn, measure, median, run_cases
from benching import sifkit as run_sifkit

__all__ = ["main"]

CASES = ("real", "small", "large", "empty", "sparse", "help")


class Bench:
    """The cases; each makes its tree below ``scratch`` and removes it."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options = options
        self.scratch = scratch
        self.image = scratch / "image.img"

    def mke2fs(self, size: str, tree: Path | None) -> Run:
        self.image.unlink(missing_ok=True)
        argv = ["mke2fs", "-q", "-F", "-t", "ext3", "-m", "0"]
        if tree:
            argv += ["-d", str(tree)]
        return measure([*argv, str(self.image), size])

    def sifkit(self, size: str, tree: Path | None) -> Run:
        self.image.unlink(missing_ok=True)
        words = ["--layout", "data", "--from-dir", str(tree)] if tree else []
        return run_sifkit("overlay", "create", "--size", size, *words, str(self.image))

    def both(self, name: str, size: str, tree: Path | None, most: float, *, slow: bool = False, note: str = "") -> Row:
        left, right = in_turn(
            self.options.runs,
            lambda: self.mke2fs(size, tree),
            lambda: self.sifkit(size, tree),
            slow_runs=self.options.slow_runs if slow else None,
        )
        self.image.unlink(missing_ok=True)
        ratio = median(right) / median(left)
        return Row(name, left, right, f"{most:g}x", ratio <= most, note)

    def real(self) -> Row:
        tree = self.options.tree or assemble(self.scratch / "real", Path("/usr"))
        files, size = totals(tree)
        row = self.both(f"{files:,} files, {size / MIB:,.0f} MiB", f"{size * 14 // 10 // MIB + 64}M", tree, 0.6)
        if not self.options.tree:
            shutil.rmtree(tree)
        return row

    def small(self) -> Row:
        count = 50_000
        tree = small_files(self.scratch / "small", [count])
        row = self.both("50,000 small files in one directory", "500M", tree, 0.03, slow=True)
        shutil.rmtree(tree)
        each = (median(row.ours)) / count * 1e6
        met = row.met and each < 60
        note = f"{each:.0f} us a file (target 60); mke2fs run {len(row.theirs)} time(s)"
        return Row(row.name, row.theirs, row.ours, row.target, met, note)

    def large(self) -> Row:
        tree = self.scratch / "large"
        tree.mkdir()
        block = os.urandom(MIB)
        for number in range(4):
            with (tree / f"file{number}").open("wb") as file:
                for _ in range(256):
                    file.write(block)
        reflinks = can_reflink(tree / "file0", self.scratch / "probe")
        row = self.both("four files of 256 MiB", "1200M", tree, 0.1 if reflinks else 0.5, note="reflinks" if reflinks else "")
        shutil.rmtree(tree)
        return row

    def empty(self) -> Row:
        row = self.both("empty 500M", "500M", None, float("inf"))
        seconds = median(row.ours)
        return Row(row.name, row.theirs, row.ours, "0.35 s", seconds <= 0.35)

    def sparse(self) -> Row:
        row = self.both("empty 1T, sparse", "1T", None, float("inf"))
        return Row(row.name, row.theirs, row.ours, "1 s", median(row.ours) <= 1)

    def help(self) -> Row:
        left, right = in_turn(
            self.options.runs,
            lambda: measure([sys.executable, "-c", "pass"]),
            lambda: measure([sys.executable, "-m", "sifkit", "-h"]),
        )
        more = median(right) - median(left)
        return Row("sifkit -h against python -c pass", left, right, "+0.12 s", more <= 0.12, f"{more:.3f} s more")

    def linear(self) -> Row:
        """1,000,000 files against 50,000, both in 100 directories; "theirs" is our own time for the fewer."""
        runs = []
        for count in (50_000, 1_000_000):
            tree = small_files(self.scratch / f"linear-{count}", [count // 100] * 100)
            size = f"{max(512, count * 5 // 1024)}M"
            self.sifkit(size, tree)
            runs.append([self.sifkit(size, tree) for _ in range(1 if count > 50_000 else self.options.runs)])
            self.image.unlink()
            shutil.rmtree(tree)
        few, many = runs
        peak = max(run.peak for run in many)
        ratio = median(many) / median(few)
        note = f"peak {peak / MIB:.0f} MiB (target 600)"
        return Row("1,000,000 files against our 50,000", few, many, "22x", ratio <= 22 and peak < 600 * MIB, note)


def small_files(top: Path, counts: Sequence[int]) -> Path:
    """Small files, ``counts[i]`` of them in the i-th directory."""
    for number, count in enumerate(counts):
        directory = top / f"{number:03}"
        directory.mkdir(parents=True)
        here = os.open(directory, os.O_RDONLY)
        for name in range(count):
            fd = os.open(f"file{name:06}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here)
            os.write(fd, b"%d a small file\n" % name)
            os.close(fd)
        os.close(here)
    return top


def totals(tree: Path) -> tuple[int, int]:
    """Entries, and bytes of their data."""
    files = size = 0
    for directory, names, leaves in os.walk(tree):
        files += len(names) + len(leaves)
        size += sum(os.lstat(os.path.join(directory, leaf)).st_size for leaf in leaves)
    return files, size


def assemble(target: Path, source: Path, *, files: int = 60_000, size: int = 1 << 30) -> Path:
    """A real tree of about ``files`` entries and ``size`` bytes, copied from ``source``; files over 16 MiB are left out."""
    for directory, names, leaves in os.walk(source):
        names.sort()
        place = target / Path(directory).relative_to(source)
        place.mkdir(parents=True)
        for leaf in sorted(leaves):
            path = Path(directory, leaf)
            if files <= 0 or size <= 0:
                return target
            if path.is_symlink():
                (place / leaf).symlink_to(os.readlink(path))
            elif path.is_file() and path.stat().st_size < 16 * MIB:
                shutil.copy2(path, place / leaf)
                size -= path.stat().st_size
            files -= 1
        files -= 1
    return target


def can_reflink(source: Path, target: Path) -> bool:
    done = subprocess.run(["cp", "--reflink=always", source, target], capture_output=True, check=False)
    target.unlink(missing_ok=True)
    return done.returncode == 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases and print the table; the exit code."""
    parser = case_parser(
        "bench",
        "mke2fs and sifkit in turn on the same trees",
        CASES,
        runs=5,
        scratch="trees and images go: a few GiB on a disk",
    )
    parser.add_argument("--slow-runs", type=int, default=1, help="rounds of mke2fs where it takes minutes (default 1)")
    parser.add_argument("--tree", type=Path, help="the real tree (default: about 60,000 files and 1 GiB copied from /usr)")
    parser.add_argument("--linear", action="store_true", help="also 1,000,000 files: minutes, and 5 GiB")
    options = parser.parse_args(argv)
    more = ["linear"] if options.linear else []
    return run_cases(parser, options, CASES, "mke2fs", lambda scratch: Bench(options, scratch), more=more)


if __name__ == "__main__":
    sys.exit(main())
