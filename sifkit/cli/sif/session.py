"""SIF images opened for a verb: reading and editing sessions, warnings, signatures that an edit breaks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

from ...errors import shell_quote, show
from ..support.console import Console
from ..support.environment import sif_stamp
from ..support.failures import errors_about

if TYPE_CHECKING:
    from ...sif import SIF, Descriptor, Notice, SIFStamp
    from ..support.options import SIFEditFlags

__all__ = [
    "DeferredNotes",
    "check_not_written",
    "check_unmounted",
    "edit_sif",
    "open_sif",
    "print_warnings",
    "same_file",
    "signatures_to_drop",
]

MAX_WARNINGS = 3


def check_unmounted(image: str, found: Iterable[Descriptor]) -> None:
    """Raise ImageInUseError if the kernel has one of these partitions mounted, or a FUSE server may write to the image.

    Locks are checked by the library.
    """
    from ...in_use import check_unused

    for descriptor in found:
        if descriptor.partition is not None and descriptor.size:
            span = descriptor.offset, descriptor.size
            check_unused(image, own_lock=True, span=span, shown=f"{show(image)}: object {descriptor.id}")


def check_not_written(image: str) -> Sequence[str]:
    """Raise ImageInUseError if the image is mounted writable, also by FUSE; return the mount points of read-only mounts."""
    from ...in_use import check_unused

    use = check_unused(image, writers_only=True, own_lock=True)
    return [mount.path or mount.device for mount in use.mounts]


@contextmanager
def _open(console: Console, image: str, mode: Literal["r", "r+"], stamp: SIFStamp | None) -> Iterator[SIF]:
    from ...sif import SIF

    console.image = image
    with errors_about(image), SIF.open(image, mode, stamp=stamp) as sif:
        yield sif


class DeferredNotes:
    """Warnings and notes of an edit, printed when it has succeeded: a failed one prints its error only."""

    def __init__(self, console: Console) -> None:
        self.program = console.program
        self._console = console
        self._pending: list[Callable[[], None]] = []

    def warn(self, text: str) -> None:
        """Add a warning."""
        self._pending.append(partial(self._console.warn, text))

    def note(self, text: str) -> None:
        """Add a note."""
        self._pending.append(partial(self._console.note, f"{self.program}: {text}"))

    def flush(self) -> None:
        """Print them."""
        for print_one in self._pending:
            print_one()


@contextmanager
def open_sif(console: Console, image: str) -> Iterator[SIF]:
    """Open an image for reading; print its warnings after the block."""
    with _open(console, image, "r", None) as sif:
        yield sif
        print_warnings(console, image, sif.warnings)


@contextmanager
def edit_sif(console: Console, image: str, *, deterministic: bool = False) -> Iterator[tuple[SIF, DeferredNotes]]:
    """Open an image for editing, locked; print notes and warnings after the block."""
    with _open(console, image, "r+", sif_stamp(deterministic)) as sif:
        notes = DeferredNotes(console)
        yield sif, notes
        notes.flush()
        print_warnings(console, image, sif.warnings)


def print_warnings(console: Console, image: str, notices: Sequence[Notice]) -> None:
    """Print the first warnings of an image, and how to see the others."""
    if console.json:
        return
    for notice in notices[:MAX_WARNINGS]:
        console.warn(f"{show(image)}: {notice.message}")
    if len(notices) <= MAX_WARNINGS:
        if notices and console.err_is_terminal:
            console.note(f"check it with: sifkit sif check {shell_quote(image)}")
    else:
        more = len(notices) - MAX_WARNINGS
        console.warn(f"{show(image)}: {more} more warnings; see all with: sifkit sif check {shell_quote(image)}")


def same_file(one: str, other: str) -> bool:
    """Return True if two paths are the same file, False also if one does not exist."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def signatures_to_drop(
    notes: DeferredNotes,
    image: str,
    sif: SIF,
    after: Sequence[Descriptor],
    edit: str,
    flags: SIFEditFlags,
    *,
    rewritten: Iterable[int] = (),
    edited: int | None = None,
) -> list[int]:
    """Return the IDs of signatures to remove with an edit that leaves the descriptors ``after``.

    ``edit`` describes it in messages. ``edited``: the object it changes, which it cannot remove. Raises SignedError if the
    edit breaks signatures and ``flags`` do not allow that.
    """
    from ...sif.signatures import SignedError, broken_signatures, read_coverage, signature_text

    harmed = broken_signatures(sif.descriptors, after, read_coverage(sif), rewritten=rewritten)
    if not harmed:
        return []
    if flags.signatures != "keep" and any(signature.id == edited for signature in harmed):
        error = SignedError.of(harmed, edit)
        error.hint = f"use --keep-broken-signatures, or remove it with: sifkit sif del {edited} {shell_quote(image)}"
        raise error
    if flags.signatures == "refuse":
        raise SignedError.of(harmed, edit)
    if flags.signatures == "keep":
        notes.warn(f"{edit} broke {signature_text(harmed)}")
        return []
    notes.note(f"removed {signature_text(harmed)}, which {edit} broke")
    return [signature.id for signature in harmed]
