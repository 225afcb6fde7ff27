"""The guard of existing files: only unused regular files of the right kind are replaced."""

from __future__ import annotations

import os
import socket
import struct
import sys

import pytest

from sifkit import in_use, replacing
from sifkit.atomic import AtomicFile
from sifkit.errors import ImageInUseError, NotReplaceableError, TargetError, UsageError
from sifkit.file_locks import lock_range
from sifkit.in_use import LockHolder, LoopFiles
from sifkit.overlay.destination import EXT_IMAGES
from sifkit.replacing import ANY_FILE, OpenedFile, check_output
from sifkit.sif.loading import SIF_IMAGES

from ...support.platforms import linux_locks

EXT = bytes(1080) + b"\x53\xef" + bytes(1000)
SIF = b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + bytes(3000)
SQUASHFS = b"hsqs" + bytes(3000)
KINDS = {"any": ANY_FILE, "sif": SIF_IMAGES, "ext": EXT_IMAGES}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, data in (("empty", b""), ("text", b"text"), ("sif", SIF), ("squashfs", SQUASHFS), ("ext", EXT)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "dir").mkdir()
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "replaced"),
    [
        ("any", {"empty", "text", "sif", "squashfs", "ext", "new"}),
        ("sif", {"empty", "sif", "new"}),
        ("ext", {"empty", "new"}),  # "ext" has no filesystem behind its magic number
    ],
)
def test_what_each_kind_replaces(place, kind, replaced):
    guard = KINDS[kind]
    names = [*os.listdir(place), "new"]
    assert {name for name in names if guard.allows(name)} == replaced
    for name in sorted({*names} - {"new"}):
        before = os.lstat(name)
        hint = ""
        with pytest.raises((TargetError, NotReplaceableError)) as caught:
            check_output(name, guard, force=False)
            pytest.fail("an existing file is kept without force")
        hint = caught.value.hint
        if name not in replaced:
            assert "or --force" not in hint
            if name != "dir":
                with pytest.raises(NotReplaceableError), AtomicFile(name) as file:
                    file.commit(guard)
        elif name != "empty":
            assert "or --force to replace it" in hint
        assert os.path.samestat(before, os.lstat(name))
    for name in replaced:
        check_output(name, guard, force=True)


@pytest.mark.parametrize(("name", "noun"), [("fifo", "a FIFO"), ("socket", "a socket"), ("/dev/null", "a character device")])
def test_the_type_is_named(place, name, noun):
    with pytest.raises(NotReplaceableError, match=f"{name} is {noun}, which is not replaced"):
        ANY_FILE.check(name)
    with pytest.raises(UsageError, match="name of the archive is empty"):
        check_output("", ANY_FILE, force=True, noun="archive")


@linux_locks
@pytest.mark.parametrize("name", ["sif", "squashfs", "ext"])
def test_a_locked_image_is_kept(place, name):
    fd = os.open(name, os.O_RDONLY)
    try:
        assert lock_range(fd, write=False, offset=100, size=1)
        with pytest.raises(ImageInUseError, match=f"{name} is in use: locked for reading by process {os.getpid()}"):
            ANY_FILE.check(name)
        with pytest.raises(ImageInUseError), AtomicFile(name) as file:
            file.commit(ANY_FILE)
        assert os.path.samestat(os.stat(name), os.fstat(fd))
    finally:
        os.close(fd)
    assert ANY_FILE.allows(name)
    fd = os.open("text", os.O_RDONLY)  # other programs lock their files for reasons of their own
    try:
        assert lock_range(fd, write=False)
        ANY_FILE.check("text")
    finally:
        os.close(fd)


@linux_locks
def test_an_image_is_locked_while_it_is_replaced(place):
    """Whoever opened it before, and locks it now, would write to a file without a name."""
    fd = os.open("sif", os.O_RDWR)
    try:
        with SIF_IMAGES.hold("sif"), pytest.raises(ImageInUseError):
            lock_range(fd, write=True, path="sif")
        assert lock_range(fd, write=True, path="sif")
    finally:
        os.close(fd)


def test_files_behind_loop_devices_are_kept_whatever_they_hold(place, monkeypatch):
    found = os.stat("text")
    monkeypatch.setattr(in_use, "_loop_devices", lambda: iter([("loop-of-nobody", os.path.abspath("text"))]))
    monkeypatch.setattr(in_use, "_line", lambda path: {"dev": "7:99", "ro": "0", "autoclear": "0"}[os.path.basename(path)])
    loops = LoopFiles()
    assert loops.holds(found) and not loops.holds(os.stat("empty"))
    with pytest.raises(ImageInUseError, match="the file is in use: attached to /dev/loop-of-nobody"):
        ANY_FILE.check_name("text", shown="the file", loops=loops)
    os.symlink("text", "link")
    ANY_FILE.check_name("link")  # only the link would go
    with pytest.raises(ImageInUseError):
        ANY_FILE.check("link")
    monkeypatch.setattr(in_use, "_loop_devices", lambda: iter([]))
    assert loops.holds(found)  # for a second
    monkeypatch.setattr(in_use, "LOOP_SECONDS", 0)
    assert not loops.holds(found)


def test_images_served_by_fuse_are_kept(place, monkeypatch):
    monkeypatch.setattr(replacing, "fuse_servers", lambda found: iter([LockHolder(7, "squashfuse", "read")]))
    for name in ("sif", "squashfs", "ext"):
        with pytest.raises(ImageInUseError, match=r"mounted by process 7 \(squashfuse\)"):
            ANY_FILE.check(name)
    ANY_FILE.check("text")


@pytest.mark.skipif(sys.platform != "linux" or not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="no FUSE")
def test_a_fuse_server_is_known_by_what_it_has_open(place):
    found = os.stat("squashfs")
    with open("squashfs", "rb"):
        assert list(in_use.fuse_servers(found)) == []
        device = os.open("/dev/fuse", os.O_RDWR)
        try:
            assert [(one.pid, one.kind) for one in in_use.fuse_servers(found)] == [(os.getpid(), "read")]
        finally:
            os.close(device)


@pytest.mark.parametrize("change", ["replaced", "written", "gone", "none"])
def test_an_opened_file_is_replaced_only_as_it_was(place, change):
    fd = os.open("text", os.O_RDWR)
    try:
        guard = OpenedFile(fd, os.fstat(fd))
        if change == "replaced":
            os.replace("sif", "text")
        elif change == "written":
            os.pwrite(fd, struct.pack("<I", 1), 0)
            os.utime(fd, ns=(1, 1))
        elif change == "gone":
            os.unlink("text")
        if change == "none":
            with guard.hold("text"):
                pass
        else:
            with pytest.raises(ImageInUseError, match="text was changed by another process"), guard.hold("text"):
                pytest.fail("the block must not be entered")
    finally:
        os.close(fd)


def test_a_file_that_cannot_be_read_is_no_image_of_a_kind(place, monkeypatch):
    def refuse(name, flags):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(replacing, "_open_now", refuse)
    with pytest.raises(NotReplaceableError, match="sif: cannot read its type: Permission denied"):
        SIF_IMAGES.check("sif")
    ANY_FILE.check("sif")
