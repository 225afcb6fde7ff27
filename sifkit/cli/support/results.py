"""Notes and results that several verbs print: partitions, missing locks, how to use an image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...errors import human, shell_quote, show
from .console import Console, Fields

if TYPE_CHECKING:
    from ...overlay.resizing.filesystem_facts import FilesystemFacts
    from ...sif import Descriptor

__all__ = [
    "filesystem_fields",
    "gap_text",
    "next_step_overlay",
    "next_step_writable",
    "partition_fields",
    "partition_text",
    "print_notes",
    "print_result",
    "warn_unlocked",
]


def print_result(console: Console, image: str, text: str, fields: Fields) -> None:
    """Print the result of an edit: a line, or JSON."""
    if console.json:
        console.emit(fields, image=image)
    else:
        console.result(f"{show(image)}: {text}")


def print_notes(console: Console, notes: Iterable[str]) -> None:
    """Print the notes of a result, a line each."""
    for note in notes:
        console.note(note)


def next_step_overlay(console: Console, image: str) -> None:
    """Show on a terminal how to use an overlay image."""
    if console.err_is_terminal:
        console.note(f"use it: apptainer exec --overlay {shell_quote(image)} IMAGE.sif CMD")


def next_step_writable(console: Console, image: str) -> None:
    """Show on a terminal how to use a SIF image with an overlay in it."""
    if console.err_is_terminal:
        console.note(f"use it: apptainer exec --writable {shell_quote(image)} CMD")


def warn_unlocked(console: Console, image: str, locked: bool) -> None:
    """Warn that an image could not be locked."""
    if not locked:
        console.warn(
            f"{show(image)}: file locking is unavailable; other processes could have written to it while this command ran"
        )


def partition_fields(found: Descriptor | None) -> Fields | None:
    """Partition as JSON."""
    if found is None:
        return None
    return {"id": found.id, "group": found.group or None, "offset_bytes": found.offset, "size_bytes": found.size}


def partition_text(found: Descriptor) -> str:
    """Partition as text: object, group, size and offset."""
    group = f"group {found.group}" if found.group else "no group"
    return f"object {found.id}, {group}, {human(found.size)} at byte {found.offset}"


def gap_text(old: Descriptor | None) -> str:
    """End of a result line about the place that a partition has left; nothing if there is none."""
    if old is None:
        return ""
    return f"; its old place, {human(old.size)} at byte {old.offset}, is free: sifkit sif compact closes it"


def filesystem_fields(found: FilesystemFacts) -> Fields:
    """Facts of a filesystem as JSON."""
    return {
        "file_bytes": found.file_bytes,
        "size_bytes": found.size_bytes,
        "used_bytes": found.used_bytes,
        "free_bytes": found.free_bytes,
        "inodes": found.inodes,
        "inodes_used": found.inodes_used,
        "block_bytes": found.block_size,
        "inode_bytes": found.inode_size,
        "journal_bytes": found.journal_bytes,
        "groups": found.groups,
        "uuid": str(found.uuid),
    }
