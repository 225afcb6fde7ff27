"""Whatever moment a repair is interrupted at: every object is as it was, and repairing once more makes the image sound."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from sifkit.sif import SIF, Descriptor
from sifkit.sif.checking import check, check_file
from sifkit.sif.repairing import repair

from ..support.sif_damage import REPAIRABLE, broken
from ..support.sif_images import LATER, assert_sound
from ..support.sif_recorder import RecordingStore, crashes

ALL = "all of it"


def known(d: Descriptor) -> object:
    return d.extra if d.partition is None else (d.fs_type, d.part_type)


def contents(raw: bytes) -> list[object]:
    """What a reader sees, but for architectures, of which a repair may make known ones."""
    with SIF.open(io.BytesIO(raw)) as sif:
        return [(d.id, d.data_type, d.group, d.linked_id, d.name, known(d), sif.read(d.id)) for d in sif]


def everything(raw: bytearray) -> None:
    for recipe, _ in REPAIRABLE.values():
        recipe(raw)


@pytest.mark.parametrize("name", [*REPAIRABLE, ALL])
def test_every_crash_of_a_repair(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image.sif"
    before = broken(path, everything if name == ALL else REPAIRABLE[name][0])
    findings = list(check_file(path))
    fd = os.open(path, os.O_RDWR)
    try:
        store = RecordingStore(fd)
        with SIF(store, mode="r+", stamp=LATER) as sif:
            repair(sif, findings, cut_trailing=True)
    finally:
        os.close(fd)
    after = path.read_bytes()
    assert_sound(after)
    assert contents(after) == contents(before)
    count = 0
    for what, raw in crashes(before, store.ops):
        count += 1
        assert contents(raw) == contents(before), what
        file = io.BytesIO(raw)
        with SIF.open(file, "r+") as sif:
            repair(sif, list(check(sif)), cut_trailing=True)
        assert file.getvalue() == after, what
    assert count
