"""Sharing of an overlay: what others need to use it read-only, with ``:ro``, in any number of jobs.

Needed are a sound filesystem with an empty journal, marks that hold for every user (``normalizing``), files in upper/ that all
can read, as after ``chmod -R a+rX``, and an image file that nobody has locked and all can read. The image is checked in full
before the first change.
"""

from __future__ import annotations

import os
import stat
from array import array
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ext3.edit.filesystem import WritableFilesystem
from ext3.fsck.context import CheckOptions
from ext3.fsck.policy import CheckOnly
from ext3.hostio import HostPath

from ...errors import SifkitError, counted, shell_quote, show
from ...in_use import check_unused
from ...vfs.file_tree import FileTree, stat_of
from ...vfs.walk import walk
from ...vfs.whiteouts import has_whiteout_prefix, is_whiteout
from ..checking import CheckPlace, open_for_check
from ..edit.edit_session import EditOptions, edit_image
from ..images.opening import open_image
from ..images.sif_partition import filesystem_place
from ..info import ImageInfo, image_info
from ..view.tree_opening import upper_directory
from .mark_plan import MarkPlan, MarkPlanner, MarkProblem
from .normalizing import NormalizeOptions, Observer, normalize_filesystem, open_base

__all__ = ["NotSharableError", "ShareResult", "check_shared", "grant_reading", "share"]

ALL_READ = 0o444
ALL_ENTER = 0o111


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareResult:
    """State of an image for sharing, before or after changes. ``missing``: what others still need, a phrase each.

    ``plan``: marks that were normalized, or would be; ``modes``: number of files that became readable for all, or would;
    ``replayed``: the journal was not empty. ``file_mode``: permission bits of the image file; ``is_sif``: it is a SIF image.
    ``locked`` False: file locking is unavailable (None: nothing was locked). ``notes``: for the user. ``dropped``: IDs of
    removed signatures.
    """

    plan: MarkPlan[int, Any]
    modes: int
    replayed: bool
    file_mode: int
    is_sif: bool
    missing: tuple[str, ...] = ()
    locked: bool | None = None
    notes: tuple[str, ...] = ()
    dropped: tuple[int, ...] = ()

    @property
    def changes(self) -> bool:
        """True if something in the image was changed, or has to be."""
        return bool(self.plan.directories or self.modes or self.replayed)


class NotSharableError(SifkitError):
    """Image that cannot be made ready for others as it is."""

    kind = "not-sharable"


def check_shared(path: HostPath, options: NormalizeOptions | None = None) -> ShareResult:
    """Return what an image lacks for sharing; neither changes nor locks it. Raises as ``share``, for what cannot be read."""
    options = options or NormalizeOptions()
    name = os.fsdecode(path)
    partition, offset = filesystem_place(name, options.partition, options.offset)
    info = image_info(name, partition, offset=offset)
    missing = list(info.reasons)
    if info.use.written:
        missing.append(f"it is in use: {info.use.describe()}")
    if damage := _state(info) or _damage(name, partition, offset):
        missing.append(damage)
    found = _look(name, options)
    plan = found.plan
    if found.replayed:
        missing.append("its journal is not empty")
    if plan.directories:
        directories = counted(len(plan.directories), "directory", "directories")
        missing.append(f"in {directories} marks of removed files do not hold for every user")
    if plan.opaque:
        missing.append(_opaque(plan.opaque))
    missing += (_problem(problem) for problem in plan.problems)
    if found.modes:
        missing.append(f"{counted(found.modes, 'file')} in upper/ cannot be read by all")
    if found.file_mode & ALL_READ != ALL_READ:
        missing.append(f"the image file cannot be read by all: its mode is {found.file_mode:04o}")
    return replace(found, missing=tuple(missing))


def share(path: HostPath, options: NormalizeOptions | None = None, *, observe: Observer | None = None) -> ShareResult:
    """Make the overlay at ``path``, in a SIF there, or at an offset, ready for read-only use by all.

    Raises NotSharableError before the first change if Apptainer refuses the image, if it is damaged, or if marks would be left
    that do not hold for every user. Other errors are those of ``normalize``.
    """
    options = options or NormalizeOptions()
    name = os.fsdecode(path)
    partition, offset = filesystem_place(name, options.partition, options.offset)
    info = image_info(name, partition, offset=offset)
    span = None if info.partition is None else (info.partition.offset, info.partition.size)
    check_unused(name, writers_only=True, span=span)
    if info.reasons:
        raise _not_sharable(name, f"Apptainer does not use the overlay: {info.reasons[0]}", "")
    if damage := _state(info) or _damage(name, partition, offset):
        raise _not_sharable(name, damage, _repair(name, options))
    found = _look(name, options)
    if found.plan.problems:
        raise _not_sharable(name, _problem(found.plan.problems[0]), "remove the one you do not want")
    if found.plan.opaque:
        raise _not_sharable(name, _opaque(found.plan.opaque), "convert them with: --base IMAGE.sif")
    if not found.changes:
        return found
    edit = EditOptions(
        partition=partition,
        offset=offset,
        on_signatures=options.on_signatures,
        require_lock=options.require_lock,
        stamp=options.stamp,
    )
    with open_base(name, partition, options) as base, edit_image(name, edit) as session:
        plan = normalize_filesystem(session.filesystem, base, observe=observe)
        modes = grant_reading(session.filesystem)
    if damage := _state(image_info(name, partition, offset=offset)):  # the replayed journal may say so
        raise _not_sharable(name, damage, _repair(name, options))
    return replace(found, plan=plan, modes=modes, locked=session.locked, notes=session.notes, dropped=session.dropped)


