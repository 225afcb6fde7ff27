"""Edits whose writes fail, or that are interrupted by Ctrl-C, at every step: the file is as it was, or as it was to be."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from sifkit.sif import SIF, StoreError
from sifkit.sif.store import FileStore

from ..support.sif_edits import EDITS, PREPARE, content_of, record, recovered
from ..support.sif_images import LATER, assert_sound, sample_image

MOST_STEPS = 60


class FailingStore(FileStore):
    """The step with the number ``fail_at`` (from 0; writes, changes of length and syncs count) raises instead; with
    ``half``, a write is done in part first; with ``forever``, nothing works from then on."""

    def __init__(self, fd: int, fail_at: int, error: type[BaseException], *, half: bool = False, forever: bool = False) -> None:
        super().__init__(fd)
        self.left = fail_at
        self.error = error
        self.half = half
        self.forever = forever
        self.failed = False

    def _step(self) -> None:
        self.left -= 1
        if self.left == -1 or (self.forever and self.left < 0):
            self.failed = True
            if self.error is StoreError:
                raise StoreError("no space", error=OSError(errno.ENOSPC, "No space left on device"))
            raise self.error

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if self.half and self.left == 0:
            super().write(offset, memoryview(data)[: len(data) // 2])
        self._step()
        super().write(offset, data)

    def copy_from(self, source: int, source_offset: int, offset: int, size: int) -> int | None:
        return None

    def set_size(self, size: int) -> None:
        self._step()
        super().set_size(size)

    def sync(self) -> None:
        self._step()


def run(path: Path, name: str, fail_at: int, error: type[BaseException], *, half: bool = False, forever: bool = False) -> bool:
    """Try the edit with a failure; whether there was one."""
    fd = os.open(path, os.O_RDWR)
    try:
        store = FailingStore(fd, fail_at, error, half=half, forever=forever)
        with suppress(error), SIF(store, mode="r+", stamp=LATER) as sif:
            EDITS[name](sif)
        return store.failed
    finally:
        os.close(fd)


def prepared(path: Path, name: str) -> tuple[bytes, bytes]:
    """The file before and after the edit; it is as before on disk."""
    sample_image(path)
    if name in PREPARE:
        record(path, PREPARE[name])
    before = path.read_bytes()
    _, after = record(path, EDITS[name])
    path.write_bytes(before)
    return before, after


@pytest.mark.parametrize("half", [False, True], ids=["", "half written"])
@pytest.mark.parametrize("name", EDITS)
def test_a_write_fails_once(tmp_path: Path, name: str, half: bool) -> None:
    """Before the edit counts, the file is as it was, to the byte; after, opening it for writing completes it."""
    path = tmp_path / "image.sif"
    before, after = prepared(path, name)
    restored = 0
    for step in range(MOST_STEPS):
        path.write_bytes(before)
        if not run(path, name, step, StoreError, half=half):
            break
        left = path.read_bytes()
        if left == before:
            restored += 1
            continue
        assert content_of(left) == content_of(after), step
        assert_sound(recovered(left))
    else:
        pytest.fail("the edit has more steps than were tried")
    assert restored >= 3


@pytest.mark.parametrize("name", EDITS)
def test_ctrl_c(tmp_path: Path, name: str) -> None:
    """As a failing write; what counts already is completed before the exception goes on."""
    path = tmp_path / "image.sif"
    before, after = prepared(path, name)
    for step in range(MOST_STEPS):
        path.write_bytes(before)
        if not run(path, name, step, KeyboardInterrupt):
            break
        left = path.read_bytes()
        if left == before:
            continue
        assert content_of(left) == content_of(after), step
        with SIF.open(path) as sif:
            assert not sif.header.table_in_data
        assert_sound(left)
    else:
        pytest.fail("the edit has more steps than were tried")


@pytest.mark.parametrize("name", EDITS)
def test_nothing_works_any_more(tmp_path: Path, name: str) -> None:
    """A disk that fails for good is as a crash: the old or the new content is there, and the next opening puts it right."""
    path = tmp_path / "image.sif"
    before, after = prepared(path, name)
    contents = (content_of(before), content_of(after))
    for step in range(MOST_STEPS):
        path.write_bytes(before)
        if not run(path, name, step, StoreError, forever=True):
            break
        left = path.read_bytes()
        assert content_of(left) in contents
        assert_sound(recovered(left))
