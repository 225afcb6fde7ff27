"""``--wait SECONDS``: wait for images that others use, and say for whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...errors import ImageInUseError
    from .console import Console

__all__ = ["WAIT_HELP", "waiting"]

WAIT_HELP = "wait up to SECONDS for an image that is in use"


@contextmanager
def waiting(console: Console, given: str | None) -> Iterator[None]:
    """Wait in the block for images in use, at most the seconds ``given``; None: do not wait. Raises UsageError."""
    if given is None:
        yield
        return
    from ...lock_wait import wait_for_images
    from .values import seconds

    wanted = seconds("--wait", given)

    def notify(error: ImageInUseError) -> None:
        from copy import copy

        from .failures import name_holders

        told = copy(error)
        if told.path is None:
            told.set_path(console.image or "")
        name_holders(told)
        console.note(f"{console.program}: {told.message}; waiting up to {wanted:g} s")

    with wait_for_images(wanted, notify if wanted else None):
        yield
