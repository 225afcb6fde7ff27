"""Undo file of a check on the host: it gets its name with the first sync, before the image is changed, and replaces nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from ext3 import hostio
from ext3.hostio import HostPath

from ..atomic import AtomicFile
from ..errors import NotReplaceableError, TargetError, show
from ..host_space import full_host_errors

__all__ = ["UndoFile"]


class UndoFile:
    """New undo file, an ``UndoSink``. If nothing is appended there is none in the end.

    Raises NotReplaceableError if a file of that name exists, TargetError if it cannot be created or written.
    """

    def __init__(self, path: HostPath) -> None:
        name = os.fsdecode(path)
        if os.path.lexists(name):
            hint = "give another name: an undo file may be the only copy of what it holds, and is never replaced"
            raise NotReplaceableError(f"{show(name)} exists", path=name, hint=hint)
        self.path = name
        self._file = AtomicFile(name)
        self._end = 0
        self._named = False

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.__exit__(kind, error, trace)

    def append(self, data: bytes) -> None:
        with self._errors(self._end + len(data)):
            hostio.write_at(self._file.fd, self._end, data)
        self._end += len(data)

    def sync(self) -> None:
        with self._errors(self._end):
            if self._named:
                hostio.sync(self._file.fd)
            else:
                self._file.commit()
                self._named = True

    @contextmanager
    def _errors(self, needed: int) -> Iterator[None]:
        """Turn errors of the host into TargetErrors. ``needed``: bytes that the file takes."""
        with full_host_errors(self.path, needed):
            try:
                yield
            except OSError as error:
                if isinstance(error, TargetError) or error.errno in hostio.FULL:
                    raise
                raise TargetError(f"{show(self.path)}: {error.strerror}", path=self.path, error=error) from error
