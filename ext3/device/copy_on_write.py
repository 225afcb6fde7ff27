"""Devices on top of another: one keeps writes in memory, one records them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import DeviceError
from .base import BlockDevice

__all__ = ["CopyOnWriteDevice", "Event", "RecordingDevice", "play"]

PAGE = 4096


class CopyOnWriteDevice:
    """Device whose writes stay in memory, in pages; ``device`` below never changes."""

    def __init__(self, device: BlockDevice) -> None:
        self.device = device
        self.pages: dict[int, bytearray] = {}

    @property
    def size(self) -> int:
        return self.device.size

    def read(self, offset: int, size: int) -> bytes:
        data = self.device.read(offset, size)
        first, last = offset // PAGE, (offset + max(1, size) - 1) // PAGE
        pages = range(first, last + 1) if last - first < len(self.pages) else sorted(self.pages)
        changed: bytearray | None = None
        for number in pages:
            page = self.pages.get(number)
            if page is None or not first <= number <= last:
                continue
            changed = bytearray(data) if changed is None else changed
            start = max(offset, number * PAGE)
            end = min(offset + size, number * PAGE + len(page))
            changed[start - offset : end - offset] = page[start - number * PAGE : end - number * PAGE]
        return data if changed is None else bytes(changed)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if offset < 0 or offset + len(data) > self.size:
            raise DeviceError(f"write of {len(data)} bytes at byte {offset} leaves the {self.size} bytes of the image")
        view = memoryview(data)
        while view:
            number, start = divmod(offset, PAGE)
            page = self.pages.get(number)
            if page is None:
                length = min(PAGE, self.size - number * PAGE)
                page = self.pages[number] = bytearray(self.device.read(number * PAGE, length))
            count = min(len(view), PAGE - start)
            page[start : start + count] = view[:count]
            offset += count
            view = view[count:]

    def make_zero(self, offset: int, size: int) -> None:
        for start in range(offset, offset + size, 1 << 20):
            self.write(start, bytes(min(1 << 20, offset + size - start)))

    def sync(self) -> None:
        """Do nothing: writes do not outlive the process."""


@dataclass(frozen=True, slots=True)
class Event:
    """Recorded operation: ``kind`` is "write", "zero" (``size`` bytes at ``offset``) or "sync"."""

    kind: str
    offset: int = 0
    size: int = 0
    data: bytes = b""


class RecordingDevice:
    """Device that passes everything on to ``device`` and records changes and syncs in ``events``, in order."""

    def __init__(self, device: BlockDevice) -> None:
        self.device = device
        self.events: list[Event] = []

    @property
    def size(self) -> int:
        return self.device.size

    def read(self, offset: int, size: int) -> bytes:
        return self.device.read(offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.device.write(offset, data)
        self.events.append(Event("write", offset, len(data), bytes(data)))

    def make_zero(self, offset: int, size: int) -> None:
        self.device.make_zero(offset, size)
        self.events.append(Event("zero", offset, size))

    def sync(self) -> None:
        self.device.sync()
        self.events.append(Event("sync"))


def play(before: BlockDevice, events: Iterable[Event], *, torn: Sequence[int] = ()) -> CopyOnWriteDevice:
    """Return ``before`` with ``events`` applied, the last write cut to the 512-byte sectors ``torn``."""
    device = CopyOnWriteDevice(before)
    pending = [event for event in events if event.kind != "sync"]
    for number, event in enumerate(pending):
        if event.kind == "zero":
            device.make_zero(event.offset, event.size)
        elif torn and number == len(pending) - 1:
            for sector in torn:
                device.write(event.offset + sector * 512, event.data[sector * 512 : sector * 512 + 512])
        else:
            device.write(event.offset, event.data)
    return device
