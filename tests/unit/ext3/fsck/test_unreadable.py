"""Blocks that cannot be read, where the check can do without them: they are written anew."""

from __future__ import annotations

import numpy as np
import pytest

from ext3.constants import DIND_SLOT, RESIZE_INO
from ext3.device.base import MemoryDevice
from ext3.errors import DeviceError
from ext3.format.resize_inode import reserved_blocks
from tests.support.fsck_volumes import Volume, assert_sound, codes, run, volume

BLOCK = 1024


class Unreadable(MemoryDevice):
    """Image some of whose blocks cannot be read until they are written."""

    def __init__(self, data: bytes, blocks: set[int]) -> None:
        super().__init__(data)
        self.blocks = blocks

    def read(self, offset: int, size: int) -> bytes:
        for block in range(offset // BLOCK, -(-(offset + size) // BLOCK)):
            if block in self.blocks:
                raise DeviceError(f"block {block} cannot be read")
        return super().read(offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.blocks.difference_update(range(-(-offset // BLOCK), (offset + len(data)) // BLOCK))
        super().write(offset, data)


def repaired(image: Volume, block: int) -> list[str]:
    """Repair the image without ``block``, which is written; return the codes."""
    device = Unreadable(image.data, {block})
    report = run(device)
    assert report.exit_code in (0, 1)
    assert not device.blocks
    assert_sound(MemoryDevice(bytes(device.data)))
    return codes(report)


@pytest.mark.parametrize("part", ["map", "reserved block"])
def test_the_resize_inode(part: str) -> None:
    image = volume()
    at = image.words(RESIZE_INO)[DIND_SLOT] if part == "map" else int(reserved_blocks(image.superblock.geometry)[3])
    device = Unreadable(image.data, {at})
    report = run(device)
    assert "resize-inode" in codes(report)
    assert report.exit_code == 1
    device.blocks.clear()
    assert_sound(MemoryDevice(bytes(device.data)))


@pytest.mark.parametrize("offset", [0, 1])
def test_a_backup(offset: int) -> None:
    image = volume()
    image.set_super(s_feature_compat=image.super("s_feature_compat") | 8, s_want_extra_isize=999)
    repaired(image, 8193 + offset)


@pytest.mark.parametrize("field", ["bg_block_bitmap", "bg_inode_bitmap"])
def test_the_bitmaps_of_an_empty_group(field: str) -> None:
    image = volume()
    row = np.frombuffer(image.device.read(2048 + 32, 32), "<u4")
    assert repaired(image, int(row[0 if field == "bg_block_bitmap" else 1]))
