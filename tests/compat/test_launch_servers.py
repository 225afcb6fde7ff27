"""Servers of a run: what they keep open, the signals that they outlive, and what is said if one is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sifkit.runtime.container.left_behind import LEFT_BEHIND_SECONDS
from sifkit.runtime.planning.run_plan import Layer, Upper
from tests.support.plan_runner import plan_of, start_plan
from tests.support.squashfs_images import make_squashfs
from tests.support.tools import assert_clean, has_ended, requires_root, run

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

VIEW_KIB = 30 << 10
"""Most memory of the server of a squashfs root, which loads neither numpy nor ext3."""
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000
"""For ``waitpid``: children or not."""
IN_JOBS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGXCPU, signal.SIGTSTP, signal.SIGALRM, signal.SIGRTMIN)
"""Signals that batch systems and terminals send to every process of a job."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    folder = tmp_path_factory.mktemp("base")
    (folder / "root/app").mkdir(parents=True)
    (folder / "root/app/message.txt").write_text("base\n")
    (folder / "root/app/other.txt").write_text("base\n")
    return Layer(path=str(make_squashfs(folder / "root", folder / "image.sqfs")), kind="squashfs")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    found = tmp_path / "overlay.img"
    run("mke2fs", "-q", "-t", "ext3", found, "8M")
    return found


def servers_of(process: subprocess.Popen[bytes]) -> dict[int, set[str]]:
    """Children of a run that have /dev/fuse open, and all that they have open."""
    found = {}
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        links = {os.readlink(link) for link in Path(f"/proc/{child}/fd").iterdir()}
        if "/dev/fuse" in links:
            found[int(child)] = links
    return found


def peak_memory(pid: int) -> int:
    """Most memory that a process has had, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def test_servers_hold_what_they_serve_and_outlive_the_signals_of_a_job(base: Layer, image: Path) -> None:
    script = "echo up; read x; cat /app/message.txt; echo more >>/app/other.txt; cat /app/other.txt"
    plan = plan_of("user", ["sh", "-c", script], [base], Upper(kind="image", path=str(image)))
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # as the pipes of a shell are
    with start_plan(plan, image.parent, stdin=subprocess.PIPE, close_fds=False) as process:
        os.close(writer)
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        found = servers_of(process)
        assert sorted(str(image) in links for links in found.values()) == [False, True]
        (view,) = (pid for pid, links in found.items() if str(image) not in links)
        assert "/numpy/" not in Path(f"/proc/{view}/maps").read_text() and peak_memory(view) <= VIEW_KIB
        pipe = os.readlink(f"/proc/self/fd/{reader}")
        assert not any(pipe in links for links in found.values())
        for pid in found:
            for number in IN_JOBS:
                os.kill(pid, number)
        out, err = process.communicate(b"\n", timeout=30)
    os.close(reader)
    assert (process.returncode, out, err) == (0, b"base\nbase\nmore\n", b"")
    assert_clean(image)


def test_servers_that_were_stopped_write_all_at_the_end(base: Layer, image: Path) -> None:
    plan = plan_of("user", ["sh", "-c", "echo new >/app/new; echo up; read x"], [base], Upper(kind="image", path=str(image)))
    with start_plan(plan, image.parent, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        found = servers_of(process)
        for pid in found:
            os.kill(pid, signal.SIGSTOP)
        out, err = process.communicate(b"\n", timeout=30)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert_clean(image)


def test_a_killed_server_of_the_root_is_said(base: Layer, tmp_path: Path) -> None:
    plan = plan_of("view", ["sh", "-c", "echo up; read x; cat /app/message.txt"], [base])
    with start_plan(plan, tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        (pid,) = servers_of(process)
        name, words = Path(f"/proc/{pid}/comm").read_text(), Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert name == "sifkit-fuse\n" and words[0] == b"sifkit-fuse" and os.fsencode(tmp_path) in b" ".join(words)
        os.kill(pid, signal.SIGKILL)
        while not has_ended(pid):
            time.sleep(0.01)
        out, err = process.communicate(b"\n", timeout=30)
    assert out == b"" and process.returncode == 1
    assert b"its server was killed by SIGKILL" in err and b"Traceback" not in err


def test_the_first_process_leads_nowhere(base: Layer, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root in the container could use what process 1 has open, and read its environment; its name says what it is."""
    monkeypatch.setenv("HOST_SECRET", "of the host")
    script = "ls /proc/1/fd; tr -d '\\0' </proc/1/environ | wc -c; ls /proc/1/root/app; ! grep -a SECRET /proc/1/environ"
    script = f"{script} && cat /proc/1/comm && tr -d '\\0' </proc/1/cmdline"
    plan = plan_of("root", ["sh", "-c", script], [base], Upper(kind="image", path=str(image)), namespaces=("pid",))
    with start_plan(plan, image.parent) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"0\nmessage.txt\nother.txt\nsifkit-init\nsifkit-init", b"")


def test_the_memory_of_the_first_process_is_closed(base: Layer) -> None:
    """Root of a user namespace may trace what runs in it; copies of the caller's variables are in that memory."""
    script = "for name in maps environ; do head -c 1 /proc/1/$name 2>/dev/null; done; ls /proc/1/root/"
    with start_plan(plan_of("view", ["sh", "-c", script], [base], namespaces=("pid",)), Path(base.path).parent) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, b"") and b"Permission denied" in err


@contextmanager
def halted(pid: int) -> Iterator[None]:
    """A process that does nothing, and that SIGCONT does not let go on: as one that waits for a slow disk."""
    libc, nothing = ctypes.CDLL(None), ctypes.c_void_p()
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        assert libc.ptrace(request, pid, nothing, nothing) == 0
    os.waitpid(pid, WALL)
    try:
        yield
    finally:
        libc.ptrace(PTRACE_DETACH, pid, nothing, nothing)


def test_the_end_of_a_run_waits_for_a_server_that_is_busy(base: Layer, image: Path) -> None:
    """Even longer than for processes left behind, of which there are none."""
    script = "ls -ld / >/dev/null; echo up; read x; exit 3"  # the kernel need not ask for the attributes again
    plan = plan_of("user", ["sh", "-c", script], [base], Upper(kind="image", path=str(image)))
    with start_plan(plan, image.parent, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"up\n"
        (writer,) = (pid for pid, links in servers_of(process).items() if str(image) in links)
        with halted(writer):
            process.stdin.close()
            time.sleep(LEFT_BEHIND_SECONDS + 0.5)
        assert (process.wait(30), process.stderr.read()) == (3, b"")
    assert_clean(image)
