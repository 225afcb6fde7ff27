"""Names of outputs: where their symbolic links lead, whether the system would follow them, and open descriptors as names.

The rules are those of Linux's ``protected_symlinks`` and ``protected_fifos`` (``may_follow_link`` and
``may_create_in_sticky`` in ``fs/namei.c``), whatever the host has set: in a directory where everybody may create files, such as
/tmp, only the caller's links and those of the directory's owner are followed.
"""

from __future__ import annotations

import os
import re
import stat

from ext3.hostio import HostPath

from .errors import TargetError, show

__all__ = ["check_output_directory", "check_sticky_owner", "descriptor_number", "resolve_output"]

MAX_LINKS = 40
"""Links followed at most, as in the kernel."""
_SHARED = stat.S_ISVTX | stat.S_IWOTH
_DESCRIPTORS = re.compile(r"/proc/([0-9]+)(/task/[0-9]+)?/fd")
_NAME_HINT = "name a file"


def resolve_output(path: HostPath) -> str:
    """Return the name that an output is written under: ``path``, or that of the existing file its symbolic links lead to.

    Raises TargetError for a dangling link, a loop, an open descriptor (/dev/fd/N), and a link of another user in a directory
    where everybody may create files.
    """
    name = current = os.fsdecode(path)
    for _ in range(MAX_LINKS):
        if _process_of(current) is not None:
            raise TargetError(f"{show(name)} is an open file, not the name of one", path=name, hint=_NAME_HINT)
        target = _followed(current, name)
        if target is None:
            return current
        current = target
    raise TargetError(f"{show(name)} is a symbolic link that leads nowhere", path=name, hint=_NAME_HINT)


def check_output_directory(path: HostPath) -> None:
    """Raise TargetError for a directory to write into whose name is a link that is not followed. It need not exist."""
    name = os.fsdecode(path).rstrip("/")
    if os.path.islink(name) and descriptor_number(name) is None:
        resolve_output(name)


def descriptor_number(path: HostPath) -> int | None:
    """Return the number of this process's descriptor that a name such as /dev/fd/3, /dev/stdout or a link to one means.

    None for every other name. Raises TargetError for a link that is not followed.
    """
    name = current = os.fsdecode(path)
    for _ in range(MAX_LINKS):
        process = _process_of(current)
        if process is not None:
            return int(os.path.basename(current)) if process == os.getpid() else None
        try:
            target = _followed(current, name)
        except TargetError:
            if not os.path.exists(name):  # a dangling link is no descriptor
                return None
            raise
        if target is None:
            return None
        current = target
    return None


def check_sticky_owner(path: str) -> None:
    """Raise TargetError for another user's file in a directory where everybody may create files: a FIFO that waits for data."""
    if not hasattr(os, "geteuid"):
        return
    try:
        found, above = os.stat(path), os.stat(os.path.dirname(path) or os.curdir)
    except OSError:
        return  # opening it reports the error
    if _is_shared(above) and found.st_uid not in (os.geteuid(), above.st_uid):
        raise TargetError(f"{show(path)} belongs to another user, in a directory that everybody can write to", path=path)


def _followed(path: str, name: str) -> str | None:
    """Return what the last component of ``path`` leads to, None if it is no link. ``name``: the output, for messages."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None  # a new file; creating it reports the error
    if not stat.S_ISLNK(found.st_mode):
        return None
    directory = os.path.dirname(path)
    above = os.stat(directory or os.curdir)
    target = os.readlink(path)
    if _is_shared(above) and hasattr(os, "geteuid") and found.st_uid not in (os.geteuid(), above.st_uid):
        raise TargetError(
            f"{show(path)} is another user's symbolic link to {show(target)}, in a directory that everybody can write to",
            path=name,
            hint="name the file itself",
        )
    whole = os.path.join(directory, target.rstrip("/") or "/")
    if not os.path.lexists(whole) and _process_of(whole) is None:
        raise TargetError(
            f"{show(path)} is a symbolic link to {show(target)}, which does not exist",
            path=name,
            hint="remove the link, or name the file it should lead to",
        )
    return whole


def _is_shared(directory: os.stat_result) -> bool:
    return directory.st_mode & _SHARED == _SHARED


def _process_of(path: str) -> int | None:
    """Return the process whose descriptor a name in /proc/PID/fd is, None for other names."""
    directory, number = os.path.split(path)
    if not number.isdecimal():
        return None
    # /dev/fd is a link to /proc/self/fd, which is one to /proc/PID/fd
    found = _DESCRIPTORS.fullmatch(os.path.realpath(directory or os.curdir))
    return int(found[1]) if found else None
