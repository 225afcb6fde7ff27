"""Make an overlay: a source and options become an ext3 image that appears whole under its name, or not at all.

Steps: look at the target, scan the source into a tree, put upper/ and work/ around it, plan (all that can be refused is
refused here), write beside the target, check, rename. What plans and writes needs numpy, and is loaded after the scan.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ext3 import hostio
from ext3.progress import Progress, Silent

from ...errors import NotReplaceableError, show
from ..destination import check_destination, new_file
from ..in_use import check_replaceable, file_format
from ..options import CreateOptions, CreateResult, HostPath
from .request import check_request, check_size
from .source import gather

if TYPE_CHECKING:
    from .planning import Prepared

__all__ = ["create", "prepare"]


def create(path: HostPath, options: CreateOptions, *, progress: Progress | None = None) -> CreateResult:
    """Make the overlay image ``path``; for one inside a SIF image see ``embed``.

    Raises TargetError and its kinds where the target cannot be made or replaced, UsageError and LayoutError for requests
    that make no sense, and what ``ext3.newfs`` raises: SourceError, XattrError, NoSpaceError, NoInodesError, DeviceError.
    Whatever is raised, the target is as it was and no temporary file is left.
    """
    began = time.monotonic()
    progress = progress or Silent()
    target = os.fsdecode(path)
    check_request(options)
    _check_target(target, options)
    with ExitStack() as stack:
        prepared = prepare(target, options, progress, stack)
        _write(target, options, prepared, progress)
    return prepared.result(target, time.monotonic() - began)


def prepare(target: str, options: CreateOptions, progress: Progress, stack: ExitStack) -> Prepared:
    """Everything before the first byte is written, for a request that was checked. ``stack`` keeps open what the content is
    read from; ``target`` is not taken in where it lies in the source."""
    check_size(options)  # with numpy, but only if a size was given: a wrong one is refused before a long scan
    source = gather(target, options, progress, stack)
    from .planning import plan_overlay

    return plan_overlay(source, options, progress)


def _check_target(target: str, options: CreateOptions) -> None:
    """Refuse early what would be refused at the end."""
    if os.path.isfile(target) and file_format(target) == "sif":
        raise NotReplaceableError(
            f"{show(target)} is a SIF image, which is not replaced",
            path=target,
            hint="give another name, or put the overlay into it: sifkit overlay create without --force",
        )
    check_destination(target, force=options.force)


def _write(target: str, options: CreateOptions, prepared: Prepared, progress: Progress) -> None:
    from ext3.device.base import FileDevice
    from ext3.newfs.image import write_image

    from .host_space import space_errors

    size = prepared.size_bytes
    with new_file(target, options.mode) as file:
        with space_errors(target, prepared, file.fd, sparse=options.sparse):
            os.ftruncate(file.fd, size)
            if not options.sparse:
                hostio.allocate(file.fd, 0, size)
            device = FileDevice(file.fd, 0, size, zero_from=0)
            write_image(prepared.plan, device, progress=progress, allow_changed=options.allow_changed)
        if options.force:
            check_replaceable(target)
        file.commit(replace=options.force)
