"""New images: header and launch script, modes, what is never replaced, deterministic stamps."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sifkit.errors import NotReplaceableError, TargetError
from sifkit.sif import (
    NIL_UUID,
    SIF,
    YEAR_ONE,
    Arch,
    DataType,
    EditError,
    Stamp,
)

from ....support.sif_images import STAMP, edited


def test_create(tmp_path: Path) -> None:
    path = tmp_path / "new.sif"
    with SIF.create(path, stamp=STAMP, launch=b"#!run\n", arch=Arch.ARM64, capacity=3) as sif:
        assert not path.exists()
        assert len(sif) == 0 and sif.capacity == 3
    raw = path.read_bytes()
    assert len(raw) == 4096 + 3 * 585
    with SIF.open(path) as sif:
        header = sif.header
        assert (header.launch, header.arch, header.id) == (b"#!run\n", Arch.ARM64, STAMP.uuid)
        assert header.created == header.modified == STAMP.seconds
        assert sif.warnings == ()


def test_an_empty_image_is_as_the_reference_librarys(tmp_path: Path) -> None:
    SIF.create(tmp_path / "new.sif", stamp=Stamp.deterministic()).close()
    raw = (tmp_path / "new.sif").read_bytes()
    assert len(raw) == 32176
    assert raw[32:48] == b"SIF_MAGIC\0" + b"01\0" + b"00\0"
    assert raw[48:64] == bytes(16)
    assert raw[64:80] == bytes.fromhex("00096e88f1ffffff") * 2
    assert not any(raw[128:])


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_the_mode_of_a_new_image(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        SIF.create(tmp_path / "a.sif").close()
        SIF.create(tmp_path / "b.sif", mode=0o600).close()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.sif").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "b.sif").stat().st_mode) == 0o600


def test_a_new_image_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new.sif"
    with pytest.raises(KeyError), SIF.create(path) as sif:
        sif.add(b"x", DataType.GENERIC)
        raise KeyError
    sif = SIF.create(path)
    sif.abandon()
    sif.close()
    assert os.listdir(tmp_path) == []
    with SIF.create(path) as sif:
        sif.add(b"x", DataType.GENERIC)
    assert os.listdir(tmp_path) == ["new.sif"]
    with pytest.raises(NotReplaceableError, match="exists"):
        SIF.create(path)
    with SIF.create(path, force=True):
        pass
    with SIF.open(path) as sif:
        assert len(sif) == 0


@pytest.mark.parametrize("what", ["text", "directory", "fifo"])
def test_what_is_never_replaced(tmp_path: Path, what: str) -> None:
    path = tmp_path / "there"
    if what == "text":
        path.write_text("precious")
    elif what == "directory":
        path.mkdir()
    elif not hasattr(os, "mkfifo"):
        pytest.skip("no FIFOs here")
    else:
        os.mkfifo(path)
    with pytest.raises(TargetError):
        SIF.create(path, force=True)
    assert os.listdir(tmp_path) == ["there"]


def test_an_empty_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    SIF.create(tmp_path / "empty", force=True).close()
    assert (tmp_path / "empty").stat().st_size == 32176


@pytest.mark.parametrize(
    "options",
    [
        {"launch": b"x" * 32},
        {"launch": b"a\0b"},
        {"capacity": 0},
        {"capacity": -1},
        {"capacity": 1 << 40},
    ],
)
def test_images_that_cannot_be_made(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(EditError):
        SIF.create(tmp_path / "x.sif", **options)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_a_deterministic_image_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "d.sif"
    SIF.create(path, stamp=Stamp.deterministic()).close()
    with edited(path) as sif:
        sif.add(b"a", DataType.GENERIC)
        sif.update(1, name=b"b")
        assert sif.header.deterministic
        assert {sif.get(1).created, sif.get(1).modified} == {YEAR_ONE}
    with SIF.create(tmp_path / "n.sif", stamp=STAMP, id=NIL_UUID) as sif:
        assert not sif.header.deterministic, "an image without identity that has a time is an ordinary one"


def test_a_given_date() -> None:
    one, other = Stamp.at(86400), Stamp.at(86401)
    assert one == Stamp.at(86400) and one.uuid != other.uuid
    assert one.uuid.version == 4 and one.seconds == 86400
    assert Stamp.now().uuid != Stamp.now().uuid
