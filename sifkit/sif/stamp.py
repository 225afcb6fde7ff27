"""Stamp: the clock and the identity that go into an image. They come in from outside, so that builds can be repeated."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID, uuid4

from .format.header import NIL_UUID, YEAR_ONE

__all__ = ["Stamp"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """``seconds``: the time (Unix seconds) of everything made with it; ``uuid``: the identity of a new image."""

    seconds: int
    uuid: UUID

    @classmethod
    def now(cls) -> Stamp:
        """The present time and a random identity."""
        return cls(int(time.time()), uuid4())

    @classmethod
    def deterministic(cls) -> Stamp:
        """No identity and no time, as the reference library does it: a nil UUID and the first second of year 1.

        Later edits, by that library and by us, keep an image so.
        """
        return cls(YEAR_ONE, NIL_UUID)

    @classmethod
    def at(cls, seconds: int) -> Stamp:
        """A given date, as of SOURCE_DATE_EPOCH, and an identity that is a function of it."""
        from hashlib import sha256

        return cls(seconds, UUID(bytes=sha256(b"sifkit %d" % seconds).digest()[:16], version=4))
