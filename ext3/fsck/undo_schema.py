"""Structures of an undo file: a header, then records. Declarations only; all integers are little-endian.

A hash is BLAKE2b of 16 bytes. That of the header and of a record covers it with the field itself zero, and a record's payload.
"""

from __future__ import annotations

from ..format.field_kinds import Bytes, Int16ul, Int32ul, Int64ul
from ..format.layout import Layout

UNDO_HEADER = Layout(
    "undo_header",
    "h_magic" / Bytes(8),
    "h_version" / Int32ul,
    "h_state" / Int32ul,
    "h_block_size" / Int32ul,
    "h_made" / Int32ul,
    "h_image_size" / Int64ul,
    "h_hash" / Bytes(16),
    "h_reserved" / Bytes(464),
    size=512,
)
"""``h_made``: seconds since 1970. A STATE record with the identity of the image follows."""

UNDO_RECORD = Layout(
    "undo_record",
    "r_kind" / Int32ul,
    "r_payload" / Int32ul,
    "r_first" / Int64ul,
    "r_count" / Int64ul,
    "r_hash" / Bytes(16),
    "r_reserved" / Bytes(24),
    size=64,
)
"""Record about the blocks ``r_first`` to ``r_first + r_count - 1``; ``r_payload`` bytes follow."""

UNDO_STATE = Layout(
    "undo_state",
    "s_uuid" / Bytes(16),
    "s_mtime" / Int32ul,
    "s_wtime" / Int32ul,
    "s_lastcheck" / Int32ul,
    "s_mnt_count" / Int16ul,
    "s_magic" / Int16ul,
    size=32,
)
"""Fields of a superblock that tell images apart, and change when one is mounted or changed."""
