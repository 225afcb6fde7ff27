"""``sifkit stat``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ..errors import counted, show
from .support.console import Console, Fields
from .support.frame import verb
from .support.options import Dereference, ReadFlags
from .support.reading import TYPES, ReadBatch, entry_fields, lookup, xattrs_of
from .support.render import escape, mode_text, print_pairs, rfc3339

if TYPE_CHECKING:
    from ..overlay.images.opening import FileDetails
    from ..overlay.view.tree_opening import OpenedTree
    from ..vfs.file_tree import Stat

__all__ = ["command"]

T = TypeVar("T")


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
        "sifkit stat image.sif /etc/motd",
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
    """Show the metadata of files in an image: type, size, mode, owner, links, inode, extents, times and extended attributes;
    of a container also the layer that a file comes from.

    Times are in UTC. What cannot be read of a damaged file is unknown, and reported. The image is not modified.
    """
    batch = ReadBatch(console, arguments, flags)
    first = True
    for image, paths, opened in batch.images():
        for path in paths:
            with batch.attempt(path):
                details = _read(batch, opened, path, follow=follow)
                if json:
                    console.emit(_fields(details), image=image)
                    continue
                if not first:
                    console.line("")
                first = False
                print_pairs(_pairs(details), console)
    return batch.exit_code


@dataclass(frozen=True, slots=True)
class _Details:
    """All that is known of a file; None: unknown. ``layer``: of a container, that the file comes from."""

    path: bytes
    stat: Stat
    target: bytes | None
    xattrs: Mapping[bytes, bytes] | None
    opaque: bool | None
    inode: FileDetails | None
    extents: int | None
    layer: str | None

    @property
    def name(self) -> bytes:
        return self.path.rstrip(b"/").rpartition(b"/")[2]


def _read(batch: ReadBatch, opened: OpenedTree, path: bytes, *, follow: bool) -> _Details:
    """Read what can be read of a file; the errors of the rest are reported. Raises OSError if its inode cannot be read."""
    from ..vfs.resolve import is_dir, is_symlink
    from ..vfs.upper_view import is_opaque_directory

    tree = opened.tree
    node = lookup(tree, path, follow=follow, verb="stat")
    found = tree.stat(node)
    of_ext3 = opened.inode(node)
    inode = None if of_ext3 is None else of_ext3[0].details(of_ext3[1])

    def attempt(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except OSError as error:
            batch.problem(path, error)
            return None

    target = attempt(lambda: tree.readlink(node)) if is_symlink(found) else None
    xattrs = attempt(lambda: xattrs_of(tree, node))
    opaque = attempt(lambda: is_opaque_directory(tree, node)) if is_dir(found) else False
    extents = None if of_ext3 is None else attempt(lambda: of_ext3[0].count_extents(of_ext3[1]))
    return _Details(path, found, target, xattrs, opaque, inode, extents, opened.layer_name(node))


def _fields(file: _Details) -> Fields:
    from ..vfs.whiteouts import is_whiteout, whited_out_name

    inode = file.inode
    fields: Fields = {"crtime": None if inode is None or inode.crtime is None else rfc3339(inode.crtime)}
    fields |= {key: None if inode is None else getattr(inode, key) for key in ("flags", "generation")}
    fields |= {"extents": file.extents, "xattrs": None if file.xattrs is None else len(file.xattrs)}
    fields |= {"layer": file.layer}
    fields |= {"whiteout": is_whiteout(file.stat) or whited_out_name(file.name) is not None, "opaque": file.opaque}
    return entry_fields(file.path, file.stat, file.target) | fields


def _pairs(file: _Details) -> list[tuple[str, str]]:
    found, inode = file.stat, file.inode
    name, of_inode, data, created = escape(file.path), "", "", "unknown"
    if inode is not None:
        of_inode = f", generation {inode.generation}, flags {inode.flags:#x}"
        data = "unknown" if file.extents is None else counted(file.extents, "extent")
        created = "unknown" if inode.crtime is None else rfc3339(inode.crtime)
    attributes = "unknown" if file.xattrs is None else " ".join(escape(key) for key in sorted(file.xattrs)) or "none"
    pairs = [
        ("file", name if file.target is None else f"{name} -> {escape(file.target)}"),
        ("type", _kind(found, file.name, bool(file.opaque))),
        ("layer", "" if file.layer is None else show(file.layer)),
        ("size", f"{counted(found.size, 'byte')}, {found.blocks * 512:,} allocated"),
        ("mode", f"{found.mode & 0o7777:04o} {mode_text(found.mode)}"),
        ("owner", f"{found.uid}:{found.gid}"),
        ("links", str(found.links)),
        ("inode", f"{found.ino}{of_inode}"),
        ("data", data),
        ("modified", rfc3339(found.mtime)),
        ("changed", rfc3339(found.ctime)),
        ("accessed", rfc3339(found.atime)),
        ("created", created),
        ("attributes", attributes),
    ]
    return [pair for pair in pairs if pair[1]]
