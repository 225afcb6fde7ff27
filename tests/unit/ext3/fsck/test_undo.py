"""Undo of a change: the image comes back byte for byte, also after a kill; an image that others changed is kept."""

from __future__ import annotations

import random

import pytest

from ext3.constants import STATE_VALID
from ext3.device.base import BlockDevice, MemoryDevice
from ext3.device.copy_on_write import Event, RecordingDevice, play
from ext3.errors import DeviceError, UndoError
from ext3.format.schema import SUPERBLOCK
from ext3.format.superblock import read_superblock
from ext3.fsck.undo import UndoRecorder, put_back
from ext3.fsck.undo_schema import UNDO_HEADER, UNDO_RECORD

from ....support.sessions import empty_image

SIZE = 2 << 20


class Sink:
    """Undo file in memory. ``synced``: how many bytes of it are on storage; ``room``: bytes that fit."""

    def __init__(self, events: list[Event] | None = None, room: int = 1 << 30) -> None:
        self.data = bytearray()
        self.synced = 0
        self.room = room
        self.lengths: list[int] = []
        """Length of what is synced at each event of the image."""
        self._events = events

    def append(self, data: bytes) -> None:
        if len(self.data) + len(data) > self.room:
            raise DeviceError("full")
        self.data += data

    def sync(self) -> None:
        self.synced = len(self.data)

    def device(self, length: int | None = None) -> MemoryDevice:
        return MemoryDevice(self.data[:length])


def set_fields(device: BlockDevice, **fields: int) -> None:
    raw = bytearray(device.read(1024, 1024))
    row = SUPERBLOCK.view(raw)[0]
    for name, value in fields.items():
        row[name] = value
    device.write(1024, raw)


def change(device: BlockDevice) -> None:
    """Writes of many kinds, as a check makes them: parts of blocks, runs, the same block twice, zeros."""
    set_fields(device, s_state=0, s_wtime=77)
    device.sync()
    device.write(300_000, b"new" * 5000)
    device.write(5000, b"x")
    device.sync()
    device.write(300_500, b"again" * 10)
    device.make_zero(400_001, 50_000)
    device.sync()
    set_fields(device, s_state=STATE_VALID, s_wtime=78, s_mnt_count=0)
    device.sync()


@pytest.fixture
def image() -> MemoryDevice:
    device = empty_image(SIZE)
    generator = random.Random(1)
    for block in range(200, 600, 3):
        device.write(block * 1024, generator.randbytes(1024))
    set_fields(device, s_mnt_count=5)
    return device


def changed(image: MemoryDevice) -> tuple[bytes, MemoryDevice, Sink]:
    """(bytes before, image after, undo file)."""
    before = bytes(image.data)
    sink = Sink()
    recorder = UndoRecorder(image, sink, made=1000)
    change(recorder)
    recorder.finish()
    return before, image, sink


def test_the_image_comes_back(image: MemoryDevice) -> None:
    before, after, sink = changed(image)
    assert bytes(after.data) != before
    done = put_back(sink.device(), after)
    assert bytes(after.data) == before
    assert (done.complete, done.made) == (True, 1000)
    assert done.blocks > 30 and done.bytes == done.blocks * 1024


def test_the_change_is_the_same_as_without(image: MemoryDevice) -> None:
    other = MemoryDevice(image.data)
    change(other)
    _, after, _ = changed(image)
    assert after.data == other.data


def test_reads_see_what_is_held_back(image: MemoryDevice) -> None:
    before = bytes(image.data)
    recorder = UndoRecorder(image, Sink(), made=0)
    recorder.write(5000, b"held")
    assert recorder.read(4990, 20) == before[4990:5000] + b"held" + before[5004:5010]
    assert bytes(image.data) == before
    recorder.sync()
    assert image.read(5000, 4) == b"held"


def test_an_image_that_is_not_changed_has_no_undo_file(image: MemoryDevice) -> None:
    sink = Sink()
    recorder = UndoRecorder(image, sink, made=0)
    recorder.sync()
    recorder.finish()
    assert not sink.data


