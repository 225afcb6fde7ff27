"""Content: the data of a tree's regular files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Protocol, Self

from ..errors import ContentChangedError

__all__ = ["Content", "ContentFile", "MemoryContent"]


class ContentFile(Protocol):
    """Open data of one node. ``fd`` is a descriptor to copy from at source offsets, or None."""

    fd: int | None

    def read_into(self, view: memoryview, offset: int) -> int:
        """Read at source ``offset`` into ``view``. Return the byte count; short only at the end of the data."""
        ...

    def changed(self) -> bool:
        """Return True if the source was modified since the tree was made."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Content(Protocol):
    """Source of the data of regular files. Both methods raise SourceError with the path concerned.

    Several threads may call them at the same time, and forked processes, each on its own copy of the object: reading must not
    depend on the position of a shared file descriptor.
    """

    def read_whole(self, node: int, view: memoryview) -> None:
        """Read the whole data of a file without holes into ``view``. Raises ContentChangedError if the sizes differ."""
        ...

    def open(self, node: int) -> ContentFile: ...


class _MemoryFile:
    fd: int | None = None

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_into(self, view: memoryview, offset: int) -> int:
        piece = self._data[offset : offset + len(view)]
        view[: len(piece)] = piece
        return len(piece)

    def changed(self) -> bool:
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class MemoryContent:
    """Content held in memory, by node; other nodes are empty."""

    def __init__(self, data: Mapping[int, bytes] | Iterable[tuple[int, bytes]] = ()) -> None:
        self.data: dict[int, bytes] = dict(data)

    def read_whole(self, node: int, view: memoryview) -> None:
        data = self.data.get(node, b"")
        if len(data) != len(view):
            raise ContentChangedError(b"", f"{len(data)} bytes where the tree says {len(view)}")
        view[:] = data

    def open(self, node: int) -> ContentFile:
        return _MemoryFile(self.data.get(node, b""))
