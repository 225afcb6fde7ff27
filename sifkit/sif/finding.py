"""Findings of a check of an image, as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

__all__ = ["Finding", "Problem", "Severity"]

Severity = Literal["error", "warning", "note"]
"""error: readers or writers fail; warning: invalid, but tolerated; note: unusual, but valid."""


class Problem(StrEnum):
    """Kind of a problem. The words are stable, for programs."""

    NOT_SIF = "not-sif"
    UNREADABLE = "unreadable"
    """The header is too corrupt to read the table."""
    TRUNCATED = "truncated"
    INTERRUPTED_EDIT = "interrupted-edit"
    LAUNCH_SCRIPT = "launch-script"
    FREE_COUNT = "free-count"
    DATA_SIZE = "data-size"
    TABLE_SIZE = "table-size"
    HEADER_ARCH = "header-arch"
    PARTITION_ARCH = "partition-arch"
    """A truncated name instead of the code."""
    SEVERAL_PRIMARIES = "several-primaries"
    UNUSED_SLOT = "unused-slot"
    USED_BYTE = "used-byte"
    BAD_PLACE = "bad-place"
    OVERLAP = "overlap"
    OUTSIDE_DATA = "outside-data"
    DUPLICATE_ID = "duplicate-id"
    ID_ZERO = "id-zero"
    UNKNOWN_CODE = "unknown-code"
    PADDING = "padding"
    GROUP = "group"
    LINK = "link"
    NO_DIGEST = "no-digest"
    DIGEST_MISMATCH = "digest-mismatch"
    FILESYSTEM = "filesystem"
    OVERLAY_GROUP = "overlay-group"
    SEVERAL_OVERLAYS = "several-overlays"
    STALE_BYTES = "stale-bytes"
    MISPLACED_SUPERBLOCK = "misplaced-superblock"
    TRAILING_BYTES = "trailing-bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem of an image.

    ``id``: the object concerned (None: the image), in descriptor ``slot`` (from 0; -1: none). ``field``: name of the field in
    the format, which has the value ``got`` instead of ``want``, if there is one. ``text``: the message. ``offset``, ``size``:
    the bytes concerned, if any. ``repairable``: ``repair`` can repair it.
    """

    problem: Problem
    severity: Severity
    text: str
    id: int | None = None
    slot: int = -1
    field: str = ""
    got: object = None
    want: object = None
    offset: int = 0
    size: int = 0
    repairable: bool = False

    def without_repair(self) -> Finding:
        """Return the finding as not repairable: the image cannot be opened for writing."""
        return replace(self, repairable=False)
