"""Bench of `sifkit exec` against Apptainer: start-up in four modes as root and as a plain user, and work in an ext3 overlay.

python tools/bench_exec.py [--user NAME] [--runs N] [--only start,read,work]

Run it as root where `apptainer`, `mksquashfs` and `ldd` are in the PATH. Both sides run in turn, whole processes, on the same
container (a SIF with squashfs) and on images of the same kind. `--user`: who runs the plain user's half; he needs a home.
In a tree of another system, such as a chroot that holds Apptainer, run this script in the tree.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import pwd
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benching import ROOT, SBIN, compile_packages

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PROGRAMS = ("sh", "true", "cat")
LOWER_FILES, LARGE_BYTES = 400, 64 << 20
MODES = {
    "no overlay": ((), 1.25),
    "ext3 overlay": (("--overlay", "{image}"), 2.0),
    "ext3 overlay, read-only": (("--overlay", "{image}:ro"), 2.0),
    "--writable-tmpfs": (("--writable-tmpfs",), 2.0),
}
"""Mode of a start: its options, and the largest ratio that is good."""
WORK = """
import json, os, time
rates = {}
place = b"/opt/bench"
os.mkdir(place)
names = [b"%s/file%d" % (place, n) for n in range(2000)]
page = os.urandom(4096)
def rate(name, count, work):
    begin = time.perf_counter()
    work()
    rates[name] = count / (time.perf_counter() - begin)
def create():
    for name in names:
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(fd, page)
        os.close(fd)
def stat():
    for name in names:
        os.stat(name)
def read_small():
    for name in names:
        fd = os.open(name, os.O_RDONLY)
        os.read(fd, 8192)
        os.close(fd)
def unlink():
    for name in names:
        os.unlink(name)
block = os.urandom(1 << 20)
def write():
    fd = os.open(place + b"/large", os.O_CREAT | os.O_WRONLY)
    for _ in range(64):
        assert os.write(fd, block) == len(block)
    os.close(fd)
def fsync():
    fd = os.open(place + b"/log", os.O_CREAT | os.O_WRONLY)
    for _ in range(60):
        os.write(fd, page)
        os.fsync(fd)
    os.close(fd)
