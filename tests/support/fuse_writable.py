"""Images mounted for changes by our FUSE server, at a fresh directory."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sifkit.runtime import sys
from sifkit.runtime.fuse.ext3_backend import Ext3Backend
from sifkit.runtime.fuse.mounting import mount_fuse, report, serve_in_child
from sifkit.runtime.fuse.writable_server import WritableServer

__all__ = ["WritableMount", "writable_mount"]


class WritableMount(NamedTuple):
    """Mount point, and the process that serves it."""

    point: Path
    pid: int


@contextmanager
def writable_mount(
    image: Path,
    *,
    kill: bool = False,
    shown_owner: tuple[int, int] | None = None,
    stored_owner: tuple[int, int] | None = None,
    work: str | None = None,
) -> Iterator[WritableMount]:
    """The image mounted during the ``with`` block. ``kill``: its server is killed at the end."""
    point = Path(tempfile.mkdtemp(prefix="sifkit-fuse-"))
    fd = mount_fuse(str(point), name="sifkit-test", read_only=False)
    opened = partial(Ext3Backend.open, str(image), shown_owner=shown_owner, stored_owner=stored_owner, work=work)
    pid = serve_in_child(fd, opened, before=lambda: None, make_server=partial(WritableServer, report=report))
    detach = True
    try:
        yield WritableMount(point, pid)
        detach = kill
    finally:
        if kill:
            os.kill(pid, signal.SIGKILL)
        sys.umount(str(point), sys.MNT_DETACH if detach else 0)
        _, status = os.waitpid(pid, 0)
        point.rmdir()
    assert status == (signal.SIGKILL if kill else 0)
