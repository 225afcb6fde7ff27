"""Creation of an overlay inside a SIF image: the ext3 is written in place, then its partition is added.

The image does not change until the ext3 is verified and on storage; an exception truncates the file to its old size.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from ext3 import hostio
from ext3.device.base import FileDevice
from ext3.hostio import HostPath
from ext3.newfs.image import write_image
from ext3.progress import Progress, Silent

from ...errors import UsageError, show
from ...sif import Descriptor, Stamp
from ..creating.host_space import space_errors
from ..creating.keywords import options_from
from ..creating.planning import FIXED_EPOCH
from ..creating.request import check_request
from ..creating.standalone import scan_and_plan
from ..images.reservation import EmbedOptions, apply_signature_policy, find_slot, reserve_partition
from ..images.sif_partition import edit_sif, space_notes
from ..options import CreateOptions, CreateResult

__all__ = ["EmbedResult", "embed"]


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """Overlay created in a SIF.

    ``replaced_bytes``: size of the overlay it replaced (0: none). ``dropped``: IDs of removed signatures. ``locked`` False:
    file locking is unavailable.
    """

    created: CreateResult
    partition: Descriptor
    replaced_bytes: int = 0
    dropped: tuple[int, ...] = ()
    locked: bool = True


def embed(
    path: HostPath,
    options: CreateOptions | None = None,
    embedding: EmbedOptions | None = None,
    *,
    progress: Progress | None = None,
    **keywords: Any,
) -> EmbedResult:
    """Create an overlay in the SIF image ``path``.

    ``options`` and ``keywords``: as for ``create``, except ``force`` and ``mode``.

    Raises EditError (encrypted root, existing writable overlay), SignedError, ImageFullError, ImageInUseError,
    NotWritableError, errors of a damaged image, and what ``create`` raises. An error leaves the image as it was.
    """
    began = time.monotonic()
    progress = progress or Silent()
    target = os.fsdecode(path)
    embedding = embedding or EmbedOptions()
    options = options_from(options, keywords)
    _check_options(target, options)
    check_request(options)
    with edit_sif(target, stamp=_stamp(options), require_lock=embedding.require_lock) as edited, ExitStack() as stack:
        sif = edited.sif
        slot = find_slot(sif, target, replace=embedding.replace)
        decision = apply_signature_policy(sif, target, slot.edit, embedding.on_signatures, old=slot.old, group=slot.group)
        plan = scan_and_plan(target, options, progress, stack)
        lock = embedding.require_lock
        with reserve_partition(edited, slot, plan.size_bytes, drop=decision.dropped, require_lock=lock) as reservation:
            with space_errors(target, plan, sparse=options.sparse):
                if not options.sparse:
                    hostio.allocate(reservation.fd, reservation.offset, reservation.size)
                device = FileDevice(reservation.fd, reservation.offset, reservation.size, zero_from=0)
                write_image(plan.plan, device, progress=progress, allow_changed=options.allow_changed)
            partition = reservation.descriptor
        locked = sif.locked
        notes = (*slot.notes, *decision.notes, *space_notes(sif))
    created = plan.result(target, time.monotonic() - began)
    return EmbedResult(
        created=replace(created, notes=(*created.notes, *notes)),
        partition=partition,
        replaced_bytes=slot.old.size if slot.old is not None else 0,
        dropped=decision.dropped,
        locked=locked,
    )


def _check_options(path: str, options: CreateOptions) -> None:
    """Refuse options that concern a new file."""
    if options.force:
        raise UsageError(
            f"--force: {show(path)} is a SIF image, which is never replaced",
            hint="leave it out: the overlay is created inside the image; --replace replaces one that it has",
        )
    if options.mode != CreateOptions().mode:
        raise UsageError(f"--mode: {show(path)} exists, and keeps its permissions", hint="leave it out")


def _stamp(options: CreateOptions) -> Stamp | None:
    """Return the stamp for header and descriptor; None: the current time."""
    if options.source_date_epoch is not None:
        return Stamp.at(options.source_date_epoch)
    return Stamp.at(FIXED_EPOCH) if options.reproducible else None