def create_fsync():
    for n in range(60):
        fd = os.open(b"%s/synced%d" % (place, n), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(fd, page)
        os.fsync(fd)
        os.close(fd)
def copy_up():
    for n in range(LOWER):
        fd = os.open(b"/data/file%d" % n, os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"more")
        os.close(fd)
rate("create 4 KiB files", 2000, create)
rate("stat", 2000, stat)
rate("read 4 KiB files", 2000, read_small)
rate("unlink", 2000, unlink)
rate("write, MiB", 64, write)
rate("write 4 KiB and fsync", 60, fsync)
rate("create and fsync", 60, create_fsync)
rate("copy-up", LOWER, copy_up)
print(json.dumps(rates))
"""
WORK = WORK.replace("LOWER", str(LOWER_FILES))
READ = """
import json, os, time
begin = time.perf_counter()
fd = os.open("/opt/bench/large", os.O_RDONLY)
while os.read(fd, 1 << 20):
    pass
print(json.dumps({"read, MiB, in the next run": 64 / (time.perf_counter() - begin)}))
"""
"""What was written before is read by a run of its own, in whose mounts nothing is cached."""
WORK_TARGETS = {"write 4 KiB and fsync": 0.5, "create and fsync": 0.5}
"""Least ratio of the rates that is good, where it is not 1."""
COPY_UPS = 300.0


@dataclass(frozen=True, slots=True)
class User:
    """User who runs a side. ``name``: for the table."""

    name: str
    uid: int
    gid: int
    home: str


class Bench:
    """Images and runs in one scratch directory."""

    def __init__(self, scratch: Path, runs: int) -> None:
        self.scratch = scratch
        self.runs = runs
        self.container = scratch / "base.sif"
        self.python = ""
        self._make_container()

    def _make_container(self) -> None:
        """Make a container of a shell, Python and 400 files for copy-ups."""
        root = self.scratch / "root"
        for name in ("bin", "data", "dev", "etc", "home", "opt/python/lib", "proc", "root", "sys", "tmp", "usr", "var/tmp"):
            (root / name).mkdir(parents=True)
        for name in PROGRAMS:
            self._copy_program(Path(shutil.which(name, path=SBIN) or name), root / "bin" / name, root)
        self._copy_program(Path(os.path.realpath(sys.executable)), root / "opt/python/python", root)
        found = "import json, os, time, sys; print(*(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)))"
        files = subprocess.run([sys.executable, "-I", "-S", "-c", found], capture_output=True, text=True, check=True).stdout
        standard = Path(os.__file__).parent
        version = standard.name
        for file in files.split():
            path = Path(file)
            target = root / "opt/python/lib" / version / path.relative_to(standard)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            if path.suffix == ".so":
                self._copy_libraries(path, root)
        shutil.copytree(standard / "encodings", root / "opt/python/lib" / version / "encodings", dirs_exist_ok=True)
        for number in range(LOWER_FILES):
            (root / f"data/file{number}").write_bytes(os.urandom(8192))
        program = Path(os.path.realpath(sys.executable)).read_bytes()
        (root / "data/large").write_bytes((program * (LARGE_BYTES // len(program) + 1))[:LARGE_BYTES])
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="ascii")
        (root / "etc/group").write_text("root:x:0:\n", encoding="ascii")
        subprocess.run(["chmod", "-R", "go+rX", root], check=True)
        image = self.scratch / "base.sqfs"
        subprocess.run(
            ["mksquashfs", root, image, "-quiet", "-no-progress", "-all-root"], check=True, stdout=subprocess.DEVNULL
        )
        self._sifkit("sif", "new", str(self.container))
        machine = ARCHITECTURES[platform.machine()]
        part = ("--parttype", "primsys", "--partarch", machine, "--group", "1")
        self._sifkit("sif", "add", *part, str(self.container), str(image))
        self.container.chmod(0o755)
        home = "LD_LIBRARY_PATH=/opt/python/lib PYTHONHOME=/opt/python PYTHONPLATLIBDIR=lib"
        self.python = f"{home} exec /opt/python/python -S -c "

    def _copy_program(self, program: Path, target: Path, root: Path) -> None:
        shutil.copy(program, target)
        self._copy_libraries(program, root)

    @staticmethod
    def _copy_libraries(file: Path, root: Path) -> None:
        """Copy what a program loads: the loader to its place, libraries to Python's."""
        listed = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+)(?= \(0x)", listed):
            name = os.path.basename(library)
            targets = [root / "opt/python/lib" / name]
            if "/lib" in library and not library.startswith(("/tmp", "/root", "/home")):
                targets.append(root / library.lstrip("/"))
            for target in targets:
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    shutil.copy(library, target)

    def _sifkit(self, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "sifkit", "-q", *words], check=True, env=environment)

    def overlay(self, user: User) -> Path:
        """Make an empty overlay of 500 MiB that belongs to a user."""
        image = self.scratch / f"{user.name}.img"
        self._sifkit("overlay", "create", "--force", "--size", "500M", "--owner", f"{user.uid}:{user.gid}", str(image))
        os.chown(image, user.uid, user.gid)
        return image

    def run(self, side: str, user: User, options: Sequence[str], *words: str) -> tuple[float, str]:
        """Run a command in the container; return seconds and output."""
        program = ["apptainer"] if side == "apptainer" else [sys.executable, "-m", "sifkit"]
        argv = [*program, "-q", "exec", *options, str(self.container), *words]
        if side == "sifkit":  # -q follows the verb, so that the quick parser takes it
            argv = [*program, "exec", "-q", *options, str(self.container), *words]
        environment = {**os.environ, "PATH": SBIN, "HOME": user.home, "USER": user.name, "PYTHONPATH": str(ROOT)}
        begin = time.perf_counter()
        done = subprocess.run(
            argv,
            env=environment,
            cwd=self.scratch,
            user=user.uid,
            group=user.gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - begin
        if done.returncode:
            raise RuntimeError(f"{user.name}: {' '.join(argv)[:300]}: exit {done.returncode}: {done.stderr[-2000:]}")
        return seconds, done.stdout

    def start(self, user: User, mode: str) -> bool:
        """Print the row of a start-up; return whether the ratio is good."""
        options, target = MODES[mode]
        image = self.overlay(user)
        words = [option.format(image=image) for option in options]
        return self._row(f"{user.name}: start, {mode}", user, words, ("true",), target)

    def read_image(self, user: User) -> bool:
        """Print the rows of reading the image itself; return whether the ratios are good."""
        commands = {
            "a file of 64 MiB": "cat /data/large >/dev/null",
            f"{LOWER_FILES} small files": "cat /data/file* >/dev/null",
        }
        rows = [self._row(f"{user.name}: read {what}", user, (), ("sh", "-c", text), 1.25) for what, text in commands.items()]
        return all(rows)

    def _row(self, name: str, user: User, options: Sequence[str], command: Sequence[str], target: float) -> bool:
        """Print the row of a whole process; return whether the ratio is good."""
        seconds: dict[str, list[float]] = {"apptainer": [], "sifkit": []}
        for number in range(self.runs + 1):
            for side, found in seconds.items():
                value, _ = self.run(side, user, options, *command)
                if number:  # the first fills the caches
                    found.append(value)
        theirs, ours = (statistics.median(found) for found in seconds.values())
        good = ours <= target * theirs
        print(
            f"| {name} | {theirs * 1000:.0f} ms | {ours * 1000:.0f} ms | {ours / theirs:.2f}x"
            f" | at most {target}x | {'yes' if good else 'NO'} |",
            flush=True,
        )
        return good

    def work(self, user: User) -> bool:
        """Print the rows of work in an ext3 overlay; return whether all ratios are good."""
        rates: dict[str, list[dict[str, float]]] = {"apptainer": [], "sifkit": []}
        for _ in range(max(1, self.runs // 5)):
            for side, found in rates.items():
                image = self.overlay(user)
                rate: dict[str, float] = {}
                for script in (WORK, READ):
                    _, out = self.run(side, user, ["--overlay", str(image)], "sh", "-c", f'{self.python}"$1"', "sh", script)
                    rate |= json.loads(out.splitlines()[-1])
                found.append(rate)
        good = True
        for name in rates["sifkit"][0]:
            theirs, ours = (statistics.median(one[name] for one in found) for found in rates.values())
            least = COPY_UPS / theirs if name == "copy-up" else WORK_TARGETS.get(name, 1.0)
            met = ours >= least * theirs
            wanted = f"{COPY_UPS:.0f} a second" if name == "copy-up" else f"at least {least}x"
            print(
                f"| {user.name}: {name} | {theirs:,.0f} /s | {ours:,.0f} /s | {ours / theirs:.2f}x"
                f" | {wanted} | {'yes' if met else 'NO'} |",
                flush=True,
            )
            good &= met
        return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench_exec.py", description=__doc__.splitlines()[0])
    parser.add_argument("--user", default="nobody", help="plain user (default nobody)")
    parser.add_argument("--runs", type=int, default=15, help="rounds; the median counts (default 15)")
    parser.add_argument("--only", default="start,read,work", help="parts, of start, read, work")
    parser.add_argument("--scratch", type=Path, help="directory that every user can reach (default /var/tmp)")
    options = parser.parse_args()
    for program in ("apptainer", "mksquashfs", "ldd"):
        if shutil.which(program, path=SBIN) is None:
            print(f"bench_exec.py: {program} is not installed", file=sys.stderr)
            return 2
    compile_packages()
    entry = pwd.getpwnam(options.user)
    root = User("root", 0, 0, "/root")
    user = User(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
    good = True
    with tempfile.TemporaryDirectory(prefix="sifkit-bench-", dir=options.scratch or "/var/tmp") as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        bench = Bench(scratch, options.runs)
        print("| case | apptainer | sifkit | ratio | target | met |\n|---|---|---|---|---|---|", flush=True)
        parts = options.only.split(",")
        if "start" in parts:
            for who in (root, user):
                for mode in MODES:
                    good &= bench.start(who, mode)
        if "read" in parts:
            good &= bench.read_image(user)
        if "work" in parts:
            good &= bench.work(user)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
