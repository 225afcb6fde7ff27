"""``sifkit overlay normalize``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import counted, show
from ..support.console import Console, Fields, name_fields
from ..support.environment import sif_stamp
from ..support.failures import errors_about
from ..support.frame import verb
from ..support.options import JSONResult, Offset, Partition, RequireLock, SignatureFlags, byte_offset
from ..support.reading import image_options
from ..support.results import print_notes, warn_unlocked

if TYPE_CHECKING:
    from ...overlay.marks.mark_plan import DirectoryMarks
    from ...overlay.marks.normalizing import NormalizeResult

__all__ = ["Base", "LowerOverlays", "command", "normalize_fields", "print_directory"]

Base = Annotated[
    str | None,
    typer.Option(
        "--base", metavar="IMAGE|DIR", help="image that the overlay is used with; a SIF image with an overlay is its own"
    ),
]
LowerOverlays = Annotated[
    list[str] | None,
    typer.Option("--overlay", metavar="PATH", help="overlay between base and IMAGE; later ones are higher"),
]


@verb(
    locks=True,
    examples=[
        "sifkit overlay normalize --base image.sif overlay.img",
        "sifkit overlay normalize overlay.img",
        "sifkit overlay normalize image.sif",
        "sifkit overlay normalize --base image.sif --dry-run -v overlay.img",
    ],
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="overlay image, or SIF image with one")],
    base: Base = None,
    overlay: LowerOverlays = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be done, and write nothing")] = False,
    partition: Partition = None,
    offset: Offset = None,
    flags: SignatureFlags,
    require_lock: RequireLock = False,
    json: JSONResult = False,
) -> int:
    """Make removed files stay removed for every user: change the marks of removed files to forms that hold everywhere.

    A container that a plain user ran leaves .wh. files and opaque directories in an overlay. Root's containers, and a plain
    user's read-only ones (:ro), ignore them: removed files are there again. This command turns .wh. files into whiteouts, which
    always hold. With --base it turns opaque directories into whiteouts, too, one for each file of the base. Without it they are
    marked for root and for writable use, and with :ro a plain user still sees what was removed in them.

    The base must be the image that the overlay is used with. A second run changes nothing. Fails while a container uses the
    image.
    """
    from ...overlay.marks.normalizing import NormalizeOptions, normalize
    from ...overlay.view.overlay_argument import parse_overlays

    console.image = image
    start = byte_offset(offset)
    console.image_options = image_options(partition, offset=start, upper=False)
    options = NormalizeOptions(
        base=base,
        overlays=parse_overlays(overlay or ()),
        dry_run=dry_run,
        partition=partition,
        offset=start,
        on_signatures=flags.signatures,
        require_lock=require_lock,
        stamp=sif_stamp(False),
    )
    with errors_about(image):
        done = normalize(image, options, observe=lambda path, marks: print_directory(console, path, marks))
    if done.locked is not None:
        warn_unlocked(console, image, done.locked)
    print_notes(console, done.notes)
    _print_problems(console, image, done)
    if json:
        console.emit({"dry_run": dry_run, **normalize_fields(done)}, image=image)
    else:
        say = console.line if dry_run else console.result
        say(f"{show(image)}: {_result_text(done)}")
        if done.opaque:
            console.note(f"{show(image)}: {_opaque_text(done)}")
    return 1 if done.problems else 0


def print_directory(console: Console, path: bytes, marks: DirectoryMarks) -> None:
    """Print the changes of one directory with -v."""
    numbers = ((len(marks.hide), "whiteout"), (len(marks.remove), "mark"))
    created, removed = (counted(number, one) for number, one in numbers)
    opaque = "opaque" if marks.is_opaque else "no longer opaque" if marks.was_opaque else ""
    console.detail(f"{show(path)}: {created} created, {removed} removed" + (f", {opaque}" if opaque else ""))


def _print_problems(console: Console, image: str, done: NormalizeResult) -> None:
    """Print an error for each name that is left as it is. JSON has them in the result."""
    if console.json:
        return
    for problem in done.problems:
        where = f"{image}:/upper{show(problem.path)}"
        console.error(f"{show(where)}: {problem.reason}; remove the one you do not want")
    if more := done.problem_count - len(done.problems):
        console.error(f"{show(image)}: {counted(more, 'more name')} like these")


def normalize_fields(done: NormalizeResult) -> Fields:
    """Result of a normalization as JSON."""
    return {
        "base": done.has_base,
        "unchanged": done.unchanged,
        "whiteouts_converted": done.converted,
        "whiteouts_created": done.hidden,
        "opaque_converted": done.opened,
        "opaque_marked": done.marked,
        "marks_removed": done.removed,
        "opaque_left": done.opaque,
        "problem_count": done.problem_count,
        "problems": [{**name_fields("path", one.path), "reason": one.reason} for one in done.problems],
        "dropped_signatures": list(done.dropped),
        "notes": list(done.notes),
    }


def _result_text(done: NormalizeResult) -> str:
    if done.unchanged:
        return "nothing to do" + ("" if done.opaque or done.problems else ": its marks hold for every user")
    directories = "opaque directory", "opaque directories"
    parts = (
        (
            done.converted,
            f"{counted(done.converted, '.wh. file')} converted to {'a whiteout' if done.converted == 1 else 'whiteouts'}",
        ),
        (done.opened, f"{counted(done.opened, *directories)} converted to {counted(done.hidden, 'whiteout')}"),
        (done.marked, f"{counted(done.marked, *directories)} marked for root and for writable use"),
        (done.removed, f"{counted(done.removed, 'mark')} without effect removed"),
    )
    text = ", ".join(text for number, text in parts if number)
    return f"would be done: {text}" if done.dry_run else text


def _opaque_text(done: NormalizeResult) -> str:
    directories = counted(done.opaque, "directory is", "directories are")
    return f"{directories} opaque, which a plain user's Apptainer ignores with :ro; convert them with: --base IMAGE.sif"
