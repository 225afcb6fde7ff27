"""Layouts: their views, made of one declaration, agree with construct's."""

from __future__ import annotations

import random
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


def test_declarations_that_cannot_be() -> None:
    with pytest.raises(TypeError, match="mixed byte order"):
        Layout("mixed", "a" / Int32ul, "b" / Int32ub, size=8)
    with pytest.raises(TypeError, match="sizes"):
        Layout("short", "a" / Int16ul, size=4)
    with pytest.raises(TypeError, match="not a fixed plain field"):
        Array(2, Bytes(3))
    assert Layout("good", "a" / Array(2, Int16ul), "b" / Bytes(4), size=8).schema.sizeof() == construct.Bytes(8).sizeof()
