"""siftool and sifkit in turn on the same images, in one run: medians, ratios, and whether the targets are met.

    python tools/bench_sif.py [--runs 3] [--only dense,sparse,list] [--scratch DIR]

Both are whole processes with a warm cache. siftool syncs nothing, so its runs end with ``sync IMAGE``, as ours do. Needs
siftool, and 12 GiB of scratch space for ``sparse``, which siftool writes out; nothing else on the machine should be busy.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benching import Row, Run, case_parser, in_turn, measure, median, random_file, run_cases, sifkit

__all__ = ["main"]

CASES = ("dense", "sparse", "list")
SLOTS = 48


class Bench:
    """The cases; each makes what it needs below ``scratch`` and removes it."""

    def __init__(self, runs: int, scratch: Path) -> None:
        self.runs = runs
        self.scratch = scratch
        self.image = scratch / "image.sif"
        self.empty = scratch / "empty.sif"
        sifkit("sif", "new", str(self.empty))

    def add(self, options: Sequence[str], file: Path, *, ours: bool) -> Run:
        """One object into a new image. The options are those that both take."""
        shutil.copyfile(self.empty, self.image)
        words = ["add", *options, str(self.image), str(file)]
        if ours:
            run = sifkit("sif", *words)
        else:
            run = measure(["sh", "-c", f"{shlex.join(['siftool', *words])} && sync {shlex.quote(str(self.image))}"])
        self.image.unlink()
        return run

    def both(self, name: str, options: Sequence[str], file: Path, most: float, *, slow_runs: int | None = None) -> Row:
        left, right = in_turn(
            self.runs,
            lambda: self.add(options, file, ours=False),
            lambda: self.add(options, file, ours=True),
            slow_runs=slow_runs,
        )
        file.unlink()
        return Row(name, left, right, f"{most:g}x", median(right) <= most * median(left))

    def dense(self) -> Row:
        file = random_file(self.scratch / "dense.bin", 1024)
        return self.both("add a dense 1 GiB object", ["--datatype", "7"], file, 1)

    def sparse(self) -> Row:
        tree = self.scratch / "tree"
        tree.mkdir()
        random_file(tree / "file", 100)
        overlay = self.scratch / "overlay.img"
        sifkit("overlay", "create", "--sparse", "--size", "10G", "--from-dir", str(tree), "--layout", "data", str(overlay))
        shutil.rmtree(tree)
        options = ["--datatype", "4", "--parttype", "4", "--partfs", "2", "--partarch", "2", "--groupid", "1"]
        return self.both("add a 10 GiB overlay with 100 MiB in it", options, overlay, 0.1, slow_runs=1)

    def list(self) -> Row:
        """``theirs`` is an empty Python: that is what the target counts from."""
        file = self.scratch / "file"
        file.write_bytes(b"some text\n")
        shutil.copyfile(self.empty, self.image)
        for number in range(SLOTS):
            sifkit("sif", "add", "--datatype", "generic", "--name", f"object {number}", str(self.image), str(file))
        left, right = in_turn(
            10 * self.runs,
            lambda: measure([sys.executable, "-c", "pass"]),
            lambda: sifkit("sif", "list", str(self.image)),
        )
        more = median(right) - median(left)
        note = f"{more:.3f} s more"
        return Row(f"list {SLOTS} objects, against python -c pass", left, right, "+0.15 s", more <= 0.15, note)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases and print the table; the exit code."""
    parser = case_parser(
        "bench_sif",
        "siftool and sifkit in turn on the same images; list runs ten times as often",
        CASES,
        runs=3,
        scratch="images go: 12 GiB on a disk",
    )
    options = parser.parse_args(argv)
    return run_cases(parser, options, CASES, "siftool", lambda scratch: Bench(options.runs, scratch))


if __name__ == "__main__":
    sys.exit(main())
