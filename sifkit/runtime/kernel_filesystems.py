"""Filesystems that the kernel of this host has."""

from __future__ import annotations

import errno

from . import sys

__all__ = ["can_mount", "is_loaded"]


def is_loaded(kind: str) -> bool:
    """Return True if the kernel has a filesystem of this kind, loaded already."""
    try:
        with open("/proc/filesystems", encoding="utf-8", errors="replace") as file:
            return any(line.split()[-1:] == [kind] for line in file)
    except OSError:
        return False


def can_mount(kind: str) -> bool:
    """Return True if the kernel has a filesystem of this kind, or loads it when it is mounted. Only for root.

    Administrators switch off what their hosts do not need, squashfs often.
    """
    if is_loaded(kind):
        return True
    try:
        sys.mount(None, "/", kind)
    except OSError as error:
        return error.errno != errno.ENODEV  # without a device it is another error
    return True
