"""Writes that fail: an error after the commit says that the edit is done, any other that the image is as it was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sifkit.sif import SIF
from sifkit.sif.errors import StoreError
from sifkit.sif.store import FileStore

from ....support.sif_edits import EDITS, PREPARE, content_of, recovered
from ....support.sif_images import LATER, sample_image


class FailingStore(FileStore):
    """File whose change number ``fails`` fails."""

    def __init__(self, fd: int, fails: int) -> None:
        super().__init__(fd)
        self.fails = fails
        self.calls = 0

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self.fails:
            raise StoreError("writing byte 1: full", error=OSError(errno.ENOSPC, "full"), hint="free some space there")

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._call()
        super().write(offset, data)

    def set_size(self, size: int) -> None:
        self._call()
        super().set_size(size)

    def sync(self) -> None:
        self._call()
        super().sync()


@pytest.mark.parametrize("edit", EDITS)
def test_the_error_tells_whether_the_edit_is_done(tmp_path: Path, edit: str) -> None:
    """Judge: what the image holds once it has been opened for writing again."""
    path = tmp_path / "i.sif"
    sample_image(path)
    if edit in PREPARE:
        with SIF.open(path, "r+", stamp=LATER) as sif:
            PREPARE[edit](sif)
    image = path.read_bytes()
    before = content_of(image)
    fails, after, done = 0, None, 0
    while True:
        path.write_bytes(image)
        fd = os.open(path, os.O_RDWR)
        try:
            store = FailingStore(fd, fails)
            with SIF(store, mode="r+", stamp=LATER) as sif:
                EDITS[edit](sif)
            error = None
        except StoreError as caught:
            error = caught
        finally:
            os.close(fd)
        now = content_of(recovered(path.read_bytes()))
        if not fails:
            assert error is None and now != before
            after = now
        elif error is None:
            assert now == after  # space could not be freed, which is a warning
        elif getattr(error, "committed", False):
            done += 1
            assert now == after and ("the edit is done" in error.message or "the objects are deleted" in error.message)
        else:
            assert now == before
        if fails > store.calls:
            break
        fails += 1
    assert fails > 3
    in_one_write = {"add", "add a partition", "add nothing", "add from a stream", "add the primary partition", "reserve"}
    assert done or edit in {*in_one_write, "delete the last", "delete one in the middle", "delete the primary"}
