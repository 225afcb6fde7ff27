"""``sifkit xattr list``."""

from __future__ import annotations

import base64
from typing import Annotated

import typer

from .support.console import Console, Fields, name_fields
from .support.frame import verb
from .support.options import Dereference, ReadFlags
from .support.reading import ReadBatch, xattrs_of
from .support.render import display_name, escape

__all__ = ["command"]


def _value(value: bytes) -> str:
    """Value as quoted text if it is printable, else in hexadecimal."""
    text = value.removesuffix(b"\0").decode("utf-8", "replace")
    if text.isprintable() and "\ufffd" not in text:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"0x{value.hex()}"


@verb(examples=["sifkit xattr list overlay.img /upper", "sifkit xattr list --json overlay.img:/upper"])
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE PATH...", help="image or directory, and paths in it; or IMAGE:/PATH")
    ],
    follow: Dereference = False,
    flags: ReadFlags,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per file")] = False,
) -> int:
    """List the extended attributes of files in an image, with their values."""
    from ..vfs.resolve import Resolver

    batch = ReadBatch(console, arguments, flags)
    for image, paths, opened in batch.images():
        for path in paths:
            with batch.attempt(path):
                found = sorted(xattrs_of(opened.tree, Resolver(opened.tree).lookup(path, follow=follow)).items())
                if json:
                    rows: list[Fields] = [
                        {**name_fields("name", name), "value_b64": base64.b64encode(value).decode("ascii")}
                        for name, value in found
                    ]
                    console.emit({**name_fields("path", path), "xattrs": rows}, image=image)
                    continue
                console.write(b"# file: " + display_name(path, console) + b"\n")
                for name, value in found:
                    console.line(f"{escape(name)}={_value(value)}")
    return batch.exit_code
