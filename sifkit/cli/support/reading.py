"""Verbs that read an image: opening it, JSON of entries, errors that do not end the verb."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...errors import show
from .console import Console, Fields, name_fields
from .render import image_summary, rfc3339

if TYPE_CHECKING:
    from ext3.read.filesystem import Stat

    from ...overlay.view import View

__all__ = ["TYPES", "entry_fields", "host_identity", "image_options", "lookup", "open_for_reading", "print_problems"]

TYPES = ("unknown", "file", "directory", "character", "block", "fifo", "socket", "symlink")
"""JSON's words for the file types of directory entries."""


@contextmanager
def open_for_reading(
    console: Console, image: str, partition: str | None, *, upper: bool = False, marks: bool = False
) -> Iterator[View]:
    """Open an image for reading; warn if its journal cannot be read.

    With ``upper`` the view is the container's: whiteouts and what they hide are missing, unless ``marks`` is set.
    """
    from ...overlay.opening import open_image
    from ...overlay.view import View

    console.image = image
    console.image_options = image_options(partition, upper=upper)
    with open_image(image, partition) as filesystem:
        console.detail(image_summary(image, filesystem))
        if filesystem.journal_problem is not None:
            problem = filesystem.journal_problem
            console.warn(f"{show(image)}: cannot read its journal, the content shown may be out of date: {problem}")
        yield View.of(filesystem, upper=upper, whiteouts=marks)


def host_identity(image: str) -> tuple[int, int]:
    """Device and inode number of an image, to recognize it among files on the host."""
    found = os.stat(image)
    return found.st_dev, found.st_ino


def image_options(partition: str | None, *, upper: bool) -> tuple[str, ...]:
    """Command-line options that open the same view of the image."""
    return (*(("--partition", partition) if partition is not None else ()), *(("--upper",) if upper else ()))


def lookup(view: View, path: bytes, *, follow: bool = True, verb: str = "access") -> int:
    """Look up the inode of a path. Raises PathError worded as coreutils: "cannot access 'x': No such file or directory"."""
    from ext3.errors import PathError

    try:
        return view.lookup(path, follow=follow)
    except PathError as error:
        error.reword(f"cannot {verb} '{show(path)}': {os.strerror(error.errno or 0)}")
        raise


def print_problems(console: Console, problems: Iterable[Exception]) -> None:
    """Print errors that did not end the verb, a line each."""
    for problem in problems:
        if isinstance(problem, OSError) and isinstance(problem.filename, str | bytes) and problem.strerror:
            console.error(f"{show(problem.filename)}: {problem.strerror}")
        else:
            console.error(show(str(problem)))


def entry_fields(path: bytes, found: Stat, target: bytes | None) -> Fields:
    """File in an image as JSON."""
    word = TYPES[found.file_type]
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
