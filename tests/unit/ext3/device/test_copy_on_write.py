"""Devices on top of others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import CopyOnWriteDevice, Event, RecordingDevice, play
from ext3.errors import DeviceError

SIZE = 20_000


@given(st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, 9000), st.integers(1, 255), st.booleans()), max_size=12))
def test_cow_reads_what_was_written(writes: list[tuple[int, int, int, bool]]) -> None:
    under = MemoryDevice(b"\xee" * SIZE)
    expected = bytearray(under.data)
    device = CopyOnWriteDevice(under)
    for offset, wanted, fill, zero in writes:
        size = min(wanted, SIZE - offset)
        if zero:
            device.make_zero(offset, size)
        else:
            device.write(offset, bytes((fill,)) * size)
        expected[offset : offset + size] = bytes((0 if zero else fill,)) * size
        assert device.read(offset, size) == expected[offset : offset + size]
    assert device.read(0, SIZE) == expected
    assert device.read(5, 10_000) == expected[5:10_005]
    assert under.data == b"\xee" * SIZE


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["write", "zero", "size"]), st.integers(0, 2 * SIZE), st.integers(0, 9000), st.integers(1, 255)
        ),
        max_size=12,
    )
)
def test_cow_changes_its_size(steps: list[tuple[str, int, int, int]]) -> None:
    """As the same steps change a device in memory; what is added reads as zero, whatever was there before."""
    under = MemoryDevice(b"\xee" * SIZE)
    expected = MemoryDevice(under.data)
    recorded = RecordingDevice(CopyOnWriteDevice(under))
    for kind, number, wanted, fill in steps:
        offset = min(number, expected.size)
        size = min(wanted, expected.size - offset)
        for device in (expected, recorded):
            if kind == "size":
                device.set_size(number)
            elif kind == "zero":
                device.make_zero(offset, size)
            else:
                device.write(offset, bytes((fill,)) * size)
        assert recorded.size == expected.size
        assert recorded.read(0, recorded.size) == expected.data
    played = play(under, recorded.events)
    assert played.size == expected.size
    assert played.read(0, played.size) == expected.data
    holes = bytearray(played.size)
    for offset, size in played.data_ranges(0, played.size):
        holes[offset : offset + size] = expected.data[offset : offset + size]
    assert holes == expected.data
    assert under.data == b"\xee" * SIZE


def test_cow_keeps_its_bounds() -> None:
    device = CopyOnWriteDevice(MemoryDevice(SIZE))
    with pytest.raises(DeviceError):
        device.write(SIZE - 1, b"ab")
    with pytest.raises(DeviceError):
        device.read(SIZE, 1)


def test_recorded_and_played() -> None:
    before = MemoryDevice(4096)
    device = RecordingDevice(MemoryDevice(4096))
    device.write(10, b"abc")
    device.sync()
    device.make_zero(11, 1)
    device.write(1024, b"x" * 1024)
    assert device.events == [
        Event("write", 10, 3, b"abc"),
        Event("sync"),
        Event("zero", 11, 1),
        Event("write", 1024, 1024, b"x" * 1024),
    ]
    assert play(before, device.events).read(0, 4096) == device.read(0, 4096)
    torn = play(before, device.events, torn=[1])
    assert torn.read(1024, 1024) == bytes(512) + b"x" * 512
    assert before.data == bytes(4096)
    with pytest.raises(DeviceError):
        device.write(4095, b"ab")
    assert len(device.events) == 4
