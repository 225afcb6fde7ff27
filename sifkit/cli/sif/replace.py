"""``sifkit sif replace``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import UsageError, human
from ..support.console import Console
from ..support.frame import verb
from ..support.options import ProgressMode, SIFEditFlags
from ..support.progress import MODES, reporter
from ..support.results import print_result
from ..support.values import choice
from . import codes
from .add_request import warn_unknown_signature
from .arguments import id_image_and_file
from .describe import object_fields
from .object_source import ObjectSource, check_filesystem, open_object_source
from .session import DeferredNotes, check_unmounted, edit_sif, signatures_to_drop

if TYPE_CHECKING:
    from ...sif import Descriptor, Metadata

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit sif replace 4 image.sif overlay.img",
        "sifkit sif replace image.sif 2 labels.json",
        "sed s/a/b/ notes.txt | sifkit sif replace 5 image.sif -",
    ],
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="ID IMAGE FILE", help="object ID, SIF image and new content, - for standard input"),
    ],
    alignment: Annotated[
        str | None,
        typer.Option("--alignment", metavar="BYTES", help="alignment in the file (default: 4096 for partitions)"),
    ] = None,
    flags: SIFEditFlags,
    progress: ProgressMode = "auto",
) -> None:
    """Replace the content of an object. ID, name, group, link and creation time are preserved; the filesystem type of a
    partition is updated. The replacement is atomic: readers see the old content or the new one.
    """
    choice("--progress", progress, MODES)
    id, image, file = id_image_and_file(arguments)

    from ...sif import DataType

    boundary = codes.optional(codes.alignment, "--alignment", alignment)
    with (
        open_object_source(file, image) as source,
        edit_sif(console, image, deterministic=flags.deterministic) as (sif, notes),
    ):
        old = sif.get(id)
        check_unmounted(image, [old])
        meta = _new_metadata(notes, old, source)
        if old.data_type is DataType.SIGNATURE:
            warn_unknown_signature(notes, source)
        after = [_with_metadata(descriptor, meta) if descriptor.id == id else descriptor for descriptor in sif]
        dropped = signatures_to_drop(notes, image, sif, after, f"replacing object {id}", flags, rewritten=[id], edited=id)
        with reporter(progress, console) as bar:
            bar.phase("copy", source.size, "bytes")
            new = sif.replace(id, source.content, metadata=meta, alignment=boundary, advance=bar.advance, drop=dropped)
    text = f"object {id}, {new.type_text}: {human(new.size)}, replaces {human(old.size)}"
    print_result(console, image, text, object_fields(new) | {"old_size_bytes": old.size, "dropped_signatures": dropped})


def _new_metadata(notes: DeferredNotes, old: Descriptor, source: ObjectSource) -> Metadata | None:
    """Metadata of a partition whose new content is another filesystem; None if it is unchanged."""
    from ...sif import FSType

    meta = old.partition
    if meta is None:
        return None
    declared = meta.fs_type
    detected = check_filesystem(source, "--partfs", None)
    if declared not in (FSType.EXT3, FSType.SQUASHFS, FSType.ENCRYPTED_SQUASHFS) or detected == declared:
        return None
    if detected is None:
        notes.warn(f"{source.label} is not the filesystem that object {old.id} is declared as")
        return None
    if old.part_type == 4 and detected == FSType.ENCRYPTED_SQUASHFS:
        raise UsageError(f"{source.label} is encrypted, which an overlay cannot be", hint="give an ext3 or squashfs image")
    notes.warn(f"object {old.id} is now declared as {detected.word}")
    return meta._replace(fs_type=detected)


def _with_metadata(old: Descriptor, meta: Metadata | None) -> Descriptor:
    return old if meta is None else old._replace(extra=meta.pack_onto(old.extra).rstrip(b"\0"))
