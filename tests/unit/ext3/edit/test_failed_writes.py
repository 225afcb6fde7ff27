"""Writes that fail: an error after the commit says that the change is done, one before it that it is not, and neither lies."""

from __future__ import annotations

import errno
import os

import pytest

from ext3 import Filesystem
from ext3.device.base import MemoryDevice
from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import CheckpointError, DeviceError

from ....support.sessions import clock, empty_image


class FailingDevice(MemoryDevice):
    """Device whose write or sync number ``fails`` fails, and with ``forever`` all that follow."""

    def __init__(self, data: bytes, fails: int, *, forever: bool) -> None:
        super().__init__(bytearray(data))
        self.fails = fails
        self.forever = forever
        self.calls: list[str] = []

    def _call(self, kind: str) -> None:
        self.calls.append(kind)
        if len(self.calls) == self.fails or (self.forever and len(self.calls) > self.fails):
            raise DeviceError("writing at byte 1", error=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._call("write")
        super().write(offset, data)

    def sync(self) -> None:
        self._call("sync")
        super().sync()


def make_directory(device: MemoryDevice) -> DeviceError | None:
    """Make /new in one transaction and close; the error, if there is one."""
    try:
        filesystem = WritableFilesystem(device, clock=clock)
        filesystem.mkdir("/new")
        filesystem.close()
    except DeviceError as error:
        return error
    return None


def has_directory(device: MemoryDevice) -> bool:
    """Whether the change is there once the image has been opened for writing again."""
    again = MemoryDevice(bytearray(device.data))
    WritableFilesystem(again, clock=clock).close()
    with Filesystem.open(again) as filesystem:
        assert not filesystem.needs_recovery
        return any(entry.name == b"new" for entry in filesystem.scandir("/"))


@pytest.mark.parametrize("forever", [False, True])
def test_the_error_tells_whether_the_change_is_done(forever: bool) -> None:
    """Judge: the journal as it is replayed. Only of the sync of the commit block itself nobody knows."""
    image = bytes(empty_image().data)
    whole = FailingDevice(image, 0, forever=False)
    assert make_directory(whole) is None and has_directory(whole)
    unsure = []
    for fails in range(1, len(whole.calls) + 1):
        device = FailingDevice(image, fails, forever=forever)
        error = make_directory(device)
        assert error is not None and error.errno == errno.ENOSPC
        if isinstance(error, CheckpointError):
            assert has_directory(device)
            assert error.committed and "the change is done" in error.message
        elif has_directory(device):
            unsure.append(fails)
    assert len(unsure) == 1 and whole.calls[unsure[0] - 1] == "sync"
    assert unsure[0] < len(whole.calls) - 2
