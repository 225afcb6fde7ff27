"""``overlay resize`` as typed: its sizes, what it says, its refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ext3.constants import SUPERBLOCK_OFFSET
from ext3.format.schema import SUPERBLOCK
from sifkit.file_locks import lock_range

from .....support.commands import Run, done, good, names_in, refused

MIB = 1 << 20


@pytest.fixture
def image(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_bytes(os.urandom(3 * MIB))
    good(run, "-q", "overlay", "create", "--size", "24M", "--from-dir", ".", "--exclude", "*.img", "a.img")
    return "a.img"


@pytest.mark.parametrize(
    ("argv", "size"),
    [
        (["a.img", "30M"], 30 * MIB),
        (["a.img", "+6M"], 30 * MIB),
        (["--size", "30", "a.img"], 30 * MIB),
        (["-s", "30M", "a.img"], 30 * MIB),
        (["a.img", "--size", "+6MiB"], 30 * MIB),
        (["a.img", "--size", "0.5G"], 512 * MIB),
        (["a.img", "--size", "+0.5M"], 24 * MIB + MIB // 2),
    ],
)
def test_sizes(run: Run, image: str, argv: list[str], size: int) -> None:
    assert run("overlay", "resize", *argv) == (0, "", "")
    assert os.stat(image).st_size == size and names_in(image) == [b"f"]


def test_what_is_said(run: Run, image: str) -> None:
    code, out, err = run("overlay", "resize", "-v", image, "100M")
    assert code == 0 and not out
    assert "a.img: 24 MiB -> 100 MiB, 3 -> 13 groups, inodes 6,144 -> 26,624, " in err
    code, out, err = run("overlay", "resize", "-v", image, "100M")
    assert "a.img: nothing to do: it has 100 MiB already" in err
    out = good(run, "overlay", "resize", "--dry-run", image, "1G")
    assert out.startswith("a.img: 100 MiB -> 1 GiB, 13 -> 128 groups, ") and "\na.img: would need up to " in out
    assert "nothing to do" in good(run, "overlay", "resize", "--dry-run", image, "100M")
    assert os.stat(image).st_size == 100 * MIB
    _, err = done(run, "overlay", "resize", image, "3G")
    assert err.startswith("a.img: needs up to ") and " more on the host; " in err and err.count("\n") == 1
    _, err = done(run, "overlay", "resize", "-v", "--size", "+200K", image)
    assert "(the filesystem has 3 GiB: the rest is too little for a group)" in err


def test_the_smallest_size(run: Run, image: str) -> None:
    plan = json.loads(good(run, "overlay", "resize", "--json", "--dry-run", "--minimum", image))
    least = plan["after"]["file_bytes"]
    assert 3 * MIB < least < 6 * MIB and os.stat(image).st_size == 24 * MIB
    assert f"give --size {-(-least // MIB)}M or more" in refused(run, "overlay", "resize", image, "2M")
    for slack, size in (("50M", least + 50 * MIB), ("5%", least + least // 20), ("2.5%", least + least // 40)):
        assert run("overlay", "resize", image, "--minimum", "--slack", slack)[0] == 0
        assert os.stat(image).st_size == size
    _, err = done(run, "overlay", "resize", "-v", "-M", image)
    assert f"{least / MIB:.1f} MiB, 1 -> 1 group, " in err and os.stat(image).st_size == least
    good(run, "overlay", "resize", image, "24M")
    good(run, "overlay", "resize", image, "--size", "-4M")
    assert os.stat(image).st_size == 20 * MIB and names_in(image) == [b"f"]


def test_json(run: Run, image: str) -> None:
    plan = json.loads(good(run, "overlay", "resize", "--json", "--dry-run", image, "60M"))
    resized = json.loads(good(run, "overlay", "resize", "--json", image, "60M"))
    assert (plan["dry_run"], resized["dry_run"], resized["unchanged"], resized["partition"]) == (True, False, False, None)
    assert plan["after"] == resized["after"] and plan["before"] == resized["before"]
    assert (resized["before"]["file_bytes"], resized["after"]["file_bytes"], resized["unused_bytes"]) == (24 * MIB, 60 * MIB, 0)
    assert json.loads(good(run, "overlay", "resize", "--json", image, "60M"))["unchanged"]


def test_a_filesystem_in_a_larger_file(run: Run, image: str) -> None:
    """Sizes are those of the filesystem; the file stays as it is."""
    Path("disk").write_bytes(bytes(MIB) + Path(image).read_bytes() + bytes(30 * MIB))
    words = ("overlay", "resize", "--offset", "1M", "disk")
    assert "disk: 24 MiB -> 30 MiB, 3 -> 4 groups, " in good(run, *words, "+6M", "--dry-run")
    _, err = done(run, *words, "-v", "+6M")
    assert "disk: 24 MiB -> 30 MiB, 3 -> 4 groups, " in err and "too little" not in err
    assert "nothing to do: it has 30 MiB already" in good(run, *words, "30M", "--dry-run")
    resized = json.loads(good(run, *words, "30M", "--json"))
    assert resized["unchanged"] and (resized["after"]["size_bytes"], resized["after"]["file_bytes"]) == (30 * MIB, 54 * MIB)
    assert "there are 54 MiB up to the end" in refused(run, *words, "60M", code=2)
    assert os.stat("disk").st_size == 55 * MIB


def test_a_file_that_is_larger_than_its_filesystem(run: Run, image: str) -> None:
    os.truncate(image, 60 * MIB)
    _, err = done(run, "overlay", "resize", "-v", image, "60M")
    assert "a.img: 24 MiB -> 60 MiB, 3 -> 8 groups, " in err


def test_the_largest_size_that_is_named_is_possible(run: Run, image: str) -> None:
    text = refused(run, "overlay", "resize", image, "100T")
    good(run, "overlay", "resize", "--dry-run", image, "--size", text.split("give --size ")[1].split()[0])


def test_a_sif(run: Run, image: str) -> None:
    good(run, "-q", "sif", "new", "a.sif")
    good(run, "-q", "sif", "add", "--parttype", "overlay", "a.sif", image)
    _, err = done(run, "overlay", "resize", "-v", "a.sif", "--size", "40M")
    assert "a.sif: object 1, " in err and "24 MiB -> 40 MiB" in err and "old place" not in err
    good(run, "-q", "sif", "add", "--datatype", "generic", "a.sif", "f")
    before = os.stat("a.sif").st_size
    assert "would move object 1 to the end of the image" in good(run, "overlay", "resize", "--dry-run", "a.sif", "50M")
    assert os.stat("a.sif").st_size == before
    out, err = done(run, "overlay", "resize", "--json", "a.sif", "50M")
    found = json.loads(out)
    assert found["partition"]["size_bytes"] == 50 * MIB and found["old_partition"]["size_bytes"] == 40 * MIB
    assert "a.sif: needs up to " in err and "beside the old one" in err
    _, err = done(run, "overlay", "resize", "-v", "a.sif", "60M", "--partition", "1")
    assert "old place" not in err
    good(run, "-q", "sif", "add", "--datatype", "generic", "a.sif", "f")
    _, err = done(run, "overlay", "resize", "-v", "a.sif", "70M")
    assert "its old place, 60 MiB at byte " in err and "sifkit sif compact" in err
    good(run, "sif", "check", "-q", "a.sif")
    assert good(run, "ls", "--partition", "overlay", "a.sif", "/upper") == "f\n"


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["700"], 2, "700 is blocks to resize2fs and MiB to apptainer; write 700M"),
        (["1.5"], 2, "write 1.5M"),
        (["+5"], 2, "write +5M"),
        (["0"], 2, "must be above 0"),
        (["-5M"], 2, "no such option -5; before a value that begins with a minus sign write --"),
        (["24MB"], 2, "SIZE 24MB"),
        (["--size", "x"], 2, "--size x"),
        (["--size", "+"], 2, "--size"),
        ([], 2, "give --size 700M, --size +200M or --minimum"),
        (["30M", "--size", "40M"], 2, "give one of them"),
        (["30M", "--minimum"], 2, "give one of them"),
        (["30M", "--slack", "5%"], 2, "--slack is for --minimum"),
        (["--minimum", "--slack", "x%"], 2, "write --slack 5%"),
        (["--minimum", "--slack", "x"], 2, "5% or 50M"),
        (["30M", "--dry-run", "--fsck"], 2, "give one of them"),
        (["2M"], 1, "the smallest is "),
        (["--size", "-23M"], 1, "M or more, or --minimum"),
        (["100T"], 1, "the largest size of this filesystem is "),
        (["30M", "--partition", "overlay"], 2, "not a SIF"),
        (["30M", "--offset", "1M"], 1, "no ext3 filesystem"),
    ],
)
def test_refusals(run: Run, image: str, argv: list[str], code: int, text: str) -> None:
    before = Path(image).read_bytes()
    assert text in refused(run, "overlay", "resize", image, *argv, code=code)
    assert Path(image).read_bytes() == before


def test_a_plan_for_an_image_in_use(run: Run, image: str) -> None:
    with Path(image).open("r+b") as file:
        lock_range(file.fileno(), write=True, path=image)
        assert "in use" in refused(run, "overlay", "resize", "--dry-run", image, "30M")


def test_a_check_is_needed(run: Run, image: str) -> None:
    data = bytearray(Path(image).read_bytes())
    SUPERBLOCK.view(data, 1, SUPERBLOCK_OFFSET)["s_state"] = 0
    Path(image).write_bytes(data)
    assert "; first: sifkit overlay fsck -fp a.img (--fsck does it)\n" in refused(run, "overlay", "resize", image, "30M")
    assert Path(image).read_bytes() == data
    good(run, "overlay", "resize", "--fsck", image, "30M")
    assert os.stat(image).st_size == 30 * MIB
