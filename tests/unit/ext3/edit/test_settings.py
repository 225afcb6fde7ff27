"""Label, UUID and reserved blocks: in the superblock and its copies, in one transaction."""

from __future__ import annotations

from uuid import UUID

import pytest

import ext3
from ext3.constants import SUPERBLOCK_OFFSET
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.format.schema import SUPERBLOCK
from ext3.format.superblock import read_superblock

from ....support.sessions import clock

IDENTITY = UUID("01234567-89ab-cdef-0123-456789abcdef")
Settings = tuple[bytes, UUID, int]


def image(**options: int) -> MemoryDevice:
    device = MemoryDevice(48 << 20)
    ext3.mkfs(device, device.size, label=b"old", block_size=1024, **options)
    return device


def settings_of(device: ext3.BlockDevice) -> list[Settings]:
    """The settings in the superblock, and in each copy."""
    geometry = read_superblock(device).geometry
    places = [SUPERBLOCK_OFFSET, *(geometry.first_block(group) * 1024 for group in geometry.backup_groups)]
    rows = [SUPERBLOCK.view(device.read(place, 1024))[0] for place in places]
    return [
        (bytes(row["s_volume_name"]).rstrip(b"\0"), UUID(bytes=bytes(row["s_uuid"])), int(row["s_r_blocks_count"]))
        for row in rows
    ]


def test_copies_have_the_same() -> None:
    device = image(reserved_blocks=1)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.change_settings(label=b"new", uuid=IDENTITY, reserved_blocks=77)
        assert (fs.superblock.label, fs.superblock.uuid, fs.superblock.reserved_blocks) == (b"new", IDENTITY, 77)
    assert settings_of(device) == [(b"new", IDENTITY, 77)] * 4
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.change_settings(label=b"")
    assert settings_of(device) == [(b"", IDENTITY, 77)] * 4


def test_what_is_none_stays_and_nothing_is_written_for_nothing() -> None:
    device = image(reserved_blocks=5)
    before = bytes(device.data)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.change_settings()
        fs.change_settings(label=b"old", reserved_blocks=5)
    assert bytes(device.data) == before


@pytest.mark.parametrize("wrong", [{"label": b"x" * 17}, {"reserved_blocks": -1}, {"reserved_blocks": 24 * 1024 + 1}])
def test_impossible_settings(wrong: dict[str, bytes | int]) -> None:
    device = image()
    before = bytes(device.data)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs, pytest.raises(ext3.GeometryError):
        fs.change_settings(**wrong)  # type: ignore[arg-type]
    assert bytes(device.data) == before


def test_a_damaged_copy_is_left_alone() -> None:
    device = image()
    device.write(8193 * 1024, bytes(1024))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.change_settings(uuid=IDENTITY)
    assert device.read(8193 * 1024, 1024) == bytes(1024)
    assert [found[1] for found in settings_of(device)] == [IDENTITY, UUID(int=0), IDENTITY, IDENTITY]


def test_taken_back() -> None:
    device = image()
    before = settings_of(device)
    with pytest.raises(KeyError), ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.change_settings(label=b"new", uuid=IDENTITY)
        raise KeyError
    assert settings_of(device) == before


def test_a_crash_leaves_the_old_settings_or_the_new_ones_everywhere() -> None:
    device = image()
    before, original = settings_of(device), MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        fs.change_settings(label=b"new", uuid=IDENTITY)
    after = settings_of(device)
    seen = set()
    for end in range(len(recorded.events) + 1):
        left = play(original, recorded.events[:end])
        ext3.Filesystem.open(left, "r+", clock=clock).close()
        found = settings_of(left)
        assert found in (before, after)
        seen.add(found == after)
    assert seen == {False, True}