def grant_reading(filesystem: WritableFilesystem) -> int:
    """Make upper/ and everything in it readable for all, as ``chmod -R a+rX``. Return the number of files changed."""
    found = _unreadable(filesystem)
    for ino in found:
        filesystem.chmod(ino, _readable_mode(filesystem.stat(ino).mode))
    return len(found)


def _look(name: str, options: NormalizeOptions) -> ShareResult:
    """Return what would be changed in an image. Nothing is known yet of damage."""
    partition, offset = filesystem_place(name, options.partition, options.offset)
    with (
        open_base(name, partition, options) as base,
        open_image(name, partition, offset=offset) as image,
    ):
        return ShareResult(
            plan=MarkPlanner(image.tree, upper_directory(image.tree).root, base).plan(),
            modes=len(_unreadable(image.tree)),
            replayed=image.needs_recovery,
            file_mode=stat.S_IMODE(os.stat(name).st_mode),
            is_sif=partition is not None,
        )


def _state(info: ImageInfo) -> str:
    """Return what the filesystem says of itself as a phrase, "" if it says that it is clean, or will be once it is replayed."""
    return {"errors": "it is marked as damaged", "not clean": "it was not unmounted cleanly"}.get(info.state, "")


def _repair(name: str, options: NormalizeOptions) -> str:
    """Return the hint of a damaged image. It may say that it is clean, so that only a full check finds anything."""
    place = "" if options.partition is None else f"--partition {shell_quote(options.partition)} "
    place += "" if options.offset is None else f"--offset {options.offset} "
    return f"repair it with: sifkit overlay fsck -fp {place}{shell_quote(name)}"


def _damage(name: str, partition: str | None, offset: int | None) -> str:
    """Check a filesystem in full; return what is wrong as a phrase, "" if it is sound once its journal is replayed."""
    with open_for_check(name, CheckPlace(partition=partition, offset=offset), writes=False) as opened:
        report = opened.run(CheckOnly(), options=CheckOptions(force=True))
    if report.gave_up:
        return f"the check gave up: {report.gave_up}"
    if not report.left:
        return ""
    more = f", and {counted(report.left - 1, 'more problem')}" if report.left > 1 else ""
    return f"it is damaged: {report.findings[0].message}{more}"


def _unreadable(tree: FileTree[int]) -> list[int]:
    """Return the files that not all can read, each once: the top of the tree, upper/ and what is in it, without marks."""
    upper = upper_directory(tree).root
    found = array("I")  # an overlay may hold millions of files
    for ino in (tree.root, upper):
        if _lacks_reading(tree.stat(ino).mode):
            found.append(ino)
    for walked in walk(tree, upper):
        known = stat_of(walked.row)
        if not (has_whiteout_prefix(walked.row.name) or is_whiteout(known)) and _lacks_reading(known.mode):
            found.append(walked.row.node)
    return [int(ino) for ino in np.unique(np.array(found, np.uint32))]


def _lacks_reading(mode: int) -> bool:
    return not stat.S_ISLNK(mode) and _readable_mode(mode) != mode & 0o7777


def _readable_mode(mode: int) -> int:
    """Return the permission bits after ``chmod a+rX``."""
    enter = ALL_ENTER if stat.S_ISDIR(mode) or mode & ALL_ENTER else 0
    return mode & 0o7777 | ALL_READ | enter


def _problem(problem: MarkProblem) -> str:
    return f"upper{show(problem.path)}: {problem.reason}"


def _opaque(count: int) -> str:
    return f"{counted(count, 'directory is', 'directories are')} opaque, which a plain user's Apptainer ignores with :ro"


def _not_sharable(name: str, reason: str, hint: str) -> NotSharableError:
    return NotSharableError(f"{show(name)}: {reason}", path=name, hint=hint)
