"""``sifkit overlay detach``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import human, show
from ..support import values
from ..support.console import Console, name_fields
from ..support.environment import sif_stamp
from ..support.failures import errors_about
from ..support.frame import verb
from ..support.options import EmbedFlags, SIFImage
from ..support.progress import MODES, reporter
from ..support.results import next_step_overlay, partition_fields, print_notes, warn_unlocked

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit overlay detach image.sif",
        "sifkit overlay detach image.sif -o overlay.img",
        "sifkit overlay detach --keep image.sif -o copy.img",
        "sifkit overlay detach --partition 4 image.sif",
    ],
)
def command(
    console: Console,
    *,
    image: SIFImage,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="file to create")] = "overlay.img",
    keep: Annotated[bool, typer.Option("--keep", help="copy the overlay instead of moving it")] = False,
    force: Annotated[
        bool, typer.Option("--force", "-F", help="replace FILE if it is an ext3 image not in use, or empty")
    ] = False,
    partition: Annotated[
        str, typer.Option("--partition", metavar="ID|overlay", help="overlay to move, if there are several")
    ] = "overlay",
    flags: EmbedFlags,
) -> None:
    """Move the overlay of a SIF image to a file, for `apptainer exec --overlay`, and free its space in the SIF image.

    Holes are preserved. Fails while a container uses the overlay. The SIF image is not changed before FILE is complete and
    synced.
    """
    values.choice("--progress", flags.progress, MODES)

    from ...overlay.embedding.attaching import detach

    console.image = image
    with errors_about(image), reporter(flags.progress, console) as bar:
        made = detach(
            image,
            output,
            partition=partition,
            keep=keep,
            force=force,
            on_signatures=flags.signatures,
            require_lock=flags.require_lock,
            stamp=sif_stamp(flags.deterministic),
            begin=lambda total: bar.phase("copy", total, "bytes"),
            advance=bar.advance,
        )
    warn_unlocked(console, image, made.locked)
    print_notes(console, made.notes)
    bar.print_times(console)
    if flags.json:
        fields = {
            **name_fields("path", made.path),
            "partition": partition_fields(made.partition),
            "kept": made.kept,
            "dropped_signatures": list(made.dropped),
            "seconds": round(made.seconds, 3),
            "notes": list(made.notes),
        }
        console.emit(fields, image=image)
        return
    where = "also in" if made.kept else "removed from"
    size = human(made.partition.size)
    console.result(f"{show(output)}: {size}, {where} {show(image)} (object {made.partition.id}), {made.seconds:.2f} s")
    next_step_overlay(console, output)
