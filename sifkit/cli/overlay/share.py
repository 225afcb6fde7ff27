"""``sifkit overlay share``."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import counted, shell_quote, show
from ..support.console import Console, Fields, name_fields
from ..support.environment import sif_stamp
from ..support.failures import errors_about
from ..support.frame import verb
from ..support.options import JSONResult, Offset, Partition, RequireLock, SignatureFlags, byte_offset
from ..support.reading import image_options
from ..support.results import print_notes, warn_unlocked
from .normalize import Base, LowerOverlays, print_directory

if TYPE_CHECKING:
    from ...overlay.marks.sharing import ShareResult

__all__ = ["command"]

WRITE = 0o222


@verb(
    locks=True,
    examples=[
        "sifkit overlay share --base image.sif overlay.img",
        "sifkit overlay share --check --base image.sif overlay.img || echo not yet",
        "sifkit overlay share image.sif",
    ],
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="overlay image, or SIF image with one")],
    base: Base = None,
    overlay: LowerOverlays = None,
    check: Annotated[bool, typer.Option("--check", help="only say what is missing; exit 1 if something is")] = False,
    partition: Partition = None,
    offset: Offset = None,
    flags: SignatureFlags,
    require_lock: RequireLock = False,
    json: JSONResult = False,
) -> int:
    """Make an overlay ready for others, who use it read-only (:ro) in any number of jobs at the same time.

    The filesystem is checked, its journal replayed; marks of removed files are changed as by `sifkit overlay normalize`; files
    in upper/ become readable for all, as by `chmod -R a+rX`: also secrets that are in it. Then nothing has to be written to
    the image any more, and the chmod of the file itself is printed.
    """
    from ...overlay.marks.normalizing import NormalizeOptions
    from ...overlay.marks.sharing import check_shared, share
    from ...overlay.view.overlay_argument import parse_overlays

    console.image = image
    start = byte_offset(offset)
    console.image_options = image_options(partition, offset=start, upper=False)
    options = NormalizeOptions(
        base=base,
        overlays=parse_overlays(overlay or ()),
        partition=partition,
        offset=start,
        on_signatures=flags.signatures,
        require_lock=require_lock,
        stamp=sif_stamp(False),
    )
    with errors_about(image):
        if check:
            done = check_shared(image, options)
        else:
            done = share(image, options, observe=lambda path, marks: print_directory(console, path, marks))
    if done.locked is not None:
        warn_unlocked(console, image, done.locked)
    print_notes(console, done.notes)
    if json:
        console.emit(_fields(done, check=check), image=image)
    elif check:
        for reason in done.missing:
            console.line(f"{show(image)}: {reason}")
        if not done.missing:
            console.result(f"{show(image)}: ready for read-only use by all")
    else:
        console.result(f"{show(image)}: {_result_text(done)}")
        if advice := _chmod(image, done):
            console.note(f"the file itself keeps its mode; run: {advice}")
        if console.err_is_terminal:
            console.note(f"use it: {_use(image, done)}")
    return 1 if done.missing else 0


def _chmod(image: str, done: ShareResult) -> str:
    """Return the command that makes the image file readable for all and writable for none; "" if it is so."""
    if done.file_mode & (stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH | WRITE) == 0o444:
        return ""
    return f"chmod {'555' if done.file_mode & 0o111 else '444'} {shell_quote(image)}"


def _use(image: str, done: ShareResult) -> str:
    name = shell_quote(image)
    return f"apptainer exec {name} CMD" if done.is_sif else f"apptainer exec --overlay {name}:ro IMAGE.sif CMD"


def _fields(done: ShareResult, *, check: bool) -> Fields:
    plan = done.plan
    return {
        "check": check,
        "ready": not done.missing,
        "missing": list(done.missing),
        "journal_replayed": done.replayed,
        "whiteouts_converted": plan.converted,
        "whiteouts_created": plan.hidden,
        "opaque_converted": plan.opened,
        "marks_removed": plan.removed,
        "opaque_left": plan.opaque,
        "modes_changed": done.modes,
        "file_mode": f"{done.file_mode:04o}",
        "problem_count": plan.problem_count,
        "problems": [{**name_fields("path", one.path), "reason": one.reason} for one in plan.problems],
        "dropped_signatures": list(done.dropped),
        "notes": list(done.notes),
    }


def _result_text(done: ShareResult) -> str:
    marked = len(done.plan.directories)
    parts = (
        (done.replayed, "journal replayed"),
        (marked, f"marks of removed files changed in {counted(marked, 'directory', 'directories')}"),
        (done.modes, f"{counted(done.modes, 'file')} made readable for all"),
    )
    text = ", ".join(text for found, text in parts if found)
    return f"{text}; ready for read-only use" if text else "nothing to do: it is ready for read-only use"
