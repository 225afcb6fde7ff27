"""``sifkit extract``."""

from __future__ import annotations

import os
import time
from pathlib import PurePath
from typing import Annotated

import typer

from ..errors import UsageError, counted, human, show
from .support import values
from .support.console import Console, name_fields
from .support.extraction import not_empty_error, print_losses
from .support.frame import verb
from .support.image_path import group_by_image, split_image_path
from .support.options import AllowChanged, JSONResult, ProgressMode, ReadFlags
from .support.progress import MODES, reporter
from .support.reading import host_identity, open_for_reading, warn_of_changes

__all__ = ["command"]


def _parse_arguments(arguments: list[str], directory: str | None) -> tuple[str, str, list[bytes]]:
    """Parse the arguments into (image, target directory, paths in the image). ``directory``: of -C, else an argument."""
    pair = split_image_path(arguments[0])
    rest = arguments[1:]
    if pair is None:
        image = group_by_image(arguments[:1], default=["/"])[0][0]
    elif len(rest) > (directory is None):
        raise UsageError("too many arguments after IMAGE:/PATH", hint="for several paths write IMAGE DIR PATH...")
    else:
        image, path = pair
    if directory is None:
        directory, rest = (rest[0], rest[1:]) if rest else (f"{PurePath(image).stem or image}.d", [])
    if split_image_path(directory) is not None:
        raise UsageError(f"{show(directory)} is not a host directory", hint="write IMAGE DIR PATH...")
    return image, directory, [os.fsencode(name) for name in (rest if pair is None else [path])]


@verb(
    examples=[
        "sifkit extract overlay.img",
        "sifkit extract overlay.img out/ /upper",
        "sifkit extract --upper overlay.img out/",
        "sifkit extract overlay.img:/upper out/",
        "sifkit extract overlay.img /upper/etc /upper/opt -C out/",
    ]
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE [DIR] [PATH]...",
            help="image or directory, target directory (default: NAME.d), paths in the image (default: all)",
        ),
    ],
    directory: Annotated[
        str | None, typer.Option("-C", "--directory", metavar="DIR", help="extract into DIR; all arguments are then paths")
    ] = None,
    flags: ReadFlags,
    force: Annotated[bool, typer.Option("--force", "-f", help="write into a DIR that is not empty, replacing files")] = False,
    allow_changed: AllowChanged = False,
    progress: ProgressMode = "auto",
    json: JSONResult = False,
) -> int:
    """Extract files from an image into a directory, with holes, links, times, modes, extended attributes and ACLs; as root
    also with owners and devices.

    Paths are created below DIR with their parent directories. Nothing is ever written outside DIR. The image is not modified.
    """
    values.choice("--progress", progress, MODES)
    image, target, paths = _parse_arguments(arguments, directory)
    start = time.monotonic()
    from ..vfs.extracting import extract

    with (
        open_for_reading(console, image, flags.partition, upper=flags.upper) as opened,
        warn_of_changes(console, image, opened, allowed=allow_changed),
        reporter(progress, console) as bar,
    ):
        try:
            made = extract(opened.tree, target, paths, force=force, image_id=host_identity(image), progress=bar)
        except FileExistsError as error:
            if error.filename is None:
                raise
            raise not_empty_error(target) from error
    seconds = time.monotonic() - start
    bar.print_times(console)
    print_losses(console, made)
    if json:
        counts = {name: getattr(made, name) for name in made.__slots__ if name != "problems"}
        counts["errors"] = counts.pop("failed")
        console.emit({**name_fields("path", target), **counts, "seconds": round(seconds, 3)}, image=image)
    else:
        files = counted(made.files + made.symlinks + made.specials + made.links, "file")
        directories = counted(made.directories, "directory", "directories")
        console.result(f"{show(target)}: {files}, {directories}, {human(made.written_bytes)}, {seconds:.2f} s")
    return 1 if made.failed else 0
