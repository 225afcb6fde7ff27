"""``sifkit diff``."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SifkitError, UsageError, show
from .support.console import Console, Fields, name_fields
from .support.failures import report
from .support.frame import verb
from .support.image_path import split_image_path
from .support.options import ReadFlags, ZeroTerminated
from .support.reading import TYPES, open_for_reading, print_problems
from .support.render import display_name

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
    old: Annotated[str, typer.Argument(metavar="A", help="ext3 image, IMAGE:/PATH or host directory")],
    new: Annotated[str, typer.Argument(metavar="B", help="image or directory to compare it with")],
    no_owner: Annotated[bool, typer.Option("--no-owner", help="do not compare owners")] = False,
    flags: ReadFlags,
    zero: ZeroTerminated = False,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per change, and a summary")] = False,
) -> int:
    """Show what changed from A to B, a file per line: A added, D deleted, M modified, with the differences in parentheses
    (type, mode, owner, content, target, device, xattrs).

    Times are not compared. With --upper whiteouts are applied instead of compared.

    The exit code is 0 if there are no differences, 1 if there are some, 2 on failure.
    """
    from ext3.errors import Ext3Error

    try:
        return _diff(console, old, new, flags, owners=not no_owner, zero=zero)
    except BrokenPipeError:
        raise
    except (SifkitError, Ext3Error, OSError) as error:
        report(error, console)
    return 2


def _diff(console: Console, old: str, new: str, flags: ReadFlags, *, owners: bool, zero: bool) -> int:
    from ..overlay.compare import compare_trees

    counts = dict.fromkeys(LETTERS, 0)
    problems: list[Exception] = []
    with ExitStack() as stack:
        first, second = (_side(console, stack, text, flags) for text in (old, new))
        for change in compare_trees(first, second, problems, owners=owners):
            counts[change.kind] += 1
            if console.json:
                kind = {0o100000: 1, 0o040000: 2, 0o020000: 3, 0o060000: 4, 0o010000: 5, 0o140000: 6, 0o120000: 7}
                fields: Fields = {"change": change.kind, **name_fields("path", change.path)}
                fields |= {"type": TYPES[kind.get(change.mode & 0o170000, 0)], "what": list(change.what)}
                console.emit_raw(fields)
                continue
            name = change.path if zero else display_name(change.path, console)
            what = f"  ({', '.join(change.what)})" if change.what and not zero else ""
            console.write(f"{LETTERS[change.kind]} ".encode() + name + what.encode() + (b"\0" if zero else b"\n"))
    print_problems(console, problems)
    if console.json:
        console.emit({**name_fields("other", new), **counts, "errors": len(problems)}, image=old)
    return 2 if problems else 1 if any(counts.values()) else 0


def _side(console: Console, stack: ExitStack, text: str, flags: ReadFlags) -> Side:
    from ..overlay.compare import HostSide, ImageSide
    from ..overlay.image_format import image_kind

    pair = split_image_path(text)
    if pair is None and os.path.isdir(text):
        return HostSide(os.fsencode(text), overlay_xattrs=not flags.upper)
    image, path = pair or (text, "/")
    partition = flags.partition
    if partition is not None and image_kind(image) != "sif":
        partition = None  # it is for the other image
    view = stack.enter_context(open_for_reading(console, image, partition, upper=flags.upper))
    side = ImageSide(view, os.fsencode(path))
    if not view.filesystem.stat(side.top).is_dir:
        raise UsageError(f"{show(text)} is not a directory in the image", hint="to compare files, use sifkit cat and cmp")
    return side
