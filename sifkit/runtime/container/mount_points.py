"""Mount points in the root of a container: paths resolved below it, and made in a layer of their own if missing.

The image is hostile: absolute symlinks and ``..`` in it lead to its own root, never to the host. The paths that come out hold
no symlink, so that mount(2), which follows them, stays inside. Nothing else runs in the container at that time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Hashable
from typing import Any, NamedTuple, Protocol

from ...errors import show
from ...vfs.file_tree import FileTree
from ...vfs.resolve import MAX_COMPONENTS, MAX_SYMLINKS
from ..errors import LaunchError

__all__ = ["FoundPath", "Root", "TreeRoot", "add_mount_point", "find_link", "real_directory", "resolve_below", "root_at"]

Names = tuple[bytes, ...]
"""Path below a root, none of whose names is a symlink but the last."""


class Root(Protocol):
    """Root of a container, looked into before it is mounted, or where it is mounted."""

    def mode(self, names: Names, /) -> int:
        """Return the mode of a file. Raises FileNotFoundError."""
        ...

    def readlink(self, names: Names, /) -> bytes: ...

    def copy_attributes(self, names: Names, target: bytes, /) -> None:
        """Give a directory of the host owner and mode of one below the root."""
        ...


class _HostRoot:
    """Root that is mounted at ``path``."""

    def __init__(self, path: bytes) -> None:
        self.path = path

    def mode(self, names: Names, /) -> int:
        return os.lstat(b"/".join([self.path, *names])).st_mode

    def readlink(self, names: Names, /) -> bytes:
        return os.readlink(b"/".join([self.path, *names]))

    def copy_attributes(self, names: Names, target: bytes, /) -> None:
        found = os.lstat(b"/".join([self.path, *names]))
        mine = os.lstat(target)
        if (found.st_uid, found.st_gid) != (mine.st_uid, mine.st_gid):
            try:
                os.chown(target, found.st_uid, found.st_gid)
            except OSError as error:  # an owner without a number in this user namespace
                if error.errno not in (errno.EINVAL, errno.EPERM):
                    raise
        os.chmod(target, stat.S_IMODE(found.st_mode))


class TreeRoot:
    """Root that a server shows, with all files of one owner."""

    def __init__(self, tree: FileTree[Any]) -> None:
        self.tree = tree
        self._nodes: dict[Names, Hashable] = {(): tree.root}

    def mode(self, names: Names, /) -> int:
        return self.tree.stat(self._node(names)).mode

    def readlink(self, names: Names, /) -> bytes:
        return self.tree.readlink(self._node(names))

    def copy_attributes(self, names: Names, target: bytes, /) -> None:
        os.chmod(target, stat.S_IMODE(self.mode(names)))

    def _node(self, names: Names) -> Hashable:
        found = self._nodes.get(names)
        if found is None:
            found = self.tree.find_name(self._node(names[:-1]), names[-1])
            if found is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), b"/".join(names))
            self._nodes[names] = found
        return found


def root_at(given: bytes | Root) -> Root:
    """Return a root that is mounted at a path of the host; one that is no path as it is."""
    return _HostRoot(given) if isinstance(given, bytes) else given


class FoundPath(NamedTuple):
    """Path below a root: the names of what exists, none of them a symlink, and the ``missing`` names after it."""

    existing: tuple[bytes, ...]
    missing: tuple[bytes, ...]

    def below(self, root: bytes) -> bytes:
        """Return the path that exists, on the host."""
        return b"/".join([root, *self.existing])


def resolve_below(root: bytes | Root, path: bytes) -> FoundPath:
    """Resolve a container's path below ``root``, a directory of the host. Raises OSError: ELOOP, ENAMETOOLONG, ENOTDIR."""
    looked_into = root_at(root)
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
        here = (*found, name)
        try:
            mode = looked_into.mode(here)
        except FileNotFoundError:
            if b".." in pending:
                raise
            return FoundPath(tuple(found), (name, *(part for part in pending[::-1] if part != b".")))
        if stat.S_ISLNK(mode):
            links += 1
            if links > MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = looked_into.readlink(here)
            if target.startswith(b"/"):
                found.clear()
            pending += [part for part in target.split(b"/") if part][::-1]
            continue
        if pending and not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        found.append(name)
    return FoundPath(tuple(found), ())


def find_link(root: bytes | Root, path: bytes) -> FoundPath | None:
    """Return a symlink that is itself at a container's path, as its missing name in the directory that it is in; else None.

    Raises OSError as ``resolve_below`` does.
    """
    looked_into = root_at(root)
    above, _, name = path.rpartition(b"/")
    found = resolve_below(looked_into, above)
    try:
        is_link = not found.missing and stat.S_ISLNK(looked_into.mode((*found.existing, name)))
    except OSError:
        is_link = False
    return FoundPath(found.existing, (name,)) if is_link else None


def add_mount_point(root: bytes | Root, layer: bytes, path: bytes, *, is_directory: bool, hides_link: bool = False) -> bool:
    """Create ``path`` in the directory ``layer``, which will lie above ``root``, unless ``root`` has it; return whether it did.

    Directories on the way get the mode and owner that they have in ``root``. ``hides_link``: a symlink at ``path`` is not
    followed. Raises OSError as ``resolve_below`` does.
    """
    looked_into = root_at(root)
    found = (find_link(looked_into, path) if hides_link else None) or resolve_below(looked_into, path)
    if not found.missing:
        return False
    here = layer
    for depth, name in enumerate(found.existing, 1):
        here += b"/" + name
        if not os.path.isdir(here):
            os.mkdir(here)
            looked_into.copy_attributes(found.existing[:depth], here)
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


def real_directory(point: str, name: str, image: str) -> str:
    """Return a directory in an image. Raises LaunchError for another file: a symlink would lead to the host."""
    path = f"{point}/{name}" if name else point
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        raise LaunchError(f"{show(image)}: {show(name)}/ cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise LaunchError(f"{show(image)}: {show(name)} is not a directory")
    return path
