"""Node: a future inode, as TreeBuilder packs it and Tree sees it."""

from __future__ import annotations

import struct

__all__ = ["FIELDS", "PARENT_OFFSET", "ROW", "Segment", "Times"]

FIELDS = {
    "mode": "I",
    "uid": "I",
    "gid": "I",
    "parent": "I",
    "size": "q",
    "atime": "q",
    "mtime": "q",
    "ctime": "q",
    "atime_ns": "I",
    "mtime_ns": "I",
    "ctime_ns": "I",
    "links": "I",
}
"""The columns of a node and their little-endian struct codes: times are whole seconds since 1970 (may be negative) plus
nanoseconds; links counts its entries, and for directories is left 0 (the plan counts subdirectories)."""

ROW = struct.Struct("<" + "".join(FIELDS.values()))
"""One node."""

PARENT_OFFSET = struct.calcsize("<" + "".join(FIELDS.values())[: list(FIELDS).index("parent")])
"""Where in it the number of the parent begins."""

Segment = tuple[int, int, int]
"""(logical offset, length, source offset) in bytes: a part of a file that holds data; what lies between is a hole."""

Times = tuple[int, int, int, int, int, int]
"""atime, mtime, ctime in whole seconds, then the nanoseconds of each."""
