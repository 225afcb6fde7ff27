"""Renames: replaced names, exchanges, whiteouts, and directories that were looked up before they moved."""

from __future__ import annotations

import pytest

from ext3.constants import S_IFCHR
from ext3.edit.filesystem import WritableFilesystem


def test_rename(fs: WritableFilesystem) -> None:
    fs.write_bytes("/a", b"a")
    fs.write_bytes("/b", b"b")
    fs.rename("/a", "/b")
    assert fs.read_bytes("/b") == b"a"
    fs.link("/b", "/c")
    fs.rename("/b", "/c")  # two names of one file: nothing happens
    assert fs.stat("/b").links == 2
    fs.mkdir("/d")
    fs.mkdir("/e")
    fs.mkdir("/d/inner")
    fs.rename("/d", "/e")
    assert fs.lookup("/e/inner/..") == fs.lookup("/e")
    fs.rename("/e", "/c", exchange=True)
    assert fs.lookup("/c/inner/../..") == 2
    assert fs.read_bytes("/e") == b"a"
    fs.mkdir("/other")
    fs.rename("/c/inner", "/other/x")
    fs.write_bytes("/c/file", b"file")
    fs.rename("/c/file", "/other/x", exchange=True)
    assert (fs.stat("/c").links, fs.stat("/other").links) == (3, 2)
    assert fs.lookup("/c/file/..") == fs.lookup("/c")
    fs.rename("/other/x", "/other/y", whiteout=True)
    mark = fs.stat("/other/x", follow=False)
    assert (mark.mode, mark.major, mark.minor) == (S_IFCHR, 0, 0)
    with pytest.raises(ValueError, match="whiteout"):
        fs.rename("/c", "/other", exchange=True, whiteout=True)


def test_looked_up_directories_are_forgotten_when_they_move(fs: WritableFilesystem) -> None:
    fs.mkdir("/a")
    fs.mkdir("/b")
    fs.create("/a/f")
    fs.rename("/a", "/c")
    fs.rename("/b", "/a")
    fs.create("/a/g")
    assert [entry.name for entry in fs.scandir("/a")] == [b"g"]
    fs.symlink("/c", "/link")
    fs.create("/link/through")
    fs.unlink("/link")
    fs.symlink("/a", "/link")
    fs.create("/link/through")
    assert fs.lookup("/a/through") != fs.lookup("/c/through")
