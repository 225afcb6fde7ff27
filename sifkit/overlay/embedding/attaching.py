"""Move overlays between files of their own and SIF images: attach puts one in, detach takes one out.

What is new is whole and on storage before anything old goes: a kill in between leaves the overlay in both places.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass

from ext3 import hostio

from ...atomic import lock_range
from ...errors import FormatError, SifkitError, TargetError, UsageError, show
from ...sif import Descriptor, ObjectNotFoundError, PartType, Stamp
from ...sif.object_io import check_inside
from ...sif.payload import copy_in, copy_out, open_source
from ...sif.store import FileStore
from ..destination import check_destination, new_file
from ..in_use import HostPath, check_replaceable, check_unused, image_kind
from ..info import ImageInfo, image_info
from ..target import choose, editing, kept_space, lock_partition, no_locks
from .reservation import EmbedOptions, OnSignatures, Settled, find_place, place_room, settle_signatures

__all__ = ["AttachResult", "DetachResult", "attach", "detach"]

Begin = Callable[[int], None]
"""Told how many bytes are to be copied at most."""
Advance = Callable[[int], None]
"""Told how many bytes were copied since."""
DETACHED_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveResult:
    """What both have: ``path`` is what was made or changed, of ``source``; ``partition`` where the overlay is or was in the
    SIF; ``dropped`` the signatures removed. ``locked`` False: nothing kept others from writing meanwhile."""

    path: str
    source: str
    partition: Descriptor
    dropped: tuple[int, ...] = ()
    locked: bool
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachResult(MoveResult):
    """The overlay in the SIF. ``moved``: the file is gone."""

    replaced_bytes: int
    moved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachResult(MoveResult):
    """The file that was made of ``partition``. ``kept``: it is in the SIF too."""

    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What detaching was asked for: from the SIF ``sif`` to the file ``target``."""

    sif: str
    target: str
    partition: str
    force: bool
    require_lock: bool
    begin: Begin | None
    advance: Advance | None
    began: float

    def done(
        self, found: Descriptor, *, locked: bool, settled: Settled | None = None, notes: tuple[str, ...] = ()
    ) -> DetachResult:
        """``settled``: the overlay was removed, and this was done with signatures; None: it is still in the SIF."""
        return DetachResult(
            path=self.target,
            source=self.sif,
            partition=found,
            kept=settled is None,
            dropped=settled.dropped if settled else (),
            locked=locked,
            seconds=time.monotonic() - self.began,
            notes=notes,
        )


def attach(
    path: HostPath,
    image: HostPath,
    options: EmbedOptions | None = None,
    *,
    move: bool = False,
    stamp: Stamp | None = None,
    begin: Begin | None = None,
    advance: Advance | None = None,
) -> AttachResult:
    """Put the ext3 image ``image`` into the SIF at ``path`` as its overlay; ``move`` removes the file when that is done.

    Raises FormatError where it is no overlay the runtimes take, ImageInUseError where somebody may write to it (with ``move``:
    uses it), and what ``embed`` does. Whatever is raised, both are as they were.
    """
    began = time.monotonic()
    name, source_name = os.fsdecode(path), os.fsdecode(image)
    options = options or EmbedOptions()
    _check_sif(name, "sifkit overlay attach IMAGE.sif overlay.img")
    notes = _check_overlay(source_name, name)
    if move and os.path.islink(source_name):
        raise UsageError(f"--move: {show(source_name)} is a symbolic link", hint="name the file itself, or leave --move out")
    fd = os.open(source_name, os.O_RDONLY | hostio.NO_WAIT)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(f"{show(source_name)} is not a regular file", path=source_name, hint="give an image file")
        check_unused(source_name, writers_only=not move)
        locked = lock_range(fd, write=False, path=source_name)
        if options.require_lock and not locked:
            raise no_locks(source_name)
        check_unused(source_name, writers_only=not move, ours=True)
        with editing(name, stamp=stamp, require_lock=options.require_lock) as edited:
            sif = edited.sif
            place = find_place(sif, name, replace=options.replace)
            what = "replacing the overlay" if place.old is not None else "adding an overlay"
            group = place.old.group if place.old is not None else place.group
            settled = settle_signatures(sif, name, what, options.on_signatures, old=place.old, adds=group)
            if begin:
                begin(found.st_blocks * 512 if hasattr(found, "st_blocks") else found.st_size)
            with place_room(edited, place, found.st_size, drop=settled.dropped, require_lock=options.require_lock) as room:
                with open_source(fd) as source:
                    copy_in(source, FileStore(room.fd), room.offset, advance=advance)
                if os.fstat(fd).st_size != found.st_size or os.fstat(fd).st_mtime_ns != found.st_mtime_ns:
                    raise SifkitError(
                        f"{show(source_name)} was written to while it was copied",
                        path=source_name,
                        hint="stop what uses it, then try again",
                    )
                partition = room.descriptor
            locked &= sif.locked
            notes += (*place.notes, *settled.notes, *kept_space(sif))
        if move:
            _remove(source_name, fd, name)
    finally:
        os.close(fd)
    return AttachResult(
        path=name,
        source=source_name,
        partition=partition,
        replaced_bytes=place.old.size if place.old is not None else 0,
        moved=move,
        dropped=settled.dropped,
        locked=locked,
        seconds=time.monotonic() - began,
        notes=notes,
    )


