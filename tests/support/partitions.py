"""Filesystems in partitions of SIF images, opened as ext3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ext3
from sifkit.overlay.images.opening import open_window

__all__ = ["open_partition_filesystem"]


@contextmanager
def open_partition_filesystem(path: Path, partition: str) -> Iterator[ext3.Filesystem]:
    """Open the ext3 filesystem in a partition of a SIF image, read-only."""
    with open_window(path, partition) as window, ext3.Filesystem.open(window.device()) as filesystem:
        yield filesystem
