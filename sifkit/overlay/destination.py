"""Destination of a new ext3 image: the checks made before any work, and its file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..atomic import AtomicFile
from ..errors import TargetError, show
from ..replacing import Replaceable, check_output
from .images.image_format import head_format

__all__ = ["EXT_IMAGES", "check_destination", "new_file"]

WRITABLE_HINT = "write the image to a directory you can write to"
EXT_IMAGES = Replaceable(
    "an ext2 or ext3 image", "ext3 images and empty files", lambda head, size: head_format(head, size) in ("empty", "ext")
)
"""Files that a new image may replace."""


def check_destination(target: str, *, force: bool) -> None:
    """Raise if no image can be created or (with ``force``) replaced under this name: see ``check_output``."""
    check_output(target, EXT_IMAGES, force=force)


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
