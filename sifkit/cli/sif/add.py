"""``sifkit sif add``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...errors import UsageError, human, show
from ..support.console import Console
from ..support.frame import verb
from ..support.options import ProgressMode, SIFEditFlags, SIFImage
from ..support.progress import MODES, reporter
from ..support.results import next_step_writable, print_result
from ..support.values import choice
from . import codes
from .add_request import AddRequest, complete, descriptors_after
from .describe import object_fields
from .object_source import open_object_source
from .session import edit_sif, signatures_to_drop

__all__ = ["command"]

PARTITION, SIGNATURE, OTHER, PLACE = "Partitions", "Signatures", "Other types", "Name, group and placement"
DEFAULT_FILE = "overlay.img"


def _option(*names: str, to: str, metavar: str, text: str) -> Any:
    """Option in the help section ``to``."""
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=to)


@verb(
    locks=True,
    examples=[
        "sifkit sif add --parttype overlay image.sif overlay.img",
        "sifkit sif add --datatype genericjson image.sif labels.json",
        "sifkit sif add --datatype 4 --parttype 2 --partfs 1 --partarch 2 --groupid 1 image.sif root.sqfs",
        "sifkit sif add --datatype sbom --link 3 image.sif sbom.json",
        "cat notes.txt | sifkit sif add --datatype generic --name notes image.sif -",
    ],
)
def command(
    console: Console,
    *,
    image: SIFImage,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help=f"content, - for standard input (default for an overlay: {DEFAULT_FILE})"),
    ] = None,
    datatype: Annotated[
        str | None,
        typer.Option("--datatype", metavar="DATATYPE", help=f"{codes.listed('DATATYPE')} (implied by options for one type)"),
    ] = None,
    parttype: Annotated[
        str | None, _option("--parttype", to=PARTITION, metavar="PARTTYPE", text=codes.listed("PARTTYPE"))
    ] = None,
    partfs: Annotated[
        str | None,
        _option("--partfs", to=PARTITION, metavar="FS", text=codes.listed("FS") + " (default: detected)"),
    ] = None,
    partarch: Annotated[
        str | None,
        _option("--partarch", to=PARTITION, metavar="ARCH", text=codes.listed("ARCH") + " (default: the primary partition's)"),
    ] = None,
    signhash: Annotated[str | None, _option("--signhash", to=SIGNATURE, metavar="HASH", text=codes.listed("HASH"))] = None,
    signentity: Annotated[
        str | None, _option("--signentity", to=SIGNATURE, metavar="HEX", text="fingerprint of the signer, 40 digits, or none")
    ] = None,
    sbomformat: Annotated[
        str | None,
        _option("--sbomformat", to=OTHER, metavar="SBOM", text=codes.listed("SBOM") + " (default: detected)"),
    ] = None,
    cryptoformat: Annotated[
        str | None, _option("--cryptoformat", to=OTHER, metavar="FORMAT", text=codes.listed("FORMAT"))
    ] = None,
    cryptomessage: Annotated[
        str | None, _option("--cryptomessage", to=OTHER, metavar="MESSAGE", text=codes.listed("MESSAGE"))
    ] = None,
    name: Annotated[
        str | None,
        _option("--name", "--filename", to=PLACE, metavar="NAME", text="at most 128 bytes (default: the file's name)"),
    ] = None,
    no_name: Annotated[bool, typer.Option("--no-name", help="add the object without a name", rich_help_panel=PLACE)] = False,
    groupid: Annotated[
        str | None,
        _option(
            "--groupid",
            "--group",
            to=PLACE,
            metavar="GROUP",
            text="group, 0 for none (default: none; for an overlay the primary partition's, or 1)",
        ),
    ] = None,
    link: Annotated[str | None, _option("--link", to=PLACE, metavar="ID", text="object to link to")] = None,
    link_group: Annotated[str | None, _option("--link-group", to=PLACE, metavar="GROUP", text="group to link to")] = None,
    alignment: Annotated[
        str | None,
        _option("--alignment", to=PLACE, metavar="BYTES", text="alignment in the file (default: 4096 for partitions)"),
    ] = None,
    flags: SIFEditFlags,
    progress: ProgressMode = "auto",
) -> None:
    """Add an object to a SIF image. Codes are siftool's numbers, decimal or 0x, or words.

    For an overlay --parttype overlay is enough: data type, filesystem, architecture and group are implied. Invalid and
    contradicting options are refused before anything is written.
    """
    choice("--progress", progress, MODES)
    label = codes.name_option(name, no_name)
    request = AddRequest.parse(
        datatype=datatype,
        parttype=parttype,
        partfs=partfs,
        partarch=partarch,
        signhash=signhash,
        signentity=signentity,
        sbomformat=sbomformat,
        cryptoformat=cryptoformat,
        cryptomessage=cryptomessage,
        group=groupid,
        link=link,
        link_group=link_group,
        alignment=alignment,
    )
    if file is None:
        if not request.is_overlay:
            raise UsageError("FILE is missing", hint=f"only overlays have a default ({DEFAULT_FILE})")
        file = DEFAULT_FILE
    with open_object_source(file, image) as source:
        if label is None:
            label = codes.name("the name of FILE", source.name)
        with edit_sif(console, image, deterministic=flags.deterministic) as (sif, notes):
            group, meta = complete(notes, sif, request, source)
            first = request.is_overlay and not sif.overlays
            after = descriptors_after(sif, request.data_type, group)
            dropped = signatures_to_drop(notes, image, sif, after, f"adding {source.label}", flags)
            with reporter(progress, console) as bar:
                bar.phase("copy", source.size, "bytes")
                added = sif.add(
                    source.content,
                    request.data_type,
                    name=label,
                    group=group,
                    link=request.link,
                    link_group=request.link_group,
                    alignment=request.alignment,
                    metadata=meta,
                    advance=bar.advance,
                    drop=dropped,
                )
        text = f"object {added.id}" + (f" {show(added.name)}" if added.name else "")
        print_result(
            console,
            image,
            f"{text}, {added.type_text}, {human(added.size)}",
            object_fields(added) | {"dropped_signatures": dropped},
        )
    if first and group and not console.json:
        next_step_writable(console, image)
