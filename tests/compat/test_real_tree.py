"""A large tree of real files, put into an image by the kernel: every file is the same through us, the kernel and debugfs."""

from __future__ import annotations

import hashlib
import os
import shutil
import sysconfig
from pathlib import Path

import pytest

import ext3
from ext3.constants import FileType

from ..support.tools import kernel_mount, require, run

SOURCE = Path(os.environ.get("SIFKIT_REAL_TREE") or sysconfig.get_paths()["stdlib"])
"""Python's own library, unless told otherwise."""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests(top: Path) -> dict[bytes, str]:
    """Path -> digest of content or target of what lies below a directory of the host."""
    found = {}
    root = os.fsencode(top)
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                found[os.path.relpath(path, root)] = digest(os.readlink(path))
            elif os.path.isfile(path):
                found[os.path.relpath(path, root)] = digest(Path(os.fsdecode(path)).read_bytes())
    return found


@pytest.mark.root
@pytest.mark.parametrize("block_size", [1024, 4096])
def test_every_file_three_ways(block_size: int, scratch: Path) -> None:
    require("mke2fs", "debugfs")
    image, out = scratch / "image", scratch / "out"
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", str(block_size), "-N", "120000", image, "2G")
    with kernel_mount(image, rw=True) as point:
        shutil.copytree(SOURCE, point / "tree", symlinks=True, ignore=shutil.ignore_patterns("site-packages", "__pycache__"))
        kernel = digests(point / "tree")
    assert len(kernel) > 500
    out.mkdir()
    run("debugfs", "-R", f"rdump /tree {out}", image)
    assert digests(out / "tree") == kernel
    ours = {}
    with ext3.Filesystem.open(image) as fs:
        for path, entry in fs.walk("/tree"):
            if entry.file_type is FileType.REGULAR:
                ours[path] = digest(fs.read_bytes(entry.ino))
            elif entry.file_type is FileType.SYMLINK:
                ours[path] = digest(fs.readlink(entry.ino))
    assert ours == kernel
