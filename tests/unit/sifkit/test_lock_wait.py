"""Waiting for images in use: until they are free, or the time is used up; the holder of a lock is named."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sifkit import in_use, lock_wait
from sifkit.cli.root import root
from sifkit.errors import ImageInUseError
from sifkit.file_locks import lock_range
from sifkit.in_use import ImageUse, LockHolder, host_name, image_use
from sifkit.lock_wait import retry_in_use, wait_for_images, without_waiting
from sifkit.replacing import ANY_FILE
from sifkit.sif import SIF

from ...support.commands import Run, good, names_in, refused
from ...support.platforms import linux_locks

pytestmark = linux_locks

HOLD = """
import sys
from sifkit.file_locks import lock_range
file = open(sys.argv[1], "rb+")
assert lock_range(file.fileno(), write=True)
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that locks the file, until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "locked\n"
        try:
            yield holder
        finally:
            if not holder.stdin.closed:
                holder.stdin.close()


@contextmanager
def released_soon(path: str) -> Iterator[None]:
    """As ``held``, released after a moment."""
    with held(path) as holder:
        assert holder.stdin is not None
        timer = threading.Timer(0.3, holder.stdin.close)
        timer.start()
        try:
            yield
        finally:
            timer.join()


@pytest.fixture
def image(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_text("f")
    good(run, "-q", "overlay", "create", "--size", "24M", "a.img")
    good(run, "-q", "sif", "new", "a.sif")
    good(run, "-q", "sif", "new", "b.sif")
    good(run, "-q", "sif", "add", "--parttype", "overlay", "a.sif", "a.img")
    return "a.img"


COMMANDS = [
    ("a.img", ["cp", "f", "a.img:/upper/"]),
    ("a.img", ["overlay", "clone", "a.img", "b.img"]),
    ("a.img", ["overlay", "trim", "a.img"]),
    ("a.img", ["overlay", "create", "--size", "24M", "--force", "a.img"]),
    ("a.img", ["overlay", "attach", "b.sif", "a.img"]),
    ("b.sif", ["overlay", "attach", "b.sif", "a.img"]),
    ("a.sif", ["overlay", "detach", "a.sif", "-o", "c.img"]),
    ("a.sif", ["rm", "-f", "--partition", "overlay", "a.sif:/upper/x"]),
    ("a.sif", ["sif", "add", "--datatype", "generic", "a.sif", "f"]),
    ("a.sif", ["sif", "del", "1", "a.sif"]),
    ("a.sif", ["sif", "compact", "a.sif"]),
    ("a.sif", ["sif", "new", "--force", "a.sif"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("locked", "argv"), COMMANDS, ids=[" ".join(argv[:3]) for _, argv in COMMANDS])
def test_a_command_waits(run: Run, image: str, locked: str, argv: list[str]) -> None:
    with released_soon(locked):
        code, _, err = run(*argv, "--wait", "60")
    assert code == 0, err
    assert err.count("; waiting up to 60 s\n") == 1 and "in use" in err


@pytest.mark.slow
@pytest.mark.parametrize(("locked", "argv"), COMMANDS[:3])
def test_a_wait_ends(run: Run, image: str, locked: str, argv: list[str]) -> None:
    with held(locked) as holder:
        code, out, err = run("-q", *argv, "--wait", "0.2")
        assert (code, out) == (1, "")
        assert f"locked for writing by process {holder.pid} (" in err and f"on {host_name()}" in err
        assert "waited 0.2 s; wait longer, or stop the container that uses it" in err
        assert "wait for it with --wait SECONDS" in refused(run, *argv)
    assert names_in(image) == []


@pytest.mark.parametrize("text", ["x", "-1", "1m", "nan", "1e3"])
def test_not_seconds(run: Run, image: str, text: str) -> None:
    assert "not a number of seconds" in refused(run, "cp", "f", "a.img:/upper/", f"--wait={text}", code=2)


def test_every_command_that_locks_has_the_option() -> None:
    """What takes --require-lock, changes an image or replaces a file."""
    words = {"--require-lock", "--drop-signatures", "--force", "--repair"}
    missing = []
    for entry in root.verbs:
        found = root.get_command(None, entry.name)
        commands = [found.get_command(None, sub.name) for sub in found.verbs] if entry.group else [found]
        for command in commands:
            options = {name for param in command.params for name in param.opts}
            if options & words and "--wait" not in options:
                missing.append((entry.name, command.name))
    assert not missing


def test_all_waits_together() -> None:
    def fail() -> None:
        raise ImageInUseError("in use", path="a")

    told: list[str] = []
    began = time.monotonic()
    with wait_for_images(0.1, lambda error: told.append(str(error))):
        for _ in range(50):
            with pytest.raises(ImageInUseError, match="in use"):
                retry_in_use(fail)
    assert told == ["in use"] and time.monotonic() - began < 4
    with pytest.raises(ImageInUseError):
        retry_in_use(fail)


def test_a_question_does_not_wait(image: str) -> None:
    attempts = []

    def fail() -> None:
        attempts.append(1)
        raise ImageInUseError("in use")

    with wait_for_images(1000), without_waiting(), pytest.raises(ImageInUseError):
        retry_in_use(fail)
    assert attempts == [1]
    with held(image), wait_for_images(1000):
        assert not ANY_FILE.allows(image)


def test_where_a_holder_is(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder that cannot be seen: /proc/locks tells whether this host has it, or a node of a network filesystem."""
    host = re.escape(host_name())
    with held(image) as holder:
        assert re.fullmatch(f"locked for writing by process {holder.pid} \\(.*\\) on {host}", image_use(image).describe())
        monkeypatch.setattr(in_use, "_lock_holders", lambda *args: iter(()))
        hidden = image_use(image)
        assert re.fullmatch(f"locked for writing by a process on {host} that cannot be seen.*", hidden.describe())
        (tmp_path / "locks").write_text(f"1: OFDLCK ADVISORY  WRITE -1 00:01:{os.stat(image).st_ino}1 0 EOF\n")
        monkeypatch.setattr(in_use, "LOCKS", os.fspath(tmp_path / "locks"))
        text = f"locked for writing; no holder on this host ({host_name()}): another node has it"
        assert image_use(image).describe() == text
        monkeypatch.setattr(in_use, "LOCKS", os.fspath(tmp_path / "none"))
        assert image_use(image).describe() == "locked for writing"
    assert image_use(image) == ImageUse("none")


def test_a_fuse_server_is_a_user(run: Run, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """fuse2fs takes no lock: an edit would damage what it has mounted."""
    monkeypatch.setattr(in_use, "fuse_servers", lambda found: iter([LockHolder(1, "fuse2fs", "write")]))
    before = Path(image).read_bytes()
    assert "mounted by process 1 (fuse2fs)" in refused(run, "cp", "f", "a.img:/upper/")
    assert "mounted by process 1 (fuse2fs)" in refused(run, "rm", "-f", "--partition", "overlay", "a.sif:/upper/x")
    assert Path(image).read_bytes() == before


FUSE_COMMANDS = [
    ["overlay", "attach", "b.sif", "a.img"],
    ["overlay", "attach", "--move", "b.sif", "a.img"],
    ["overlay", "clone", "a.img", "c.img"],
    ["overlay", "detach", "a.sif", "-o", "c.img"],
    ["overlay", "detach", "--keep", "a.sif", "-o", "c.img"],
    ["sif", "del", "1", "a.sif"],
    ["sif", "replace", "1", "a.sif", "f"],
    ["sif", "compact", "a.sif"],
]


@pytest.mark.parametrize("argv", FUSE_COMMANDS, ids=" ".join)
def test_what_a_fuse_server_writes_to_is_kept(run: Run, image: str, monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    """It is neither copied, deleted, moved nor replaced: fuse2fs would get I/O errors, or write to a file without a name."""
    names, before = {"a.img", "a.sif", "b.sif", "f"}, Path("a.sif").read_bytes()
    served = os.stat(argv[-1] if argv[1] == "attach" else next(word for word in argv if word[:2] == "a."))
    with monkeypatch.context() as patch:
        server = LockHolder(1, "fuse2fs", "write")
        patch.setattr(in_use, "fuse_servers", lambda found: iter([server] if os.path.samestat(found, served) else []))
        assert "mounted by process 1 (fuse2fs)" in refused(run, "-q", *argv)
    assert set(os.listdir()) == names and Path("a.sif").read_bytes() == before

    calls: list[os.stat_result] = []

    def ends(found: os.stat_result) -> Iterator[LockHolder]:
        if os.path.samestat(found, served):
            calls.append(found)
            if len(calls) < 3:
                yield server

    monkeypatch.setattr(in_use, "fuse_servers", ends)
    code, _, err = run(*argv, "--wait", "60")
    assert code == 0 and err.count("; waiting up to 60 s\n") == 1, err


@pytest.mark.parametrize("argv", [FUSE_COMMANDS[0], FUSE_COMMANDS[2], FUSE_COMMANDS[4]], ids=" ".join)
def test_what_a_fuse_server_reads_is_copied(run: Run, image: str, monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    monkeypatch.setattr(in_use, "fuse_servers", lambda found: iter([LockHolder(1, "fuse2fs", "read")]))
    assert run("-q", *argv)[0] == 0


def test_what_a_fuse_server_reads_is_not_moved(run: Run, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_use, "fuse_servers", lambda found: iter([LockHolder(1, "fuse2fs", "read")]))
    assert "mounted by process 1 (fuse2fs)" in refused(run, "-q", "overlay", "attach", "--move", "b.sif", "a.img")
    assert os.path.exists("a.img")


def test_the_library_keeps_a_partition_that_is_served(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls it, the image is checked that is open."""
    monkeypatch.setattr(in_use, "fuse_servers", lambda found: iter([LockHolder(1, "fuse2fs", "write")]))
    with SIF.open("a.sif", "r+") as sif:
        with pytest.raises(ImageInUseError, match=r"object 1 is in use: mounted by process 1 \(fuse2fs\)"):
            sif.delete(1)
        assert [one.id for one in sif] == [1]


def test_a_lock_of_this_process(image: str) -> None:
    with open(image, "rb+") as first, open(image, "rb+") as second:
        assert lock_range(first.fileno(), write=True)
        threading.Timer(0.2, first.close).start()
        with wait_for_images(60):
            assert lock_range(second.fileno(), write=True, path=image)


@contextmanager
def passing_lock(path: str, seconds: float) -> Iterator[None]:
    """A lock of a file that no process has open, as after a close while another process looks at it; released soon."""
    ours, theirs = socket.socketpair()
    with open(path, "rb+") as file:
        assert lock_range(file.fileno(), write=True)
        socket.send_fds(ours, [b"x"], [file.fileno()])  # the message keeps it

    def release() -> None:
        ours.close()
        theirs.close()

    timer = threading.Timer(seconds, release)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        release()
        timer.join()


def test_a_lock_that_passes_is_no_use_of_the_image(run: Run, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_wait, "PASSING_SECONDS", 20)  # however busy this host is
    for words in (["cp", "f", "a.img:/upper/"], ["overlay", "resize", "a.img", "30M"], ["overlay", "fsck", "-fy", "a.img"]):
        with passing_lock("a.img", 0.03):
            good(run, "-q", *words)
    with passing_lock("a.sif", 0.03):
        good(run, "-q", "overlay", "resize", "a.sif", "30M")
    assert names_in(image) == [b"f"]


def test_a_lock_of_a_process_that_is_not_seen_is_one(run: Run, image: str) -> None:
    with passing_lock("a.img", 60):
        assert "locked for writing by a process on" in refused(run, "cp", "f", "a.img:/upper/")
