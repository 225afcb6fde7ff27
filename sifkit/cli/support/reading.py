"""What the verbs that look into an image have in common: opening it, entries as JSON, going on behind a path that fails."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import show
from .console import Console, Fields, named
from .render import described, utc

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

    from ...overlay.view import View

__all__ = ["TYPES", "Upper", "entry_fields", "image_options", "locate", "looking", "on_host", "tell"]

TYPES = ("unknown", "file", "directory", "character", "block", "fifo", "socket", "symlink")
"""JSON's word for each file type of a directory entry."""

Upper = Annotated[bool, typer.Option("--upper", help="paths are the container's: they start at upper/")]


@contextmanager
def looking(console: Console, image: str, partition: str | None, *, upper: bool = False, marks: bool = False) -> Iterator[View]:
    """The image, open to be read; told with -v, and warned of where its journal cannot be taken into account.

    With ``upper``, what a container does not see is not there, unless ``marks`` are asked for.
    """
    from ...overlay.opening import open_image
    from ...overlay.view import View

    console.image = image
    console.image_options = image_options(partition, upper=upper)
    with open_image(image, partition) as filesystem:
        console.detail(described(image, filesystem))
        if filesystem.journal_problem is not None:
            console.warn(f"{show(image)}: its journal cannot be read, what is shown may be old: {filesystem.journal_problem}")
        yield View.of(filesystem, upper=upper, whiteouts=marks)


def on_host(image: str) -> tuple[int, int]:
    """Device and inode of an image: by these one tells that a file of the host is the image itself."""
    found = os.stat(image)
    return found.st_dev, found.st_ino


def image_options(partition: str | None, *, upper: bool) -> tuple[str, ...]:
    """The options that make another command see the same."""
    return (*(("--partition", partition) if partition is not None else ()), *(("--upper",) if upper else ()))


def locate(view: View, path: bytes, *, follow: bool = True, word: str = "access") -> int:
    """The inode of a path. PathError in coreutils' words: "cannot access 'x': No such file or directory"."""
    from ext3.errors import PathError

    try:
        return view.lookup(path, follow=follow)
    except PathError as error:
        error.message = f"cannot {word} '{show(path)}': {os.strerror(error.errno or 0)}"
        error.args = (error.message,)
        raise


def tell(console: Console, problems: Iterable[Exception]) -> None:
    """Problems that did not end the command, a line each."""
    for problem in problems:
        if isinstance(problem, OSError) and isinstance(problem.filename, str | bytes) and problem.strerror:
            console.error(f"{show(problem.filename)}: {problem.strerror}")
        else:
            console.error(show(str(problem)))


def entry_fields(path: bytes, found: Stat, target: bytes | None) -> Fields:
    """A file in an image as JSON."""
    word = TYPES[found.file_type]
    try:
        text = path.decode()
        names: Fields = {"path": text, "name": text.rstrip("/").rpartition("/")[2] or text}
    except UnicodeDecodeError:
        names = named("path", path) | named("name", path.rstrip(b"/").rpartition(b"/")[2] or path)
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
        "mtime": utc(found.mtime),
        "ctime": utc(found.ctime),
        "atime": utc(found.atime),
    }
    if word in ("character", "block"):
        fields |= {"major": found.major, "minor": found.minor}
    if target is not None:
        fields |= named("target", target)
    return fields
