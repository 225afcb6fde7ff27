"""Verbs that read trees: opening them, errors that do not end the verb, JSON of entries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ...errors import ImageChangedError, ImageInUseError, SifkitError, counted, shell_quote, show
from .console import Console, Fields, name_fields
from .failures import report
from .image_path import group_by_image, several_paths
from .options import ReadFlags
from .render import filesystem_summary, rfc3339

if TYPE_CHECKING:
    from ...overlay.images.change_watch import ChangeWatch
    from ...overlay.images.opening import OpenedImage
    from ...overlay.view.container import Container
    from ...overlay.view.tree_opening import OpenedTree
    from ...vfs.file_tree import FileTree, Stat

__all__ = [
    "TYPES",
    "ReadBatch",
    "refuse_changes",
    "warn_of_changes",
    "entry_fields",
    "host_identities",
    "image_options",
    "lookup",
    "offset_of",
    "open_for_reading",
    "overlays_above",
    "problem_text",
    "xattrs_of",
]

TYPES = ("unknown", "file", "directory", "character", "block", "fifo", "socket", "symlink")
"""JSON's words for the file types of directory entries."""


@contextmanager
def open_for_reading(
    console: Console,
    image: str,
    partition: str | None,
    *,
    offset: int | None = None,
    upper: bool = False,
    overlays: Sequence[str] = (),
    marks: bool = False,
) -> Iterator[OpenedTree]:
    """Open an image, a directory or a container for reading; warn if an image's journal cannot be read.

    ``offset``: byte of the file where the filesystem begins. ``overlays``: values of ``--overlay``. With ``upper`` the view is
    the container's: whiteouts and what they hide are missing, unless ``marks`` is set.
    """
    from ...overlay.view.overlay_argument import parse_overlays
    from ...overlay.view.tree_opening import open_tree

    console.image, console.path = image, None
    console.image_options = image_options(partition, offset=offset, upper=upper)
    console.overlays = tuple(overlays)
    console.takes_any_image = True
    with open_tree(image, partition, offset=offset, upper=upper, whiteouts=marks, overlays=parse_overlays(overlays)) as opened:
        console.is_ext3 = [found.kind for found in opened.filesystems] == ["ext3"]
        for found in opened.filesystems:
            console.detail(filesystem_summary(found))
            if found.image is not None and (problem := found.image.journal_problem) is not None:
                console.warn(f"{show(found.path)}: cannot read its journal, the content shown may be out of date: {problem}")
        yield opened
        if opened.container is not None:
            _note_ignored_marks(console, opened.container)


def _note_ignored_marks(console: Console, container: Container) -> None:
    """Say where Apptainer shows something else than what was read."""
    for number, marks in sorted(container.tree.marks.items()):
        layer = container.layers[number].filesystem
        replaced = f"the old content of {counted(marks.opaque, 'directory', 'directories')}"
        told = [*([counted(marks.whiteouts, "removed file")] if marks.whiteouts else []), *([replaced] if marks.opaque else [])]
        text = f"where it is read-only, Apptainer without root shows {' and '.join(told)} again"
        if layer.kind == "ext3":
            text += f"; to prevent that: {_normalize_command(container, number)}"
        console.note(f"{show(layer.name)}: {text}")


def _normalize_command(container: Container, number: int) -> str:
    """Return the command that normalizes a layer, with the layers below it; an overlay in a SIF has these of its own."""
    layer, root = container.layers[number], container.layers[0].filesystem
    words = ["sifkit overlay normalize"]
    if layer.is_given:
        words.append(f"--base {shell_quote(root.path)}")
        words += (f"--overlay {shell_quote(one.filesystem.path)}" for one in container.layers[1:number] if one.is_given)
    elif sum(not one.is_given for one in container.layers) > 2:
        words.append(f"--partition {layer.filesystem.object_id}")
    return " ".join([*words, shell_quote(layer.filesystem.path)])


