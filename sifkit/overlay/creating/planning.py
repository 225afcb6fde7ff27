"""Plan of an overlay image, made from the source's tree and the options."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID

from ext3.constants import S_IFREG
from ext3.defaults import default_inode_ratio
from ext3.errors import GeometryError, NoSpaceError
from ext3.newfs.image import plan_tree
from ext3.newfs.plan import ImageOptions, Plan
from ext3.newfs.stamp import Stamp
from ext3.newfs.tree import Tree
from ext3.progress import Progress

from ...errors import UsageError, human
from ..options import RESERVED_BLOCKS, CreateOptions, CreateResult
from .layout import ImageTree
from .request import SMALLEST_BYTES, default_size
from .source import ScannedSource

__all__ = ["FIXED_EPOCH", "OverlayPlan", "plan_overlay"]

MIB = 1 << 20
SLACK = 0.25
FIXED_EPOCH = 315532800
"""1980-01-01 (the epoch of zip files): creation time of a reproducible image without SOURCE_DATE_EPOCH."""
NEVER = 1 << 62
PROFILES = {"default": None, "conda": 4096, "data": 1 << 20}
"""Bytes per inode of each profile; None: the default of mke2fs for the size."""
LARGE_JOURNAL = 256 * MIB
"""Half the largest size that gets 1 KiB blocks by default; an image for a larger journal gets 4 KiB blocks."""


@dataclass(frozen=True, slots=True)
class OverlayPlan:
    """Plan of an overlay image, its source, and notes for the user. ``size_bytes``: of the image file or partition.

    It may be larger than the filesystem, which is a whole number of blocks.
    """

    plan: Plan
    source: ScannedSource
    notes: list[str]
    size_bytes: int

    def result(self, target: str, seconds: float) -> CreateResult:
        """Return the result of creating the image at ``target`` in ``seconds``."""
        plan, geometry = self.plan, self.plan.geometry
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
            files=self.source.entries,
            content_bytes=int(plan.tree.nodes["size"][regular].sum()),
            layout=self.source.layout,
            seconds=seconds,
            uuid=UUID(bytes=plan.stamp.uuid),
            label=plan.options.label,
            inode_size=geometry.inode_size,
            groups=geometry.groups,
            journal_bytes=plan.journal_blocks * geometry.block_size,
            excluded=self.source.excluded,
            notes=tuple(self.notes),
            warnings=tuple(self.source.warnings),
        )


def plan_overlay(source: ScannedSource, options: CreateOptions, progress: Progress) -> OverlayPlan:
    """Plan the image. Raises UsageError, NoSpaceError, NoInodesError, XattrError if the source does not fit it."""
    progress.phase("plan", len(source.tree), "files")
    stamp = _stamp(source.tree, source.image, options)
    source.image.set_created_times(source.tree, stamp)
    plan = _plan(source.tree, options, stamp)
    progress.advance(len(source.tree))
    # as mke2fs does
    size = max(plan.geometry.size_bytes, options.size or 0)
    return OverlayPlan(plan, source, source.notes + _notes(options, source.image, plan), size)


def _plan(tree: Tree, options: CreateOptions, stamp: Stamp) -> Plan:
    try:
        return plan_tree(tree, _image_options(options), stamp)
    except GeometryError as error:  # of a size that follows from the content; check_size refused the others
        raise UsageError(error.message) from error
    except NoSpaceError as error:
        least = -(-error.needed_bytes // MIB)
        raise NoSpaceError(
            f"the content does not fit in an image of {human(error.available_bytes)}: it needs {human(least * MIB)}",
            needed_bytes=error.needed_bytes,
            available_bytes=error.available_bytes,
            hint=f"give --size {least}M or more, or leave out --size",
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
            # The default of mke2fs, given explicitly, is not raised for the content.
            ratio = default_inode_ratio(size) if size is not None else None
    return ImageOptions(
        size=size,
        slack=SLACK,
        smallest=SMALLEST_BYTES,
        block_size=block_size,
        inode_size=options.inode_size,
        inodes=options.inodes,
        inode_ratio=ratio,
        reserved_percent=options.reserved_percent or 0.0,
        reserved_blocks=RESERVED_BLOCKS if options.reserved_percent is None else None,
        journal_bytes=options.journal_bytes,
        journal=options.journal,
        label=options.label,
    )


def _stamp(tree: Tree, image: ImageTree, options: CreateOptions) -> Stamp:
    if options.source_date_epoch is None and not options.reproducible:
        return Stamp.now(options.uuid)
    seconds = options.source_date_epoch
    if seconds is None:
        # Files keep their times. The superblock and created directories get a time in the past, because e2fsck reports
        # times in the future, and the newest file may be from there.
        seconds = FIXED_EPOCH
        tree.clamp_times(NEVER)
    else:
        tree.clamp_times(seconds)
    values = (options.size, options.block_size, options.inode_size, options.inodes, options.inode_ratio, options.label)
    return Stamp.derived(seconds, tree, *values, identity=options.uuid)


def _notes(options: CreateOptions, image: ImageTree, plan: Plan) -> list[str]:
    notes = []
    if options.reserved_percent == 0:
        notes.append("no block is reserved for root: Apptainer without root keeps 10 % of the image free then; leave out -m 0")
    epoch = options.source_date_epoch
    if epoch is not None and epoch > time.time():
        notes.append("SOURCE_DATE_EPOCH is in the future: until then e2fsck will want to fix the time of the last write")
    needed, inodes = plan.demand.inodes, plan.geometry.inodes
    if 2 * len(plan.demand.tree) > inodes:  # not where they were doubled for the content
        more = "-N" if options.profile == "conda" else "--profile conda, or -N,"
        notes.append(f"{100 * needed // inodes} % of the {inodes:,} inodes are used: {more} gives more")
    elif options.inodes is None and options.inode_ratio is None and options.profile is None:
        usual = plan.geometry.size_bytes // default_inode_ratio(plan.geometry.size_bytes)
        if inodes > usual * 1.5:
            notes.append(
                f"{inodes:,} inodes instead of the default {usual:,}: twice what the content needs (-N sets the number)"
            )
    if image.upper is None:
        notes.append("there is no upper/: containers can use the image as read-only data, but not write to it")
    if not options.journal:
        notes.append("no journal: Apptainer refuses such an image, and a crash can damage it")
    unset = options.owner is None and options.upper_owner is None
    if image.upper is not None and unset and plan.tree.nodes["uid"][image.upper] == 0:
        notes.append(
            "upper/ is owned by root: in a container only root (or --fakeroot) can write to it; set another owner with"
            " --owner 1000:1000 or --owner me"
        )
    return notes
