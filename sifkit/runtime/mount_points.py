"""Mount points in the root of a container: paths resolved below it, and made in a layer of their own if missing.

The image is hostile: absolute symlinks and ``..`` in it lead to its own root, never to the host. The paths that come out hold
no symlink, so that mount(2), which follows them, stays inside. Nothing else runs in the container at that time.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from ..vfs.resolve import MAX_COMPONENTS, MAX_SYMLINKS

__all__ = ["FoundPath", "add_mount_point", "find_link", "resolve_below"]


@dataclass(frozen=True, slots=True)
class FoundPath:
    """Path below a root: the names of what exists, none of them a symlink, and the ``missing`` names after it."""

    existing: tuple[bytes, ...]
    missing: tuple[bytes, ...]

    def below(self, root: bytes) -> bytes:
        """Return the path that exists, on the host."""
        return b"/".join([root, *self.existing])


def resolve_below(root: bytes, path: bytes) -> FoundPath:
    """Resolve a container's path below the host's directory ``root``. Raises OSError: ELOOP, ENAMETOOLONG, ENOTDIR."""
    pending = [name for name in path.split(b"/") if name][::-1]
    found: list[bytes] = []
    links = steps = 0
    while pending:
        name = pending.pop()
        steps += 1
        if steps + len(pending) > MAX_COMPONENTS:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        if name == b".":
            continue
        if name == b"..":
            del found[-1:]
            continue
        here = b"/".join([root, *found, name])
        try:
            mode = os.lstat(here).st_mode
        except FileNotFoundError:
            if b".." in pending:
                raise
            return FoundPath(tuple(found), (name, *(part for part in pending[::-1] if part != b".")))
        if stat.S_ISLNK(mode):
            links += 1
            if links > MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(here)
            if target.startswith(b"/"):
                found.clear()
            pending += [part for part in target.split(b"/") if part][::-1]
            continue
        if pending and not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        found.append(name)
    return FoundPath(tuple(found), ())


def find_link(root: bytes, path: bytes) -> FoundPath | None:
    """Return a symlink that is itself at a container's path, as its missing name in the directory that it is in; else None.

    Raises OSError as ``resolve_below`` does.
    """
    above, _, name = path.rpartition(b"/")
    found = resolve_below(root, above)
    if found.missing or not os.path.islink(found.below(root) + b"/" + name):
        return None
    return FoundPath(found.existing, (name,))


def add_mount_point(root: bytes, layer: bytes, path: bytes, *, is_directory: bool, hides_link: bool = False) -> bool:
    """Create ``path`` in the directory ``layer``, which will lie above ``root``, unless ``root`` has it; return whether it did.

    Directories on the way get the mode and owner that they have in ``root``. ``hides_link``: a symlink at ``path`` is not
    followed. Raises OSError as ``resolve_below`` does.
    """
    found = (find_link(root, path) if hides_link else None) or resolve_below(root, path)
    if not found.missing:
        return False
    here = layer
    for depth, name in enumerate(found.existing, 1):
        here += b"/" + name
        if not os.path.isdir(here):
            os.mkdir(here)
            _copy_attributes(b"/".join([root, *found.existing[:depth]]), here)
    for name in found.missing[:-1]:
        here += b"/" + name
        if not os.path.isdir(here):
            os.mkdir(here, 0o755)
    here += b"/" + found.missing[-1]
    if is_directory:
        os.makedirs(here, 0o755, exist_ok=True)
    elif not os.path.lexists(here):
        os.close(os.open(here, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    return True


def _copy_attributes(source: bytes, target: bytes) -> None:
    found = os.lstat(source)
    mine = os.lstat(target)
    if (found.st_uid, found.st_gid) != (mine.st_uid, mine.st_gid):
        os.chown(target, found.st_uid, found.st_gid)
    os.chmod(target, stat.S_IMODE(found.st_mode))
