"""Resize of an overlay in a SIF image, and of its partition.

A partition that ends the image is resized in place: file, descriptor and filesystem grow in this order, and shrink in reverse,
so that the filesystem is never larger than its partition. Another one, and one without a journal or with one that is too small
for a single change, is copied with its holes into reserved space at the end, resized there, and put in the place of the old
one in one commit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress

from ext3 import hostio
from ext3.device.base import FileDevice
from ext3.errors import Ext3Error, JournalFullError
from ext3.format.superblock import read_superblock
from ext3.progress import Progress

from ...errors import SifkitError
from ...file_locks import lock_range
from ...host_space import full_host_errors
from ...sif import SIF, Arch, Descriptor
from ..images.locked_file import copy_range
from ..images.reservation import OnSignatures, OverlaySlot, SignatureDecision, apply_signature_policy, reserve_partition
from ..images.sif_partition import EditedSif, check_ext3_partition, edit_sif, lock_partition, select_partition, space_notes
from ..images.window import Window
from .filesystem_facts import FilesystemFacts
from .resize_request import ResizeOptions, ResizeResult, ResizeStart
from .resize_steps import PlannedResize, apply_plan, data_bytes, plan_resize, sound_after_errors
from .unfinished_resize import finish_resize

__all__ = ["plan_edit", "resize_partition"]


def plan_edit(path: str, partition: Descriptor, policy: OnSignatures) -> tuple[SignatureDecision, bool]:
    """Return what a resize of a partition of the SIF at ``path`` does to its signatures, and whether the partition stays in
    its place. Raises SignedError as the resize does."""
    with SIF.open(path) as sif:
        decision = _decide(sif, path, partition, policy)
        return decision, _ends_without(sif, partition, decision.dropped)


def _decide(sif: SIF, path: str, found: Descriptor, policy: OnSignatures) -> SignatureDecision:
    """Decide about signatures. Raises SignedError if ``policy`` is "refuse" and some break."""
    return apply_signature_policy(sif, path, f"resizing object {found.id}", policy, old=found, group=found.group or 1)


def resize_partition(
    path: str, options: ResizeOptions, progress: Progress, begin: Callable[[ResizeStart], None]
) -> ResizeResult:
    """Resize the partition ``options.partition`` of the SIF at ``path``; ``begin``: called before the first write.

    Raises as ``resizing.resize``; see there.
    """
    assert options.partition is not None
    with edit_sif(path, stamp=options.stamp, require_lock=options.require_lock) as edited:
        sif = edited.sif
        found = select_partition(sif, options.partition, path)
        check_ext3_partition(sif, edited.fd, found, path)
        locked = lock_partition(edited.fd, path, found, write=True, require_lock=options.require_lock)
        window = Window(path, edited.fd, found.offset, found.size, found)
        finish_resize(window.device())  # which broke signatures already, if there are any
        planned = plan_resize(window, options.target, progress)
        if planned.nothing:
            start = planned.start(path)
            return ResizeResult(
                path=path,
                before=planned.before,
                after=planned.before,
                start=start,
                unchanged=True,
                partition=found,
                locked=locked,
            )
        decision = _decide(sif, path, found, options.on_signatures)
        after: FilesystemFacts | None = None
        dropped = decision.dropped
        if planned.has_journal and _ends_without(sif, found, dropped):
            start = planned.start(path)
            begin(start)
            if dropped:
                sif.delete(dropped)
                dropped = ()
            with suppress(JournalFullError):  # with nothing written
                after = _resize_in_place(edited, window, planned, start, progress)
        if after is None:
            start = planned.start(path, copied=data_bytes(window))
            begin(start)
            after = _move(edited, window, planned, start, dropped, progress)
        now = sif.get(found.id)
        return ResizeResult(
            path=path,
            before=planned.before,
            after=after,
            start=start,
            partition=now,
            old_partition=found if now.offset != found.offset else None,
            dropped=decision.dropped,
            locked=locked,
            notes=(*decision.notes, *space_notes(sif)),
        )


def _ends_without(sif: SIF, found: Descriptor, dropped: Collection[int]) -> bool:
    """Return True if a partition ends the image when the objects ``dropped`` are gone."""
    if sif.is_at_end(found.id):
        return True
    behind = [one for one in sif if one.id != found.id and one.end > found.offset]
    return bool(behind) and all(one.id in dropped for one in behind) and not sif.header.table_in_data


def _resize_in_place(
    edited: EditedSif, window: Window, planned: PlannedResize, start: ResizeStart, progress: Progress
) -> FilesystemFacts:
    sif, found, target = edited.sif, window.partition, planned.target
    assert found is not None
    if target > found.size:
        # The new range is locked before the old one is given up.
        lock_range(edited.fd, write=True, offset=found.offset, size=target, path=edited.path)
    try:
        with sound_after_errors(window, cut=False):
            if target > found.size:
                with full_host_errors(edited.path, start.needed_bytes, size=found.offset + target, in_place=True):
                    sif.resize_object(found.id, target)
                window = window._replace(size=target)
            after = apply_plan(window, planned, start, progress, zero_from=found.size if target > found.size else None)
    except BaseException:
        with hostio.signals_deferred():
            _cut_to_filesystem(edited, found)
        raise
    if target < found.size:
        with hostio.signals_deferred():
            sif.resize_object(found.id, target)
    return after


def _move(
    edited: EditedSif,
    window: Window,
    planned: PlannedResize,
    start: ResizeStart,
    dropped: tuple[int, ...],
    progress: Progress,
) -> FilesystemFacts:
    found, target = window.partition, planned.target
    assert found is not None
    slot = OverlaySlot(found.group or 1, Arch.UNKNOWN, found)  # a partition that is replaced keeps its architecture
    with reserve_partition(edited, slot, target, drop=dropped, old_locked=True) as reservation:
        offset = reservation.offset
        with full_host_errors(edited.path, start.needed_bytes, size=offset + max(target, found.size), in_place=True):
            if found.size > target:  # until it is resized; the commit cuts the file to the object's end
                os.ftruncate(edited.fd, offset + found.size)
            _copy(edited.path, edited.fd, found, offset, start.copied_bytes, progress)
        moved = Window(window.path, edited.fd, offset, max(target, found.size), found)
        return apply_plan(moved, planned, start, progress, zero_from=found.size, journaled=False)


def _copy(path: str, fd: int, found: Descriptor, offset: int, total: int, progress: Progress) -> None:
    """Copy the data of a partition to ``offset`` of the same file; holes stay holes."""
    progress.phase("copy", total, "bytes")
    for begin, length in list(hostio.data_ranges(fd, found.offset, found.size)):
        copy_range(path, fd, begin, fd, offset + begin - found.offset, length, progress)
    progress.done()


def _cut_to_filesystem(edited: EditedSif, found: Descriptor) -> None:
    """Give a partition whose resize failed its old size back, unless its filesystem has grown by then."""
    with suppress(Ext3Error, SifkitError, OSError):
        now = edited.sif.get(found.id)
        size = read_superblock(FileDevice(edited.fd, now.offset, now.size)).size_bytes
        edited.sif.resize_object(found.id, max(found.size, size))
