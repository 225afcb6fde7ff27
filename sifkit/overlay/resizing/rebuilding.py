"""Rebuild of an overlay: a fresh filesystem with the files of the old one, which it replaces at once.

The way out where the number of inodes or the size of blocks, which a filesystem keeps for life, turns out wrong. A file is
replaced by rename; in a SIF image the new filesystem is written behind all objects and takes the place of the old partition in
one commit. Until then the old image is as it was, so that both need room on the host.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import numpy as np

from ext3.constants import GOOD_INODE_SIZE, MAX_BLOCK_SIZE, STATE_ERROR, STATE_VALID
from ext3.defaults import default_journal_blocks
from ext3.device.base import FileDevice
from ext3.errors import GeometryError, NeedsCheckError, NoInodesError, NoSpaceError, XattrError
from ext3.format.geometry import reserved_share
from ext3.format.inode_fields import TIME_MAX_CORE
from ext3.hostio import HostPath
from ext3.newfs.builder import TreeBuilder
from ext3.newfs.image import plan_tree, write_image
from ext3.newfs.plan import ImageOptions, Plan
from ext3.newfs.stamp import Stamp
from ext3.newfs.tree import Tree
from ext3.progress import Progress, Silent
from ext3.read.filesystem import Filesystem

from ...atomic import AtomicFile
from ...errors import UsageError, counted, human, show
from ...file_attributes import keep_attributes
from ...file_locks import lock_range
from ...host_space import free_bytes, full_host_errors
from ...replacing import OpenedFile
from ..creating.request import check_request, check_size
from ..creating.tree_source import scan_tree
from ..images.locked_file import open_for_edit
from ..images.opening import named_errors
from ..images.sif_partition import (
    check_ext3_partition,
    edit_sif,
    filesystem_place,
    lock_partition,
    select_partition,
    space_notes,
)
from ..images.window import Window, check_window, file_window
from ..options import CreateOptions
from .filesystem_facts import FilesystemFacts, facts_of, journal_bytes

if TYPE_CHECKING:
    from ...sif import Descriptor
    from ...sif import Stamp as SIFStamp
    from ..images.reservation import OnSignatures

__all__ = ["RebuildOptions", "RebuildResult", "RebuildStart", "rebuild"]

FULL_SHARE = 0.9
"""Share of the inodes in use from which on a rebuild that is not told their number doubles what the content needs."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildOptions:
    """Options of a rebuild. None keeps what the old filesystem has.

    ``size``: in bytes, "auto": the content plus 25 %. ``inodes`` excludes ``inode_ratio`` (bytes per inode). ``inodes`` None
    keeps as many in relation to the size, and more if nearly all are used. ``journal_bytes`` None: the old journal's size, or
    for another size of image or blocks the default. ``keep_uuid`` False: a new UUID. ``partition``: of a SIF: "overlay" (the
    default), "root" or an ID; ``offset``: byte of the SIF where it begins. ``stamp``: time of changes to the SIF itself.
    """

    size: int | Literal["auto"] | None = None
    inodes: int | None = None
    inode_ratio: int | None = None
    block_size: int | None = None
    inode_size: int | None = None
    journal_bytes: int | None = None
    keep_uuid: bool = False
    partition: str | None = None
    offset: int | None = None
    on_signatures: OnSignatures = "refuse"
    require_lock: bool = False
    stamp: SIFStamp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildStart:
    """Space that a rebuild takes, before its first write: at most ``needed_bytes`` on the host beside the old image, of
    ``available_bytes`` (None: unknown)."""

    needed_bytes: int
    available_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildResult:
    """Result of a rebuild. ``files``: names in the filesystem. ``partition``: its new place in a SIF, ``old_partition`` the
    old one. ``dropped``: IDs of removed signatures. ``locked`` False: file locking is unavailable. ``notes``: for the user."""

    path: str
    before: FilesystemFacts
    after: FilesystemFacts
    files: int
    label: bytes
    partition: Descriptor | None = None
    old_partition: Descriptor | None = None
    dropped: tuple[int, ...] = ()
    locked: bool = True
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


