"""``sifkit overlay fsck`` and ``undo`` of an overlay in a SIF image: in place, under its lock, with respect to signatures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sifkit.file_locks import lock_range
from sifkit.overlay.edit.edit_session import EditOptions, edit_image
from sifkit.sif import SIF, DataType, HashType, SignatureMeta

from .....support.commands import Run, good, refused
from .....support.fsck_damage import damage_counts
from .....support.sif_images import STAMP


@pytest.fixture
def image(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SIF with something before its overlay, of which a count is wrong."""
    monkeypatch.chdir(tmp_path)
    Path("notes").write_bytes(b"notes" * 1000)
    for words in (["sif", "new", "a.sif"], ["sif", "add", "--datatype", "generic", "a.sif", "notes"]):
        assert run(*words)[0] == 0
    assert run("overlay", "create", "-s", "8M", "a.sif")[0] == 0
    path = tmp_path / "a.sif"
    with edit_image(path, EditOptions(partition="overlay")) as edited:
        edited.filesystem.write_bytes("/upper/a", b"a" * 5000)
    damage_counts(path, offset=place(path)[0])
    return path


def place(path: Path) -> tuple[int, int]:
    with SIF.open(path) as sif:
        found = sif.overlays[0]
        return found.offset, found.size


def outside(path: Path) -> bytes:
    """All but the overlay."""
    offset, size = place(path)
    data = path.read_bytes()
    return data[:offset] + data[offset + size :]


def sign(path: Path) -> None:
    with SIF.open(path, "r+", stamp=STAMP) as sif:
        sif.add(b"signed", DataType.SIGNATURE, link_group=1, metadata=SignatureMeta(HashType.SHA256))


def test_the_overlay_is_repaired_in_place(run: Run, image: Path) -> None:
    before, rest = image.read_bytes(), outside(image)
    code, out, err = run("overlay", "fsck", "-fn", image)
    assert code == 4 and out.count("\n") == 1 and image.read_bytes() == before
    code, out, err = run("overlay", "fsck", "-fp", "-z", "undo", image)
    assert code == 1 and f"sifkit overlay undo undo {image}" in err
    assert outside(image) == rest and run("overlay", "fsck", "-fn", image)[0] == 0
    good(run, "overlay", "undo", "undo", image)
    assert image.read_bytes() == before
    offset = place(image)[0]
    for words in (["--partition", "2"], ["--offset", str(offset)]):
        assert run("overlay", "fsck", "-fn", *words, image)[0] == 4
    assert run("overlay", "fsck", "-fp", "-z", "undo-2", "--offset", str(offset), image)[0] == 1
    good(run, "overlay", "undo", "--partition", "overlay", "undo-2", image)
    assert image.read_bytes() == before


def test_json_names_the_partition(run: Run, image: Path) -> None:
    code, out, _ = run("overlay", "fsck", "-fp", "--json", image)
    summary = json.loads(out.splitlines()[-1])
    offset, size = place(image)
    assert code == 1 and summary["partition"] == {"id": 2, "group": 1, "offset_bytes": offset, "size_bytes": size}
    assert summary["locked"] is True and summary["changed"] is True


def test_a_clean_overlay_keeps_its_signature(run: Run, image: Path) -> None:
    assert run("overlay", "fsck", "-fp", image)[0] == 1
    sign(image)
    before = image.read_bytes()
    for mode in ("-p", "-y", "-fn"):
        assert run("overlay", "fsck", mode, image)[0] == 0
    assert image.read_bytes() == before


def test_signatures(run: Run, image: Path) -> None:
    sign(image)
    before = image.read_bytes()
    assert run("overlay", "fsck", "-fn", image)[0] == 4
    code, out, err = run("overlay", "fsck", "-fp", "-z", "undo", image)
    assert code == 8 and "changing object 2 would break" in err and "--drop-signatures" in err
    assert image.read_bytes() == before and not os.path.exists("undo")
    code, out, err = run("overlay", "fsck", "-fp", "--keep-broken-signatures", "-z", "undo", image)
    assert code == 1 and "breaks" in err
    with SIF.open(image) as sif:
        assert len(sif) == 3
    assert "would break" in refused(run, "overlay", "undo", "undo", image)
    code, out, err = run("overlay", "undo", "--keep-broken-signatures", "undo", image)
    assert code == 0 and image.read_bytes() == before
    code, out, _ = run("overlay", "fsck", "-fp", "--drop-signatures", "--json", image)
    assert code == 1 and json.loads(out.splitlines()[-1])["dropped_signatures"] == [3]
    with SIF.open(image) as sif:
        assert len(sif) == 2


def test_an_overlay_in_use(run: Run, image: Path) -> None:
    before = image.read_bytes()
    offset, size = place(image)
    fd = os.open(image, os.O_RDWR)
    try:
        if not lock_range(fd, write=True, offset=offset, size=size, path=str(image)):
            pytest.skip("no locks here")
        assert "is in use" in refused(run, "overlay", "fsck", "-fp", image, code=8)
        code, _, err = run("overlay", "fsck", "-fn", image)
        assert code == 4 and "is in use" in err
    finally:
        os.close(fd)
    assert image.read_bytes() == before


def test_a_partition_that_is_no_ext3(run: Run, image: Path) -> None:
    Path("root").write_bytes(b"hsqs" + bytes(24) + b"\x04\x00" + bytes(4066))
    words = ["--datatype", "4", "--parttype", "2", "--partfs", "1", "--partarch", "2"]
    assert run("sif", "add", *words, "a.sif", "root")[0] == 0
    assert "is a squashfs filesystem" in refused(run, "overlay", "fsck", "-p", "--partition", "root", "a.sif", code=8)
    assert "is generic" in refused(run, "overlay", "fsck", "-p", "--partition", "1", "a.sif", code=8).lower()
