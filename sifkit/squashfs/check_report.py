"""Problems that a check finds, as values, and where they are reported."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from .errors import CorruptSquashfsError, TruncatedSquashfsError

__all__ = ["CheckReport", "Severity", "SquashfsProblem", "SquashfsProblemCode"]

Severity = Literal["error", "warning"]
"""error: something cannot be read; warning: invalid, but what reads the image does not look at it."""


class SquashfsProblemCode(StrEnum):
    """Kind of a problem. The words are stable, for programs."""

    TRUNCATED = "truncated"
    UNREADABLE = "unreadable"
    """The host cannot read a part of the image."""
    OPTIONS = "compressor-options"
    METADATA = "metadata"
    """A metadata block does not decompress, or has another length."""
    TABLE = "table"
    INODE = "inode"
    DIRECTORY = "directory"
    LINKS = "links"
    UNREACHABLE = "unreachable"
    EXPORTS = "export-table"
    XATTRS = "attributes"
    FRAGMENT = "fragment"
    DATA = "data"
    OVERLAP = "overlap"
    """Blocks share bytes without being the same."""


@dataclass(frozen=True, slots=True)
class SquashfsProblem:
    """One problem. ``text``: one line, without the path. ``path``: of the file concerned, where one is known. ``offset``: the
    byte of the image, if it is at a place."""

    code: SquashfsProblemCode
    text: str
    path: bytes | None = None
    offset: int | None = None
    severity: Severity = "error"


class CheckReport:
    """Receiver of problems and of progress. Calls may come from several threads; its callbacks are called one at a time."""

    def __init__(self, on_problem: Callable[[SquashfsProblem], None], progress: Callable[[int], None]) -> None:
        self.errors = 0
        self.warnings = 0
        self._on_problem = on_problem
        self._progress = progress
        self._lock = threading.Lock()

    def add(self, problem: SquashfsProblem) -> None:
        """Report a problem."""
        with self._lock:
            if problem.severity == "error":
                self.errors += 1
            else:
                self.warnings += 1
            self._on_problem(problem)

    def add_error(self, code: SquashfsProblemCode, error: OSError, *, path: bytes | None = None, prefix: str = "") -> None:
        """Report an error that reading raised."""
        offset = None
        if isinstance(error, TruncatedSquashfsError):
            code = SquashfsProblemCode.TRUNCATED
        elif not isinstance(error, CorruptSquashfsError):
            code = SquashfsProblemCode.UNREADABLE
        if isinstance(error, CorruptSquashfsError):
            offset = error.offset
        text = getattr(error, "message", None) or error.strerror or str(error)
        self.add(SquashfsProblem(code, prefix + text, path, offset))

    def advance(self, count: int) -> None:
        """Report that further bytes of the image were read."""
        with self._lock:
            self._progress(count)
