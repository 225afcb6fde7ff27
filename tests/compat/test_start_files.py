"""Files that a start of ``sifkit exec`` opens: few, since a job starts it a thousand times from one network filesystem.

What PYTHONPATH holds is not loaded, and variables for the container have no effect outside.
"""

from __future__ import annotations

import os
import re
import subprocess
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
NO_FILES = ("/proc/", "/sys/", "/dev/")
"""Directories of files that the kernel makes up."""


def opened_files(trace: Path, command: str) -> dict[str, set[str]]:
    """Return the regular files that each process opened before ``command`` was executed, but those of the session's own memory.

    The first process is the one that was started. A module counts once, whether it was compiled before or not.
    """
    found: dict[str, set[str]] = {}
    place = "/srv/session"
    for line in trace.read_text(errors="replace").splitlines():
        if f'execve("{command}"' in line:
            return found
        match = OPENED.search(line)
        if match and "O_DIRECTORY" not in match["flags"] and not match["path"].startswith((*NO_FILES, place)):
            found.setdefault(line.split()[0], set()).add(COMPILED.sub(r"\1.py", match["path"]))
    raise AssertionError("the command was not executed")


@pytest.mark.parametrize(("uid", "has_overlay"), [(0, False), (USER, False), (USER, True)])
def test_few_files_are_opened(uid: int, *, has_overlay: bool) -> None:
    """With an ext3 overlay, a plain user's server of it opens as few, and no process loads numpy."""
    require("strace")
    with user_directory(USER) as directory:
        root = write_program_tree(directory / "root")
        image = sif_of(directory / "base.sif", make_squashfs(root, directory / "root.sqfs"))
        image.chmod(0o755)
        foreign = directory / "foreign"
        for name in SHADOWED:
            (foreign / name).parent.mkdir(parents=True, exist_ok=True)
            (foreign / name).write_text("raise SystemExit('a module of PYTHONPATH was loaded')\n")
        overlay = directory / "overlay.img"
        if has_overlay:
            code, _, errors = run_sifkit(uid, directory, "overlay", "create", "--size", "16M", "overlay.img")
            assert code == 0, errors
        program, path = program_for(uid)
        trace = directory / "trace"
        names = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONPLATLIBDIR", "LD_LIBRARY_PATH")
        for_container = {f"APPTAINERENV_{name}": str(foreign) for name in names}
        words = ("--overlay", overlay) if has_overlay else ()
        traced = ("strace", "-f", "-qq", "-o", trace, "-e", "trace=open,openat,execve")
        done = subprocess.run(
            [*traced, program, "-c", "from sifkit.cli import run; run()", "exec", *words, image, "cat", "/etc/group"],
            cwd="/",
            env={
                "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
                "HOME": str(directory),
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
        together = set().union(*found.values())
        assert not [name for name in together if name.startswith(os.fspath(foreign)) or "/numpy/" in name]
        _, *helpers = found.values()
        for files in helpers if has_overlay else (together,):
            assert len(files) <= MOST_FILES, sorted(files)
