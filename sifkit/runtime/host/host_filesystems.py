"""Filesystems of the host on which the kernel's overlayfs writes to no directory, known by statfs(2).

A layer that is written to needs xattrs, renames that leave a whiteout, and names that no other host changes. Network and
cluster filesystems, and those that fold case, lack one of these. The list is longer than that of Apptainer (NFS, FUSE,
eCryptfs, Lustre, GPFS, PanFS), which leaves the others to a message of the kernel.
Sources: linux/magic.h; Lustre lustre_idl.h; Apptainer internal/pkg/image/overlay; Linux fs/overlayfs/super.c, ovl_dentry_weird.
"""

from __future__ import annotations

import os
import re

from .. import sys

__all__ = ["has_mounts", "no_upper_filesystem"]

MOUNTS = "/proc/self/mountinfo"
MOUNT_POINT = 4
"""Number of the field in a line of it; see proc(5)."""

NO_UPPER = {
    0x6969: "NFS",
    0x65735546: "FUSE",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0xAAD7AAEA: "PanFS",
    0xF15F: "eCryptfs",
    0x19830326: "BeeGFS",
    0x00C36400: "Ceph",
    0x20030528: "OrangeFS",
    0xFE534D42: "SMB",
    0xFF534D42: "CIFS",
    0x517B: "SMB",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x01021997: "9P",
    0x786F4256: "VirtualBox shared folders",
    0x794C7630: "overlayfs",
    0x4D44: "FAT",
    0x2011BAB0: "exFAT",
}
"""Names by f_type. FUSE: filesystems of users, among them sshfs and GlusterFS."""


def no_upper_filesystem(path: str) -> str:
    """Return the kind of the filesystem that a directory lies on, if overlayfs cannot write there; else an empty text."""
    try:
        return NO_UPPER.get(sys.filesystem_magic(path), "")
    except OSError:
        return ""


def has_mounts(path: str) -> bool:
    """Return True if filesystems are mounted in a directory, whose path has no links: no layer of overlayfs for a user."""
    inside = os.fsencode(path.rstrip("/") + "/")
    try:
        with open(MOUNTS, "rb") as file:
            points = [line.split(b" ")[MOUNT_POINT] for line in file]
    except OSError:
        return False
    return any(_unescaped(point).startswith(inside) and _unescaped(point) != inside for point in points)


def _unescaped(point: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), point)
