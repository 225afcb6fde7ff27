"""``sifkit overlay undo``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import counted, human, show
from ..support.console import Console
from ..support.environment import sif_stamp
from ..support.failures import errors_about
from ..support.frame import verb
from ..support.options import JSONResult, Offset, Partition, RequireLock, SignatureFlags, byte_offset
from ..support.reading import image_options
from ..support.render import rfc3339
from ..support.results import partition_fields, print_notes, warn_unlocked

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit overlay undo overlay.undo overlay.img",
        "sifkit overlay undo --partition overlay sif.undo image.sif",
    ],
)
def command(
    console: Console,
    *,
    undo: Annotated[str, typer.Argument(metavar="FILE", help="file that sifkit overlay fsck --undo FILE made")],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="the image that was checked")],
    partition: Partition = None,
    offset: Offset = None,
    require_lock: RequireLock = False,
    flags: SignatureFlags,
    json: JSONResult = False,
) -> None:
    """Put an image back as it was before a check, byte for byte.

    The undo file of a check that was interrupted works too. Fails, and changes nothing, if the image is another one, or if it
    was mounted or changed since. FILE is kept.
    """
    from ...overlay.checking import CheckPlace, undo_check

    console.image = image
    start = byte_offset(offset)
    console.image_options = image_options(partition, offset=start, upper=False)
    place = CheckPlace(
        partition=partition,
        offset=start,
        on_signatures=flags.signatures,
        require_lock=require_lock,
        stamp=sif_stamp(False),
    )
    with errors_about(image):
        done, opened = undo_check(undo, image, place)
    warn_unlocked(console, image, opened.locked is not False)
    print_notes(console, opened.notes)
    if json:
        console.emit(
            {
                "undo": show(undo),
                "blocks": done.blocks,
                "written_bytes": done.bytes,
                "complete": done.complete,
                "checked": rfc3339(done.made * 10**9),
                "partition": partition_fields(opened.partition),
                "dropped_signatures": list(opened.dropped),
                "notes": list(opened.notes),
            },
            image=image,
        )
        return
    if not done.blocks:
        console.result(f"{show(image)}: it is as it was before the check")
        return
    console.result(f"{show(image)}: put back as it was before the check, {counted(done.blocks, 'block')}, {human(done.bytes)}")
