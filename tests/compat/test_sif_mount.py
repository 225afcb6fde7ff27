"""Overlays inside SIF images, judged by the kernel: they mount at their place, wherever that is and whatever was there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from sifkit.sif import SIF, DataType, Descriptor, FSType, PartType
from sifkit.sif.checking import check_file
from sifkit.sif.compacting import compact

from ..support.sif_images import partition, sample_image
from ..support.tools import assert_clean, kernel_mount, requires_root, run

SIZE = 16 << 20
OVERLAY = partition(PartType.OVERLAY, FSType.EXT3)


def overlay_file(directory: Path, maker: str) -> Path:
    """A small ext3 image with a file in it."""
    path = directory / f"{maker}.img"
    source = directory / f"{maker}.d"
    (source / "upper").mkdir(parents=True)
    (source / "work").mkdir()
    (source / "upper" / "hello").write_bytes(b"hello from the overlay\n")
    if maker == "sifkit":
        create(path, CreateOptions(size=SIZE, from_dir=source))
    else:
        with path.open("wb") as file:
            file.truncate(SIZE)
        run("mke2fs", "-q", "-F", "-t", "ext3", "-d", source, path)
    return path


def assert_works(image: Path, descriptor: Descriptor, scratch: Path) -> None:
    """The kernel reads and writes the partition in place; taken out it is clean."""
    with kernel_mount(image, offset=descriptor.offset) as point:
        assert (point / "upper" / "hello").read_bytes() == b"hello from the overlay\n"
    with kernel_mount(image, rw=True, offset=descriptor.offset) as point:
        (point / "upper" / "new").write_bytes(os.urandom(5 << 20))
    out = scratch / "out.img"
    with SIF.open(image) as sif:
        sif.extract(descriptor.id, out)
    assert out.stat().st_size == descriptor.size
    assert_clean(out)
    out.unlink()
    assert [finding for finding in check_file(image) if finding.id == descriptor.id] == []


@requires_root
@pytest.mark.parametrize("maker", ["sifkit", "mke2fs"])
def test_an_overlay_mounts_at_its_place(scratch: Path, maker: str) -> None:
    image = scratch / "image.sif"
    sample_image(image)
    with SIF.open(image, "r+") as sif:
        sif.delete(5)
        added = sif.add(overlay_file(scratch, maker), DataType.PARTITION, group=1, metadata=OVERLAY)
        assert added.offset % 4096 == 0
    assert_works(image, added, scratch)


@requires_root
def test_more_than_4_gib_into_the_file(scratch: Path) -> None:
    image, padding = scratch / "image.sif", scratch / "padding"
    with padding.open("wb") as file:
        file.truncate(5 << 30)
    with SIF.create(image) as sif:
        sif.add(padding, DataType.GENERIC)
        added = sif.add(overlay_file(scratch, "sifkit"), DataType.PARTITION, group=1, metadata=OVERLAY)
    assert added.offset > 5 << 30
    assert image.stat().st_blocks * 512 < 64 << 20
    assert_works(image, added, scratch)


@requires_root
def test_over_the_bytes_of_a_deleted_object(scratch: Path) -> None:
    """Where other tools delete, the bytes stay, counted as data or not: the holes of the new overlay are zero all the same."""
    image = scratch / "image.sif"
    with SIF.create(image) as sif:
        sif.add(b"first", DataType.GENERIC)
    with image.open("ab") as file:
        file.write(b"\xff" * (2 * SIZE))
    with SIF.open(image, "r+") as sif:
        added = sif.add(overlay_file(scratch, "sifkit"), DataType.PARTITION, group=1, metadata=OVERLAY)
    assert added.offset < 1 << 20
    assert_works(image, added, scratch)


@requires_root
def test_moved_by_compaction(scratch: Path) -> None:
    image, padding = scratch / "image.sif", scratch / "padding"
    padding.write_bytes(b"\xff" * (3 << 20))
    with SIF.create(image) as sif:
        sif.add(padding, DataType.GENERIC)
        added = sif.add(overlay_file(scratch, "sifkit"), DataType.PARTITION, group=1, metadata=OVERLAY)
        sif.delete(1)
    assert compact(image).moved == 1
    with SIF.open(image) as sif:
        moved = sif.get(added.id)
    assert moved.offset < added.offset
    assert_works(image, moved, scratch)
