"""Source of an object's content: a file or standard input, with its first bytes to detect the format."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from ext3 import hostio

from ...errors import UsageError, show
from .session import same_file

if TYPE_CHECKING:
    from ...sif import FSType

__all__ = ["ObjectSource", "check_filesystem", "open_object_source"]

HEAD_BYTES = 64 << 10
STDIN = "-"


@dataclass(frozen=True, slots=True)
class ObjectSource:
    """Source of an object's content. ``label``: for messages; ``name``: the file's, "" for standard input; ``content``: as the
    library takes it; ``head``: its first bytes; ``size`` None: unknown."""

    label: str
    name: str
    content: Any
    head: bytes
    size: int | None


class _PrefixedStream:
    """Stream whose first bytes were read already."""

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
def open_object_source(file: str, image: str) -> Iterator[ObjectSource]:
    """Open the file (- for standard input) to be added to ``image``. Raises UsageError, SIFSourceError."""
    if file == STDIN:
        yield _stdin()
        return
    if same_file(file, image):
        raise UsageError(f"{show(file)} is the image itself", hint="give the file to add")
    handle = _open(file)
    try:
        found = os.fstat(handle.fileno())
        head = handle.read(HEAD_BYTES)
        if stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode):
            handle.seek(0)
            size = hostio.true_size(handle.fileno())
            yield ObjectSource(show(file), os.path.basename(file), handle, head, size)
        else:
            yield ObjectSource(show(file), os.path.basename(file), _PrefixedStream(head, handle, file), head, None)
    finally:
        handle.close()


def _open(file: str) -> BinaryIO:
    """Open a file for reading. Raises SIFSourceError, also for directories and endless devices."""
    from ...sif import SIFSourceError

    try:
        kind = os.stat(file).st_mode
        what = "a directory" if stat.S_ISDIR(kind) else ""
        if stat.S_ISCHR(kind) and file not in (os.devnull, "/dev/stdin"):
            what = "an endless device"
        if what:
            raise SIFSourceError(f"{show(file)} is {what}", path=file, hint="give a file")
        return open(file, "rb")
    except SIFSourceError:
        raise
    except OSError as error:
        raise SIFSourceError(f"{show(file)}: {error.strerror}", path=file, error=error) from error


def _stdin() -> ObjectSource:
    label = "standard input"
    if sys.stdin is None:
        raise UsageError(f"FILE -: {label} is closed", hint="pipe data in, or give a file")
    if sys.stdin.isatty():
        raise UsageError(f"FILE -: {label} is a terminal", hint="pipe data in, or give a file")
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise UsageError(f"FILE -: {label} is not binary", hint="give a file")
    if stream.seekable() and _has_known_size(stream):
        begin = stream.tell()
        head = stream.read(HEAD_BYTES)
        end = stream.seek(0, os.SEEK_END)
        stream.seek(begin)
        return ObjectSource(label, "", stream, head, end - begin)
    head = stream.read(HEAD_BYTES)
    return ObjectSource(label, "", _PrefixedStream(head, stream, label), head, None)


def _has_known_size(stream: BinaryIO) -> bool:
    """Return False for a file of proc and the like, which only reading measures."""
    try:
        fd = stream.fileno()
    except OSError:  # an object in memory
        return True
    return not hostio.is_regular(fd) or hostio.true_size(fd) is not None


def check_filesystem(source: ObjectSource, option: str, declared: FSType | None) -> FSType | None:
    """Return the filesystem to declare: ``declared``, else the one detected in the content; None if there is neither.

    Raises UsageError if the two contradict each other.
    """
    from ...sif import FSType
    from ...sif.sniff import filesystem_name, sniff_filesystem

    detected = sniff_filesystem(source.head)
    name = filesystem_name(source.head)
    if declared is None:
        if detected is None and name is not None:
            hint = "create an ext3 image with: sifkit overlay create"
            raise UsageError(f"{source.label} is {name}, which runtimes do not mount", hint=hint)
        return detected
    fits = detected in (None, declared) or declared in (FSType.RAW, FSType.IMMUTABLE_OBJECTS)
    if declared == FSType.GOCRYPTFS_SQUASHFS and detected == FSType.SQUASHFS:
        fits = True
    if not fits or (name == "ext4" and declared in (FSType.EXT3, FSType.SQUASHFS)):
        hint = (
            f"omit {option}, or give {option} {detected.word}"
            if detected
            else "create an ext3 image with: sifkit overlay create"
        )
        raise UsageError(f"{source.label} is {name}, but {option} says {declared.word}", hint=hint)
    return declared
