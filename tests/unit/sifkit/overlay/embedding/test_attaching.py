"""Overlays moved between files and SIF images."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ext3.constants import SUPERBLOCK_OFFSET, Incompat
from ext3.format.schema import SUPERBLOCK
from sifkit.cli import main
from sifkit.errors import FormatError, ImageInUseError, NotReplaceableError, SifkitError, TargetError, UsageError
from sifkit.file_locks import lock_range
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.embedding import attaching
from sifkit.overlay.embedding.attaching import attach, detach
from sifkit.overlay.embedding.in_partition import embed
from sifkit.overlay.images.reservation import EmbedOptions
from sifkit.overlay.options import CreateOptions
from sifkit.sif import (
    SIF,
    AmbiguousObjectError,
    DataType,
    EditError,
    FSType,
    ObjectNotFoundError,
    PartType,
    SignatureMeta,
    Stamp,
)
from sifkit.sif.format.types import HashType
from sifkit.sif.signatures import SignedError

from .....support.sif_images import STAMP, assert_sound, partition

SIZE = 8 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="these locks are Linux's")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.sif"
    with SIF.create(path, capacity=6, stamp=STAMP) as sif:
        sif.add(b"hsqs" + b"root" * 300, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
    return path


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    path = tmp_path / "o.img"
    create(path, CreateOptions(size=SIZE, label=b"mine"))
    return path


def sparse(path: Path) -> bool:
    return path.stat().st_blocks * 512 < SIZE


def test_in_and_out(image: Path, overlay: Path) -> None:
    before, content = image.read_bytes(), overlay.read_bytes()
    told: list[int] = []
    done = attach(image, overlay, stamp=STAMP, begin=told.append, advance=told.append)
    assert (done.partition.id, done.partition.group, done.partition.size, done.moved) == (2, 1, SIZE, False)
    assert 0 < sum(told[1:]) <= told[0] + (1 << 20) and overlay.read_bytes() == content and sparse(image)
    assert_sound(image.read_bytes())
    with SIF.open(image) as sif:
        assert sif.read(2) == content and sif.get(2).part_type == PartType.OVERLAY
    out = image.parent / "out.img"
    kept = detach(image, out, keep=True)
    assert kept.kept and out.read_bytes() == content and sparse(out)
    detach(image, out, force=True, stamp=STAMP)
    assert out.read_bytes() == content and image.read_bytes() == before
    assert out.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(image.parent)) == ["a.sif", "o.img", "out.img"]


def test_move(image: Path, overlay: Path) -> None:
    link = image.parent / "link.img"
    link.symlink_to("o.img")
    with pytest.raises(UsageError, match="symbolic link"):
        attach(image, link, move=True)
    content = overlay.read_bytes()
    assert attach(image, overlay, move=True).moved and not overlay.exists()
    with SIF.open(image) as sif:
        assert sif.read(2) == content


def test_replace(image: Path, overlay: Path) -> None:
    embed(image, CreateOptions(size=2 * SIZE))
    with pytest.raises(EditError, match="object 2"):
        attach(image, overlay)
    done = attach(image, overlay, EmbedOptions(replace=True))
    assert done.replaced_bytes == 2 * SIZE
    with SIF.open(image) as sif:
        assert sif.read(2) == overlay.read_bytes() and len(sif.overlays) == 1


def test_what_is_no_overlay(image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    (tmp_path / "root.sqfs").write_bytes(b"hsqs" + bytes(5000))
    (tmp_path / "text").write_bytes(b"x" * 5000)
    create(tmp_path / "ext2.img", CreateOptions(size=SIZE, journal=False))
    create(tmp_path / "short.img", CreateOptions(size=SIZE))
    os.truncate(tmp_path / "short.img", SIZE // 2)
    for name, said in (("root.sqfs", "squashfs"), ("ext2.img", "no journal"), ("short.img", "shorter"), ("a.sif", "SIF image")):
        with pytest.raises(FormatError, match=said) as caught:
            attach(image, tmp_path / name)
        assert caught.value.hint
    with pytest.raises(FormatError, match="not a SIF image") as caught:
        attach(tmp_path / "ext2.img", image)
    assert "name the SIF first" in caught.value.hint
    for missing in ((image, tmp_path / "none"), (tmp_path / "none", image)):
        with pytest.raises(FileNotFoundError):
            attach(*missing)
    assert image.read_bytes() == before


def change(overlay: Path, **fields: int) -> None:
    with overlay.open("r+b") as file:
        file.seek(SUPERBLOCK_OFFSET)
        raw = bytearray(file.read(SUPERBLOCK.size))
        for name, value in fields.items():
            SUPERBLOCK.view(raw)[0][name] = value
        file.seek(SUPERBLOCK_OFFSET)
        file.write(raw)


def test_states(image: Path, overlay: Path) -> None:
    change(overlay, s_state=3)
    with pytest.raises(FormatError, match="errors"):
        attach(image, overlay)
    change(overlay, s_state=1, s_feature_incompat=int(Incompat.FILETYPE | Incompat.NEEDS_RECOVERY))
    assert any("journal is not empty" in note for note in attach(image, overlay).notes)


@linux
def test_use(image: Path, overlay: Path) -> None:
    fd = os.open(overlay, os.O_RDWR)
    try:
        if not lock_range(fd, write=False):
            pytest.skip("this filesystem has no locks")
        attach(image, overlay)  # readers do not matter
        with pytest.raises(ImageInUseError):
            attach(image, overlay, EmbedOptions(replace=True), move=True)
        lock_range(fd, write=True)
        with pytest.raises(ImageInUseError):
            attach(image, overlay, EmbedOptions(replace=True))
    finally:
        os.close(fd)
    fd = os.open(image, os.O_RDWR)
    out = image.parent / "out.img"
    try:
        with SIF.open(image) as sif:
            found = sif.get(2)
        lock_range(fd, write=False, offset=found.offset, size=found.size)
        with pytest.raises(ImageInUseError, match="its overlay"):
            detach(image, out)
        assert detach(image, out, keep=True).kept
        lock_range(fd, write=True, offset=found.offset, size=found.size)
        with pytest.raises(ImageInUseError):
            detach(image, image.parent / "more.img", keep=True)
    finally:
        os.close(fd)
    assert sorted(os.listdir(image.parent)) == ["a.sif", "o.img", "out.img"]


def test_signatures(image: Path, overlay: Path) -> None:
    attach(image, overlay)
    with SIF.open(image, "r+") as sif:
        sif.add(b"not parsed", DataType.SIGNATURE, link_group=1, metadata=SignatureMeta(HashType.SHA256, b""))
    before, out = image.read_bytes(), image.parent / "out.img"
    with pytest.raises(SignedError, match="replacing the overlay would break signature 3"):
        attach(image, overlay, EmbedOptions(replace=True))
    with pytest.raises(SignedError, match="removing object 2 would break signature 3"):
        detach(image, out)
    assert not out.exists() and image.read_bytes() == before
    detach(image, out, keep=True)
    done = detach(image, out, force=True, on_signatures="drop")
    assert done.dropped == (3,)
    with SIF.open(image) as sif:
        assert [descriptor.id for descriptor in sif] == [1]


def test_detach_refuses(image: Path, overlay: Path) -> None:
    out = image.parent / "out.img"
    with pytest.raises(ObjectNotFoundError, match="no overlay"):
        detach(image, out)
    attach(image, overlay)
    before = image.read_bytes()
    with pytest.raises(UsageError, match="SIF itself"):
        detach(image, image, force=True)
    with pytest.raises(TargetError, match="exists"):
        detach(image, overlay)
    out.write_bytes(b"precious")
    with pytest.raises(NotReplaceableError):
        detach(image, out, force=True)
    with pytest.raises(ObjectNotFoundError, match="object 1 is not an overlay"):
        detach(image, image.parent / "x.img", partition="1")
    with pytest.raises(TargetError, match="does not exist"):
        detach(image, image.parent / "no" / "x.img")
    with pytest.raises(FormatError, match="not a SIF image"):
        detach(overlay, image.parent / "x.img")
    assert image.read_bytes() == before and out.read_bytes() == b"precious"
    with SIF.open(image, "r+") as sif:
        sif.add(bytes(5000), DataType.PARTITION, group=1, metadata=partition(PartType.OVERLAY, FSType.EXT3))
    with pytest.raises(AmbiguousObjectError, match="2 overlays: 2, 3"):
        detach(image, image.parent / "x.img")
    assert detach(image, image.parent / "x.img", partition="3").partition.id == 3


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, OSError])
def test_failures_leave_both(image, overlay, monkeypatch, trouble):
    before, content = image.read_bytes(), overlay.read_bytes()

    def fail(*arguments, **more):
        raise trouble("now")

    with monkeypatch.context() as patch:
        patch.setattr(attaching, "copy_in", fail)
        with pytest.raises(trouble):
            attach(image, overlay, move=True)
    assert image.read_bytes() == before and overlay.read_bytes() == content
    attach(image, overlay)
    before = image.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(attaching, "copy_out", fail)
        with pytest.raises(trouble):
            detach(image, image.parent / "out.img")
    with monkeypatch.context() as patch:
        patch.setattr(SIF, "delete", lambda *a, **k: (_ for _ in ()).throw(SifkitError("no")))
        with pytest.raises(SifkitError, match=r"out.img was created, and the overlay is still in"):
            detach(image, image.parent / "out.img")
    assert image.read_bytes() == before
    assert sorted(os.listdir(image.parent)) == ["a.sif", "o.img", "out.img"]


def test_an_original_that_changes(image, overlay, monkeypatch):
    before = image.read_bytes()
    copy_in = attaching.copy_in

    def change_it(*arguments, **more):
        done = copy_in(*arguments, **more)
        os.truncate(overlay, SIZE + 4096)
        return done

    monkeypatch.setattr(attaching, "copy_in", change_it)
    with pytest.raises(SifkitError, match="changed while it was copied"):
        attach(image, overlay)
    assert image.read_bytes() == before


def test_the_verbs(image, overlay, capfd, monkeypatch):
    monkeypatch.chdir(image.parent)
    assert main(["overlay", "attach", "-v", "a.sif", "o.img"]) == 0
    assert "a.sif: object 2, group 1, 8 MiB at byte" in capfd.readouterr().err
    for argv, code, said in (
        (["overlay", "attach", "o.img", "a.sif"], 1, "name the SIF first"),
        (["overlay", "attach", "a.sif"], 1, "overlay.img"),
        (["overlay", "attach", "a.sif", "o.img"], 1, "--replace"),
        (["overlay", "attach"], 2, "IMAGE is missing"),
        (["overlay", "detach", "o.img"], 1, "not a SIF image"),
        (["overlay", "detach", "a.sif", "o.img"], 2, "too many arguments"),
        (["overlay", "detach", "a.sif", "-o", "o.img"], 1, "--force"),
        (["overlay", "detach", "a.sif", "--partition", "upper"], 2, "must be overlay"),
        (["overlay", "detach", "a.sif", "--partition", "9"], 1, "no object with ID 9"),
    ):
        assert main(argv) == code, argv
        out, err = capfd.readouterr()
        assert out == "" and err.count("\n") == 1 and said in err, (argv, err)
    assert main(["overlay", "detach", "-v", "a.sif"]) == 0
    assert "overlay.img: 8 MiB, removed from a.sif (object 2)" in capfd.readouterr().err
    assert (image.parent / "overlay.img").read_bytes() == overlay.read_bytes()


def test_a_deterministic_image_stays_one(tmp_path: Path, overlay: Path) -> None:
    with SIF.create(tmp_path / "d.sif", stamp=Stamp.deterministic()) as sif:
        sif.add(b"hsqs" * 300, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
    attach(tmp_path / "d.sif", overlay)
    with SIF.open(tmp_path / "d.sif") as sif:
        assert sif.header.deterministic and sif.get(2).created == sif.header.created
