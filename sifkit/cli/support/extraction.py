"""Results of extracting files onto the host, printed by ``extract`` and ``overlay export``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import UsageError, counted, show
from .console import Console

if TYPE_CHECKING:
    from ...vfs.extracting import ExtractResult

__all__ = ["not_empty_error", "print_failures", "print_losses"]


def not_empty_error(target: str) -> UsageError:
    """Return the error for a target that exists and is not an empty directory."""
    if os.path.isdir(target):
        return UsageError(f"{show(target)} exists and is not empty", hint="give another DIR, or --force to write into it")
    return UsageError(f"{show(target)} exists and is not a directory", hint="give another DIR")


def print_losses(console: Console, made: ExtractResult) -> None:
    """Print what an extraction could not create or preserve."""
    print_failures(console, made.problems, made.failed)
    if made.owners_left:
        console.note(f"could not preserve the owners of {counted(made.owners_left, 'file')}: only root can change owners")
    if made.xattrs_left:
        console.note(f"could not preserve {counted(made.xattrs_left, 'extended attribute')}")
    if made.specials_left:
        console.note(f"skipped {counted(made.specials_left, 'device')}: only root can create devices")


def print_failures(console: Console, problems: Sequence[tuple[bytes, str]], failed: int) -> None:
    """Print the files that failed, a line each; there may be more than ``problems`` lists."""
    for path, why in problems:
        console.error(f"{show(path)}: {show(why)}")
    if failed > len(problems):
        console.error(f"... and {counted(failed - len(problems), 'more problem')}")
