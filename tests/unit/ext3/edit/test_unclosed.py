"""Filesystems left open for changes: their changes are committed, but not after an exception, nor in a child."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ext3
from ext3.device.base import FileDevice, MemoryDevice

from ....support.image_checks import check_counts
from ....support.sessions import clock, empty_image

SCRIPT = """
import sys
import ext3
fs = ext3.Filesystem.open(sys.argv[1], "r+")
fs.write_bytes("/new", b"content" * 1000)
file = fs.open_file(fs.create("/gone"), "r+")
fs.unlink("/gone")
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(empty_image().data)
    return path


def names(image: Path | MemoryDevice) -> list[bytes]:
    with ext3.Filesystem.open(image) as fs:
        assert not fs.needs_recovery
        assert not fs.superblock.last_orphan
        check_counts(fs)
        return sorted(entry.name for entry in fs.scandir("/"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def run_script(image: Path, more: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", SCRIPT + more, str(image)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_collected(image: Path) -> None:
    """What was changed is in the image, the image is clean, and its file is closed."""
    before = descriptors()
    fs = ext3.Filesystem.open(image, "r+")
    fs.mkdir("/new")
    assert b"new" not in names(image)
    with pytest.warns(ResourceWarning, match="not closed"):
        del fs
        gc.collect()
    assert names(image) == [b"lost+found", b"new"]
    assert descriptors() == before


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "raise SystemExit(0)", "sys.exit(0)"])
def test_the_end_of_the_program(image: Path, more: str) -> None:
    """A program that ends commits, and with -W default says what was forgotten; Python does so of files."""
    done = run_script(image, more, "-W", "default")
    assert done.returncode == 0
    assert "ResourceWarning" in done.stderr
    assert names(image) == [b"lost+found", b"new"]
    with ext3.Filesystem.open(image) as fs:
        assert fs.read_bytes("/new") == b"content" * 1000


@pytest.mark.slow
def test_an_exception_that_ends_the_program(image: Path) -> None:
    """What was done before it is committed, where no ``with`` says otherwise."""
    done = run_script(image, "raise KeyError", "-W", "error")
    assert done.returncode == 1
    assert names(image) == [b"lost+found", b"new"]


@pytest.mark.slow
def test_an_exception_inside_with(image: Path) -> None:
    """Nothing is committed since the last sync, then or later."""
    with pytest.raises(KeyError), ext3.Filesystem.open(image, "r+") as fs:
        fs.mkdir("/synced")
        fs.sync()
        fs.mkdir("/new")
        raise KeyError
    assert names(image) == [b"lost+found", b"synced"]
    del fs
    gc.collect()
    assert names(image) == [b"lost+found", b"synced"]
    done = run_script(image, "with fs:\n    raise KeyError")
    assert done.returncode == 1
    assert names(image) == [b"lost+found", b"synced"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(0)",
        "del fs, file\n    gc.collect()\n    os._exit(0)",
        "fs.close()\n    sys.exit(0)",
        "with fs:\n        sys.exit(0)",
    ],
)
def test_a_forked_child(image: Path, end: str) -> None:
    """Its copy of the changes is not written: not when it is closed or collected, nor at its end."""
    before = image.read_bytes()
    more = f"""
import gc, os
fs.sync()
fs.mkdir("/more")
pid = os.fork()
if not pid:
    {end}
os.waitpid(pid, 0)
left = ext3.Filesystem.open(sys.argv[1])
print(left.needs_recovery, [entry.name for entry in left.scandir("/")])
fs.abandon()
"""
    done = run_script(image, more)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "True [b'lost+found', b'new']\n"
    assert len(before) == image.stat().st_size


@pytest.mark.slow
def test_closed_ones_are_silent(image: Path) -> None:
    """Neither ``close`` nor ``abandon`` nor ``with`` leaves anything to say."""
    for number in range(3):
        fs = ext3.Filesystem.open(image, "r+")
        fs.mkdir(f"/new{number}")
        if number == 0:
            fs.close()
        elif number == 1:
            fs.abandon()
        else:
            with fs:
                pass
        del fs
        gc.collect()
    assert names(image) == [b"lost+found", b"new0", b"new2"]


@pytest.mark.slow
def test_an_open_file_keeps_it_open() -> None:
    """A file may outlive the name of its filesystem."""
    device = empty_image()
    fs = ext3.Filesystem.open(device, "r+", clock=clock)
    file = fs.open_file(fs.create("/new"), "r+")
    del fs
    gc.collect()
    file.write(b"content")
    with pytest.warns(ResourceWarning, match="not closed"):
        del file
        gc.collect()
    with ext3.Filesystem.open(device) as after:
        assert after.read_bytes("/new") == b"content"
        check_counts(after)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_commit_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be raised, but it is not lost."""
    told: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(what.exc_value))
    fs = ext3.Filesystem.open(empty_image(), "r+", clock=clock)
    fs.mkdir("/new")
    monkeypatch.setattr(MemoryDevice, "write", lambda self, offset, data: (_ for _ in ()).throw(ext3.DeviceError("no space")))
    del fs
    gc.collect()
    assert [str(error) for error in told] == ["no space"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "dup2"), reason="needs dup2")
def test_a_reused_descriptor_is_not_written(image: Path, tmp_path: Path) -> None:
    """A caller's descriptor may be another file's at garbage collection: there is only a warning, and nothing is committed."""
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(image.stat().st_size))
    fd = os.open(image, os.O_RDWR)
    fs = ext3.Filesystem.open(FileDevice(fd), "r+")
    fs.mkdir("/new")
    other = os.open(victim, os.O_RDWR)
    os.dup2(other, fd)
    try:
        with pytest.warns(ResourceWarning, match="are lost"):
            del fs
            gc.collect()
    finally:
        os.close(fd)
        os.close(other)
    assert not any(victim.read_bytes())
    assert names(image) == [b"lost+found"]


@pytest.mark.slow
def test_a_file_object_in_memory_is_committed() -> None:
    """It has no descriptor: the device keeps it."""
    file = io.BytesIO(empty_image().data)
    fs = ext3.Filesystem.open(file, "r+")
    fs.mkdir("/new")
    with pytest.warns(ResourceWarning, match="committed now"):
        del fs
        gc.collect()
    with ext3.Filesystem.open(file) as after:
        assert b"new" in [entry.name for entry in after.scandir("/")]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("work", ["fs.mkdir('/child')", "fs.sync()", "file.write(b'child')"])
def test_a_forked_child_cannot_change_it(image: Path, work: str) -> None:
    """It is refused there, and the parent goes on."""
    more = f"""
import os
fs.sync()
fs.mkdir("/more")
pid = os.fork()
if not pid:
    try:
        {work}
    except ext3.DeviceError as error:
        os.write(1, str(error).encode())
    os._exit(0)
os.waitpid(pid, 0)
fs.mkdir("/parent")
file.close()
fs.close()
"""
    done = run_script(image, more)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "the image is not written any more: this is a forked process"
    assert names(image) == [b"lost+found", b"more", b"new", b"parent"]
