"""``--offset BYTES``: filesystems in larger files, for every verb that opens an image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ext3 import Filesystem
from sifkit.file_locks import lock_range
from sifkit.sif import SIF, DataType, FSType, PartType

from ....support.commands import Run, good, read_in, refused
from ....support.disks import fat_sector, write_gpt, write_mbr
from ....support.image_checks import check_counts
from ....support.sif_images import partition

MIB = 1 << 20
FIRST, SECOND = MIB, 10 * MIB
AT = ("--offset", str(SECOND))


@pytest.fixture
def disk(run: Run, overlay: Path, tmp_path: Path) -> Path:
    """A disk of 20 MiB with two partitions of 8 MiB each, and an overlay in the second."""
    (tmp_path / "f").write_bytes(b"content")
    good(run, "mkdir", "overlay.img:/upper/d")
    good(run, "cp", "f", "overlay.img:/upper/d/f")
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(20 * MIB)
        os.pwrite(file.fileno(), overlay.read_bytes(), SECOND)
    write_mbr(path, [(FIRST, 8 * MIB), (SECOND, 8 * MIB)])
    return path


@contextmanager
def inside(path: Path) -> Iterator[Filesystem]:
    with Filesystem.open(path, offset=SECOND) as fs:
        yield fs


def outside(path: Path) -> bytes:
    """What is not in the second partition."""
    raw = path.read_bytes()
    return raw[:SECOND] + raw[SECOND + 8 * MIB :]


READ = [
    ["ls", "disk.img"],
    ["ls", "--upper", "disk.img:/d"],
    ["tree", "disk.img"],
    ["find", "disk.img", "/upper"],
    ["stat", "disk.img", "/upper/d/f"],
    ["cat", "disk.img:/upper/d/f"],
    ["xattr", "list", "disk.img:/upper/d/f"],
    ["du", "-a", "disk.img"],
    ["df", "disk.img"],
    ["diff", "disk.img", "overlay.img"],
    ["diff", "overlay.img", "disk.img"],
    ["extract", "disk.img", "-C", "out"],
    ["cp", "-r", "disk.img:/upper", "copy"],
    ["check", "disk.img"],
    ["overlay", "info", "disk.img"],
    ["overlay", "export", "disk.img", "-o", "layer.tar"],
    ["overlay", "export", "disk.img", "-o", "layer/"],
    ["overlay", "clone", "disk.img", "new.img"],
]


@pytest.mark.slow
@pytest.mark.parametrize("words", READ, ids=lambda words: " ".join(words[:3]))
def test_reading(run: Run, disk: Path, words: list[str]) -> None:
    """The filesystem is found, and its content is that of the image it was copied from."""
    before = disk.read_bytes()
    code, out, err = run(*words, *AT)
    assert code == 0, err
    assert disk.read_bytes() == before
    want = run(*[word.replace("disk.img", "overlay.img") for word in words])[1]
    if words[0] == "check":
        assert out.startswith("disk.img: good: ext3, ") and out.split(", ")[-1] == want.split(", ")[-1]
    elif words[0] not in ("df", "overlay", "diff"):
        assert out.replace("disk.img", "overlay.img") == want
    if words[0] == "extract":
        assert Path("out/upper/d/f").read_bytes() == b"content"


@pytest.mark.parametrize("where", ["disk.img", "./disk.img"])
@pytest.mark.parametrize("size", ["10485760", "10M", "10MiB", "10240K"])
def test_sizes(run: Run, disk: Path, size: str, where: str) -> None:
    assert good(run, "cat", "--offset", size, where, "/upper/d/f") == "content"


EDIT = [
    ["cp", "f", "disk.img:/upper/new"],
    ["cp", "-a", "disk.img:/upper/d", "disk.img:/upper/again"],
    ["mkdir", "-p", "disk.img:/upper/x/y"],
    ["mv", "disk.img:/upper/d", "disk.img:/upper/moved"],
    ["ln", "-s", "f", "disk.img:/upper/link"],
    ["chmod", "600", "disk.img:/upper/d/f"],
    ["chown", "7:8", "disk.img:/upper/d/f"],
    ["xattr", "set", "user.x", "v", "disk.img:/upper/d/f"],
    ["rm", "-r", "disk.img:/upper/d"],
    ["rm", "--upper", "-r", "disk.img:/d"],
    ["overlay", "chown", "7:8", "disk.img"],
    ["overlay", "tune", "--label", "other", "disk.img"],
]


@pytest.mark.slow
@pytest.mark.parametrize("words", EDIT, ids=lambda words: " ".join(words[:2]))
def test_editing(run: Run, disk: Path, words: list[str]) -> None:
    """Only the partition changes, as the image by itself does."""
    before, around = disk.read_bytes(), outside(disk)
    code, _, err = run(*words, *AT)
    assert code == 0, err
    assert outside(disk) == around
    assert disk.read_bytes() != before
    with inside(disk) as fs:
        assert not fs.needs_recovery
        check_counts(fs)
        names = [path for path, _ in fs.walk()]
    assert run(*[word.replace("disk.img", "overlay.img") for word in words])[0] == 0
    with Filesystem.open("overlay.img") as fs:
        assert names == [path for path, _ in fs.walk()]


def test_an_image_without_a_journal(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is changed as a copy of the whole file."""
    monkeypatch.chdir(tmp_path)
    assert run("overlay", "create", "--size", "4M", "--no-journal", "nj.img")[0] == 0
    raw = (tmp_path / "nj.img").read_bytes()
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"before" * 1000 + bytes(SECOND - 6000) + raw + b"after" * 1000)
    good(run, "mkdir", *AT, "disk.img:/upper/new")
    found = disk.read_bytes()
    assert found[:6000] == b"before" * 1000 and found[-5000:] == b"after" * 1000 and len(found) == SECOND + len(raw) + 5000
    with inside(disk) as fs:
        assert fs.lookup("/upper/new")


