"""What copies into images and out of them have in common: settings, sources in images, the result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import counted, human, show
from .editing import ChangeOptions, Changes, Goal, refused

if TYPE_CHECKING:
    from ...overlay.copy_in import CopyOptions
    from ...overlay.resolve import Resolver

__all__ = ["CopySettings", "base_name", "finish", "partition_of", "source_in_image"]


@dataclass(frozen=True, slots=True)
class CopySettings:
    """``exact``: the target is a name, never a directory. ``follow``: links that are named are followed."""

    copy: CopyOptions
    change: ChangeOptions
    exact: bool
    follow: bool


def partition_of(image: str, settings: CopySettings) -> str | None:
    """--partition is for those of several images that are SIF images."""
    from ...overlay.image_format import is_sif

    return settings.change.partition if is_sif(image) else None


def source_in_image(changes: Changes, resolver: Resolver, source: str, path: bytes, settings: CopySettings) -> int | None:
    """The inode of a source in an image; None where there is none, which is told."""
    from ext3.errors import PathError

    try:
        return resolver.lookup(path, follow=settings.follow)
    except PathError as error:
        changes.fail(refused(f"cannot stat '{show(source)}'", error, Goal("", path, show(source))))
        return None


def base_name(path: str) -> bytes:
    """The name a copy of ``path`` gets in a directory; b".", b".." and b"" have none."""
    return os.fsencode(path).rstrip(b"/").rpartition(b"/")[2]


def finish(changes: Changes, image: str, written: int) -> int:
    """Tell the result; the exit code."""
    text = f"{counted(changes.done, 'file')} copied, {human(written)} of data"
    return changes.finish(image, text, {"copied": changes.done, "written_bytes": written})
