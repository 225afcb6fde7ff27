"""``sifkit diff``."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SifkitError, UsageError, show
from .support.console import Console, Fields, named
from .support.embedding import Partition
from .support.failures import report
from .support.frame import verb
from .support.image_path import place
from .support.reading import TYPES, Upper, looking, tell
from .support.render import shown_name

if TYPE_CHECKING:
    from ..overlay.compare import Side

__all__ = ["command"]

LETTERS = {"added": "A", "deleted": "D", "modified": "M"}


@verb(
    examples=[
        "sifkit diff overlay.img job-1.img",
        "sifkit diff overlay.img overlay/",
        "sifkit diff overlay.img:/upper out/",
        "sifkit diff --json overlay.img job-1.img",
    ]
)
def command(
    console: Console,
    *,
    old: Annotated[str, typer.Argument(metavar="A", help="an ext3 image, IMAGE:/PATH, or a directory")],
    new: Annotated[str, typer.Argument(metavar="B", help="the same, to compare with")],
    no_owner: Annotated[bool, typer.Option("--no-owner", help="do not compare owners")] = False,
    partition: Partition = None,
    upper: Upper = False,
    zero: Annotated[bool, typer.Option("-0", "--zero", help="end each line with NUL, and escape nothing")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object for each change, and a summary last")] = False,
) -> int:
    """Tell what leads from A to B: A for files added, D for deleted, M for modified, with what differs: type, mode, owner,
    content, target, device, xattrs. Times are not compared. With --upper whiteouts are no files, and hide what they hide.

    Exits 0 if nothing differs, 1 if something does, 2 where they cannot be compared.
    """
    from ext3.errors import Ext3Error

    try:
        return _diff(console, old, new, owners=not no_owner, partition=partition, upper=upper, zero=zero)
    except BrokenPipeError:
        raise
    except (SifkitError, Ext3Error, OSError) as error:
        report(error, console)
    return 2


def _diff(console: Console, old: str, new: str, *, owners: bool, partition: str | None, upper: bool, zero: bool) -> int:
    from ..overlay.compare import compare_trees

    counts = dict.fromkeys(LETTERS, 0)
    problems: list[Exception] = []
    with ExitStack() as stack:
        first, second = (_side(console, stack, text, partition, upper) for text in (old, new))
        for change in compare_trees(first, second, problems, owners=owners):
            counts[change.kind] += 1
            if console.json:
                kind = {0o100000: 1, 0o040000: 2, 0o020000: 3, 0o060000: 4, 0o010000: 5, 0o140000: 6, 0o120000: 7}
                fields: Fields = {"change": change.kind, **named("path", change.path)}
                fields |= {"type": TYPES[kind.get(change.mode & 0o170000, 0)], "what": list(change.what)}
                console.emit_raw(fields)
                continue
            name = change.path if zero else shown_name(change.path, console)
            what = f"  ({', '.join(change.what)})" if change.what and not zero else ""
            console.write(f"{LETTERS[change.kind]} ".encode() + name + what.encode() + (b"\0" if zero else b"\n"))
    tell(console, problems)
    if console.json:
        console.emit({**named("other", new), **counts, "errors": len(problems)}, image=old)
    return 2 if problems else 1 if any(counts.values()) else 0


def _side(console: Console, stack: ExitStack, text: str, partition: str | None, upper: bool) -> Side:
    from ..overlay.compare import HostSide, ImageSide
    from ..overlay.image_format import image_kind

    pair = place(text)
    if pair is None and os.path.isdir(text):
        return HostSide(os.fsencode(text), overlay_xattrs=not upper)
    image, path = pair or (text, "/")
    wanted = partition
    if partition is not None and image_kind(image) != "sif":
        wanted = None  # of two images one may be a SIF
    view = stack.enter_context(looking(console, image, wanted, upper=upper))
    side = ImageSide(view, os.fsencode(path))
    if not view.filesystem.stat(side.top).is_dir:
        raise UsageError(f"{show(text)} is not a directory in the image", hint="sifkit cat writes a file, cmp compares two")
    return side
