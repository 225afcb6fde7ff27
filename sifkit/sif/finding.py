"""What a check can find in an image: values, one for each thing that is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

__all__ = ["Finding", "Problem", "Severity"]

Severity = Literal["error", "warning", "note"]
"""error: a reader or writer goes wrong; warning: it should not be so, and they cope; note: unusual, and allowed."""


class Problem(StrEnum):
    """The words are stable: programs may look for them."""

    NOT_SIF = "not-sif"
    UNREADABLE = "unreadable"
    """The header makes it impossible to read the table."""
    TRUNCATED = "truncated"
    INTERRUPTED_EDIT = "interrupted-edit"
    LAUNCH_SCRIPT = "launch-script"
    FREE_COUNT = "free-count"
    DATA_SIZE = "data-size"
    TABLE_SIZE = "table-size"
    HEADER_ARCH = "header-arch"
    PARTITION_ARCH = "partition-arch"
    """The start of a name where the code should be."""
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
    TRAILING_BYTES = "trailing-bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    ``id``: the object concerned (None: the image) in descriptor number ``slot`` (from 0; -1: none); ``field``: the format's
    name for what has the value ``got`` instead of ``want``, where there is one; ``text``: all of it as a line. ``offset`` and
    ``size``: the bytes concerned, where there are such. ``repairable``: ``repair`` can put it right.
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

    def hopeless(self) -> Finding:
        """The same, in an image that cannot be opened for writing."""
        return replace(self, repairable=False)
