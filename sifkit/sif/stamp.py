"""Time and ID that are written into an image, passed in by the caller so that builds are reproducible."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID, uuid4

from .format.header import YEAR_ONE

__all__ = ["NIL_UUID", "SIFStamp"]

NIL_UUID = UUID(int=0)
"""No ID."""


@dataclass(frozen=True, slots=True)
class SIFStamp:
    """Time in Unix seconds of everything written with it, and ``uuid``, the ID of a new image."""

    seconds: int
    uuid: UUID

    @classmethod
    def now(cls) -> SIFStamp:
        """Return the present time and a random ID."""
        return cls(int(time.time()), uuid4())

    @classmethod
    def deterministic(cls) -> SIFStamp:
        """Return no time and no ID, as the reference library writes them: the first second of year 1 and a nil UUID.

        Later edits keep an image so.
        """
        return cls(YEAR_ONE, NIL_UUID)

    @classmethod
    def at(cls, seconds: int) -> SIFStamp:
        """Return a given time, as of SOURCE_DATE_EPOCH, and an ID derived from it."""
        from hashlib import sha256

        return cls(seconds, UUID(bytes=sha256(b"sifkit %d" % seconds).digest()[:16], version=4))
