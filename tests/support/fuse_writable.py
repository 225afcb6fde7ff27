"""Images mounted for changes by our FUSE server, at a fresh directory."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sifkit.runtime import sys
from sifkit.runtime.fuse.ext3_backend import Ext3Backend
from sifkit.runtime.fuse.mounting import mount_fuse, report_error, serve_in_child
from sifkit.runtime.fuse.writable_server import WritableServer

__all__ = ["WritableMount", "writable_mount"]


class WritableMount(NamedTuple):
    """Mount point, and the process that serves it."""

    point: Path
    pid: int


@contextmanager
def writable_mount(
    image: Path, *, kill: bool = False, shown: tuple[int, int] = (0, 0), stored: tuple[int, int] = (0, 0), expected: int = 0
) -> Iterator[WritableMount]:
    """The image mounted during the ``with`` block. ``kill``: its server is killed at the end. ``expected``: its exit code."""
    point = Path(tempfile.mkdtemp(prefix="sifkit-fuse-"))
    fd = mount_fuse(str(point), name="sifkit-test", read_only=False)
    image_fd = os.open(image, os.O_RDWR)
    detach = True

    def open_server() -> WritableServer:
        backend = Ext3Backend(image_fd, 0, image.stat().st_size, shown=shown, stored=stored)
        return WritableServer(fd, backend, report=report_error)

    try:
        server = serve_in_child(open_server, before=lambda: None)
        os.close(fd)
        try:
            yield WritableMount(point, server.pid)
            detach = kill
        finally:
            if kill:
                os.kill(server.pid, signal.SIGKILL)
            sys.umount(str(point), sys.MNT_DETACH if detach else 0)
            code = server.wait()
        assert code == (-signal.SIGKILL if kill else expected)
    finally:
        os.close(image_fd)
        point.rmdir()
