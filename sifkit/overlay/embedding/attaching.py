"""Attach and detach: move an overlay from a file into a SIF image, and back.

The copy is complete and on storage before the original is removed: a kill in between leaves the overlay in both places.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ext3 import hostio
from ext3.hostio import HostPath
from ext3.workers import Advance

from ...errors import FormatError, SifkitError, TargetError, UsageError, shell_quote, show
from ...file_locks import open_locked
from ...host_space import filled_holes_notes, full_host_errors
from ...sif import Descriptor, ObjectNotFoundError, PartType, Stamp
from ...sif.object_io import check_inside
from ...sif.payload import copy_in, copy_out, open_source
from ...sif.store import FileStore
from ..destination import EXT_IMAGES, check_destination, new_file
from ..images.image_format import image_kind
from ..images.locked_file import check_unchanged, open_for_copy
from ..images.reservation import (
    EmbedOptions,
    OnSignatures,
    SignatureDecision,
    apply_signature_policy,
    find_slot,
    reserve_partition,
)
from ..images.sif_partition import edit_sif, lock_partition, select_partition, space_notes
from ..images.window import IN_LARGER_FILE
from ..info import ImageInfo, image_info

__all__ = ["AttachResult", "DetachResult", "attach", "detach"]

Begin = Callable[[int], None]
"""Callback with the bytes to copy at most."""
DETACHED_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class _TransferResult:
    """Result of attach or detach.

    ``path``: the file created or changed, from ``source``. ``partition``: the overlay in the SIF, or where it was. ``dropped``:
    IDs of removed signatures. ``locked`` False: file locking is unavailable, so others could write during the copy.
    """

    path: str
    source: str
    partition: Descriptor
    dropped: tuple[int, ...] = ()
    locked: bool
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachResult(_TransferResult):
    """Overlay in a SIF. ``moved``: its file was removed."""

    replaced_bytes: int
    moved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachResult(_TransferResult):
    """File with the overlay of a SIF. ``kept``: the SIF still has it."""

    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _DetachRequest:
    """Request to detach an overlay from the SIF ``sif`` to the file ``target``."""

    sif: str
    target: str
    partition: str
    force: bool
    require_lock: bool
    begin: Begin | None
    advance: Advance | None
    began: float

    def result(
        self, found: Descriptor, *, locked: bool, decision: SignatureDecision | None = None, notes: tuple[str, ...] = ()
    ) -> DetachResult:
        """Return the result. ``decision``: about signatures, if the overlay was removed from the SIF."""
        return DetachResult(
            path=self.target,
            source=self.sif,
            partition=found,
            kept=decision is None,
            dropped=decision.dropped if decision else (),
            locked=locked,
            seconds=time.monotonic() - self.began,
            notes=notes,
        )


def attach(
    path: HostPath,
    image: HostPath,
    options: EmbedOptions | None = None,
    *,
    offset: int | None = None,
    move: bool = False,
    stamp: Stamp | None = None,
    begin: Begin | None = None,
    advance: Advance | None = None,
) -> AttachResult:
    """Copy the ext3 image ``image`` into the SIF at ``path`` as its overlay; ``move`` removes the file afterwards.

    ``offset``: byte of a larger file where the filesystem begins, which is all that is copied.

    Raises FormatError if the runtimes would not use the overlay, ImageInUseError if another process may write to it (with
    ``move``: uses it), and what ``embed`` does. An error leaves both files as they were.
    """
    began = time.monotonic()
    name, source_name = os.fsdecode(path), os.fsdecode(image)
    options = options or EmbedOptions()
    _check_sif(name, "sifkit overlay attach IMAGE.sif overlay.img")
    _check_overlay(source_name, name, offset)
    if move and offset is not None:
        raise UsageError("--move removes the whole file, of which --offset names a part", hint="leave out --move")
    if move and os.path.islink(source_name):
        raise UsageError(f"--move: {show(source_name)} is a symbolic link", hint="name the file itself, or leave out --move")
    fd, locked = open_for_copy(source_name, writers_only=not move, require_lock=options.require_lock)
    try:
        info = _check_overlay(source_name, name, offset)  # again: it may have changed before it was locked
        notes = _notes(info)
        found = os.fstat(fd)
        start, size = (0, found.st_size) if offset is None else (offset, info.size_bytes)
        allocated = min(size, hostio.allocated_bytes(found))
        with edit_sif(name, stamp=stamp, require_lock=options.require_lock) as edited:
            sif = edited.sif
            slot = find_slot(sif, name, replace=options.replace)
            decision = apply_signature_policy(sif, name, slot.edit, options.on_signatures, old=slot.old, group=slot.group)
            if begin:
                begin(allocated)
            lock = options.require_lock
            with reserve_partition(edited, slot, size, drop=decision.dropped, require_lock=lock) as reservation:
                taken = -hostio.allocated_bytes(os.fstat(edited.fd))
                with full_host_errors(name, allocated), open_source(fd) as source:
                    part = replace(source, start=start, size=size)
                    copy_in(part, FileStore(reservation.fd), reservation.offset, advance=advance)
                check_unchanged(fd, found, source_name)
                taken += hostio.allocated_bytes(os.fstat(edited.fd))
                partition = reservation.descriptor
            locked &= sif.locked
            notes += (*slot.notes, *decision.notes, *space_notes(sif))
            notes += filled_holes_notes(name, allocated, taken)
        if move:
            _remove(source_name, fd, name)
    finally:
        os.close(fd)
    return AttachResult(
        path=name,
        source=source_name,
        partition=partition,
        replaced_bytes=slot.old.size if slot.old is not None else 0,
        moved=move,
        dropped=decision.dropped,
        locked=locked,
        seconds=time.monotonic() - began,
        notes=notes,
    )


def _check_sif(path: str, example: str) -> None:
    if image_kind(path) != "sif":
        raise FormatError(f"{show(path)} is not a SIF image", path=path, hint=f"name the SIF first: {example}")


def _check_overlay(image: str, sif: str, offset: int | None) -> ImageInfo:
    """Refuse an overlay that the runtimes would refuse; describe others."""
    kind = image_kind(image)
    if kind == "sif":
        hint = "give a stand-alone ext3 image; sifkit overlay detach --keep copies the overlay of a SIF to one"
        raise FormatError(f"{show(image)} is a SIF image itself", path=image, hint=hint)
    if kind == "squashfs" and offset is None:
        raise FormatError(
            f"{show(image)} is a squashfs image, which is read-only",
            path=image,
            hint=f"add it with: sifkit sif add --parttype overlay {show(sif)} {show(image)}",
        )
    info = image_info(image, offset=offset)
    reasons = [reason for reason in info.reasons if reason != IN_LARGER_FILE]
    if reasons:
        raise FormatError(
            f"{show(image)}: Apptainer refuses it: {'; '.join(reasons)}",
            path=image,
            hint="create an overlay that it accepts with: sifkit overlay create",
        )
    if not info.readable:
        raise FormatError(f"{show(image)}: {info.problem}", path=image, hint=_repair_hint(image, offset))
    if info.state == "errors":
        raise FormatError(f"{show(image)}: its filesystem has errors", path=image, hint=_repair_hint(image, offset))
    return info


def _repair_hint(image: str, offset: int | None) -> str:
    place = "" if offset is None else f"--offset {offset} "
    return f"repair it with: sifkit overlay fsck -fp {place}{shell_quote(image)}"


def _notes(info: ImageInfo) -> tuple[str, ...]:
    notes = []
    if info.journal is not None and info.journal.dirty:
        notes.append("its journal is not empty: read-only use fails until a use with --writable replays it")
    if info.upper is None:
        notes.append("it has no upper/: read-only use fails until a use with --writable creates it")
    return tuple(notes)


def _remove(image: str, fd: int, sif: str) -> None:
    """Remove the file open as ``fd``, unless another file now has its name."""
    try:
        if os.path.samestat(os.lstat(image), os.fstat(fd)):
            os.unlink(image)
            return
        reason = "another file now has this name"
    except OSError as error:
        reason = error.strerror or str(error)
    raise TargetError(
        f"the overlay is in {show(sif)}, but {show(image)} was not removed: {reason}", path=image, hint="remove it"
    )


def detach(
    path: HostPath,
    image: HostPath,
    *,
    partition: str = "overlay",
    keep: bool = False,
    force: bool = False,
    on_signatures: OnSignatures = "refuse",
    require_lock: bool = False,
    stamp: Stamp | None = None,
    begin: Begin | None = None,
    advance: Advance | None = None,
) -> DetachResult:
    """Copy the overlay of the SIF at ``path`` to the file ``image`` and delete it from the SIF, unless ``keep``.

    ``partition``: "overlay", or an ID if there are several. ``force``: replace an unused ext3 image or empty file. Raises
    ImageInUseError if a container uses the overlay (with ``keep``: may write to it), SignedError, TargetError,
    ObjectNotFoundError. The SIF does not change until the file is complete.
    """
    began = time.monotonic()
    name, new_name = os.fsdecode(path), os.fsdecode(image)
    _check_sif(name, "sifkit overlay detach IMAGE.sif -o overlay.img")
    if hostio.same_file(name, new_name):
        raise UsageError(f"{show(new_name)} is the SIF itself", hint="give the overlay another name")
    check_destination(new_name, force=force)
    request = _DetachRequest(
        sif=name,
        target=new_name,
        partition=partition,
        force=force,
        require_lock=require_lock,
        begin=begin,
        advance=advance,
        began=began,
    )
    return _detach_copy(request) if keep else _detach(request, on_signatures, stamp)


def _detach(request: _DetachRequest, on_signatures: OnSignatures, stamp: Stamp | None) -> DetachResult:
    with edit_sif(request.sif, stamp=stamp, require_lock=request.require_lock) as edited:
        sif = edited.sif
        found = _check_overlay_partition(select_partition(sif, request.partition, request.sif), request.sif)
        decision = apply_signature_policy(sif, request.sif, f"removing object {found.id}", on_signatures, old=found)
        locked = lock_partition(edited.fd, request.sif, found, write=True, require_lock=request.require_lock)
        filled = _write_out(edited.fd, found, request)
        try:
            sif.delete([found.id, *decision.dropped])
        except SifkitError as error:
            left = "" if getattr(error, "committed", False) else f", and the overlay is still in {show(request.sif)}"
            error.append(f"; {show(request.target)} was created{left}")
            raise
        return request.result(found, locked=locked, decision=decision, notes=(*decision.notes, *space_notes(sif), *filled))


def _detach_copy(request: _DetachRequest) -> DetachResult:
    from ...sif.descriptor_table import open_image_file
    from ...sif.image import SIF

    def lock(fd: int) -> tuple[Descriptor, bool]:
        with SIF(FileStore(fd), path=request.sif) as sif:
            found = _check_overlay_partition(select_partition(sif, request.partition, request.sif), request.sif)
        return found, lock_partition(fd, request.sif, found, write=False, require_lock=request.require_lock)

    fd, (found, locked) = open_locked(request.sif, partial(open_image_file, request.sif, writable=False), lock)
    try:
        notes = _write_out(fd, found, request)
    finally:
        os.close(fd)
    return request.result(found, locked=locked, notes=notes)


def _check_overlay_partition(found: Descriptor, path: str) -> Descriptor:
    if found.part_type != PartType.OVERLAY:
        raise ObjectNotFoundError(
            f"{show(path)}: object {found.id} is not an overlay",
            path=path,
            hint=f"extract it with: sifkit sif dump {found.id} {show(path)} -o FILE",
        )
    return found


def _write_out(fd: int, found: Descriptor, request: _DetachRequest) -> tuple[str, ...]:
    """Write the partition to a file, atomically and durably. Return notes for the user."""
    store = FileStore(fd)
    check_inside(found, store)
    data = sum(size for _, size in store.data_spans(found.offset, found.size))
    if request.begin:
        request.begin(data)
    with full_host_errors(request.target, data), new_file(request.target, DETACHED_MODE) as file:
        try:
            copy_out(store, found, file.fd, advance=request.advance)
        except OSError as error:
            if isinstance(error, SifkitError):
                error.set_path(request.target)
            raise
        file.commit(EXT_IMAGES if request.force else None)
        before = min(data, hostio.allocated_bytes(os.fstat(fd)))  # the data may be unknown, and then is all of it
        return filled_holes_notes(request.target, before, hostio.allocated_bytes(os.stat(file.target)))
