"""Root of a container with programs of this host: a shell, a few tools, and the libraries they need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from .tools import find, missing

__all__ = ["write_program_tree"]

PROGRAMS = ("sh", "cat", "ls", "mkdir", "touch", "rm", "id", "env", "sleep", "mv", "dd", "stty")
DIRECTORIES = ("dev", "etc", "home", "opt", "proc", "root", "sys", "tmp", "var/tmp")
PASSWD = "root:x:0:0:root:/root:/bin/sh\n"


def write_program_tree(root: Path) -> Path:
    """Write the tree; return its path. Skips the test if the host has no such programs."""
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "bin").mkdir()
    for name in PROGRAMS:
        program = find(name)
        if program is None or find("ldd") is None:
            missing(f"{name} or ldd is not installed")
        assert program is not None
        shutil.copy(os.path.realpath(program), root / "bin" / name)
        needed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", needed):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(library), target)
    return root
