"""``sifkit diff``."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SifkitError, UsageError, show
from .support.console import Console, Fields, name_fields
from .support.failures import report
from .support.frame import verb
from .support.image_path import split_image_path
from .support.options import AllowChanged, ReadFlags, ZeroTerminated
from .support.reading import TYPES, lookup, offset_of, open_for_reading, warn_of_changes
from .support.render import display_name

if TYPE_CHECKING:
    from ..vfs.file_tree import FileTree

__all__ = ["command"]

LETTERS = {"added": "A", "deleted": "D", "modified": "M"}


@verb(
    examples=[
        "sifkit diff overlay.img job-1.img",
        "sifkit diff overlay.img overlay/",
        "sifkit diff overlay.img:/upper out/",
        "sifkit diff --json overlay.img job-1.img",
    ]
)
def command(
    console: Console,
    *,
    old: Annotated[str, typer.Argument(metavar="A", help="image, directory or IMAGE:/PATH")],
    new: Annotated[str, typer.Argument(metavar="B", help="image or directory to compare it with")],
    no_owner: Annotated[bool, typer.Option("--no-owner", help="do not compare owners")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="say only whether there are differences")] = False,
    flags: ReadFlags,
    allow_changed: AllowChanged = False,
    zero: ZeroTerminated = False,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per change, and a summary")] = False,
) -> int:
    """Show what changed from A to B, a file per line: A added, D deleted, M modified, with the differences in parentheses
    (type, mode, owner, content, target, device, xattrs).

    Times are not compared. With --upper whiteouts are applied instead of compared.

    The exit code is 0 if there are no differences, 1 if there are some, 2 on failure.
    """
    from ext3.errors import Ext3Error

    try:
        with ExitStack() as stack:
            images = [(split_image_path(text) or (text, "/"))[0] for text in (old, new)]
            sides = [_open_side(console, stack, text, flags, images, allow_changed=allow_changed) for text in (old, new)]
            return _diff(console, old, new, sides[0], sides[1], owners=not no_owner, brief=brief, zero=zero)
    except BrokenPipeError:
        raise
    except (SifkitError, Ext3Error, OSError) as error:
        report(error, console)
    return 2


def _diff(
    console: Console,
    old: str,
    new: str,
    first: FileTree[Any],
    second: FileTree[Any],
    *,
    owners: bool,
    brief: bool,
    zero: bool,
) -> int:
    from ..vfs.compare import compare_trees
    from ..vfs.errors import reason_of
    from ..vfs.file_tree import file_type_of

    counts = dict.fromkeys(LETTERS, 0)
    errors = 0

    def on_problem(tree: FileTree[Any], path: bytes, error: OSError) -> None:
        nonlocal errors
        errors += 1
        text = old if tree is first else new
        top = text if os.path.isdir(text) or split_image_path(text) else f"{text}:"
        where = error.filename  # of the host: its own name says where
        if not isinstance(where, bytes | str):
            where = os.fsencode(top.rstrip("/")) + b"/" + path
        console.error(f"{show(where)}: {reason_of(error)}")

    for change in compare_trees(first, second, on_problem, owners=owners):
        counts[change.kind] += 1
        if brief:
            continue
        if console.json:
            fields: Fields = {"change": change.kind, **name_fields("path", change.path)}
            fields |= {"type": TYPES[file_type_of(change.mode)], "what": list(change.what)}
            console.emit_raw(fields)
            continue
        name = change.path if zero else display_name(change.path, console)
        what = f"  ({', '.join(change.what)})" if change.what and not zero else ""
        console.write(f"{LETTERS[change.kind]} ".encode() + name + what.encode() + (b"\0" if zero else b"\n"))
    if console.json:
        console.emit({**name_fields("other", new), **counts, "errors": errors}, image=old)
    elif brief and any(counts.values()):
        told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
        console.line(f"{show(old)} and {show(new)} differ: {told}")
    return 2 if errors else 1 if any(counts.values()) else 0


def _open_side(
    console: Console, stack: ExitStack, text: str, flags: ReadFlags, images: list[str], *, allow_changed: bool
) -> FileTree[Any]:
    """Open one side: the directory that ``text`` names. ``images``: those of both sides."""
    from ..overlay.image_format import is_sif
    from ..vfs.resolve import is_dir
    from ..vfs.subtree import Subtree
    from ..vfs.upper_view import UpperView

    image, path = split_image_path(text) or (text, "/")
    partition = flags.partition if is_sif(image) else None  # it may be for the other side
    host = os.path.isdir(image)
    offset = offset_of(image, flags.start, images)
    opened = stack.enter_context(open_for_reading(console, image, partition, offset=offset, upper=flags.upper and not host))
    stack.enter_context(warn_of_changes(console, image, opened, allowed=allow_changed))
    tree = opened.tree
    if host and flags.upper:
        tree = UpperView(tree, tree.root)  # as extracted from upper/
    console.path = os.fsencode(path)
    node = lookup(tree, console.path)
    if not is_dir(tree.stat(node)):
        raise UsageError(f"{show(text)} is not a directory in the image", hint="to compare files, use sifkit cat and cmp")
    console.path = None
    return UpperView(tree.tree, node) if isinstance(tree, UpperView) else Subtree(tree, node)
