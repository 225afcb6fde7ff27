"""Make an overlay: a source and options become an ext3 image that appears whole under its name, or not at all.

Steps: look at the target, scan the source into a tree, put upper/ and work/ around it, plan (all that can be refused is
refused here), write beside the target, check, rename.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from uuid import UUID

from ext3.build.image import plan_tree, write_image
from ext3.build.plan import ImageOptions, Plan
from ext3.build.progress import Progress, Silent
from ext3.build.stamp import Stamp
from ext3.build.tree import Tree
from ext3.constants import S_IFREG
from ext3.device import FileDevice
from ext3.errors import DeviceError, GeometryError, NoSpaceError, SourceError
from ext3.geometry import default_inode_ratio

from ..errors import NotReplaceableError, TargetError, UsageError, human, show
from .destination import check_destination, new_file
from .guards import check_replaceable, file_format
from .layout import ImageTree
from .options import CreateOptions, CreateResult, HostPath
from .request import SMALLEST_BYTES, check_request, default_size
from .source import Gathered, gather

__all__ = ["Prepared", "allocate", "create", "prepare", "result", "space_errors"]

MIB = 1 << 20
SLACK = 0.25
FIXED_EPOCH = 315532800
"""1980-01-01 (as zip files have it): the time of what is made here under --reproducible, without SOURCE_DATE_EPOCH."""
NEVER = 1 << 62
PROFILES = {"default": None, "conda": 4096, "data": 1 << 20}
"""Bytes per inode of each profile; None: as mke2fs has it for the size."""
LARGE_JOURNAL = 256 * MIB
"""Half of what has blocks of 1 KiB by itself: an image for a journal of more has blocks of 4 KiB."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is to be written: the source, what became of it, and lines a person should see. ``size_bytes``: of the image, with
    what lies behind the filesystem's last block."""

    plan: Plan
    source: Gathered
    notes: list[str]
    size_bytes: int


def create(path: HostPath, options: CreateOptions, *, progress: Progress | None = None) -> CreateResult:
    """Make the overlay image ``path``; for one inside a SIF image see ``embed``.

    Raises TargetError and its kinds where the target cannot be made or replaced, UsageError and LayoutError for requests
    that make no sense, and what ``ext3.build`` raises: SourceError, XattrError, NoSpaceError, NoInodesError, DeviceError.
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
    return result(target, prepared, time.monotonic() - began)


def prepare(target: str, options: CreateOptions, progress: Progress, stack: ExitStack) -> Prepared:
    """Everything before the first byte is written. ``stack`` keeps open what the content is read from; ``target`` is not taken
    in where it lies in the source."""
    source = gather(target, options, progress, stack)
    progress.phase("plan", len(source.tree), "files")
    stamp = _stamp(source.tree, source.image, options)
    source.image.set_made_times(source.tree, stamp)
    plan = _plan(source.tree, options, stamp)
    progress.advance(len(source.tree))
    # mke2fs too leaves the file as long as asked for
    size = max(plan.geometry.size_bytes, options.size or 0)
    return Prepared(plan, source, source.notes + _notes(options, source.image, plan), size)


def _check_target(target: str, options: CreateOptions) -> None:
    """Refuse early what would be refused at the end."""
    if os.path.isfile(target) and file_format(target) == "sif":
        raise NotReplaceableError(
            f"{show(target)} is a SIF image, which is not replaced",
            path=target,
            hint="give another name, or put the overlay into it: sifkit overlay create without --force",
        )
    check_destination(target, force=options.force)


def _plan(tree: Tree, options: CreateOptions, stamp: Stamp) -> Plan:
    try:
        return plan_tree(tree, _image_options(options), stamp)
    except GeometryError as error:  # of a size that followed from the content; the others were refused before
        raise UsageError(error.message, hint=error.hint) from error
    except NoSpaceError as error:
        least = -(-error.needed_bytes // MIB)
        raise NoSpaceError(
            f"the content does not fit an image of {human(error.available_bytes)}: it needs {human(least * MIB)}",
            needed_bytes=error.needed_bytes,
            available_bytes=error.available_bytes,
            hint=f"give --size {least}M or more, or leave --size out",
        ) from error


def _image_options(options: CreateOptions) -> ImageOptions:
    size = default_size(options)
    block_size = options.block_size
    if size is None and block_size is None and (options.journal_bytes or 0) > LARGE_JOURNAL:
        block_size = 4096
    ratio = options.inode_ratio
    if ratio is None and options.profile is not None:
        ratio = PROFILES[options.profile]
        if ratio is None and options.inodes is None:
            # The density of mke2fs, asked for by name: it is then not raised for the content.
            ratio = default_inode_ratio(size) if size is not None else None
    return ImageOptions(
        size=size,
        slack=SLACK,
        smallest=SMALLEST_BYTES,
        block_size=block_size,
        inode_size=options.inode_size,
        inodes=options.inodes,
        inode_ratio=ratio,
        reserved_percent=options.reserved_percent,
        journal_bytes=options.journal_bytes,
        journal=options.journal,
        label=options.label,
    )


def _stamp(tree: Tree, image: ImageTree, options: CreateOptions) -> Stamp:
    if options.source_date_epoch is None and not options.reproducible:
        return Stamp.now(options.uuid)
    seconds = options.source_date_epoch
    if seconds is None:
        # Times of files are the input's own. What is made here, the superblock too, gets a time that is surely past:
        # e2fsck complains of one in the future, and the newest file may be dated so.
        seconds = FIXED_EPOCH
        tree.clamp_times(NEVER)
    else:
        tree.clamp_times(seconds)
    facts = (options.size, options.block_size, options.inode_size, options.inodes, options.inode_ratio, options.label)
    return Stamp.derived(seconds, tree, *facts, identity=options.uuid)


def _notes(options: CreateOptions, image: ImageTree, plan: Plan) -> list[str]:
    notes = []
    epoch = options.source_date_epoch
    if epoch is not None and epoch > time.time():
        notes.append("SOURCE_DATE_EPOCH lies in the future: until then e2fsck will want to correct the time of the last write")
    needed, inodes = plan.demand.inodes, plan.geometry.inodes
    if 2 * needed > inodes:
        more = "-N" if options.profile == "conda" else "--profile conda, or -N,"
        notes.append(f"{100 * needed // inodes} % of the {inodes:,} inodes are taken: {more} makes more")
    elif options.inodes is None and options.inode_ratio is None and options.profile is None:
        usual = plan.geometry.size_bytes // default_inode_ratio(plan.geometry.size_bytes)
        if inodes > usual * 1.5:
            notes.append(f"{inodes:,} inodes instead of {usual:,}: twice what the content needs (-N chooses)")
    if image.upper is None:
        notes.append("there is no upper/: a container can use the image read-only, with data in it, but not write to it")
    if not options.journal:
        notes.append("no journal: Apptainer refuses such an image, and a crash can damage it")
    unset = options.owner is None and options.upper_owner is None
    if image.upper is not None and unset and plan.tree.nodes["uid"][image.upper] == 0:
        notes.append(
            "upper/ is owned by root: only root, or --fakeroot, can write to it in a container; --owner 1000:1000 (or"
            " --owner me) changes that"
        )
    return notes


def _write(target: str, options: CreateOptions, prepared: Prepared, progress: Progress) -> None:
    size = prepared.size_bytes
    with new_file(target, options.mode) as file:
        with space_errors(target, prepared, file.fd, sparse=options.sparse):
            os.ftruncate(file.fd, size)
            if not options.sparse:
                allocate(file.fd, 0, size)
            device = FileDevice(file.fd, 0, size, zero_from=0)
            write_image(prepared.plan, device, progress=progress, allow_changed=options.allow_changed)
        if options.force:
            check_replaceable(target)
        file.commit(replace=options.force)


def allocate(fd: int, offset: int, size: int) -> None:
    """Give a range that is a hole blocks on its filesystem."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, size)
        return
    zeros = bytes(MIB)
    for start in range(offset, offset + size, MIB):
        os.pwrite(fd, zeros[: min(MIB, offset + size - start)], start)


