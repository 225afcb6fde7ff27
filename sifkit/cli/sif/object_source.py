"""Where an object's bytes come from: a file, or standard input; with its first bytes, which tell what it is."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from ...errors import UsageError, show
from .session import same_file

if TYPE_CHECKING:
    from ...sif import FSType

__all__ = ["Source", "check_filesystem", "opened"]

HEAD_BYTES = 64 << 10
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """``content`` is what the library takes; ``name`` the file's own, none of standard input; ``size`` None: not known."""

    label: str
    name: str
    content: Any
    head: bytes
    size: int | None


class _Headed:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, rest: BinaryIO, name: str) -> None:
        self._head = head
        self._rest = rest
        self.name = name

    def read(self, size: int) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._rest.read(size)


@contextmanager
def opened(file: str, image: str) -> Iterator[Source]:
    """``file`` ready to be added to ``image``. Raises UsageError, SourceError."""
    if file == STDIN:
        yield _stdin()
        return
    if same_file(file, image):
        raise UsageError(f"{show(file)} is the image itself", hint="name the file that is to go in")
    handle = _open(file)
    try:
        found = os.fstat(handle.fileno())
        head = handle.read(HEAD_BYTES)
        if stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode):
            handle.seek(0)
            size = found.st_size if stat.S_ISREG(found.st_mode) else None
            yield Source(show(file), os.path.basename(file), handle, head, size)
        else:
            yield Source(show(file), os.path.basename(file), _Headed(head, handle, file), head, None)
    finally:
        handle.close()


def _open(file: str) -> BinaryIO:
    """The file, open; not a directory, and not a device that has no end."""
    from ...sif import SourceError

    try:
        kind = os.stat(file).st_mode
        what = "a directory" if stat.S_ISDIR(kind) else ""
        if stat.S_ISCHR(kind) and file not in (os.devnull, "/dev/stdin"):
            what = "a device without an end"
        if what:
            raise SourceError(f"{show(file)} is {what}", path=file, hint="name a file")
        return open(file, "rb")
    except SourceError:
        raise
    except OSError as error:
        hint = "check the name" if isinstance(error, FileNotFoundError) else ""
        raise SourceError(f"{show(file)}: {error.strerror}", path=file, hint=hint, error=error) from error


def _stdin() -> Source:
    label = "standard input"
    if sys.stdin is None:
        raise UsageError(f"FILE -: {label} is closed", hint="pipe something in, or name a file")
    if sys.stdin.isatty():
        raise UsageError(f"FILE -: {label} is a terminal", hint="pipe something in, or name a file")
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise UsageError(f"FILE -: {label} gives no bytes", hint="name a file")
    if stream.seekable():
        begin = stream.tell()
        head = stream.read(HEAD_BYTES)
        end = stream.seek(0, os.SEEK_END)
        stream.seek(begin)
        return Source(label, "", stream, head, end - begin)
    head = stream.read(HEAD_BYTES)
    return Source(label, "", _Headed(head, stream, label), head, None)


def check_filesystem(source: Source, option: str, declared: FSType | None) -> FSType | None:
    """The filesystem to declare: what was said, or what the content shows. Raises UsageError where these contradict.

    None: nothing was said and nothing can be told.
    """
    from ...sif import FSType
    from ...sif.sniff import filesystem_name, sniff_filesystem

    seen = sniff_filesystem(source.head)
    name = filesystem_name(source.head)
    if declared is None:
        if seen is None and name is not None:
            hint = "make an ext3 image: sifkit overlay create"
            raise UsageError(f"{source.label} is {name}, which the runtimes do not mount", hint=hint)
        return seen
    fits = seen in (None, declared) or declared in (FSType.RAW, FSType.IMMUTABLE_OBJECTS)
    if declared == FSType.GOCRYPTFS_SQUASHFS and seen == FSType.SQUASHFS:
        fits = True
    if not fits or (name == "ext4" and declared in (FSType.EXT3, FSType.SQUASHFS)):
        hint = f"leave {option} out, or write {option} {seen.word}" if seen else "make an ext3 image: sifkit overlay create"
        raise UsageError(f"{source.label} is {name}, and {option} says {declared.word}", hint=hint)
    return declared
