"""Read-only FUSE backend: node ids, counted lookups, listings and attributes; and the packed structures."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sifkit.vfs.file_tree import TreeListing, TreeRow
from sifkit.vfs.host_tree import HostTree
from sifkit.vfs.union import UnionNode

if not sys.platform.startswith("linux"):
    pytest.skip("containers run on Linux only", allow_module_level=True)

from sifkit.runtime.fuse.node_numbers import NodeNumbers
from sifkit.runtime.fuse.protocol import ATTR, ENTRY_OUT, ROOT_ID, encode_device
from sifkit.runtime.fuse.tree_backend import TreeBackend


@pytest.fixture
def backend(tmp_path: Path) -> TreeBackend[bytes]:
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").write_bytes(b"0123456789")
    os.link(tmp_path / "file", tmp_path / "hard")
    (tmp_path / "link").symlink_to("file")
    return TreeBackend(HostTree(tmp_path), owner=(7, 8))  # type: ignore[arg-type]


def test_nodes_live_as_long_as_the_kernel_knows_them(backend: TreeBackend[bytes]) -> None:
    first, again = backend.lookup(ROOT_ID, b"file"), backend.lookup(ROOT_ID, b"file")
    assert first is not None and again == first
    assert backend.read(first.node, 2, 3) == b"234" and backend.read(first.node, 8, 100) == b"89"
    backend.forget(first.node, 1)
    assert backend.attributes(first.node).ino == first.attributes.ino
    backend.forget(first.node, 1)
    with pytest.raises(OSError) as error:
        backend.attributes(first.node)
    assert error.value.errno == errno.ESTALE
    backend.forget(first.node, 1)
    backend.forget(ROOT_ID, 5)
    assert backend.attributes(ROOT_ID).uid == 7
    later = backend.lookup(ROOT_ID, b"file")
    assert later is not None and later.node != first.node


def test_listings_give_the_nodes_of_lookups(backend: TreeBackend[bytes]) -> None:
    names = backend.list_directory(ROOT_ID)
    assert [(one.name, one.file_type) for one in names] == [(b"file", 8), (b"hard", 8), (b"link", 10), (b"sub", 4)]
    for one in names:
        entry, found = backend.entry(ROOT_ID, one), backend.lookup(ROOT_ID, one.name)
        assert entry == found and entry is not None
        assert entry.attributes.ino == one.ino and entry.attributes.gid == 8
    assert names[0].ino == names[1].ino
    assert backend.lookup(ROOT_ID, b"missing") is None
    link = backend.entry(ROOT_ID, names[2])
    assert link is not None and backend.readlink(link.node) == b"file"


def test_nodes_of_one_layer_need_no_table() -> None:
    numbers: NodeNumbers[UnionNode] = NodeNumbers(((1, b"/"), (0, 96)))
    one, other, merged = ((0, 96 << 16 | 5),), ((1, 96 << 16 | 5),), ((1, b"/d"), (0, 5))
    found = [numbers.hand_out(node) for node in (one, other, merged, numbers.root)]
    assert len(set(found)) == 4 and found[3] == ROOT_ID
    assert [numbers.node(number) for number in found] == [one, other, merged, numbers.root]
    assert list(numbers._nodes.values()) == [merged]
    assert all(numbers.forget(number, 1) for number in found[:3]) and not numbers._nodes
    assert numbers.node(found[0]) == one


class LargeDirectories(HostTree):
    """Host directories that say they are large."""

    def stat(self, node: Any, /) -> Any:
        return super().stat(node)._replace(size=1 << 20)


@pytest.mark.parametrize(("kind", "most"), [(HostTree, 4096), (LargeDirectories, 600)])
def test_few_listings_are_kept_and_large_ones_without_stats(tmp_path: Path, kind: type[HostTree], most: int) -> None:
    for number in range(9):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in range(600):
            (folder / f"{name:03}").touch()
    backend = TreeBackend(kind(tmp_path))
    for one in backend.list_directory(ROOT_ID):
        found = backend.entry(ROOT_ID, one)
        assert found is not None
        names = backend.list_directory(found.node)
        assert len(names) == 600 and all(listed.ino for listed in names)
        entry = backend.entry(found.node, names[7])
        assert entry is not None and entry.attributes.ino == names[7].ino and backend.lookup(found.node, b"007") == entry
        assert backend.lookup(found.node, b"600") is None
    kept = [*backend._listings._values.values(), *backend._large._values.values()]
    assert 600 <= sum(map(len, kept)) <= most
    assert {row.stat is None for rows in kept for row in rows} == {kind is LargeDirectories}


def test_the_listing_of_a_large_directory_is_kept_beside_those_of_others(tmp_path: Path) -> None:
    class Tree(HostTree):
        scanned = 0

        def stat(self, node: Any, /) -> Any:
            return super().stat(node)._replace(size=1 << 20 if node.endswith(b"large") else 1000)

        def scan_many(self, directories: Sequence[Any], /, *, stats: bool = True) -> Iterator[Any]:
            Tree.scanned += directories[0].endswith(b"large")
            return super().scan_many(directories, stats=stats)

        def find_name(self, directory: Any, name: bytes, /) -> Any:
            raise AssertionError("its names are searched one by one")

    for folder in ("large", "other"):
        (tmp_path / folder).mkdir()
        for name in range(4100):
            (tmp_path / folder / str(name)).touch()
    backend = TreeBackend(Tree(tmp_path))
    large, other = backend.lookup(ROOT_ID, b"large"), backend.lookup(ROOT_ID, b"other")
    assert large is not None and other is not None
    assert len(backend.list_directory(large.node)) == len(backend.list_directory(other.node)) == 4100
    last = backend.list_directory(large.node)[4099]
    found = backend.lookup(large.node, b"999")
    assert last.name == b"999" and found is not None and found == backend.entry(large.node, last)
    assert backend.lookup(large.node, b"4100") is None and Tree.scanned == 1
    backend.forget(large.node, 9)
    assert not backend._large._values


@pytest.mark.parametrize(("major", "minor"), [(0, 0), (1, 3), (8, 1), (259, 70_000), (4095, 0xFFFFF)])
def test_device_numbers_are_those_of_the_system(major: int, minor: int) -> None:
    packed = encode_device(major, minor)
    assert packed < 1 << 32
    assert (packed >> 8 & 0xFFF, packed & 0xFF | packed >> 12 & 0xFFF00) == (major, minor)


def test_structures_have_their_fields_in_the_kernels_order() -> None:
    assert ATTR.offset_of("mode") == 60 and ENTRY_OUT.offset_of("ino") == 40


def test_files_that_were_read_long_ago_are_closed(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number}").write_bytes(b"x")
    backend: TreeBackend[bytes] = TreeBackend(HostTree(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        entry = backend.lookup(ROOT_ID, b"%d" % number)
        assert entry is not None and backend.read(entry.node, 0, 9) == b"x"
    assert len(os.listdir("/proc/self/fd")) <= before + 64
    del backend
    assert len(os.listdir("/proc/self/fd")) == before


def test_xattrs_that_nobody_in_a_user_namespace_may_read_are_not_shown(tmp_path: Path) -> None:
    class Tree(HostTree):
        def xattrs(self, node: bytes, /) -> dict[bytes, bytes]:
            names = (b"user.a", b"trusted.b", b"security.capability", b"security.selinux", b"system.posix_acl_access")
            return dict.fromkeys(names, b"")

    shown = {owner: set(TreeBackend(Tree(tmp_path), owner=owner).xattrs(ROOT_ID)) for owner in (None, (0, 0), (7, 7))}
    assert shown[7, 7] == {b"user.a", b"security.selinux"}
    assert shown[0, 0] == {b"user.a", b"security.selinux", b"security.capability"}
    assert len(shown[None]) == 5


def test_what_cannot_be_read_has_a_number(tmp_path: Path) -> None:
    class Tree(HostTree):
        def scan_many(self, directories: Sequence[bytes], /, *, stats: bool = True) -> Iterator[TreeListing[bytes]]:
            yield TreeListing(directories[0], [TreeRow(b"x", b"/x", 0, OSError(errno.EIO, "damaged"), False)], None, 0)

    backend: TreeBackend[bytes] = TreeBackend(Tree(tmp_path))
    (name,) = backend.list_directory(ROOT_ID)
    assert name.ino != 0 and backend.entry(ROOT_ID, name) is None
