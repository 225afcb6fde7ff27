"""``sifkit overlay tune``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import UsageError, counted, human, show
from ..support import values
from ..support.console import Console, Fields, name_fields
from ..support.editing import open_filesystem_for_editing
from ..support.frame import verb
from ..support.options import FilesystemEditFlags

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit overlay tune --reserved-blocks 1 overlay.img",
        "sifkit overlay tune -m 5 overlay.img",
        "sifkit overlay tune --label results overlay.img",
        "sifkit overlay tune --uuid random job-1.img",
        "sifkit overlay tune -r 1 image.sif",
    ],
    allow_empty=("label",),
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="overlay image, or SIF image with one")],
    reserved: Annotated[
        str | None, typer.Option("-r", "--reserved-blocks", metavar="N", help="number of blocks reserved for root")
    ] = None,
    percent: Annotated[
        str | None, typer.Option("-m", "--reserved-percent", metavar="PERCENT", help="the same in percent, 0 to 50")
    ] = None,
    label: Annotated[
        str | None, typer.Option("-L", "--label", metavar="TEXT", help='volume label, at most 16 bytes; "" clears it')
    ] = None,
    uuid: Annotated[
        str | None, typer.Option("-U", "--uuid", metavar="UUID|random|time", help="UUID, a random one, or one made of the time")
    ] = None,
    flags: FilesystemEditFlags,
) -> None:
    """Change the settings of an overlay image, as tune2fs does: blocks reserved for root, label, UUID.

    Reserve one block for root: of an image without any, Apptainer without root (fuse2fs) keeps 10 % free. The copies of the
    superblock are changed too. Fails while a container uses the image.
    """
    if all(given is None for given in (reserved, percent, label, uuid)):
        raise UsageError("nothing to change", hint="give --reserved-blocks, -m, --label or --uuid")
    if reserved is not None and percent is not None:
        raise UsageError("-r and -m both set the reserved blocks", hint="give one of them")
    blocks = None if reserved is None else _blocks(reserved)
    share = None if percent is None else values.percent("-m", percent)
    name = None if label is None else values.label("--label", label)
    identity = None if uuid is None else _uuid(uuid)
    with open_filesystem_for_editing(console, image, flags) as editor:
        filesystem = editor.filesystem
        count = filesystem.superblock.blocks_count
        if share is not None:
            blocks = int(share * count / 100)
        elif blocks is not None and blocks > count // 2:
            raise UsageError(f"--reserved-blocks {reserved}: must be from 0 to {count // 2:,}", hint="an overlay needs 1")
        filesystem.change_settings(label=name, uuid=identity, reserved_blocks=blocks)
        found = filesystem.superblock
    if blocks == 0:
        console.warn("no block is reserved for root: Apptainer without root keeps 10 % of the image free then")
    reserved_bytes = found.reserved_blocks * found.block_size
    if flags.json:
        fields: Fields = {
            "reserved_blocks": found.reserved_blocks,
            "reserved_bytes": reserved_bytes,
            **name_fields("label", found.label),
            "uuid": str(found.uuid),
        }
        console.emit(fields, image=image)
    else:
        reserve = f"{counted(found.reserved_blocks, 'block')} reserved ({human(reserved_bytes)})"
        text = f"{reserve}, label {show(found.label) or 'none'}, UUID {found.uuid}"
        console.result(f"{show(os.fsdecode(image))}: {text}")


def _blocks(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"--reserved-blocks {show(text)}: not a number of blocks", hint="an overlay needs 1")
    return int(text)


def _uuid(text: str) -> UUID:
    from uuid import uuid1, uuid4

    if text == "time":
        return uuid1()
    if text == "clear":
        raise UsageError("--uuid clear: an image without a UUID gets another one at its next check", hint="give random")
    return values.uuid("--uuid", text) or uuid4()
