"""``sifkit sif dump``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import UsageError, human, shell_quote, show
from ...host_space import full_host_errors
from ...replacing import ANY_FILE, check_output
from ..support.console import Console
from ..support.frame import verb
from ..support.options import IDAndImage, ObjectName, ProgressMode
from ..support.progress import MODES, Reporter, reporter
from ..support.streams import output_errors, stream_output
from ..support.values import choice
from . import codes
from .arguments import id_and_image
from .session import open_sif, same_file

if TYPE_CHECKING:
    from ...sif import SIF, Descriptor

__all__ = ["command"]

COPY_BYTES = 4 << 20
HEAD_BYTES = 64 << 10
MAX_SHOWN_BYTES = 16 << 20
"""Limit of text shown on a terminal."""


@verb(
    locks=True,
    examples=[
        "sifkit sif dump 1 image.sif",
        "sifkit sif dump 4 image.sif -o overlay.img",
        "sifkit sif dump --name inspect-metadata.json image.sif | python3 -m json.tool",
    ],
)
def command(
    console: Console,
    arguments: IDAndImage,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="write to FILE, with holes")] = None,
    force: Annotated[bool, typer.Option("--force", "-F", help="replace FILE if it exists")] = False,
    name: ObjectName = None,
    progress: ProgressMode = "auto",
) -> None:
    """Write the content of an object to standard output or to a file. Binary content is not written to a terminal."""
    choice("--progress", progress, MODES)
    id, image = id_and_image(arguments, named=name is not None)
    wanted = codes.optional(codes.name, "--name", name)
    to_file = output is not None and output != "-"
    if force and not to_file:
        raise UsageError("--force needs -o FILE", hint="omit it, or give a file")
    if output is not None and same_file(image, output):
        raise UsageError(f"{show(output)} is the image itself", hint="give another file")
    stream = None
    if output is not None and to_file:
        stream = stream_output(output)
        if stream is None:
            check_output(output, ANY_FILE, force=force, noun="output")
    with open_sif(console, image) as sif:
        found = sif.by_name(wanted) if wanted is not None else sif.get(id or 0)
        if not to_file and console.out_is_terminal:
            _show(console, sif, found, image)
            return
        with reporter(progress, console) as bar:
            bar.phase("copy", found.size, "bytes")
            if stream is not None:
                with stream.open() as fd, full_host_errors(stream.path, found.size):
                    sif.extract(found.id, fd, advance=bar.advance)
            elif to_file and output is not None:
                sif.extract(found.id, output, replace=force, advance=bar.advance)
            else:
                _to_stdout(console, sif, found, bar)
    if to_file and output is not None:
        console.result(f"{show(output)}: object {found.id}, {found.type_text}, {human(found.size)}")


def _show(console: Console, sif: SIF, found: Descriptor, image: str) -> None:
    """Show text on a terminal, with control characters escaped."""
    from ...sif.sniff import is_text

    with sif.open_object(found.id) as file:
        head = file.read(HEAD_BYTES) or b""
        if found.size > MAX_SHOWN_BYTES or not is_text(head):
            hint = f"use a pipe, or: sifkit sif dump {found.id} {shell_quote(image)} -o FILE"
            raise UsageError(f"object {found.id} is binary, {human(found.size)}", hint=hint)
        text = (head + file.readall()).decode("utf-8", "backslashreplace")
    for line in text.removesuffix("\n").split("\n"):
        console.line("\t".join(show(piece) for piece in line.removesuffix("\r").split("\t")))


def _to_stdout(console: Console, sif: SIF, found: Descriptor, bar: Reporter) -> None:
    fd = _stdout_fd()
    if fd is None:
        with sif.open_object(found.id) as file:
            while piece := file.read(COPY_BYTES):
                console.write(piece)
        return
    with output_errors("standard output"), full_host_errors("standard output", found.size, directory="/dev/stdout"):
        sys.stdout.flush()
        sif.extract(found.id, fd, advance=bar.advance)


def _stdout_fd() -> int | None:
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return None
