"""Images with bytes or fields of header and table changed at will: a typed error, or an image that can be read, edited and is
sound afterwards. Sequences of edits: what is in the image is what was put there."""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sifkit.errors import SifkitError
from sifkit.sif import SIF, Arch, DataType, FSType, PartType
from sifkit.sif.format.descriptor import DESCRIPTOR_BYTES
from sifkit.sif.format.schema import DESCRIPTOR, GLOBAL_HEADER, PARTITION

from ..support.sif_edits import EDITS, recovered
from ..support.sif_images import LATER, STAMP, assert_sound, partition, sample_image

pytestmark = pytest.mark.slow

TABLE_END = 4096 + 8 * DESCRIPTOR_BYTES
INTERESTING = [
    0,
    1,
    2,
    127,
    128,
    129,
    4095,
    4096,
    TABLE_END - 1,
    TABLE_END,
    1 << 31,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]


@cache
def sample() -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "sample.sif")
        sample_image(path)
        return path.read_bytes()


numbers = st.one_of(st.sampled_from(INTERESTING), st.integers(0, 20_000), st.integers(0, (1 << 64) - 1))


@st.composite
def field_changes(draw: st.DrawFn) -> tuple[int, bytes]:
    """(offset, bytes) of one field of the header or of a descriptor, with another value."""
    layout = draw(st.sampled_from([GLOBAL_HEADER, DESCRIPTOR, DESCRIPTOR, PARTITION]))
    name = draw(st.sampled_from(layout.names))
    at = layout.offset_of(name)
    if layout is not GLOBAL_HEADER:
        at += 4096 + draw(st.integers(0, 7)) * DESCRIPTOR_BYTES + (201 if layout is PARTITION else 0)
    following = [layout.offset_of(other) for other in layout.names if layout.offset_of(other) > layout.offset_of(name)]
    size = min([*following, layout.size]) - layout.offset_of(name)
    return at, draw(numbers).to_bytes(8, "little")[:size]


byte_changes = st.tuples(st.one_of(st.integers(0, 127), st.integers(4096, TABLE_END - 1)), st.binary(min_size=1, max_size=8))
changes = st.lists(st.one_of(field_changes(), byte_changes), min_size=1, max_size=4)
cuts = st.one_of(st.none(), st.none(), st.integers(0, 1 << 15))


def damaged(changed: list[tuple[int, bytes]], cut: int | None) -> bytes:
    raw = bytearray(sample())
    for at, data in changed:
        raw[at : at + len(data)] = data
    return bytes(raw if cut is None else raw[:cut])


@settings(max_examples=600, deadline=None)
@given(changes, cuts)
def test_a_damaged_image_is_read_or_refused(changed: list[tuple[int, bytes]], cut: int | None) -> None:
    try:
        sif = SIF.open(io.BytesIO(damaged(changed, cut)))
    except SifkitError as error:
        assert "\n" not in str(error) and error.hint
        return
    with sif:
        for descriptor in sif:
            assert descriptor.type_text
            with suppress(SifkitError):
                assert len(sif.read(descriptor.id, limit=1 << 20)) == sif.get(descriptor.id).size
        assert all("\n" not in notice.message for notice in sif.warnings)


@settings(max_examples=200, deadline=None)
@given(changes, cuts)
def test_a_damaged_image_is_edited_or_refused(changed: list[tuple[int, bytes]], cut: int | None) -> None:
    """What could be opened for writing and added to has right counters, and everything that was in it."""
    raw = damaged(changed, cut)
    with tempfile.TemporaryFile() as file:
        file.write(raw)
        file.flush()
        try:
            with SIF.open(file, "r+", stamp=LATER) as sif:
                before = {d.slot: d for d in sif}
                added = sif.add(b"added", DataType.GENERIC)
                sif.update(added.id, name=b"renamed")
                sif.delete(added.id)
        except SifkitError as error:
            assert "\n" not in str(error)
            assert os.fstat(file.fileno()).st_size <= len(raw)
            return
        with SIF.open(file) as sif:
            assert {d.slot: d for d in sif} == before
            for descriptor in sif:
                file.seek(descriptor.offset)
                assert file.read(descriptor.size) == raw[descriptor.offset : descriptor.end]
            assert not {"free-count", "data-size", "unused-slot", "interrupted-edit"} & {n.kind for n in sif.warnings}