def rebuild(
    path: HostPath,
    options: RebuildOptions | None = None,
    *,
    progress: Progress | None = None,
    begin: Callable[[RebuildStart], None] | None = None,
) -> RebuildResult:
    """Replace the filesystem of the image at ``path``, or in a SIF there, by a fresh one with the same files.

    Kept are names, owners, modes, times (of creation, too), attributes, the flags of chattr, hard links, devices and holes, the
    label, the hash seed, the share of reserved blocks. ``begin``: called before the first write; an exception from it leaves
    everything as it was.

    Raises UsageError for impossible numbers, ImageInUseError, FormatError, NeedsCheckError for a filesystem that is marked as
    damaged, CorruptError and DamagedTreeError if damage is met, NoSpaceError and NoInodesError if the files do not fit the new
    one, SignedError, TargetError and other OSErrors of the host. An error leaves the image as it was.
    """
    options = options or RebuildOptions()
    progress = progress or Silent()
    name = os.fsdecode(path)
    if options.inodes is not None and options.inode_ratio is not None:
        raise UsageError("--inodes and --inode-ratio contradict each other", hint="give one of them")
    partition, _ = filesystem_place(name, options.partition, options.offset)
    work = _Work(name, options, progress, begin, time.monotonic())
    if partition is not None:
        return _rebuild_partition(work, partition)
    if options.offset is not None:
        raise UsageError(
            f"{show(name)}: a filesystem in a larger file is not rebuilt in place",
            hint=f"copy it to a file first: sifkit overlay clone --offset {options.offset} {show(name)} overlay.img",
        )
    return _rebuild_file(work)


@dataclass(frozen=True, slots=True)
class _Work:
    """Request of a rebuild, and what follows its progress."""

    name: str
    options: RebuildOptions
    progress: Progress
    begin: Callable[[RebuildStart], None] | None
    began: float

    def result(self, before: FilesystemFacts, plan: _NewFilesystem, *, locked: bool, notes: tuple[str, ...]) -> RebuildResult:
        return RebuildResult(
            path=self.name,
            before=before,
            after=plan.facts(),
            files=len(plan.plan.tree) - 1 + len(plan.plan.tree.extra_links),
            label=plan.plan.options.label,
            locked=locked,
            seconds=time.monotonic() - self.began,
            notes=(*plan.notes, *notes),
        )


@dataclass(frozen=True, slots=True)
class _NewFilesystem:
    """Plan of the new filesystem, the bytes of its file or partition, and notes."""

    plan: Plan
    size_bytes: int
    notes: tuple[str, ...]

    @property
    def used_bytes(self) -> int:
        """Bytes that it takes on the host at most."""
        return (self.plan.geometry.blocks - self.plan.free_blocks) * self.plan.geometry.block_size

    def facts(self) -> FilesystemFacts:
        plan, geometry = self.plan, self.plan.geometry
        return FilesystemFacts(
            file_bytes=self.size_bytes,
            size_bytes=geometry.size_bytes,
            used_bytes=self.used_bytes,
            free_bytes=plan.free_blocks * geometry.block_size,
            inodes=geometry.inodes,
            inodes_used=plan.demand.inodes,
            block_size=geometry.block_size,
            inode_size=geometry.inode_size,
            journal_bytes=plan.journal_blocks * geometry.block_size,
            groups=geometry.groups,
            uuid=UUID(bytes=plan.stamp.uuid),
        )


def _rebuild_file(work: _Work) -> RebuildResult:
    name = work.name
    fd, locked = open_for_edit(name, require_lock=work.options.require_lock)
    try:
        found = os.fstat(fd)
        window = file_window(name, fd)
        with _old_filesystem(window) as old:
            before = facts_of(old, window.size)
            new = _plan_of(old, window.size, work)
            _report_start(work, new)
            with AtomicFile(name, stat.S_IMODE(found.st_mode)) as file:
                with full_host_errors(name, new.used_bytes, size=new.size_bytes, in_place=True):
                    os.ftruncate(file.fd, new.size_bytes)
                    write_image(new.plan, FileDevice(file.fd, 0, new.size_bytes, zero_from=0), progress=work.progress)
                notes = keep_attributes(fd, file.fd)
                # Locked before it gets the name, so that no other process can open it unlocked.
                lock_range(file.fd, write=True, path=name)
                file.commit(OpenedFile(fd, found))
        return work.result(before, new, locked=locked, notes=notes)
    finally:
        os.close(fd)


