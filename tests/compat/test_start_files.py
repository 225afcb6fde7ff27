"""Files that a start of ``sifkit exec`` opens: few, since a job starts it a thousand times from one network filesystem.

What PYTHONPATH holds is not loaded, and variables for the container have no effect outside.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import sif_of
from tests.support.plain_user import USER, program_for, run_sifkit, user_directory
from tests.support.program_tree import write_program_tree
from tests.support.squashfs_images import make_squashfs
from tests.support.tools import require, requires_root

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

MOST_FILES = 150
SHADOWED = ("numpy/__init__.py", "json/__init__.py", "ctypes.py", "signal.py", "struct.py", "zlib.py", "threading.py")
OPENED = re.compile(r'open(?:at)?\((?:AT_FDCWD, )?"(?P<path>[^"]+)", (?P<flags>[A-Z_|]+).* = \d+')
COMPILED = re.compile(r"__pycache__/(\w+)\.cpython-\d+\.pyc(\.\d+)?$")
NO_FILES = ("/proc/", "/sys/", "/dev/", "/srv/session", "/mnt/")
"""Directories of files that the kernel makes up, and of memory that the run and its probe of the host mount for themselves."""
UNFINISHED = " <unfinished ...>"


def whole_calls(trace: Path) -> Iterator[tuple[str, str]]:
    """Yield process and call of each line of a trace. What another process has interrupted is joined again."""
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        process, _, call = line.partition(" ")
        if call.endswith(UNFINISHED):
            begun[process] = call.removesuffix(UNFINISHED)
        elif " resumed>" in call:
            yield process, begun.pop(process, "") + call.partition(" resumed>")[2]
        else:
            yield process, call.lstrip()


def opened_files(trace: Path, command: str) -> list[set[str]]:
    """Return the regular files that each process opened, until it became ``command``. A module counts once, compiled or not."""
    found: dict[str, set[str]] = {}
    commands = set()
    for process, call in whole_calls(trace):
        if call.startswith(f'execve("{command}"'):
            commands.add(process)
        match = OPENED.search(call)
        if match and process not in commands and "O_DIRECTORY" not in match["flags"] and not match["path"].startswith(NO_FILES):
            found.setdefault(process, set()).add(COMPILED.sub(r"\1.py", match["path"]))
    assert len(commands) == 1
    return list(found.values())


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A plain user's directory with an image, an overlay image, a directory for an overlay, and modules that nobody loads."""
    with user_directory(USER) as directory:
        root = write_program_tree(directory / "root")
        sif_of(directory / "base.sif", make_squashfs(root, directory / "root.sqfs")).chmod(0o755)
        for name in SHADOWED:
            (directory / "foreign" / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / "foreign" / name).write_text("raise SystemExit('a module of PYTHONPATH was loaded')\n")
        code, _, errors = run_sifkit(USER, directory, "overlay", "create", "--size", "16M", "overlay.img")
        assert code == 0, errors
        (directory / "layer").mkdir()
        os.chown(directory / "layer", USER, USER)
        yield directory


@pytest.mark.parametrize(
    ("uid", "words", "most_of_all"),
    [
        (0, (), 125),
        (0, ("--overlay", "overlay.img"), 135),
        (USER, (), 160),
        (USER, ("--overlay", "overlay.img"), 250),
        (USER, ("--overlay", "overlay.img:ro"), 210),
        (USER, ("--overlay", "layer"), 175),
        (USER, ("--writable-tmpfs",), 170),
    ],
)
def test_few_files_are_opened(place: Path, uid: int, words: tuple[str, ...], most_of_all: int) -> None:
    """By each process, and by all together: a forked one has what the other had loaded. None of them loads numpy."""
    require("strace")
    foreign = place / "foreign"
    program, path = program_for(uid)
    trace = place / "trace"
    names = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONPLATLIBDIR", "LD_LIBRARY_PATH")
    for_container = {f"APPTAINERENV_{name}": str(foreign) for name in names}
    traced = ("strace", "-f", "-qq", "-o", trace, "-e", "trace=open,openat,execve")
    done = subprocess.run(
        [*traced, program, "-c", "from sifkit.cli import run; run()", "exec", *words, "base.sif", "cat", "/etc/group"],
        cwd=place,
        env={
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(place),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": f"{path}:{foreign}",
            **for_container,
        },
        user=uid,
        group=uid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("root:x:0:")
    found = opened_files(trace, "/bin/cat")
    trace.unlink()
    loaded = set().union(*found)
    assert not [name for name in loaded if name.startswith(os.fspath(foreign)) or "/numpy/" in name]
    for files in found:
        assert len(files) <= MOST_FILES, sorted(files)
    assert sum(map(len, found)) <= most_of_all, [sorted(files) for files in found]
