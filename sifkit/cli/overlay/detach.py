"""``sifkit overlay detach``."""

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
    RequireLock,
    on_signatures,
    partition_fields,
    tell_locks,
)
from ..support.frame import verb
from ..support.progress import MODES, reporter
from ..support.render import shell_word

__all__ = ["command"]


@verb(
    examples=[
        "sifkit overlay detach image.sif",
        "sifkit overlay detach image.sif -o overlay.img",
        "sifkit overlay detach --keep image.sif -o copy.img",
        "sifkit overlay detach --partition 4 image.sif",
    ]
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="the SIF image")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="the file to make")] = "overlay.img",
    keep: Annotated[bool, typer.Option("--keep", help="only copy: the overlay stays in the SIF")] = False,
    force: Annotated[bool, typer.Option("--force", "-F", help="replace FILE if it is an unused ext3 image or empty")] = False,
    partition: Annotated[
        str, typer.Option("--partition", metavar="ID|overlay", help="which overlay, where there are several")
    ] = "overlay",
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    require_lock: RequireLock = False,
    deterministic: Deterministic = False,
    progress: Annotated[str, typer.Option("--progress", metavar="|".join(MODES), help="how to tell how far it is")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object")] = False,
) -> None:
    """Take the overlay out of a SIF image: it becomes a file, as `apptainer exec --overlay` takes it, and its space in the SIF
    is given back. Holes stay holes.

    Refused while a container uses the overlay. Until FILE is whole and on storage the SIF is as it was.
    """
    values.choice("--progress", progress, MODES)
    signatures = on_signatures(drop_signatures, keep_broken_signatures)

    from ...overlay.embedding.attaching import detach

    console.image = image
    with concerning(image), reporter(progress, console) as bar:
        made = detach(
            image,
            output,
            partition=partition,
            keep=keep,
            force=force,
            on_signatures=signatures,
            require_lock=require_lock,
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
            **named("path", made.path),
            "partition": partition_fields(made.partition),
            "kept": made.kept,
            "dropped_signatures": list(made.dropped),
            "seconds": round(made.seconds, 3),
            "notes": list(made.notes),
        }
        console.emit(fields, image=image)
        return
    where = "also in" if made.kept else "no longer in"
    size = human(made.partition.size)
    console.result(f"{show(output)}: {size}, {where} {show(image)} (object {made.partition.id}), {made.seconds:.2f} s")
    if console.err_is_terminal:
        console.note(f"use it: apptainer exec --overlay {shell_word(output)} IMAGE.sif CMD")
