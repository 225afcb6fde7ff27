"""How fast an image is listed, extracted and exported, beside debugfs and tar: in turn, whole processes, medians of a few runs.

python tools/bench_look.py IMAGE [SCRATCH]

IMAGE is an overlay: upper/ is what is exported, and what tar packs once it is extracted. Both write to a pipe, so that none of
them waits for the disk.
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


def timed(argv: list[str], *, piped: bool = False) -> float:
    """Seconds; ``piped``: its output goes through a pipe (tar does not read files when it writes to /dev/null)."""
    start = time.perf_counter()
    if piped:
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            subprocess.run(["cat"], check=True, stdin=process.stdout, stdout=subprocess.DEVNULL)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, argv)
    else:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main(argv: list[str]) -> int:
    if not argv:
        print(__doc__)
        return 2
    image = argv[0]
    ours = [sys.executable, "-m", "sifkit"]
    names = ("sifkit extract", "debugfs rdump", "sifkit ls -lR", "sifkit export", "tar -c")
    times: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(dir=argv[1] if len(argv) > 1 else None) as scratch:
        out = Path(scratch, "out")
        for _ in range(RUNS):
            times["sifkit extract"].append(timed([*ours, "extract", image, str(out)]))
            times["sifkit export"].append(timed([*ours, "overlay", "export", image, "-o", "-"], piped=True))
            times["tar -c"].append(timed(["tar", "-C", str(out / "upper"), "-c", "."], piped=True))
            shutil.rmtree(out)
            out.mkdir()
            times["debugfs rdump"].append(timed(["debugfs", "-R", f"rdump / {out}", image]))
            shutil.rmtree(out)
            times["sifkit ls -lR"].append(timed([*ours, "ls", "-lR", image]))
    middle = {name: statistics.median(found) for name, found in times.items()}
    for name, seconds in middle.items():
        print(f"{name:16} {seconds:.2f} s")
    print(f"extract / rdump  {middle['sifkit extract'] / middle['debugfs rdump']:.2f}")
    print(f"export / rdump   {middle['sifkit export'] / middle['debugfs rdump']:.2f}")
    print(f"export / tar     {middle['sifkit export'] / middle['tar -c']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