def test_copies_between_images(run: Run, disk: Path) -> None:
    """The offset is for the file that begins with no image."""
    good(run, "cp", *AT, "disk.img:/upper/d/f", "overlay.img:/upper/out")
    assert read_in("overlay.img", "/upper/out") == b"content"
    good(run, "cp", *AT, "overlay.img:/upper/out", "disk.img:/upper/in")
    with inside(disk) as fs:
        assert fs.read_bytes("/upper/in") == b"content"
    good(run, "find", *AT, "overlay.img", "-newer", "disk.img:/upper/d/f")
    assert run("diff", *AT, "disk.img", "disk.img") == (0, "", "")


def test_an_image_behind_an_image(run: Run, disk: Path, tmp_path: Path) -> None:
    """A file that begins with a filesystem may have another one: with one image there is no doubt."""
    raw = Path("overlay.img").read_bytes()
    (tmp_path / "two.img").write_bytes(raw + bytes(SECOND - len(raw)) + raw)
    good(run, "mkdir", *AT, "two.img:/upper/second")
    assert "second" in good(run, "ls", *AT, "two.img", "/upper")
    assert "second" not in good(run, "ls", "two.img", "/upper")


def test_the_hint_is_an_option(run: Run, disk: Path) -> None:
    """What is said where no filesystem is can be typed."""
    for words in (
        ["ls", "disk.img"],
        ["mkdir", "disk.img:/x"],
        ["overlay", "info", "disk.img"],
        ["ls", "--offset", "5", "disk.img"],
    ):
        said = refused(run, *words)
        assert f"the file is a partitioned disk: give --offset {SECOND} (partition 2)" in said
    assert f"sector {SECOND // 512} is --offset {SECOND}" in refused(run, "ls", "--offset", str(SECOND // 512), "disk.img")
    code, out, _ = run("ls", "--json", "disk.img")
    assert code == 1
    assert json.loads(out)["error"]["hint"].endswith(f"give --offset {SECOND} (partition 2)")
    assert "list files with: sifkit ls --offset 10485760 disk.img" in refused(run, "cat", *AT, "disk.img", "/none")
    write_gpt(disk, [(FIRST, 8 * MIB), (SECOND, 8 * MIB)])
    assert f"--offset {SECOND} (partition 2)" in refused(run, "ls", "disk.img")


def test_a_fat_filesystem_is_no_partitioned_disk(run: Run, disk: Path) -> None:
    """Its boot sector has the same signature."""
    with disk.open("r+b") as file:
        file.write(fat_sector())
    assert refused(run, "ls", "disk.img").endswith("this looks like a FAT filesystem\n")


def test_a_filesystem_larger_than_its_partition(run: Run, disk: Path) -> None:
    """It would reach into what comes after: nothing is read or written."""
    write_mbr(disk, [(FIRST, 8 * MIB), (SECOND, 4 * MIB)])
    before = disk.read_bytes()
    for words in (["ls", "disk.img"], ["mkdir", "disk.img:/x"], ["overlay", "clone", "disk.img", "new.img"]):
        assert "the filesystem at byte 10485760 has 8 MiB, and there are 4 MiB up to" in refused(run, *words, *AT)
    write_mbr(disk, [(14 * MIB, 4 * MIB)])
    assert "there are 4 MiB up to" in refused(run, "ls", *AT, "disk.img")
    os.truncate(disk, 12 * MIB)
    write_mbr(disk, [])
    assert "there are 2 MiB up to" in refused(run, "ls", *AT, "disk.img")
    assert disk.read_bytes()[512:] == before[512 : 12 * MIB]


def test_offsets_that_cannot_be(run: Run, disk: Path) -> None:
    assert "ends at byte 20971520, before --offset 30000000" in refused(run, "ls", "--offset", "30000000", "disk.img")
    assert "not a size" in refused(run, "ls", "--offset", "-1", "disk.img", code=2)
    assert "not a size" in refused(run, "mkdir", "--offset", "x", "disk.img:/x", code=2)
    assert "give one of them" in refused(run, "ls", *AT, "--partition", "overlay", "disk.img", code=2)
    assert "--offset is for images" in refused(run, "ls", *AT, ".", code=2)
    for words in (["overlay.img", "disk.img"], ["."]):
        assert "--offset is for one image" in refused(run, "check", *AT, *words, code=2)
    assert "ends at byte 20971520, before --offset 30000000" in run("check", "--offset", "30000000", "disk.img")[1]
    assert run("check", "--offset", "0", "overlay.img")[:2] == run("check", "overlay.img")[:2]
    assert good(run, "ls", "--offset", "0", "overlay.img") == good(run, "ls", "overlay.img")


def test_locks(run: Run, disk: Path) -> None:
    """They are on the file: who uses any part of it keeps editors away; readers take none."""
    fd = os.open(disk, os.O_RDWR)
    try:
        for offset, size in ((0, 0), (SECOND, 8 * MIB), (FIRST, MIB)):
            if not lock_range(fd, write=True, offset=offset, size=size):
                pytest.skip("no locks here")
            assert "in use" in refused(run, "mkdir", *AT, "disk.img:/x")
            good(run, "ls", *AT, "disk.img")
            os.close(fd)
            fd = os.open(disk, os.O_RDWR)
    finally:
        os.close(fd)
    good(run, "mkdir", *AT, "disk.img:/upper/x")


def test_clone_and_attach(run: Run, disk: Path, tmp_path: Path) -> None:
    """The filesystem is copied, not the file around it."""
    good(run, "overlay", "clone", *AT, "disk.img", "new.img")
    assert (tmp_path / "new.img").read_bytes() == disk.read_bytes()[SECOND : SECOND + 8 * MIB]
    assert run("overlay", "clone", "--new-uuid", *AT, "disk.img", "other.img")[0] == 0
    with SIF.create(tmp_path / "a.sif") as sif:
        sif.add(b"root" * 300, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
    assert "leave out --move" in refused(run, "overlay", "attach", "--move", *AT, "a.sif", "disk.img", code=2)
    code, _, err = run("overlay", "attach", *AT, "a.sif", "disk.img")
    assert code == 0, err
    with SIF.open(tmp_path / "a.sif") as sif:
        assert sif.read(sif.overlays[0].id) == (tmp_path / "new.img").read_bytes()
    assert good(run, "cat", "--partition", "overlay", "a.sif:/upper/d/f") == "content"


def test_partitions_of_a_sif(run: Run, disk: Path, tmp_path: Path) -> None:
    """The offset of a partition is another name of it: signatures and locks are respected as with --partition."""
    path = tmp_path / "a.sif"
    with SIF.create(path) as sif:
        sif.add(b"root" * 300, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
        metadata = partition(PartType.OVERLAY, FSType.EXT3)
        offset = sif.add(tmp_path / "overlay.img", DataType.PARTITION, group=1, metadata=metadata).offset
    good(run, "mkdir", "--offset", str(offset), "a.sif:/upper/new")
    assert "new" in good(run, "ls", "--partition", "overlay", "a.sif", "/upper")
    assert "new" in good(run, "ls", "--offset", str(offset), "a.sif", "/upper")
    assert "no partition begins at byte 4096" in refused(run, "ls", "--offset", "4096", "a.sif")
    assert "no partition begins at byte 4096" in refused(run, "mkdir", "--offset", "4096", "a.sif:/x")
