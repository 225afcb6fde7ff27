"""File data of an archive as the content of a tree: the range of each node in the archive's store."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from ext3.newfs.content import ContentFile

from ...tar.errors import ArchiveError
from ...tar.store import MemberData, StoredRange
from .archive_errors import ArchiveSourceChangedError, source_error

__all__ = ["ArchiveContent"]


class ArchiveContent:
    """Content of the files of one archive, by node. Owns the archive (if it was given as a path) or its spool: close it.

    Nodes with ranges are read at the store's offsets, all others from 0 to their size.
    """

    def __init__(self, data: MemberData) -> None:
        self._data = data
        self._first = 0
        self._places = array("q")
        self._ranges: dict[int, Sequence[StoredRange]] = {}

    def begin(self, first: int) -> None:
        """Set the lowest node that can be placed."""
        self._first = first

    def place(self, node: int, offset: int, size: int, ranges: Sequence[StoredRange] | None) -> None:
        """Set the range of the data of ``node``; nodes come in ascending order."""
        self._places.extend((0, 0) * (node - self._first - len(self._places) // 2))
        self._places.extend((offset, size))
        if ranges is not None:
            self._ranges[node] = ranges

    def _place(self, node: int) -> tuple[int, int]:
        row = 2 * (node - self._first)
        if 0 <= row < len(self._places):
            return self._places[row], self._places[row + 1]
        return 0, 0

    def read_whole(self, node: int, view: memoryview) -> None:
        offset, size = self._place(node)
        if len(view) != size:
            raise ArchiveSourceChangedError(self._data.path, f"a file has {size} bytes where {len(view)} are asked for")
        ranges = self._ranges.get(node)
        try:
            self._data.read_file(view, ((0, size, offset),) if ranges is None else ranges)
        except ArchiveError as error:
            raise source_error(error) from error

    def open(self, node: int) -> ContentFile:
        if node in self._ranges:
            return _ArchiveFile(self._data, 0, None)
        offset, size = self._place(node)
        return _ArchiveFile(self._data, offset, size)

    def temporary_bytes(self, device: int) -> int:
        """Return the space that the archive's spool takes on the filesystem ``device`` (st_dev)."""
        return self._data.temporary_bytes(device)

    def close(self) -> None:
        self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _ArchiveFile:
    """Data of one file: ``base`` is added to the offsets asked for, ``end`` bounds them."""

    def __init__(self, data: MemberData, base: int, end: int | None) -> None:
        self.fd = data.fd if end is None else None
        self._data = data
        self._base = base
        self._end = end

    def read_into(self, view: memoryview, offset: int) -> int:
        if self._end is not None:
            view = view[: max(0, self._end - offset)]
        try:
            return self._data.read_at(view, self._base + offset)
        except ArchiveError as error:
            raise source_error(error) from error

    def changed(self) -> bool:
        return self._data.changed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass
