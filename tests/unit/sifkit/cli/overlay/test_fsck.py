"""``sifkit overlay fsck``: exit codes of e2fsck, what is printed, images in use, images that cannot be opened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from ext3.device.base import FileDevice
from ext3.format.superblock import read_superblock
from sifkit.file_locks import lock_range
from sifkit.overlay.edit.edit_session import edit_image

from .....support.commands import Run, refused
from .....support.fsck_damage import damage_counts, damage_pointer, set_superblock

POINTER = "i_block[0]"


@pytest.fixture
def image(overlay: Path) -> Path:
    """overlay.img with a few files."""
    with edit_image("overlay.img") as edited:
        for name in ("a", "b", "c"):
            edited.filesystem.write_bytes(f"/upper/{name}", name.encode() * 3000)
    return overlay


def test_a_clean_image_is_skipped_or_checked(run: Run, image: Path) -> None:
    before = image.read_bytes()
    for words in (["-n"], ["-p"], ["-a"], ["-y"], ["-fn"]):
        code, out, err = run("overlay", "fsck", *words, image)
        assert (code, out) == (0, "")
        assert err.startswith(f"{image}: clean, 16/2048 files") and err.endswith(" blocks\n") and err.count("\n") == 1
        assert ("non-contiguous" in err) == ("f" in words[0])
        assert image.read_bytes() == before
    for words in (["-fp"], ["-fy"], ["-f", "-y", "-v", "-t"]):
        code, out, err = run("overlay", "fsck", *words, image)
        assert (code, out) == (0, "") and f"{image}: clean, 16/2048 files (" in err
    assert "Pass 1: inodes" in err and "Pass 5: bitmaps" in err and "pass 2: 0." in err and "inodes used" in err


def test_safe_repairs(run: Run, image: Path) -> None:
    damage_counts(image)
    before = image.read_bytes()
    code, out, err = run("overlay", "fsck", "-n", image)
    assert (code, out) == (0, "") and "clean" in err  # as e2fsck: it says that it is
    code, out, err = run("overlay", "fsck", "-fn", image)
    assert code == 4 and out.startswith("group 0: free blocks count is ") and out.endswith("; repair: set it\n")
    assert f"{image}: 1 problem found, " in err and f"repair with: sifkit overlay fsck -p {image}" in err
    assert image.read_bytes() == before
    code, out, err = run("overlay", "fsck", "-fp", image)
    assert code == 1 and out.endswith("; repaired: set it\n") and "1 problem repaired, clean" in err
    assert run("overlay", "fsck", "-fn", image)[0] == 0


def test_a_repair_that_is_not_safe(run: Run, image: Path) -> None:
    ino = damage_pointer(image)
    code, out, err = run("overlay", "fsck", "-fn", image)
    assert code == 4 and f"inode {ino}" in out and "(/upper/a)" in out and POINTER in out
    code, out, err = run("overlay", "fsck", "-fp", image)
    assert code == 4 and "; not repaired: " in out and f"sifkit overlay fsck -y {image}" in err and "stopped" in err
    code, out, err = run("overlay", "fsck", "-p", image)
    assert code == 4, "an image at which a check stopped is checked again"
    code, out, err = run("overlay", "fsck", "-y", image)
    assert code == 1 and "problems repaired, clean" in err
    assert run("overlay", "fsck", "-fn", image)[:2] == (0, "")


def test_quiet(run: Run, image: Path) -> None:
    damage_counts(image)
    code, out, err = run("-q", "overlay", "fsck", "-fp", image)
    assert (code, out.count("\n"), err) == (1, 1, "")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["-c", "-p", "overlay.img"], 16, "-c is not needed for an image file; omit it"),
        (["-l", "f", "-p", "overlay.img"], 16, "-l is not needed for an image file; omit it"),
        (["-L", "f", "-p", "overlay.img"], 16, "-L is not needed for an image file; omit it"),
        (["-k", "-p", "overlay.img"], 16, "-k is not needed for an image file; omit it"),
        (["-j", "f", "-p", "overlay.img"], 16, "-j is not needed for an image file; omit it"),
        (["-E", "discard", "-p", "overlay.img"], 16, "-E discard is not needed for an image file; -E journal_only is known"),
        (["-b", "x", "-p", "overlay.img"], 16, "-b x: not a number; write -b 8193"),
        (["-B", "1000", "-p", "overlay.img"], 16, "-B 1000: not a block size; write -B 1024, 2048 or 4096"),
        (["-C", "x", "-p", "overlay.img"], 16, "-C x: not a number"),
        (["--foo", "overlay.img"], 16, "no such option --foo; see sifkit overlay fsck -h"),
        (["-p"], 16, "IMAGE is missing; see sifkit overlay fsck -h"),
        (["-p", "overlay.img", "x"], 16, "too many arguments: x; see sifkit overlay fsck -h"),
        (["-p", "--drop-signatures", "--keep-broken-signatures", "overlay.img"], 16, "contradict each other"),
        (["-p", "--partition", "overlay", "overlay.img"], 16, "is not a SIF image"),
        (["-np", "overlay.img"], 8, "only one of -n, -p and -y can be given"),
        (["-ya", "overlay.img"], 8, "only one of -n, -p and -y can be given"),
        (["-nD", "overlay.img"], 8, "-n changes nothing, and -D rebuilds directories; give one of them"),
        (["-C", "77", "-p", "overlay.img"], 8, "-C 77: no such open descriptor"),
        (["overlay.img"], 8, "no terminal to ask: use -p (safe repairs), -y (all) or -n (look only)"),
        (["-p", "missing"], 8, "missing: No such file or directory"),
        (["-n", "missing"], 8, "missing: No such file or directory"),
        (["-n", "."], 8, ". is a directory, not an image"),
        (["-n", "text"], 8, "no ext3 filesystem: there is no superblock at byte 1024; give a stand-alone ext3 image"),
        (["-y", "text"], 8, "no ext3 filesystem: there is no superblock at byte 1024; give a stand-alone ext3 image"),
        (["-y", "root.sqfs"], 8, "root.sqfs is a squashfs image, not ext3; give an ext3 image"),
        (["-y", "empty.sif"], 8, "empty.sif has no overlay; create one with: sifkit overlay create --size 500M empty.sif"),
        (["-y", "-z", "text", "overlay.img"], 8, "text exists; give another name"),
        (["-y", "-z", "no/such", "overlay.img"], 8, "the directory no does not exist"),
    ],
)
def test_what_cannot_be_run(run: Run, image: Path, words: list[str], code: int, says: str) -> None:
    Path("text").write_bytes(b"text" * 1000)
    Path("root.sqfs").write_bytes(b"hsqs" + bytes(4092))
    assert run("sif", "new", "empty.sif")[0] == 0
    before = image.read_bytes()
    assert says in refused(run, "overlay", "fsck", *words, code=code)
    found, out, err = run("overlay", "fsck", "--json", *words)
    assert (found, err) == (code, "") and says.partition(";")[0] in json.loads(out)["error"]["message"] + " " + says.split(";")[
        0
    ]
    assert image.read_bytes() == before


def test_an_image_with_features_of_ext4(run: Run, image: Path) -> None:
    set_superblock(image, s_feature_incompat=0x42)
    assert "features that are not ext3: extent" in refused(run, "overlay", "fsck", "-y", image, code=8)


def test_a_version(run: Run) -> None:
    code, out, _ = run("overlay", "fsck", "-V")
    assert code == 0 and out.startswith("sifkit ")


def test_help_leaves_out_what_is_not_needed(run: Run) -> None:
    _, out, err = run("overlay", "fsck", "-h")
    assert "  -n  " in out + err and " -k" not in out + err and "UnneededFlags" not in out + err


@pytest.mark.skipif(sys.platform != "linux", reason="locks of open files are Linux's")
def test_an_image_in_use(run: Run, image: Path) -> None:
    damage_counts(image)
    before = image.read_bytes()
    fd = os.open(image, os.O_RDWR)
    try:
        assert lock_range(fd, write=True, path=str(image))
        for mode in ("-p", "-y"):
            said = refused(run, "overlay", "fsck", "-f", mode, image, code=8)
            assert f"overlay.img is in use: locked for writing by process {os.getpid()}" in said
        code, out, err = run("overlay", "fsck", "-fn", image)
        assert code == 4 and out.count("\n") == 1
        assert err.splitlines()[0].startswith(f"sifkit overlay fsck: warning: {image} is in use: locked for writing by process")
        code, out, err = run("overlay", "fsck", "-fn", "--json", image)
        assert json.loads(out.splitlines()[-1])["in_use"] is True
    finally:
        os.close(fd)
    assert image.read_bytes() == before
    code, out, _ = run("overlay", "fsck", "-fn", "--json", image)
    assert json.loads(out.splitlines()[-1])["in_use"] is False


@pytest.mark.skipif(sys.platform != "linux", reason="locks of open files are Linux's")
def test_waiting_for_an_image(run: Run, image: Path) -> None:
    fd = os.open(image, os.O_RDWR)
    try:
        assert lock_range(fd, write=True, path=str(image))
        code, _, err = run("overlay", "fsck", "-p", "--wait", "0.2", image)
        assert code == 8 and "waiting up to 0.2 s" in err
    finally:
        os.close(fd)


def test_looking_opens_the_image_for_reading(run: Run, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def read_only(path: str, flags: int, *rest: int, **more: int) -> int:
        if os.fspath(path) == str(image) and flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *rest, **more)

    damage_counts(image)
    set_superblock(image, s_state=0)
    monkeypatch.setattr(os, "open", read_only)
    assert run("overlay", "fsck", "-n", image)[0] == 4
    said = refused(run, "overlay", "fsck", "-p", image, code=8)
    assert f"{image}: Permission denied; check its owner and permissions" in said


def test_progress_on_a_descriptor(run: Run, image: Path) -> None:
    read, write = os.pipe()
    try:
        assert run("overlay", "fsck", "-fp", "-C", str(write), image)[0] == 0
        lines = os.read(read, 1 << 16).decode().splitlines()
    finally:
        os.close(read)
        os.close(write)
    passes = [int(line.split()[0]) for line in lines]
    assert passes == sorted(passes) and set(passes) >= {1, 3, 4, 5}
    for line in lines:
        _, done, total, name = line.split()
        assert int(done) <= int(total) and name == str(image)
    code, _, err = run("overlay", "fsck", "-fp", "--progress", "json", image)
    shown = [json.loads(line)["progress"] for line in err.splitlines() if line[0] == "{"]
    assert code == 0 and {one["phase"] for one in shown} >= {"pass 1", "pass 5", "done"}
    assert all(one["done"] <= one["total"] for one in shown)


def test_the_end_of_a_pipe(run: Run, image: Path) -> None:
    code, out, _ = run("overlay", "fsck", "-fp", "-C", "1", image)
    assert code == 0 and out.startswith("1 ")


def test_a_larger_file(run: Run, image: Path) -> None:
    damage_counts(image)
    Path("disk.img").write_bytes(bytes(1 << 20) + image.read_bytes())
    code, _, err = run("overlay", "fsck", "-fn", "--offset", "1048576", "disk.img")
    assert code == 4 and "sifkit overlay fsck -p --offset 1048576 disk.img" in err
    assert run("overlay", "fsck", "-fp", "--offset", "1048576", "disk.img")[0] == 1
    assert run("overlay", "fsck", "-fn", "--offset", "1048576", "disk.img")[0] == 0
    assert not any(Path("disk.img").read_bytes()[: 1 << 20])


def test_a_lost_superblock(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "big.img"
    assert run("overlay", "create", "-s", "20M", "-b", "1024", path)[0] == 0
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), bytes(1024), 1024)
    code, out, err = run("ls", path)
    assert code == 1 and f"a copy of the superblock is in block 8193: sifkit overlay fsck -p -b 8193 -B 1024 {path}" in err
    code, out, err = run("overlay", "fsck", "-n", path)
    assert code == 4, (out, err)
    other = shutil.copyfile(path, tmp_path / "other.img")
    assert run("overlay", "fsck", "-y", path)[0] == 1
    assert run("overlay", "fsck", "-fn", path)[0] == 0
    assert run("overlay", "fsck", "-p", "-b", "8193", "-B", "1024", other)[0] in (0, 1)
    assert run("overlay", "fsck", "-fn", other)[0] == 0


def test_repairs_are_reproducible(run: Run, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage_pointer(image)
    other = Path(shutil.copyfile(image, "other.img"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for path in (image, other):
        assert run("overlay", "fsck", "-fy", path)[0] == 1
    assert image.read_bytes() == other.read_bytes()
    with image.open("rb") as file:
        assert read_superblock(FileDevice(file.fileno())).check_time == 1_700_000_000


def test_only_the_journal(run: Run, image: Path) -> None:
    damage_pointer(image)
    for words in (["--journal-only"], ["-E", "journal_only"], ["-f", "-E", "journal_only"]):
        code, out, _ = run("overlay", "fsck", "-p", *words, image)
        assert (code, out) == (0, "")


def test_an_interrupt_during_the_passes(run: Run, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage_counts(image)
    damage_pointer(image)
    before = image.read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ext3.fsck.checking._PASSES", (("1", interrupted),))
    code, out, err = run("overlay", "fsck", "-fy", "-z", "undo", image)
    assert (code, out) == (32, "") and err == "sifkit overlay fsck: interrupted; the image is as it was\n"
    assert image.read_bytes() == before and not os.path.exists("undo")


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs pthread_sigmask")
@pytest.mark.parametrize("number", range(4))
def test_an_interrupt_during_the_writes(run: Run, image: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """It waits until the repairs are on storage: nothing is half done."""
    damage_pointer(image)
    real = FileDevice.write
    left = [number]

    def write(self: FileDevice, offset: int, data: bytes) -> None:
        real(self, offset, data)
        if not left[0]:
            signal.raise_signal(signal.SIGINT)
        left[0] -= 1

    with monkeypatch.context() as patched:
        patched.setattr(FileDevice, "write", write)
        code, _, err = run("overlay", "fsck", "-fy", image)
    assert left[0] < 0
    assert code == 32 and err == "sifkit overlay fsck: interrupted; what was repaired is kept, run it again\n"
    assert run("overlay", "fsck", "-fn", image)[0] == 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["cp", "text", "overlay.img:/upper/x"], "repair it with: sifkit overlay fsck -fp overlay.img"),
        (
            ["rm", "--offset", "1048576", "disk.img:/upper/a"],
            "repair it with: sifkit overlay fsck -fp --offset 1048576 disk.img",
        ),
        (["rm", "--upper", "overlay.img:/a"], "repair it with: sifkit overlay fsck -fp overlay.img"),
        (["overlay", "attach", "a.sif", "overlay.img"], "repair it with: sifkit overlay fsck -fp overlay.img"),
    ],
)
def test_commands_that_refuse_a_damaged_image_name_the_check(run: Run, image: Path, words: list[str], hint: str) -> None:
    set_superblock(image, s_state=3)
    Path("text").write_bytes(b"text")
    Path("disk.img").write_bytes(bytes(1 << 20) + image.read_bytes())
    assert run("sif", "new", "a.sif")[0] == 0
    assert refused(run, *words).endswith(f"; {hint}\n")
    given = hint.partition("sifkit ")[2].split()
    assert run(*given)[0] in (0, 1)
    assert run(*words)[0] == 0


def test_info_says_whether_a_check_is_needed(run: Run, image: Path) -> None:
    def said() -> tuple[bool | None, str | None]:
        code, out, _ = run("overlay", "info", "--json", "overlay.img")
        found = json.loads(out)
        assert code == 0
        return found["check"]["needed"], found["check"]["reason"]

    assert said() == (False, None) and "check      not needed\n" in run("overlay", "info", image)[1]
    damage_counts(image)
    assert said() == (True, "the free counts are not those of the bitmaps")
    set_superblock(image, s_state=3)
    assert said() == (True, "the filesystem is marked as having errors")
    set_superblock(image, s_state=0)
    assert said() == (True, "the filesystem was not cleanly unmounted")
    out = run("overlay", "info", image)[1]
    assert "check      needed: the filesystem was not cleanly unmounted\n" in out and "sifkit overlay fsck -p" in out
    fd = os.open(image, os.O_RDWR)
    try:
        if lock_range(fd, write=True, path=str(image)):
            assert said() == (None, None)
    finally:
        os.close(fd)
    assert run("overlay", "fsck", "-p", image)[0] == 1
    assert said() == (False, None)
