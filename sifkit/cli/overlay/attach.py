"""``sifkit overlay attach``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import human, show
from ..sif.session import Deterministic, concerning, stamp
from ..support import values
from ..support.console import Console, named
from ..support.embedding import (
    DropSignatures,
    KeepSignatures,
    Replace,
    RequireLock,
    on_signatures,
    partition_fields,
    partition_text,
    tell_locks,
)
from ..support.frame import verb
from ..support.progress import MODES, reporter
from ..support.render import shell_word

__all__ = ["command"]


@verb(
    examples=[
        "sifkit overlay attach image.sif",
        "sifkit overlay attach image.sif overlay.img",
        "sifkit overlay attach --move --replace image.sif overlay.img",
    ]
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="the SIF image")],
    overlay: Annotated[str, typer.Argument(metavar="FILE", help="the ext3 image (default: overlay.img)")] = "overlay.img",
    move: Annotated[bool, typer.Option("--move", help="remove FILE when it is in the SIF and on storage")] = False,
    replace: Replace = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    deterministic: Deterministic = False,
    progress: Annotated[str, typer.Option("--progress", metavar="|".join(MODES), help="how to tell how far it is")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object")] = False,
) -> None:
    """Put an overlay image into a SIF image, where `apptainer exec --writable` finds it. FILE is copied, and kept unless
    --move is given; holes stay holes.

    Refused while somebody may write to FILE. A failure leaves both as they were.
    """
    values.choice("--progress", progress, MODES)
    signatures = on_signatures(drop_signatures, keep_broken_signatures)

    from ...overlay.embedding.attaching import attach
    from ...overlay.embedding.reservation import EmbedOptions

    console.image = image
    options = EmbedOptions(replace=replace, on_signatures=signatures, require_lock=require_lock)
    with concerning(image), reporter(progress, console) as bar:
        made = attach(
            image,
            overlay,
            options,
            move=move,
            stamp=stamp(deterministic),
            begin=lambda total: bar.phase("copy", total, "bytes"),
            advance=bar.advance,
        )
    tell_locks(console, image, made.locked)
    for note in made.notes:
        console.note(note)
    bar.tell_times(console)
    if json:
        fields = {
            **named("path", made.source),
            "partition": partition_fields(made.partition),
            "moved": made.moved,
            "replaced_bytes": made.replaced_bytes,
            "dropped_signatures": list(made.dropped),
            "seconds": round(made.seconds, 3),
            "notes": list(made.notes),
        }
        console.emit(fields, image=image)
        return
    instead = f", instead of one of {human(made.replaced_bytes)}" if made.replaced_bytes else ""
    gone = f"; {show(overlay)} is removed" if made.moved else ""
    console.result(f"{show(image)}: {partition_text(made.partition)}{instead}, {made.seconds:.2f} s{gone}")
    if console.err_is_terminal:
        console.note(f"use it: apptainer exec --writable {shell_word(image)} CMD")
