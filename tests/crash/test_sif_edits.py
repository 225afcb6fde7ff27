"""Edits of SIF images, interrupted anywhere: the image opens with the old or the new content, and opening it for writing makes
it sound again."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from sifkit.sif import SIF, DataType

from ..support.sif_edits import EDITS, PREPARE, content_of, record, recovered
from ..support.sif_images import assert_sound, sample_image
from ..support.sif_recorder import Op, crashes


def stale_tail(raw: bytes) -> bytes:
    """As after a deletion that cuts nothing: bytes behind the last object, counted as data."""
    with SIF.open(io.BytesIO(raw)) as sif:
        header = sif.header._replace(data_size=sif.header.data_size + 5000)
    return header.pack() + raw[128:] + b"stale" * 1000


@pytest.mark.slow
@pytest.mark.parametrize("stale", [False, True], ids=["", "stale tail"])
@pytest.mark.parametrize("name", EDITS)
def test_every_crash_leaves_old_or_new(tmp_path: Path, name: str, stale: bool) -> None:
    path = tmp_path / "image.sif"
    sample_image(path)
    if name in PREPARE:
        record(path, PREPARE[name])
    if stale:
        path.write_bytes(stale_tail(path.read_bytes()))
    before = path.read_bytes()
    ops, after = record(path, EDITS[name])
    old, new = content_of(before), content_of(after)
    assert old != new
    assert_sound(after)
    count = 0
    for what, raw in crashes(before, ops):
        count += 1
        found = content_of(raw)
        assert found in (old, new), what
        sound = recovered(raw)
        assert content_of(sound) == found, what
        assert_sound(sound)
        assert recovered(sound) == sound, what
    assert count >= 3
    assert sum(op.kind == "sync" for op in ops) >= 2


def test_a_crash_while_a_crash_is_recovered_from(tmp_path: Path) -> None:
    """Finishing an interrupted edit may be interrupted itself."""
    path = tmp_path / "image.sif"
    sample_image(path)
    before = path.read_bytes()
    ops, _ = record(path, EDITS["delete several"])
    interrupted = [raw for _, raw in crashes(before, ops) if recovered(raw) != raw]
    assert len(interrupted) >= 5
    for raw in interrupted:
        path.write_bytes(raw)
        found = content_of(raw)
        steps, _ = record(path, lambda sif: None)
        for what, again in crashes(raw, steps):
            assert content_of(again) == found, what
            assert_sound(recovered(again))


@pytest.mark.parametrize("name", EDITS)
def test_counters_are_never_dangerous(tmp_path: Path, name: str) -> None:
    """At every moment the header counts at least as much data and at most as many free descriptors as there are: a writer that
    trusts it overwrites nothing. It counts what is cut until that is done, and no other bytes that are not there."""
    path = tmp_path / "image.sif"
    sample_image(path)
    if name in PREPARE:
        record(path, PREPARE[name])
    before = path.read_bytes()
    ops, _ = record(path, EDITS[name])
    for what, raw in crashes(before, ops):
        with SIF.open(io.BytesIO(raw)) as sif:
            end = max((descriptor.end for descriptor in sif if descriptor.size), default=0)
            assert sif.header.data_offset + sif.header.data_size >= end, what
            assert sif.header.descriptors_free <= sif.capacity - len(sif), what
            assert sif.header.data_offset + sif.header.data_size <= len(raw) or len(raw) == max(end, sif.header.data_offset), (
                what
            )


def shape(ops: list[Op]) -> list[tuple[str, int, int]]:
    return [(op.kind, op.offset, len(op.data)) for op in ops]


def test_the_order_of_adding_and_deleting(tmp_path: Path) -> None:
    """Each step is on storage before the next begins: data, header, descriptor, the byte that says it is used."""
    path = tmp_path / "image.sif"
    sample_image(path)
    end = path.stat().st_size
    slot = 4096 + 6 * 585
    sync = ("sync", 0, 0)
    ops, _ = record(path, lambda sif: sif.add(b"new", DataType.GENERIC))
    assert shape(ops) == [
        *[("write", end, 3), ("size", end + 3, 0), sync],
        *[("write", 0, 128), sync],
        *[("write", slot, 585), sync],
        *[("write", slot + 4, 1), sync],
    ]
    ops, _ = record(path, lambda sif: sif.delete(7))
    assert shape(ops) == [
        *[("write", slot + 4, 1), sync],
        *[("write", slot, 585), ("write", 0, 128), sync],
        *[("size", end, 0), sync],
        *[("write", 0, 128), sync],
    ]


def test_the_order_of_a_change(tmp_path: Path) -> None:
    """A second table, the header, the table at home, the header, the cut, the header without what was cut."""
    path = tmp_path / "image.sif"
    sample_image(path)
    end = path.stat().st_size
    shadow = -(-end // 4096) * 4096
    sync = ("sync", 0, 0)
    ops, _ = record(path, lambda sif: sif.update(1, name=b"x"))
    assert shape(ops) == [
        *[("write", shadow, 8 * 585), sync],
        *[("write", 0, 128), sync],
        *[("write", 4096, 8 * 585), sync],
        *[("write", 0, 128), sync],
        *[("size", end, 0), sync],
        *[("write", 0, 128), sync],
    ]


def test_the_order_of_resizing(tmp_path: Path) -> None:
    """The file is longer before a descriptor says so, and shorter after; the header counts what is cut until it is."""
    path = tmp_path / "image.sif"
    sample_image(path)
    end = path.stat().st_size
    sync, table = ("sync", 0, 0), 8 * 585
    change = [sync, ("write", 0, 128), sync, ("write", 4096, table), sync, ("write", 0, 128), sync]
    ops, _ = record(path, lambda sif: sif.resize_object(6, 800 + 10_000))
    shadow = -(-(end + 10_000) // 4096) * 4096
    cut = [("size", end + 10_000, 0), sync, ("write", 0, 128), sync]
    assert shape(ops) == [("size", end + 10_000, 0), ("write", shadow, table), *change, *cut]
    ops, _ = record(path, lambda sif: sif.resize_object(6, 100))
    cut = [("size", end - 700, 0), sync, ("write", 0, 128), sync]
    assert shape(ops) == [("write", shadow, table), *change, *cut]
    ops, _ = record(path, lambda sif: sif.resize_object(6, 100))
    assert ops == []