@settings(max_examples=300, deadline=None)
@given(changes, cuts, st.sampled_from([name for name in EDITS if not name.startswith("reserve")]))
@example([(114, b"\x01")], None, "add")
def test_any_edit_of_a_damaged_image(changed: list[tuple[int, bytes]], cut: int | None, name: str) -> None:
    """Refused, and the file is as it was when it was open; or done, and nothing is left to be put right."""
    file = io.BytesIO(damaged(changed, cut))
    opened = None
    try:
        with SIF.open(file, "r+", stamp=LATER) as sif:
            opened = file.getvalue()
            EDITS[name](sif)
    except SifkitError as error:
        assert "\n" not in str(error)
        assert opened is None or file.getvalue() == opened
        return
    done = file.getvalue()
    assert recovered(done) == done
    with SIF.open(io.BytesIO(done)) as sif:
        begin = sif.header.data_offset  # nothing new lies before it
    assert len(done) <= max(len(opened or b""), begin) + 10_000


names = st.binary(max_size=128).map(lambda name: name.replace(b"\0", b""))
edits = st.one_of(
    st.tuples(st.just("add"), st.binary(max_size=5000), names, st.integers(0, 3), st.sampled_from([0, 1, 7, 512, 4096])),
    st.tuples(st.just("delete"), st.lists(st.integers(0, 7), min_size=1, max_size=3)),
    st.tuples(st.just("rename"), st.integers(0, 7), names),
    st.tuples(st.just("replace"), st.integers(0, 7), st.binary(max_size=5000)),
    st.tuples(st.just("primary"), st.integers(0, 7)),
    st.tuples(st.just("partition"), st.binary(max_size=300), st.sampled_from(list(Arch.choices()))),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(edits, max_size=12))
def test_sequences_of_edits(steps: list[Any]) -> None:
    """Against a dictionary of what every object holds."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "image.sif")
        SIF.create(path, stamp=STAMP, capacity=8).close()
        model: dict[int, bytes] = {}
        for kind, *values in steps:
            with SIF.open(path, "r+", stamp=LATER) as sif:
                assert sif.warnings == ()
                try:
                    _edit(sif, model, kind, values)
                except SifkitError:
                    assert kind in ("primary", "add", "partition")
                assert {d.id: sif.read(d.id) for d in sif} == model
            assert_sound(path.read_bytes())
            assert path.stat().st_size == sif.header.data_offset + sif.header.data_size


def _edit(sif: SIF, model: dict[int, bytes], kind: str, values: list[Any]) -> None:
    ids = sorted(model)
    if kind == "add":
        data, name, group, alignment = values
        model[sif.add(data, DataType.GENERIC, name=name, group=group, alignment=alignment).id] = data
        return
    if kind == "partition":
        data, arch = values
        metadata = partition(PartType.SYSTEM, FSType.EXT3)._replace(arch=arch)
        model[sif.add(data, DataType.PARTITION, metadata=metadata).id] = data
        return
    if not ids:
        return
    if kind == "delete":
        chosen = {ids[number % len(ids)] for number in values[0]}
        sif.delete(chosen)
        for id in chosen:
            del model[id]
        return
    id = ids[values[0] % len(ids)]
    if kind == "rename":
        assert sif.update(id, name=values[1]).name == values[1]
    elif kind == "replace":
        sif.replace(id, values[1])
        model[id] = values[1]
    elif kind == "primary":
        sif.set_primary(id)
        assert sif.primary == sif.get(id)
