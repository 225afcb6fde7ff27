"""``sifkit stat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import counted
from .support.console import Console, Fields
from .support.embedding import Partition
from .support.frame import verb
from .support.image_path import places
from .support.reading import TYPES, Upper, entry_fields, locate, looking
from .support.render import escaped, mode_text, pairs, utc

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

__all__ = ["command"]


def _kind(found: Stat, name: bytes, opaque: bool) -> str:
    from ..overlay.whiteouts import is_whiteout, whited_out_name

    if is_whiteout(found):
        return "whiteout (character device 0, 0): the file is removed in the container"
    if hidden := whited_out_name(name):
        return f"whiteout of fuse-overlayfs: {escaped(hidden)} is removed in the container"
    word = TYPES[found.file_type]
    if word in ("character", "block"):
        return f"{word} device {found.major}, {found.minor}"
    return f"{word}, opaque: it hides what lower layers have in it" if opaque else word


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
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE PATH...", help="an ext3 image and paths in it; or IMAGE:/PATH")
    ],
    follow: Annotated[bool, typer.Option("-L", "--dereference", help="of links, tell about the file they lead to")] = False,
    partition: Partition = None,
    upper: Upper = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object for each file")] = False,
) -> int:
    """Tell all there is to know of files in an image: type, size, mode, owner, times, attributes, and where the data lies.

    Times are UTC. The image is only read.
    """
    from ext3.errors import Ext3Error

    from ..overlay.whiteouts import is_opaque_directory, is_whiteout, whited_out_name

    failed = 0
    first = True
    wanted = places(arguments)
    several = sum(len(paths) for _, paths in wanted) > 1
    for image, paths in wanted:
        with looking(console, image, partition, upper=upper) as view:
            for path in paths:
                try:
                    found = view.filesystem.stat(locate(view, path, follow=follow, word="stat"))
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
                born = None if found.crtime is None else utc(found.crtime)
                if json:
                    fields: Fields = {"crtime": born, "flags": found.flags, "generation": found.generation}
                    fields |= {"extents": len(extents), "xattrs": len(xattrs)}
                    fields |= {"whiteout": is_whiteout(found) or whited_out_name(last) is not None, "opaque": opaque}
                    console.emit(entry_fields(path, found, target) | fields, image=image)
                    continue
                if not first:
                    console.line("")
                first = False
                name = escaped(path)
                pairs(
                    [
                        ("file", name if target is None else f"{name} -> {escaped(target)}"),
                        ("type", _kind(found, last, opaque)),
                        ("size", f"{counted(found.size, 'byte')}, {found.blocks * 512:,} in the image"),
                        ("mode", f"{found.mode & 0o7777:04o} {mode_text(found.mode)}"),
                        ("owner", f"{found.uid}:{found.gid}"),
                        ("links", str(found.links)),
                        ("inode", f"{found.ino}, generation {found.generation}, flags {found.flags:#x}"),
                        ("data", counted(len(extents), "extent")),
                        ("changed", utc(found.mtime)),
                        ("inode changed", utc(found.ctime)),
                        ("read", utc(found.atime)),
                        ("made", born or "not known"),
                        ("attributes", " ".join(escaped(key) for key in sorted(xattrs)) or "none"),
                    ],
                    console,
                )
    return 1 if failed else 0
