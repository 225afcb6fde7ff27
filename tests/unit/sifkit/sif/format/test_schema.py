"""The structures on disk: the packer and the construct schema say the same, and sizes are the format's."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from sifkit.packed_struct import PackedStruct
from sifkit.sif.format.schema import CRYPTO, DESCRIPTOR, GLOBAL_HEADER, OCI, PARTITION, SBOM, SIGNATURE

LAYOUTS = {GLOBAL_HEADER: 128, DESCRIPTOR: 585, PARTITION: 11, SIGNATURE: 260, CRYPTO: 8, SBOM: 4, OCI: 384}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_two_views_of_one_declaration(layout: PackedStruct) -> None:
    raw = random.Random(1).randbytes(layout.size)
    assert layout.schema.sizeof() == layout.size == LAYOUTS[layout]
    fields = layout.read(raw)
    parsed = layout.schema.parse(raw)
    assert fields == {name: parsed[name] for name in layout.names}
    assert layout.build(fields) == layout.schema.build(fields) == raw
    assert layout.read(b"abc" + raw, 3) == fields


def test_where_fields_are() -> None:
    """From the format's tables."""
    places = {"Magic": 32, "Arch": 45, "ID": 48, "CreatedAt": 64, "DescriptorsFree": 80, "DataSize": 120}
    assert {name: GLOBAL_HEADER.offset_of(name) for name in places} == places
    places = {"Used": 4, "ID": 5, "LinkedID": 13, "Offset": 17, "UID": 57, "Name": 73, "Extra": 201}
    assert {name: DESCRIPTOR.offset_of(name) for name in places} == places
    assert PARTITION.offset_of("Arch") == 8


def test_no_field_is_forgotten() -> None:
    with pytest.raises(TypeError, match="Format"):
        SBOM.build({})
    with pytest.raises(TypeError, match="Other"):
        SBOM.build({"Format": 1, "Other": 2})
    with pytest.raises(TypeError, match="4 bytes, not 5"):
        PackedStruct("wrong", 5, Format="i")


def test_reading_images_loads_nothing_heavy() -> None:
    code = "import sifkit.sif, sys; print([name for name in ('construct', 'numpy', 'rich', 'ext3') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
