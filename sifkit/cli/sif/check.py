"""``sifkit sif check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import UsageError, counted, shell_quote, show
from ..support.check_command import CLEAN, CORRECTED, LEFT, CheckCommand
from ..support.console import Console, Fields
from ..support.failures import errors_about
from ..support.frame import verb
from ..support.options import SIFImage
from .session import check_not_written

if TYPE_CHECKING:
    from ...sif.finding import Finding

__all__ = ["command"]

MAX_LINES = 200
"""Limit of printed findings: a hostile table has thousands. --json prints all."""


@verb(
    locks=True,
    kind=CheckCommand,
    examples=[
        "sifkit sif check image.sif",
        "sifkit sif check --repair image.sif",
        "sifkit sif check --json image.sif",
    ],
)
def command(
    console: Console,
    image: SIFImage,
    repair: Annotated[
        bool, typer.Option("--repair", "-p", help="repair what can be repaired without changing objects")
    ] = False,
    cut: Annotated[bool, typer.Option("--cut", help="with --repair, truncate the file after the last object")] = False,
    digests: Annotated[bool, typer.Option("--digests", help="verify the digests of OCI objects")] = False,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per finding, and a summary")] = False,
) -> None:
    """Check an image: header, descriptors, offsets and links of objects, declared filesystems, and bytes outside of objects.

    The exit code is 0 if there are no problems, 1 if all were repaired, 4 if errors or warnings are left, 8 on operational
    errors, 16 on usage errors, 32 if interrupted.
    """
    if cut and not repair:
        raise UsageError("--cut needs --repair", hint="give both")

    from ...sif import NotSIFError
    from ...sif.checking import check_file
    from ...sif.finding import Problem
    from ...sif.repairing import repair as repair_findings

    console.image = image
    with errors_about(image):
        found = list(check_file(image, digests=digests))
        if any(finding.problem == Problem.NOT_SIF for finding in found):
            raise NotSIFError(f"{show(image)}: {found[-1].text}", path=image, hint="for ext3 images use: sifkit overlay")
        repaired: list[Finding] = []
        if repair and any(finding.repairable for finding in found):
            check_not_written(image)
            repaired = repair_findings(image, found, cut_trailing=cut)
            found = repaired + list(check_file(image, digests=digests))
    _print_findings(console, image, found, repaired)
    remaining = sum(finding.severity != "note" for finding in found[len(repaired) :])
    return_code = LEFT if remaining else CORRECTED if repaired else CLEAN
    if json:
        _emit_summary(console, image, found, repaired)
    else:
        _summary(console, image, found, repaired)
    raise typer.Exit(return_code)


def _print_findings(console: Console, image: str, found: list[Finding], repaired: list[Finding]) -> None:
    for index, finding in enumerate(found):
        done = index < len(repaired)
        if console.json:
            console.emit(_fields(finding, done), image=image)
        elif index < MAX_LINES and not (console.quiet and finding.severity == "note"):
            console.line(f"{finding.severity}: {show(finding.text)}{_remedy(finding, done, image)}")
    if not console.json and len(found) > MAX_LINES:
        console.line(f"and {len(found) - MAX_LINES} more; --json prints all")


def _remedy(finding: Finding, done: bool, image: str) -> str:
    """Suffix of a finding: that it was repaired, or how to repair it."""
    if done:
        return " (repaired)"
    if finding.problem == "trailing-bytes":
        return f" (sifkit sif check --repair --cut {shell_quote(image)} removes them, as the next edit does)"
    return " (repaired by --repair)" if finding.repairable else ""


def _fields(finding: Finding, done: bool) -> Fields:
    def plain(value: object) -> object:
        return value if isinstance(value, int | None) else show(value if isinstance(value, bytes) else str(value))

    return {
        "problem": str(finding.problem),
        "severity": finding.severity,
        "text": show(finding.text),
        "id": finding.id,
        "slot": None if finding.slot < 0 else finding.slot,
        "field": finding.field or None,
        "got": plain(finding.got),
        "want": plain(finding.want),
        "offset_bytes": finding.offset,
        "size_bytes": finding.size,
        "repairable": finding.repairable,
        "repaired": done,
    }


def _counts(found: list[Finding], repaired: list[Finding]) -> dict[str, int]:
    remaining = [finding.severity for finding in found[len(repaired) :]]
    return {severity + "s": remaining.count(severity) for severity in ("error", "warning", "note")}


def _emit_summary(console: Console, image: str, found: list[Finding], repaired: list[Finding]) -> None:
    counts: Fields = dict(_counts(found, repaired))
    repairable = sum(finding.repairable for finding in found[len(repaired) :])
    console.emit(counts | {"repaired": len(repaired), "repairable": repairable}, image=image)


def _summary(console: Console, image: str, found: list[Finding], repaired: list[Finding]) -> None:
    counts = _counts(found, repaired)
    left = [counted(number, what.removesuffix("s")) for what, number in counts.items() if number]
    pieces = ([f"{len(repaired)} repaired"] if repaired else []) + (left or (["clean"] if not repaired else ["now clean"]))
    console.note(f"{show(image)}: {', '.join(pieces)}")
    if not repaired and any(finding.repairable for finding in found) and console.err_is_terminal:
        console.note(f"repair it with: sifkit sif check --repair {shell_quote(image)}")
