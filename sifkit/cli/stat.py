"""``sifkit stat``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import counted
from .support.console import Console, Fields
from .support.frame import verb
from .support.image_path import group_by_image, several_paths
from .support.options import Dereference, ReadFlags
from .support.reading import TYPES, entry_fields, lookup, open_for_reading, problem_text, xattrs_of
from .support.render import escape, mode_text, print_pairs, rfc3339

if TYPE_CHECKING:
    from ..vfs.file_tree import Stat

__all__ = ["command"]


def _kind(found: Stat, name: bytes, opaque: bool) -> str:
    from ..vfs.file_tree import file_type_of
    from ..vfs.whiteouts import is_whiteout, whited_out_name

    if is_whiteout(found):
        return "whiteout (character device 0, 0): hides the file of a lower layer"
    if hidden := whited_out_name(name):
        return f"whiteout of fuse-overlayfs: hides {escape(hidden)} of a lower layer"
    word = TYPES[file_type_of(found.mode)]
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
    arguments: Annotated[
        list[str], typer.Argument(metavar="IMAGE PATH...", help="image or directory, and paths in it; or IMAGE:/PATH")
    ],
    follow: Dereference = False,
    flags: ReadFlags,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per file")] = False,
) -> int:
    """Show the metadata of files in an image: type, size, mode, owner, links, inode, extents, times and extended attributes.

    Times are in UTC. The image is not modified.
    """
    from ..vfs.resolve import is_dir, is_symlink
    from ..vfs.upper_view import is_opaque_directory
    from ..vfs.whiteouts import is_whiteout, whited_out_name

    failed = 0
    first = True
    groups = group_by_image(arguments)
    several = several_paths(groups)
    for image, paths in groups:
        with open_for_reading(console, image, flags.partition, upper=flags.upper) as opened:
            tree = opened.tree
            for path in paths:
                try:
                    node = lookup(tree, path, follow=follow, verb="stat")
                    found = tree.stat(node)
                    target = tree.readlink(node) if is_symlink(found) else None
                    xattrs = xattrs_of(tree, node)
                    details = None if opened.image is None else opened.image.details(node)
                    opaque = is_dir(found) and is_opaque_directory(tree, node)
                except OSError as error:
                    if not several:
                        raise
                    failed += 1
                    console.error(problem_text(path, error))
                    continue
                last = path.rstrip(b"/").rpartition(b"/")[2]
                created = None if details is None or details.crtime is None else rfc3339(details.crtime)
                if json:
                    fields: Fields = {"crtime": created}
                    for key in ("flags", "generation", "extents"):
                        fields[key] = None if details is None else getattr(details, key)
                    fields["xattrs"] = len(xattrs)
                    fields |= {"whiteout": is_whiteout(found) or whited_out_name(last) is not None, "opaque": opaque}
                    console.emit(entry_fields(path, found, target) | fields, image=image)
                    continue
                if not first:
                    console.line("")
                first = False
                name = escape(path)
                of_inode, data = "", ""
                if details is not None:
                    of_inode = f", generation {details.generation}, flags {details.flags:#x}"
                    data = counted(details.extents, "extent")
                pairs = [
                    ("file", name if target is None else f"{name} -> {escape(target)}"),
                    ("type", _kind(found, last, opaque)),
                    ("size", f"{counted(found.size, 'byte')}, {found.blocks * 512:,} allocated"),
                    ("mode", f"{found.mode & 0o7777:04o} {mode_text(found.mode)}"),
                    ("owner", f"{found.uid}:{found.gid}"),
                    ("links", str(found.links)),
                    ("inode", f"{found.ino}{of_inode}"),
                    ("data", data),
                    ("modified", rfc3339(found.mtime)),
                    ("changed", rfc3339(found.ctime)),
                    ("accessed", rfc3339(found.atime)),
                    ("created", created or "unknown"),
                    ("attributes", " ".join(escape(key) for key in sorted(xattrs)) or "none"),
                ]
                print_pairs([pair for pair in pairs if pair[1]], console)
    return 1 if failed else 0
