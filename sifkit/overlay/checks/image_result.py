"""Result of the check of an image: whether it is good, what is wrong, what was checked. Values. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...errors import counted, human

__all__ = ["DigestResult", "ImageKind", "ImageProblem", "ImageResult", "PartResult", "Severity"]

ImageKind = Literal["sif", "squashfs", "ext3"]
Severity = Literal["error", "warning"]
"""error: the image is bad; warning: it contradicts its format, and every reader tolerates that."""
KEPT_PROBLEMS = 1000
"""Problems of an image that are kept; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class ImageProblem:
    """Problem of an image. ``code``: a stable word; ``id``: the object of a SIF, None for the whole; ``path``: in the tree."""

    code: str
    text: str
    severity: Severity = "error"
    id: int | None = None
    path: bytes | None = None


@dataclass(slots=True)
class PartResult:
    """Filesystem in an image. ``id``: of its partition in a SIF; ``role``: root, overlay or partition there, else "".

    ``detail``: compressor of a squashfs; ``inodes``: in use, None if they could not be counted; ``skipped``: why it was not
    checked, "" if it was.
    """

    kind: str
    id: int | None = None
    role: str = ""
    detail: str = ""
    inodes: int | None = None
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class DigestResult:
    """SHA-256 of a file as hexadecimal text: as listed (None: it is not in the list), and as computed ("": not readable)."""

    want: str | None
    got: str

    @property
    def matches(self) -> bool:
        return self.want == self.got


@dataclass(slots=True)
class ImageResult:
    """Result for one file. ``kind`` None: it is no image. ``missing_bytes``: of a truncated image, at least so many.

    ``signatures``: signature objects, which are not checked. ``notes``: what to know of the result, a line each.
    """

    path: str
    kind: ImageKind | None = None
    size_bytes: int = 0
    problems: list[ImageProblem] = field(default_factory=list)
    errors: int = 0
    warnings: int = 0
    missing_bytes: int | None = None
    parts: list[PartResult] = field(default_factory=list)
    signatures: int = 0
    digest: DigestResult | None = None
    in_use: bool = False
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return not self.errors

    def add(self, problem: ImageProblem) -> None:
        """Add a problem, or only count it if there are many."""
        if problem.severity == "error":
            self.errors += 1
        else:
            self.warnings += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(problem)

    def add_truncation(self, needed: int, available: int, *, at_least: bool = False, id: int | None = None) -> None:
        """Add the problem of an image, or object, that has ``needed`` bytes and ends after ``available``."""
        missing = needed - available
        self.missing_bytes = max(missing, self.missing_bytes or 0)
        what = "" if id is None else f"object {id} is "
        least = "at least " if at_least else ""
        text = f"{what}truncated: {least}{_exact(missing)} of {least}{_exact(needed)} are missing"
        self.add(ImageProblem("truncated", text, id=id))


def _exact(size: int) -> str:
    """Format a size that a person compares: in bytes, and from 1 KiB on in larger units too."""
    return counted(size, "byte") if size < 1024 else f"{human(size)} ({counted(size, 'byte')})"