def test_blocks_of_zeros_take_no_space(image: MemoryDevice) -> None:
    sink = Sink()
    image.data[700_000:1_700_000] = bytes(1_000_000)
    recorder = UndoRecorder(image, sink, made=0)
    recorder.write(700_416, b"y" * 999_000)
    recorder.finish()
    assert len(sink.data) < 30_000
    put_back(sink.device(), image)
    assert not any(image.data[700_000:1_700_000])


def test_an_image_that_ends_in_a_part_of_a_block(image: MemoryDevice) -> None:
    odd = MemoryDevice(image.data + b"tail" * 25)
    before = bytes(odd.data)
    sink = Sink()
    recorder = UndoRecorder(odd, sink, made=0)
    recorder.write(len(before) - 150, b"w" * 150)
    recorder.finish()
    assert odd.data[-150:] == b"w" * 150
    put_back(sink.device(), odd)
    assert bytes(odd.data) == before
    with pytest.raises(DeviceError):
        recorder.write(len(before) - 10, b"v" * 11)


def test_undo_twice_does_nothing_more(image: MemoryDevice) -> None:
    before, after, sink = changed(image)
    log = sink.device()
    put_back(log, after)
    assert put_back(log, after).blocks == 0
    assert bytes(after.data) == before


class Killed(Exception):
    pass


