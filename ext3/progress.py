"""How a long build tells that it goes on."""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Told how far the work is. ``total`` None: not known."""

    def phase(self, name: str, total: int | None, unit: Literal["files", "bytes"]) -> None: ...

    def advance(self, count: int) -> None: ...

    def done(self) -> None: ...


class Silent:
    """Tells nobody."""

    def phase(self, name: str, total: int | None, unit: Literal["files", "bytes"]) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def done(self) -> None:
        pass
