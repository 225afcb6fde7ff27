"""UnionTree and a kernel overlayfs mount of the same layers show the same."""

from __future__ import annotations

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
        words += f",upperdir={layers[-1]},workdir={work}"
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
