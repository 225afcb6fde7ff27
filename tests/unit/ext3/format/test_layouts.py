"""Layouts: their views, made of one declaration, agree with construct's."""

from __future__ import annotations

import random
import struct
from types import ModuleType

import construct
import pytest

from ext3.format import extent_schema, jbd_schema, schema
from ext3.format.field_kinds import Array, Bytes, Int16ul, Int32ub, Int32ul
from ext3.format.layout import Layout
from ext3.fsck import undo_schema

MODULES: tuple[ModuleType, ...] = (schema, jbd_schema, extent_schema, undo_schema)
LAYOUTS = [one for module in MODULES for one in vars(module).values() if isinstance(one, Layout)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_construct_reads_the_same(layout: Layout) -> None:
    raw = random.Random(layout.name).randbytes(layout.size)
    parsed = layout.schema.parse(raw)
    expected = {name: list(value) if isinstance(value, list) else value for name, value in parsed.items() if name != "_io"}
    assert layout.schema.sizeof() == layout.size
    assert layout.record(raw) == expected
    assert layout.schema.build(parsed) == raw == layout.view(raw).tobytes()


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_fields_of_one_structure_are_set_in_place(layout: Layout) -> None:
    chance = random.Random(layout.name)
    old, new = bytearray(chance.randbytes(7 + layout.size + 3)), chance.randbytes(layout.size)
    around = old[:7] + new + old[-3:]
    row, wanted, table = layout.at(old, 7), layout.at(new), layout.view(new)
    for field in layout.fields:
        row[field.name] = wanted[field.name]
        assert table.dtype.fields is not None
        assert table.dtype.fields[field.name][1] == layout.offset_of(field.name)
        assert row[field.name] == wanted[field.name] == layout.record(new)[field.name]
    assert old == around
    with pytest.raises(ValueError, match="leaves the buffer"):
        layout.at(old, 11)


def test_values_of_fields() -> None:
    layout = Layout("three", "a" / Array(2, Int16ul), "b" / Bytes(4), "c" / Int32ul, size=12)
    raw = bytearray(b"\xff" * 12)
    row = layout.at(raw)
    row["a"], row["b"], row["c"] = 5, b"x", 7
    assert layout.record(raw) == {"a": [5, 5], "b": b"x\0\0\0", "c": 7}
    assert [(layout.offset_of(name), layout.end_of(name)) for name in "abc"] == [(0, 4), (4, 8), (8, 12)]
    for name, value in (("c", -1), ("c", 1 << 32), ("a", [1]), ("a", 1 << 16)):
        with pytest.raises(struct.error):
            row[name] = value


def test_declarations_that_cannot_be() -> None:
    with pytest.raises(TypeError, match="mixed byte order"):
        Layout("mixed", "a" / Int32ul, "b" / Int32ub, size=8)
    with pytest.raises(TypeError, match="size 2"):
        Layout("short", "a" / Int16ul, size=4)
    with pytest.raises(TypeError, match="not a fixed plain field"):
        Array(2, Bytes(3))
    assert Layout("good", "a" / Array(2, Int16ul), "b" / Bytes(4), size=8).schema.sizeof() == construct.Bytes(8).sizeof()