@contextmanager
def warn_of_changes(console: Console, opened: OpenedTree, *, allowed: bool) -> Iterator[None]:
    """Warn if another process may write to an image that is read in this block, and if one did. ``allowed``: do not look."""
    watches: list[tuple[str, ChangeWatch]] = []
    for image in () if allowed else opened.images:
        watch = image.watch()
        users = watch.users()
        if users.busy:
            console.warn(f"{show(image.path)} is in use: {users.describe()}; what is read of it may not fit together")
        else:  # one warning is enough
            watches.append((image.path, watch))
    try:
        yield
    finally:
        for path, watch in watches:
            if watch.changed():
                console.warn(f"{show(path)} changed while it was read; what was read of it may not fit together")


@contextmanager
def refuse_changes(images: Sequence[OpenedImage], *, allowed: bool) -> Iterator[Callable[[], None]]:
    """Fail if another process may write to an image that is read in this block, or if one did. ``allowed``: do not look.

    Gives the check to make before the result is used. Raises ImageInUseError, ImageChangedError.
    """
    accept = "wait until it is free, or accept what may not fit together with --allow-changed"
    watches = [] if allowed else [image.watch() for image in images]

    def check_unchanged() -> None:
        for watch in watches:
            watch.check_unchanged()

    try:
        for watch in watches:
            watch.check_unused()
        try:
            yield check_unchanged
        except BrokenPipeError:
            raise
        except (OSError, SifkitError):
            check_unchanged()  # that is why
            raise
    except (ImageInUseError, ImageChangedError) as error:
        error.hint = accept
        raise


def host_identities(opened: OpenedTree) -> set[tuple[int, int]]:
    """Return device and inode number of each image that is open, to recognize it among files on the host."""
    found = [os.stat(one.path) for one in opened.filesystems]
    return {(one.st_dev, one.st_ino) for one in found}


def overlays_above(image: str, overlays: Sequence[str] | None, images: Sequence[str]) -> Sequence[str]:
    """Return the ``overlays`` that are above one of several ``images``: they are for SIF images and squashfs, if one is."""
    from ...overlay.images.image_format import is_container_image

    if not overlays or len(set(images)) == 1:
        return overlays or ()
    return overlays if is_container_image(image) or not any(map(is_container_image, images)) else ()


def image_options(partition: str | None, *, offset: int | None = None, upper: bool) -> tuple[str, ...]:
    """Command-line options that open the same view of the image."""
    place = ("--partition", partition) if partition is not None else ()
    start = ("--offset", str(offset)) if offset is not None else ()
    return (*place, *start, *(("--upper",) if upper else ()))


def offset_of(image: str, offset: int | None, images: Sequence[str]) -> int | None:
    """Return the ``offset`` of one of several ``images``: it is for those that begin with no image, if there are any."""
    from ...overlay.images.image_format import file_format

    def is_larger(path: str) -> bool:
        return os.path.isfile(path) and file_format(path) not in ("ext", "sif", "squashfs")

    if offset is None or len(set(images)) == 1:
        return offset
    if os.path.isdir(image):
        return None
    return offset if is_larger(image) or not any(map(is_larger, images)) else None


def lookup(tree: FileTree[Any], path: bytes, *, follow: bool = True, verb: str = "access") -> Any:
    """Look up the node of a path. Raises TreePathError worded as coreutils: "cannot access 'x': No such file or directory"."""
    from ...vfs.errors import TreePathError
    from ...vfs.resolve import Resolver

    try:
        return Resolver(tree).lookup(path, follow=follow)
    except TreePathError as error:
        error.reword(f"cannot {verb} '{show(path)}': {error.reason}")
        raise


def xattrs_of(tree: FileTree[Any], node: Any) -> Mapping[bytes, bytes]:
    """Return the xattrs of a file, none where its filesystem has no such thing."""
    from ext3 import hostio

    try:
        return tree.xattrs(node)
    except OSError as error:
        if error.errno in hostio.NO_XATTRS:
            return {}
        raise


