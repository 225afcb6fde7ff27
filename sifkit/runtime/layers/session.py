"""Session directory of a run: a tmpfs in the mount namespace of the run alone, for mount points and generated files.

It is mounted over a directory of the host that the run does not use, so that nothing is created on the host and nothing is left
behind, whatever is killed. It is unbindable: binds of the host's directories do not show it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from .. import sys
from ..errors import LaunchError

__all__ = ["Session", "device_of", "mount_session", "unused_directory"]

CANDIDATES = ("/srv", "/media", "/boot", "/mnt", "/opt", "/var", "/home")
"""Directories that hosts have by the Filesystem Hierarchy Standard; none of them is needed by a run that does not name it."""
SESSION_OPTIONS = "mode=755,size=16m"
"""Bounds what is generated in it; a writable layer in memory has a tmpfs of its own."""


class Session(NamedTuple):
    """Directories of a mounted session: all of it, the layer of missing mount points, and generated files.

    ``place``: the host's directory over which it is mounted.
    """

    place: str
    path: str
    points: str
    files: str


def unused_directory(used: Iterable[str]) -> str:
    """Return a directory of the host with none of the paths ``used`` in it."""
    real = [os.path.realpath(path) for path in used]
    for candidate in CANDIDATES:
        if os.path.isdir(candidate) and os.path.realpath(candidate) == candidate:
            inside = candidate + "/"
            if not any(path == candidate or path.startswith(inside) for path in real):
                return candidate
    raise LaunchError(
        f"no directory to mount the session on: {', '.join(CANDIDATES)} are missing or in use by this run",
        hint="create /srv or /media, which may be empty",
    )


def mount_session(place: str) -> Session:
    """Mount a session at ``place``."""
    flags = sys.MS_NOSUID | sys.MS_NODEV
    sys.mount("sifkit", place, "tmpfs", flags, SESSION_OPTIONS)
    sys.mount(None, place, None, sys.MS_UNBINDABLE)
    inside = f"{place}/session"  # a mount of its own: overlayfs and binds take nothing of an unbindable one
    os.mkdir(inside, 0o755)
    sys.mount("sifkit", inside, "tmpfs", flags, SESSION_OPTIONS)
    session = Session(place, inside, f"{inside}/points", f"{inside}/files")
    os.mkdir(session.points, 0o755)
    os.mkdir(session.files, 0o755)
    return session


def device_of(point: str) -> int:
    """Return the device of a mounted root; 0 if nobody serves it any longer."""
    try:
        return os.stat(point).st_dev
    except OSError:
        return 0
