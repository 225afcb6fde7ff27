"""Containers of which a process is killed, or the whole job as a batch system does it: the image is consistent, what was synced
is there, nothing is left, and the next run starts as if nothing had happened.
"""

from __future__ import annotations

import os
import pty
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.plain_user import USER, run_sifkit, start_sifkit, user_directory
from tests.support.tools import assert_clean, attached, copy_window, has_ended, requires_root, run
from tests.support.usr_container import BIND_PROGRAMS, write_usr_container

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

STORM = """trap '' TERM
mkdir -p /d; echo synced >/d/kept; sync /d/kept; echo late $1 >/d/late; echo up; i=0
while echo $i >/d/$((i % 50)); do
    mv /d/$((i % 50)) /d/m$((i % 50)); rm -f /d/m$(((i + 25) % 50)); i=$((i + 1))
done"""
GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL of a job."""


@pytest.fixture(scope="module")
def folders() -> Iterator[dict[int, Path]]:
    """A folder for each user, with base.sif."""
    with user_directory(USER) as own, user_directory(0) as of_root:
        (own / "root/app").mkdir(parents=True)
        write_usr_container(own / "base.sif", own / "root")
        shutil.copy(own / "base.sif", of_root)
        yield {USER: own, 0: of_root}


def make_overlay(uid: int, folder: Path, kind: str) -> tuple[Path, int, list[str]]:
    """An overlay image, or a container with an overlay: the file, the offset of the filesystem, and the words to use it."""
    if kind == "image":
        (folder / "overlay.img").unlink(missing_ok=True)
        assert run_sifkit(uid, folder, "-q", "overlay", "create", "--size", "16M", "overlay.img")[0] == 0
        return folder / "overlay.img", 0, ["-o", "overlay.img", *BIND_PROGRAMS, "base.sif"]
    shutil.copy(folder / "base.sif", folder / "own.sif")
    os.chown(folder / "own.sif", uid, uid)
    assert run_sifkit(uid, folder, "-q", "overlay", "create", "--size", "16M", "own.sif")[0] == 0
    listed = run_sifkit(uid, folder, "sif", "list", "own.sif")[1].splitlines()
    offset = next(int(line.split()[3].partition("-")[0]) for line in listed if "Ext3" in line)
    return folder / "own.sif", offset, ["-w", *BIND_PROGRAMS, "own.sif"]


def processes_below(pid: int) -> list[int]:
    """A process and all that it has started, directly or not."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            found += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return found


def victims_of(kind: str, pids: list[int], image: Path) -> list[int]:
    """The processes of a kind among those of a run, its own first."""
    if kind in ("job", "all"):
        return pids
    if kind == "launch":
        return pids[:1]
    found = []
    for pid in pids[1:]:
        links = set()
        with suppress(FileNotFoundError, ProcessLookupError):  # programs that the command has run have ended meanwhile
            links = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
        serves, writes = "/dev/fuse" in links, str(image) in links
        if kind == ("image" if serves and writes else "root" if serves else "command"):
            found.append(pid)
    return found[:1]


def wait_until_gone(pids: list[int], image: Path) -> None:
    end = time.monotonic() + 20
    while not all(has_ended(pid) for pid in pids) or attached(image):
        assert time.monotonic() < end, "processes or loop devices are left"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("uid", "kind", "victims"),
    [
        (USER, "image", ("root", "image", "launch", "job")),
        (USER, "sif", ("all",)),
        (0, "image", ("launch", "job")),
        (0, "sif", ("all",)),
    ],
)
def test_a_kill_costs_no_more_than_the_last_changes(
    folders: dict[int, Path], uid: int, kind: str, victims: tuple[str, ...]
) -> None:
    folder = folders[uid]
    image, offset, words = make_overlay(uid, folder, kind)
    mounts = Path("/proc/self/mounts").read_text().count(str(folder))
    chance = random.Random(18)
    for victim in victims:
        with start_sifkit(uid, folder, "exec", *words, "sh", "-c", STORM, "sh", victim) as process:
            assert process.stdout is not None and process.stdout.readline() == b"up\n"
            time.sleep(chance.random() / 4)
            pids = processes_below(process.pid)
            killed = victims_of(victim, pids, image)
            assert killed
            if victim == "root":  # which the command need not notice
                killed += victims_of("command", pids, image)
            if victim == "job":
                for pid in killed:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
                time.sleep(GRACE)
            for pid in {*killed, *(processes_below(process.pid) if victim == "job" else ())}:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                _, err = process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode and b"Traceback" not in err
        wait_until_gone(pids, image)
        copy = copy_window(image, offset) if offset else Path(shutil.copy(image, folder / "copy.img"))
        run("e2fsck", "-p", copy, ok=(0, 1))
        assert_clean(copy)
        copy.unlink()
        code, out, err_text = run_sifkit(uid, folder, "exec", *words, "cat", "/d/kept", "/d/late")
        assert out.startswith("synced\n") and "in use" not in err_text
        if victim == "job":
            assert (code, out) == (0, "synced\nlate job\n")
    assert Path("/proc/self/mounts").read_text().count(str(folder)) == mounts


def test_ctrl_c_in_a_terminal_is_for_the_command_alone(folders: dict[int, Path]) -> None:
    folder = folders[USER]
    _, _, words = make_overlay(USER, folder, "image")
    script = "trap 'echo caught' INT; echo up; until read y && [ $y ]; do :; done; echo $y >/after; cat /after; exit 3"
    master, slave = pty.openpty()
    with start_sifkit(USER, folder, "exec", *words, "sh", "-c", script, terminal=slave) as process:
        os.close(slave)
        shown = read_until(master, b"up\r\n")
        os.write(master, b"\x03")
        shown += read_until(master, b"caught\r\n")
        os.write(master, b"\nafter\n")
        shown += read_until(master, b"")
        assert process.wait(30) == 3
    os.close(master)
    assert shown.count(b"caught") == 1 and shown.endswith(b"after\r\nafter\r\n")
    assert run_sifkit(USER, folder, "exec", *words, "cat", "/after") == (0, "after\n", "")


def read_until(terminal: int, text: bytes) -> bytes:
    """Output of a terminal up to a text, or with an empty one until nobody has it open."""
    shown = b""
    with suppress(OSError):
        while not text or text not in shown:
            shown += os.read(terminal, 1024)
    return shown
