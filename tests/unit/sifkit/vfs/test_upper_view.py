"""UpperView of any tree: the content of a metacopy is in a lower layer, whichever way it is read."""

from __future__ import annotations

import errno
import os

import pytest

from sifkit.vfs.errors import LowerContentError
from sifkit.vfs.upper_view import UpperView
from sifkit.vfs.whiteouts import METACOPY_XATTRS, REDIRECT_XATTRS

from ....support.memory_tree import MemoryNode, MemoryTree
from ....support.tree_forms import tree_forms, xattrs_work


@pytest.fixture(params=["memory", "image", "host"])
def view(request, tmp_path):
    """meta-N are metacopies, large ones too; done-N has a redirect only; plain has none."""
    if request.param == "host" and not xattrs_work(tmp_path / "probe"):
        pytest.skip("the host's filesystem has no attributes")
    tree = MemoryTree()
    owner = {"uid": os.getuid(), "gid": os.getgid()}
    marks = [name for name in (*METACOPY_XATTRS, *REDIRECT_XATTRS) if name.startswith(b"user.") or os.geteuid() == 0]
    for number, name in enumerate(marks):
        word = b"meta" if name in METACOPY_XATTRS else b"done"
        for size in (10, 200_000):
            xattrs = {name: b"", b"user.kept": b"k"}
            tree.add(b"%s-%d-%d" % (word, number, size), MemoryNode(0o100644, b"x" * size, xattrs=xattrs, **owner))
    tree.add(b"plain", MemoryNode(0o100644, b"plain", **owner))
    tree.add(b"meta-directory", MemoryNode(0o040755, xattrs={b"user.overlay.metacopy": b""}, **owner))
    with tree_forms(tmp_path, tree) as forms:
        found = getattr(forms, request.param)
        yield UpperView(found, found.root)


def rows(view):
    (listing,) = view.scan_many([view.root])
    return {row.name: row for row in listing.rows if row.name != b"lost+found"}


def test_opened(view):
    for name, row in rows(view).items():
        if name == b"meta-directory":
            with pytest.raises(OSError) as caught:
                view.open_file(row.node)
            assert caught.value.errno == errno.EISDIR
        elif name.startswith(b"meta"):
            with pytest.raises(LowerContentError, match=r"^its content is in a lower layer$"):
                view.open_file(row.node)
            with view.tree.open_file(row.node) as file:
                assert file.read_at(0, 1) == b"x"
        else:
            with view.open_file(row.node) as file:
                assert file.read_at(0, 1) in (b"x", b"p")


@pytest.mark.parametrize("limit", [0, 1 << 16])
def test_loaded(view, limit):
    found = rows(view)
    for loaded in view.load_many([row.node for row in found.values()], limit=limit):
        name = list(found)[loaded.position]
        assert loaded.stat.size == (found[name].stat.size)
        assert loaded.xattrs == ({} if name in (b"plain", b"meta-directory") else {b"user.kept": b"k"})
        is_lower = isinstance(loaded.content, LowerContentError)
        assert is_lower == (name.startswith(b"meta") and name != b"meta-directory")


def test_a_file_whose_attributes_cannot_be_read_is_read():
    """Its data may be all there is; who copies it reports the attributes."""

    class Damaged(MemoryTree):
        def xattrs(self, node, /):
            raise OSError(errno.EIO, "damaged")

    tree = Damaged()
    node = tree.add(b"file", MemoryNode(0o100644, b"data"))
    with UpperView(tree, tree.root).open_file(node) as file:
        assert file.read_at(0, 10) == b"data"
