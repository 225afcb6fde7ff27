"""Source file of a copy into an image: where it is, what it has, and the errors of reading it."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from ext3 import hostio
from ext3.errors import Ext3Error
from ext3.format.xattr import split_name

from ...vfs.copy_outcome import CopyError
from ...vfs.file_tree import FileTree, Stat
from .copy_source import identity_of

__all__ = ["SourceFile", "source_errors"]

N = TypeVar("N")
HOST_ERRNOS = frozenset((errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Errors of the host that end a copy, because other files would fail the same way."""


@dataclass(frozen=True, slots=True)
class SourceFile(Generic[N]):
    """File to copy: its tree and node there, its Stat, its name in messages, and its path below the source.

    ``may_have_xattrs`` False: it has none.
    """

    tree: FileTree[N]
    node: N
    stat: Stat
    label: str
    path: bytes
    may_have_xattrs: bool = True

    @property
    def form(self) -> int:
        return stat.S_IFMT(self.stat.mode)

    @property
    def identity(self) -> tuple[int, int, int]:
        """The same for all names of a file."""
        return identity_of(self.tree, self.stat)

    def storable_xattrs(self) -> Mapping[bytes, bytes]:
        """Return the xattrs that ext3 can store. Raises CopyError."""
        if not self.may_have_xattrs:
            return {}
        with source_errors("cannot read the attributes of", self.label):
            try:
                found = self.tree.xattrs(self.node)
            except OSError as error:
                if error.errno in hostio.NO_XATTRS:
                    return {}
                raise
        return {name: value for name, value in found.items() if split_name(name)}


@contextmanager
def source_errors(what: str, label: str, more: str = "") -> Iterator[None]:
    """Turn errors of reading a source into CopyError, except those of the host that concern every file."""
    try:
        yield
    except OSError as error:
        if isinstance(error, Ext3Error):
            raise CopyError(f"error reading '{label}': {error.message}", kind=error.kind, path=label) from error
        if error.errno in HOST_ERRNOS:
            raise
        kind = "not-found" if isinstance(error, FileNotFoundError) else "source"
        raise CopyError(f"{what} '{label}'{more}: {error.strerror or error}", kind=kind, path=label) from error
