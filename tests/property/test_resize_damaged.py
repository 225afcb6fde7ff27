"""Damaged images: a resize refuses with one line and without a write, or it works; a sound image is sound afterwards."""

from __future__ import annotations

import random

import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice
from ext3.format.group_desc_columns import group_table
from ext3.resize import prepare
from ext3.resize.full_census import tables_of
from ext3.resize.references import read_references

from ..support.resizes import aged_image, findings_of, resize

MIB = 1 << 20
PRISTINE = bytes(aged_image(20 * MIB, files=60).data)


def _metadata() -> list[tuple[int, int]]:
    """(byte, length) of all metadata; the superblock and the descriptors several times."""
    ready = prepare(MemoryDevice(PRISTINE))
    found = [(1024, 1024)] * 3 + [(2048, 96)] * 2
    for row in group_table(ready.groups):
        found += [(int(row[name]) * 1024, 1024) for name in ("bg_block_bitmap", "bg_inode_bitmap")]
        found.append((int(row["bg_inode_table"]) * 1024, 60 * 256))
    references = read_references(tables_of(ready.device, ready.superblock, ready.groups), 0)
    blocks = {*(references.pointers.at // 1024).tolist(), *references.directories.block.tolist()}
    blocks.update((references.journal.at // 1024).tolist())
    return found + [(block * 1024, 1024) for block in sorted(blocks)]


@pytest.mark.parametrize("seed", range(8))
def test_refused_or_sound(seed: int) -> None:
    places = _metadata()
    least = prepare(MemoryDevice(PRISTINE)).minimum().size_bytes
    generator = random.Random(seed)
    outcomes = set()
    for _ in range(60):
        device = MemoryDevice(PRISTINE)
        for _ in range(generator.choice([1, 1, 2, 4])):
            start, length = generator.choice(places)
            at = start + generator.randrange(length)
            device.data[at] = generator.choice([0, 1, 0xFF, device.data[at] ^ 1 << generator.randrange(8)])
        broken = bytes(device.data)
        recorded = RecordingDevice(device)
        try:
            resize(recorded, generator.choice([least, least + MIB, 12 * MIB, 26 * MIB, 60 * MIB]))
        except ext3.Ext3Error as error:
            assert "\n" not in str(error)
            assert not recorded.events
            assert device.data == broken
            outcomes.add("refused")
            continue
        outcomes.add("done")
        try:
            before = findings_of(MemoryDevice(broken))
        except ext3.Ext3Error:
            continue
        assert before or not findings_of(device)
    assert outcomes == {"refused", "done"}
