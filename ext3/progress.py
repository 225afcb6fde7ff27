"""Progress reports of long operations."""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Receiver of progress reports. ``total`` None: unknown."""

    def phase(self, name: str, total: int | None, unit: Literal["files", "bytes"]) -> None: ...

    def advance(self, count: int) -> None: ...

    def done(self) -> None: ...


class Silent:
    """Progress that ignores all reports."""

    def phase(self, name: str, total: int | None, unit: Literal["files", "bytes"]) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def done(self) -> None:
        pass
