"""Outputs that are written into: FIFOs, character devices, and open descriptors by their names (/dev/stdout, /dev/fd/3).

They are never replaced, whether --force is given or not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ext3 import hostio

from ...errors import OutputError, TargetError, show
from ...output_path import check_sticky_owner, descriptor_number, resolve_output

__all__ = ["StreamOutput", "output_errors", "stream_output"]

STDOUT = 1
_WRITE = os.O_WRONLY | hostio.OPEN | getattr(os, "O_NOCTTY", 0)
_REFUSED = {stat.S_IFBLK: "a block device", stat.S_IFSOCK: "a socket"}


@dataclass(frozen=True, slots=True)
class StreamOutput:
    """Output that is written into. ``number``: of the descriptor that its name means, None for a FIFO or a device."""

    path: str
    number: int | None = None

    @property
    def is_stdout(self) -> bool:
        return self.number == STDOUT

    @contextmanager
    def open(self) -> Iterator[int]:
        """Yield a descriptor to write to. Opening a FIFO waits for a reader. Raises OutputError."""
        with output_errors(show(self.path)):
            fd = os.open(self.path, _WRITE) if self.number is None else os.dup(self.number)
            try:
                yield fd
            finally:
                os.close(fd)


def stream_output(path: str) -> StreamOutput | None:
    """Return the output for a name that is written into, None for one that a file is created under.

    To be called before other files are opened: a descriptor that is not open now may be one of them later. Raises TargetError
    for sockets, block devices, and descriptors that cannot be written to.
    """
    number = descriptor_number(path)
    if number is not None:
        _check_writable(path, number)
        return StreamOutput(path, number)
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):
        return None
    if kind in _REFUSED:
        raise TargetError(f"{show(path)} is {_REFUSED[kind]}", path=path, hint="give a file, or - for standard output")
    if kind not in (stat.S_IFIFO, stat.S_IFCHR):
        return None
    check_sticky_owner(resolve_output(path))
    return StreamOutput(path)


def _check_writable(path: str, number: int) -> None:
    import fcntl

    try:
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
    except OSError as error:
        raise TargetError(f"{show(path)}: {error.strerror}", path=path, hint="open it, or give a file", error=error) from error
    if flags & os.O_ACCMODE == os.O_RDONLY:
        raise TargetError(f"{show(path)} is not open for writing", path=path, hint="open it for writing, or give a file")


@contextmanager
def output_errors(shown: str) -> Iterator[None]:
    """Convert OSErrors of the block, which writes to ``shown``, into OutputError; not those of images, and no broken pipe."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if hasattr(error, "kind"):
            raise
        raise OutputError(f"{shown}: {error.strerror}") from error
