"""``sifkit extract``."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError, counted, human, show
from .support import values
from .support.console import Console, named
from .support.embedding import Partition
from .support.frame import verb
from .support.image_path import place, places
from .support.progress import MODES, reporter
from .support.reading import Upper, looking, on_host

if TYPE_CHECKING:
    from ..overlay.extracting import ExtractResult

__all__ = ["command", "not_empty", "tell_extracted", "tell_problems"]


def _arguments(arguments: list[str]) -> tuple[str, str, list[bytes]]:
    """(image, directory, paths in the image)."""
    pair = place(arguments[0])
    if pair is None:
        image = places(arguments[:1], default=["/"])[0][0]
        paths = [os.fsencode(path) for path in arguments[2:]]
    else:
        if len(arguments) > 2:
            raise UsageError("too many arguments behind IMAGE:/PATH", hint="write IMAGE DIR PATH... for several")
        image, path = pair
        paths = [os.fsencode(path)]
    target = arguments[1] if len(arguments) > 1 else f"{PurePath(image).stem or image}.d"
    if place(target) is not None:
        raise UsageError(f"{show(target)} is not a directory here", hint="write IMAGE DIR PATH...")
    return image, target, paths


def not_empty(target: str) -> UsageError:
    """The error for a place where nothing is extracted to."""
    if os.path.isdir(target):
        return UsageError(f"{show(target)} is there already, and not empty", hint="choose another DIR, or give --force")
    return UsageError(f"{show(target)} is there already, and not a directory", hint="choose another DIR")


def tell_extracted(console: Console, made: ExtractResult) -> None:
    """What an extraction could not make or keep."""
    tell_problems(console, made.problems, made.failed)
    if made.owners_left:
        console.note(f"the owners of {counted(made.owners_left, 'file')} could not be kept: only root may give files away")
    if made.xattrs_left:
        console.note(f"{counted(made.xattrs_left, 'extended attribute')} could not be kept here")
    if made.specials_left:
        console.note(f"{counted(made.specials_left, 'device')} left out: only root may make them")


def tell_problems(console: Console, problems: Sequence[tuple[bytes, str]], failed: int) -> None:
    """Why files are left out, a line each; of ``failed`` there may be more than ``problems``."""
    for path, why in problems:
        console.error(f"{show(path)}: {show(why)}")
    if failed > len(problems):
        console.error(f"... and {counted(failed - len(problems), 'more problem')}")


@verb(
    examples=[
        "sifkit extract overlay.img",
        "sifkit extract overlay.img out/ /upper",
        "sifkit extract --upper overlay.img out/",
        "sifkit extract overlay.img:/upper out/",
    ]
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE [DIR] [PATH]...",
            help="an ext3 image, where to (default: NAME.d), paths in the image (default: all)",
        ),
    ],
    partition: Partition = None,
    upper: Upper = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="into a DIR that is not empty, too; replaces files")] = False,
    progress: Annotated[str, typer.Option("--progress", metavar="|".join(MODES), help="how to tell how far it is")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object")] = False,
) -> int:
    """Put files of an image into a directory: data with its holes, links, times, modes, attributes and ACLs; owners and
    devices where you are root. A path keeps its directories. Nothing is written outside DIR, whatever the image holds.

    The image is only read.
    """
    values.choice("--progress", progress, MODES)
    image, target, paths = _arguments(arguments)
    start = time.monotonic()
    from ..overlay.extracting import extract

    with looking(console, image, partition, upper=upper) as view, reporter(progress, console) as bar:
        try:
            made = extract(view.filesystem, target, paths, top=view.root, force=force, image_id=on_host(image), progress=bar)
        except FileExistsError as error:
            if error.filename is None:
                raise
            raise not_empty(target) from error
    seconds = time.monotonic() - start
    bar.tell_times(console)
    tell_extracted(console, made)
    if json:
        counts = {name: getattr(made, name) for name in made.__slots__ if name != "problems"}
        counts["errors"] = counts.pop("failed")
        console.emit({**named("path", target), **counts, "seconds": round(seconds, 3)}, image=image)
    else:
        files = counted(made.files + made.symlinks + made.specials + made.links, "file")
        directories = counted(made.directories, "directory", "directories")
        console.result(f"{show(target)}: {files}, {directories}, {human(made.written_bytes)}, {seconds:.2f} s")
    return 1 if made.failed else 0
