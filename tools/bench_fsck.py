"""The check beside e2fsck -fn: whole processes in turn on the same sound images, in one run.

    python tools/bench_fsck.py [--runs 5] [--only real,many,sparse,reads] [--image FILE] [--scratch DIR]

``real``: about 60,000 files of /usr (or ``--image``); ``many``: 1,000,000 files in 100 indexed directories; ``sparse``: an
empty filesystem of 100 GiB; ``reads``: the calls by which each reads the image of ``real``, counted by strace. Needs
e2fsprogs; nothing else on the machine should be busy.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from bench import assemble
from benching import MIB, ROOT, SBIN, Row, Run, case_parser, in_turn, measure, median, run_cases
from benching import sifkit as run_sifkit

__all__ = ["main"]

CASES = ("real", "many", "sparse", "reads")
FILES, DIRECTORIES = 1_000_000, 100
MAKE_MANY = f"""
import sys, ext3
from ext3.newfs.content import MemoryContent
from ext3.newfs.plan import ImageOptions
times = (1_700_000_000,) * 3 + (0,) * 3
builder = ext3.TreeBuilder()
builder.add(0, b"", 0o040755, 0, 0, 0, times)
for number in range({DIRECTORIES}):
    directory = builder.add(0, b"directory-%d" % number, 0o040755, 0, 0, 0, times)
    for name in range({FILES // DIRECTORIES}):
        builder.add(directory, b"file-%d-%d" % (number, name), 0o100644, 1000, 1000, 0, times)
with open(sys.argv[1], "wb") as file:
    file.truncate(1 << 30)
stamp = ext3.Stamp(1_700_000_000, bytes(16), bytes(range(16)))
ext3.build_image(builder.finish(MemoryContent({{}})), sys.argv[1], options=ImageOptions(size=1 << 30), stamp=stamp)
"""


class Bench:
    """The cases; images are made below ``scratch``."""

    def __init__(self, options: Namespace, scratch: Path) -> None:
        self.options = options
        self.scratch = scratch

    @cached_property
    def image(self) -> Path:
        """An image with real files."""
        if self.options.image:
            return Path(self.options.image)
        tree = assemble(self.scratch / "tree", Path("/usr"))
        image = self.scratch / "real.img"
        run_sifkit("overlay", "create", "--size", "2G", "--layout", "data", "--from-dir", str(tree), str(image))
        shutil.rmtree(tree)
        return image

    def both(self, name: str, image: Path, target: str, most: float, *, memory: int = 0) -> Row:
        """Both look at an image. ``most``: of our time against theirs; ``memory``: the most bytes."""
        theirs, ours = in_turn(self.options.runs, lambda: e2fsck(image), lambda: sifkit(image))
        peak = max(run.peak for run in ours)
        met = median(ours) / median(theirs) <= most and not 0 < memory < peak
        note = f"peak {peak / MIB:.0f} MiB" + (f" (target {memory // MIB})" if memory else "")
        return Row(name, theirs, ours, target, met, note)

    def real(self) -> Row:
        row = self.both("real files", self.image, "0.5 s", float("inf"))
        return replace(row, met=median(row.ours) <= 0.5)

    def many(self) -> Row:
        image = self.scratch / "many.img"
        measure([sys.executable, "-c", MAKE_MANY, str(image)])
        row = self.both(f"{FILES:,} files in {DIRECTORIES} directories", image, "2.5x", 2.5, memory=300 * MIB)
        image.unlink()
        return row

    def sparse(self) -> Row:
        image = self.scratch / "sparse.img"
        measure(["mke2fs", "-q", "-F", "-t", "ext3", "-m", "0", str(image), "100G"])
        row = self.both("empty 100 GiB, sparse", image, "1.5x", 1.5, memory=300 * MIB)
        image.unlink()
        return row

    def reads(self) -> Row:
        """Calls that read the image, as "seconds" of a thousand."""
        theirs = self.count(["e2fsck", "-fn", str(self.image)])
        ours = self.count([sys.executable, "-m", "sifkit", "-q", "overlay", "fsck", "-n", "-f", str(self.image)])
        left, right = [Run(theirs / 1000, 0)], [Run(ours / 1000, 0)]
        return Row("thousands of calls that read", left, right, "0.25x", ours <= theirs / 4, f"{theirs} and {ours}")

    def count(self, argv: Sequence[str]) -> int:
        """Count the calls by which a command reads the image."""
        with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as trace:
            words = ["strace", "-f", "-y", "-e", "trace=read,pread64,preadv,readv", "-s", "0", "-o", trace.name, *argv]
            environment = {"PATH": SBIN, "LC_ALL": "C", "PYTHONPATH": str(ROOT)}
            subprocess.run(words, check=False, capture_output=True, env=environment, cwd=ROOT)
            return sum(f"<{self.image}>" in line for line in trace)


def e2fsck(image: Path) -> Run:
    return measure(["e2fsck", "-fn", str(image)])


def sifkit(image: Path) -> Run:
    return run_sifkit("overlay", "fsck", "-n", "-f", str(image))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases and print the table; the exit code."""
    parser = case_parser("bench_fsck", "e2fsck -fn and the check in turn", CASES, runs=5, scratch="images go: 3 GiB")
    parser.add_argument("--image", help="an image for the cases real and reads")
    options = parser.parse_args(argv)
    return run_cases(parser, options, CASES, "e2fsck", lambda scratch: Bench(options, scratch))


if __name__ == "__main__":
    sys.exit(main())
