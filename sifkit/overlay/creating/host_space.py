"""Errors of a host's filesystem that has no space for an image: how much it needs, and how much is free."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ext3.errors import Ext3Error

from ...errors import HostFullError, TargetError, human, show
from ...host_space import full_host_errors

if TYPE_CHECKING:
    from .planning import OverlayPlan

__all__ = ["space_errors"]


@contextmanager
def space_errors(target: str, overlay: OverlayPlan, *, sparse: bool) -> Iterator[None]:
    """Turn ENOSPC and EFBIG of the host into a TargetError that says how much space is needed.

    ``sparse`` False: the whole image is allocated, not only the blocks in use.
    """
    plan = overlay.plan
    used = (plan.geometry.blocks - plan.free_blocks) * plan.geometry.block_size
    try:
        with full_host_errors(target, used if sparse else overlay.size_bytes):
            yield
    except HostFullError as error:
        held = _spooled_bytes(target, overlay)
        if held:
            error.hint = f"{human(held)} there are unpacked data: set TMPDIR to a directory on another filesystem"
        raise
    except Ext3Error:
        raise
    except TargetError as error:
        if error.errno == errno.EFBIG:
            error.hint = "choose a smaller --size, or another filesystem"
        raise
    except OSError as error:
        raise TargetError(f"{show(target)}: {error.strerror}", path=target, error=error) from error


def _spooled_bytes(target: str, overlay: OverlayPlan) -> int:
    """Return the space that data of the source takes on the target's filesystem until the image is written."""
    from .archive_content import ArchiveContent

    content = overlay.source.tree.content
    if not isinstance(content, ArchiveContent):
        return 0
    return content.temporary_bytes(os.stat(os.path.dirname(os.path.realpath(target))).st_dev)
