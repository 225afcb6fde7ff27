"""Filesystems whose files may have more or less data than their size says: what a scan has to read to know.

The files of proc have 0 and those of sysfs 4096 bytes, whatever they hold, and no blocks; a FUSE filesystem may report any
size. Disk and network filesystems are trusted, and so are devices without a mount of their own: btrfs gives each subvolume one.
Source: Linux ``Documentation/filesystems/proc.rst``, 3.5 (mountinfo).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

__all__ = ["SizeTrust", "doubtful_devices"]

MOUNTS = "/proc/self/mountinfo"
TRUSTED = frozenset(
    (
        *(b"tmpfs", b"ramfs", b"devtmpfs", b"overlay", b"squashfs", b"erofs", b"btrfs", b"zfs", b"xfs", b"ext4", b"virtiofs"),
        *(b"nfs", b"nfs4", b"cifs", b"smb3", b"ceph", b"lustre", b"gpfs", b"beegfs", b"9p", b"fuseblk", b"panfs", b"wekafs"),
    )
)
FUSE_SAMPLES = 64
"""Files of a FUSE filesystem that are read, to see whether its sizes are true."""


def doubtful_devices(mounts: Iterable[bytes]) -> dict[int, bool]:
    """Return the devices (st_dev) whose sizes may be false, and whether they are FUSE filesystems, from lines of mountinfo."""
    found: dict[int, bool] = {}
    for line in mounts:
        fields, _, rest = line.partition(b" - ")
        device, kind = fields.split()[2:3], rest.split()[:1]
        if not device or not kind or kind[0] in TRUSTED:
            continue
        major, _, minor = device[0].partition(b":")
        if major == b"0" and minor.isdigit():  # other majors are disks
            found[os.makedev(0, int(minor))] = kind[0].startswith(b"fuse")
    return found


class SizeTrust:
    """Which files of a scan must be read to know their size. Several threads may ask."""

    def __init__(self) -> None:
        self.trusted: set[int] = set()
        """Devices known to report true sizes."""
        self._doubtful: dict[int, bool] | None = None
        self._samples: dict[int, int] = {}
        """FUSE devices: files still to be read, -1 for all."""

    def doubts(self, device: int, blocks: int) -> bool:
        """Return True if a regular file with so many blocks must be read."""
        if device in self.trusted:
            return False
        is_fuse = self._kind_of(device)
        if is_fuse is None:
            self.trusted.add(device)
            return False
        if not blocks:
            return True
        left = self._samples.setdefault(device, FUSE_SAMPLES) if is_fuse else 0
        if left > 0:
            self._samples[device] = left - 1
        return left != 0

    def distrust(self, device: int) -> None:
        """Have all files of a FUSE filesystem read: one had another size than reported."""
        self._samples[device] = -1

    def _kind_of(self, device: int) -> bool | None:
        """Return None for a device whose sizes are true, else whether it is a FUSE filesystem."""
        if not hasattr(os, "major") or os.major(device):
            return None
        if self._doubtful is None:
            try:
                with open(MOUNTS, "rb") as mounts:
                    self._doubtful = doubtful_devices(mounts)
            except OSError:
                self._doubtful = {}
        return self._doubtful.get(device)
