"""Make an overlay inside a SIF image: the ext3 is written straight into its partition, which then becomes part of the image.

Until the last byte is verified and on storage the image is as it was; an exception cuts the file back to its old length.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace

from ext3 import hostio
from ext3.device.base import FileDevice
from ext3.newfs.image import write_image
from ext3.progress import Progress, Silent

from ...errors import UsageError, show
from ...sif import Descriptor, Stamp
from ..creating.host_space import space_errors
from ..creating.planning import FIXED_EPOCH
from ..creating.request import check_request
from ..creating.standalone import prepare
from ..options import CreateOptions, CreateResult, HostPath
from ..target import editing, kept_space
from .reservation import EmbedOptions, find_place, place_room, settle_signatures

__all__ = ["EmbedResult", "embed"]


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """The overlay that was made, and the object it is. ``replaced``: another one was there, and had so many bytes (0: none).
    ``dropped``: ids of signatures that were removed. ``locked`` False: the filesystem has no locks."""

    made: CreateResult
    partition: Descriptor
    replaced_bytes: int = 0
    dropped: tuple[int, ...] = ()
    locked: bool = True


def embed(
    path: HostPath, options: CreateOptions, embedding: EmbedOptions | None = None, *, progress: Progress | None = None
) -> EmbedResult:
    """Make an overlay in the SIF image ``path``; ``options`` as for an image of its own, but for ``force`` and ``mode``.

    Raises EditError (encrypted root, a writable overlay there), SignedError, ImageFullError, ImageInUseError, NotWritableError,
    what is wrong with the image, and what ``create`` raises. Whatever is raised, the image is as it was.
    """
    began = time.monotonic()
    progress = progress or Silent()
    target = os.fsdecode(path)
    embedding = embedding or EmbedOptions()
    _check_options(target, options)
    check_request(options)
    with editing(target, stamp=_stamp(options), require_lock=embedding.require_lock) as edited, ExitStack() as stack:
        sif = edited.sif
        place = find_place(sif, target, replace=embedding.replace)
        what = "replacing the overlay" if place.old is not None else "adding an overlay"
        group = place.old.group if place.old is not None else place.group
        settled = settle_signatures(sif, target, what, embedding.on_signatures, old=place.old, adds=group)
        prepared = prepare(target, options, progress, stack)
        with place_room(edited, place, prepared.size_bytes, drop=settled.dropped, require_lock=embedding.require_lock) as room:
            with space_errors(target, prepared, room.fd, sparse=options.sparse):
                if not options.sparse:
                    hostio.allocate(room.fd, room.offset, room.size)
                device = FileDevice(room.fd, room.offset, room.size, zero_from=0)
                write_image(prepared.plan, device, progress=progress, allow_changed=options.allow_changed)
            partition = room.descriptor
        locked = sif.locked
        notes = (*place.notes, *settled.notes, *kept_space(sif))
    made = prepared.result(target, time.monotonic() - began)
    return EmbedResult(
        made=replace(made, notes=(*made.notes, *notes)),
        partition=partition,
        replaced_bytes=place.old.size if place.old is not None else 0,
        dropped=settled.dropped,
        locked=locked,
    )


def _check_options(path: str, options: CreateOptions) -> None:
    """Refuse what is about a new file."""
    if options.force:
        raise UsageError(
            f"--force: {show(path)} is a SIF image, which it never replaces",
            hint="leave it out: the overlay goes into the image; --replace is for one that is in it already",
        )
    if options.mode != CreateOptions().mode:
        raise UsageError(f"--mode: {show(path)} is there, and keeps its permissions", hint="leave it out")


def _stamp(options: CreateOptions) -> Stamp | None:
    """The time that header and descriptor get; None: the present one."""
    if options.source_date_epoch is not None:
        return Stamp.at(options.source_date_epoch)
    return Stamp.at(FIXED_EPOCH) if options.reproducible else None
