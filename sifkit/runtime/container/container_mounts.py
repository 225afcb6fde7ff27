"""Mounts of a plan below the root of a container: binds, proc, tmpfs and generated files, each at a path inside the root."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from ...errors import show
from .. import sys
from ..errors import LaunchError, unmounted
from ..planning.binds import is_below
from ..planning.run_plan import DataImage, Mount
from .mount_points import Root, add_mount_point, find_link, resolve_below, root_at

__all__ = [
    "add_mount_points",
    "enter_root",
    "is_directory_mount",
    "is_needed",
    "mount_all",
    "mounts_in_written_root",
    "read_small_file",
    "with_image_sources",
]

SMALL_FILE_BYTES = 1 << 20
HOME_BYTES = 1 << 20
"""Size of a tmpfs that holds only the mount point of a home directory."""
KERNEL_DIRECTORIES = ("/proc", "/sys")
"""Directories of the host in which no mount points are made, nor in /dev itself: root could make some of them."""
Notify = Callable[[str], None]


class _MissingTargetError(FileNotFoundError):
    """Target that is missing and not made. ``hint``: what helps."""

    def __init__(self, target: str, hint: str) -> None:
        super().__init__(errno.ENOENT, "the container has no such path", target)
        self.hint = hint


class _UnmadeTargetError(OSError):
    """Target that is missing and could not be made, by an ``error``."""

    def __init__(self, target: str, error: OSError) -> None:
        super().__init__(error.errno, f"its mount point cannot be made: {error.strerror}", target)


def add_mount_points(root: str | Root, layer: str, mounts: Iterable[Mount]) -> bool:
    """Create the targets that ``root`` has not in the empty directory ``layer``; return True if there are any."""
    added = False
    below = os.fsencode(root) if isinstance(root, str) else root
    for mount in mounts:
        if mount.make_target and mount.kind != "symlink" and is_needed(below, mount):
            try:
                is_directory = is_directory_mount(mount)
                added |= add_mount_point(
                    below,
                    os.fsencode(layer),
                    os.fsencode(mount.target),
                    is_directory=is_directory,
                    hides_link=mount.hides_link,
                )
            except OSError:
                continue  # its mount will fail, and say why
    return added


def mounts_in_written_root(root: str, mounts: Iterable[Mount], home: str) -> list[Mount]:
    """Return the mounts for a root that is written to itself, in which no mount points are made, as Apptainer does.

    A home directory that is missing is shown in memory mounted over the directory above it, unless that is the root, or a mount
    shows it.
    """
    found: list[Mount] = []
    for mount in mounts:
        is_home = mount.target == home and mount.kind in ("bind", "tmpfs")
        if is_home and (above := _existing_above(root, home)) and not any(is_below(above, one.target) for one in found):
            found.append(Mount(kind="tmpfs", target=above, size=HOME_BYTES, is_optional=True))
        found.append(mount)
    return found


def _existing_above(root: str, path: str) -> str:
    """Return the directory of a container in which a path is missing; an empty text if it is not, or that is the root."""
    try:
        found = resolve_below(os.fsencode(root), os.fsencode(path))
    except OSError:
        return ""
    return "/" + os.fsdecode(b"/".join(found.existing)) if found.missing and found.existing else ""


def is_needed(root: bytes | Root, mount: Mount) -> bool:
    """Return False for a mount of which the container has no use."""
    if not mount.needs:
        return True
    try:
        looked_into = root_at(root)
        found = resolve_below(looked_into, os.fsencode(mount.needs))
        return not found.missing and stat.S_ISDIR(looked_into.mode(found.existing))
    except OSError:
        return False


def is_directory_mount(mount: Mount) -> bool:
    """Return True if the target of a mount is a directory. Raises OSError."""
    if mount.kind != "bind":
        return True
    if mount.is_directory is not None:
        return mount.is_directory
    if mount.content is not None or mount.edit:
        return False
    return mount.make_source or stat.S_ISDIR(os.stat(mount.source).st_mode)


def with_image_sources(mounts: Iterable[Mount], directories: Mapping[DataImage, str]) -> tuple[Mount, ...]:
    """Return the mounts with the sources in data images found, which are mounted at ``directories``; others as they are.

    The images are hostile: a path in one leads to nothing outside of it. Raises LaunchError.
    """
    return tuple(_with_image_source(mount, directories) for mount in mounts)


def _with_image_source(mount: Mount, directories: Mapping[DataImage, str]) -> Mount:
    directory = None if mount.image is None else directories.get(mount.image)
    if directory is None:
        return mount
    try:
        found = resolve_below(os.fsencode(directory), os.fsencode(mount.image_source))
        if found.missing:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        path = found.below(os.fsencode(directory))
        return mount._replace(source=os.fsdecode(path), is_directory=stat.S_ISDIR(os.lstat(path).st_mode))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LaunchError(f"{_source_name(mount)}: {reason}", hint="it is the source of a bind") from error


def _source_name(mount: Mount) -> str:
    """Return the name of the source of a mount for messages."""
    if mount.image is not None:
        return f"{show(mount.image_source)} in {show(mount.image.name)}"
    return show(mount.source) or (mount.kind if mount.content is None else "a generated file")


def mount_all(root: str, files: str, mounts: Iterable[Mount], notify: Notify, *, makes_missing: bool = False) -> None:
    """Carry out ``mounts`` in order. ``files``: empty directory for generated files. Raises LaunchError.

    ``makes_missing``: targets that a directory of the writable layer hides, which replaces that of the layers below, are made.
    """
    done: list[_DoneMount] = []
    for number, mount in enumerate(mounts):
        if not is_needed(os.fsencode(root), mount):
            continue
        try:
            if mount.hides_link and find_link(os.fsencode(root), os.fsencode(mount.target)):
                continue  # in a layer above the mount points: what the user has chosen there
            target = _target(root, mount, done, makes_missing=makes_missing)
            if not mount.hides_mount and any(one.target == target for one in done):
                continue
            _mount(target, f"{files}/{number}", mount, notify)
            if mount.kind != "symlink" and os.path.isdir(target):
                done.append(_DoneMount(target, _holder(mount)))
        except OSError as error:
            if error.errno == errno.EUCLEAN:  # nothing else in it would work, either
                what = f"the root of the container is damaged: {error.strerror} at {show(mount.target)}"
                raise LaunchError(what, hint="see: sifkit check IMAGE") from error
            same = mount.source == mount.target
            what = show(mount.target) if same else f"{_source_name(mount)} at {show(mount.target)}"
            failed = unmounted(what, error, hint=_hint(mount, error))
            if not mount.is_optional:
                raise failed from error
            notify(failed.message)


def _hint(mount: Mount, error: OSError) -> str:
    if isinstance(error, _MissingTargetError):
        return error.hint
    if isinstance(error, _UnmadeTargetError):
        is_read_only = error.errno == errno.EROFS
        return f"{show(mount.target)} lies in what is only read: create it there before the run" if is_read_only else ""
    if error.errno == errno.ENOENT and mount.kind == "bind" and mount.content is None and not os.path.exists(mount.source):
        return f"{show(mount.source)} does not exist on this host"
    return ""


def _mount(target: bytes, file: str, mount: Mount, notify: Notify) -> None:
    flags = sum(
        flag
        for wanted, flag in (
            (mount.readonly, sys.MS_RDONLY),
            (mount.nosuid, sys.MS_NOSUID),
            (mount.nodev, sys.MS_NODEV),
            (mount.noexec, sys.MS_NOEXEC),
        )
        if wanted
    )
    if mount.kind == "symlink":
        os.symlink(mount.source, target)
    elif mount.kind == "bind":
        source = mount.source
        if mount.content is not None:
            source = file
            with open(file, "xb") as output:
                output.write(mount.content)
            os.chmod(file, mount.mode & 0o666)
        elif mount.make_source:
            _make_source(source, mount.mode)
        sys.bind(source, target, flags=flags, recursive=mount.recursive)
    elif mount.kind == "proc":
        _mount_proc(target, flags, notify)
    elif mount.kind == "sysfs":
        _mount_sysfs(target, flags, notify)
    elif mount.kind == "tmpfs":
        size = "" if mount.size is None else f",size={mount.size}"
        sys.mount("sifkit", target, "tmpfs", flags, f"mode={mount.mode:o}{size}")
    else:
        sys.mount(mount.kind, target, mount.kind, flags, mount.data or None)


def _make_source(path: str, mode: int) -> None:
    """Make a directory of the host and those above it; one that exists keeps its mode."""
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chmod(path, mode)


def _mount_proc(target: bytes, flags: int, notify: Notify) -> None:
    """Mount /proc: a new one, which needs the PID namespace to be ours, or the host's."""
    try:
        sys.mount("proc", target, "proc", flags)
    except PermissionError:
        sys.bind("/proc", target, recursive=True)
        notify("/proc is the host's, with its process numbers: something mounted over parts of it forbids a new one")


