"""``sifkit overlay fsck`` beside e2fsck on the same images: exit codes, locks, kills, full disks, other users."""

from __future__ import annotations

import csv
import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sifkit.cli import main
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.edit.edit_session import edit_image
from sifkit.overlay.options import CreateOptions

from ..support.fsck_damage import damage_counts, damage_pointer, set_superblock
from ..support.tools import NOBODY, assert_clean, corpus, kernel_mount, missing, require, requires_root
from ..support.tools import run as run_tool

ROOT = Path(__file__).parents[2]
CASES = corpus("e2fsprogs")
FATAL = re.compile(rb"Traceback")


def sifkit(*words: object, code: Sequence[int] | int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a command of ours in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sifkit", *map(str, words)]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, cwd=cwd, check=False)
    assert not FATAL.search(done.stderr), done.stderr
    assert done.returncode in ([code] if isinstance(code, int) else code), (words, done)
    return done


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "overlay.img"
    create(path, CreateOptions(size=8 << 20))
    with edit_image(path) as edited:
        for name in ("a", "b"):
            edited.filesystem.write_bytes(f"/upper/{name}", name.encode() * 5000)
    return path


def e2fsck(*words: object) -> int:
    return run_tool("e2fsck", *map(str, words), ok=range(256)).returncode


@pytest.mark.parametrize("mode", ["-n", "-p", "-y", "-fn", "-fp", "-fy"])
@pytest.mark.parametrize("damage", ["none", "count", "total", "pointer", "errors", "not valid", "mounts"])
def test_exit_codes(image: Path, mode: str, damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    require("e2fsck")
    if damage == "count":
        damage_counts(image)
    elif damage == "total":
        set_superblock(image, s_free_blocks_count=7)
    elif damage == "pointer":
        damage_pointer(image)
    elif damage == "errors":
        set_superblock(image, s_state=3)
    elif damage == "not valid":
        set_superblock(image, s_state=0)
    elif damage == "mounts":
        set_superblock(image, s_mnt_count=9, s_max_mnt_count=9)
    theirs, ours = Path(shutil.copyfile(image, tmp_path / "theirs")), Path(shutil.copyfile(image, tmp_path / "ours"))
    wanted = e2fsck(mode, theirs)
    assert main(["overlay", "fsck", mode, str(ours)]) == wanted
    if "n" in mode:
        assert ours.read_bytes() == image.read_bytes()
    elif wanted in (0, 1):
        assert e2fsck("-fn", ours) == e2fsck("-fn", theirs)
        if mode.startswith("-f"):
            assert_clean(ours)
    err = capfd.readouterr().err
    assert "Traceback" not in err and str(ours) in err


def test_an_image_that_is_cut_short(image: Path, tmp_path: Path) -> None:
    """It cannot be checked; e2fsck asks whether to go on, and with -y it does not."""
    require("e2fsck")
    os.truncate(image, 3 << 20)
    before = image.read_bytes()
    for mode in ("-p", "-y"):
        theirs, ours = Path(shutil.copyfile(image, tmp_path / "theirs")), Path(shutil.copyfile(image, tmp_path / "ours"))
        sifkit("overlay", "fsck", mode, ours, code=e2fsck(mode, theirs))
    done = sifkit("overlay", "fsck", "-n", image, code=8)
    assert b"cut short" in done.stderr + done.stdout and image.read_bytes() == before


def test_other_exit_codes(image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    require("e2fsck")
    text = tmp_path / "text"
    text.write_bytes(b"text" * 1000)
    for words in (
        ["-p", tmp_path / "none"],
        ["-n", text],
        ["-p", text],
        [image],
        ["-np", image],
        ["-C", "77", "-p", image],
        ["-Q", image],
    ):
        assert main(["overlay", "fsck", *map(str, words)]) == e2fsck(*words)
    assert "Traceback" not in capfd.readouterr().err


def cases() -> list[dict[str, str]]:
    try:
        with (CASES / "cases.csv").open(newline="") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


@pytest.mark.slow
def test_exit_codes_of_the_corpus(tmp_path: Path) -> None:
    """Those that e2fsck has, as the table of the corpus gives them."""
    if not cases():
        missing(f"there is no corpus in {CASES}")
    wrong = []
    for case in cases():
        data = gzip.decompress((CASES / case["case"] / "image.gz").read_bytes())
        for mode, column in (("-fy", "fsck_y_exit"), ("-fp", "fsck_p_exit")):
            path = tmp_path / "image"
            path.write_bytes(data)
            code = main(["-q", "overlay", "fsck", mode, str(path)])
            if str(code) != case[column]:
                wrong.append((case["case"], mode, code, case[column]))
            if mode == "-fy":
                after = main(["-q", "overlay", "fsck", "-fn", str(path)])
                if str(after) != case["fsck_n_after_exit"]:
                    wrong.append((case["case"], "-fn after", after, case["fsck_n_after_exit"]))
    assert not wrong


@pytest.mark.slow
def test_a_killed_check(image: Path, tmp_path: Path) -> None:
    """kill -9 while it writes: undo gives the image back, and another check ends clean."""
    require("e2fsck")
    damage_pointer(image)
    before = image.read_bytes()
    undone = 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for number in range(8):
        ours = Path(shutil.copyfile(image, tmp_path / "ours"))
        undo = tmp_path / f"undo-{number}"
        command = [sys.executable, "-m", "sifkit", "overlay", "fsck", "-fy", "-z", str(undo), str(ours)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not undo.exists() and process.poll() is None:
                time.sleep(0.0002)
            time.sleep(number / 2000)
            process.send_signal(signal.SIGKILL)
        again = Path(shutil.copyfile(ours, tmp_path / "again"))
        if undo.exists():
            undone += 1
            assert main(["-q", "overlay", "undo", str(undo), str(ours)]) == 0
        assert ours.read_bytes() == before
        assert main(["-q", "overlay", "fsck", "-fy", str(again)]) in (0, 1)
        assert_clean(again)
    assert undone


@requires_root
def test_a_full_disk_for_the_undo_file(image: Path, tmp_path: Path) -> None:
    damage_pointer(image)
    before = image.read_bytes()
    full = tmp_path / "full"
    full.mkdir()
    run_tool("mount", "-t", "tmpfs", "-o", "size=64K", "tmpfs", full)
    try:
        (full / "fill").write_bytes(bytes(62 << 10))
        done = sifkit("overlay", "fsck", "-fy", "-z", full / "undo", image, code=8)
        assert b"no space left for" in done.stderr and os.listdir(full) == ["fill"]
    finally:
        run_tool("umount", full)
    assert image.read_bytes() == before


@requires_root
def test_other_users(image: Path, tmp_path: Path) -> None:
    """Who may only read an image may look; nobody repairs what is read-only."""
    damage_pointer(image)
    before = image.read_bytes()
    os.chmod(image, 0o444)
    assert main(["-q", "overlay", "fsck", "-fn", str(image)]) == 4  # loads what the other user cannot read
    for words, wanted in ((["-fn"], 4), (["-fp"], 8), (["-fy"], 8), (["-fy", "-z", "undo"], 8)):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.chdir(tmp_path)  # its parents are not for everybody
                os.chmod(tmp_path, 0o755)
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                code = main(["-q", "overlay", "fsck", *words, image.name])
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == wanted
    assert image.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["overlay.img"]


@requires_root
def test_a_mounted_image(image: Path) -> None:
    with kernel_mount(image, rw=True) as point:
        done = sifkit("overlay", "fsck", "-p", image, code=8)
        assert b"is in use: mounted at" in done.stderr
        (point / "upper/new").write_bytes(b"x" * 100_000)
        done = sifkit("overlay", "fsck", "-n", image, code=(0, 4))
        assert done.stderr.startswith(b"sifkit overlay fsck: warning: ") and b"is in use" in done.stderr
    sifkit("overlay", "fsck", "-fn", image, code=0)


@requires_root
def test_a_journal_to_replay(image: Path, tmp_path: Path) -> None:
    """An image of a running kernel, as a power cut leaves it: our check, then the kernel's mount and e2fsck."""
    copy = tmp_path / "copy.img"
    with kernel_mount(image, rw=True) as point:
        for number in range(50):
            (point / f"upper/n{number}").write_bytes(b"%d" % number * 5000)
        (point / "upper/n7").unlink()
        run_tool("sync", "-f", point)
        shutil.copyfile(image, copy)
    other = Path(shutil.copyfile(copy, tmp_path / "other.img"))
    theirs = e2fsck("-p", other)
    done = sifkit("overlay", "fsck", "-p", "--json", copy, code=theirs)
    assert b'"replayed": ' in done.stdout
    assert_clean(copy)
    with kernel_mount(copy) as point:
        assert len(os.listdir(point / "upper")) == 51 and (point / "upper/n9").read_bytes() == b"9" * 5000


def test_an_undo_after_e2fsck_is_refused(image: Path, tmp_path: Path) -> None:
    require("e2fsck", "debugfs")
    damage_pointer(image)
    undo = tmp_path / "undo"
    sifkit("overlay", "fsck", "-fy", "-z", undo, image, code=1)
    time.sleep(1.1)
    e2fsck("-fy", image)
    kept = image.read_bytes()
    done = sifkit("overlay", "undo", undo, image, code=1)
    assert b"changed since" in done.stderr and image.read_bytes() == kept
