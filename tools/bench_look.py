"""How fast an image is listed, extracted and exported, beside debugfs, ls and tar: in turn, whole processes, warm cache.

    python tools/bench_look.py IMAGE [--runs 5] [--seconds 60] [--scratch DIR]

IMAGE is an overlay: upper/ is what is exported, and what tar packs once it is extracted. Both write to a pipe, so that none of
them waits for the disk. Prints each time as it is taken, then medians and ratios. No further round begins that would not be
over after so many seconds, and a command that takes longer than that alone is ended. What is extracted goes to a memory
filesystem where it has room: on a disk it is the disk that is measured, and removing the files takes longer than all else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benching import SBIN, compile_packages

__all__ = ["main"]

MEMORY = Path("/dev/shm")
PIECE = 8 << 20

EXTRACT, RDUMP, EXPORT, TAR, OURS, LS = (
    "sifkit extract", "debugfs rdump", "sifkit export", "tar -c", "sifkit ls -lR", "ls -lR"
)  # fmt: skip
RATIOS = (
    ("extract / rdump", (EXTRACT,), (RDUMP,)),
    ("export / rdump and tar", (EXPORT,), (RDUMP, TAR)),
    ("export / tar of extracted files", (EXPORT,), (TAR,)),
    ("ls -lR / ls -lR of extracted files", (OURS,), (LS,)),
)


class Bench:
    """Runs commands and keeps their seconds; ``limit``: how many one of them may take."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.times: dict[str, list[float]] = {}

    def run(self, name: str, argv: Sequence[str], *, piped: bool = False) -> None:
        """``piped``: the output goes through a pipe (tar does not read files when it writes to /dev/null)."""
        begin = time.perf_counter()
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "PATH": SBIN},
            ) as process,
        ):
            try:
                if process.stdout is not None:
                    subprocess.run(["cat"], check=True, stdin=process.stdout, stdout=subprocess.DEVNULL, timeout=self.limit)
                process.wait(self.limit)
            except subprocess.TimeoutExpired:
                process.kill()
                raise SystemExit(f"{name}: not done after {self.limit:.0f} s") from None
            seconds = time.perf_counter() - begin
            if process.returncode:
                said.seek(0)
                lines = said.read().decode(errors="replace").splitlines()
                raise SystemExit(f"{name}: exit code {process.returncode}: {lines[-1] if lines else ''}")
        self.times.setdefault(name, []).append(seconds)
        print(f"  {name:16} {seconds:6.2f} s", flush=True)

    def report(self) -> None:
        middle = {name: statistics.median(found) for name, found in self.times.items()}
        print(f"medians of {max(map(len, self.times.values()))}")
        for name, seconds in middle.items():
            print(f"  {name:34} {seconds:6.2f} s")
        for what, ours, theirs in RATIOS:
            print(f"  {what:34} {sum(middle[name] for name in ours) / sum(middle[name] for name in theirs):6.2f}x")


def one_round(bench: Bench, image: str, scratch: Path) -> None:
    """Everything once, ours and theirs in turn."""
    sifkit = [sys.executable, "-m", "sifkit"]
    out = scratch / "out"
    bench.run(EXTRACT, [*sifkit, "extract", image, "-C", str(out)])
    bench.run(EXPORT, [*sifkit, "overlay", "export", image, "-o", "-"], piped=True)
    bench.run(TAR, ["tar", "-C", str(out / "upper"), "-c", "."], piped=True)
    bench.run(OURS, [*sifkit, "ls", "-lR", image])
    bench.run(LS, ["ls", "-lR", str(out)])
    shutil.rmtree(out)
    out.mkdir()
    bench.run(RDUMP, ["debugfs", "-R", f"rdump / {out}", image])
    shutil.rmtree(out)


def place(image: str, wanted: str | None) -> str | None:
    """The directory to extract into; None: where temporary files go."""
    if wanted is not None or not MEMORY.is_dir():
        return wanted
    needed = 2 * os.stat(image).st_size  # sparse images need less, and trees of tiny files a page each
    return str(MEMORY) if shutil.disk_usage(MEMORY).free > needed else None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("--runs", type=int, default=5, help="rounds at most")
    parser.add_argument("--seconds", type=float, default=60, help="how long it may take, about")
    parser.add_argument("--scratch", metavar="DIR", help="where to extract to")
    options = parser.parse_args(argv)
    image = os.path.abspath(options.image)
    compile_packages()
    bench = Bench(options.seconds)
    begin = time.perf_counter()
    with open(image, "rb") as file:
        while file.read(PIECE):  # the first to read it should not pay for all
            pass
    with tempfile.TemporaryDirectory(dir=place(image, options.scratch)) as scratch:
        print(f"{image}, {os.stat(image).st_blocks * 512 >> 20} MiB on disk, extracted below {scratch}", flush=True)
        longest = 0.0
        for number in range(1, options.runs + 1):
            start = time.perf_counter()
            if number > 1 and start - begin + longest > options.seconds:
                break
            print(f"round {number}", flush=True)
            one_round(bench, image, Path(scratch))
            longest = max(longest, time.perf_counter() - start)
    bench.report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
