"""Which filesystem is meant in an image: of a partition, at an offset, or the whole file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifkit.errors import FormatError, UsageError
from sifkit.overlay import (
    CreateOptions,
    ResizeOptions,
    ResizeTarget,
    create,
    embed,
    normalize,
    open_for_check,
    rebuild,
    resize,
)
from sifkit.overlay.edit.edit_session import edit_image
from sifkit.overlay.images.opening import open_window
from sifkit.overlay.images.sif_partition import filesystem_place
from sifkit.sif import SIF


@pytest.fixture
def images(tmp_path: Path) -> tuple[str, str]:
    """An overlay, and a SIF with it."""
    overlay, sif = str(tmp_path / "o.img"), str(tmp_path / "o.sif")
    create(overlay, CreateOptions(size=8 << 20))
    with SIF.create(sif):
        pass
    embed(sif, CreateOptions(size=8 << 20))
    return overlay, sif


def test_by_default_the_whole_file_or_the_overlay(images: tuple[str, str]) -> None:
    overlay, sif = images
    assert filesystem_place(overlay, None, None) == (None, None)
    assert filesystem_place(overlay, None, 0) == (None, 0)
    assert filesystem_place(sif, None, None) == ("overlay", None)
    assert filesystem_place(sif, "1", None) == ("1", None)
    with SIF.open(sif) as opened:
        assert filesystem_place(sif, None, opened.get(1).offset) == ("1", None)


def test_places_that_no_image_has(images: tuple[str, str]) -> None:
    overlay, sif = images
    with pytest.raises(UsageError, match="not a SIF"):
        filesystem_place(overlay, "overlay", None)
    with pytest.raises(UsageError, match="both say"):
        filesystem_place(sif, "1", 0)
    with pytest.raises(FormatError, match="no partition begins"):
        filesystem_place(sif, None, 5)


def test_a_squashfs_is_refused_in_the_same_words_by_all(tmp_path: Path) -> None:
    image = tmp_path / "root.sqfs"
    image.write_bytes(b"hsqs" + bytes(4092))
    before = image.read_bytes()
    grown = ResizeOptions(target=ResizeTarget(size=16 << 20))
    for use in (
        lambda: open_window(image).__enter__(),
        lambda: edit_image(image).__enter__(),
        lambda: open_for_check(image, writes=False).__enter__(),
        lambda: resize(image, grown),
        lambda: rebuild(image),
        lambda: normalize(image),
    ):
        with pytest.raises(FormatError, match=r"root\.sqfs is a squashfs image, not ext3"):
            use()
    assert image.read_bytes() == before
