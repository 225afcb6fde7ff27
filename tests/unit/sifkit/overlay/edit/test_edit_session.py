"""Edit sessions: locks, images without a journal, and edits that are interrupted."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys

import pytest

from ext3 import DeviceError, Filesystem
from sifkit.errors import ImageInUseError, UsageError
from sifkit.overlay.edit import edit_session as edit
from sifkit.overlay.edit.edit_session import EditOptions, edit_image

from .....support.commands import good, names_in, refused
from .....support.image_checks import check_counts


def test_an_image_in_use_is_refused(run, overlay):
    fd = os.open(overlay, os.O_RDWR)
    try:
        fcntl.fcntl(fd, 37, struct.pack("@hhqqi0q", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
        assert f"process {os.getpid()}" in refused(run, "mkdir", "overlay.img:/upper/x")
    finally:
        os.close(fd)
    good(run, "mkdir", "overlay.img:/upper/x")


def test_the_image_is_locked_while_it_is_changed(overlay):
    with edit_image(overlay), pytest.raises(ImageInUseError), edit_image(overlay):
        pass


def test_a_file_that_cannot_be_written_is_one_line(run, overlay, monkeypatch):
    opened = os.open

    def read_only(path, flags, *more, **named):
        if path == "overlay.img" and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(edit.os, "open", read_only)
    assert "overlay.img: Permission denied" in refused(run, "mkdir", "overlay.img:/upper/x")


def test_an_interrupted_edit_leaves_the_last_sync_and_a_clean_image(overlay):
    with pytest.raises(KeyboardInterrupt), edit_image(overlay) as edited:
        edited.filesystem.mkdir("/upper/kept")
        edited.sync()
        edited.filesystem.mkdir("/upper/lost")
        raise KeyboardInterrupt
    assert names_in(overlay) == [b"kept"]
    with Filesystem.open(overlay) as filesystem:
        assert not filesystem.needs_recovery and filesystem.superblock.state == 1


def test_an_image_without_a_journal_is_changed_as_a_copy(run, overlay):
    good(run, "overlay", "create", "--size", "8M", "--no-journal", "plain.img", "-q")
    os.chmod("plain.img", 0o640)
    before = os.stat("plain.img").st_ino
    with pytest.raises(RuntimeError), edit_image("plain.img") as edited:
        assert edited.copied
        edited.filesystem.mkdir("/upper/lost")
        edited.sync()
        raise RuntimeError
    assert names_in("plain.img") == [] and os.stat("plain.img").st_ino == before
    good(run, "mkdir", "plain.img:/upper/kept")
    assert names_in("plain.img") == [b"kept"] and os.stat("plain.img").st_mode & 0o777 == 0o640
    assert sorted(name for name in os.listdir() if "plain" in name) == ["plain.img"]


def test_a_write_that_fails_after_the_commit_says_that_the_change_is_done(run, overlay, monkeypatch):
    def full(*_):
        raise DeviceError("writing at byte 7: No space left on device", error=OSError(28, "No space left on device"))

    monkeypatch.setattr("ext3.journal.transaction.write_blocks", full)
    code, _, err = run("mkdir", "overlay.img:/upper/new")
    assert code == 1
    assert err == (
        "sifkit mkdir: overlay.img: writing at byte 7: No space left on device; the change is done, and is completed when the"
        " image is next opened for writing; free some space there\n"
    )
    assert names_in("overlay.img") == [b"new"]
    code, out, _ = run("mkdir", "--json", "overlay.img:/upper/more")
    error = json.loads(out)["error"]
    assert (code, error["kind"], error["committed"]) == (1, "io", True)
    assert names_in("overlay.img") == [b"more", b"new"]


@pytest.mark.slow
def test_ctrl_c_during_a_long_copy(run, tmp_path, monkeypatch):
    """One line, and what was synced before: whole files."""
    monkeypatch.chdir(tmp_path)
    assert run("overlay", "create", "--size", "16M", "-N", "4000", "-J", "size=1M", "overlay.img", "-q")[0] == 0
    (tmp_path / "many").mkdir()
    for number in range(3000):
        (tmp_path / "many" / f"{number}").write_bytes(b"x")
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from sifkit.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, "cp", "-rv", "many", "overlay.img:/upper"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert child.stderr is not None
    for _ in range(1800):
        child.stderr.readline()
    child.send_signal(signal.SIGINT)
    rest = child.communicate(timeout=120)[1].splitlines()
    assert child.returncode == 130
    assert rest[-1] == b"sifkit cp: interrupted" and all(line.startswith(b"'") for line in rest[:-1])
    with Filesystem.open(tmp_path / "overlay.img") as filesystem:
        assert not filesystem.needs_recovery and filesystem.superblock.state == 1
        check_counts(filesystem)
        left = [filesystem.read_bytes(entry.ino) for _, entry in filesystem.walk("/upper") if entry.file_type == 1]
        assert set(left) == {b"x"} and len(left) < 3000


def test_options_are_for_sif_images(overlay):
    with pytest.raises(UsageError), edit_image(overlay, EditOptions(partition="overlay")):
        pass


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs pthread_sigmask")
@pytest.mark.parametrize("number", range(1, 10))
def test_an_interrupt_while_signals_are_masked(overlay, monkeypatch, number):
    """At each call: signals are as before, the filesystem is not left open, and the image is clean."""
    mask = signal.pthread_sigmask
    before = mask(signal.SIG_BLOCK, [])
    calls = 0

    def interrupted(how, signals):
        nonlocal calls
        found = mask(how, signals)
        calls += 1
        if calls == number:
            raise KeyboardInterrupt
        return found

    opened = []

    class Recorded(edit.WritableFilesystem):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            opened.append(self._finalizer)

    monkeypatch.setattr(edit, "WritableFilesystem", Recorded)
    monkeypatch.setattr(signal, "pthread_sigmask", interrupted)
    try:
        with edit_image(overlay) as edited:
            edited.filesystem.mkdir("/upper/new")
    except KeyboardInterrupt:
        assert number <= 6
    else:
        assert number > 6
    finally:
        left = mask(signal.SIG_SETMASK, before)
    assert left == before
    assert not any(finalizer.alive for finalizer in opened)
    with Filesystem.open(overlay) as filesystem:
        assert not filesystem.needs_recovery
    assert names_in(overlay) == ([b"new"] if number >= 6 else [])
