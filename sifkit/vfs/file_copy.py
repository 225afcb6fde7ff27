"""Copies of file data from a tree to a file of the host: in the kernel where that pays, and with holes.

Reading and writing fail separately: an unreadable file concerns that file, a full disk all of them. Errors of reading are
wrapped in UnreadableError, so that any other OSError is the host's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ext3 import hostio

from .file_tree import OpenFile

__all__ = ["DataRange", "UnreadableError", "copy_ranges", "ranges_of", "reading"]

CHUNK_BYTES = 8 << 20
KERNEL_BYTES = 256 << 10
"""Least length of a copy in the kernel; shorter ranges are read and written."""


class UnreadableError(Exception):
    """Error of reading a tree, which is in ``error``."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def reading() -> Iterator[None]:
    """Raise UnreadableError for an OSError in this block, which only reads a tree."""
    try:
        yield
    except OSError as error:
        raise UnreadableError(error) from error


class DataRange(NamedTuple):
    """Data of a file: ``length`` bytes at ``offset``, in the host's file ``fd`` at byte ``place``; without one ``fd`` is -1."""

    offset: int
    fd: int
    place: int
    length: int


def ranges_of(file: OpenFile) -> Sequence[DataRange]:
    """Return the data of a file, ascending; what is between is holes. Raises UnreadableError."""
    with reading():
        found = file.host_ranges()
        if found is None:
            return [DataRange(offset, -1, 0, length) for offset, length in file.data_ranges()]
        return [DataRange(*one) for one in found]


def copy_ranges(file: OpenFile, ranges: Sequence[DataRange], target: int, advance: Callable[[int], None] | None = None) -> int:
    """Copy data to the same offsets of the descriptor ``target``, a regular file. Return the bytes written.

    ``advance`` is called with the bytes written since its last call. Raises UnreadableError, and OSError of the target. After
    an error the target ends where the data does that was written, so that it does not look whole.
    """
    written = end = 0
    try:
        for offset, fd, place, length in ranges:
            end = offset
            for count in _copy_range(file, DataRange(offset, fd, place, length), target):
                end += count
                written += count
                if advance is not None:
                    advance(count)
    except BaseException:
        with suppress(OSError):
            os.ftruncate(target, end)
        raise
    return written


def _copy_range(file: OpenFile, one: DataRange, target: int) -> Iterator[int]:
    """Copy one range; yield the bytes of each piece that was written."""
    done = 0
    while done < one.length:
        size = min(CHUNK_BYTES, one.length - done)
        count = 0
        if one.fd >= 0 and size >= KERNEL_BYTES:
            count = hostio.kernel_copy(one.fd, one.place + done, target, one.offset + done, size)
        if not count:
            with reading():
                data = file.read_at(one.offset + done, size)
            count = len(data)
            hostio.write_at(target, one.offset + done, data)
        if not count:  # the file became shorter
            return
        done += count
        yield count
