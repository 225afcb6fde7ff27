"""``sifkit sif add``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ...errors import UsageError, human, show
from ..support.console import Console
from ..support.frame import verb
from ..support.progress import MODES, reporter
from ..support.render import shell_word
from ..support.values import choice
from . import codes as words
from .add_request import Wanted, plan, with_group
from .describe import object_fields
from .object_source import opened
from .session import Deterministic, DropSignatures, KeepSignatures, Progress, drop_or_refuse, editing, result

__all__ = ["command"]

PARTITION, SIGNATURE, OTHER, PLACE = "Partitions", "Signatures", "Other types", "Name and place"
DEFAULT_FILE = "overlay.img"


def _option(*names: str, to: str, metavar: str, text: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=to)


@verb(
    examples=[
        "sifkit sif add --parttype overlay image.sif overlay.img",
        "sifkit sif add --datatype genericjson image.sif labels.json",
        "sifkit sif add --datatype 4 --parttype 2 --partfs 1 --partarch 2 --groupid 1 image.sif root.sqfs",
        "sifkit sif add --datatype sbom --link 3 image.sif sbom.json",
        "cat notes.txt | sifkit sif add --datatype generic --name notes image.sif -",
    ]
)
def command(
    console: Console,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="the SIF image")],
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help=f"what goes in; - is standard input (default, of an overlay: {DEFAULT_FILE})"),
    ] = None,
    datatype: Annotated[
        str | None,
        typer.Option(
            "--datatype",
            metavar="DATATYPE",
            help=f"{words.listed('DATATYPE')}; options of one type imply it",
        ),
    ] = None,
    parttype: Annotated[
        str | None, _option("--parttype", to=PARTITION, metavar="PARTTYPE", text=words.listed("PARTTYPE"))
    ] = None,
    partfs: Annotated[
        str | None,
        _option("--partfs", to=PARTITION, metavar="FS", text=words.listed("FS") + " (default: what the content shows)"),
    ] = None,
    partarch: Annotated[
        str | None,
        _option("--partarch", to=PARTITION, metavar="ARCH", text=words.listed("ARCH") + " (default: the primary partition's)"),
    ] = None,
    signhash: Annotated[str | None, _option("--signhash", to=SIGNATURE, metavar="HASH", text=words.listed("HASH"))] = None,
    signentity: Annotated[
        str | None, _option("--signentity", to=SIGNATURE, metavar="HEX", text="who signed: the fingerprint, 40 digits; or none")
    ] = None,
    sbomformat: Annotated[
        str | None,
        _option("--sbomformat", to=OTHER, metavar="SBOM", text=words.listed("SBOM") + " (default: what the content shows)"),
    ] = None,
    cryptoformat: Annotated[
        str | None, _option("--cryptoformat", to=OTHER, metavar="FORMAT", text=words.listed("FORMAT"))
    ] = None,
    cryptomessage: Annotated[
        str | None, _option("--cryptomessage", to=OTHER, metavar="MESSAGE", text=words.listed("MESSAGE"))
    ] = None,
    name: Annotated[
        str | None,
        _option("--name", "--filename", to=PLACE, metavar="NAME", text="at most 128 bytes (default: the file's name)"),
    ] = None,
    no_name: Annotated[bool, typer.Option("--no-name", help="no name", rich_help_panel=PLACE)] = False,
    groupid: Annotated[
        str | None,
        _option(
            "--groupid",
            "--group",
            to=PLACE,
            metavar="GROUP",
            text="0 is none (default: none; an overlay is in the primary partition's, or 1)",
        ),
    ] = None,
    link: Annotated[str | None, _option("--link", to=PLACE, metavar="ID", text="the object this one belongs to")] = None,
    link_group: Annotated[
        str | None, _option("--link-group", to=PLACE, metavar="GROUP", text="the group this one belongs to")
    ] = None,
    alignment: Annotated[
        str | None,
        _option("--alignment", to=PLACE, metavar="BYTES", text="begin at a multiple of it (default: 4096 for partitions)"),
    ] = None,
    drop_signatures: DropSignatures = False,
    keep_broken_signatures: KeepSignatures = False,
    deterministic: Deterministic = False,
    progress: Progress = "auto",
    json: Annotated[bool, typer.Option("--json", help="the result as one JSON object", rich_help_panel="Output")] = False,
) -> None:
    """Add an object. siftool's options are taken with its numbers, decimal or 0x, and with words.

    An overlay needs only --parttype overlay: that it is a partition, its filesystem, architecture and group follow. What is
    wrong or contradicts itself is refused before a byte is written.
    """
    choice("--progress", progress, MODES)
    if name is not None and no_name:
        raise UsageError("--name and --no-name contradict each other", hint="give one of them")
    wanted = Wanted.parse(
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
        if not wanted.is_overlay:
            raise UsageError("FILE is missing", hint=f"only an overlay has a default, {DEFAULT_FILE}; - is standard input")
        file = DEFAULT_FILE
    label = words.optional(words.name, "--name", name)
    with opened(file, image) as source:
        if label is None:
            label = b"" if no_name else words.name("the name of FILE", source.name)
        with editing(console, image, deterministic=deterministic) as (sif, later):
            group, meta = plan(later, sif, wanted, source)
            first = wanted.is_overlay and not sif.overlays
            after = with_group(sif, wanted.data_type, group)
            dropped = drop_or_refuse(
                later, image, sif, after, f"adding {source.label}", drop=drop_signatures, keep=keep_broken_signatures
            )
            with reporter(progress, console) as bar:
                bar.phase("copy", source.size, "bytes")
                added = sif.add(
                    source.content,
                    wanted.data_type,
                    name=label,
                    group=group,
                    link=wanted.link,
                    link_group=wanted.link_group,
                    alignment=wanted.alignment,
                    metadata=meta,
                    advance=bar.advance,
                    drop=dropped,
                )
        text = f"object {added.id}" + (f" {show(added.name)}" if added.name else "")
        result(
            console,
            image,
            f"{text}, {added.type_text}, {human(added.size)}",
            object_fields(added) | {"dropped_signatures": dropped},
        )
    if first and group and console.err_is_terminal and not console.json:
        console.note(f"use it: apptainer exec --writable {shell_word(image)} CMD")
