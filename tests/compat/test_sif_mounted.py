"""What the kernel has mounted is not pulled from under it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from sifkit.sif import SIF, DataType, FSType, PartType

from ..support.sif_images import STAMP, partition
from ..support.tools import kernel_mount, requires_root

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: object) -> tuple[int, str]:
        code = main(["sif", *map(str, argv)])
        return code, capfd.readouterr().err

    return call


def image_with_overlay(directory: Path) -> tuple[Path, int]:
    """An image with an overlay, object 1, and something that may be repaired and compacted; and where the overlay begins."""
    path, overlay = directory / "image.sif", directory / "overlay.img"
    create(overlay, CreateOptions(size=16 << 20))
    with SIF.create(path, stamp=STAMP) as sif:
        found = sif.add(overlay, DataType.PARTITION, metadata=partition(PartType.OVERLAY, FSType.EXT3))
        sif.add(b"more", DataType.GENERIC)
    raw = bytearray(path.read_bytes())
    raw[200] = 1  # between header and table, where nothing is
    path.write_bytes(raw)
    return path, found.offset


@requires_root
def test_a_mounted_overlay_stays_where_it_is(scratch: Path, run: Run) -> None:
    path, offset = image_with_overlay(scratch)
    with kernel_mount(path, rw=True, offset=offset) as point:
        before = path.read_bytes()[:4096]
        for argv in (
            ["del", 1, path],
            ["replace", 1, path, scratch / "overlay.img"],
            ["compact", "--capacity", 60, path],
            ["check", "--repair", path],
        ):
            code, err = run(*argv)
            assert code == (8 if argv[0] == "check" else 1)
            assert "is in use: mounted at" in err and os.fspath(point) in err
        assert path.read_bytes()[:4096] == before
        assert run("del", 2, path)[0] == 0
    assert run("check", "--repair", path)[0] == 1
    assert run("compact", "--capacity", 60, path)[0] == 0
    assert run("del", 1, path)[0] == 0


@requires_root
def test_what_is_mounted_to_be_read_may_be_copied_elsewhere(scratch: Path, run: Run) -> None:
    path, offset = image_with_overlay(scratch)
    with kernel_mount(path, offset=offset) as point:
        assert run("del", 1, path)[0] == 1
        code, err = run("compact", "--capacity", 60, path)
        assert code == 0 and f"the old image is still mounted at {point}" in err
        assert sorted(os.listdir(point)) == ["lost+found", "upper", "work"]
    with SIF.open(path) as sif:
        assert sif.capacity == 60