def problem_text(path: bytes, error: OSError) -> str:
    """Return an error of the file at ``path`` as one line, which names the path once."""
    message = getattr(error, "message", None)
    if message is None:  # of the host: its own name says where
        named = error.filename if isinstance(error.filename, bytes | str) else path
        return f"{show(named)}: {error.strerror or error}"
    return message if isinstance(getattr(error, "path", None), bytes | str) else f"{show(path)}: {message}"


class ReadBatch:
    """Reads of one run of a verb: its images, opened in turn, and the errors of single files, which do not end it.

    They are reported and counted, and the run goes on. Only if there is nothing else to read, an image that cannot be opened
    or a path that cannot be read ends it.
    """

    def __init__(self, console: Console, arguments: Sequence[str], flags: ReadFlags, *, default: Sequence[str] = ()) -> None:
        """``arguments``, ``default``: see ``group_by_image``."""
        self.console = console
        self.groups = group_by_image(arguments, default=default)
        self.named = [image for image, _ in self.groups]
        """Images that the command line names; of an option, too."""
        self.several = several_paths(self.groups)
        self.errors = 0
        """Errors in the current image."""
        self.exit_code = 0
        self._flags = flags
        self._last: tuple[bytes, str] | None = None

    def images(self) -> Iterator[tuple[str, list[bytes], OpenedTree]]:
        """Open the images in turn; iterate over (image, paths in it, its tree)."""
        from ext3.errors import Ext3Error

        for image, paths in self.groups:
            self.errors, self._last = 0, None
            with ExitStack() as stack:
                flags = self._flags
                offset = offset_of(image, flags.start, self.named)
                reader = open_for_reading(
                    self.console,
                    image,
                    flags.partition,
                    offset=offset,
                    upper=flags.upper,
                    overlays=overlays_above(image, flags.overlay, self.named),
                )
                try:
                    opened = stack.enter_context(reader)
                except (SifkitError, Ext3Error, OSError) as error:
                    if len(self.groups) == 1:
                        raise
                    self.exit_code = max(self.exit_code, report(error, self.console))
                    continue
                yield image, self._expanded(opened.tree, paths), opened

    def _expanded(self, tree: FileTree[Any], paths: list[bytes]) -> list[bytes]:
        """Return the paths with patterns replaced by what they match."""
        from ...vfs.glob import expand

        found: list[bytes] = []
        for path in paths:
            try:
                found += expand(tree, path)
            except OSError as error:
                self.problem(path, error)
        self.several |= len(found) > 1
        return found

    def problem(self, path: bytes, error: OSError) -> None:
        """Report and count an error of the file at ``path``, once if several reads in a row meet it."""
        self.exit_code = max(self.exit_code, 1)
        text = problem_text(path, error)
        if (path, text) != self._last:
            self._last = path, text
            self.errors += 1
            self.console.error(text)

    @contextmanager
    def attempt(self, path: bytes) -> Iterator[None]:
        """Report and count an error of the block, which reads ``path``; raise it if there is no other path."""
        self.console.path = path
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            if not self.several:
                raise
            self.problem(path, error)
        self.console.path = None


def entry_fields(path: bytes, found: Stat, target: bytes | None) -> Fields:
    """File in a tree as JSON."""
    from ...vfs.file_tree import file_type_of

    word = TYPES[file_type_of(found.mode)]
    try:
        text = path.decode()
        names: Fields = {"path": text, "name": text.rstrip("/").rpartition("/")[2] or text}
    except UnicodeDecodeError:
        names = name_fields("path", path) | name_fields("name", path.rstrip(b"/").rpartition(b"/")[2] or path)
    fields: Fields = {
        **names,
        "type": word,
        "ino": found.ino,
        "mode": f"{found.mode & 0o7777:04o}",
        "uid": found.uid,
        "gid": found.gid,
        "links": found.links,
        "size_bytes": found.size,
        "allocated_bytes": found.blocks * 512,
        "mtime": rfc3339(found.mtime),
        "ctime": rfc3339(found.ctime),
        "atime": rfc3339(found.atime),
    }
    if word in ("character", "block"):
        fields |= {"major": found.major, "minor": found.minor}
    if target is not None:
        fields |= name_fields("target", target)
    return fields