def _rebuild_partition(work: _Work, partition: str) -> RebuildResult:
    from ...sif import Arch
    from ..images.reservation import OverlaySlot, apply_signature_policy, reserve_partition

    name, options = work.name, work.options
    with edit_sif(name, stamp=options.stamp, require_lock=options.require_lock) as edited:
        sif = edited.sif
        found = select_partition(sif, partition, name)
        check_ext3_partition(sif, edited.fd, found, name)
        group = found.group or 1
        decision = apply_signature_policy(
            sif, name, f"rebuilding object {found.id}", options.on_signatures, old=found, group=group
        )
        lock = options.require_lock
        locked = lock_partition(edited.fd, name, found, write=True, require_lock=lock)
        with _old_filesystem(Window(name, edited.fd, found.offset, found.size, found)) as old:
            before = facts_of(old, found.size)
            new = _plan_of(old, found.size, work)
            _report_start(work, new)
            slot = OverlaySlot(group, Arch.UNKNOWN, found)  # a partition that is replaced keeps its architecture
            with (
                reserve_partition(
                    edited, slot, new.size_bytes, drop=decision.dropped, require_lock=lock, old_locked=True
                ) as reservation,
                full_host_errors(name, new.used_bytes, size=reservation.offset + new.size_bytes, in_place=True),
            ):
                device = FileDevice(reservation.fd, reservation.offset, reservation.size, zero_from=0)
                write_image(new.plan, device, progress=work.progress)
        result = work.result(before, new, locked=locked, notes=(*decision.notes, *space_notes(sif)))
        return replace(result, partition=sif.get(found.id), old_partition=found, dropped=decision.dropped)


@contextmanager
def _old_filesystem(window: Window) -> Iterator[Filesystem]:
    """Open the filesystem that is to be replaced. Raises NeedsCheckError if it is marked as damaged."""
    check_window(window)
    with named_errors(window.path), Filesystem.open(window.device()) as old:
        if old.journal_problem is not None:
            raise old.journal_problem
        state = old.superblock.state
        if state & STATE_ERROR:
            raise NeedsCheckError("has errors")
        if not state & STATE_VALID:
            raise NeedsCheckError("was not unmounted cleanly")
        yield old


def _report_start(work: _Work, new: _NewFilesystem) -> None:
    if work.begin is not None:
        directory = os.path.dirname(os.path.realpath(work.name))
        work.begin(RebuildStart(needed_bytes=new.used_bytes, available_bytes=free_bytes(directory)))


def _plan_of(old: Filesystem, room: int, work: _Work) -> _NewFilesystem:
    """Plan the new filesystem with the files of the old one, whose file or partition has ``room`` bytes."""
    options, progress = work.options, work.progress
    progress.phase("scan", None, "files")
    builder = TreeBuilder()
    tree = builder.finish(scan_tree(builder, old, progress))
    progress.phase("plan", len(tree), "files")
    found = old.superblock
    identity = found.uuid if options.keep_uuid else None
    seed = b"".join(word.to_bytes(4, "little") for word in found.hash_seed)
    stamp = replace(Stamp.now(identity), hash_seed=seed) if any(seed) else Stamp.now(identity)
    size = None if options.size == "auto" else options.size or room
    wanted = _image_options(old, tree, size, room, options)
    plan = _planned(tree, wanted, stamp, options)
    kept = reserved_share(found.reserved_blocks, found.blocks_count, plan.geometry.blocks)
    plan = replace(plan, geometry=plan.geometry._replace(reserved_blocks=kept))
    progress.advance(len(tree))
    size_bytes = plan.geometry.size_bytes if size is None else max(size, plan.geometry.size_bytes)
    notes = _lost_times(tree, plan.geometry.inode_size) + _smaller_journal(plan, wanted)
    return _NewFilesystem(plan, size_bytes, notes)


def _smaller_journal(plan: Plan, wanted: ImageOptions) -> tuple[str, ...]:
    """Return a note if the old journal, of the size in ``wanted``, gave way."""
    kept, block_size = wanted.journal_bytes or 0, plan.geometry.block_size
    if plan.journal_blocks >= kept // block_size:
        return ()
    return (
        f"a smaller journal leaves the room that is needed: {human(plan.journal_blocks * block_size)} instead of {human(kept)}",
    )


def _lost_times(tree: Tree, inode_size: int) -> tuple[str, ...]:
    """Return a note of the files whose times inodes of ``inode_size`` do not hold."""
    if inode_size > GOOD_INODE_SIZE:
        return ()
    lost = np.zeros(len(tree), bool)
    for name in ("atime", "mtime", "ctime"):
        lost |= (tree.nodes[name + "_ns"] != 0) | (tree.nodes[name] > TIME_MAX_CORE)
    count = int(lost.sum())
    return (f"inodes of {inode_size} bytes hold whole seconds until 2038: times of {counted(count, 'file')} change",) * bool(
        count
    )


