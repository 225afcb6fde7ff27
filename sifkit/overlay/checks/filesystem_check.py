"""Check of a filesystem in an image: ext3 with the passes of fsck, which change nothing, squashfs block by block.

What is wrong becomes a problem of the image's result. Nothing is raised for a damaged image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import SifkitError, TruncatedError, counted, show
from ..images.image_format import head_format
from .image_result import ImageKind, ImageProblem, ImageResult, PartResult

if TYPE_CHECKING:
    from ext3.fsck.finding import Finding

    from ...squashfs.checking import SquashfsProblem

__all__ = ["Advance", "Place", "check_ext3", "check_squashfs_part", "image_kind_of"]

Advance = Callable[[int], None]
"""Callback for progress, with the number of bytes done since its last call."""


def image_kind_of(head: bytes, size: int) -> ImageKind | None:
    """Return what a file of ``size`` bytes holds that begins with ``head``, its first 2 KiB; None for no image."""
    found = head_format(head, size)
    if found == "ext":
        return "ext3"
    return found if found in ("sif", "squashfs") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Filesystem of ``size`` bytes at ``offset`` of the file at ``path``: all of it, or the partition ``id`` of a SIF."""

    path: str
    offset: int
    size: int
    id: int | None = None


def check_ext3(place: Place, part: PartResult, result: ImageResult) -> None:
    """Check an ext2 or ext3 filesystem as ``overlay fsck -fn`` does. Raises OSError for the host's file alone."""
    from ext3.errors import Ext3Error
    from ext3.fsck.context import CheckOptions
    from ext3.fsck.policy import CheckOnly

    from ..checking import CheckPlace, open_for_check
    from ..images.window import check_window

    harmless: list[ImageProblem] = []

    def observe(finding: Finding) -> None:
        if finding.problem.note:
            return
        text = f"{_subject(place, 'ext3')}{show(finding.message)}"
        if finding.problem.excused:
            harmless.append(ImageProblem(f"ext3-{finding.code}", text, "warning", place.id))
        else:
            result.add(ImageProblem(f"ext3-{finding.code}", text, id=place.id))

    where = CheckPlace(offset=place.offset or None) if place.id is None else CheckPlace(partition=str(place.id))
    try:
        with open_for_check(place.path, where, writes=False) as opened:
            if opened.users:
                result.in_use = True
                result.notes.append(f"{_subject(place, '')}in use: {opened.users}; changes under way look like damage")
            check_window(opened.window)
            report = opened.run(CheckOnly(), options=CheckOptions(force=True), observe=observe)
            if opened.changed_meanwhile() and not opened.users:
                result.in_use = True
                result.notes.append(f"{_subject(place, '')}changed while it was checked; what was found may not fit together")
    except TruncatedError as error:
        result.add_truncation(error.needed_bytes, error.available_bytes, id=place.id)
        return
    except (Ext3Error, SifkitError) as error:
        result.add(_problem_of(error, place, "ext3"))
        return
    part.inodes = report.inodes_used
    if report.gave_up:
        result.add(ImageProblem("ext3-gave-up", f"{_subject(place, 'ext3')}{show(report.gave_up)}", id=place.id))
    if not report.replayed:  # counts that the kernel corrects when it replays the journal
        for problem in harmless:
            result.add(problem)
    else:
        result.notes.append(f"{_subject(place, '')}its journal has {counted(report.replayed, 'transaction')} to replay")


def check_squashfs_part(place: Place, part: PartResult, result: ImageResult, *, threads: int | None, advance: Advance) -> None:
    """Check a squashfs filesystem: every block decompresses to its size, every inode and directory is reached and agrees."""
    from ...squashfs.checking import check_squashfs
    from ...squashfs.codecs import COMPRESSORS
    from ...squashfs.errors import MissingCodecError, TruncatedSquashfsError
    from ...squashfs.reader import Reader
    from ...squashfs.schema import SUPERBLOCK

    def observe(problem: SquashfsProblem) -> None:
        path = "" if problem.path is None else f"{show(problem.path)}: "
        text = f"{_subject(place, 'squashfs')}{path}{show(problem.text)}"
        result.add(ImageProblem(f"squashfs-{problem.code}", text, problem.severity, place.id, problem.path))

    try:
        with Reader.open(place.path, offset=place.offset, size=place.size) as reader:
            part.detail = COMPRESSORS.get(reader.superblock.compression, "")
            found = check_squashfs(reader, on_problem=observe, threads=threads, progress=advance)
            part.inodes = found.inodes
    except TruncatedSquashfsError as error:
        end = (error.offset or 0) + error.size
        result.add_truncation(end, place.size, at_least=place.size < SUPERBLOCK.size, id=place.id)
    except MissingCodecError as error:
        text = f"{_subject(place, 'squashfs')}it cannot be checked: {error.message}; {error.hint}"
        result.add(ImageProblem("missing-codec", text, id=place.id))
    except SifkitError as error:
        result.add(_problem_of(error, place, "squashfs"))


def _subject(place: Place, kind: str) -> str:
    """Return the beginning of a text about a filesystem."""
    return (f"{kind}: " if kind else "") if place.id is None else f"object {place.id}: "


def _problem_of(error: Exception, place: Place, kind: str) -> ImageProblem:
    text = getattr(error, "message", str(error))
    hint = getattr(error, "hint", "")
    return ImageProblem(
        getattr(error, "kind", "io"), f"{_subject(place, kind)}{show(text)}" + f"; {hint}" * bool(hint), id=place.id
    )
