"""UnionTree and a kernel overlayfs mount of the same layers show the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sifkit.vfs.host_tree import HostTree
from sifkit.vfs.union import UnionTree

from ..support.layers import Folder, build_layer, facts_of_mount, facts_of_tree, folders
from ..support.tools import missing, run, why_no_mount

pytestmark = [pytest.mark.compat, pytest.mark.root]


@contextmanager
def mounted(layers: Sequence[Path], options: str = "", *, upper: bool = False) -> Iterator[Path]:
    """Mount layers, the lowest first; with ``upper`` the highest is writable."""
    reason = why_no_mount()
    if reason:
        missing(reason)
    point, work = layers[0].parent / "merged", layers[0].parent / "work"
    point.mkdir()
    work.mkdir()
    lower = layers[:-1] if upper else layers
    words = "lowerdir=" + ":".join(str(layer) for layer in reversed(lower))
    if upper:
        words += f",upperdir={layers[-1]},workdir={work},volatile"  # unmounting would sync all that the host wrote
    run("mount", "-t", "overlay", "overlay", "-o", words + options, point)
    try:
        yield point
    finally:
        run("umount", point)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(folders(xattr_whiteouts=False), st.lists(folders(), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_random_layers(lowest: Folder, others: list[Folder], user: bool, upper: bool) -> None:
    prefix, options = (b"user.overlay.", ",userxattr") if user else (b"trusted.overlay.", "")
    with tempfile.TemporaryDirectory() as scratch:
        paths = [build_layer(layer, Path(scratch, str(number)), prefix) for number, layer in enumerate([lowest, *others])]
        found = facts_of_tree(UnionTree([HostTree(path) for path in paths]))
        with mounted(paths, options, upper=upper) as point:
            assert found == facts_of_mount(point)


def test_redirects_and_metacopies_of_the_kernel(tmp_path: Path) -> None:
    """Three sessions, each over the layers of those before, rename and change what lower layers have."""
    layers = [tmp_path / name for name in ("0", "1", "2", "3")]
    for layer in layers:
        layer.mkdir()
    for name in ("d/e/f/x", "d/y", "meta", "moved", "keep/z"):
        (layers[0] / name).parent.mkdir(parents=True, exist_ok=True)
        (layers[0] / name).write_text("lower " * 1000 + name)
    options = ",metacopy=on,redirect_dir=on"

    def session(count: int, *renames: tuple[str, str]) -> None:
        with mounted(layers[:count], options, upper=True) as point:
            for old, new in renames:
                (point / new).parent.mkdir(exist_ok=True)
                (point / old).rename(point / new)
            (point / "meta").chmod(0o600 + count)
            os.chown(point / "keep", count, count)
        for name in ("merged", "work"):
            shutil.rmtree(tmp_path / name)

    session(2, ("d", "d2"), ("moved", "keep/moved"), ("d2/e/f", "d2/e/g"))
    session(3, ("d2/e", "new/e"), ("keep/moved", "moved again"), ("d2", "d3"))
    session(4, ("new/e/g", "new/e/h"), ("new", "newer"))
    found = facts_of_tree(UnionTree([HostTree(layer) for layer in layers]))
    assert {b"newer/e/h/x", b"d3/y", b"meta", b"moved again", b"keep/z"} <= found.keys()
    for option in (options, options + ",index=off"):
        with mounted(layers, option) as point:
            assert found == facts_of_mount(point)
        for name in ("merged", "work"):
            shutil.rmtree(tmp_path / name)
