"""Where an image may appear: what is said of places where it cannot, and that nothing is touched there."""

from __future__ import annotations

import os
import sys

import pytest

from sifkit.cli import main
from sifkit.errors import NotReplaceableError, TargetError, TruncatedError, UsageError
from sifkit.overlay.cloning import clone
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.destination import check_destination, new_file
from sifkit.overlay.images.opening import check_whole, open_image
from sifkit.overlay.info import image_info
from sifkit.overlay.options import CreateOptions


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").write_text("text")
    (tmp_path / "empty").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "to-empty").symlink_to("empty")
    return tmp_path


@pytest.mark.parametrize(
    ("target", "force", "says", "hint"),
    [
        ("dir", True, "dir is a directory", "name a file"),
        ("new/", False, "ends with a slash", "name a file"),
        ("plain/x.img", False, "plain is a file, not a directory", "name a file"),
        ("plain/a/b/x.img", True, "plain is a file, not a directory", "name a file"),
        ("dangling/x.img", False, "dangling is a dangling symbolic link", "name a file"),
        ("none/x.img", False, "the directory none does not exist", "create the directory"),
        ("dangling", False, "dangling is a symbolic link to nowhere, which does not exist", "remove the link"),
        ("dangling", True, "dangling is a symbolic link to nowhere, which does not exist", "remove the link"),
        ("empty", False, "empty exists", "or --force to replace it"),
        ("plain", False, "plain exists", "--force does not replace"),
        ("plain", True, "plain is not an ext2 or ext3 image", "another name"),
    ],
)
def test_places_that_are_refused(place, target, force, says, hint):
    before = sorted(os.listdir(place))
    with pytest.raises(TargetError, match=says) as caught:
        check_destination(target, force=force)
    assert hint in caught.value.hint
    with pytest.raises(TargetError, match=says):
        create(target, CreateOptions(force=force))
    assert sorted(os.listdir(place)) == before and (place / "plain").read_text() == "text"


def test_places_that_are_taken(place):
    check_destination("new.img", force=False)
    check_destination("dir/new.img", force=True)
    check_destination("to-empty", force=True)
    create("to-empty", CreateOptions(size=4 << 20, force=True))
    assert os.path.islink("to-empty") and os.path.getsize("empty") == 4 << 20
    with pytest.raises(UsageError):
        check_destination("", force=False)


@pytest.mark.skipif(sys.platform != "linux" or not os.path.isdir("/proc/self"), reason="no /proc")
def test_a_directory_that_takes_no_files():
    with pytest.raises(
        TargetError, match=r"^cannot create files in /proc|^/proc is not writable|^the directory /proc"
    ) as caught:
        create("/proc/x.img", CreateOptions())
    assert caught.value.hint


def test_what_fails_inside_a_new_file_is_passed_on(place):
    with pytest.raises(FileNotFoundError, match="mine"), new_file("x.img", 0o600):
        raise FileNotFoundError("mine")
    assert "x.img" not in os.listdir(place)


def test_an_image_that_is_cut_short(place, capfd):
    create("whole.img", CreateOptions(size=8 << 20, label=b"lab"))
    data = (place / "whole.img").read_bytes()
    (place / "short.img").write_bytes(data[: 1 << 20])
    check_whole("whole.img")
    check_whole("plain")
    said = "short.img is truncated: the filesystem has 8 MiB, the file 1 MiB"
    with pytest.raises(TruncatedError, match=said) as caught, open_image("short.img"):
        pytest.fail("it was opened")
    assert (caught.value.needed_bytes, caught.value.available_bytes) == (8 << 20, 1 << 20)
    with pytest.raises(TruncatedError):
        clone("short.img", "copy.img")
    info = image_info("short.img")
    assert (info.label, info.readable, info.accepted, info.problem) == (b"lab", False, False, said)
    for argv in (["ls", "short.img"], ["cat", "short.img", "/x"], ["overlay", "clone", "short.img", "copy.img"]):
        assert main(argv) == 1
        assert capfd.readouterr().err.endswith(f": {said}; download or copy it again\n")
    assert not os.path.exists("copy.img")


def test_clone_onto_itself_in_every_disguise(place):
    create("a.img", CreateOptions(size=4 << 20))
    os.link("a.img", "hard.img")
    os.symlink("a.img", "soft.img")
    for name in ("a.img", "./a.img", "hard.img", "soft.img"):
        for force in (False, True):
            with pytest.raises(UsageError, match="onto itself"):
                clone("a.img", name, force=force)
    with pytest.raises(NotReplaceableError):
        clone("a.img", "plain", force=True)
    with pytest.raises(TargetError, match="plain is a file"):
        clone("a.img", "plain/b.img")
