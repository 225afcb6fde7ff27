"""``sifkit diff``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SifkitError, UsageError, human, show
from .support.console import Console, Fields, name_fields
from .support.failures import report
from .support.frame import verb
from .support.image_path import split_image_path
from .support.options import AllowChanged, ReadFlags, ZeroTerminated
from .support.reading import TYPES, lookup, offset_of, open_for_reading, overlays_above, warn_of_changes
from .support.render import display_name, short_size

if TYPE_CHECKING:
    from ..overlay.view.tree_opening import OpenedTree
    from ..vfs.file_differences import Difference
    from ..vfs.file_tree import FileTree

__all__ = ["command"]

LETTERS = {"added": "A", "deleted": "D", "modified": "M"}


@verb(
    examples=[
        "sifkit diff overlay.img job-1.img",
        "sifkit diff overlay.img overlay/",
        "sifkit diff overlay.img:/upper out/",
        "sifkit diff image.sif",
        "sifkit diff root.sif --overlay overlay.img",
        "sifkit diff --json overlay.img job-1.img",
    ]
)
def command(
    console: Console,
    *,
    old: Annotated[str, typer.Argument(metavar="A", help="image, directory or IMAGE:/PATH")],
    new: Annotated[
        str | None, typer.Argument(metavar="B", help="image or directory to compare it with; without it: see --overlay")
    ] = None,
    no_owner: Annotated[bool, typer.Option("--no-owner", help="do not compare owners")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="say only whether there are differences")] = False,
    flags: ReadFlags,
    allow_changed: AllowChanged = False,
    zero: ZeroTerminated = False,
    json: Annotated[bool, typer.Option("--json", help="print a JSON object per change, and a summary")] = False,
) -> int:
    """Show what changed from A to B, a file per line: A added, D deleted, M modified, with the differences in parentheses
    (type, mode, owner, content, target, device, xattrs). Without B: what the overlays change in the container A, with sizes;
    those that --overlay gives, else those in A. The container's image is not read as a whole.

    Times are not compared. With --upper whiteouts are applied instead of compared.

    The exit code is 0 if there are no differences, 1 if there are some, 2 on failure.
    """
    from ext3.errors import Ext3Error

    report_of = _Report(console, old, new, brief=brief, zero=zero)
    try:
        with ExitStack() as stack:
            texts = [old] if new is None else [old, new]
            images = [_split(text)[0] for text in texts]
            sides = _Sides(console, stack, flags, images, allow_changed=allow_changed)
            if new is None:
                return report_of.print(*sides.layers(old, report_of, owners=not no_owner))
            from ..vfs.compare import compare_trees

            trees = sides.open(old), sides.open(new)
            return report_of.print(compare_trees(*trees, report_of.problem, owners=not no_owner), trees[0])
    except BrokenPipeError:
        raise
    except (SifkitError, Ext3Error, OSError) as error:
        report(error, console)
    return 2


class _Report:
    """Differences as they are printed. ``new`` is None: those that overlays make."""

    def __init__(self, console: Console, old: str, new: str | None, *, brief: bool, zero: bool) -> None:
        self._console = console
        self._old = old
        self._new = new
        self._brief = brief
        self._zero = zero
        self._first: FileTree[Any] | None = None
        self._errors = 0
        self._counts = dict.fromkeys(LETTERS, 0)
        self._bytes = dict.fromkeys(LETTERS, 0)

    def problem(self, tree: FileTree[Any], path: bytes, error: OSError) -> None:
        """Print and count the error of a file that cannot be read."""
        from ..vfs.errors import reason_of

        self._errors += 1
        text = self._old if self._new is None or tree is self._first else self._new
        top = text if os.path.isdir(text) or split_image_path(text) else f"{text}:"
        where = error.filename  # of the host: its own name says where
        if not isinstance(where, bytes | str):
            where = os.fsencode(top.rstrip("/")) + b"/" + path
        self._console.error(f"{show(where)}: {reason_of(error)}")

    def print(self, changes: Iterator[Difference], first: FileTree[Any]) -> int:
        """Print the changes from the tree ``first``; return the exit code."""
        self._first = first
        for change in changes:
            self._counts[change.kind] += 1
            size = change.old_size if change.kind == "deleted" else change.size
            self._bytes[change.kind] += size or 0
            if not self._brief:
                self._print_change(change)
        console, counts = self._console, self._counts
        if console.json:
            other: Fields = {"other": None} if self._new is None else name_fields("other", self._new)
            sizes = {f"{kind}_bytes": self._bytes[kind] for kind in counts}
            console.emit({**other, **counts, **sizes, "errors": self._errors}, image=self._old)
        elif any(counts.values()):
            told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
            if self._brief and self._new is not None:
                console.line(f"{show(self._old)} and {show(self._new)} differ: {told}")
            elif self._brief:
                console.line(f"{show(self._old)} is changed by its overlays: {told}")
            elif self._new is None:
                told = ", ".join(
                    f"{counts[kind]:,} {kind} ({human(size)})" for kind, size in self._bytes.items() if counts[kind]
                )
                console.result(f"{show(self._old)}: {told}")
        return 2 if self._errors else 1 if any(counts.values()) else 0

    def _print_change(self, change: Difference) -> None:
        from ..vfs.file_tree import file_type_of

        console = self._console
        if console.json:
            fields: Fields = {"change": change.kind, **name_fields("path", change.path)}
            fields |= {"type": TYPES[file_type_of(change.mode)], "what": list(change.what)}
            fields |= {"size_bytes": change.size, "old_size_bytes": change.old_size}
            console.emit_raw(fields)
            return
        name = change.path if self._zero else display_name(change.path, console)
        notes = [*change.what, *([_sizes(change)] if self._new is None else [])]
        what = f"  ({', '.join(filter(None, notes))})" if any(notes) and not self._zero else ""
        console.write(f"{LETTERS[change.kind]} ".encode() + name + what.encode() + (b"\0" if self._zero else b"\n"))


def _sizes(change: Difference) -> str:
    """Sizes of a regular file, before and after where they differ; empty if it has none, or has the content it had."""
    if change.kind == "modified" and not {"content", "type"} & set(change.what):
        return ""
    sizes = [short_size(size) for size in (change.old_size, change.size) if size is not None]
    return " -> ".join(dict.fromkeys(sizes))


class _Sides:
    """Images to compare, opened as the options say. ``images``: those of both sides."""

    def __init__(self, console: Console, stack: ExitStack, flags: ReadFlags, images: list[str], *, allow_changed: bool) -> None:
        self._console = console
        self._stack = stack
        self._flags = flags
        self._images = images
        self._allow_changed = allow_changed

    def open(self, text: str) -> FileTree[Any]:
        """Open one of two sides: the directory that ``text`` names."""
        from ..vfs.resolve import is_dir
        from ..vfs.subtree import Subtree
        from ..vfs.upper_view import UpperView

        console = self._console
        image, path = _split(text)
        opened, host = self._opened(image), os.path.isdir(image)
        tree = opened.tree
        if host and self._flags.upper:
            tree = UpperView(tree, tree.root)  # as extracted from upper/
        console.path = path
        node = lookup(tree, path)
        if not is_dir(tree.stat(node)):
            raise _no_directory(text)
        console.path = None
        return UpperView(tree.tree, node) if isinstance(tree, UpperView) else Subtree(tree, node)

    def layers(self, text: str, report_of: _Report, *, owners: bool) -> tuple[Iterator[Difference], FileTree[Any]]:
        """Open a container; return what its overlays change in the directory that ``text`` names, and the tree without them."""
        from ..overlay.images.sif_partition import unused_overlay
        from ..vfs.layer_changes import layer_changes
        from ..vfs.resolve import is_dir

        image, path = _split(text)
        container = self._opened(image).container
        if container is None or len(container.layers) < 2:
            hint = "give a second image to compare it with, or --overlay"
            unused = "" if os.path.isdir(image) else unused_overlay(image)
            raise UsageError(f"{show(text)} has no overlay that could change it{unused and ': '}{unused}", hint=hint)
        base, view = container.base_tree(), container.tree
        self._console.path = path
        tops = lookup(base, path), lookup(view, path)
        if not all(is_dir(tree.stat(top)) for tree, top in zip((base, view), tops, strict=True)):
            raise _no_directory(text)
        self._console.path = None
        return layer_changes(base, view, tops, report_of.problem, owners=owners), base

    def _opened(self, image: str) -> OpenedTree:
        """Open an image as the options say."""
        from ..overlay.images.image_format import is_sif

        flags = self._flags
        partition = flags.partition if is_sif(image) else None  # it may be for the other side
        opened = self._stack.enter_context(
            open_for_reading(
                self._console,
                image,
                partition,
                offset=offset_of(image, flags.start, self._images),
                upper=flags.upper and not os.path.isdir(image),
                overlays=overlays_above(image, flags.overlay, self._images),
            )
        )
        self._stack.enter_context(warn_of_changes(self._console, opened, allowed=self._allow_changed))
        return opened


def _split(text: str) -> tuple[str, bytes]:
    """Return the image and the path in it that an argument names."""
    image, path = split_image_path(text) or (text, "/")
    return image, os.fsencode(path)


def _no_directory(text: str) -> UsageError:
    return UsageError(f"{show(text)} is not a directory in the image", hint="to compare files, use sifkit cat and cmp")
