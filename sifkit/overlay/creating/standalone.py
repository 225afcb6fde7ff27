"""Creation of a stand-alone overlay image. Writes are atomic: an interrupted run leaves the target as it was.

Steps: check the target, scan the source into a tree, add upper/ and work/, plan (every refusal happens by here), write to a
temporary file beside the target, check, rename. Planning and writing need numpy, which is loaded after the scan.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ext3 import hostio
from ext3.hostio import HostPath
from ext3.progress import Progress, Silent

from ...errors import NotReplaceableError, show
from ..destination import EXT_IMAGES, check_destination, new_file
from ..images.image_format import file_format
from ..options import CreateOptions, CreateResult
from .keywords import options_from
from .request import check_request, check_size
from .source import scan_source

if TYPE_CHECKING:
    from .planning import OverlayPlan

__all__ = ["create", "scan_and_plan"]


def create(
    path: HostPath, options: CreateOptions | None = None, *, progress: Progress | None = None, **keywords: Any
) -> CreateResult:
    """Create the overlay image ``path``; for one inside a SIF image see ``embed``.

    ``keywords`` are fields of CreateOptions and change those of ``options``. Sizes, owners and the label may be text, as on the
    command line: ``create("o.img", size="500M", from_dir="d", owner="me")``.

    Raises TypeError for keywords of another name or type, TargetError and its subclasses if the target cannot be created or
    replaced, UsageError and LayoutError for invalid requests, and the errors of ``ext3.newfs``: SourceError, XattrError,
    NoSpaceError, NoInodesError, DeviceError. An error leaves the target as it was, and no temporary file.
    """
    began = time.monotonic()
    progress = progress or Silent()
    target = os.fsdecode(path)
    options = options_from(options, keywords)
    check_request(options)
    _check_target(target, options)
    with ExitStack() as stack:
        plan = scan_and_plan(target, options, progress, stack)
        _write(target, options, plan, progress)
    return plan.result(target, time.monotonic() - began)


def scan_and_plan(target: str, options: CreateOptions, progress: Progress, stack: ExitStack) -> OverlayPlan:
    """Scan the source and plan the image of a checked request; nothing is written.

    ``stack`` keeps the source open. ``target`` is excluded if it is in the source.
    """
    check_size(options)  # loads numpy, but only if a size was given: a wrong one is refused before a long scan
    source = scan_source(target, options, progress, stack)
    from .planning import plan_overlay

    return plan_overlay(source, options, progress)


def _check_target(target: str, options: CreateOptions) -> None:
    """Refuse an unusable target before the source is scanned."""
    if os.path.isfile(target) and file_format(target) == "sif":
        raise NotReplaceableError(
            f"{show(target)} is a SIF image and is not replaced",
            path=target,
            hint="give another name; without --force the overlay is created inside it",
        )
    check_destination(target, force=options.force)


def _write(target: str, options: CreateOptions, plan: OverlayPlan, progress: Progress) -> None:
    from ext3.device.base import FileDevice
    from ext3.newfs.image import write_image

    from .host_space import space_errors

    size = plan.size_bytes
    with new_file(target, options.mode) as file:
        with space_errors(target, plan, sparse=options.sparse):
            os.ftruncate(file.fd, size)
            if not options.sparse:
                hostio.allocate(file.fd, 0, size)
            device = FileDevice(file.fd, 0, size, zero_from=0)
            write_image(plan.plan, device, progress=progress, allow_changed=options.allow_changed)
        file.commit(EXT_IMAGES if options.force else None)
