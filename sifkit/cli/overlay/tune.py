"""``sifkit overlay tune``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ...errors import UsageError, counted, human, show
from ..support import values
from ..support.console import Console, Fields, name_fields
from ..support.editing import open_for_editing
from ..support.frame import verb
from ..support.options import EditFlags

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit overlay tune --reserved-blocks 1 overlay.img",
        "sifkit overlay tune --label results overlay.img",
        "sifkit overlay tune -r 1 --partition overlay image.sif",
    ],
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="overlay image")],
    reserved: Annotated[
        str | None, typer.Option("-r", "--reserved-blocks", metavar="N", help="number of blocks reserved for root")
    ] = None,
    label: Annotated[str | None, typer.Option("-L", "--label", metavar="TEXT", help="volume label, at most 16 bytes")] = None,
    flags: EditFlags,
) -> None:
    """Change the settings of an overlay image, as tune2fs does.

    Reserve one block for root: of an image without any, Apptainer without root (fuse2fs) keeps 10 % free.
    """
    if reserved is None and label is None:
        raise UsageError("nothing to change", hint="give --reserved-blocks or --label")
    if flags.upper:
        raise UsageError("--upper is for paths", hint="leave it out")
    blocks = None if reserved is None else _blocks(reserved)
    name = None if label is None else values.label("--label", label)
    with open_for_editing(console, image, flags) as editor:
        filesystem = editor.filesystem
        most = filesystem.superblock.blocks_count // 2
        if blocks is not None:
            if blocks > most:
                raise UsageError(f"--reserved-blocks {reserved}: must be from 0 to {most:,}", hint="an overlay needs 1")
            filesystem.set_reserved_blocks(blocks)
        if name is not None:
            filesystem.set_label(name)
        found = filesystem.superblock
    if blocks == 0:
        console.warn("no block is reserved for root: Apptainer without root keeps 10 % of the image free then")
    reserved_bytes = found.reserved_blocks * found.block_size
    if flags.json:
        fields: Fields = {"reserved_bytes": reserved_bytes, **name_fields("label", found.label)}
        console.emit(fields, image=image)
    else:
        text = (
            f"{counted(found.reserved_blocks, 'block')} reserved ({human(reserved_bytes)}), label {show(found.label) or 'none'}"
        )
        console.result(f"{show(os.fsdecode(image))}: {text}")


def _blocks(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"--reserved-blocks {show(text)}: not a number of blocks", hint="an overlay needs 1")
    return int(text)
