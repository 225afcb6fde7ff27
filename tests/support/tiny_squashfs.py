"""A small squashfs image: motd, d/data (9,000 bytes in blocks of 4 KiB) and a symlink, five inodes, by mksquashfs 4.5.

mksquashfs sq t.sqfs -noappend -all-root -all-time 1700000000 -mkfs-time 1700000000 -no-xattrs -b 4096 -nopad
"""

from __future__ import annotations

import base64
from pathlib import Path

from sifkit.sif import SIF, DataType, HashType, PartType, SignatureMeta

from .sif_images import STAMP, partition

__all__ = ["TINY_SQUASHFS", "tiny_sif"]

TINY_SQUASHFS = base64.b64decode(
    "aHNxcwUAAAAA8VNlABAAAAEAAAABAAwAwAIBAAQAAACIAAAAAAAAAH0BAAAAAAAAdQEAAAAAAAD//////////64AAAAAAAAACQEA"
    "AAAAAABKAQAAAAAAAGcBAAAAAAAAeNrtwQENAAAAwqCs71/CHg4oAAAA4N0A78sQW3ja7cEBDQAAAMKgrO9fwh4OKAAAAODdAO/L"
    "EFt42ktMHAWjYBQQAgDfqTI4aGVsbG8KWQB42mNiWMLIAAIfg1OZgFQCEP8HApCQhjIDgwwDBAsAMSPDW7haCIOBAaRHGohZgZiZ"
    "4T9cnhmsnoGBBYhz80tSmJDsYWFABWxoZrNCxUFmGDBIgOUBoTYTrS0AeNpjYIAAJjjNzJCSWJII4zMCsQ6UTvEBSzMz5GTmZWcA"
    "aRAvN78kBQCHYQZcEICoAAAAAAAAAAYAAAEAAAAAOAEAAAAAAAATAHja02FABT5QOgNKd0BpABjoAWlSAQAAAAAAAASAAAAAAG8B"
    "AAAAAAAA"
)


def tiny_sif(path: Path, *, signatures: int = 0) -> Path:
    """A SIF of 9 KiB whose root is the image, with a small object after it."""
    with SIF.create(path, capacity=2 + signatures, stamp=STAMP) as sif:
        sif.add(TINY_SQUASHFS, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
        sif.add(b"n" * 100, DataType.GENERIC, name=b"notes", group=1)
        for _ in range(signatures):
            sif.add(b"signature", DataType.SIGNATURE, link_group=1, metadata=SignatureMeta(HashType.SHA256, bytes(20)))
    return path
