"""Mount points in a read-only root on kernels without overlayfs for users: memory with what the directory holds bound into it.

Apptainer calls this an underlay. A directory that lacks a mount point is mounted over with a tmpfs, into which all that is in
it is bound, and in which the mount point is made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress

from .. import sys
from ..container.container_mounts import is_directory_mount, is_needed
from ..container.mount_points import FoundPath, find_link, resolve_below
from ..planning.run_plan import Mount

__all__ = ["mount_underlay"]

BYTES = 16 << 20
"""Bounds what the names of one directory take."""


def mount_underlay(root: str, point: str, mounts: Iterable[Mount]) -> bool:
    """Show the directory ``root`` at ``point``, read-only, with the mount points that it lacks; return whether it lacks any.

    Raises OSError.
    """
    missing: dict[tuple[bytes, ...], list[tuple[FoundPath, bool]]] = {}
    for mount in mounts:
        if mount.make_target and mount.kind != "symlink" and is_needed(os.fsencode(root), mount):
            with suppress(OSError):  # its mount will fail, and say why
                path = os.fsencode(mount.target)
                link = find_link(os.fsencode(root), path) if mount.hides_link else None
                found = link or resolve_below(os.fsencode(root), path)
                if found.missing:
                    missing.setdefault(found.existing, []).append((found, is_directory_mount(mount)))
    if not missing:
        return False
    source, target = os.fsencode(root), os.fsencode(point)
    if () not in missing:
        sys.bind(source, target, recursive=True)
    made = sorted(missing, key=len)
    for names in made:
        hidden = {found.missing[0] for found, _ in missing[names]}
        _mount_over(b"/".join([source, *names]), b"/".join([target, *names]), hidden)
        for found, is_directory in missing[names]:
            _make(found.below(target), found.missing, is_directory=is_directory)
    for names in made:
        place = b"/".join([target, *names])
        sys.mount(None, place, None, sys.MS_BIND | sys.MS_REMOUNT | sys.MS_RDONLY | sys.bind_flags(place))
    return True


def _mount_over(source: bytes, target: bytes, hidden: AbstractSet[bytes]) -> None:
    """Mount a tmpfs at ``target`` with everything in the directory ``source`` but symlinks with the names ``hidden``."""
    mode = stat.S_IMODE(os.stat(source).st_mode)
    sys.mount("sifkit", target, "tmpfs", sys.MS_NOSUID | sys.MS_NODEV, f"mode={mode:o},size={BYTES}")
    with os.scandir(source) as entries:
        for entry in entries:
            place = target + b"/" + entry.name
            if entry.is_symlink():
                if entry.name not in hidden:
                    os.symlink(os.readlink(entry.path), place)
                continue
            if entry.is_dir(follow_symlinks=False):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            sys.bind(entry.path, place, recursive=True)


def _make(above: bytes, names: Iterable[bytes], *, is_directory: bool) -> None:
    """Make the last of ``names`` in each other below a directory; one made before is kept."""
    *directories, last = names
    for name in [*directories, last] if is_directory else directories:
        above += b"/" + name
        with suppress(FileExistsError):
            os.mkdir(above, 0o755)
    if not is_directory:
        with suppress(FileExistsError):
            os.close(os.open(above + b"/" + last, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
