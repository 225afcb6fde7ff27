"""``sifkit sif del``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import counted, human, show
from ..support.console import Console
from ..support.frame import verb
from . import codes as words
from .arguments import ids_and_image
from .describe import object_fields
from .session import (
    Deterministic,
    DropSignatures,
    KeepSignatures,
    Later,
    check_unmounted,
    drop_or_refuse,
    editing,
    result,
)

if TYPE_CHECKING:
    from ...sif import SIF, DataType, Descriptor

__all__ = ["command"]


@verb(
    examples=[
        "sifkit sif del 4 image.sif",
        "sifkit sif del 4 5 6 image.sif",
        "sifkit sif del --type signature image.sif",
        "sifkit sif del --name notes.txt --zero image.sif",
    ]
)
def command(
    console: Console,
    arguments: Annotated[
        list[str], typer.Argument(metavar="[ID]... IMAGE", help="objects and the SIF image; an image named 4 is ./4")
    ],
    name: Annotated[list[str] | None, typer.Option("--name", metavar="NAME", help="the object of this name")] = None,
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="DATATYPE", help="all objects of this type: " + words.listed("DATATYPE")),
    ] = None,
    zero: Annotated[bool, typer.Option("--zero", help="write zeros over what the file keeps of them")] = False,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    deterministic: Deterministic = False,
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object", rich_help_panel="Output")] = False,
) -> None:
    """Remove objects, all of them at once, and give their space back where the filesystem can do that; sifkit sif compact
    gives back the rest.
    """
    from ...sif.format import types as codes

    ids, image = ids_and_image(arguments, need=not (name or type_))
    names = [words.name("--name", text) for text in name or []]
    types = [words.code(codes.DataType, "--type", text) for text in type_ or []]
    with editing(console, image, deterministic=deterministic) as (sif, later):
        found = _selected(sif, ids, names, types)
        gone = {descriptor.id for descriptor in found}
        what = _what(found)
        after = [descriptor for descriptor in sif if descriptor.id not in gone]
        dropped = drop_or_refuse(
            later, image, sif, after, f"removing {what}", drop=drop_signatures, keep=keep_broken_signatures
        )
        check_unmounted(image, found)
        _tell_of_links(later, after, gone | set(dropped))
        old = sif.file_size
        _delete(sif, [*gone, *dropped], zero)
        fields = {
            "removed": [object_fields(descriptor) for descriptor in found],
            "dropped_signatures": dropped,
            "file_bytes": sif.file_size,
        }
        cut = f"; the file is now {human(sif.file_size)}" if sif.file_size < old else ""
    result(console, image, f"removed {what}{cut}", fields)


def _selected(sif: SIF, ids: list[int], names: list[bytes], types: list[DataType]) -> list[Descriptor]:
    from ...sif import ObjectNotFoundError

    found = {id: sif.get(id) for id in ids}
    for name in names:
        one = sif.by_name(name)
        found[one.id] = one
    for data_type in types:
        these = sif.select(data_type=data_type)
        if not these:
            raise ObjectNotFoundError(
                f"no object is of type {data_type.word}", hint="see which there are with: sifkit sif list"
            )
        found.update((descriptor.id, descriptor) for descriptor in these)
    return list(found.values())


def _delete(sif: SIF, ids: list[int], zero: bool) -> None:
    from ...sif import StoreError

    try:
        sif.delete(ids, zero=zero)
    except StoreError as error:
        # Several go at one moment by way of a second table; one alone needs no space.
        if error.errno == errno.ENOSPC and len(ids) > 1:
            error.hint = "free some space there, or remove them one by one, which needs none"
        raise


def _what(found: list[Descriptor]) -> str:
    if len(found) > 1:
        return f"{counted(len(found), 'object')} ({human(sum(descriptor.size for descriptor in found))})"
    one = found[0]
    label = f" {show(one.name)}" if one.name else ""
    return f"object {one.id}{label} ({one.type_text}, {human(one.size)})"


def _tell_of_links(later: Later, after: list[Descriptor], gone: set[int]) -> None:
    for descriptor in after:
        if descriptor.link in gone and descriptor.id not in gone:
            later.warn(f"object {descriptor.id} stays linked to object {descriptor.link}, which is removed")
