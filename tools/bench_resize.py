"""The resize beside e2fsck -f -y and resize2fs: whole processes in turn on copies of the same images, in one run.

    python tools/bench_resize.py [--runs 3] [--only grow,shrink,sparse] [--scratch DIR]

``grow``: real files of /usr, 1G to 4G; ``shrink``: 60,000 files of /usr, written by the kernel to an image of 2G, half of them
deleted, then large ones written, to the smallest size; ``sparse``: an empty image of 9M, to 80G. Both write everything to
storage before they end. Afterwards e2fsck looks at what ours left. Needs e2fsprogs, root for ``shrink`` (a loop mount), and
5 GiB of scratch space; nothing else on the machine should be busy.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import assemble
from benching import MIB, SBIN, Row, Run, case_parser, in_turn, measure, median, random_file, run_cases, sifkit

__all__ = ["Bench", "age", "main"]

CASES = ("grow", "shrink", "sparse")
GROW_BYTES = 600 * MIB
LARGE_FILES, LARGE_MIB = 16, 32
START = "import sifkit.cli.overlay.resize, sifkit.overlay.resizing.image_resize"
"""What a resize loads before it does anything."""


class Bench:
    """The cases; each makes its image below ``scratch`` and removes it."""

    def __init__(self, runs: int, scratch: Path) -> None:
        self.runs = runs
        self.scratch = scratch
        self.base = scratch / "base.img"
        self.image = scratch / "image.img"

    def grow(self) -> Row:
        tree = assemble(self.scratch / "tree", Path("/usr"), size=GROW_BYTES)
        sifkit("overlay", "create", "--size", "1G", "--layout", "data", "--from-dir", str(tree), str(self.base))
        shutil.rmtree(tree)
        left, right = self.both("4G", "--size", "4G")
        start = median(measure([sys.executable, "-c", START]) for _ in range(self.runs))
        met = median(right) <= median(left) + start
        return Row("grow 1G to 4G, real files", left, right, "1x and start-up", met, f"start-up {start:.3f} s")

    def shrink(self) -> Row:
        self.make_image("2G")
        with mounted(self.base, self.scratch / "mount") as point:
            assemble(point / "tree", Path("/usr"))
            count = age(point)
        left, right = self.both("-M", "--minimum")
        return self.row(f"shrink 2G to the smallest, {count:,} files aged by the kernel", left, right, 2.5)

    def sparse(self) -> Row:
        self.make_image("9M", "-b", "1024")
        left, right = self.both("80G", "--size", "80G", slow_runs=1)
        return self.row("grow 9M to 80G, empty", left, right, 0.1)

    def row(self, name: str, theirs: list[Run], ours: list[Run], most: float) -> Row:
        return Row(name, theirs, ours, f"{most:g}x", median(ours) <= most * median(theirs))

    def make_image(self, size: str, *options: str) -> None:
        measure(["mke2fs", "-q", "-F", "-t", "ext3", *options, str(self.base), size])

    def both(self, wanted: str, *words: str, slow_runs: int | None = None) -> tuple[list[Run], list[Run]]:
        """Both resize copies of the image: resize2fs to ``wanted``, ours with ``words``."""
        path = shlex.quote(str(self.image))
        size = "" if wanted == "-M" else f" {wanted}"
        option = " -M" if wanted == "-M" else ""
        # Exit code 1 of e2fsck: repaired.
        script = f"{{ e2fsck -f -y {path} || [ $? -eq 1 ]; }} && resize2fs{option} {path}{size} && sync {path}"
        left, right = in_turn(
            self.runs,
            self.on_copy(lambda: measure(["sh", "-c", script])),
            self.on_copy(lambda: sifkit("overlay", "resize", *words, str(self.image))),
            slow_runs=slow_runs,
        )
        measure(["e2fsck", "-f", "-n", str(self.image)])
        self.image.unlink()
        self.base.unlink()
        return left, right

    def on_copy(self, work: Callable[[], Run]) -> Callable[[], Run]:
        """Return ``work`` with a new copy of the image, holes left out, made before."""

        def run() -> Run:
            self.image.unlink(missing_ok=True)
            measure(["cp", "--sparse=always", str(self.base), str(self.image)])
            return work()

        return run


def age(top: Path) -> int:
    """Delete every second file below a directory, then write large ones there; return the number of files that there were."""
    paths = sorted(path for path in top.rglob("*") if path.is_symlink() or path.is_file())
    for path in paths[::2]:
        path.unlink()
    for number in range(LARGE_FILES):
        random_file(top / f"large-{number}", LARGE_MIB)
    return len(paths)


@contextmanager
def mounted(image: Path, point: Path) -> Iterator[Path]:
    """Mount an image for the block, by the kernel."""
    point.mkdir(exist_ok=True)
    environment = {**os.environ, "PATH": SBIN}
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True, env=environment)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True, env=environment)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases and print the table; the exit code."""
    parser = case_parser("bench_resize", "e2fsck and resize2fs, and ours, in turn", CASES, runs=3, scratch="images go: 6 GiB")
    options = parser.parse_args(argv)
    if "shrink" in options.only.split(",") and os.geteuid() != 0:
        parser.error("shrink needs root; leave it out with --only")
    return run_cases(parser, options, CASES, "resize2fs", lambda scratch: Bench(options.runs, scratch))


if __name__ == "__main__":
    sys.exit(main())
