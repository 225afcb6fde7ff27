"""Outputs on a full filesystem of the host: one line with the file, what it needs and what is free; nothing half is left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from sifkit.sif import SIF, Arch, DataType, FSType, PartType

from ..support.sif_images import STAMP, partition
from ..support.tools import assert_clean, requires_root
from ..support.tools import run as run_tool

MIB = 1 << 20


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Images with 6 MiB of data, and beside them ``full``, a filesystem of 4 MiB."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d" / "upper").mkdir(parents=True)
    (tmp_path / "d" / "work").mkdir()
    for number in range(3):
        (tmp_path / "d" / "upper" / f"f{number}").write_bytes(os.urandom(2 * MIB))
    (tmp_path / "f").write_bytes(os.urandom(6 * MIB))
    create("overlay.img", CreateOptions(size=16 * MIB, from_dir="d"))
    with SIF.create("i.sif", stamp=STAMP) as sif:
        sif.add("f", DataType.GENERIC)
        root = partition(PartType.PRIMARY_SYSTEM, arch=Arch.AMD64)
        sif.add(b"root" * 300, DataType.PARTITION, group=1, metadata=root)
        sif.add("overlay.img", DataType.PARTITION, group=1, metadata=partition(PartType.OVERLAY, FSType.EXT3))
    assert main(["sif", "unpack", "i.sif", "image.d", "-q"]) == 0
    full = tmp_path / "full"
    full.mkdir()
    run_tool("mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", full)
    try:
        yield tmp_path
    finally:
        run_tool("umount", full)


@requires_root
@pytest.mark.parametrize(
    ("argv", "named", "left"),
    [
        (("overlay", "clone", "overlay.img", "full/x"), "full/x", []),
        (("overlay", "export", "overlay.img", "-o", "full/x"), "full/x", []),
        (("overlay", "create", "--from-dir", "d", "full/x"), "full/x", []),
        (("overlay", "detach", "--keep", "i.sif", "-o", "full/x"), "full/x", []),
        (("sif", "dump", "1", "i.sif", "-o", "full/x"), "full/x", []),
        (("sif", "pack", "image.d", "full/x"), "full/x", []),
        (("sif", "unpack", "i.sif", "full/x"), "full/x", []),
        (("overlay", "export", "overlay.img", "-o", "full/x/"), "full/x/", ["x"]),
        (("extract", "overlay.img", "-C", "full/x"), "full/x", ["x"]),
        (("cp", *(f"overlay.img:/upper/f{n}" for n in range(3)), "full"), "full/f2", ["f0", "f1", "f2"]),
        (("cp", "-r", "overlay.img:/upper", "full"), "full/upper", ["upper"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_outputs(place: Path, capfd: pytest.CaptureFixture[str], argv: tuple[str, ...], named: str, left: list[str]) -> None:
    assert main([*argv]) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and f"no space left for {named}: it needs up to " in err
    assert sorted(os.listdir("full")) == left


@requires_root
def test_output_streams(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for argv in (("overlay", "export", "overlay.img", "-o"), ("sif", "dump", "1", "i.sif", "-o")):
        fd = os.open("full/x", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            assert main([*argv, f"/dev/fd/{fd}"]) == 1
            assert f"no space left for /dev/fd/{fd}: it needs up to 6" in capfd.readouterr().err
        finally:
            os.close(fd)


@requires_root
def test_images_that_grow(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """They are as they were."""
    with SIF.create("full/i.sif", stamp=STAMP) as sif:
        sif.add(os.urandom(3 * MIB), DataType.GENERIC)
        sif.add(b"root" * 300, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM, arch=Arch.AMD64))
    before = Path("full/i.sif").read_bytes()
    for argv in (
        ("sif", "add", "--datatype", "generic", "full/i.sif", "f"),
        ("sif", "replace", "1", "full/i.sif", "f"),
        ("overlay", "attach", "full/i.sif", "overlay.img"),
        ("sif", "compact", "--capacity", "100", "full/i.sif"),
    ):
        assert main([*argv]) == 1, argv
        err = capfd.readouterr().err
        assert err.count("\n") == 1 and "no space left for full/i.sif: it needs up to " in err, argv
        assert Path("full/i.sif").read_bytes() == before and os.listdir("full") == ["i.sif"]


@requires_root
def test_an_image_without_a_journal(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "d" / "upper" / "f2").unlink()
    (place / "d" / "upper" / "f1").unlink()
    create("full/x.img", CreateOptions(size=8 * MIB, from_dir="d", journal=False))
    before = Path("full/x.img").read_bytes()
    assert main(["mkdir", "full/x.img:/upper/new"]) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "no space left for full/x.img: it needs up to " in err and "changed as a copy" in err
    assert Path("full/x.img").read_bytes() == before and os.listdir("full") == ["x.img"]


@requires_root
def test_a_sparse_image_on_a_full_disk(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What was committed stays; the image is sound, and goes on where there is space again. Judge: e2fsck."""
    create("full/x.img", CreateOptions(size=8 * MIB))
    assert main(["cp", "f", "full/x.img:/upper/f"]) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "full/x.img: " in err and "No space left on device" in err and "free some space" in err
    run_tool("mount", "-o", "remount,size=16M", place / "full")
    assert main(["mkdir", "full/x.img:/upper/new"]) == 0
    assert_clean("full/x.img")
