"""Devices on top of another: one keeps writes in memory, one records them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import DeviceError
from .base import BlockDevice, ResizableDevice, data_ranges

__all__ = ["CopyOnWriteDevice", "Event", "RecordingDevice", "play"]

PAGE = 4096


class CopyOnWriteDevice:
    """Device whose writes stay in memory, in pages; ``device`` below never changes, nor does its size."""

    def __init__(self, device: BlockDevice) -> None:
        self.device = device
        self.pages: dict[int, bytearray] = {}
        self._size = device.size
        self._below = device.size
        """Bytes of ``device`` that can be seen; what lies behind them is zero, or in ``pages``."""

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        self._check(offset, size, "read")
        data = self._read_below(offset, size)
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

    def _check(self, offset: int, size: int, what: str) -> None:
        if offset < 0 or size < 0 or offset + size > self._size:
            raise DeviceError(f"{what} of {size} bytes at byte {offset} leaves the {self._size} bytes of the image")

    def _read_below(self, offset: int, size: int) -> bytes:
        there = min(size, max(0, self._below - offset))
        data = self.device.read(offset, there) if there else b""
        return data if there == size else data + bytes(size - there)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._check(offset, len(data), "write")
        view = memoryview(data)
        while view:
            number, start = divmod(offset, PAGE)
            page = self.pages.get(number)
            if page is None:
                length = min(PAGE, self.size - number * PAGE)
                page = self.pages[number] = bytearray(self._read_below(number * PAGE, length))
            count = min(len(view), PAGE - start)
            page[start : start + count] = view[:count]
            offset += count
            view = view[count:]

    def make_zero(self, offset: int, size: int) -> None:
        self._check(offset, size, "zeroing")
        while size:
            number, start = divmod(offset, PAGE)
            if offset >= self._below and number not in self.pages:
                part = PAGE - start  # zero already
            else:
                part = min(size, PAGE - start)
                self.write(offset, bytes(part))
            part = min(part, size)
            offset += part
            size -= part

    def data_ranges(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, size) of the parts of a range that hold data, ascending; gaps read as zero."""
        self._check(offset, size, "looking for data")
        end, there = offset + size, min(size, max(0, self._below - offset))
        parts = [*data_ranges(self.device, offset, there)] if there else []
        for number, page in self.pages.items():
            low, high = max(offset, number * PAGE), min(end, number * PAGE + len(page))
            if low < high:
                parts.append((low, high - low))
        last = -1
        low = offset
        for start, length in sorted(parts):
            if start > last:
                if last >= 0:
                    yield low, last - low
                low = start
            last = max(last, start + length)
        if last >= 0:
            yield low, last - low

    def set_size(self, size: int) -> None:
        if size < 0:
            raise DeviceError(f"a device of {size} bytes")
        self._size, self._below = size, min(self._below, size)
        last = size // PAGE
        for number in [number for number in self.pages if number >= last]:
            page = self.pages[number]
            length = min(PAGE, max(0, size - number * PAGE))
            del page[length:]
            if not page:
                del self.pages[number]
        for number, page in self.pages.items():
            page.extend(bytes(min(PAGE, size - number * PAGE) - len(page)))

    def sync(self) -> None:
        """Do nothing: writes do not outlive the process."""


@dataclass(frozen=True, slots=True)
class Event:
    """Recorded operation: ``kind`` is "write", "zero" (``size`` bytes at ``offset``), "size" (the device has ``size`` bytes
    from here on) or "sync"."""

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

    def data_ranges(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, size) of the parts of a range that hold data, ascending; gaps read as zero."""
        return data_ranges(self.device, offset, size)

    def set_size(self, size: int) -> None:
        if not isinstance(self.device, ResizableDevice):
            raise DeviceError("the device cannot change its size")
        self.device.set_size(size)
        self.events.append(Event("size", 0, size))

    def sync(self) -> None:
        self.device.sync()
        self.events.append(Event("sync"))


def play(before: BlockDevice, events: Iterable[Event], *, torn: Sequence[int] = ()) -> CopyOnWriteDevice:
    """Return ``before`` with ``events`` applied, the last write cut to the 512-byte sectors ``torn``."""
    device = CopyOnWriteDevice(before)
    pending = [event for event in events if event.kind != "sync"]
    for number, event in enumerate(pending):
        if event.kind == "size":
            device.set_size(event.size)
        elif event.kind == "zero":
            device.make_zero(event.offset, event.size)
        elif torn and number == len(pending) - 1:
            for sector in torn:
                device.write(event.offset + sector * 512, event.data[sector * 512 : sector * 512 + 512])
        else:
            device.write(event.offset, event.data)
    return device
