"""Names of outputs: links are followed as the kernel with protected_symlinks does (``may_follow_link`` in fs/namei.c)."""

from __future__ import annotations

import os
import sys

import pytest

from sifkit.errors import TargetError
from sifkit.output_path import check_output_directory, check_sticky_owner, descriptor_number, resolve_output

linux = pytest.mark.skipif(sys.platform != "linux" or not os.path.isdir("/proc/self/fd"), reason="no /proc")
root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs another user's files")
SHARED, OTHER = 0o1777, 65534


def test_plain_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("new", "a/b/new", "./x", "..", "/"):
        assert resolve_output(name) == name
    assert resolve_output(b"\xff") == "\udcff"


def test_links_are_followed_to_existing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").touch()
    (tmp_path / "d" / "inner").symlink_to("file")
    (tmp_path / "outer").symlink_to("d/inner")
    assert os.path.samefile(resolve_output("outer"), "d/file")
    assert os.path.basename(resolve_output("outer")) == "file"


@pytest.mark.parametrize("link", ["dangling", "to-dangling", "loop"])
def test_links_that_lead_nowhere_are_named(tmp_path, monkeypatch, link):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "to-dangling").symlink_to("dangling")
    (tmp_path / "loop").symlink_to("loop")
    says = "nowhere, which does not exist" if link != "loop" else "loop is a symbolic link that leads nowhere"
    with pytest.raises(TargetError, match=says):
        resolve_output(link)
    with pytest.raises(TargetError, match=says):
        check_output_directory(f"{link}/")
    assert descriptor_number(link) is None


@root
@pytest.mark.parametrize(
    ("mode", "above", "owner", "followed"),
    [
        (SHARED, 0, OTHER, False),
        (SHARED, 0, 0, True),
        (SHARED, OTHER, OTHER, True),  # the directory's owner may do what he likes in it
        (0o1775, 0, OTHER, True),
        (0o777, 0, OTHER, True),
    ],
)
def test_links_of_others_in_shared_directories_are_not_followed(tmp_path, mode, above, owner, followed):
    """The table of protected_symlinks in Documentation/admin-guide/sysctl/fs.rst."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "victim").touch()
    (shared / "link").symlink_to(tmp_path / "victim")
    os.chown(shared / "link", owner, owner, follow_symlinks=False)
    os.chown(shared, above, above)
    shared.chmod(mode)
    (tmp_path / "mine").symlink_to(shared / "link")  # also when it is not the first link of a chain
    for name in (shared / "link", tmp_path / "mine"):
        if followed:
            assert resolve_output(name) == str(tmp_path / "victim")
        else:
            with pytest.raises(TargetError, match=f"{shared}/link is another user's symbolic link to .*victim"):
                resolve_output(name)
            with pytest.raises(TargetError):
                descriptor_number(name)
    os.mkfifo(shared / "fifo")
    os.chown(shared / "fifo", owner, owner)
    if followed:
        check_sticky_owner(str(shared / "fifo"))
    else:
        with pytest.raises(TargetError, match="belongs to another user"):
            check_sticky_owner(str(shared / "fifo"))


@linux
def test_descriptors_have_names(tmp_path, monkeypatch):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        (tmp_path / "link").symlink_to(f"/dev/fd/{fd}")
        (tmp_path / "5").touch()
        monkeypatch.chdir("/proc/self/fd")
        names = [f"/dev/fd/{fd}", f"/proc/self/fd/{fd}", f"/proc/{os.getpid()}/fd/{fd}", f"{fd}", tmp_path / "link"]
        for name in names:
            assert descriptor_number(name) == fd
            with pytest.raises(TargetError, match="is an open file, not the name of one"):
                resolve_output(name)
        assert descriptor_number("/dev/stdout") == 1
        monkeypatch.chdir(tmp_path)
        assert descriptor_number("5") is None and resolve_output("5") == "5"
        assert descriptor_number(f"/proc/{os.getppid()}/fd/1") is None
    finally:
        os.close(fd)
