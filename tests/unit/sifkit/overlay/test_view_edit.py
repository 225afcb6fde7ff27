"""Edits of upper/ over lower layers that are known: what is copied up, what leaves a whiteout, and that each step is valid."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

import ext3
from ext3.constants import S_IFCHR
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.edit.session import Session
from ext3.errors import PathNotEmptyError, XattrError
from sifkit.overlay.edit.upper_edit import OverlayEditor
from sifkit.vfs.errors import MissingPathError, TreePathError
from sifkit.vfs.subtree import Subtree
from sifkit.vfs.union import UnionTree
from sifkit.vfs.whiteouts import METACOPY_XATTRS, OPAQUE_XATTRS, REDIRECT_XATTRS

from ....support.image_checks import check_counts
from ....support.layers import facts_of_tree
from ....support.memory_tree import MemoryNode, MemoryTree
from ....support.sessions import COMMIT_START, clock, empty_image

MTIME = 1_500_000_000_123_456_789
HOLE = bytes(40 * 4096)
ACL = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000000ffffffff")
"""user::rw-, user:1000:r--, group::r--, mask::r--, other::---"""


def lower_tree() -> MemoryTree:
    tree = MemoryTree()
    tree.nodes[0].mtime = MTIME

    def add(path: bytes, mode: int, content: bytes = b"", **facts: object) -> int:
        return tree.add(path, MemoryNode(mode, content, mtime=MTIME + len(tree.nodes), **facts))  # type: ignore[arg-type]

    add(b"d", 0o042775, uid=5, gid=6, xattrs={b"user.on": b"directory"})
    add(b"d/e", 0o040700)
    add(b"d/e/deep", 0o104711, b"deep", uid=7, gid=8, xattrs={b"security.capability": b"\1\0\0\2" + bytes(16)})
    add(b"d/acl", 0o100640, b"acl", xattrs={b"system.posix_acl_access": ACL, b"user.x": b"x" * 100})
    add(b"d/sparse", 0o100600, HOLE + b"middle".ljust(4096, b".") + HOLE + b"end")
    add(b"d/link", 0o120777, b"e/deep", uid=9)
    add(b"d/null", 0o020666, device=(1, 3))
    first = add(b"d/one", 0o100644, b"two names")
    tree.add(b"d/two", first)
    add(b"empty", 0o040755)
    add(b"both", 0o040755)
    add(b"both/lower", 0o100644, b"lower")
    add(b"both/gone", 0o100644, b"gone")
    return tree


@pytest.fixture
def lower() -> MemoryTree:
    return lower_tree()


@pytest.fixture
def device() -> MemoryDevice:
    device = empty_image(8 << 20)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        for path in ("/upper", "/upper/both", "/upper/own"):
            fs.mkdir(path)
        fs.write_bytes("/upper/both/upper", b"upper")
        fs.mknod("/upper/both/gone", S_IFCHR)
        fs.write_bytes("/upper/own/file", b"own")
    return device


@pytest.fixture
def editor(device: MemoryDevice, lower: MemoryTree) -> Iterator[OverlayEditor]:
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        yield OverlayEditor(fs, lower=[lower])
    with ext3.Filesystem.open(device) as after:
        check_counts(after)


def view(fs: ext3.Filesystem, lower: MemoryTree) -> dict[bytes, tuple[object, ...]]:
    return facts_of_tree(UnionTree([lower, Subtree(fs, fs.lookup("/upper"))]))


def now(editor: OverlayEditor) -> dict[bytes, tuple[object, ...]]:
    assert isinstance(editor.view, object)
    return view(editor.filesystem, lower_tree())


def raw(editor: OverlayEditor) -> set[bytes]:
    return {path for path, _ in editor.filesystem.walk("/upper")}


def at(editor: OverlayEditor, path: bytes):
    return editor.resolve(path, follow=False)


@pytest.mark.parametrize("path", [b"/d/e/deep", b"/d/acl", b"/d/sparse", b"/d/link", b"/d/null", b"/d/one", b"/d/e"])
def test_a_file_is_copied_up_with_all_that_it_has(editor: OverlayEditor, lower: MemoryTree, path: bytes) -> None:
    before = now(editor)
    node = at(editor, path).node
    assert node is not None and node < 0 and editor.upper_inode(node) is None
    ino = editor.copy_up(node)
    assert ino > 0 and editor.copy_up(node) == ino == at(editor, path).node
    after = now(editor)
    if path == b"/d/one":  # one of its names has a file of its own now
        assert after[b"d/one"][5] == 1 and before[b"d/one"][5] == 2
    for name, facts in before.items():
        assert after[name][:5] == facts[:5] and after[name][6:] == facts[6:], name
    assert editor.filesystem.stat(ino).mtime == lower.stat(lower.find_name(*_place(lower, path))).mtime
    if path == b"/d/sparse":
        assert editor.filesystem.stat(ino).blocks < 40
    above = {path[1:at] for at in range(2, len(path)) if path[at : at + 1] == b"/"}
    assert raw(editor) - {b"both", b"both/upper", b"both/gone", b"own", b"own/file"} == {*above, path[1:]}


def _place(tree: MemoryTree, path: bytes) -> tuple[int, bytes]:
    directory, _, name = path.strip(b"/").rpartition(b"/")
    node = 0
    for part in directory.split(b"/") if directory else ():
        node = tree.nodes[node].entries[part]
    return node, name


def test_nodes_stay_valid_when_what_is_above_them_is_copied_up(editor: OverlayEditor) -> None:
    deep = at(editor, b"/d/e/deep").node
    directory = at(editor, b"/d")
    assert deep is not None and directory.node is not None
    inode = editor.copy_up(directory.node)
    again = editor.child(directory, b"e")
    assert again.node is not None and editor.stat(again.node).is_dir
    assert editor.copy_up(deep) == at(editor, b"/d/e/deep").node
    assert editor.filesystem.find_name(inode, b"e") == editor.copy_up(again.node)


def test_whiteouts_are_left_where_a_lower_layer_has_the_name(editor: OverlayEditor) -> None:
    for path in (b"/own/file", b"/both/upper"):
        editor.unlink(at(editor, path))
    assert editor.whiteouts == 0
    editor.unlink(at(editor, b"/both/lower"))
    editor.unlink(at(editor, b"/d/one"))
    editor.remove_directory(at(editor, b"/both"))
    editor.remove_directory(at(editor, b"/empty"))
    editor.remove_tree(at(editor, b"/own"))
    assert editor.whiteouts == 4
    assert {b"both", b"empty", b"d/one", b"own"}.isdisjoint(now(editor))
    assert raw(editor) == {b"both", b"empty", b"d", b"d/one"}
    assert not editor.add_whiteout(at(editor, b"/d/one")) and not editor.add_whiteout(at(editor, b"/none"))


def test_a_directory_with_lower_files_is_not_empty(editor: OverlayEditor) -> None:
    editor.unlink(at(editor, b"/both/upper"))
    for path in (b"/both", b"/d"):
        with pytest.raises(PathNotEmptyError):
            editor.remove_directory(at(editor, path))
    with pytest.raises(PathNotEmptyError):
        editor.rename(at(editor, b"/empty"), at(editor, b"/both"))
    assert b"both/lower" in now(editor)


def test_a_directory_in_the_place_of_a_removed_one_is_empty(editor: OverlayEditor) -> None:
    editor.remove_tree(at(editor, b"/d"))
    editor.make_directory(at(editor, b"/d"), 0o700, uid=1, gid=2)
    editor.make_directory(at(editor, b"/d/new"), 0o700, uid=1, gid=2)
    assert {path for path in now(editor) if path.startswith(b"d")} == {b"d", b"d/new"}
    editor.remove_tree(at(editor, b"/d/new"))
    assert raw(editor) & {b"d", b"d/new"} == {b"d"}


def test_moves(editor: OverlayEditor) -> None:
    before = now(editor)
    editor.rename(at(editor, b"/d"), at(editor, b"/own/d"))
    editor.rename(at(editor, b"/both/lower"), at(editor, b"/both/upper"))
    after = now(editor)
    assert after[b"both/upper"][6] == b"lower" and b"both/lower" not in after
    assert {path for path in after if path.startswith(b"d")} == set()
    for path, facts in before.items():
        if path.startswith(b"d/"):
            assert after[b"own/" + path][:4] == facts[:4] and after[b"own/" + path][6:] == facts[6:]
    assert after[b"own/d/one"][5] == after[b"own/d/two"][5] == 2
    assert b"d" in raw(editor) and editor.filesystem.stat("/upper/d").mode == S_IFCHR


def test_a_link_to_a_lower_file(editor: OverlayEditor) -> None:
    editor.link(at(editor, b"/d/one"), at(editor, b"/own/linked"))
    assert at(editor, b"/d/one").node == at(editor, b"/own/linked").node != at(editor, b"/d/two").node
    assert now(editor)[b"own/linked"][5:7] == (2, b"two names")


def test_two_names_of_a_lower_file_are_the_same_until_one_is_copied_up(editor: OverlayEditor) -> None:
    one, two, other = (at(editor, path).node for path in (b"/d/one", b"/d/two", b"/d/acl"))
    assert one is not None and two is not None and other is not None
    assert editor.is_same(one, two) and not editor.is_same(one, other)
    editor.copy_up(one)
    assert not editor.is_same(one, two)


def test_an_attribute_that_a_lower_file_does_not_have(editor: OverlayEditor) -> None:
    node = at(editor, b"/d/acl").node
    assert node is not None
    with pytest.raises(XattrError) as caught:
        editor.remove_xattr(node, b"user.none")
    assert caught.value.errno == errno.ENODATA
    editor.remove_xattr(node, b"system.posix_acl_default")
    assert editor.upper_inode(node) is None
    editor.remove_xattr(node, b"user.x")
    assert set(now(editor)[b"d/acl"][7]) == {b"system.posix_acl_access"}  # type: ignore[call-overload]


def test_the_content_of_a_metacopy_is_taken_before_it_is_moved(editor: OverlayEditor) -> None:
    fs = editor.filesystem
    fs.write_bytes("/upper/both/lower", bytes(5))
    fs.set_xattr("/upper/both/lower", METACOPY_XATTRS[0], b"")
    fs.mkdir("/upper/was d")
    fs.set_xattr("/upper/was d", REDIRECT_XATTRS[0], b"/d")
    editor.rename(at(editor, b"/both/lower"), at(editor, b"/own/moved"))
    editor.rename(at(editor, b"/was d"), at(editor, b"/own/d"))
    found = now(editor)
    assert found[b"own/moved"][6] == b"lower" and found[b"own/d/e/deep"][6] == b"deep"
    assert not {*METACOPY_XATTRS, *REDIRECT_XATTRS} & {
        name for path in ("/upper/own/moved", "/upper/own/d") for name in fs.xattrs(path)
    }
    assert set(fs.xattrs("/upper/own/d")) >= set(OPAQUE_XATTRS)


@pytest.mark.parametrize("change", ["rename", "link"])
def test_an_empty_metacopy_is_none_under_another_name(editor: OverlayEditor, lower: MemoryTree, change: str) -> None:
    """The kernel looks for the lower file of every metacopy, by the new name, and fails with EIO where there is none."""
    fs = editor.filesystem
    lower.add(b"both/nothing", MemoryNode(0o100644))
    fs.write_bytes("/upper/both/nothing", b"")
    fs.set_xattr("/upper/both/nothing", METACOPY_XATTRS[0], b"")
    getattr(editor, change)(at(editor, b"/both/nothing"), at(editor, b"/own/nothing"))
    assert not set(METACOPY_XATTRS) & fs.xattrs("/upper/own/nothing").keys()


def test_a_lower_file_that_cannot_be_read(device: MemoryDevice) -> None:
    class Damaged(MemoryTree):
        def open_file(self, node: int, /):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    lower = Damaged()
    lower.add(b"file", MemoryNode(0o100644, b"content"))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        editor = OverlayEditor(fs, lower=[lower])
        node = at(editor, b"/file").node
        assert node is not None
        with pytest.raises(TreePathError, match="its lower layer cannot be read") as caught:
            editor.copy_up(node)
        assert caught.value.errno == errno.EIO
        assert fs.find_name(fs.lookup("/upper"), b"file") is None
    with ext3.Filesystem.open(device) as after:
        check_counts(after)


def test_a_directory_too_large_to_move(editor: OverlayEditor, lower: MemoryTree) -> None:
    lower.add(b"d/large", MemoryNode(0o100644, b"x" * (9 << 20)))
    before = raw(editor)
    with pytest.raises(TreePathError) as caught:
        editor.rename(at(editor, b"/d"), at(editor, b"/moved"))
    assert caught.value.errno == errno.ENOSPC and raw(editor) == before


def test_an_image_without_upper(device: MemoryDevice, lower: MemoryTree) -> None:
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.rename("/upper", "/other")
        with pytest.raises(MissingPathError, match="no upper/"):
            OverlayEditor(fs, lower=[lower])


# -- interruptions -------------------------------------------------------------------------------------------------------


def cuts(
    device: MemoryDevice, monkeypatch: pytest.MonkeyPatch, edit: Callable[[OverlayEditor], None]
) -> list[dict[bytes, tuple[object, ...]]]:
    """What a container sees after an edit that was interrupted around a commit, where what is seen changes."""
    monkeypatch.setattr(Session, "should_commit", True)
    before = MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    with ext3.Filesystem.open(recorded, "r+", clock=clock) as fs:
        edit(OverlayEditor(fs, lower=[lower_tree()]))
    found = []
    commits = [at for at, event in enumerate(recorded.events) if event.data[:8] == COMMIT_START]
    for end in sorted({0, len(recorded.events), *commits, *(at + 1 for at in commits), *(at + 2 for at in commits)}):
        with ext3.Filesystem.open(play(before, recorded.events[:end])) as fs:
            seen = view(fs, lower_tree())
        if not found or seen != found[-1]:
            found.append(seen)
    return found


def test_copying_up_shows_nothing(device: MemoryDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    def edit(editor: OverlayEditor) -> None:
        for path in (b"/d/e/deep", b"/d/sparse"):
            node = at(editor, path).node
            assert node is not None
            editor.copy_up(node)

    states = [{path: (*facts[:5], *facts[6:]) for path, facts in one.items()} for one in cuts(device, monkeypatch, edit)]
    assert all(state == states[0] for state in states)


def test_a_lower_directory_is_in_one_of_two_places(device: MemoryDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    states = cuts(device, monkeypatch, lambda editor: editor.rename(at(editor, b"/d"), at(editor, b"/own/d")))
    below = {path for path in states[0] if path.startswith(b"d/")}
    assert len(below) >= 8 and b"own/d/e/deep" in states[-1]
    for state in states:
        assert (below <= state.keys()) != ({b"own/" + path for path in below} <= state.keys())
        assert not any(state[path][6] not in (b"deep", None) for path in state if path.endswith(b"deep"))


def test_lower_files_do_not_come_back_while_a_directory_is_removed(
    device: MemoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = cuts(device, monkeypatch, lambda editor: editor.remove_tree(at(editor, b"/both")))
    names = [{path for path in state if path.startswith(b"both")} for state in states]
    assert names[-1] == set()
    for earlier, later in pairwise(names):
        assert later <= earlier
