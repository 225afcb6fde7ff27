"""``sifkit overlay clone``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import human, show
from ..support import values
from ..support.console import Console
from ..support.frame import verb
from ..support.options import JSONResult, Offset, ProgressMode, byte_offset
from ..support.progress import MODES, reporter
from ..support.results import next_step_overlay, print_notes, warn_unlocked

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit overlay clone overlay.img job-1.img",
        "for i in 1 2 3; do sifkit overlay clone --new-uuid overlay.img job-$i.img; done",
        "sifkit overlay clone --offset 1048576 disk.img overlay.img",
    ],
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="ext3 image to copy")],
    target: Annotated[str, typer.Argument(metavar="NEW", help="name of the copy; must not exist (but see --force)")],
    offset: Offset = None,
    new_uuid: Annotated[bool, typer.Option("--new-uuid", help="give the copy a new UUID")] = False,
    force: Annotated[
        bool, typer.Option("--force", "-F", help="replace NEW if it is an ext3 image not in use, or empty")
    ] = False,
    progress: ProgressMode = "auto",
    json: JSONResult = False,
) -> None:
    """Copy an overlay image, for example one for each job.

    On filesystems with reflinks (XFS, Btrfs) the copy shares its blocks with the original and takes no time; elsewhere data
    is copied and holes are preserved. The mode is preserved. Fails while a container may write to the original.
    """
    values.choice("--progress", progress, MODES)
    from ...overlay.cloning import clone

    console.image = image
    start = byte_offset(offset)
    with reporter(progress, console) as bar:
        made = clone(image, target, offset=start, new_uuid=new_uuid, force=force, progress=bar)
    warn_unlocked(console, image, made.locked)
    if made.journal_dirty:
        console.warn(f"the journal of {show(image)} is not empty: the copy replays it when it is first mounted writable")
    print_notes(console, made.notes)
    locked = "locked during the copy" if made.locked else "not locked"
    console.detail(f"{show(image)}: {locked}, UUID {made.uuid} {'new' if made.new_uuid else 'kept'}")
    bar.print_times(console)
    if json:
        console.emit(
            {
                "path": show(made.path),
                "size_bytes": made.size_bytes,
                "copied_bytes": made.copied_bytes,
                "method": made.method,
                "uuid": str(made.uuid),
                "new_uuid": made.new_uuid,
                "journal_dirty": made.journal_dirty,
                "locked": made.locked,
                "seconds": round(made.seconds, 3),
                "notes": list(made.notes),
            },
            image=image,
        )
        return
    how = "sharing all blocks" if made.method == "reflink" else f"{human(made.copied_bytes)} copied"
    uuid = f", UUID {made.uuid}" if made.new_uuid else ""
    console.result(f"{show(made.path)}: {human(made.size_bytes)}, {how}{uuid}, {made.seconds:.2f} s")
    next_step_overlay(console, target)
