"""``overlay chown``: a whole overlay changes hands, with work/, and the file of the host does not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ext3 import Filesystem

from .....support.commands import Run, good, refused


@pytest.fixture
def image(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """upper/ has files of several owners; work/ has a directory work of mode 0000, as the runtimes leave it."""
    monkeypatch.chdir(tmp_path)
    good(run, "-q", "overlay", "create", "--size", "24M", "--owner", "7:8", "a.img")
    with Filesystem.open("a.img", "r+") as fs:
        fs.mkdir("/work/work", 0, 7, 8)
        fs.mkdir("/upper/d", 0o755, 9, 9)
        fs.write_bytes("/upper/d/f", b"x")
        fs.symlink("/nowhere", "/upper/d/l", 7, 8)
        fs.write_bytes("/outside", b"x")
    return "a.img"


def owners(image: str) -> dict[str, tuple[int, int]]:
    with Filesystem.open(image) as fs:
        return {path.decode(): (fs.stat(entry.ino).uid, fs.stat(entry.ino).gid) for path, entry in fs.walk()}


def test_everything_changes_hands(run: Run, image: str) -> None:
    host = os.stat(image)
    code, out, err = run("overlay", "chown", "1000:1001", image)
    assert (code, out) == (0, "")
    assert "the file itself keeps its owner and mode; to hand it over: chown 1000:1001 a.img" in err
    found = owners(image)
    assert {path for path, owner in found.items() if owner == (1000, 1001)} == {
        "upper", "upper/d", "upper/d/f", "upper/d/l", "work", "work/work",
    }  # fmt: skip
    assert found["outside"] == found["lost+found"] == (0, 0)
    assert (os.stat(image).st_uid, os.stat(image).st_mode) == (host.st_uid, host.st_mode)
    with Filesystem.open(image) as fs:
        assert fs.stat("/work/work").mode & 0o7777 == 0


def test_only_files_of_one_owner(run: Run, image: str) -> None:
    found = json.loads(run("overlay", "chown", "--json", "--from", "7", "1000", image)[1])
    assert (found["changed"], found["uid"], found["gid"]) == (4, 1000, None)
    after = owners(image)
    assert after["upper/d"] == (9, 9) and after["upper/d/f"] == (0, 0)
    assert after["upper"] == after["work/work"] == after["upper/d/l"] == (1000, 8)
    assert json.loads(run("overlay", "chown", "--json", "--from", ":9", ":5", image)[1])["changed"] == 1


def test_what_is_refused(run: Run, image: str) -> None:
    before = owners(image)
    refused(run, "overlay", "chown", "1000:", image, code=2)
    refused(run, "overlay", "chown", "nobody-of-this-name", image, code=2)
    refused(run, "overlay", "chown", "1000", "none.img")
    assert owners(image) == before
    with Filesystem.open(image, "r+") as fs:
        fs.remove_tree("/upper")
    assert "the image has no upper/" in refused(run, "overlay", "chown", "1000", image)
    assert owners(image)["work"] == (7, 8)
