"""``sifkit sif dump``."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import OutputError, SifkitError, TargetError, UsageError, human, show
from ..support.console import Console
from ..support.frame import verb
from ..support.progress import Reporter, reporter
from ..support.render import shell_word
from ..support.values import choice
from . import codes as words
from .arguments import id_and_image
from .session import Progress, reading, same_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...sif import SIF, Descriptor

__all__ = ["command"]

COPY_BYTES = 4 << 20
HEAD_BYTES = 64 << 10
SHOWN_BYTES = 16 << 20
"""What is longer is no text to be read on a screen."""


@verb(
    examples=[
        "sifkit sif dump 1 image.sif",
        "sifkit sif dump 4 image.sif -o overlay.img",
        "sifkit sif dump --name inspect-metadata.json image.sif | python3 -m json.tool",
    ]
)
def command(
    console: Console,
    arguments: Annotated[
        list[str], typer.Argument(metavar="ID IMAGE", help="an object and the SIF image; an image named 4 is ./4")
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="write to this file; holes stay holes")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-F", help="replace FILE if it is there")] = False,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="the object of this name instead of an ID")] = None,
    progress: Progress = "auto",
) -> None:
    """Write an object to standard output, or to a file. On a terminal only text is shown."""
    choice("--progress", progress, ("auto", "plain", "json", "off"))
    id, image = id_and_image(arguments, named=name is not None)
    wanted = words.optional(words.name, "--name", name)
    to_file = output is not None and output != "-"
    if force and not to_file:
        raise UsageError("--force is for -o FILE", hint="leave it out, or name a file")
    if output is not None and same_file(image, output):
        raise UsageError(f"{show(output)} is the image itself", hint="name another file")
    if output is not None and to_file and not force and os.path.lexists(output) and not os.path.isdir(output):
        raise TargetError(f"{show(output)} exists", path=output, hint="give another name, or --force to replace it")
    with reading(console, image) as sif:
        found = sif.by_name(wanted) if wanted is not None else sif.get(id or 0)
        if not to_file and console.out_is_terminal:
            _show(console, sif, found, image)
            return
        with reporter(progress, console) as bar:
            bar.phase("copy", found.size, "bytes")
            if to_file and output is not None:
                sif.extract(found.id, output, replace=force, advance=bar.advance)
            else:
                _to_stdout(console, sif, found, bar)
    if to_file and output is not None:
        console.result(f"{show(output)}: object {found.id}, {found.type_text}, {human(found.size)}")


def _show(console: Console, sif: SIF, found: Descriptor, image: str) -> None:
    """Text for a terminal, without what could steer it."""
    from ...sif.sniff import is_text

    with sif.open_object(found.id) as file:
        head = file.read(HEAD_BYTES) or b""
        if found.size > SHOWN_BYTES or not is_text(head):
            hint = f"use -o FILE or a pipe: sifkit sif dump {found.id} {shell_word(image)} -o FILE"
            raise UsageError(f"object {found.id}: binary object, {human(found.size)}", hint=hint)
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
    with _output_errors():
        sys.stdout.flush()
        sif.extract(found.id, fd, advance=bar.advance)


def _stdout_fd() -> int | None:
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return None


@contextmanager
def _output_errors() -> Iterator[None]:
    """Trouble with standard output is said to be that."""
    try:
        yield
    except (BrokenPipeError, SifkitError):
        raise
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror}") from error
