"""A small container for the README's story: a SIF image with a shell, a few programs, and a stand-in for micromamba.

python tools/story_container.py IMAGE.sif

The programs are this host's. The root filesystem is ext3, made by sifkit, so that no mksquashfs is needed. The stand-in makes
the directories and files of a small environment at the path that `create -p PATH` names, with a `python` that prints a version.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = ("cat", "chmod", "dd", "df", "id", "ls", "mkdir", "rm", "sh", "sleep", "touch", "true")
DIRECTORIES = ("dev", "etc", "home", "opt", "proc", "root", "sys", "tmp", "usr/bin", "var/tmp")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "riscv64": "riscv64", "s390x": "s390x"}
MICROMAMBA = """#!/bin/sh
# Stand-in: micromamba create ... -p PATH ...
while [ $# -gt 0 ]; do
  [ "$1" != -p ] || prefix=$2
  shift
done
mkdir -p "$prefix/bin" "$prefix/conda-meta" "$prefix/lib/python3.12"
for n in 1 2 3 4 5 6 7 8 9; do echo "value = $n" >"$prefix/lib/python3.12/module$n.py"; done
echo 'echo Python 3.12' >"$prefix/bin/python"
chmod 755 "$prefix/bin/python"
touch "$prefix/conda-meta/history"
"""


def fill(root: Path) -> None:
    """Fill the directory `root` with programs of this host and the libraries they load."""
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "bin").mkdir()
    for name in PROGRAMS:
        program = shutil.which(name)
        if program is None:
            sys.exit(f"{name}: not found on this host")
        shutil.copy(program, root / "bin" / name)
        libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+)(?= \(0x)", libraries):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy(library, target)
    (root / "bin" / "micromamba").write_text(MICROMAMBA, encoding="utf-8")
    (root / "bin" / "micromamba").chmod(0o755)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="ascii")
    (root / "etc" / "group").write_text("root:x:0:\n", encoding="ascii")


def pack(root: Path, image: str) -> None:
    """Make the SIF image `image` of the directory `root`."""
    sifkit = (sys.executable, "-m", "sifkit", "-q")
    architecture = ARCHITECTURES[platform.machine()]
    with tempfile.TemporaryDirectory() as scratch:
        filesystem = f"{scratch}/root.img"
        commands = (
            ("overlay", "create", "--layout", "data", "--owner", "0:0", "--from-dir", str(root), filesystem),
            ("sif", "new", "--force", image),
            ("sif", "add", "--parttype", "primsys", "--partarch", architecture, "--group", "1", image, filesystem),
        )
        for command in commands:
            subprocess.run([*sifkit, *command], check=True)


def main(image: str) -> None:
    """Make the SIF image `image`."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        root.mkdir(mode=0o755)
        fill(root)
        pack(root, image)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
