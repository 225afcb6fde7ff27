"""SIF images for tests, and what must hold for every image that was written: the invariants of the format."""

from __future__ import annotations

import io
import stat
import tempfile
import uuid
from functools import cache
from pathlib import Path
from typing import Any

from sifkit.sif import SIF, Arch, DataType, FSType, PartitionMeta, PartType, Stamp
from sifkit.sif.format.descriptor import DESCRIPTOR_BYTES, EMPTY_SLOT
from sifkit.sif.state import load
from sifkit.sif.store import ObjectStore

__all__ = ["LATER", "STAMP", "assert_sound", "content", "edited", "partition", "sample_image"]

STAMP = Stamp(1_700_000_000, uuid.UUID(int=0x0123456789ABCDEF))
LATER = Stamp(1_800_000_000, uuid.UUID(int=0))


def partition(part_type: PartType, fs_type: FSType = FSType.SQUASHFS, arch: Arch = Arch.AMD64) -> PartitionMeta:
    return PartitionMeta(fs_type, part_type, arch)


def sample_image(path: Path, *, capacity: int = 8) -> None:
    """Six objects: 1 deffile, 2 primary partition, 3 JSON, 4 system partition for another architecture, 5 overlay, 6 generic
    linked to 2."""
    data, mode = _sample_bytes(capacity)
    path.write_bytes(data)
    path.chmod(mode)


@cache
def _sample_bytes(capacity: int) -> tuple[bytes, int]:
    """Bytes and mode of the sample image, which hundreds of tests want."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "sample.sif")
        _write_sample(path, capacity)
        return path.read_bytes(), stat.S_IMODE(path.stat().st_mode)


def _write_sample(path: Path, capacity: int) -> None:
    with SIF.create(path, launch=b"#!/usr/bin/env run-singularity\n", capacity=capacity, stamp=STAMP) as sif:
        sif.add(b"Bootstrap: docker\n" * 3, DataType.DEFFILE, group=1)
        sif.add(b"root" * 300, DataType.PARTITION, name=b"root", group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
        sif.add(b"{}", DataType.GENERIC_JSON, name=b"inspect-metadata.json", group=1)
        sif.add(b"other" * 20, DataType.PARTITION, group=1, metadata=partition(PartType.SYSTEM, arch=Arch.ARM64))
        sif.add(b"over" * 500, DataType.PARTITION, group=1, metadata=partition(PartType.OVERLAY, FSType.EXT3))
        sif.add(b"last" * 200, DataType.GENERIC, name=b"last", link=2)


def edited(path: Path) -> SIF:
    """An image open for changes, later than it was made."""
    return SIF.open(path, "r+", stamp=LATER)


def content(sif: SIF) -> list[tuple[Any, ...]]:
    """What an image holds: every descriptor and its bytes, and whose image it is."""
    objects = [(descriptor, sif.read(descriptor.id)) for descriptor in sif]
    return [(sif.header.launch, sif.header.id, sif.header.created), *objects]


def assert_sound(raw: bytes) -> None:
    """Everything that holds for an image we wrote, whatever edits made it."""
    store = ObjectStore(io.BytesIO(raw))
    state = load(store)
    header, descriptors = state.header, state.descriptors
    assert header.descriptors_size == header.descriptors_total * DESCRIPTOR_BYTES == len(state.table)
    assert header.descriptors_free == header.descriptors_total - len(descriptors)
    assert header.descriptors_offset >= 128 and header.descriptors_offset + header.descriptors_size <= header.data_offset
    end = header.data_offset
    for descriptor in sorted(descriptors, key=lambda d: (d.offset, d.end)):
        assert descriptor.offset >= end, "objects overlap"
        assert descriptor.size_with_padding >= descriptor.size >= 0
        end = descriptor.end
    assert header.data_offset + header.data_size == end <= len(raw)
    ids = [descriptor.id for descriptor in descriptors]
    assert len(set(ids)) == len(ids) and 0 not in ids
    primaries = [descriptor for descriptor in descriptors if descriptor.part_type == PartType.PRIMARY_SYSTEM]
    assert len(primaries) <= 1
    assert header.arch == (primaries[0].arch if primaries else Arch.UNKNOWN)
    used = {descriptor.slot for descriptor in descriptors}
    for slot in range(header.descriptors_total):
        assert slot in used or state.slot_bytes(slot) == EMPTY_SLOT
