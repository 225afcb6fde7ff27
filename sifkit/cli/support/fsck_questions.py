"""Questions of a check, asked on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from .console import Console

if TYPE_CHECKING:
    from ext3.fsck.finding import Finding

__all__ = ["Questions", "can_ask"]

ANSWERS = {"y": True, "yes": True, "n": False, "no": False}
ALL = ("a", "all")


def can_ask() -> bool:
    """Return True if a person can be asked: standard input and standard error are terminals."""
    try:
        return sys.stdin.isatty() and sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


class Questions:
    """Questions about findings, each with its default; Enter takes it, and ``a`` says yes to this one and to all that follow.

    ``text``: what is wrong, as a line. ``before``: called before each question. ``asked``: called with each finding that was.
    """

    def __init__(
        self,
        console: Console,
        text: Callable[[Finding], str],
        *,
        before: Callable[[], None],
        asked: Callable[[Finding], None],
    ) -> None:
        self._console = console
        self._text = text
        self._before = before
        self._asked = asked
        self._all = False

    def decide(self, finding: Finding) -> bool:
        """Return whether to repair. Raises KeyboardInterrupt at the end of the input, too."""
        if self._all:
            return True
        self._before()
        default = finding.problem.default
        self._console.ask(f"{self._text(finding)}\n")
        while True:
            self._console.ask(f"  {finding.question}<{'y' if default else 'n'}>? ")
            try:
                line = sys.stdin.readline()
            except UnicodeDecodeError:
                line = "?"
            if not line:
                self._console.ask("\n")
                raise KeyboardInterrupt
            word = line.strip().lower()
            if not word or word in ANSWERS:
                self._asked(finding)
                return ANSWERS[word] if word else default
            if word in ALL:
                self._asked(finding)
                self._all = True
                return True
            self._console.ask("  y: yes, n: no, a: yes to all; Enter takes the default\n")
