"""Where a new image is to appear: what can be refused is refused before the work, with words that fit the place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..atomic import AtomicFile
from ..errors import TargetError, UsageError, show
from .in_use import check_replaceable, is_replaceable

__all__ = ["check_destination", "new_file"]

ELSEWHERE = "write the image to a directory of yours"


def check_destination(target: str, *, force: bool) -> None:
    """Raise where no image can be made or (with ``force``) replaced under this name.

    UsageError without a name; TargetError for a directory, a missing or unwritable one above, a name that is taken, a
    symbolic link that leads nowhere; NotReplaceableError and ImageInUseError as ``check_replaceable``.
    """
    if not target:
        raise UsageError("the image has no name", hint="name a file")
    if os.path.isdir(target):
        raise TargetError(f"{show(target)} is a directory", path=target, hint="name a file in it")
    if target.endswith("/"):
        raise TargetError(f"{show(target)} ends in a slash, as a directory does", path=target, hint="name a file")
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
        may = os.path.isfile(target) and is_replaceable(target)
        hint = "or --force to replace it" if may else "for --force does not replace such a file"
        raise TargetError(f"{show(target)} exists", path=target, hint=f"give another name, {hint}")
    check_replaceable(target)


def _check_directory(target: str) -> None:
    above = os.path.realpath(target) if os.path.islink(target) else target
    directory = os.path.dirname(above) or os.curdir
    if not os.path.isdir(directory):
        there = directory
        while there and not os.path.lexists(there):
            there = os.path.dirname(there)
        if there and not os.path.isdir(there):
            what = "a file" if os.path.exists(there) else "a symbolic link that leads nowhere"
            raise TargetError(f"{show(there)} is {what}, not a directory", path=target, hint="name a file in a directory")
        raise TargetError(f"the directory {show(directory)} does not exist", path=target, hint="make the directory first")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise TargetError(f"the directory {show(directory)} is not writable", path=target, hint=ELSEWHERE)


@contextmanager
def new_file(target: str, mode: int) -> Iterator[AtomicFile]:
    """An AtomicFile. Where none can be made in a directory that is there, TargetError says so (/proc has such)."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(AtomicFile(target, mode=mode))
        except TargetError as error:
            directory = os.path.dirname(os.path.realpath(target))
            if isinstance(error.__cause__, FileNotFoundError) and os.path.isdir(directory):
                raise TargetError(
                    f"{show(directory)} takes no new files", path=target, hint=ELSEWHERE, error=error.__cause__
                ) from error
            raise
        yield file
