"""Differences of one file in two trees: type, mode, owner, content, symlink target, device number and xattrs.

Times, inode numbers and the placement of data are not compared.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from ext3 import hostio

from .file_tree import FileTree, Stat
from .whiteouts import is_whiteout

__all__ = ["ComparedFile", "Difference", "OnSideProblem", "SideError", "file_differences"]

N = TypeVar("N", bound=Hashable)
CHUNK_BYTES = 1 << 20

OnSideProblem = Callable[[FileTree[Any], bytes, OSError], None]
"""Callback for a file that cannot be read: the tree it is in, its path there, and the error."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of one file. ``what``, if modified: any of type mode owner content target device xattrs.

    ``mode``: of the new file, of the old one if it is deleted. ``size``, ``old_size``: bytes of the new and the old regular
    file; None if there is none.
    """

    kind: Literal["added", "deleted", "modified"]
    path: bytes
    mode: int
    what: tuple[str, ...] = ()
    size: int | None = None
    old_size: int | None = None

    @classmethod
    def of(cls, path: bytes, old: Stat | None, new: Stat | None, what: tuple[str, ...] = ()) -> Difference:
        """Return the difference of a file that only one tree has, or that differs in ``what``."""
        found = new or old
        assert found is not None
        kind: Literal["added", "deleted", "modified"] = "added" if old is None else "deleted" if new is None else "modified"
        return cls(kind, path, found.mode, what, _size(new), _size(old))


def _size(found: Stat | None) -> int | None:
    return found.size if found is not None and stat.S_ISREG(found.mode) else None


class SideError(Exception):
    """Error of reading a file of one of two trees."""

    def __init__(self, tree: FileTree[Any], error: OSError) -> None:
        super().__init__(str(error))
        self.tree = tree
        self.error = error


class ComparedFile(NamedTuple, Generic[N]):
    """File of one of two trees."""

    tree: FileTree[N]
    stat: Stat
    node: N
    may_have_xattrs: bool

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Raise SideError for an OSError in this block, which only reads this file."""
        try:
            yield
        except OSError as error:
            raise SideError(self.tree, error) from error

    def readlink(self) -> bytes:
        with self.reading():
            return self.tree.readlink(self.node)

    def xattrs(self) -> Mapping[bytes, bytes] | None:
        """Return the xattrs, None if the tree cannot have any."""
        with self.reading():
            try:
                return self.tree.xattrs(self.node) if self.may_have_xattrs else {}
            except OSError as error:
                if error.errno in hostio.NO_XATTRS:
                    return None
                raise


def file_differences(
    old: ComparedFile[Any], new: ComparedFile[Any], *, owners: bool = True, same_content: bool = False
) -> tuple[str, ...]:
    """Return what differs of a file, in order of output. ``same_content``: the content is known to be the same.

    Raises SideError.
    """
    first, second = old.stat, new.stat
    kind = stat.S_IFMT(first.mode)
    if kind != stat.S_IFMT(second.mode):
        return ("type",)
    found = []
    # The mode of a whiteout has no meaning.
    if first.mode != second.mode and kind != stat.S_IFLNK and not (is_whiteout(first) and is_whiteout(second)):
        found.append("mode")
    if owners and (first.uid != second.uid or first.gid != second.gid):
        found.append("owner")
    if first.major != second.major or first.minor != second.minor:
        found.append("device")
    if kind == stat.S_IFLNK and old.readlink() != new.readlink():
        found.append("target")
    if kind == stat.S_IFREG and not same_content and not _same_content(old, new):
        found.append("content")
    if old.may_have_xattrs or new.may_have_xattrs:
        before, after = old.xattrs(), new.xattrs()
        if before is not None and after is not None and dict(before) != dict(after):
            found.append("xattrs")
    return tuple(found)


def _same_content(old: ComparedFile[Any], new: ComparedFile[Any]) -> bool:
    """Return True if two regular files have the same content. An open file knows its size where a Stat may not, as in proc."""
    with ExitStack() as stack:
        files, sizes = [], set()
        for file in (old, new):
            with file.reading():
                opened = stack.enter_context(file.tree.open_file(file.node))
                sizes.add(opened.size)
            files.append((file, opened))
        if len(sizes) > 1:
            return False
        at = 0
        while True:
            chunks = []
            for file, opened in files:
                with file.reading():
                    chunks.append(opened.read_at(at, CHUNK_BYTES))
            if chunks[0] != chunks[1]:
                return False
            if not chunks[0]:
                return True
            at += len(chunks[0])
