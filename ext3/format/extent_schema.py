"""Structures of ext4's extent trees, with the kernel's field names. Declarations only.

Source: Linux ``fs/ext4/ext4_extents.h``.
"""

from __future__ import annotations

from .field_kinds import Int16ul, Int32ul
from .layout import Layout

EXTENT_HEADER = Layout(
    "ext4_extent_header",
    "eh_magic" / Int16ul,
    "eh_entries" / Int16ul,
    "eh_max" / Int16ul,
    "eh_depth" / Int16ul,
    "eh_generation" / Int32ul,
    size=12,
)
EXTENT = Layout(
    "ext4_extent", "ee_block" / Int32ul, "ee_len" / Int16ul, "ee_start_hi" / Int16ul, "ee_start_lo" / Int32ul, size=12
)
EXTENT_INDEX = Layout(
    "ext4_extent_idx", "ei_block" / Int32ul, "ei_leaf_lo" / Int32ul, "ei_leaf_hi" / Int16ul, "ei_unused" / Int16ul, size=12
)
