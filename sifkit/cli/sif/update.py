"""``sifkit sif update``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import UsageError
from ..support.console import Console
from ..support.frame import verb
from . import codes as words
from .arguments import id_and_image
from .describe import object_fields
from .session import Deterministic, DropSignatures, KeepSignatures, drop_or_refuse, editing, result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...sif import Descriptor, Metadata
    from ...sif.format.types import Code

__all__ = ["command"]

TYPE = "Type"
CODES = {
    "parttype": ("part_type", "PartType"),
    "partfs": ("fs_type", "FSType"),
    "partarch": ("arch", "Arch"),
    "signhash": ("hash_type", "HashType"),
    "sbomformat": ("sbom_format", "SBOMFormat"),
    "cryptoformat": ("format_type", "FormatType"),
    "cryptomessage": ("message_type", "MessageType"),
}
"""By option: the field of the metadata it sets, and the enumeration of its values."""


def _option(name: str, metavar: str) -> Any:
    return typer.Option(f"--{name}", metavar=metavar, help=words.listed(metavar), rich_help_panel=TYPE)


@verb(
    examples=[
        "sifkit sif update 4 image.sif --name overlay.img",
        "sifkit sif update 4 image.sif --group 1 --link 0",
        "sifkit sif update 3 image.sif --parttype system",
    ]
)
def command(
    console: Console,
    arguments: Annotated[
        list[str], typer.Argument(metavar="ID IMAGE", help="an object and the SIF image; an image named 4 is ./4")
    ],
    name: Annotated[str | None, typer.Option("--name", "--filename", metavar="NAME", help="at most 128 bytes")] = None,
    no_name: Annotated[bool, typer.Option("--no-name", help="take its name away")] = False,
    groupid: Annotated[
        str | None, typer.Option("--groupid", "--group", metavar="GROUP", help="the group it is in; 0 is none")
    ] = None,
    link: Annotated[str | None, typer.Option("--link", metavar="ID", help="the object it belongs to; 0 is none")] = None,
    link_group: Annotated[
        str | None, typer.Option("--link-group", metavar="GROUP", help="the group it belongs to; 0 is none")
    ] = None,
    parttype: Annotated[str | None, _option("parttype", "PARTTYPE")] = None,
    partfs: Annotated[str | None, _option("partfs", "FS")] = None,
    partarch: Annotated[str | None, _option("partarch", "ARCH")] = None,
    signhash: Annotated[str | None, _option("signhash", "HASH")] = None,
    signentity: Annotated[
        str | None,
        typer.Option(
            "--signentity", metavar="HEX", help="who signed: the fingerprint, 40 digits; or none", rich_help_panel=TYPE
        ),
    ] = None,
    sbomformat: Annotated[str | None, _option("sbomformat", "SBOM")] = None,
    cryptoformat: Annotated[str | None, _option("cryptoformat", "FORMAT")] = None,
    cryptomessage: Annotated[str | None, _option("cryptomessage", "MESSAGE")] = None,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    deterministic: Deterministic = False,
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object", rich_help_panel="Output")] = False,
) -> None:
    """Change what an image says of an object: name, group, link, and the facts of its type. Its content stays as it is; all
    changes are made at once.
    """
    id, image = id_and_image(arguments)
    assert id is not None
    if name is not None and no_name:
        raise UsageError("--name and --no-name contradict each other", hint="give one of them")
    given = {
        "parttype": parttype,
        "partfs": partfs,
        "partarch": partarch,
        "signhash": signhash,
        "sbomformat": sbomformat,
        "cryptoformat": cryptoformat,
        "cryptomessage": cryptomessage,
    }
    codes = _codes(given)
    entity = words.optional(words.fingerprint, "--signentity", signentity)
    plain = {
        "name": b"" if no_name else words.optional(words.name, "--name", name),
        "group": words.optional(words.group, "--groupid", groupid),
        "link": words.optional(words.group, "--link", link),
        "link_group": words.optional(words.group, "--link-group", link_group),
    }
    plain = {key: value for key, value in plain.items() if value is not None}
    if plain.get("link") and plain.get("link_group"):
        raise UsageError("--link and --link-group exclude each other", hint="an object belongs to one of them")
    if not plain and not codes and entity is None:
        raise UsageError("nothing to change", hint="give --name, --group, --link ...: see sifkit sif update -h")

    from ...sif import Change

    with editing(console, image, deterministic=deterministic) as (sif, later):
        old = sif.get(id)
        changes: dict[str, Any] = dict(plain)
        if codes or entity is not None:
            changes["metadata"] = _metadata(old, codes, entity)
        wanted = {id: Change(**changes)}
        dropped = drop_or_refuse(
            later,
            image,
            sif,
            sif.after_update(wanted),
            f"changing object {id}",
            drop=drop_signatures,
            keep=keep_broken_signatures,
            about=id,
        )
        sif.update_all(wanted, drop=dropped)
        new = sif.get(id)
    result(
        console,
        image,
        f"object {id} {'changed' if new != old else 'is so already'}",
        object_fields(new) | {"changed": new != old, "dropped_signatures": dropped},
    )


def _codes(given: Mapping[str, str | None]) -> dict[str, tuple[str, Code]]:
    """Field of the metadata -> (option, value)."""
    from ...sif.format import types

    found = {}
    for option, text in given.items():
        if text is not None:
            field, kind = CODES[option]
            found[field] = (f"--{option}", words.code(getattr(types, kind), f"--{option}", text))
    return found


def _metadata(old: Descriptor, codes: Mapping[str, tuple[str, Code]], entity: bytes | None) -> Metadata:
    """The object's metadata with these fields changed. Raises UsageError for fields it does not have."""
    meta = old.metadata
    values: dict[str, Any] = {field: value for field, (_, value) in codes.items()}
    options = {field: option for field, (option, _) in codes.items()}
    if entity is not None:
        values["entity"], options["entity"] = entity, "--signentity"
    for field, option in options.items():
        if meta is None or field not in meta.__slots__:
            raise UsageError(
                f"object {old.id} is {old.type_text}, and {option} does not belong to it",
                hint="sifkit sif info shows what an object has",
            )
    assert meta is not None
    return replace(meta, **values)
