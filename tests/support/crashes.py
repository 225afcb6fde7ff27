"""Crashes of an image under edit: what was written is recorded, and every image is made that an interruption could leave.

What was synced is there. Of what was written since, anything may be there, in any order; the last write may be there in part,
whole sectors of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from ext3.device.base import BlockDevice, MemoryDevice
from ext3.device.copy_on_write import CopyOnWriteDevice, Event, play

__all__ = ["Recording", "content_of", "key_of"]

SECTOR = 512
State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Recording(Generic[State]):
    """``states``: what the image held at first and after each edit; ``syncs``: (events, edits) that had happened when a sync
    was over, (0, 0) at first."""

    before: bytes
    events: list[Event]
    states: list[State]
    syncs: list[tuple[int, int]]

    def cuts(self, seed: int) -> Iterator[tuple[int, CopyOnWriteDevice]]:
        """(events that surely happened, what is left): cut after every event, and with the last write torn or the rest
        since the last sync lost in part.

        What is left before a sync is left after it too; it comes once, with the sync among the events.
        """
        generator = random.Random(seed)
        before, events = MemoryDevice(self.before), self.events
        for end in range(len(events) + 1):
            if end == len(events) or events[end].kind != "sync":
                yield end, play(before, events[:end])
            if not end or events[end - 1].kind != "write":
                continue
            sectors = events[end - 1].size // SECTOR
            last_sync = max((n + 1 for n in range(end) if events[n].kind == "sync"), default=0)
            loose = events[last_sync:end]
            if sectors > 1 and (len(loose) == 1 or generator.random() < 0.5):
                torn = sorted(generator.sample(range(sectors), generator.randrange(1, sectors)))
                yield end - 1, play(before, events[:end], torn=torn)
            elif len(loose) > 1:
                kept = [event for event in loose if generator.random() < 0.5]
                generator.shuffle(kept)
                yield last_sync, play(before, [*events[:last_sync], *kept])

    def allowed(self, happened: int) -> list[State]:
        """What may be found when ``happened`` events are on storage: nothing before the last sync, nothing after the next.

        Edits between two syncs may be found one by one: the journal may have been full.
        """
        last = max(number for number, (events, _) in enumerate(self.syncs) if events <= happened)
        end = self.syncs[min(last + 1, len(self.syncs) - 1)][1]
        return self.states[self.syncs[last][1] : end + 1]


def content_of(device: BlockDevice) -> bytes:
    """All bytes of an image."""
    return device.read(0, device.size)


def key_of(left: CopyOnWriteDevice) -> int:
    """A number that is the same for images with the same bytes written."""
    return hash(tuple(sorted((number, bytes(page)) for number, page in left.pages.items())))
