"""Policies of a check: who decides whether a fault is repaired. Pure.

Source: e2fsprogs ``e2fsck/problem.c`` (fix_problem).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .finding import Finding
from .problem import PreenAnswer

__all__ = ["Ask", "CheckOnly", "Policy", "Preen", "Stopped", "Yes"]


class Stopped(Exception):
    """Preening met a fault that needs a decision."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class Policy(Protocol):
    """``writes``: the repairs go to the image. If not, they are made in memory, so that later passes see their results."""

    @property
    def writes(self) -> bool: ...

    def repairs(self, finding: Finding) -> bool:
        """Return whether to repair. Raise Stopped to end the check."""
        ...


class CheckOnly:
    """Nothing is written; every fault counts as left."""

    writes = False

    def repairs(self, finding: Finding) -> bool:
        return True


class Yes:
    """Every fault is repaired."""

    writes = True

    def repairs(self, finding: Finding) -> bool:
        return True


class Preen:
    """Faults are repaired whose repair is safe; another one stops the check."""

    writes = True

    def repairs(self, finding: Finding) -> bool:
        if finding.problem.preen is PreenAnswer.STOP:
            raise Stopped(finding)
        return finding.problem.preen is PreenAnswer.REPAIR


class Ask:
    """``decide`` is asked about each fault."""

    writes = True

    def __init__(self, decide: Callable[[Finding], bool]) -> None:
        self._decide = decide

    def repairs(self, finding: Finding) -> bool:
        return self._decide(finding)
