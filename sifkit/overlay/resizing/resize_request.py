"""Request of a resize, what is about to be done for it, and the result. No logic but arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .filesystem_facts import FilesystemFacts

if TYPE_CHECKING:
    from ...sif import Descriptor
    from ...sif import Stamp as SIFStamp
    from ..images.reservation import OnSignatures

__all__ = ["ResizeOptions", "ResizeResult", "ResizeStart", "ResizeTarget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeTarget:
    """Size that is asked for, in bytes: ``size``, or the present one and ``change`` (which may be negative), or the smallest.

    Of the smallest one ``slack_share`` of it and ``slack_bytes`` more are taken. Without any of the three nothing changes.
    """

    size: int | None = None
    change: int | None = None
    minimum: bool = False
    slack_share: float = 0.0
    slack_bytes: int = 0

    def bytes_from(self, present: int, smallest: Callable[[], int]) -> int:
        """Return the size for an image of ``present`` bytes. ``smallest``: called if that is what is asked for."""
        if self.size is not None:
            return self.size
        if self.minimum:
            least = smallest()
            return least + int(least * self.slack_share) + self.slack_bytes
        return max(0, present + (self.change or 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeOptions:
    """Options of a resize.

    ``dry_run``: plan only; nothing is locked or written. ``check_first``: make the repairs that are safe, before.
    ``partition``: of a SIF: "overlay" (the default), "root" or an ID. ``offset``: byte of a larger file where the filesystem
    begins. ``on_signatures``: refuse to break signatures, drop or keep those that break. ``require_lock``: fail if file locking
    is unavailable. ``stamp``: time of changes to the SIF itself.
    """

    target: ResizeTarget = field(default_factory=ResizeTarget)
    dry_run: bool = False
    check_first: bool = False
    partition: str | None = None
    offset: int | None = None
    on_signatures: OnSignatures = "refuse"
    require_lock: bool = False
    stamp: SIFStamp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeStart:
    """What a resize is about to do.

    ``moved_bytes``, ``moved_inodes``: inside the filesystem. ``copied_bytes``: of the whole filesystem, if it is resized as a
    copy. ``needed_bytes``: on the host at most, of ``available_bytes`` (None: unknown).
    """

    moved_bytes: int
    moved_inodes: int
    copied_bytes: int
    needed_bytes: int
    available_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeResult:
    """Result of a resize, or of its plan (``dry_run``): the filesystem ``before`` and ``after``.

    ``unchanged``: it has that size already. ``partition``: its place in a SIF, ``old_partition`` the one that it had if it was
    moved. ``fixed``: the filesystem is in a larger file, which stays as it is. ``dropped``: IDs of signatures that are removed.
    ``locked`` False: file locking is unavailable. ``notes``: for the user.
    """

    path: str
    before: FilesystemFacts
    after: FilesystemFacts
    start: ResizeStart
    dry_run: bool = False
    unchanged: bool = False
    fixed: bool = False
    partition: Descriptor | None = None
    old_partition: Descriptor | None = None
    dropped: tuple[int, ...] = ()
    locked: bool = True
    repaired: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def unused_bytes(self) -> int:
        """Bytes at the end of the file or partition that the filesystem does not use."""
        return self.after.file_bytes - self.after.size_bytes
