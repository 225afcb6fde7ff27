"""Block overlay: a device read through newer content of some of its blocks, such as those an unreplayed journal holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DeviceError
from .base import BlockDevice

__all__ = ["BlockOverlay"]


class BlockOverlay:
    """Read-only device: ``load(block)`` stands in for each block (``block_size`` bytes) in ``blocks``, else ``device``.

    The mapping may change between reads.
    """

    def __init__(self, device: BlockDevice, block_size: int, blocks: Mapping[int, Any], load: Callable[[int], bytes]) -> None:
        self.device = device
        self.block_size = block_size
        self.blocks = blocks
        self._load = load

    @property
    def size(self) -> int:
        return self.device.size

    def read(self, offset: int, size: int) -> bytes:
        """Read as BlockDevice does. Costs one lookup per block of the range, or per newer block if those are fewer."""
        if size <= 0 or offset < 0 or not self.blocks:
            return self.device.read(offset, size)
        first, last = offset // self.block_size, (offset + size - 1) // self.block_size
        if last - first < len(self.blocks):
            covered = [block for block in range(first, last + 1) if block in self.blocks]
        else:
            covered = [block for block in self.blocks if first <= block <= last]
        if not covered:
            return self.device.read(offset, size)
        if first == last and offset + size <= self.device.size:
            start = offset - first * self.block_size
            return self._load(first)[start : start + size]
        data = bytearray(self.device.read(offset, size))
        for block in covered:
            content = self._load(block)
            start = block * self.block_size - offset
            if start < 0:
                content, start = content[-start:], 0
            content = content[: size - start]
            data[start : start + len(content)] = content
        return bytes(data)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        raise DeviceError(f"writing {len(data)} bytes at byte {offset}: the device is read-only")

    def make_zero(self, offset: int, size: int) -> None:
        raise DeviceError(f"zeroing {size} bytes at byte {offset}: the device is read-only")

    def sync(self) -> None:
        """Do nothing: nothing was written."""
