"""An empty image that is edited, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.edit.filesystem import WritableFilesystem

from ....support.image_checks import check_counts
from ....support.sessions import OLD_STAMP, clock, empty_image


@pytest.fixture
def device() -> MemoryDevice:
    """An empty image, older than what is done to it."""
    return empty_image(stamp=OLD_STAMP)


@pytest.fixture
def fs(device: MemoryDevice) -> Iterator[WritableFilesystem]:
    """The image open for changes; its books are judged afterwards."""
    with ext3.Filesystem.open(device, "r+", clock=clock) as opened:
        yield opened
    with ext3.Filesystem.open(device) as after:
        check_counts(after)
