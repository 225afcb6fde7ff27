"""Owner of a whole overlay: each file once, and in little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

import ext3
from ext3.constants import S_IFREG
from ext3.edit.filesystem import WritableFilesystem
from sifkit.overlay import ownership
from sifkit.overlay.ownership import OwnerChange, change_owner
from sifkit.vfs.walk import WalkedFile

from ....support.image_checks import check_counts
from ....support.sessions import clock, empty_image


def test_a_file_of_several_names_is_counted_once() -> None:
    device = empty_image()
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir("/upper")
        fs.mkdir("/upper/d")
        fs.create("/upper/file")
        for name in ("/upper/a", "/upper/d/b"):
            fs.link("/upper/file", name)
        assert change_owner(fs, OwnerChange(uid=7, gid=None)) == 3
        assert change_owner(fs, OwnerChange(uid=7, gid=None)) == 0
        assert change_owner(fs, OwnerChange(uid=8, gid=9, old=(1, None))) == 0
        assert (fs.stat("/upper/d/b").uid, fs.stat("/upper/d/b").gid) == (7, 0)
    with ext3.Filesystem.open(device) as after:
        check_counts(after)


def test_a_file_takes_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An overlay may hold ten million files."""
    count = 50_000
    with ext3.Filesystem.open(empty_image(), "r+", clock=clock) as fs:
        fs.mkdir("/upper")
        model = fs.stat("/upper")

        class FakeRow:
            name = b"name"

            def __init__(self, node: int) -> None:
                self.node = node
                self.stat = model._replace(ino=node, mode=S_IFREG | 0o644)

        def many(*_: object) -> Iterator[WalkedFile[int]]:
            for node in range(100, 100 + count):
                row: Any = FakeRow(node)
                yield WalkedFile(b"name", row, 0, False)

        monkeypatch.setattr(ownership, "walk", many)
        monkeypatch.setattr(WritableFilesystem, "chown", lambda *_: None)
        tracemalloc.start()
        try:
            assert change_owner(fs, OwnerChange(uid=7, gid=None)) == count + 1
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 40 * count
