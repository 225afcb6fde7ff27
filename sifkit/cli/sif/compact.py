"""``sifkit sif compact``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import human, show
from ..support.console import Console
from ..support.environment import sif_stamp
from ..support.failures import errors_about
from ..support.frame import verb
from ..support.options import Deterministic, JSONResult, ProgressMode, SIFImage
from ..support.progress import MODES, reporter
from ..support.results import print_result
from ..support.values import choice
from . import codes
from .session import check_not_written

if TYPE_CHECKING:
    from ...sif import CompactResult

__all__ = ["command"]


@verb(locks=True, examples=["sifkit sif compact image.sif", "sifkit sif compact --capacity 96 image.sif"])
def command(
    console: Console,
    image: SIFImage,
    capacity: Annotated[
        str | None,
        typer.Option("--capacity", metavar="COUNT", help="new number of descriptors; 0 for as few as are needed"),
    ] = None,
    deterministic: Deterministic = False,
    progress: ProgressMode = "auto",
    json: JSONResult = False,
) -> None:
    """Rewrite an image without the space of removed objects. IDs, order and alignment of objects are preserved, gaps are
    zeroed, signatures stay valid.

    Writes are atomic: an interrupted command leaves the old image or the new one.
    """
    choice("--progress", progress, MODES)
    descriptors = codes.optional(codes.capacity, "--capacity", capacity)

    from ...sif.compacting import compact

    console.image = image
    with errors_about(image), reporter(progress, console) as bar:
        mounts = check_not_written(image) if os.path.isfile(image) else ()
        bar.phase("copy", _size(image), "bytes")
        made = compact(image, capacity=descriptors, stamp=sif_stamp(deterministic), advance=bar.advance)
    notes = list(made.notes)
    if mounts and made.changed:
        notes.append(f"the old image is still mounted at {', '.join(mounts)}; its space is freed when it is unmounted")
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
    print_result(console, image, f"{_change(made)}, capacity of {made.capacity} objects", fields)


def _change(made: CompactResult) -> str:
    if not made.changed:
        return "already compact"
    less = made.before_bytes - made.after_bytes
    if not less:
        return f"{human(made.after_bytes)}, unchanged"
    return f"{human(made.after_bytes)}, {human(abs(less))} {'less' if less > 0 else 'more'} than before"


def _size(image: str) -> int | None:
    try:
        return os.stat(image).st_size
    except (OSError, ValueError):
        return None
