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
"""Columns of a node and their little-endian struct codes. Times are whole seconds since 1970 (may be negative) plus
nanoseconds. ``links`` counts its entries, but is 0 for directories (the plan counts subdirectories)."""

ROW = struct.Struct("<" + "".join(FIELDS.values()))
"""Packer of one node."""

PARENT_OFFSET = struct.calcsize("<" + "".join(FIELDS.values())[: list(FIELDS).index("parent")])
"""Byte offset of the parent in a row."""

Segment = tuple[int, int, int]
"""(logical offset, length, source offset) in bytes of a part of a file that holds data; gaps are holes."""

Times = tuple[int, int, int, int, int, int]
"""atime, mtime, ctime in whole seconds, then the nanoseconds of each."""
