"""Resize of an overlay: in a file, in a SIF image, or in a larger file.

A file grows before its filesystem and is cut after it. A filesystem without a journal, or with one that is too small for a
single change of it, is resized as a copy of its file, which then replaces it. For partitions of SIF images see
``embedding.partition_resize``.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import replace

from ext3 import hostio
from ext3.device.copy_on_write import CopyOnWriteDevice
from ext3.errors import JournalFullError
from ext3.hostio import HostPath
from ext3.progress import Progress, Silent

from ...atomic import AtomicFile
from ...errors import SifkitError, UsageError, show
from ...file_attributes import keep_attributes
from ...file_locks import lock_range
from ...host_space import full_host_errors
from ...in_use import check_unused
from ...replacing import OpenedFile
from ..images.locked_file import copy_data, open_for_edit
from ..images.opening import open_window
from ..images.sif_partition import filesystem_place
from ..images.window import Window, file_window
from .filesystem_facts import FilesystemFacts
from .resize_request import ResizeOptions, ResizeResult, ResizeStart
from .resize_steps import PlannedResize, apply_plan, data_bytes, plan_resize, sound_after_errors
from .unfinished_resize import finish_resize

__all__ = ["resize"]


def resize(
    path: HostPath,
    options: ResizeOptions | None = None,
    *,
    progress: Progress | None = None,
    begin: Callable[[ResizeStart], None] | None = None,
) -> ResizeResult:
    """Resize the filesystem of the image at ``path``, in a SIF there, or at an offset, and its file or partition.

    ``begin``: called before the first write; an exception from it leaves everything as it was.

    Raises TooSmallError below the smallest size, GeometryError above the largest, NeedsCheckError and CorruptError for a
    filesystem that has to be checked first, UnsupportedError, ImageInUseError, FormatError, SignedError, UsageError,
    TargetError and other OSErrors of the host. An error before the first write leaves the image as it was; a later one leaves
    a sound filesystem.
    """
    began = time.monotonic()
    options = options or ResizeOptions()
    progress, begin = progress or Silent(), begin or _ignore
    name = os.fsdecode(path)
    partition, offset = filesystem_place(name, options.partition, options.offset)
    options = replace(options, partition=partition, offset=offset)
    if options.dry_run:
        return replace(_plan_only(name, options, progress), seconds=time.monotonic() - began)
    repaired = _check_first(name, options) if options.check_first else 0
    if partition is not None:
        from .partition_resize import resize_partition  # with the SIF library

        result = resize_partition(name, options, progress, begin)
    else:
        result = _resize_file(name, options, progress, begin)
    return replace(result, repaired=repaired, seconds=time.monotonic() - began)


def _ignore(start: ResizeStart) -> None:
    """Do nothing before the first write."""


def _check_first(name: str, options: ResizeOptions) -> int:
    """Make the repairs that are safe; return their number. Raises SifkitError if errors are left."""
    from ext3.fsck.context import CheckOptions
    from ext3.fsck.policy import Preen

    from ..checking import CheckPlace, open_for_check

    place = CheckPlace(
        partition=options.partition,
        offset=options.offset,
        on_signatures=options.on_signatures,
        require_lock=options.require_lock,
        stamp=options.stamp,
    )
    with open_for_check(name, place, writes=True) as opened:
        report = opened.run(Preen(), options=CheckOptions(force=True))
    if not report.clean:
        error = SifkitError(f"{show(name)}: the check left errors that need a decision", path=name)
        error.kind = "needs-check"
        raise error
    return report.corrected


def _plan_only(name: str, options: ResizeOptions, progress: Progress) -> ResizeResult:
    with open_window(name, options.partition, offset=options.offset) as window:
        check_unused(name, writers_only=True, span=(window.offset, window.size) if window.partition is not None else None)
        device = CopyOnWriteDevice(window.device())
        finish_resize(device)  # as the resize itself does
        planned = plan_resize(window, options.target, progress, fixed=options.offset is not None, device=device)
        in_place = planned.has_journal
        dropped: tuple[int, ...] = ()
        notes: tuple[str, ...] = ()
        if window.partition is not None and not planned.nothing:
            from .partition_resize import plan_edit

            decision, stays = plan_edit(name, window.partition, options.on_signatures)
            in_place &= stays
            dropped, notes = decision.dropped, () if decision.dropped else decision.notes
        start = planned.start(name, copied=0 if in_place or planned.nothing else data_bytes(window))
        return ResizeResult(
            path=name,
            before=planned.before,
            after=planned.expected(),
            start=start,
            dry_run=True,
            unchanged=planned.nothing,
            fixed=planned.fixed,
            partition=window.partition,
            dropped=dropped,
            notes=notes,
        )


def _resize_file(name: str, options: ResizeOptions, progress: Progress, begin: Callable[[ResizeStart], None]) -> ResizeResult:
    fd, locked = open_for_edit(name, require_lock=options.require_lock)
    try:
        whole = options.offset is None
        window = file_window(name, fd, options.offset)
        finish_resize(window.device())
        planned = plan_resize(window, options.target, progress, fixed=not whole)
        copied = 0 if planned.nothing or planned.has_journal else data_bytes(window)
        if copied and not whole:
            raise UsageError(
                f"{show(name)}: a filesystem without a journal is resized as a copy of its file",
                hint=f"copy it to a file first: sifkit overlay clone --offset {options.offset} {show(name)} overlay.img",
            )
        start = planned.start(name, copied=copied)
        after = planned.before
        notes: tuple[str, ...] = ()
        if not planned.nothing:
            begin(start)
            try:
                if not copied:
                    after = _resize_in_place(window, planned, start, progress, whole=whole)
            except JournalFullError:  # with nothing written
                if not whole:
                    raise
                copied = data_bytes(window)
                start = planned.start(name, copied=copied)
                begin(start)
            if copied:
                after, notes = _resize_copy(window, planned, start, progress)
        return ResizeResult(
            path=name,
            before=planned.before,
            after=after,
            start=start,
            unchanged=planned.nothing,
            fixed=planned.fixed,
            locked=locked,
            notes=notes,
        )
    finally:
        os.close(fd)


def _resize_in_place(
    window: Window, planned: PlannedResize, start: ResizeStart, progress: Progress, *, whole: bool
) -> FilesystemFacts:
    """Resize the filesystem, and the file if it is a ``whole`` one. Raises JournalFullError with nothing written."""
    device_bytes, file_bytes = (planned.target, None) if whole else (None, window.size)
    with sound_after_errors(window, cut=whole):
        return apply_plan(window, planned, start, progress, device_bytes=device_bytes, file_bytes=file_bytes)


def _resize_copy(
    window: Window, planned: PlannedResize, start: ResizeStart, progress: Progress
) -> tuple[FilesystemFacts, tuple[str, ...]]:
    """Resize a copy of the file, which replaces it; return also notes on what the copy lacks."""
    name, found = window.path, os.fstat(window.fd)
    with AtomicFile(name, stat.S_IMODE(found.st_mode)) as file:
        with full_host_errors(name, start.needed_bytes, size=max(found.st_size, planned.target), in_place=True):
            if not hostio.clone_file(window.fd, file.fd):
                copy_data(name, window.fd, file.fd, found.st_size, progress)
        notes = keep_attributes(window.fd, file.fd)
        # Locked before it gets the name, so that no other process can open it unlocked.
        lock_range(file.fd, write=True, path=name)
        copy = window._replace(fd=file.fd)
        after = apply_plan(copy, planned, start, progress, device_bytes=planned.target, journaled=False)
        file.commit(OpenedFile(window.fd, found))
    return after, notes
