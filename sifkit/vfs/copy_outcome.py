"""Outcomes of a copy, one for each file or message, in the order they happen: the caller prints or counts them."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SifkitError

__all__ = ["Copied", "CopyError", "CopyOutcome", "CopyWarning"]


@dataclass(frozen=True, slots=True)
class Copied:
    """Copy that was made. ``source`` and ``target``: as messages name them; ``files``: how many names it has made."""

    source: str
    target: str
    files: int = 1


@dataclass(frozen=True, slots=True)
class CopyWarning:
    """Remark about a file that needs no copy, or about a copy."""

    text: str


class CopyError(SifkitError):
    """Error that concerns one file, which is not copied; ``kind`` is that of its cause."""

    def __init__(self, message: str, *, kind: str = "path", path: bytes | str | None = None, hint: str = "") -> None:
        super().__init__(message, path=path, hint=hint)
        self.kind = kind


CopyOutcome = Copied | CopyWarning | CopyError
