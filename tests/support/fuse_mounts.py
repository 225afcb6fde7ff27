"""Trees mounted by our FUSE server, at a fresh directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sifkit.runtime import sys
from sifkit.runtime.fuse.mounting import mount_fuse, serve_in_child
from sifkit.runtime.fuse.server import Server
from sifkit.runtime.fuse.tree_backend import TreeBackend
from sifkit.vfs.file_tree import FileTree

__all__ = ["fuse_mount"]


@contextmanager
def fuse_mount(tree: FileTree[Any], *, owner: tuple[int, int] | None = None, threads: int = 1) -> Iterator[Path]:
    """The tree mounted during the ``with`` block, after which its server has ended without an error."""
    with tempfile.TemporaryDirectory(prefix="sifkit-fuse-") as scratch:
        point = Path(scratch, "point")
        point.mkdir()
        fd = mount_fuse(str(point), name="sifkit-test", read_only=True)
        server = serve_in_child(lambda: Server(fd, TreeBackend(tree, owner=owner)), threads=threads, before=lambda: None)
        os.close(fd)
        try:
            yield point
        finally:
            sys.umount(str(point))
            code = server.wait()
        assert code == 0
