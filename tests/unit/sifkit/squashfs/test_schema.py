"""The structures on disk: the packer and the construct schema say the same, and sizes and places are the format's."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from sifkit.packed_struct import PackedStruct
from sifkit.squashfs import schema

LAYOUTS = [found for found in vars(schema).values() if isinstance(found, PackedStruct)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_two_views_of_one_declaration(layout: PackedStruct) -> None:
    raw = random.Random(1).randbytes(layout.size)
    assert layout.schema.sizeof() == layout.size
    fields = layout.read(raw)
    parsed = layout.schema.parse(raw)
    assert fields == {name: parsed[name] for name in layout.names}
    assert layout.build(fields) == layout.schema.build(fields) == raw


def test_where_fields_are() -> None:
    """From the format's tables."""
    assert len(LAYOUTS) == 17
    places = {
        "block_size": 12,
        "compression": 20,
        "flags": 24,
        "root_inode": 32,
        "id_table_start": 48,
        "lookup_table_start": 88,
    }
    assert {name: schema.SUPERBLOCK.offset_of(name) for name in places} == places
    assert schema.EXTENDED_REGULAR_INODE.offset_of("sparse") == 32
    assert schema.EXTENDED_DIRECTORY_INODE.offset_of("xattr") == 36
    assert schema.DIRECTORY_INODE.offset_of("offset") == 26


def test_reading_images_loads_nothing_heavy() -> None:
    heavy = ("construct", "numpy", "rich", "zstandard", "lzma")
    code = f"import sifkit.squashfs.reader, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
