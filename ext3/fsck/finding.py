"""Findings of a check, and the report that collects them. Values, never exceptions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import show
from .problem import Place, Problem

__all__ = ["Finding", "Report"]

KEPT_FINDINGS = 100_000
"""Findings a report keeps; further ones are only counted."""


@dataclass(slots=True)
class Finding:
    """One fault: its kind, its place, what was found and what the format wants.

    ``repaired``: the repair was made (with a policy that only looks: would be made). ``got`` and ``want`` are numbers, text, or
    None where the message says all.
    """

    problem: Problem
    place: Place
    got: object = None
    want: object = None
    repaired: bool = False

    @property
    def code(self) -> str:
        return self.problem.code

    @property
    def message(self) -> str:
        """Description of the fault, one line."""
        return self.problem.message.format_map(self._facts())

    @property
    def question(self) -> str:
        """Description of the repair; empty if there is none."""
        return self.problem.question.format_map(self._facts())

    def _facts(self) -> Mapping[str, object]:
        facts: dict[str, object] = {name: value for name, value in self.place._asdict().items() if value is not None}
        if self.place.name is not None:
            facts["name"] = show(self.place.name)
        return _Facts(facts, got=self.got, want=self.want)

    def __str__(self) -> str:
        return self.message


class _Facts(dict[str, object]):
    """Facts for a message; a fact that is not known shows as ``?``."""

    def __init__(self, facts: Mapping[str, object], **more: object) -> None:
        super().__init__(facts, **more)

    def __missing__(self, name: str) -> str:
        return "?"


@dataclass(slots=True)
class Report:
    """Result of a check.

    ``left``: faults that remain and make the filesystem unsound; ``corrected``: repairs made. ``skipped``: the filesystem was
    clean and was not checked. ``stopped``: the fault at which preening stopped. ``replayed``: transactions of the journal.
    ``changed``: something was written, or would have been. Counts of ``used`` are those after the repairs.
    """

    findings: list[Finding] = field(default_factory=list)
    codes: dict[str, int] = field(default_factory=dict)
    """Codes with their numbers of findings, in the order of the first ones."""
    count: int = 0
    left: int = 0
    corrected: int = 0
    skipped: bool = False
    reason: str = ""
    """Why the passes were needed, if not only because they were asked for."""
    stopped: Finding | None = None
    replayed: int = 0
    orphans: int = 0
    changed: bool = False
    cancelled: bool = False
    gave_up: str = ""
    """Why the check ended early with faults left: too many restarts, no space for a repair."""
    restarts: int = 0
    inodes_used: int = 0
    inodes_count: int = 0
    directories: int = 0
    files: int = 0
    fragmented: int = 0
    """Files that are not contiguous."""
    blocks_used: int = 0
    blocks_count: int = 0
    block_size: int = 0
    label: bytes = b""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each pass."""
    observe: Callable[[Finding], None] | None = field(default=None, repr=False, compare=False)
    """Called with each finding as it is added."""

    def add(self, finding: Finding) -> None:
        self.count += 1
        self.codes[finding.code] = self.codes.get(finding.code, 0) + 1
        if self.observe is not None:
            self.observe(finding)
        if len(self.findings) < KEPT_FINDINGS:
            self.findings.append(finding)

    @property
    def clean(self) -> bool:
        """True if nothing is wrong, or everything was repaired."""
        return not (self.left or self.stopped or self.gave_up)

    @property
    def exit_code(self) -> int:
        """Exit code of e2fsck: 0 clean, 1 corrected, 4 faults left; 32 is added if it was cancelled."""
        code = 0 if self.clean else 4
        if not code and self.corrected:
            code = 1
        return code | (32 if self.cancelled else 0)
