"""What the verbs that put overlays into SIF images and take them out have in common: options, and how the result is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ...errors import UsageError, human, show
from .console import Console, Fields

if TYPE_CHECKING:
    from ...overlay.embedding.reservation import OnSignatures
    from ...sif import Descriptor

__all__ = [
    "EMBEDDING",
    "DropSignatures",
    "KeepSignatures",
    "Partition",
    "Replace",
    "RequireLock",
    "on_signatures",
    "partition_fields",
    "partition_text",
    "tell_locks",
]

EMBEDDING = "In a SIF image"

Replace = Annotated[
    bool, typer.Option("--replace", help="put it in the place of the writable overlay that is there", rich_help_panel=EMBEDDING)
]
DropSignatures = Annotated[
    bool, typer.Option("--drop-signatures", help="remove the signatures that this breaks", rich_help_panel=EMBEDDING)
]
KeepSignatures = Annotated[
    bool,
    typer.Option("--keep-broken-signatures", help="go on, and keep signatures that this breaks", rich_help_panel=EMBEDDING),
]
RequireLock = Annotated[
    bool,
    typer.Option("--require-lock", help="refuse where the filesystem has no locks", rich_help_panel=EMBEDDING),
]
Partition = Annotated[
    str | None,
    typer.Option("--partition", metavar="ID|overlay|root", help="of a SIF image: the partition that is meant"),
]


def on_signatures(drop: bool, keep: bool) -> Literal["refuse", "drop", "keep"]:
    """What is to become of signatures that break. Raises UsageError."""
    if drop and keep:
        raise UsageError("--drop-signatures and --keep-broken-signatures contradict each other", hint="give one of them")
    found: OnSignatures = "drop" if drop else "keep" if keep else "refuse"
    return found


def partition_fields(found: Descriptor | None) -> Fields | None:
    """A partition as JSON."""
    if found is None:
        return None
    return {"id": found.id, "group": found.group or None, "offset_bytes": found.offset, "size_bytes": found.size}


def partition_text(found: Descriptor) -> str:
    """A partition for a person: which object, how large, where."""
    group = f"group {found.group}" if found.group else "no group"
    return f"object {found.id}, {group}, {human(found.size)} at byte {found.offset}"


def tell_locks(console: Console, image: str, locked: bool) -> None:
    if not locked:
        console.warn(f"{show(image)}: this filesystem has no locks; nothing kept others from writing to it meanwhile")
