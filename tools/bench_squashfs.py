"""Squashfs images beside unsquashfs: whole processes in turn on the same image, in one run.

    python tools/bench_squashfs.py [--runs 5] [--only extract,list,check,reads,memory] [--image FILE] [--compressor gzip]

The image has about 60,000 files of /usr, or is ``--image``. What is extracted goes to a memory filesystem: on a disk it is the
disk that is measured. ``check`` reads everything, as unsquashfs does that writes it there. ``reads``: 4 KiB at random places of
the largest files, beside the bare decompression of the same blocks. ``memory``: PSS of a reader that listed all directories and
did these reads, beside an idle Python, in MiB. Needs squashfs-tools; nothing else on the machine should be busy.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from bench import assemble
from benching import MIB, ROOT, Row, Run, case_parser, in_turn, measure, median, run_cases
from benching import sifkit as run_sifkit

__all__ = ["main"]

CASES = ("extract", "list", "check", "reads", "memory")
MEMORY = Path("/dev/shm")
PROCESSORS = "2"
READ_ALONE = """
import json, os, random, sys, time
from pathlib import Path
def pss():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
before = pss()
from sifkit.squashfs.reader import Reader
from sifkit.squashfs.data_blocks import stored_bytes
from sifkit.squashfs.file_data import BlockList
with Reader.open(sys.argv[1]) as reader:
    unit, largest, pending = reader.superblock.block_size, [], [reader.root]
    while pending:
        for listing in reader.scan_many([pending.pop()]):
            pending += [row.node for row in listing.rows if row.file_type == 2]
            largest += [(row.stat.size, row.node) for row in listing.rows if row.file_type == 1]
        largest = sorted(largest)[-40:]
    numbers = random.Random(1)
    places = []
    for size, node in largest:
        file, blocks = reader.open_file(node), BlockList(reader.inodes.table, reader.inode(node))
        for _ in range(min(2400 // len(largest), blocks.count)):
            number = numbers.randrange(blocks.count)
            start, word = blocks.at(number)
            if word and not word >> 24:
                places.append((file, number * unit + numbers.randrange(unit), start, stored_bytes(word)))
    numbers.shuffle(places)
    for _ in range(2):  # the second time counts
        begin = time.perf_counter()
        for _, _, start, size in places:
            reader.inflate(os.pread(reader.source.fd, size, start), unit)
        middle = time.perf_counter()
        for file, offset, _, _ in places:
            file.read_at(offset, 4096)
        ours = time.perf_counter() - middle
        bare = middle - begin
    for _, node in largest[-3:]:
        with reader.open_file(node) as file:
            at = 0
            while piece := file.read_at(at, 4 << 20):
                at += len(piece)
    print(json.dumps({"bare": bare, "ours": ours, "before": before, "after": pss()}))
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
        image = self.scratch / "real.sqfs"
        measure(["mksquashfs", str(tree), str(image), "-quiet", "-no-progress", "-comp", self.options.compressor])
        shutil.rmtree(tree)
        return image

    @cached_property
    def alone(self) -> list[dict[str, float]]:
        """What a process that reads it found, once for each run."""
        command = [sys.executable, "-c", READ_ALONE, str(self.image)]
        done = [subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout for _ in range(self.options.runs)]
        return [json.loads(output) for output in done]

    def extract(self) -> Row:
        theirs, ours = self.beside_unsquashfs(lambda out: run_sifkit("extract", str(self.image), "-C", out))
        return Row("extract", theirs, ours, "1.5x", median(ours) / median(theirs) <= 1.5)

    def check(self) -> Row:
        theirs, ours = self.beside_unsquashfs(lambda _: run_sifkit("check", str(self.image)))
        met = median(ours) / median(theirs) <= 1.2
        return Row("check, unsquashfs unpacks", theirs, ours, "1.2x", met, _peak(ours))

    def beside_unsquashfs(self, work: Callable[[str], Run]) -> tuple[list[Run], list[Run]]:
        """Unsquashfs, which unpacks the image, and ``work``, in turn; each has a directory to write to."""

        def fresh(work: Callable[[str], Run]) -> Run:
            with tempfile.TemporaryDirectory(dir=MEMORY) as out:
                return work(f"{out}/out")

        def unsquashfs(out: str) -> Run:
            return measure(["unsquashfs", "-q", "-n", "-processors", PROCESSORS, "-d", out, str(self.image)])

        return in_turn(self.options.runs, lambda: fresh(unsquashfs), lambda: fresh(work))

    def list(self) -> Row:
        theirs, ours = in_turn(
            self.options.runs,
            lambda: measure(["unsquashfs", "-lln", str(self.image)]),
            lambda: run_sifkit("ls", "-lR", str(self.image)),
        )
        return Row("ls -lR", theirs, ours, "1 s", median(ours) <= 1, _peak(ours))

    def reads(self) -> Row:
        bare = [Run(one["bare"], 0) for one in self.alone]
        ours = [Run(one["ours"], 0) for one in self.alone]
        met = median(bare) / median(ours) >= 0.8
        return Row("random 4 KiB, bare codec", bare, ours, "1.25x", met)

    def memory(self) -> Row:
        before = [Run(one["before"] / MIB, 0) for one in self.alone]
        after = [Run(one["after"] / MIB, 0) for one in self.alone]
        more = median(after) - median(before)
        return Row("PSS in MiB, idle Python", before, after, "30 MiB more", more <= 30, f"{more:.1f} MiB more")


def _peak(runs: Sequence[Run]) -> str:
    return f"peak {max(run.peak for run in runs) / MIB:.0f} MiB"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases and print the table; the exit code."""
    parser = case_parser("bench_squashfs", "unsquashfs and sifkit in turn", CASES, runs=5, scratch="the image goes: 2 GiB")
    parser.add_argument("--image", help="a squashfs image")
    parser.add_argument("--compressor", default="gzip", help="of the image that is made (default gzip)")
    options = parser.parse_args(argv)
    return run_cases(parser, options, CASES, "unsquashfs", lambda scratch: Bench(options, scratch))


if __name__ == "__main__":
    sys.exit(main())
