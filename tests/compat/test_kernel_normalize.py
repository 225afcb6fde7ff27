"""Random overlays, normalized, as the kernel's overlayfs shows them: to root, and in a user namespace, as to a plain user."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from ext3 import Filesystem
from ext3.edit.filesystem import WritableFilesystem
from sifkit.cli import main
from sifkit.overlay.marks.normalizing import NormalizeOptions, normalize
from sifkit.overlay.view.tree_opening import upper_directory
from sifkit.vfs.file_tree import DIRECTORY
from sifkit.vfs.walk import walk

from ..support.memory_tree import MemoryTree
from ..support.overlay_views import make_upper, random_base, random_upper, seen
from ..support.tools import assert_clean, kernel_mount, missing, overlay_mount, require, run

pytestmark = [pytest.mark.compat, pytest.mark.root]

SEEDS = (3, 17)


def to_host(tree: MemoryTree, top: Path) -> None:
    """Create a tree of directories and files in the directory ``top``."""
    top.mkdir()
    for walked in walk(tree, tree.root):
        path = top / os.fsdecode(walked.path)
        path.mkdir() if walked.row.file_type == DIRECTORY else path.touch()


def make(seed: int, directory: Path) -> tuple[Path, Path, set[bytes]]:
    """An image with a random layer, its base as a directory, and the paths that whoever wrote the layer saw."""
    require("e2fsck", "mount")
    chance = random.Random(seed)
    image, lower = directory / "a.img", directory / "lower"
    assert main(["-q", "overlay", "create", "--size", "8M", str(image)]) == 0
    with Filesystem.open(image, "r+") as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.rmdir("/upper")
        make_upper(fs, random_upper(chance))
        base = random_base(chance)
        paths = set(seen(upper_directory(fs), base, "writer"))
    to_host(base, lower)
    return image, lower, paths


def listed(top: Path) -> set[bytes]:
    """All paths below a directory; each is there."""
    found = set()
    for above, below, names in os.walk(os.fsencode(top)):
        for name in below + names:
            path = os.path.join(above, name)
            os.lstat(path)
            found.add(path.removeprefix(os.fsencode(top)))
    return found


def listed_as_a_user(lower: Path, image: Path, point: Path) -> set[bytes]:
    """The paths in a read-only overlay of a user namespace, which knows no trusted xattrs."""
    require("unshare", "find")
    with kernel_mount(image) as mounted:
        mount = f"mount -t overlay overlay -o ro,lowerdir={mounted}/upper:{lower} {point}"
        words = f"{mount} && cd {point} && find . -mindepth 1 -print0"
        done = run("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", words, ok=range(256))
    if done.returncode:
        missing(f"no overlay mount in a user namespace: {done.stderr.decode()}")
    return {name[1:] for name in done.stdout.split(b"\0") if name}


@pytest.mark.parametrize("seed", SEEDS)
def test_with_a_base(tmp_path: Path, seed: int) -> None:
    image, lower, paths = make(seed, tmp_path)
    point = tmp_path / "point"
    point.mkdir()
    assert listed_as_a_user(lower, image, point) != paths
    normalize(image, NormalizeOptions(base=lower))
    assert_clean(image)
    assert listed_as_a_user(lower, image, point) == paths
    with overlay_mount(lower, image, point) as merged:
        assert listed(merged) == paths
    assert normalize(image, NormalizeOptions(base=lower)).unchanged


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_base(tmp_path: Path, seed: int) -> None:
    """Root sees what the writer saw, and whiteouts where nothing is below as names that are not there."""
    image, lower, paths = make(seed, tmp_path)
    normalize(image)
    assert_clean(image)
    with overlay_mount(lower, image, tmp_path / "point") as merged:
        found = {path for path in map(os.fsencode, merged.rglob("*")) if os.path.lexists(path)}
        assert {path.removeprefix(os.fsencode(merged)) for path in found} == paths
