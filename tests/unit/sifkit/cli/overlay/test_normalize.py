"""``overlay normalize``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ext3 import Filesystem
from ext3.edit.filesystem import WritableFilesystem

from .....support.commands import Run, good, names_in, refused


@pytest.fixture
def image(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An overlay in which /d/gone was removed and /d/new was made anew."""
    monkeypatch.chdir(tmp_path)
    for name in ("d/gone", "d/new/old"):
        (tmp_path / "base" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "base" / name).touch()
    good(run, "-q", "overlay", "create", "--size", "8M", "a.img")
    with Filesystem.open("a.img", "r+") as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.mkdir("/upper/d")
        fs.mkdir("/upper/d/new")
        fs.create("/upper/d/.wh.gone")
        fs.set_xattr("/upper/d/new", b"user.fuseoverlayfs.opaque", b"y")
    return "a.img"


def test_with_a_base(run: Run, image: str) -> None:
    code, out, err = run("overlay", "normalize", "-v", "--base", "base", image)
    assert code == 0 and not out
    assert err.splitlines() == [
        "/d/new: 1 whiteout created, 0 marks removed, no longer opaque",
        "/d: 1 whiteout created, 1 mark removed",
        "a.img: 1 .wh. file converted to a whiteout, 1 opaque directory converted to 1 whiteout",
    ]
    assert names_in(image, "/upper/d/new") == [b"old"]
    assert run("overlay", "normalize", "-v", "--base", "base", image) == (
        0,
        "",
        "a.img: nothing to do: its marks hold for every user\n",
    )


def test_without_a_base(run: Run, image: str) -> None:
    code, out, err = run("overlay", "normalize", "-v", image)
    assert code == 0 and not out
    assert err.splitlines()[-2:] == [
        "a.img: 1 .wh. file converted to a whiteout, 1 opaque directory marked for root and for writable use",
        "a.img: 1 directory is opaque, which a plain user's Apptainer ignores with :ro; convert them with: --base IMAGE.sif",
    ]
    assert run("overlay", "normalize", "-q", image) == (0, "", "")


def test_a_dry_run(run: Run, image: str) -> None:
    data = Path(image).read_bytes()
    code, out, _ = run("overlay", "normalize", "--base", "base", "--dry-run", image)
    assert code == 0 and out == (
        "a.img: would be done: 1 .wh. file converted to a whiteout, 1 opaque directory converted to 1 whiteout\n"
    )
    assert Path(image).read_bytes() == data


def test_json(run: Run, image: str) -> None:
    found = json.loads(good(run, "overlay", "normalize", "--json", image))
    assert (found["whiteouts_converted"], found["opaque_marked"], found["opaque_left"]) == (1, 1, 1)
    found = json.loads(good(run, "overlay", "normalize", "--json", "--base", "base", image))
    assert (found["opaque_converted"], found["whiteouts_created"], found["opaque_left"]) == (1, 1, 0)


def test_names_that_stay(run: Run, image: str) -> None:
    with Filesystem.open(image, "r+") as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.create("/upper/d/gone")
    error = refused(run, "overlay", "normalize", "--base", "base", image)
    assert "a.img:/upper/d/gone: .wh.gone is beside it" in error
    assert names_in(image, "/upper/d/new") == [b"old"]  # the rest is done
    code, out, _ = run("overlay", "normalize", "--json", image)
    assert code == 1 and json.loads(out)["problems"][0]["path"] == "/d/gone"


def test_errors(run: Run, image: str) -> None:
    assert "missing" in refused(run, "overlay", "normalize", "--base", "missing", image)
    assert "--partition" in refused(run, "overlay", "normalize", "--partition", "overlay", image, code=2)
    error = refused(run, "overlay", "normalise", image, code=2)
    assert "normalize" in error


def test_share(run: Run, image: str) -> None:
    Path(image).chmod(0o640)
    code, out, err = run("overlay", "share", "--check", "--base", "base", image)
    assert (
        code == 1
        and not err
        and out.splitlines()
        == [
            "a.img: in 2 directories marks of removed files do not hold for every user",
            "a.img: the image file cannot be read by all: its mode is 0640",
        ]
    )
    code, out, err = run("overlay", "share", "-v", "--base", "base", image)
    assert (
        code == 0
        and not out
        and err.splitlines()[-2:]
        == [
            "a.img: marks of removed files changed in 2 directories; ready for read-only use",
            "the file itself keeps its mode; run: chmod 444 a.img",
        ]
    )
    code, out, err = run("overlay", "share", "-v", image)
    assert code == 0 and "nothing to do" in err and "chmod 444" in err
    Path(image).chmod(0o444)
    code, out, err = run("overlay", "share", "-v", image)
    assert code == 0 and "chmod" not in err
    assert good(run, "-q", "overlay", "share", "--check", image) == ""
    found = json.loads(good(run, "overlay", "share", "--check", "--json", image))
    assert found["ready"] and found["missing"] == [] and found["file_mode"] == "0444"


def test_share_without_a_base(run: Run, image: str) -> None:
    error = refused(run, "overlay", "share", image)
    assert "1 directory is opaque" in error and "--base IMAGE.sif" in error


def test_the_command_that_a_note_names(run: Run, image: str) -> None:
    """It leaves nothing to note."""
    good(run, "-q", "overlay", "create", "--size", "8M", "b.img")
    layers = ("base", "--overlay", "b.img", "--overlay", image)
    _, before, err = run("find", *layers)
    command = err.strip().partition("to prevent that: sifkit ")[2]
    assert command == "overlay normalize --base base --overlay b.img a.img"
    assert run("-q", *command.split()) == (0, "", "")
    assert run("find", *layers) == (0, before, "")
