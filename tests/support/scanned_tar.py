"""What ``scan_tar`` makes of an archive: a tree with its content, or an error."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from ext3.errors import SourceError
from ext3.newfs.builder import TreeBuilder
from ext3.newfs.tree import Tree
from sifkit.overlay import TarScan, scan_tar

__all__ = ["Got", "refused", "scanned"]


@dataclass
class Got:
    scan: TarScan
    tree: Tree

    def paths(self) -> dict[bytes, int]:
        """Every name but lost+found, in the order of the nodes, then further links."""
        tree = self.tree
        found = {tree.path(node): node for node in range(1, len(tree)) if node != tree.lost_found}
        for parent, name, node in tree.extra_links:
            found[(tree.path(parent) if parent else b"") + b"/" + name] = node
        return found

    def node(self, path: bytes) -> int:
        return self.paths()[path]

    def row(self, path: bytes, *fields: str) -> tuple[int, ...]:
        return tuple(int(self.tree.nodes[field][self.node(path)]) for field in fields)

    def mode(self, path: bytes) -> int:
        return self.row(path, "mode")[0]

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        return self.tree.xattrs.get(self.node(path), {})

    def data(self, path: bytes) -> bytes:
        """The file's data, read whole and by segments: both ways must agree."""
        node = self.node(path)
        size = int(self.tree.nodes["size"][node])
        whole = bytearray(b"\xaa" * size)
        self.scan.content.read_whole(node, memoryview(whole))
        parts = bytearray(size)
        with self.scan.content.open(node) as file:
            for logical, length, source in self.tree.segments.get(node, [(0, size, 0)]):
                assert file.read_into(memoryview(parts)[logical : logical + length], source) == length
                if file.fd is not None and hasattr(os, "pread"):
                    assert os.pread(file.fd, length, source) == parts[logical : logical + length]
            assert not file.changed()
        assert parts == whole
        return bytes(whole)


@contextmanager
def scanned(
    source: bytes | Path | IO[bytes], accept: Callable[[bytes], bool] = lambda name: True, **options: object
) -> Iterator[Got]:
    builder = TreeBuilder()
    root = builder.add(0, b"", 0o040755, 0, 0, 0, (0,) * 6)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with scan_tar(builder, root, file, xattr_filter=accept, **options) as scan:  # type: ignore[arg-type]
        yield Got(scan, builder.finish(scan.content))


def refused(source: bytes | Path | IO[bytes], **options: object) -> SourceError:
    """The error of an archive that cannot be taken; nothing of it is in the tree."""
    builder = TreeBuilder()
    root = builder.add(0, b"", 0o040755, 0, 0, 0, (0,) * 6)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with pytest.raises(SourceError) as caught:
        scan_tar(builder, root, file, xattr_filter=lambda name: True, **options)  # type: ignore[arg-type]
    assert len(builder.names) == 1
    assert len(str(caught.value)) < 10_000
    return caught.value
