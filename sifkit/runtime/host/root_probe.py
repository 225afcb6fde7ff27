"""Probe of what root needs for containers: mounts, the kernel's filesystems and a loop device, each tried.

A run as root finds out by itself. A container around it may forbid root its mounts, also with the capability for them.
"""

from __future__ import annotations

import os

from .. import sys
from ..kernel_filesystems import can_mount
from .probing import PLACES, Host, HostFact, Report, failure, run_probe, tried

__all__ = ["root_mounts"]

FILESYSTEMS = ("ext3", "overlay")
"""Filesystems of the kernel for what is written to. What is only read is served by FUSE if it has no squashfs."""
LOOP_BYTES = 4096


def root_mounts(host: Host) -> HostFact:
    """Return whether root can mount images."""
    return run_probe(_try_all, ("loop",))["loop"] if host.loop.works else host.loop


def _try_all(found: Report) -> None:
    place = next(filter(os.path.isdir, PLACES))
    try:
        sys.unshare(sys.CLONE_NEWNS)
        sys.mount(None, "/", None, sys.MS_REC | sys.MS_SLAVE)
        sys.mount("sifkit", place, "tmpfs", sys.MS_NOSUID | sys.MS_NODEV, "mode=755,size=1m")
    except OSError as error:
        found["loop"] = failure(error, "mounts by root (a container around this one forbids them)")
        return
    for kind in FILESYSTEMS:
        if not can_mount(kind):
            found["loop"] = HostFact(False, f"this kernel has no {kind}; run containers with -u", f"modprobe {kind}")
            return
    found["loop"] = tried(_attach_loop, "loop devices")


def _attach_loop() -> None:
    fd = os.memfd_create("sifkit-probe")
    os.ftruncate(fd, LOOP_BYTES)
    device, _ = sys.attach_loop(fd, read_only=True)
    os.close(device)  # which frees it
