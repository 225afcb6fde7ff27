"""``sifkit extract``."""

from __future__ import annotations

import os
import time
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError, counted, human, shell_quote, show
from ..vfs.glob import expand
from ..vfs.resolve import Resolver
from .support import values
from .support.console import Console, name_fields
from .support.extraction import not_empty_error, print_losses
from .support.frame import verb
from .support.image_path import group_by_image
from .support.options import AllowChanged, JSONResult, ProgressMode, ReadFlags
from .support.progress import MODES, reporter
from .support.reading import host_identities, open_for_reading, warn_of_changes

if TYPE_CHECKING:
    from ..vfs.file_tree import FileTree

__all__ = ["command"]


def _parse_arguments(arguments: list[str]) -> tuple[str, list[bytes]]:
    """Parse the arguments into the image and paths in it. Raises UsageError for several images."""
    groups = group_by_image(arguments, default=["/"])
    if len(groups) > 1:
        raise UsageError(
            f"{show(groups[0][0])} and {show(groups[1][0])} are different images", hint="extract them one after the other"
        )
    return groups[0]


def _check_paths(tree: FileTree[Any], image: str, paths: list[bytes], directory: str | None) -> None:
    """Raise UsageError if the only path is not in the image, and could be a directory of the host to extract into."""
    if directory is not None or len(paths) != 1 or not os.path.isdir(os.path.dirname(paths[0].rstrip(b"/")) or b"."):
        return
    try:
        Resolver(tree).lookup(b"/" + paths[0], follow=False)
    except OSError:
        text = os.fsdecode(paths[0])
        raise UsageError(
            f"there is no {show(text)} in {show(image)}",
            hint=f"to extract into it: sifkit extract {shell_quote(image)} -C {shell_quote(text)}",
        ) from None


@verb(
    locks=True,
    examples=[
        "sifkit extract overlay.img",
        "sifkit extract overlay.img -C out/",
        "sifkit extract overlay.img:/upper -C out/",
        "sifkit extract --upper overlay.img -C out/",
        "sifkit extract overlay.img /upper/etc /upper/opt -C out/",
        "sifkit extract image.sif -C out/",
    ],
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE [PATH...] | IMAGE:/PATH...",
            help="image or directory, and what of it to extract (default: everything)",
        ),
    ],
    directory: Annotated[
        str | None, typer.Option("-C", "--directory", metavar="DIR", help="extract into DIR (default: NAME.d)")
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
    image, paths = _parse_arguments(arguments)
    target = directory if directory is not None else f"{PurePath(image).stem or PurePath(os.path.realpath(image)).name}.d"
    start = time.monotonic()
    from ..vfs.extracting import extract

    with (
        open_for_reading(
            console, image, flags.partition, offset=flags.start, upper=flags.upper, overlays=flags.overlay or ()
        ) as opened,
        warn_of_changes(console, opened, allowed=allow_changed),
        reporter(progress, console) as bar,
    ):
        paths = [match for path in paths for match in expand(opened.tree, path)]
        _check_paths(opened.tree, image, paths, directory)
        try:
            made = extract(opened.tree, target, paths, force=force, image_ids=host_identities(opened), progress=bar)
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
