"""``sifkit sif update``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import UsageError
from ..support.console import Console
from ..support.frame import verb
from ..support.options import IDAndImage, SIFEditFlags
from ..support.results import print_result
from . import codes
from .arguments import id_and_image
from .describe import object_fields
from .session import edit_sif, signatures_to_drop

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...sif import Descriptor, Metadata
    from ...sif.format.types import Code

__all__ = ["command"]

TYPE = "Type"
METADATA_OPTIONS = {
    "parttype": ("part_type", "PartType"),
    "partfs": ("fs_type", "FSType"),
    "partarch": ("arch", "Arch"),
    "signhash": ("hash_type", "HashType"),
    "sbomformat": ("sbom_format", "SBOMFormat"),
    "cryptoformat": ("format_type", "FormatType"),
    "cryptomessage": ("message_type", "MessageType"),
}
"""Metadata field and enumeration, by option."""


def _option(name: str, metavar: str) -> Any:
    """Option for a code of the metadata."""
    return typer.Option(f"--{name}", metavar=metavar, help=codes.listed(metavar), rich_help_panel=TYPE)


@verb(
    locks=True,
    examples=[
        "sifkit sif update 4 image.sif --name overlay.img",
        "sifkit sif update 4 image.sif --group 1 --link 0",
        "sifkit sif update 3 image.sif --parttype system",
    ],
)
def command(
    console: Console,
    *,
    arguments: IDAndImage,
    name: Annotated[str | None, typer.Option("--name", "--filename", metavar="NAME", help="at most 128 bytes")] = None,
    no_name: Annotated[bool, typer.Option("--no-name", help="remove the name")] = False,
    groupid: Annotated[
        str | None, typer.Option("--groupid", "--group", metavar="GROUP", help="group of the object; 0 for none")
    ] = None,
    link: Annotated[str | None, typer.Option("--link", metavar="ID", help="object to link to; 0 for none")] = None,
    link_group: Annotated[
        str | None, typer.Option("--link-group", metavar="GROUP", help="group to link to; 0 for none")
    ] = None,
    parttype: Annotated[str | None, _option("parttype", "PARTTYPE")] = None,
    partfs: Annotated[str | None, _option("partfs", "FS")] = None,
    partarch: Annotated[str | None, _option("partarch", "ARCH")] = None,
    signhash: Annotated[str | None, _option("signhash", "HASH")] = None,
    signentity: Annotated[
        str | None,
        typer.Option("--signentity", metavar="HEX", help="fingerprint of the signer, 40 digits, or none", rich_help_panel=TYPE),
    ] = None,
    sbomformat: Annotated[str | None, _option("sbomformat", "SBOM")] = None,
    cryptoformat: Annotated[str | None, _option("cryptoformat", "FORMAT")] = None,
    cryptomessage: Annotated[str | None, _option("cryptomessage", "MESSAGE")] = None,
    flags: SIFEditFlags,
) -> None:
    """Change the descriptor of an object: name, group, link and metadata, in one transaction. The content is not changed."""
    id, image = id_and_image(arguments)
    assert id is not None
    new_name = codes.name_option(name, no_name)
    given = {
        "parttype": parttype,
        "partfs": partfs,
        "partarch": partarch,
        "signhash": signhash,
        "sbomformat": sbomformat,
        "cryptoformat": cryptoformat,
        "cryptomessage": cryptomessage,
    }
    metadata = _parse_codes(given)
    entity = codes.optional(codes.fingerprint, "--signentity", signentity)
    linked_object, linked_group = codes.link_options(link, link_group)
    fields = {
        "name": new_name,
        "group": codes.optional(codes.group, "--groupid", groupid),
        "link": linked_object,
        "link_group": linked_group,
    }
    changes: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    if not changes and not metadata and entity is None:
        raise UsageError("nothing to change", hint="see sifkit sif update -h")

    from ...sif import Change

    with edit_sif(console, image, deterministic=flags.deterministic) as (sif, notes):
        old = sif.get(id)
        if metadata or entity is not None:
            changes["metadata"] = _new_metadata(old, metadata, entity)
        change = {id: Change(**changes)}
        dropped = signatures_to_drop(notes, image, sif, sif.after_update(change), f"changing object {id}", flags, edited=id)
        sif.update_all(change, drop=dropped)
        new = sif.get(id)
    print_result(
        console,
        image,
        f"object {id} {'changed' if new != old else 'is unchanged'}",
        object_fields(new) | {"changed": new != old, "dropped_signatures": dropped},
    )


def _parse_codes(given: Mapping[str, str | None]) -> dict[str, tuple[str, Code]]:
    """Parse the given options: metadata field -> (option, value)."""
    from ...sif.format import types

    found = {}
    for option, text in given.items():
        if text is not None:
            field, kind = METADATA_OPTIONS[option]
            found[field] = (f"--{option}", codes.code(getattr(types, kind), f"--{option}", text))
    return found


def _new_metadata(old: Descriptor, given: Mapping[str, tuple[str, Code]], entity: bytes | None) -> Metadata:
    """Metadata of the object with these fields changed. Raises UsageError for fields it does not have."""
    meta = old.metadata
    values: dict[str, Any] = {field: value for field, (_, value) in given.items()}
    options = {field: option for field, (option, _) in given.items()}
    if entity is not None:
        values["entity"], options["entity"] = entity, "--signentity"
    for field, option in options.items():
        if meta is None or field not in meta._fields:
            raise UsageError(
                f"object {old.id} is {old.type_text}, which has no {option}",
                hint=f"show its metadata with: sifkit sif info {old.id}",
            )
    assert meta is not None
    return meta._replace(**values)