def _mount_sysfs(target: bytes, flags: int, notify: Notify) -> None:
    """Mount /sys of the own network, or the host's where something that the host mounts over its own forbids a new one."""
    try:
        sys.mount("sysfs", target, "sysfs", flags)
    except PermissionError:
        sys.bind("/sys", target, recursive=True)
        notify("/sys is the host's: it lists network devices that the container does not have")


class _DoneMount(NamedTuple):
    """Directory that was mounted at ``target``, a path of the host. ``holder``: has the files in it."""

    target: bytes
    holder: Literal["memory", "kernel", "host"]


def _holder(mount: Mount) -> Literal["memory", "kernel", "host"]:
    if mount.kind == "tmpfs":
        return "memory"
    if mount.kind != "bind" or mount.source == "/dev" or any(is_below(mount.source, one) for one in KERNEL_DIRECTORIES):
        return "kernel"
    return "host"


def _target(root: str, mount: Mount, done: Sequence[_DoneMount], *, makes_missing: bool) -> bytes:
    """Return where the target is on the host. One that is missing is made where that is allowed.

    That is in memory mounted before it; in directories of the host or of data images bound before it for what the user asks
    for, as with Apptainer; in the layers with ``makes_missing``. Raises OSError.
    """
    found = resolve_below(os.fsencode(root), os.fsencode(mount.target))
    if mount.kind == "symlink" and len(found.missing) == 1:
        return found.below(os.fsencode(root)) + b"/" + found.missing[0]
    below = found.below(os.fsencode(root))
    if not found.missing and not found.existing:  # by a link of the image; the mount would hide all of it
        raise OSError(errno.EBUSY, "it is the root of the container", mount.target)
    if not found.missing:
        return below
    if not mount.make_target:
        raise _MissingTargetError(mount.target, "with --writable it is not made: create it before the run")
    holder = next((one.holder for one in reversed(done) if _is_in(below, one.target)), None)
    if holder == "kernel":
        raise _MissingTargetError(mount.target, "mount points are not made in /dev, /proc and /sys")
    is_made = mount.make_in_bind or not mount.is_optional if holder == "host" else makes_missing or holder == "memory"
    if not is_made:
        raise _MissingTargetError(mount.target, "mount points are not made in a directory that is written to: create it there")
    is_directory = is_directory_mount(mount)
    try:
        for name in found.missing if is_directory else found.missing[:-1]:
            below += b"/" + name
            os.mkdir(below, 0o755)
        if not is_directory:
            below += b"/" + found.missing[-1]
            os.close(os.open(below, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise _UnmadeTargetError(mount.target, error) from error
    return below


def _is_in(path: bytes, directory: bytes) -> bool:
    return path == directory or path.startswith(directory + b"/")


def enter_root(root: str) -> None:
    """Make ``root``, a mount, the root directory of this process, whose mount namespace is its own, and leave the old one."""
    os.chdir(root)
    try:
        sys.pivot_root(".", ".")
        sys.umount(".", sys.MNT_DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        sys.mount(".", "/", None, sys.MS_MOVE)  # a host that runs from its initial ramdisk has no root to change
        os.chroot(".")
    os.chdir("/")


def read_small_file(root: str, path: str) -> bytes | None:
    """Return the content of a regular file of the container of at most 1 MiB, None if there is none. Raises LaunchError."""
    try:
        found = resolve_below(os.fsencode(root), os.fsencode(path))
        if found.missing:
            return None
        fd = os.open(found.below(os.fsencode(root)), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # open() refuses a directory in words of its own
        os.close(fd)
        return None
    with open(fd, "rb") as file:
        data = file.read(SMALL_FILE_BYTES + 1)
    if len(data) > SMALL_FILE_BYTES:
        raise LaunchError(f"{show(path)} in the container has more than 1 MiB")
    return data