class StopsAt:
    """Device that raises Killed instead of its Nth change, with a part of that written."""

    def __init__(self, device: BlockDevice, number: int, *, torn: bool = False) -> None:
        self.device, self.left, self.torn = device, number, torn

    @property
    def size(self) -> int:
        return self.device.size

    def read(self, offset: int, size: int) -> bytes:
        return self.device.read(offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if not self.left:
            if self.torn:
                self.device.write(offset, bytes(data)[: len(data) // 2])
            raise Killed
        self.left -= 1
        self.device.write(offset, data)

    def make_zero(self, offset: int, size: int) -> None:
        self.write(offset, bytes(size))

    def sync(self) -> None:
        self.device.sync()


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("number", range(8))
def test_a_change_that_was_killed_is_undone(image: MemoryDevice, number: int, torn: bool) -> None:
    before, sink = bytes(image.data), Sink()
    recorder = UndoRecorder(StopsAt(image, number, torn=torn), sink, made=0)
    try:
        change(recorder)
        recorder.finish()
    except Killed:
        assert not number or bytes(image.data) != before
    else:
        assert number > 6
    # What was appended and not synced may be lost, in part too.
    for length in {sink.synced, (sink.synced + len(sink.data)) // 2, len(sink.data)}:
        left = MemoryDevice(image.data)
        put_back(sink.device(length), left)
        assert bytes(left.data) == before


@pytest.mark.parametrize("torn", [False, True])
def test_an_undo_that_was_killed_is_done_again(image: MemoryDevice, torn: bool) -> None:
    before, after, sink = changed(image)
    tried = 0
    for number in range(50):
        log, left = sink.device(), MemoryDevice(after.data)
        try:
            put_back(log, StopsAt(left, number, torn=torn))
            break
        except Killed:
            tried += 1
        if bytes(left.data) != before:
            assert not read_superblock(left).state & STATE_VALID or not number
        put_back(log, left)
        assert bytes(left.data) == before
    assert tried > 3


def test_an_image_without_a_superblock_is_put_back(image: MemoryDevice) -> None:
    image.data[1024:2048] = bytes(1024)
    before, after, sink = changed(image)
    put_back(sink.device(), after)
    assert bytes(after.data) == before


@pytest.mark.parametrize("where", [300_000, 5000, 401_000, 450_000])
def test_an_image_that_was_written_to_is_kept(image: MemoryDevice, where: int) -> None:
    _, after, sink = changed(image)
    after.write(where, b"\xff")
    kept = bytes(after.data)
    with pytest.raises(UndoError, match="changed since: block"):
        put_back(sink.device(), after)
    assert bytes(after.data) == kept


@pytest.mark.parametrize("field", ["s_mtime", "s_wtime", "s_mnt_count", "s_lastcheck"])
@pytest.mark.parametrize("complete", [True, False])
def test_an_image_that_was_mounted_is_kept(image: MemoryDevice, field: str, complete: bool) -> None:
    _, after, sink = changed(image)
    set_fields(after, **{field: 123_456 if field != "s_mnt_count" else 44})
    kept = bytes(after.data)
    with pytest.raises(UndoError, match="mounted, checked or changed"):
        put_back(sink.device(None if complete else len(sink.data) - UNDO_RECORD.size), after)
    assert bytes(after.data) == kept


def test_another_image_is_kept(image: MemoryDevice) -> None:
    _, after, sink = changed(image)
    raw = bytearray(after.read(1024, 1024))
    SUPERBLOCK.view(raw)[0]["s_uuid"] = bytes(range(16))
    after.write(1024, raw)
    with pytest.raises(UndoError, match=r"with UUID 75757575.*, and this one has 00010203-0405"):
        put_back(sink.device(), after)
    with pytest.raises(UndoError, match=f"image of {SIZE} bytes, and this one has {SIZE + 512}"):
        put_back(sink.device(), MemoryDevice(after.data + bytes(512)))


def test_what_is_no_undo_file_is_refused(image: MemoryDevice) -> None:
    _, after, sink = changed(image)
    kept = bytes(after.data)
    for damaged, says in (
        (b"", "not an undo file"),
        (b"x" * 5000, "not an undo file"),
        (sink.data[: UNDO_HEADER.size], "does not say"),
        (sink.data[:9] + b"\x07" + sink.data[10:], "version"),
        (sink.data[:20] + b"\x07" + sink.data[21:], "header is damaged"),
    ):
        with pytest.raises(UndoError, match=says):
            put_back(MemoryDevice(bytes(damaged)), after)
    assert bytes(after.data) == kept


def test_a_damaged_undo_file_never_harms(image: MemoryDevice) -> None:
    """It ends where it is damaged: what follows is as if it had not been written, and the image is refused or comes back."""
    before, after, sink = changed(image)
    generator = random.Random(5)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(sink.data)
        at = generator.randrange(len(damaged))
        damaged[at] ^= 1 << generator.randrange(8)
        left = MemoryDevice(after.data)
        try:
            put_back(MemoryDevice(damaged), left)
        except UndoError:
            assert left.data == after.data
            outcomes.add("refused")
        else:
            outcomes.add("back")
            assert bytes(left.data) == before or at >= len(sink.data) - 4096
    assert "refused" in outcomes


def test_nothing_is_overwritten_that_could_not_be_saved(image: MemoryDevice) -> None:
    before = bytes(image.data)
    recorder = UndoRecorder(image, Sink(room=4000), made=0)
    recorder.write(300_000, b"n" * 20_000)
    with pytest.raises(DeviceError, match="full"):
        recorder.sync()
    assert bytes(image.data) == before
    with pytest.raises(DeviceError, match="could not be written"):
        recorder.sync()
    assert bytes(image.data) == before


def test_what_is_overwritten_is_on_storage_before() -> None:
    """Whatever of the image is written by then, the synced part of the undo file takes it back."""
    image = empty_image(SIZE)
    before = bytes(image.data)
    sink = Sink()
    lengths = []

    class Watch(RecordingDevice):
        def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
            lengths.append(sink.synced)
            super().write(offset, data)

        def make_zero(self, offset: int, size: int) -> None:
            lengths.append(sink.synced)
            super().make_zero(offset, size)

    recording = Watch(image)
    recorder = UndoRecorder(recording, sink, made=0)
    change(recorder)
    recorder.finish()
    writes = [event for event in recording.events if event.kind != "sync"]
    assert len(writes) == len(lengths) > 4
    for number, length in enumerate(lengths):
        left = play(MemoryDevice(before), writes[: number + 1])
        put_back(sink.device(length), left)
        assert left.read(0, left.size) == before


def test_many_writes_do_not_fill_memory(image: MemoryDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ext3.fsck.undo.HELD_BYTES", 20_000)
    before, sink = bytes(image.data), Sink()
    recorder = UndoRecorder(image, sink, made=0)
    for block in range(300, 400):
        recorder.write(block * 1024, b"%08d" % block * 128)
        assert len(recorder._held) <= 20
    recorder.finish()
    put_back(sink.device(), image)
    assert bytes(image.data) == before
