"""``sifkit overlay resize``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import UsageError, counted, human, show
from ..support import values
from ..support.console import Console, Fields
from ..support.environment import sif_stamp
from ..support.failures import errors_about
from ..support.frame import verb
from ..support.image_path import reject_swapped
from ..support.options import JSONResult, Offset, Partition, ProgressMode, RequireLock, SignatureFlags, byte_offset
from ..support.progress import MODES, reporter
from ..support.reading import image_options
from ..support.results import filesystem_fields, gap_text, partition_fields, partition_text, print_notes, warn_unlocked

if TYPE_CHECKING:
    from ...overlay.resizing.resize_request import ResizeResult, ResizeStart, ResizeTarget

__all__ = ["command"]

SIZE = "Size"
MIB = 1 << 20


def _option(*names: str, text: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=SIZE, **more)


@verb(
    locks=True,
    examples=[
        "sifkit overlay resize overlay.img --size 700M",
        "sifkit overlay resize overlay.img 700M",
        "sifkit overlay resize overlay.img --size +200M",
        "sifkit overlay resize overlay.img --minimum --slack 5%",
        "sifkit overlay resize image.sif --size 2G",
        "sifkit overlay resize overlay.img --size 100M --dry-run",
    ],
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="overlay image, or SIF image with one")],
    wanted: Annotated[
        str | None, typer.Argument(metavar="SIZE", help="new size with a unit, as 700M; the same as --size 700M")
    ] = None,
    size: Annotated[
        str | None,
        _option(
            "--size",
            "-s",
            metavar="SIZE",
            text="new size, such as 700M or 1.5G (a bare number is in MiB); +200M adds that much, -200M takes it away",
        ),
    ] = None,
    minimum: Annotated[bool, _option("--minimum", "-M", text="shrink to the smallest size")] = False,
    slack: Annotated[
        str | None,
        _option("--slack", metavar="SIZE|PERCENT", text="with --minimum: leave this much free in addition, such as 5% or 50M"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be done, and write nothing")] = False,
    check: Annotated[
        bool, typer.Option("--fsck", help="make the repairs that are safe first, as sifkit overlay fsck -fp")
    ] = False,
    partition: Partition = None,
    offset: Offset = None,
    flags: SignatureFlags,
    require_lock: RequireLock = False,
    progress: ProgressMode = "auto",
    json: JSONResult = False,
) -> None:
    """Grow or shrink an overlay, in a file or a SIF image, without mounting it and without root.

    The filesystem and its file or partition get the new size together. An interrupted resize leaves a sound filesystem of the
    old size or the new one. Files stay as they are; a filesystem that grows gets more inodes in proportion. In a SIF image an
    overlay that is not the last object is moved to the end. Fails while a container uses the image.
    """
    values.choice("--progress", progress, MODES)
    if wanted is not None:
        reject_swapped("overlay resize", image, wanted, image=image, fault="the image comes before the size")
    target = _target(wanted, size, minimum, slack)
    if dry_run and check:
        raise UsageError("--dry-run writes nothing, and --fsck makes repairs", hint="give one of them")
    from ...overlay.resizing.image_resize import resize
    from ...overlay.resizing.resize_request import ResizeOptions

    console.image = image
    start = byte_offset(offset)
    console.image_options = image_options(partition, offset=start, upper=False)
    options = ResizeOptions(
        target=target,
        dry_run=dry_run,
        check_first=check,
        partition=partition,
        offset=start,
        on_signatures=flags.signatures,
        require_lock=require_lock,
        stamp=sif_stamp(False),
    )
    with errors_about(image), reporter(progress, console) as bar:

        def begin(start: ResizeStart) -> None:
            bar.clear()
            _print_start(console, image, start)

        done = resize(image, options, progress=bar, begin=begin)
    warn_unlocked(console, image, done.locked)
    print_notes(console, done.notes)
    bar.print_times(console)
    if json:
        console.emit(_fields(done), image=image)
    elif dry_run:
        for line in _plan_lines(done):
            console.line(f"{show(image)}: {line}")
    else:
        console.result(f"{show(image)}: {_result_text(done)}")


def _target(wanted: str | None, size: str | None, minimum: bool, slack: str | None) -> ResizeTarget:
    """Return the size that is asked for. Raises UsageError unless it is given once."""
    from ...overlay.resizing.resize_request import ResizeTarget

    if (wanted is not None) + (size is not None) + minimum > 1:
        raise UsageError("SIZE, --size and --minimum all say how large it becomes", hint="give one of them")
    if slack is not None and not minimum:
        raise UsageError("--slack is for --minimum", hint="give --minimum, or leave it out")
    if minimum:
        share, more = _slack(slack)
        return ResizeTarget(minimum=True, slack_share=share, slack_bytes=more)
    if wanted is not None:
        number = wanted.strip().lstrip("+")
        if number.replace(".", "", 1).isdigit() and number.strip("0."):
            raise UsageError(f"{show(wanted)} is blocks to resize2fs and MiB to apptainer", hint=f"write {show(wanted)}M")
        size = wanted
    if size is None:
        raise UsageError("no size is given", hint="give --size 700M, --size +200M or --minimum")
    text = size.strip()
    name = "--size" if wanted is None else "SIZE"
    if text[:1] in ("+", "-"):
        change = values.size(name, text[1:])
        return ResizeTarget(change=change if text[0] == "+" else -change)
    return ResizeTarget(size=values.size(name, text))


def _slack(text: str | None) -> tuple[float, int]:
    """Return ``--slack`` as a share of the smallest size, and as bytes."""
    if text is None:
        return 0.0, 0
    if text.strip().endswith("%"):
        number = text.strip().removesuffix("%")
        if not number.replace(".", "", 1).isdigit() or len(number) > 6:
            raise UsageError(f"--slack {show(text)}: not a percentage", hint="write --slack 5%")
        return float(number) / 100, 0
    return 0.0, values.size("--slack", text, example="5% or 50M")


def _print_start(console: Console, image: str, start: ResizeStart) -> None:
    """Say before the first write what takes space on the host, and what takes time."""
    free = "" if start.available_bytes is None else f"; {human(start.available_bytes)} are free"
    if start.copied_bytes:
        console.note(f"{show(image)}: needs up to {human(start.needed_bytes)} beside the old one until it is replaced{free}")
    elif start.needed_bytes > MIB:
        console.note(f"{show(image)}: needs up to {human(start.needed_bytes)} more on the host{free}")
    if start.moved_bytes or start.moved_inodes:
        console.detail(f"{show(image)}: moves {_moves(start)}")


def _moves(start: ResizeStart) -> str:
    inodes = f" and {counted(start.moved_inodes, 'inode')}" if start.moved_inodes else ""
    return f"{human(start.moved_bytes)}{inodes}"


def _asked(done: ResizeResult) -> int:
    """Return the size that was asked for: of the file or partition, or of a filesystem in a larger file."""
    return done.after.size_bytes if done.fixed else done.after.file_bytes


def _sizes(done: ResizeResult) -> str:
    before, after = done.before, done.after
    text = (
        f"{human(before.size_bytes)} -> {human(_asked(done))}, {before.groups:,} -> {counted(after.groups, 'group')},"
        f" inodes {before.inodes:,} -> {after.inodes:,}, {human(after.free_bytes)} free"
    )
    if not done.fixed and done.unused_bytes >= after.block_size:
        text += f" (the filesystem has {human(after.size_bytes)}: the rest is too little for a group)"
    return text


def _result_text(done: ResizeResult) -> str:
    if done.unchanged:
        return f"nothing to do: it has {human(_asked(done))} already"
    place = "" if done.partition is None else f"{partition_text(done.partition)}, "
    return f"{place}{_sizes(done)}, {done.seconds:.2f} s{gap_text(done.old_partition)}"


def _plan_lines(done: ResizeResult) -> list[str]:
    if done.unchanged:
        return [_result_text(done)]
    start = done.start
    lines = [_sizes(done)]
    if start.moved_bytes or start.moved_inodes:
        lines.append(f"would move {_moves(start)} inside the filesystem")
    if start.copied_bytes and done.partition is not None:
        lines.append(f"would move object {done.partition.id} to the end of the image, copying {human(start.copied_bytes)}")
    elif start.copied_bytes:
        lines.append(f"would be resized as a copy of {human(start.copied_bytes)}: it has no journal")
    if done.dropped:
        lines.append(
            f"would remove {'signature' if len(done.dropped) == 1 else 'signatures'} {', '.join(map(str, done.dropped))}"
        )
    lines.append(f"would need up to {human(start.needed_bytes)} on the host" if start.needed_bytes else "would need no space")
    return lines


def _fields(done: ResizeResult) -> Fields:
    start = done.start
    return {
        "dry_run": done.dry_run,
        "unchanged": done.unchanged,
        "before": filesystem_fields(done.before),
        "after": filesystem_fields(done.after),
        "unused_bytes": done.unused_bytes,
        "moved_bytes": start.moved_bytes,
        "moved_inodes": start.moved_inodes,
        "copied_bytes": start.copied_bytes,
        "needed_bytes": start.needed_bytes,
        "partition": partition_fields(done.partition),
        "old_partition": partition_fields(done.old_partition),
        "dropped_signatures": list(done.dropped),
        "repaired": done.repaired,
        "seconds": round(done.seconds, 3),
        "notes": list(done.notes),
    }
