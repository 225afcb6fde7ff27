"""Checks of the destination of a new image, made before any work, and its file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..atomic import AtomicFile, HostPath
from ..errors import ImageInUseError, NotReplaceableError, TargetError, UsageError, show
from .image_format import file_format
from .in_use import check_unused

__all__ = ["check_destination", "check_replaceable", "is_replaceable", "new_file"]

WRITABLE_HINT = "write the image to a directory you can write to"


def check_destination(target: str, *, force: bool) -> None:
    """Raise if no image can be created or (with ``force``) replaced under this name.

    UsageError without a name; TargetError for a directory, a missing or unwritable parent, an existing file, a dangling
    symlink; NotReplaceableError and ImageInUseError as ``check_replaceable`` does.
    """
    if not target:
        raise UsageError("the name of the image is empty", hint="name a file")
    if os.path.isdir(target):
        raise TargetError(f"{show(target)} is a directory", path=target, hint="name a file in it")
    if target.endswith("/"):
        raise TargetError(f"{show(target)} ends with a slash, but the image is a file", path=target, hint="name a file")
    if os.path.islink(target) and not os.path.exists(target):
        raise TargetError(
            f"{show(target)} is a symbolic link to {show(os.readlink(target))}, which does not exist",
            path=target,
            hint="remove the link, or name the file it should lead to",
        )
    _check_directory(target)
    if not os.path.lexists(target):
        return
    if not force:
        replaceable = os.path.isfile(target) and is_replaceable(target)
        hint = ", or --force to replace it" if replaceable else "; --force does not replace such a file"
        raise TargetError(f"{show(target)} exists", path=target, hint=f"give another name{hint}")
    check_replaceable(target)


def _check_directory(target: str) -> None:
    above = os.path.realpath(target) if os.path.islink(target) else target
    directory = os.path.dirname(above) or os.curdir
    if not os.path.isdir(directory):
        existing = directory
        while existing and not os.path.lexists(existing):
            existing = os.path.dirname(existing)
        if existing and not os.path.isdir(existing):
            what = "a file" if os.path.exists(existing) else "a dangling symbolic link"
            raise TargetError(f"{show(existing)} is {what}, not a directory", path=target, hint="name a file in a directory")
        raise TargetError(f"the directory {show(directory)} does not exist", path=target, hint="create the directory first")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise TargetError(f"the directory {show(directory)} is not writable", path=target, hint=WRITABLE_HINT)


def check_replaceable(path: HostPath) -> None:
    """Raise if ``path`` exists and is neither an empty file nor an unused ext2/ext3 image.

    Raises NotReplaceableError, ImageInUseError.
    """
    name = os.fsdecode(path)
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise NotReplaceableError(f"{show(name)} is not a regular file", path=name, hint="give the new image another name")
    try:
        kind = file_format(name)
    except OSError as error:
        raise NotReplaceableError(
            f"{show(name)}: cannot read its type: {error.strerror}", path=name, hint="give the new image another name"
        ) from error
    if kind not in ("empty", "ext"):
        known = {"sif": "a SIF image", "squashfs": "a squashfs image"}.get(kind, "not an ext2 or ext3 image")
        raise NotReplaceableError(
            f"{show(name)} is {known}; --force replaces only ext3 images and empty files",
            path=name,
            hint="give the new image another name, or remove the file first",
        )
    check_unused(name)


def is_replaceable(path: HostPath) -> bool:
    """Return True if ``check_replaceable`` passes."""
    try:
        check_replaceable(path)
    except (NotReplaceableError, ImageInUseError):
        return False
    return True


@contextmanager
def new_file(target: str, mode: int) -> Iterator[AtomicFile]:
    """Create an AtomicFile. Raises TargetError, also for a directory that takes no new files, as in /proc."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(AtomicFile(target, mode=mode))
        except TargetError as error:
            directory = os.path.dirname(os.path.realpath(target))
            if isinstance(error.__cause__, FileNotFoundError) and os.path.isdir(directory):
                raise TargetError(
                    f"cannot create files in {show(directory)}", path=target, hint=WRITABLE_HINT, error=error.__cause__
                ) from error
            raise
        yield file
