"""``sifkit xattr list``."""

from __future__ import annotations

import base64
from typing import Annotated

import typer

from .support.console import Console, Fields, named
from .support.embedding import Partition
from .support.frame import verb
from .support.image_path import places
from .support.reading import Upper, looking, tell
from .support.render import escaped, shown_name

__all__ = ["command"]


def _value(value: bytes) -> str:
    """In quotes where it is plain text, else as hexadecimal digits."""
    text = value.removesuffix(b"\0").decode("utf-8", "replace")
    if text.isprintable() and "\ufffd" not in text:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"0x{value.hex()}"


@verb(examples=["sifkit xattr list overlay.img /upper", "sifkit xattr list --json overlay.img:/upper"])
def command(
    console: Console,
    *,
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE PATH...", help="an ext3 image and paths in it; or IMAGE:/PATH")
    ],
    follow: Annotated[bool, typer.Option("-L", "--dereference", help="of links, tell about the file they lead to")] = False,
    partition: Partition = None,
    upper: Upper = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object for each file")] = False,
) -> int:
    """List the extended attributes of files in an image, with their values."""
    from ext3.errors import Ext3Error

    wanted = places(arguments)
    several = sum(len(paths) for _, paths in wanted) > 1
    failed = 0
    for image, paths in wanted:
        with looking(console, image, partition, upper=upper) as view:
            for path in paths:
                try:
                    found = sorted(view.filesystem.xattrs(view.lookup(path, follow=follow)).items())
                except Ext3Error as error:
                    if not several:
                        raise
                    failed += 1
                    tell(console, [error])
                    continue
                if json:
                    rows: list[Fields] = [
                        {**named("name", name), "value_b64": base64.b64encode(value).decode("ascii")} for name, value in found
                    ]
                    console.emit({**named("path", path), "xattrs": rows}, image=image)
                    continue
                console.write(b"# file: " + shown_name(path, console) + b"\n")
                for name, value in found:
                    console.line(f"{escaped(name)}={_value(value)}")
    return 1 if failed else 0
