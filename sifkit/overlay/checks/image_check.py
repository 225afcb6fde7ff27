"""Check that an image is whole and readable: a SIF with its objects and partitions, a squashfs or ext3 image.

Nothing is written. A file that cannot be read is bad, with the reason. Whether the content is that of the publisher, a digest
tells, not this check; signatures are counted and not checked.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256

from ext3 import hostio
from ext3.hostio import HostPath

from ...errors import SifkitError, show
from ..images.image_format import HEAD_BYTES
from .filesystem_check import Advance, Place, check_ext3, check_squashfs_part, image_kind_of
from .image_result import DigestResult, ImageProblem, ImageResult, PartResult
from .sif_check import check_sif

__all__ = ["check_image"]

SMALLEST_IMAGE = 96
"""Bytes of a squashfs superblock, the smallest beginning of an image."""
READ_BYTES = 1 << 20


def check_image(
    path: HostPath,
    *,
    threads: int | None = None,
    hashed: bool = False,
    want: str | None = None,
    any_content: bool = False,
    offset: int | None = None,
    advance: Advance | None = None,
) -> ImageResult:
    """Check the file at ``path``, or the filesystem at byte ``offset`` of it. ``threads``: for decompression (default: one per
    processor, at most four).

    ``hashed``: compute the SHA-256 of the file and compare it with ``want`` (None: it is not in the list, which is a problem).
    ``any_content``: a file that is no image is good. ``advance`` is called with numbers of bytes, the file's size in total,
    twice that if ``hashed``. Raises nothing for what is wrong with the file.
    """
    name = os.fsdecode(path)
    result = ImageResult(name)
    began = time.monotonic()
    lock = threading.Lock()

    def report(count: int) -> None:
        if advance is not None and count:
            with lock:  # the digest is computed in a thread
                advance(count)

    with ExitStack() as stack:
        try:
            fd = os.open(name, os.O_RDONLY | hostio.OPEN | hostio.NO_WAIT)
            stack.callback(os.close, fd)
            kind = os.fstat(fd).st_mode
            if stat.S_ISDIR(kind) or not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
                result.add(ImageProblem("not-image", "it is neither a regular file nor a block device"))
                return result
            result.size_bytes = os.lseek(fd, 0, os.SEEK_END)
            meter = _Meter(report, result.size_bytes)
            digest: Future[str] | None = None
            if hashed:
                pool = stack.enter_context(ThreadPoolExecutor(1))  # hashing releases the interpreter's lock
                stopped = threading.Event()
                stack.callback(stopped.set)  # before the pool waits for its thread: Ctrl-C does not wait for the whole file
                digest = pool.submit(_sha256_of, fd, report, stopped)
            place = _place_in(fd, result, offset)
            _check_content(fd, place, result, threads=threads, any_content=any_content, advance=meter.advance)
            meter.finish()
            if digest is not None:
                _compare(result, digest.result(), want)
        except (OSError, SifkitError) as error:
            result.add(_read_problem(error))
    result.seconds = time.monotonic() - began
    return result


class _Meter:
    """Counter of what was read of a file for its content: what it reports is ``total`` bytes in the end, never more."""

    def __init__(self, report: Advance, total: int) -> None:
        self._report = report
        self._left = total

    def advance(self, count: int) -> None:
        """Report ``count`` more bytes, or what is left of the total."""
        count = min(count, self._left)
        self._left -= count
        self._report(count)

    def finish(self) -> None:
        """Report what is left."""
        self.advance(self._left)


def _sha256_of(fd: int, advance: Advance, stopped: threading.Event) -> str:
    """Return the SHA-256 of a file as hexadecimal text, of a part of it if ``stopped`` was set meanwhile."""
    hasher = sha256()
    offset = 0
    while not stopped.is_set() and (piece := hostio.read_at(fd, offset, READ_BYTES)):
        hasher.update(piece)
        offset += len(piece)
        advance(len(piece))
    return hasher.hexdigest()


def _compare(result: ImageResult, got: str, want: str | None) -> None:
    result.digest = DigestResult(want, got)
    if want is None:
        result.add(ImageProblem("not-listed", "the list of digests does not have it"))
    elif got != want:
        result.add(ImageProblem("digest", f"its SHA-256 is {got}, listed is {want}"))


def _read_problem(error: OSError | SifkitError) -> ImageProblem:
    text = getattr(error, "message", "") or getattr(error, "strerror", "") or str(error)
    return ImageProblem("unreadable", f"it cannot be read: {show(text)}")


def _place_in(fd: int, result: ImageResult, offset: int | None) -> Place:
    """Return the whole file, or the part of it that begins at ``offset``. Raises FormatError if it ends before that."""
    if not offset:
        return Place(path=result.path, offset=0, size=result.size_bytes)
    from ..images.window import file_window

    window = file_window(result.path, fd, offset)
    return Place(path=result.path, offset=window.offset, size=window.size)


def _check_content(
    fd: int, place: Place, result: ImageResult, *, threads: int | None, any_content: bool, advance: Advance
) -> None:
    head = hostio.read_at(fd, place.offset, min(HEAD_BYTES, place.size))
    result.kind = image_kind_of(head, place.size)
    if result.kind == "sif" and place.offset:
        result.add(ImageProblem("not-image", f"a SIF image begins at byte {place.offset}, where a filesystem should"))
    elif result.kind == "sif":
        check_sif(fd, result, threads=threads, advance=advance)
    elif result.kind == "squashfs":
        part = PartResult("squashfs")
        result.parts.append(part)
        check_squashfs_part(place, part, result, threads=threads, advance=advance)
    elif result.kind == "ext3":
        part = PartResult("ext3")
        result.parts.append(part)
        check_ext3(place, part, result)
    elif not any_content:
        _add_unknown(head, place.size, result)


def _add_unknown(head: bytes, size: int, result: ImageResult) -> None:
    """Add the problem of a file, or ``size`` bytes of one, that is no image."""
    from ...sif.sniff import filesystem_name

    if not size:
        result.missing_bytes = SMALLEST_IMAGE
        result.add(ImageProblem("truncated", "truncated: it is empty"))
    elif size < SMALLEST_IMAGE:
        result.add_truncation(SMALLEST_IMAGE, size, at_least=True)
    elif filesystem_name(head) == "ext4":
        result.add(ImageProblem("unsupported", "its filesystem has features of ext4, which Apptainer does not mount"))
    else:
        result.add(ImageProblem("not-image", "it is not an image: neither SIF nor squashfs nor ext3"))
