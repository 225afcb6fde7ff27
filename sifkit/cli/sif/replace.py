"""``sifkit sif replace``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import UsageError, human
from ..support.console import Console
from ..support.frame import verb
from ..support.progress import MODES, reporter
from ..support.values import choice
from . import codes as words
from .add_request import look_at_signature
from .arguments import split_replace
from .describe import object_fields
from .object_source import Source, check_filesystem, opened
from .session import (
    Deterministic,
    DropSignatures,
    KeepSignatures,
    Later,
    Progress,
    check_unmounted,
    drop_or_refuse,
    editing,
    result,
)

if TYPE_CHECKING:
    from ...sif import Descriptor, Metadata

__all__ = ["command"]


@verb(
    examples=[
        "sifkit sif replace 4 image.sif overlay.img",
        "sifkit sif replace image.sif 2 labels.json",
        "sed s/a/b/ notes.txt | sifkit sif replace 5 image.sif -",
    ]
)
def command(
    console: Console,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="ID IMAGE FILE", help="an object, the SIF image, and what goes in; - is standard input"),
    ],
    alignment: Annotated[
        str | None,
        typer.Option("--alignment", metavar="BYTES", help="begin at a multiple of it (default: 4096 of partitions, else 0)"),
    ] = None,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    deterministic: Deterministic = False,
    progress: Progress = "auto",
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object", rich_help_panel="Output")] = False,
) -> None:
    """Give an object other content. It keeps its id, name, group, link and time of creation; a partition is declared to hold
    what the new content is. Whoever reads meanwhile finds the old content or the new.
    """
    choice("--progress", progress, MODES)
    id, image, file = split_replace(arguments)

    from ...sif import DataType

    limit = words.ALIGNMENT_LIMIT
    hint = "4096 is right for partitions, 0 is none"
    space = None if alignment is None else words.number("--alignment", alignment, -limit, limit, hint=hint)
    with opened(file, image) as source, editing(console, image, deterministic=deterministic) as (sif, later):
        old = sif.get(id)
        check_unmounted(image, [old])
        meta = _metadata(later, old, source)
        if old.data_type is DataType.SIGNATURE:
            look_at_signature(later, source)
        after = [_after(descriptor, meta) if descriptor.id == id else descriptor for descriptor in sif]
        dropped = drop_or_refuse(
            later,
            image,
            sif,
            after,
            f"replacing object {id}",
            drop=drop_signatures,
            keep=keep_broken_signatures,
            rewritten=[id],
            about=id,
        )
        with reporter(progress, console) as bar:
            bar.phase("copy", source.size, "bytes")
            new = sif.replace(id, source.content, metadata=meta, alignment=space, advance=bar.advance, drop=dropped)
    text = f"object {id}, {new.type_text}: {human(new.size)} instead of {human(old.size)}"
    result(console, image, text, object_fields(new) | {"old_size_bytes": old.size, "dropped_signatures": dropped})


def _metadata(later: Later, old: Descriptor, source: Source) -> Metadata | None:
    """A partition's metadata where the new content is another filesystem; None where it stays."""
    from ...sif import FSType

    meta = old.partition
    if meta is None:
        return None
    declared = meta.fs_type
    seen = check_filesystem(source, "--partfs", None)
    if declared not in (FSType.EXT3, FSType.SQUASHFS, FSType.ENCRYPTED_SQUASHFS) or seen == declared:
        return None
    if seen is None:
        later.warn(f"{source.label} does not begin with the filesystem that object {old.id} is declared as")
        return None
    if old.part_type == 4 and seen == FSType.ENCRYPTED_SQUASHFS:
        raise UsageError(f"{source.label} is encrypted, and an overlay cannot be", hint="name an ext3 or squashfs image")
    later.warn(f"object {old.id} is {seen.word} from now on")
    return replace(meta, fs_type=seen)


def _after(old: Descriptor, meta: Metadata | None) -> Descriptor:
    return old if meta is None else replace(old, extra=meta.pack_onto(old.extra).rstrip(b"\0"))
