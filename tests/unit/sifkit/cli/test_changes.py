"""Images that others write to while they are read: what is read may be torn, and that is said."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest

from ext3 import Filesystem
from sifkit.atomic import AtomicFile
from sifkit.cli import main
from sifkit.file_locks import lock_range
from sifkit.overlay.edit.edit_session import edit_image

from ....support.commands import good, names_in

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="locks of open files are Linux's")

READERS = {
    "extract": ["extract", "overlay.img", "-C", "out"],
    "cp": ["cp", "-r", "overlay.img:/upper", "out"],
    "cp within images": ["cp", "-r", "overlay.img:/upper", "other.img:/upper/copy"],
    "diff": ["diff", "overlay.img", "other.img"],
    "diff, the other side": ["diff", "other.img", "overlay.img"],
}
EXPORTS = {"archive": ["-o", "layer.tar"], "directory": ["-o", "out/"], "stream": ["-o", "-"]}


@pytest.fixture
def image(overlay):
    with edit_image("overlay.img") as edited:
        edited.filesystem.write_bytes("/upper/file", b"content")
    shutil.copyfile("overlay.img", "other.img")
    return overlay


@pytest.fixture
def held(image):
    """Call it to hold a lock for writing, or a shared one, as a container does; until the test ends."""
    fds = []

    def hold(*, write: bool) -> None:
        fds.append(os.open(image, os.O_RDWR))
        assert lock_range(fds[-1], write=write, path=str(image))

    yield hold
    for fd in fds:
        os.close(fd)


def write_meanwhile(monkeypatch, image, change):
    """Change the image once it is open, when a directory of it is read."""
    real = Filesystem.scan_many
    done = []

    def scan_many(self, *arguments, **rest):
        if not done:
            done.append(True)
            change(image)
        return real(self, *arguments, **rest)

    monkeypatch.setattr(Filesystem, "scan_many", scan_many)


def keep_time(image, change):
    before = os.stat(image)
    change()
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))


def touched(image):
    os.utime(image, ns=(1, 1))


def longer(image):
    keep_time(image, lambda: os.truncate(image, os.stat(image).st_size + 4096))


def superblock_written(image):
    """s_wtime alone."""

    def change() -> None:
        with open(image, "r+b") as file:
            file.seek(1024 + 0x30)
            file.write(b"\1\2\3\4")

    keep_time(image, change)


def journal_went_on(image):
    """A commit of the kernel that is in the journal only."""

    def change() -> None:
        with Filesystem.open(image) as fs:
            first = fs.data_extents(fs.superblock.journal_ino)[0][1]
            offset = first * fs.superblock.block_size + 24  # s_sequence
        with open(image, "r+b") as file:
            file.seek(offset)
            number = int.from_bytes(file.read(4), "big")
            file.seek(offset)
            file.write((number + 1).to_bytes(4, "big"))

    keep_time(image, change)


CHANGES = [touched, longer, superblock_written, journal_went_on]


# -- in use before -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", READERS.values(), ids=list(READERS))
def test_a_warning_where_another_process_may_write(run, image, held, words):
    held(write=True)
    code, _, err = run(*words)
    assert code == (1 if words[0] == "diff" and "copy" in names_in("other.img") else 0)
    assert "warning: overlay.img is in use: locked for writing" in err and "may not fit together" in err
    shutil.rmtree("out", ignore_errors=True)
    target = [word.replace("/copy", "/copy2") for word in words]
    code, _, err = run(*target, "--allow-changed")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("output", EXPORTS.values(), ids=list(EXPORTS))
def test_an_export_is_refused_where_another_process_may_write(run, image, held, output):
    held(write=True)
    code, out, err = run("overlay", "export", "overlay.img", *output)
    assert (code, out) == (1, "") and not os.path.lexists(output[1].rstrip("/"))
    assert "overlay.img is in use: locked for writing" in err and "--allow-changed" in err
    code, _, err = run("overlay", "export", "overlay.img", *output, "--allow-changed")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("words", [*READERS.values(), ["overlay", "export", "overlay.img", "-o", "layer.tar"]])
def test_others_may_read(run, image, held, words):
    held(write=False)
    code, _, err = run(*words)
    assert (code, err) == (0, "")


# -- changed meanwhile ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("words", READERS.values(), ids=list(READERS))
def test_a_warning_where_it_changed_meanwhile(run, image, monkeypatch, words, change):
    write_meanwhile(monkeypatch, image, change)
    code, _, err = run(*words)
    assert code == 0
    assert "warning: overlay.img changed while it was read" in err, err


@pytest.mark.parametrize("words", READERS.values(), ids=list(READERS))
def test_one_warning_for_an_image_in_use_that_changes(run, image, held, monkeypatch, words):
    held(write=True)
    write_meanwhile(monkeypatch, image, touched)
    code, _, err = run(*words)
    assert code == 0 and err.count("warning: overlay.img") == 1 and "in use" in err, err


def test_a_change_after_an_archive_is_there_is_not_in_it(run, image, monkeypatch):
    """An exit code of 1 means that there is no archive."""
    real = AtomicFile.commit

    def commit(self, *arguments, **rest):
        real(self, *arguments, **rest)
        touched(image)

    monkeypatch.setattr(AtomicFile, "commit", commit)
    code, _, err = run("overlay", "export", "overlay.img", "-o", "layer.tar")
    assert (code, err) == (0, "") and os.path.exists("layer.tar")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("output", EXPORTS.values(), ids=list(EXPORTS))
def test_an_export_fails_where_it_changed_meanwhile(run, image, monkeypatch, output, change):
    write_meanwhile(monkeypatch, image, change)
    code, _, err = run("overlay", "export", "overlay.img", *output)
    assert code == 1 and "overlay.img changed while it was read" in err and "--allow-changed" in err
    assert not os.path.lexists("layer.tar")


@pytest.mark.parametrize("change", CHANGES)
def test_changes_that_are_allowed(run, image, monkeypatch, change):
    write_meanwhile(monkeypatch, image, change)
    good(run, "overlay", "export", "overlay.img", "-o", "layer.tar", "--allow-changed")
    assert os.path.exists("layer.tar")


def test_the_error_has_a_kind(run, image, monkeypatch):
    write_meanwhile(monkeypatch, image, touched)
    code, out, _ = run("overlay", "export", "--json", "overlay.img", "-o", "layer.tar")
    assert (code, json.loads(out)["error"]["kind"]) == (1, "changed")


def test_damage_that_is_a_change(run, image, monkeypatch):
    """What cannot be read because it changed is not called damage."""

    def destroy(image):
        touched(image)
        raise OSError(117, "Structure needs cleaning")

    write_meanwhile(monkeypatch, image, destroy)
    code, _, err = run("overlay", "export", "overlay.img", "-o", "layer.tar")
    assert code == 1 and "changed while it was read" in err


def test_directories_and_unused_images_are_not_spoken_of(run, image, tmp_path):
    (tmp_path / "host/upper").mkdir(parents=True)
    good(run, "overlay", "export", "host", "-o", "layer.tar")
    good(run, "extract", "host", "-C", "copy")
    assert main(["-q", "extract", "overlay.img", "-C", "out"]) == 0
