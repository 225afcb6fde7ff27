"""``overlay rebuild`` as typed: what it says before and after, its values, its refusals."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from .....support.commands import Run, done, good, names_in, refused

MIB = 1 << 20


@pytest.fixture
def image(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_bytes(os.urandom(3 * MIB))
    good(
        run,
        "-q",
        "overlay",
        "create",
        "--from-dir",
        ".",
        "--exclude",
        "*.img",
        "--size",
        "24M",
        "-N",
        "100",
        "--create-dir",
        "opt/x/y/z",
        "a.img",
    )
    return "a.img"


def test_what_is_said(run: Run, image: str) -> None:
    code, out, err = run("overlay", "rebuild", "-N", "5K", image)
    assert code == 0 and not out
    assert err.startswith("a.img: needs up to ") and " free\n" in err and err.count("\n") == 1
    code, out, err = run("overlay", "rebuild", "-v", "--size", "30M", image)
    assert re.search(r"a\.img: 24 MiB -> 30 MiB, .* free, inodes 4,\d+ -> 6,\d+ \(\d+ used\), [0-9.]+ s\n", err)
    assert run("-q", "overlay", "rebuild", image) == (0, "", "")
    assert names_in(image) == [b"f", b"opt"] and os.stat(image).st_size == 30 * MIB


def test_json(run: Run, image: str) -> None:
    out, _ = done(run, "overlay", "rebuild", "--json", "-b", "4096", "-I", "128", "-i", "16K", "-J", "size=6M", image)
    found = json.loads(out)
    assert found["partition"] is None and found["files"] == 8
    before, after = found["before"], found["after"]
    assert (before["block_bytes"], after["block_bytes"], after["inode_bytes"]) == (1024, 4096, 128)
    assert (after["journal_bytes"], after["size_bytes"]) == (6 * MIB, 24 * MIB)
    assert before["uuid"] != after["uuid"] and after["used_bytes"] + after["free_bytes"] == 24 * MIB
    out, _ = done(run, "overlay", "rebuild", "--json", "--keep-uuid", "--size", "auto", image)
    assert json.loads(out)["after"]["uuid"] == after["uuid"]


def test_a_sif(run: Run, image: str) -> None:
    good(run, "-q", "sif", "new", "a.sif")
    good(run, "-q", "sif", "add", "--parttype", "overlay", "a.sif", image)
    out, err = done(run, "overlay", "rebuild", "--json", "a.sif")
    found = json.loads(out)
    assert found["partition"]["size_bytes"] == found["old_partition"]["size_bytes"] == 24 * MIB
    assert "a.sif: needs up to" in err and found["old_partition"]["offset_bytes"] < found["partition"]["offset_bytes"]
    _, err = done(run, "overlay", "rebuild", "-v", "--partition", "1", "a.sif")
    assert "a.sif: object 1, " in err
    place = f"its old place, 24 MiB at byte {found['partition']['offset_bytes']}, is free: sifkit sif compact closes it\n"
    assert place in err
    good(run, "sif", "check", "-q", "a.sif")
    assert good(run, "ls", "--partition", "overlay", "a.sif", "/upper") == "f\nopt\n"


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["--size", "24MB"], 2, "--size 24MB"),
        (["-N", "0"], 2, "--inodes 0"),
        (["-N", "9", "-i", "4096"], 2, "contradict"),
        (["-b", "512"], 2, "--block-size 512: must be 1024, 2048 or 4096"),
        (["-I", "100"], 2, "--inode-size 100: must be 128, 256, 512 or 1024"),
        (["-i", "1"], 2, "--inode-ratio 1 byte: must be from 1 KiB to 64 MiB"),
        (["-J", "size=1K"], 2, "--journal size=1 KiB: must be from 1 MiB to 10,000 MiB"),
        (["-J", "size=6M", "--size", "10M"], 2, "takes more than half of an image of 10 MiB; give a smaller journal"),
        (["-J", "6M"], 2, "only size="),
        (["--size", "4M"], 1, "or --size auto"),
        (["-N", "60K", "--size", "9M"], 2, "holds at most 31,112; give fewer, or a larger --size"),
        (["--offset", "0"], 2, "overlay clone --offset 0"),
        (["--partition", "overlay"], 2, "not a SIF"),
    ],
)
def test_refusals(run: Run, image: str, argv: list[str], code: int, text: str) -> None:
    before = Path(image).read_bytes()
    assert text in refused(run, "overlay", "rebuild", *argv, image, code=code)
    assert Path(image).read_bytes() == before


def test_a_journal_that_was_not_asked_for_makes_room(run: Run, image: str) -> None:
    good(run, "-q", "overlay", "create", "--size", "24M", "-J", "size=8M", "b.img")
    out, _ = done(run, "overlay", "rebuild", "--json", "-N", "40K", "b.img")
    found = json.loads(out)
    assert (found["before"]["journal_bytes"], found["after"]["journal_bytes"]) == (8 * MIB, MIB)
    assert found["after"]["inodes"] >= 40_000


def test_no_inodes_left_says_what_helps(run: Run, image: str, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(200):
        (tmp_path / "many" / str(number)).touch()
    code, _, err = run("cp", "-r", "many", f"{image}:/upper/opt/")
    assert code == 1 and re.search(r"give it more inodes: sifkit overlay rebuild -N 4\d\d a.img\n", err)
    _, err = done(run, "overlay", "rebuild", "-N", "440", image)
    good(run, "-q", "cp", "-r", "many", f"{image}:/upper/opt/")
    (tmp_path / "large").write_bytes(bytes(range(256)) * 4096 * 30)
    code, _, err = run("cp", "large", f"{image}:/upper/opt/")
    assert code == 1 and "enlarge it: sifkit overlay resize --size +" in err and err.endswith("M a.img\n")
