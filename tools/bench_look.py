"""How fast an image is listed and extracted, beside debugfs: both in turn, whole processes, the median of a few runs.

python tools/bench_look.py IMAGE [SCRATCH]
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 5


def timed(argv: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main(argv: list[str]) -> int:
    if not argv:
        print(__doc__)
        return 2
    image = argv[0]
    ours = [sys.executable, "-m", "sifkit"]
    times: dict[str, list[float]] = {"sifkit extract": [], "debugfs rdump": [], "sifkit ls -lR": []}
    with tempfile.TemporaryDirectory(dir=argv[1] if len(argv) > 1 else None) as scratch:
        out = Path(scratch, "out")
        for _ in range(RUNS):
            times["sifkit extract"].append(timed([*ours, "extract", image, str(out)]))
            shutil.rmtree(out)
            out.mkdir()
            times["debugfs rdump"].append(timed(["debugfs", "-R", f"rdump / {out}", image]))
            shutil.rmtree(out)
            times["sifkit ls -lR"].append(timed([*ours, "ls", "-lR", image]))
    middle = {name: statistics.median(found) for name, found in times.items()}
    for name, seconds in middle.items():
        print(f"{name:16} {seconds:.2f} s")
    print(f"extract / rdump  {middle['sifkit extract'] / middle['debugfs rdump']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
