"""Reserved blocks: what a new image has, what is said of none, how many a container can write, and ``overlay tune``."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import pytest

from ext3 import Filesystem
from sifkit.overlay.reserve import user_bytes

from .....support.commands import Run, good, refused


@pytest.fixture
def old(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An image without reserved blocks."""
    monkeypatch.chdir(tmp_path)
    code, _, err = run("overlay", "create", "--size", "24M", "-m", "0", "old.img")
    assert code == 0 and "no block is reserved for root" in err
    return "old.img"


def reserved(path: str) -> int:
    with Filesystem.open(path) as filesystem:
        return filesystem.superblock.reserved_blocks


def available(run: Run, path: str) -> tuple[int, int, int]:
    """(total, free, available) in bytes, as df tells them; info tells the same."""
    found = json.loads(good(run, "df", "--json", path))
    info = json.loads(good(run, "overlay", "info", "--json", path))
    assert all(found[key] == info[key] for key in ("size_bytes", "free_bytes", "available_bytes"))
    return found["size_bytes"], found["free_bytes"], found["available_bytes"]


def test_a_new_image_reserves_one_block(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good(run, "-q", "overlay", "create", "--size", "24M", "new.img")
    assert reserved("new.img") == 1
    _, free, left = available(run, "new.img")
    assert left == free - 1024
    assert "without root" not in good(run, "overlay", "info", "new.img")
    good(run, "-q", "overlay", "create", "--size", "24M", "-m", "5", "five.img")
    assert reserved("five.img") == 24 * 1024 * 5 // 100


def test_of_none_a_tenth_cannot_be_written_without_root(run: Run, old: str) -> None:
    """As fuse2fs has it (tests/compat/test_reserve.py)."""
    assert reserved(old) == 0
    total, free, left = available(run, old)
    assert left == free - total // 1024 // 10 * 1024
    out = good(run, "overlay", "info", old)
    assert "sifkit overlay tune --reserved-blocks 1" in out and "without root" in out


def test_tune(run: Run, old: str) -> None:
    out = run("overlay", "tune", "--reserved-blocks", "1", "--label", "lab", old)
    assert out == (0, "", "")
    assert reserved(old) == 1
    assert "no block is reserved" not in good(run, "overlay", "info", old)
    assert json.loads(good(run, "overlay", "info", "--json", old))["label"] == "lab"
    found = json.loads(good(run, "overlay", "tune", "--json", "-r", "7", old))
    assert (found["reserved_bytes"], found["label"]) == (7 * 1024, "lab")
    assert json.loads(good(run, "overlay", "tune", "--json", "-L", "", old))["label"] == ""
    code, _, err = run("overlay", "tune", "-r", "0", old)
    assert code == 0 and "no block is reserved for root" in err


def test_percent_and_uuid(run: Run, old: str) -> None:
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    found = json.loads(good(run, "overlay", "tune", "--json", "-m", "5", "-U", uuid, old))
    assert (found["reserved_blocks"], found["uuid"]) == (24 * 1024 * 5 // 100, uuid)
    versions = {}
    for word in ("random", "time"):
        versions[word] = UUID(json.loads(good(run, "overlay", "tune", "--json", "-U", word, old))["uuid"]).version
    assert versions == {"random": 4, "time": 1}


def test_the_overlay_of_a_sif(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good(run, "-q", "sif", "new", "a.sif")
    good(run, "-q", "overlay", "create", "--size", "24M", "a.sif")
    good(run, "-q", "overlay", "tune", "-L", "inside", "a.sif")
    assert json.loads(good(run, "overlay", "info", "--json", "a.sif"))["label"] == "inside"


def test_what_is_not_tuned(run: Run, old: str) -> None:
    assert "nothing to change" in refused(run, "overlay", "tune", old, code=2)
    for blocks in ("x", "-1", "1.5", "99999999"):
        assert "--reserved-blocks" in refused(run, "overlay", "tune", f"--reserved-blocks={blocks}", old, code=2)
    assert "-r and -m" in refused(run, "overlay", "tune", "-r", "1", "-m", "1", old, code=2)
    assert "-m 51" in refused(run, "overlay", "tune", "-m", "51", old, code=2)
    for uuid in ("x", "clear"):
        assert f"--uuid {uuid}" in refused(run, "overlay", "tune", "-U", uuid, old, code=2)
    assert "at most 16" in refused(run, "overlay", "tune", "-L", "x" * 17, old, code=2)
    assert reserved(old) == 0


@pytest.mark.parametrize(("size", "free", "kept", "left"), [(1009, 500, 0, 400), (1000, 50, 0, 0), (1000, 500, 10, 490)])
def test_user_bytes(size: int, free: int, kept: int, left: int) -> None:
    assert user_bytes(blocks=size, free=free, reserved=kept, block_size=1024) == left * 1024


@pytest.mark.parametrize("verb", ["tune", "trim", "chown"])
@pytest.mark.parametrize("option", ["--upper", "--overlay"])
def test_options_of_paths_are_not_those_of_a_filesystem(run: Run, old: str, verb: str, option: str) -> None:
    assert f"no such option {option}" in refused(run, "overlay", verb, option, old, old, code=2)
