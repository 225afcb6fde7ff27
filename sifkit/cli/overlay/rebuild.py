"""``sifkit overlay rebuild``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...errors import human, show
from ..support import values
from ..support.console import Console, Fields, name_fields
from ..support.environment import sif_stamp
from ..support.failures import errors_about
from ..support.frame import verb
from ..support.options import (
    JSONResult,
    Offset,
    Partition,
    ProgressMode,
    RequireLock,
    SignatureFlags,
    byte_offset,
)
from ..support.progress import MODES, reporter
from ..support.reading import image_options
from ..support.results import filesystem_fields, gap_text, partition_fields, partition_text, print_notes, warn_unlocked

if TYPE_CHECKING:
    from ...overlay.resizing.rebuilding import RebuildStart

__all__ = ["command"]

NEW = "New filesystem"


def _option(*names: str, text: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=NEW, **more)


@verb(
    locks=True,
    examples=[
        "sifkit overlay rebuild -N 50K overlay.img",
        "sifkit overlay rebuild --size auto overlay.img",
        "sifkit overlay rebuild --size 10G -b 4096 -N 2M overlay.img",
        "sifkit overlay rebuild -N 50K image.sif",
    ],
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="overlay image, or SIF image with one")],
    size: Annotated[
        str | None,
        _option(
            "--size",
            "-s",
            metavar="SIZE",
            text="size as 500M or 1.5G (a bare number is in MiB), or auto: the content plus 25 % (default: as it is)",
        ),
    ] = None,
    inodes: Annotated[
        str | None,
        _option(
            "--inodes",
            "-N",
            metavar="COUNT",
            text="number of inodes, such as 200000, 500K or 1M (default: in proportion to the size; if nearly all of them are"
            " used, twice what the content needs)",
        ),
    ] = None,
    inode_ratio: Annotated[
        str | None, _option("--inode-ratio", "-i", metavar="BYTES", text="bytes per inode, from 1K to 64M")
    ] = None,
    block_size: Annotated[
        str | None, _option("--block-size", "-b", metavar="BYTES", text="block size: 1024, 2048 or 4096 (default: as it is)")
    ] = None,
    inode_size: Annotated[
        str | None,
        _option(
            "--inode-size",
            "-I",
            metavar="BYTES",
            text="inode size: a power of two from 128 to the block size (default: as it is)",
        ),
    ] = None,
    journal: Annotated[
        str | None,
        _option(
            "--journal", "-J", metavar="size=SIZE", text="journal size, such as size=16M (default: as it is, if the size stays)"
        ),
    ] = None,
    keep_uuid: Annotated[bool, _option("--keep-uuid", text="keep the UUID, instead of a new one")] = False,
    partition: Partition = None,
    offset: Offset = None,
    flags: SignatureFlags,
    require_lock: RequireLock = False,
    progress: ProgressMode = "auto",
    json: JSONResult = False,
) -> None:
    """Replace an overlay by a fresh filesystem with the same files: more inodes, another block size, another size.

    Owners, modes, times, attributes, flags of chattr, hard links, holes, the label and the share of reserved blocks are
    preserved. The old image is replaced when the new one is complete; until then the host needs space for both. Fails while a
    container uses the image. To change only the size, use sifkit overlay resize.
    """
    values.choice("--progress", progress, MODES)
    from ...overlay.resizing.rebuilding import RebuildOptions, rebuild

    console.image = image
    start = byte_offset(offset)
    console.image_options = image_options(partition, offset=start, upper=False)
    options = RebuildOptions(
        size=None if size is None else _size(size),
        inodes=None if inodes is None else values.count("--inodes", inodes),
        inode_ratio=None if inode_ratio is None else values.size("--inode-ratio", inode_ratio, bare=1, example="16K"),
        block_size=None if block_size is None else values.size("--block-size", block_size, bare=1, example="4096"),
        inode_size=None if inode_size is None else values.size("--inode-size", inode_size, bare=1, example="256"),
        journal_bytes=None if journal is None else values.journal_size("--journal", journal),
        keep_uuid=keep_uuid,
        partition=partition,
        offset=start,
        on_signatures=flags.signatures,
        require_lock=require_lock,
        stamp=sif_stamp(False),
    )

    with errors_about(image), reporter(progress, console) as bar:

        def begin(start: RebuildStart) -> None:
            bar.clear()
            free = "" if start.available_bytes is None else f"; {human(start.available_bytes)} are free"
            console.note(
                f"{show(image)}: needs up to {human(start.needed_bytes)} beside the old one until it is replaced{free}"
            )

        made = rebuild(image, options, progress=bar, begin=begin)
    warn_unlocked(console, image, made.locked)
    print_notes(console, made.notes)
    bar.print_times(console)
    if json:
        fields: Fields = {
            "before": filesystem_fields(made.before),
            "after": filesystem_fields(made.after),
            "files": made.files,
            **name_fields("label", made.label),
            "partition": partition_fields(made.partition),
            "old_partition": partition_fields(made.old_partition),
            "dropped_signatures": list(made.dropped),
            "seconds": round(made.seconds, 3),
            "notes": list(made.notes),
        }
        console.emit(fields, image=image)
        return
    before, after = made.before, made.after
    place = "" if made.partition is None else f"{partition_text(made.partition)}, "
    sizes = f"{human(before.size_bytes)} -> {human(after.size_bytes)}, {human(after.free_bytes)} free"
    inodes_now = f"inodes {before.inodes:,} -> {after.inodes:,} ({after.inodes_used:,} used)"
    gap = gap_text(made.old_partition)
    console.result(f"{show(image)}: {place}{sizes}, {inodes_now}, {made.seconds:.2f} s{gap}")


def _size(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else values.size("--size", text)
