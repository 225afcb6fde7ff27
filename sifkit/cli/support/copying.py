"""Copies into images and out of them: settings, sources in images, the result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import counted, human, show
from .editing import EditBatch, coreutils_error
from .image_path import ImagePath
from .options import EditFlags

if TYPE_CHECKING:
    from ...overlay.copy_in import CopyOptions
    from ...vfs.resolve import Resolver

__all__ = ["CopySettings", "base_name", "find_source", "finish_copy", "partition_of"]


@dataclass(frozen=True, slots=True)
class CopySettings:
    """Settings of one run of ``cp``. ``exact``: the target is never a directory. ``follow``: links on the command line."""

    copy: CopyOptions
    flags: EditFlags
    exact: bool
    follow: bool


def partition_of(image: str, settings: CopySettings) -> str | None:
    """Return the value of --partition if ``image`` is a SIF image: of several images it is for those only."""
    from ...overlay.image_format import is_sif

    return settings.flags.partition if is_sif(image) else None


def find_source(batch: EditBatch, resolver: Resolver, source: str, path: bytes, settings: CopySettings) -> int | None:
    """Return the inode of a source in an image; None, with the error recorded, if there is none."""
    from ...vfs.errors import TreePathError

    try:
        return resolver.lookup(path, follow=settings.follow)
    except TreePathError as error:
        batch.fail(coreutils_error(f"cannot stat '{show(source)}'", error, ImagePath("", path, show(source))))
        return None


def base_name(path: str) -> bytes:
    """Return the name of a copy of ``path`` in a directory; b".", b".." and b"" have none."""
    return os.fsencode(path).rstrip(b"/").rpartition(b"/")[2]


def finish_copy(batch: EditBatch, image: str, written: int) -> int:
    """Print the result; return the exit code."""
    text = f"{counted(batch.done, 'file')} copied, {human(written)} of data"
    return batch.finish(image, text, {"copied": batch.done, "written_bytes": written})