def _image_options(old: Filesystem, tree: Tree, size: int | None, room: int, options: RebuildOptions) -> ImageOptions:
    found = old.superblock
    block_size = options.block_size or found.block_size
    inodes = options.inodes
    if inodes is None and options.inode_ratio is None and size is not None:
        inodes = max(1, found.inodes_count * size // max(1, room))
        needed = len(tree) + found.first_ino
        if needed > inodes * FULL_SHARE:
            inodes = 2 * needed
    journal = journal_bytes(old)
    kept = journal if size == room and block_size == found.block_size else None
    return ImageOptions(
        size=size,
        smallest=MIB,
        block_size=block_size,
        inode_size=options.inode_size or found.inode_size,
        inodes=inodes,
        inode_ratio=options.inode_ratio,
        reserved_blocks=0,
        journal_bytes=options.journal_bytes if options.journal_bytes is not None else kept or None,
        journal=bool(journal) or options.journal_bytes is not None,
        label=found.label,
    )


def _planned(tree: Tree, wanted: ImageOptions, stamp: Stamp, options: RebuildOptions) -> Plan:
    """Plan the image; errors say what to change in the request."""
    usual_journal = None if options.journal_bytes is not None else _with_usual_journal(wanted)
    try:
        return plan_tree(tree, wanted, stamp)
    except NoSpaceError as error:
        if usual_journal is not None:
            return _planned(tree, usual_journal, stamp, options)
        least = -(-error.needed_bytes // MIB)
        raise NoSpaceError(
            f"the files do not fit in an image of {human(error.available_bytes)} with {_inodes_text(wanted)}: it needs"
            f" {human(least * MIB)}",
            needed_bytes=error.needed_bytes,
            available_bytes=error.available_bytes,
            hint=f"give --size {least}M or more, or --size auto",
        ) from error
    except NoInodesError as error:
        error.hint = f"give -N {error.enough} or more, or leave out -N and -i"
        raise
    except XattrError as error:
        if error.block_size is not None:
            error.hint = "use -b 4096"
        raise
    except GeometryError as error:
        if error.field == "journal" and usual_journal is not None:
            return _planned(tree, usual_journal, stamp, options)
        _check_kept_values(error, wanted, options)
        _check_values(wanted, options)
        if options.inodes is None and wanted.inodes is not None and wanted.size is not None:
            # What was asked for fits with the usual number of inodes, but not with as many as there are now.
            text = f"{wanted.inodes:,} inodes of {wanted.inode_size} bytes leave no space in {human(wanted.size)}"
            raise UsageError(text, hint="give fewer with -N, or a larger --size") from error
        raise UsageError(error.message, hint=_geometry_hint(error)) from error


def _with_usual_journal(wanted: ImageOptions) -> ImageOptions | None:
    """Return the options with a journal of the usual size instead of the old one; None if it would not be smaller."""
    kept, size, block_size = wanted.journal_bytes, wanted.size, wanted.block_size
    if kept is None or size is None or block_size is None:
        return None
    usual = default_journal_blocks(size // block_size) * block_size
    return replace(wanted, journal_bytes=None) if 0 < usual < kept else None


def _check_kept_values(error: GeometryError, wanted: ImageOptions, options: RebuildOptions) -> None:
    """Raise UsageError if a value of the old filesystem, which was not asked for, is the cause of a failed plan."""
    block_size, inode_size, size = wanted.block_size or MAX_BLOCK_SIZE, wanted.inode_size, wanted.size
    if options.inode_size is None and error.field == "inode_size":
        raise UsageError(
            f"the inodes of {inode_size} bytes that the filesystem has do not fit blocks of {block_size}",
            hint="give -I 256, too",
        )
    too_large = error.field == "block_size" or (error.field == "size" and error.most is not None)
    if options.block_size is None and too_large and size is not None and block_size < MAX_BLOCK_SIZE:
        raise UsageError(
            f"--size {human(size)}: too large for the blocks of {block_size} bytes that the filesystem has",
            hint="give -b 4096, too",
        )


def _check_values(wanted: ImageOptions, options: RebuildOptions) -> None:
    """Raise UsageError if a value that was asked for is the cause of a failed plan."""
    request = CreateOptions(
        size=wanted.size,
        block_size=wanted.block_size,
        inode_size=wanted.inode_size,
        inodes=options.inodes,
        inode_ratio=options.inode_ratio,
        journal_bytes=options.journal_bytes,
        journal=wanted.journal,
    )
    check_request(request)
    if wanted.size is not None:
        check_size(request)


def _inodes_text(wanted: ImageOptions) -> str:
    return "its inodes" if wanted.inodes is None else f"{wanted.inodes:,} inodes"


def _geometry_hint(error: GeometryError) -> str:
    if error.field == "size" and error.least is not None:
        return f"the smallest size with these options is about {human(error.least)}"
    return {
        "inodes": "give fewer inodes, or a larger --size",
        "journal": "give another size with -J, or a larger --size",
    }.get(error.field, "")
