"""File of an image that is written to by this process alone, as the device of its filesystem."""

from __future__ import annotations

import os

from ext3.device.base import FileDevice
from ext3.errors import DeviceError

__all__ = ["ImageDevice"]


class ImageDevice(FileDevice):
    """Window of an image's file. A file that another program has cut is not made longer again: what was in it is lost."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        super().__init__(fd, offset, size)
        self._length = min(os.fstat(fd).st_size, offset + size)  # of a block device 0

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        length = os.fstat(self.fd).st_size
        if length < self._length:
            raise DeviceError(f"its file was cut to {length:,} bytes by another program")
        super().write(offset, data)
