"""Findings and result of a check, as lines or as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, SupportsIndex

from ...errors import counted, shell_quote, show
from .console import Console, Fields, name_fields
from .results import partition_fields

if TYPE_CHECKING:
    from ext3.fsck.finding import Finding, Report

    from ...overlay.checking import ImageCheck

__all__ = ["PASSES", "FindingPrinter", "summary_fields", "summary_lines"]

PASSES = {
    "1": "Pass 1: inodes, blocks and sizes",
    "1B": "Pass 1B: blocks that files share",
    "2": "Pass 2: directories",
    "3": "Pass 3: connections of directories",
    "3A": "Pass 3A: directories rebuilt",
    "4": "Pass 4: link counts",
    "5": "Pass 5: bitmaps and counts",
}
"""Headers of the passes, by the names that the library has for them."""


class FindingPrinter:
    """Printer of findings, a line or a JSON object each. ``path_of``: looks up the path that a finding is about."""

    def __init__(
        self,
        console: Console,
        image: str,
        *,
        writes: bool,
        path_of: Callable[[Finding], bytes | None],
        clear: Callable[[], None],
    ) -> None:
        """``clear``: removes a bar of progress before a line is printed."""
        self.console = console
        self.image = image
        self.writes = writes
        self.asked: set[int] = set()
        """Findings that a question was printed for, by ``id``."""
        self._path_of = path_of
        self._clear = clear

    def text(self, finding: Finding) -> str:
        """Return what is wrong and where, as one line."""
        path = self._path_of(finding)
        return show(finding.message) + (f" ({show(path)})" if path is not None else "")

    def print(self, finding: Finding) -> None:
        """Print a finding that was decided on."""
        if self.console.json:
            self.console.emit(self.fields(finding), image=self.image)
            return
        if id(finding) in self.asked:
            self.asked.discard(id(finding))
            return
        self._clear()
        self.console.line(self.text(finding) + self._outcome(finding))

    def _outcome(self, finding: Finding) -> str:
        if finding.problem.note:
            return ""
        question = show(finding.question)
        if not question:
            return "; it cannot be repaired"
        if not self.writes:
            return f"; repair: {question}"
        return f"; repaired: {question}" if finding.repaired else f"; not repaired: {question}"

    def fields(self, finding: Finding) -> Fields:
        """Return a finding as JSON."""
        place = finding.place
        path = self._path_of(finding)
        return {
            "code": finding.code,
            "message": show(finding.message),
            "repair": None if finding.problem.note else show(finding.question) or None,
            "note": finding.problem.note,
            "safe": finding.problem.preen.value == "repair",
            "repaired": finding.repaired and self.writes and not finding.problem.note,
            **(name_fields("path", path) if path is not None else {"path": None}),
            "group": place.group,
            "ino": place.ino,
            "block": place.block,
            "logical": place.logical,
            "offset_bytes": place.offset,
            **(name_fields("name", place.name) if place.name is not None else {"name": None}),
            "parent": place.parent,
            "got": _plain(finding.got),
            "want": _plain(finding.want),
        }


def _plain(value: object) -> int | str | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, SupportsIndex):  # numbers of numpy, too
        return int(value)
    return show(value if isinstance(value, bytes) else str(value))


def _usage(report: Report) -> str:
    """Return the counts as e2fsck prints them."""
    share = "" if report.skipped else f" ({100 * report.fragmented / max(1, report.inodes_used):.1f}% non-contiguous)"
    files = f"{report.inodes_used}/{report.inodes_count} files{share}"
    return f"{files}, {report.blocks_used}/{report.blocks_count} blocks"


def summary_lines(report: Report, image: str, words: str, *, writes: bool) -> list[str]:
    """Return the lines after a check. ``words``: IMAGE with the options that name the same place, for hints."""
    name, usage = show(image), _usage(report)
    if report.gave_up:
        return [f"{name}: the check could not be completed: {show(report.gave_up)}", f"{name}: problems are left"]
    if report.stopped is not None:
        hint = f"look at it with: sifkit overlay fsck -n {words}; repair everything with: sifkit overlay fsck -y {words}"
        return [f"{name}: stopped, this repair is not one to make without asking; {hint}"]
    if report.left:
        left = counted(report.left, "problem")
        if not writes:
            hint = f"repair with: sifkit overlay fsck -p {words} (safe repairs), or -y (all)"
            return [f"{name}: {left} found, {usage}; {hint}"]
        done = f"{report.corrected:,} repaired, " if report.corrected else ""
        return [f"{name}: {done}{left} left, {usage}; repair everything with: sifkit overlay fsck -y {words}"]
    if report.corrected:
        return [f"{name}: {counted(report.corrected, 'problem')} repaired, clean, {usage}"]
    return [f"{name}: clean, {usage}"]


def summary_fields(report: Report, opened: ImageCheck, *, writes: bool, undo: str | None, seconds: float) -> Fields:
    """Return the result of a check as JSON."""
    return {
        "clean": report.clean,
        "skipped": report.skipped,
        "reason": report.reason or None,
        "findings": report.count,
        "codes": report.codes,
        "corrected": report.corrected,
        "left": report.left,
        "stopped": None if report.stopped is None else report.stopped.code,
        "gave_up": show(report.gave_up) or None,
        "restarts": report.restarts,
        "replayed": report.replayed,
        "orphans": report.orphans,
        "changed": opened.written if writes else False,
        "inodes": report.inodes_count,
        "inodes_used": report.inodes_used,
        "directories": report.directories,
        "files": report.files,
        "fragmented": report.fragmented,
        "blocks": report.blocks_count,
        "blocks_used": report.blocks_used,
        "block_bytes": report.block_size,
        **name_fields("label", report.label),
        "partition": partition_fields(opened.partition),
        "in_use": bool(opened.users),
        "locked": opened.locked,
        "dropped_signatures": list(opened.dropped),
        "notes": list(opened.notes),
        "undo": None if undo is None else show(undo),
        "exit_code": report.exit_code,
        "passes": {name: round(taken, 3) for name, taken in report.seconds.items()},
        "seconds": round(seconds, 3),
    }


def image_words(image: str, options: tuple[str, ...]) -> str:
    """Return IMAGE with the options that name the same place in it, for a hint."""
    return " ".join([*options, shell_quote(image)])
