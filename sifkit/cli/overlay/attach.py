"""``sifkit overlay attach``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import human, show
from ..support import values
from ..support.console import Console, name_fields
from ..support.environment import sif_stamp
from ..support.failures import errors_about
from ..support.frame import verb
from ..support.options import EmbedFlags, Offset, ReplaceOverlay, SIFImage, byte_offset
from ..support.progress import MODES, reporter
from ..support.results import next_step_writable, partition_fields, partition_text, print_notes, warn_unlocked

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit overlay attach image.sif",
        "sifkit overlay attach image.sif overlay.img",
        "sifkit overlay attach --move --replace image.sif overlay.img",
    ],
)
def command(
    console: Console,
    *,
    image: SIFImage,
    overlay: Annotated[str, typer.Argument(metavar="FILE", help="ext3 image (default: overlay.img)")] = "overlay.img",
    offset: Offset = None,
    move: Annotated[bool, typer.Option("--move", help="remove FILE after it was added and synced")] = False,
    replace: ReplaceOverlay = False,
    flags: EmbedFlags,
) -> None:
    """Add an overlay image to a SIF image, for `apptainer exec --writable`.

    FILE is copied with its holes, and kept unless --move is given. Fails while another process may write to FILE. A
    failure leaves both files unchanged.
    """
    values.choice("--progress", flags.progress, MODES)

    from ...overlay.embedding.attaching import attach
    from ...overlay.images.reservation import EmbedOptions

    console.image = image
    start = byte_offset(offset)
    options = EmbedOptions(replace=replace, on_signatures=flags.signatures, require_lock=flags.require_lock)
    with errors_about(image), reporter(flags.progress, console) as bar:
        made = attach(
            image,
            overlay,
            options,
            offset=start,
            move=move,
            stamp=sif_stamp(flags.deterministic),
            begin=lambda total: bar.phase("copy", total, "bytes"),
            advance=bar.advance,
        )
    warn_unlocked(console, image, made.locked)
    print_notes(console, made.notes)
    bar.print_times(console)
    if flags.json:
        fields = {
            **name_fields("path", made.source),
            "partition": partition_fields(made.partition),
            "moved": made.moved,
            "replaced_bytes": made.replaced_bytes,
            "dropped_signatures": list(made.dropped),
            "seconds": round(made.seconds, 3),
            "notes": list(made.notes),
        }
        console.emit(fields, image=image)
        return
    replaced = f", replaces one of {human(made.replaced_bytes)}" if made.replaced_bytes else ""
    removed = f"; removed {show(overlay)}" if made.moved else ""
    console.result(f"{show(image)}: {partition_text(made.partition)}{replaced}, {made.seconds:.2f} s{removed}")
    next_step_writable(console, image)