@contextmanager
def space_errors(target: str, prepared: Prepared, fd: int, *, sparse: bool) -> Iterator[None]:
    """Say how much was needed where the host's filesystem is full or limits the size of files.

    ``sparse`` False: the whole image was to have blocks, not only what is used.
    """
    plan = prepared.plan
    before = _blocks(fd)
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if isinstance(error, DeviceError | SourceError):
                raise
            raise TargetError(f"{show(target)}: {error.strerror}", path=target, error=error) from error
        used = (plan.geometry.blocks - plan.free_blocks) * plan.geometry.block_size
        needed = used if sparse else prepared.size_bytes
        if error.errno == errno.EFBIG:
            raise TargetError(
                f"{show(target)}: its filesystem takes no files of {human(plan.geometry.size_bytes)}",
                path=target,
                hint="choose a smaller --size, or another filesystem",
                error=error,
            ) from error
        free = _free_bytes(os.path.dirname(os.path.realpath(target)), _blocks(fd) - before)
        raise TargetError(
            f"no space left for {show(target)}: it needs up to {human(needed)}"
            + (f" and {human(free)} are free" if free is not None else ""),
            path=target,
            hint="free some space, or write it to another filesystem",
            error=error,
        ) from error


def _blocks(fd: int) -> int:
    """Blocks of 512 bytes that a file takes; 0 where that cannot be told."""
    return getattr(os.fstat(fd), "st_blocks", 0)


def _free_bytes(directory: str, given_up: int) -> int | None:
    """What is free in ``directory`` once ``given_up`` blocks of 512 bytes are given back."""
    if not hasattr(os, "statvfs"):
        return None
    try:
        status = os.statvfs(directory)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize + max(0, given_up) * 512


def result(target: str, prepared: Prepared, seconds: float) -> CreateResult:
    """The facts of an image that was made in ``seconds``."""
    plan, source = prepared.plan, prepared.source
    geometry = plan.geometry
    free = plan.free_blocks * geometry.block_size
    regular = plan.tree.is_kind(S_IFREG)
    return CreateResult(
        path=target,
        size_bytes=geometry.size_bytes,
        block_size=geometry.block_size,
        inodes=geometry.inodes,
        inodes_used=plan.demand.inodes,
        used_bytes=geometry.size_bytes - free,
        free_bytes=free,
        files=source.entries,
        content_bytes=int(plan.tree.nodes["size"][regular].sum()),
        layout=source.layout,
        seconds=seconds,
        uuid=UUID(bytes=plan.stamp.uuid),
        label=plan.options.label,
        inode_size=geometry.inode_size,
        groups=geometry.groups,
        journal_bytes=plan.journal_blocks * geometry.block_size,
        excluded=source.excluded,
        notes=tuple(prepared.notes),
    )
