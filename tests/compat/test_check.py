"""``sifkit check`` on images that the kernel uses at the time, alone and in a SIF."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifkit.overlay.checks.image_check import check_image
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.embedding.in_partition import embed
from sifkit.overlay.options import CreateOptions
from sifkit.sif import SIF

from ..support.tiny_squashfs import tiny_sif
from ..support.tools import assert_clean, kernel_mount

pytestmark = [pytest.mark.compat, pytest.mark.root]


@pytest.mark.parametrize("kind", ["file", "sif"])
def test_a_mounted_overlay_is_good_and_in_use(tmp_path: Path, kind: str) -> None:
    path, offset = tmp_path / "o.img", 0
    options = CreateOptions(size=16 << 20)
    if kind == "sif":
        path = tiny_sif(tmp_path / "a.sif", signatures=0)
        with SIF.open(path, "r+") as sif:
            sif.delete(2)
        embed(path, options)
        with SIF.open(path) as sif:
            offset = sif.overlays[0].offset
    else:
        create(path, options)
    with kernel_mount(path, rw=True, offset=offset) as point:
        (point / "upper" / "file").write_bytes(b"x" * 5000)
        used = check_image(path)
        assert used.in_use and any("in use: mounted at " in note for note in used.notes)
    result = check_image(path)
    assert result.good and not result.in_use and not result.notes and result.parts[-1].inodes == 14
    assert_clean(path, offset, size=16 << 20)
