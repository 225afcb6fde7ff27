"""``sifkit sif compact``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import human, show
from ..support.console import Console
from ..support.frame import verb
from ..support.progress import MODES, reporter
from ..support.values import choice
from . import codes as words
from .new import MOST_DESCRIPTORS
from .session import Deterministic, Progress, check_not_written, concerning, result, stamp

if TYPE_CHECKING:
    from ...sif import CompactResult

__all__ = ["command"]


@verb(examples=["sifkit sif compact image.sif", "sifkit sif compact --capacity 96 image.sif"])
def command(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="a SIF image")],
    capacity: Annotated[
        str | None,
        typer.Option("--capacity", metavar="COUNT", help="room for so many objects from now on; 0: as few as are needed"),
    ] = None,
    deterministic: Deterministic = False,
    progress: Progress = "auto",
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object", rich_help_panel="Output")] = False,
) -> None:
    """Make an image anew without the space that removed objects left. Ids, order and alignment stay, what lies between
    objects becomes zero; signatures stay valid. The new image takes the old one's place when it is whole.
    """
    choice("--progress", progress, MODES)
    hint = "48 is usual; 0 is as few as are needed"
    room = None if capacity is None else words.number("--capacity", capacity, 0, MOST_DESCRIPTORS, hint=hint)

    from ...sif.compacting import compact

    console.image = image
    with concerning(image), reporter(progress, console) as bar:
        reading = check_not_written(image) if os.path.isfile(image) else ()
        bar.phase("copy", _size(image), "bytes")
        made = compact(image, capacity=room, stamp=stamp(deterministic), advance=bar.advance)
    notes = list(made.notes)
    if reading and made.changed:
        notes.append(f"what is mounted at {', '.join(reading)} is the old image, whose space is free when that is unmounted")
    if not console.json:
        for note in notes:
            console.note(f"{console.program}: {note}")
    fields = {
        "before_bytes": made.before_bytes,
        "after_bytes": made.after_bytes,
        "allocated_before_bytes": made.used_before,
        "allocated_after_bytes": made.used_after,
        "capacity": made.capacity,
        "moved": made.moved,
        "changed": made.changed,
        "notes": [show(note) for note in notes],
    }
    result(console, image, f"{_change(made)}, room for {made.capacity} objects", fields)


def _change(made: CompactResult) -> str:
    if not made.changed:
        return "was compact already"
    less = made.before_bytes - made.after_bytes
    if not less:
        return f"{human(made.after_bytes)} as before"
    return f"{human(made.after_bytes)}, {human(abs(less))} {'less' if less > 0 else 'more'} than before"


def _size(image: str) -> int | None:
    try:
        return os.stat(image).st_size
    except (OSError, ValueError):
        return None
