"""Containers for tests: SIF images with a root and overlays."""

from __future__ import annotations

from pathlib import Path

from sifkit.sif import SIF, DataType, FSType, PartType

from .sif_images import STAMP, partition

__all__ = ["sif_of"]


def sif_of(path: Path, root: Path | None, *overlays: Path, group: int = 1) -> Path:
    """Create a SIF image whose objects are a root (None: none) and overlays in this order, in one group."""
    with SIF.create(path, stamp=STAMP) as sif:
        for source in [root, *overlays]:
            if source is None:
                continue
            head = source.read_bytes()[:4]
            fs_type = FSType.SQUASHFS if head == b"hsqs" else FSType.EXT3
            part_type = PartType.PRIMARY_SYSTEM if source is root else PartType.OVERLAY
            sif.add(source, DataType.PARTITION, name=source.name.encode(), group=group, metadata=partition(part_type, fs_type))
    return path