def _check_sif(path: str, example: str) -> None:
    if image_kind(path) != "sif":
        raise FormatError(f"{show(path)} is no SIF image", path=path, hint=f"name the SIF first: {example}")


def _check_overlay(image: str, sif: str) -> tuple[str, ...]:
    """Refuse what the runtimes would refuse; what to know about the rest."""
    kind = image_kind(image)
    if kind == "sif":
        hint = "give a stand-alone ext3 image; sifkit overlay detach --keep copies the overlay of a SIF to one"
        raise FormatError(f"{show(image)} is a SIF image itself", path=image, hint=hint)
    if kind == "squashfs":
        raise FormatError(
            f"{show(image)} is a squashfs image, which is read-only",
            path=image,
            hint=f"sifkit sif add --parttype overlay {show(sif)} {show(image)} puts it in",
        )
    info = image_info(image)
    if not info.accepted:
        raise FormatError(
            f"{show(image)}: Apptainer refuses it: {'; '.join(info.reasons)}",
            path=image,
            hint="make an overlay it takes: sifkit overlay create",
        )
    if not info.readable:
        raise FormatError(f"{show(image)}: {info.problem}", path=image, hint="repair it first: e2fsck -f")
    if info.state == "errors":
        raise FormatError(
            f"{show(image)}: its filesystem has errors that were never repaired", path=image, hint="repair it first: e2fsck -f"
        )
    return _notes(info)


def _notes(info: ImageInfo) -> tuple[str, ...]:
    notes = []
    if info.journal is not None and info.journal.dirty:
        notes.append("its journal is not empty: the first use with --writable plays it back, and read-only use fails before")
    if info.upper is None:
        notes.append("there is no upper/ in it: read-only use fails, the first use with --writable makes it")
    return tuple(notes)


def _remove(image: str, fd: int, sif: str) -> None:
    """Remove the file that is open as ``fd``, unless another has taken its name."""
    try:
        if os.path.samestat(os.lstat(image), os.fstat(fd)):
            os.unlink(image)
            return
        reason = "another file has its name now"
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
    """Write the overlay of the SIF at ``path`` to the file ``image`` and remove it from the SIF, unless ``keep``.

    ``partition``: "overlay", or an ID where there are several. ``force``: an unused ext3 image or empty file may be there.
    Raises ImageInUseError where a container uses the overlay (with ``keep``: may write to it), SignedError, TargetError,
    ObjectNotFoundError. Until the file is whole the SIF is as it was.
    """
    began = time.monotonic()
    name, new_name = os.fsdecode(path), os.fsdecode(image)
    _check_sif(name, "sifkit overlay detach IMAGE.sif -o overlay.img")
    if hostio.same_file(name, new_name):
        raise UsageError(f"{show(new_name)} is the SIF itself", hint="give the overlay another name")
    check_destination(new_name, force=force)
    job = _Job(
        sif=name,
        target=new_name,
        partition=partition,
        force=force,
        require_lock=require_lock,
        begin=begin,
        advance=advance,
        began=began,
    )
    return _copy_out(job) if keep else _take_out(job, on_signatures, stamp)


def _take_out(job: _Job, on_signatures: OnSignatures, stamp: Stamp | None) -> DetachResult:
    with editing(job.sif, stamp=stamp, require_lock=job.require_lock) as edited:
        sif = edited.sif
        found = _overlay(choose(sif, job.partition, job.sif), job.sif)
        settled = settle_signatures(sif, job.sif, f"removing object {found.id}", on_signatures, old=found)
        locked = lock_partition(edited.fd, job.sif, found, write=True, require_lock=job.require_lock)
        _write_out(edited.fd, found, job)
        try:
            sif.delete([found.id, *settled.dropped])
        except SifkitError as error:
            error.message += f"; {show(job.target)} is made, and the overlay is still in {show(job.sif)}"
            raise
        return job.done(found, locked=locked, settled=settled, notes=(*settled.notes, *kept_space(sif)))


def _copy_out(job: _Job) -> DetachResult:
    from ...sif.image import SIF
    from ...sif.loading import open_image_file

    fd = open_image_file(job.sif, writable=False)
    try:
        with SIF(FileStore(fd), path=job.sif) as sif:
            found = _overlay(choose(sif, job.partition, job.sif), job.sif)
            locked = lock_partition(fd, job.sif, found, write=False, require_lock=job.require_lock)
            _write_out(fd, found, job)
    finally:
        os.close(fd)
    return job.done(found, locked=locked)


def _overlay(found: Descriptor, path: str) -> Descriptor:
    if found.part_type != PartType.OVERLAY:
        raise ObjectNotFoundError(
            f"{show(path)}: object {found.id} is no overlay",
            path=path,
            hint=f"any object is taken out by: sifkit sif dump {found.id} {show(path)} -o FILE",
        )
    return found


def _write_out(fd: int, found: Descriptor, job: _Job) -> None:
    """The partition as a file; it appears whole, and is on storage then."""
    store = FileStore(fd)
    check_inside(found, store)
    if job.begin:
        job.begin(sum(size for _, size in store.data_spans(found.offset, found.size)))
    with new_file(job.target, DETACHED_MODE) as file:
        try:
            copy_out(store, found, file.fd, advance=job.advance)
        except OSError as error:
            if isinstance(error, SifkitError):
                error.path, error.message = job.target, f"{show(job.target)}: {error.message}"
            raise
        if job.force:
            check_replaceable(job.target)
        file.commit(replace=job.force)
