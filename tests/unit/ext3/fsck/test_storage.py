"""Repair storage: what is read back, and the order of what is written."""

from __future__ import annotations

import pytest

from ext3.constants import EXT3_MAGIC, STATE_VALID
from ext3.device.base import MemoryDevice, data_ranges
from ext3.device.copy_on_write import Event, RecordingDevice
from ext3.errors import DeviceError
from ext3.format.schema import SUPERBLOCK
from ext3.fsck.storage import RepairStorage, Stage

BLOCK = 1024


def image(blocks: int = 64, *, magic: int = EXT3_MAGIC, state: int = STATE_VALID) -> MemoryDevice:
    device = MemoryDevice(bytes(BLOCK) + b"".join(bytes([number]) * BLOCK for number in range(1, blocks)))
    row = SUPERBLOCK.zeros()
    row["s_magic"], row["s_state"] = magic, state
    device.write(1024, row.tobytes())
    return device


def state_of(device: MemoryDevice) -> int:
    return int(SUPERBLOCK.record(device.read(1024, 1024))["s_state"])


def writes(events: list[Event]) -> list[tuple[int, int] | str]:
    """(first block, blocks) of each write, and the syncs."""
    return ["sync" if event.kind == "sync" else (event.offset // BLOCK, -(-event.size // BLOCK)) for event in events]


def test_changes_are_read_back_and_not_written_before_a_flush() -> None:
    device = image()
    before = bytes(device.data)
    storage = RepairStorage(device, BLOCK)
    storage.write_block(5, b"x" * BLOCK)
    storage.write(7 * BLOCK - 2, b"abcd")
    assert storage.read_block(5) == b"x" * BLOCK
    assert storage.read(4 * BLOCK, 3 * BLOCK) == bytes([4]) * BLOCK + b"x" * BLOCK + bytes([6]) * (BLOCK - 2) + b"ab"
    assert storage.read(7 * BLOCK, 3) == b"cd\7"
    assert bytes(device.data) == before
    assert storage.pending and not storage.flushed
    storage.flush(final=True)
    assert device.read(5 * BLOCK, BLOCK) == b"x" * BLOCK
    assert device.read(7 * BLOCK - 2, 4) == b"abcd"
    assert storage.flushed and not storage.pending


def test_stages_are_written_in_order_with_a_sync_after_each() -> None:
    recorded = RecordingDevice(image())
    storage = RepairStorage(recorded, BLOCK)
    storage.write_block(60, bytes(BLOCK), Stage.BACKUPS)
    storage.write_block(3, bytes(BLOCK), Stage.MAPS)
    storage.write_block(10, bytes(BLOCK), Stage.FILES)
    storage.write_block(11, bytes(BLOCK), Stage.FILES)
    storage.write_block(50, bytes(BLOCK), Stage.NEW)
    raw = bytearray(storage.read(1024, 1024))
    storage.write(1024, raw, Stage.MAPS)
    storage.flush(final=True)
    assert writes(recorded.events) == [
        (1, 1), "sync", (50, 1), "sync", (10, 2), "sync", (3, 1), "sync", (60, 1), "sync", (1, 1), "sync",
    ]  # fmt: skip


def test_the_image_is_marked_as_unchecked_before_anything_else_and_valid_last() -> None:
    device = image()
    recorded = RecordingDevice(device)
    storage = RepairStorage(recorded, BLOCK)
    storage.write_block(10, bytes(BLOCK))
    storage.write(1024, storage.read(1024, 1024))
    storage.flush(final=True)
    first = recorded.events[0]
    assert first.offset == 1024 and SUPERBLOCK.record(first.data.ljust(1024, b"\0"))["s_state"] == 0
    assert state_of(device) == STATE_VALID


def test_an_intermediate_flush_leaves_the_superblock_unchecked_and_pending() -> None:
    device = image()
    storage = RepairStorage(device, BLOCK)
    storage.write_block(10, bytes(BLOCK))
    raw = bytearray(storage.read(1024, 1024))
    SUPERBLOCK.view(raw)["s_mnt_count"] = 7
    storage.write(1024, raw)
    storage.flush(final=False)
    assert state_of(device) == 0
    assert SUPERBLOCK.record(device.read(1024, 1024))["s_mnt_count"] == 0
    assert SUPERBLOCK.record(storage.read(1024, 1024))["s_mnt_count"] == 7
    storage.flush(final=True)
    found = SUPERBLOCK.record(device.read(1024, 1024))
    assert (found["s_mnt_count"], found["s_state"]) == (7, STATE_VALID)


def test_a_superblock_without_magic_is_not_touched_before_the_end() -> None:
    device = image(magic=0)
    recorded = RecordingDevice(device)
    storage = RepairStorage(recorded, BLOCK)
    storage.write_block(10, bytes(BLOCK))
    storage.flush(final=True)
    assert writes(recorded.events) == [(10, 1), "sync"]


def test_a_block_keeps_the_earliest_stage() -> None:
    recorded = RecordingDevice(image(state=0))
    storage = RepairStorage(recorded, BLOCK)
    storage.write_block(10, bytes(BLOCK), Stage.NEW)
    storage.write_block(10, b"1" * BLOCK, Stage.FILES)
    storage.write_block(9, bytes(BLOCK), Stage.FILES)
    storage.flush(final=True)
    assert writes(recorded.events) == [(10, 1), "sync", (9, 1), "sync"]


def test_blocks_outside_of_the_image_are_refused() -> None:
    storage = RepairStorage(image(), BLOCK)
    with pytest.raises(DeviceError):
        storage.write_block(64, bytes(BLOCK))
    with pytest.raises(ValueError, match="not a block"):
        storage.write_block(3, bytes(BLOCK - 1))


class _Holes(MemoryDevice):
    """Device that knows one range of data."""

    def data_ranges(self, offset: int, size: int) -> list[tuple[int, int]]:
        return [(max(offset, 4096), min(offset + size, 8192) - max(offset, 4096))] if offset < 8192 else []


@pytest.mark.parametrize(
    ("changed", "want"),
    [
        ([], [(4096, 4096)]),
        ([6], [(4096, 4096)]),
        ([20], [(4096, 4096), (20 * BLOCK, BLOCK)]),
        ([3, 8, 9], [(3 * BLOCK, 7 * BLOCK)]),
        ([0, 60], [(0, BLOCK), (4096, 4096), (60 * BLOCK, BLOCK)]),
    ],
)
def test_data_ranges_include_changed_blocks(changed: list[int], want: list[tuple[int, int]]) -> None:
    storage = RepairStorage(_Holes(64 * BLOCK), BLOCK)
    for block in changed:
        storage.write_block(block, b"x" * BLOCK)
    assert list(data_ranges(storage, 0, 64 * BLOCK)) == want
