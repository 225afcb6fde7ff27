"""Format of an image file: errors of reading its first bytes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from sifkit.overlay.images.image_format import file_format, image_kind

UNREADABLE = "/proc/self/mem"
"""Can be opened, and has nothing at its beginning that can be read."""


@pytest.mark.skipif(not Path(UNREADABLE).exists(), reason="needs /proc")
@pytest.mark.parametrize("read", [file_format, image_kind])
def test_a_file_that_cannot_be_read_is_named(read: Callable[[str], object]) -> None:
    with pytest.raises(OSError, match="Input/output error") as caught:
        read(UNREADABLE)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, UNREADABLE)
