"""``sifkit sif del``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import counted, human, show
from ..support.console import Console
from ..support.frame import verb
from ..support.options import SIFEditFlags
from ..support.results import print_result
from . import codes
from .arguments import ids_and_image
from .describe import object_fields
from .session import DeferredNotes, check_unmounted, edit_sif, signatures_to_drop

if TYPE_CHECKING:
    from ...sif import SIF, DataType, Descriptor

__all__ = ["command"]


@verb(
    locks=True,
    examples=[
        "sifkit sif del 4 image.sif",
        "sifkit sif del 4 5 6 image.sif",
        "sifkit sif del --type signature image.sif",
        "sifkit sif del --name notes.txt --zero image.sif",
    ],
)
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str], typer.Argument(metavar="[ID]... IMAGE", help="object IDs and SIF image; write ./4 for an image named 4")
    ],
    name: Annotated[list[str] | None, typer.Option("--name", metavar="NAME", help="select an object by name")] = None,
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="DATATYPE", help="select all objects of this type: " + codes.listed("DATATYPE")),
    ] = None,
    zero: Annotated[bool, typer.Option("--zero", help="overwrite content that cannot be freed with zeros")] = False,
    flags: SIFEditFlags,
) -> None:
    """Remove objects in one transaction, and free their space if the filesystem supports that. To free the rest: sifkit sif
    compact.
    """
    from ...sif import DataType

    ids, image = ids_and_image(arguments, need=not (name or type_))
    names = [codes.name("--name", text) for text in name or []]
    types = [codes.code(DataType, "--type", text) for text in type_ or []]
    with edit_sif(console, image, deterministic=flags.deterministic) as (sif, notes):
        found = _select(sif, ids, names, types)
        removed = {descriptor.id for descriptor in found}
        what = _describe(found)
        after = [descriptor for descriptor in sif if descriptor.id not in removed]
        dropped = signatures_to_drop(notes, image, sif, after, f"removing {what}", flags)
        check_unmounted(image, found)
        _warn_links(notes, after, removed | set(dropped))
        old = sif.file_size
        _delete(sif, [*removed, *dropped], zero)
        fields = {
            "removed": [object_fields(descriptor) for descriptor in found],
            "dropped_signatures": dropped,
            "file_bytes": sif.file_size,
        }
        cut = f"; the file is now {human(sif.file_size)}" if sif.file_size < old else ""
    print_result(console, image, f"removed {what}{cut}", fields)


def _select(sif: SIF, ids: list[int], names: list[bytes], types: list[DataType]) -> list[Descriptor]:
    from ...sif import ObjectNotFoundError

    found = {id: sif.get(id) for id in ids}
    for name in names:
        one = sif.by_name(name)
        found[one.id] = one
    for data_type in types:
        these = sif.select(data_type=data_type)
        if not these:
            raise ObjectNotFoundError(f"no object is of type {data_type.word}", hint="list them with: sifkit sif list")
        found.update((descriptor.id, descriptor) for descriptor in these)
    return list(found.values())


def _delete(sif: SIF, ids: list[int], zero: bool) -> None:
    from ...sif import StoreError

    try:
        sif.delete(ids, zero=zero)
    except StoreError as error:
        # Several objects are removed by writing a second table; a single one needs no space.
        if error.errno == errno.ENOSPC and len(ids) > 1:
            error.hint = "free some space there, or remove them one by one"
        raise


def _describe(found: list[Descriptor]) -> str:
    if len(found) > 1:
        return f"{counted(len(found), 'object')} ({human(sum(descriptor.size for descriptor in found))})"
    one = found[0]
    label = f" {show(one.name)}" if one.name else ""
    return f"object {one.id}{label} ({one.type_text}, {human(one.size)})"


def _warn_links(notes: DeferredNotes, after: list[Descriptor], removed: set[int]) -> None:
    for descriptor in after:
        if descriptor.link in removed and descriptor.id not in removed:
            notes.warn(f"object {descriptor.id} is still linked to object {descriptor.link}, which was removed")
