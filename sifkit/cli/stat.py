"""``sifkit stat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import counted
from .support.console import Console, Fields
from .support.frame import verb
from .support.image_path import group_by_image, several_paths
from .support.options import Dereference, ReadFlags
from .support.reading import TYPES, entry_fields, lookup, open_for_reading
from .support.render import escape, mode_text, print_pairs, rfc3339

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

__all__ = ["command"]


def _kind(found: Stat, name: bytes, opaque: bool) -> str:
    from ..overlay.whiteouts import is_whiteout, whited_out_name

    if is_whiteout(found):
        return "whiteout (character device 0, 0): hides the file of a lower layer"
    if hidden := whited_out_name(name):
        return f"whiteout of fuse-overlayfs: hides {escape(hidden)} of a lower layer"
    word = TYPES[found.file_type]
    if word in ("character", "block"):
        return f"{word} device {found.major}, {found.minor}"
    return f"{word}, opaque: hides its content in lower layers" if opaque else word


@verb(
    examples=[
        "sifkit stat overlay.img /upper",
        "sifkit stat overlay.img:/upper",
        "sifkit stat --json overlay.img /upper | python3 -m json.tool",
    ]
)
def command(
    console: Console,
    *,
    arguments: Annotated[list[str], typer.Argument(metavar="IMAGE PATH...", help="ext3 image and paths in it, or IMAGE:/PATH")],
    follow: Dereference = False,
    flags: ReadFlags,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per file")] = False,
) -> int:
    """Show the metadata of files in an image: type, size, mode, owner, links, inode, extents, times and extended attributes.

    Times are in UTC. The image is not modified.
    """
    from ext3.errors import Ext3Error

    from ..overlay.whiteouts import is_opaque_directory, is_whiteout, whited_out_name

    failed = 0
    first = True
    groups = group_by_image(arguments)
    several = several_paths(groups)
    for image, paths in groups:
        with open_for_reading(console, image, flags.partition, upper=flags.upper) as view:
            for path in paths:
                try:
                    found = view.filesystem.stat(lookup(view, path, follow=follow, verb="stat"))
                    target = view.filesystem.readlink(found.ino) if found.is_symlink else None
                    xattrs = view.filesystem.xattrs(found.ino)
                    extents = view.filesystem.data_extents(found.ino)
                except Ext3Error as error:
                    if not several:
                        raise
                    failed += 1
                    console.error(str(error))
                    continue
                opaque = found.is_dir and is_opaque_directory(view.filesystem, found.ino)
                last = path.rstrip(b"/").rpartition(b"/")[2]
                created = None if found.crtime is None else rfc3339(found.crtime)
                if json:
                    fields: Fields = {"crtime": created, "flags": found.flags, "generation": found.generation}
                    fields |= {"extents": len(extents), "xattrs": len(xattrs)}
                    fields |= {"whiteout": is_whiteout(found) or whited_out_name(last) is not None, "opaque": opaque}
                    console.emit(entry_fields(path, found, target) | fields, image=image)
                    continue
                if not first:
                    console.line("")
                first = False
                name = escape(path)
                print_pairs(
                    [
                        ("file", name if target is None else f"{name} -> {escape(target)}"),
                        ("type", _kind(found, last, opaque)),
                        ("size", f"{counted(found.size, 'byte')}, {found.blocks * 512:,} allocated"),
                        ("mode", f"{found.mode & 0o7777:04o} {mode_text(found.mode)}"),
                        ("owner", f"{found.uid}:{found.gid}"),
                        ("links", str(found.links)),
                        ("inode", f"{found.ino}, generation {found.generation}, flags {found.flags:#x}"),
                        ("data", counted(len(extents), "extent")),
                        ("modified", rfc3339(found.mtime)),
                        ("changed", rfc3339(found.ctime)),
                        ("accessed", rfc3339(found.atime)),
                        ("created", created or "unknown"),
                        ("attributes", " ".join(escape(key) for key in sorted(xattrs)) or "none"),
                    ],
                    console,
                )
    return 1 if failed else 0
