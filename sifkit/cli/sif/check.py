"""``sifkit sif check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import UsageError, counted, show
from ..support.check_command import CLEAN, CORRECTED, LEFT, CheckCommand
from ..support.console import Console, Fields
from ..support.frame import verb
from ..support.render import shell_word
from .session import check_not_written, concerning

if TYPE_CHECKING:
    from ...sif.finding import Finding

__all__ = ["command"]

MOST_LINES = 200
"""A hostile table has thousands of findings, each like the last; --json has them all."""


@verb(
    kind=CheckCommand,
    examples=[
        "sifkit sif check image.sif",
        "sifkit sif check --repair image.sif",
        "sifkit sif check --json image.sif",
    ],
)
def command(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="a SIF image")],
    repair: Annotated[
        bool, typer.Option("--repair", "-p", help="put right what can be put right without changing what readers see")
    ] = False,
    cut: Annotated[bool, typer.Option("--cut", help="with --repair: cut off what the file has behind the last object")] = False,
    digests: Annotated[bool, typer.Option("--digests", help="read OCI objects and compare them with their digests")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object for each finding, the summary last")] = False,
) -> None:
    """Look for everything that is wrong with an image: its header and table, places and links of objects, filesystems that are
    not what they are declared as, bytes that belong to nothing.

    Exit code: 0 nothing wrong, 1 all put right, 4 something is left, be it warnings only, 8 it could not be looked at,
    16 usage, 32 interrupted. Notes do not count.
    """
    if cut and not repair:
        raise UsageError("--cut is for --repair", hint="give both")

    from ...sif import NotSIFError
    from ...sif.checking import check_file
    from ...sif.finding import Problem
    from ...sif.repairing import repair as put_right

    console.image = image
    with concerning(image):
        found = list(check_file(image, digests=digests))
        if any(finding.problem == Problem.NOT_SIF for finding in found):
            raise NotSIFError(
                f"{show(image)}: {found[-1].text}", path=image, hint="stand-alone ext3 images are for: sifkit overlay"
            )
        mended: list[Finding] = []
        if repair and any(finding.repairable for finding in found):
            check_not_written(image)
            mended = put_right(image, found, cut_trailing=cut)
            found = mended + list(check_file(image, digests=digests))
    _tell(console, image, found, mended)
    left = sum(finding.severity != "note" for finding in found[len(mended) :])
    return_code = LEFT if left else CORRECTED if mended else CLEAN
    if json:
        _emit_summary(console, image, found, mended)
    else:
        _summary(console, image, found, mended)
    raise typer.Exit(return_code)


def _tell(console: Console, image: str, found: list[Finding], mended: list[Finding]) -> None:
    for index, finding in enumerate(found):
        done = index < len(mended)
        if console.json:
            console.emit(_fields(finding, done), image=image)
        elif index < MOST_LINES and not (console.quiet and finding.severity == "note"):
            console.line(f"{finding.severity}: {show(finding.text)}{_outlook(finding, done, image)}")
    if not console.json and len(found) > MOST_LINES:
        console.line(f"and {len(found) - MOST_LINES} more: see all with --json")


def _outlook(finding: Finding, done: bool, image: str) -> str:
    """What became of it, or what would mend it."""
    if done:
        return " (repaired)"
    if finding.problem == "trailing-bytes":
        return f" (sifkit sif check --repair --cut {shell_word(image)} cuts that off, as the next edit does)"
    return " (--repair mends it)" if finding.repairable else ""


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


def _counts(found: list[Finding], mended: list[Finding]) -> dict[str, int]:
    left = [finding.severity for finding in found[len(mended) :]]
    return {"errors": left.count("error"), "warnings": left.count("warning"), "notes": left.count("note")}


def _emit_summary(console: Console, image: str, found: list[Finding], mended: list[Finding]) -> None:
    counts: Fields = dict(_counts(found, mended))
    repairable = sum(finding.repairable for finding in found[len(mended) :])
    console.emit(counts | {"repaired": len(mended), "repairable": repairable}, image=image)


def _summary(console: Console, image: str, found: list[Finding], mended: list[Finding]) -> None:
    counts = _counts(found, mended)
    told = [counted(number, what.removesuffix("s")) for what, number in counts.items() if number]
    pieces = ([f"{len(mended)} repaired"] if mended else []) + (told or (["clean"] if not mended else ["now clean"]))
    console.note(f"{show(image)}: {', '.join(pieces)}")
    if not mended and any(finding.repairable for finding in found) and console.err_is_terminal:
        console.note(f"mend it: sifkit sif check --repair {shell_word(image)}")
