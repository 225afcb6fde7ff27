"""Errors of an extraction: those of the tree concern one file, those of the host end it; no more data than there is."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from ext3 import hostio
from ext3.constants import FileType
from sifkit.vfs import extracting
from sifkit.vfs.copy_out import CopyOutOptions, copy_file_out
from sifkit.vfs.data_limit import SharedBlocksError
from sifkit.vfs.errors import DamagedTreeError
from sifkit.vfs.extracting import extract
from sifkit.vfs.file_tree import TreeFile
from sifkit.vfs.subtree import Subtree

from ....support.memory_tree import MemoryFile, MemoryNode, MemoryTree
from ....support.tiny_image import TinyImage

pytestmark = pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot extract")

LARGE = b"x" * 100_000


def error(number):
    return OSError(number, os.strerror(number))


@pytest.fixture(params=[1, 3], ids=["one process", "three processes"])
def workers(request, monkeypatch):
    monkeypatch.setattr(extracting, "workers_for", lambda jobs: min(jobs, request.param))
    monkeypatch.setattr(extracting, "BATCH_FILES", 2)
    return request.param


def three_files(content=b"content"):
    """a, b and c; b fails in the tests."""
    tree = MemoryTree()
    for name in (b"a", b"b", b"c"):
        tree.add(name, MemoryNode(0o100644, content, uid=os.getuid(), gid=os.getgid()))
    return tree


class Failing(Subtree):
    """Tree in which one part of the node 2 cannot be read."""

    def __init__(self, tree, part, number=errno.EIO):
        super().__init__(tree, tree.root)
        self.part = part
        self.error = error(number)

    def load_many(self, nodes, /, *, keep_order=True, limit=1 << 16):
        for loaded in self.tree.load_many(nodes, keep_order=keep_order, limit=limit):
            if loaded.node == 2 and self.part in TreeFile._fields:
                yield loaded._replace(**{self.part: self.error})
            else:
                yield loaded

    def open_file(self, node, /):
        if node == 2 and self.part == "open":
            raise self.error
        return FailingFile(self) if node == 2 else self.tree.open_file(node)

    def readlink(self, node, /):
        raise self.error


class FailingFile(MemoryFile):
    def __init__(self, tree):
        super().__init__(LARGE)
        self._tree = tree

    def read_at(self, offset, size, /):
        if self._tree.part == "read":
            raise self._tree.error
        return super().read_at(offset, size)

    def data_ranges(self):
        if self._tree.part == "ranges":
            raise self._tree.error
        return super().data_ranges()


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("part", ["stat", "content", "open", "ranges", "read"])
def test_a_file_that_cannot_be_read_concerns_that_file(tmp_path, part, number):
    """Also with an errno that would end the extraction if it were the host's."""
    large = part in ("open", "ranges", "read")
    made = extract(Failing(three_files(LARGE if large else b"small"), part, number), tmp_path / "out")
    assert (made.files, made.failed, made.problems) == (2, 1, [(b"/b", os.strerror(number))])
    assert [(tmp_path / "out" / name).stat().st_size for name in "ac"] == [100_000 if large else 5] * 2


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
def test_a_file_whose_attributes_cannot_be_read_is_not_lost(tmp_path, content, number):
    """As with ``cp -a`` from a kernel mount: the data arrives, for its owner only, because an ACL may be among them."""
    tree = three_files(content)
    tree.add(b"again", 2)
    made = extract(Failing(tree, "xattrs", number), tmp_path / "out")
    reason = f"its extended attributes cannot be read: {os.strerror(number)}"
    assert (made.files, made.links, made.failed, made.problems) == (3, 1, 1, [(b"/again", reason)])
    assert (tmp_path / "out" / "b").read_bytes() == content
    assert [stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in "abc"] == [0o644, 0o600, 0o644]


def test_a_link_that_cannot_be_read_concerns_that_link(tmp_path):
    tree = three_files()
    tree.add(b"link", MemoryNode(0o120777, b"a"))
    made = extract(Failing(tree, "link", errno.ENOSPC), tmp_path / "out")
    assert (made.files, made.symlinks, made.problems) == (3, 0, [(b"/link", os.strerror(errno.ENOSPC))])


@pytest.mark.parametrize("part", ["stat", "xattrs"])
def test_attributes_of_directories_that_cannot_be_read(tmp_path, part):
    tree = MemoryTree()
    tree.add(b"a", MemoryNode(0o040755))
    tree.add(b"b", MemoryNode(0o040755))
    tree.add(b"b/file", MemoryNode(0o100644, b"x"))
    made = extract(Failing(tree, part), tmp_path / "out")
    reason = os.strerror(errno.EIO) if part == "stat" else f"its extended attributes cannot be read: {os.strerror(errno.EIO)}"
    assert (made.directories, made.files, made.problems) == (2, 1, [(b"/b", reason)])
    assert stat.S_IMODE((tmp_path / "out" / "b").stat().st_mode) == 0o700


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("number", sorted(extracting.FATAL_ERRNOS))
@pytest.mark.parametrize("call", ["write_at", "write", "open"])
def test_a_host_that_takes_no_more_ends_the_extraction(tmp_path, monkeypatch, call, number):
    real = getattr(os if call != "write_at" else hostio, call)

    def fail(what, *rest, **options):
        if call != "open" or (what == b"b" and rest[0] & os.O_CREAT):
            raise error(number)
        return real(what, *rest, **options)

    monkeypatch.setattr(os if call != "write_at" else hostio, call, fail)
    monkeypatch.setattr(extracting, "supported", lambda: True)  # which knows the system's own calls only
    with pytest.raises(OSError) as caught:
        extract(three_files(b"small" if call == "write" else LARGE), tmp_path / "out")
    assert caught.value.errno == number


def test_a_name_the_host_refuses_concerns_one_file(tmp_path, monkeypatch):
    real = os.open

    def refuse(name, flags, *rest, **options):
        if name == b"b" and flags & os.O_CREAT:
            raise error(errno.EILSEQ)
        return real(name, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(extracting, "supported", lambda: True)
    made = extract(three_files(), tmp_path / "out")
    assert (made.files, made.problems) == (2, [(b"/b", os.strerror(errno.EILSEQ))])


def test_a_size_that_no_host_can_hold_concerns_one_file(tmp_path):
    class Huge(MemoryFile):
        size = 1 << 64

        def data_ranges(self):
            return []

    tree = three_files(LARGE)
    tree.open_file = lambda node: Huge(b"") if node == 2 else MemoryFile(LARGE)
    made = extract(tree, tmp_path / "out")
    assert (made.files, made.problems) == (2, [(b"/b", os.strerror(errno.EFBIG))])


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda fd, data: os.pwrite(fd, data[:3], 0))
    extract(three_files(b"0123456789"), tmp_path / "out")
    assert [(tmp_path / "out" / name).read_bytes() for name in "abc"] == [b"0123456789"] * 3


# -- data limit ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("content", [b"s" * 1000, LARGE], ids=["small", "large"])
def test_files_together_have_no_more_data_than_there_is(tmp_path, content):
    """Also if each process alone reads less; the error comes from a process of its own."""
    tree = MemoryTree()
    for number in range(20):
        tree.add(b"%02d" % number, MemoryNode(0o100644, content))
    tree.data_limit = 20 * len(content)
    assert extract(tree, tmp_path / "enough").files == 20
    tree.data_limit -= 1
    with pytest.raises(SharedBlocksError, match="its files hold more data than it has room for") as caught:
        extract(tree, tmp_path / "out")
    assert (caught.value.limit_bytes, caught.value.kind, caught.value.path) == (tree.data_limit, "corrupt", None)
    if content is LARGE:
        assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) < 20 * len(LARGE)


def test_holes_and_further_names_are_no_data(tmp_path):
    tree = MemoryTree()
    file = tree.add(b"file", MemoryNode(0o100644, bytes(1 << 20) + b"x" * 4096))
    for number in range(20):
        tree.add(b"%02d" % number, file)
    tree.data_limit = 4096
    assert extract(tree, tmp_path / "out").links == 20


def test_a_copy_out_has_no_more_data_than_there_is(tmp_path):
    tree = three_files(LARGE)
    tree.data_limit = len(LARGE)
    copy_file_out(tree, 2, os.fsencode(tmp_path / "copy"), CopyOutOptions())
    tree.data_limit -= 1
    with pytest.raises(SharedBlocksError):
        copy_file_out(tree, 2, os.fsencode(tmp_path / "copy"), CopyOutOptions())
    assert (tmp_path / "copy").read_bytes() == LARGE  # it was not touched


def test_a_copy_out_of_a_file_whose_attributes_cannot_be_read(tmp_path):
    target = tmp_path / "copy"
    made = copy_file_out(
        Failing(three_files(LARGE), "xattrs"), 2, os.fsencode(target), CopyOutOptions(preserve=frozenset({"mode", "times"}))
    )
    assert made.problems == [(b"", f"its extended attributes cannot be read: {os.strerror(errno.EIO)}")]
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (LARGE, 0o600)


@pytest.mark.parametrize("part", ["stat", "open", "ranges", "read"])
def test_what_cannot_be_read_is_raised_by_a_copy_out(tmp_path, part):
    tree = Failing(three_files(LARGE), part)
    with pytest.raises(OSError) as caught:
        copy_file_out(tree, 2, os.fsencode(tmp_path / "copy"), CopyOutOptions(preserve=frozenset({"xattrs"})))
    assert caught.value is tree.error


# -- contradictions ------------------------------------------------------------------------------------------------------


def test_what_the_entry_says_and_the_inode_does_not(tmp_path):
    image = TinyImage()
    image.entry(b"said-file", 11, FileType.REGULAR)
    image.entry(b"said-dir", 12, FileType.DIRECTORY)
    image.entry(b"nothing", 13, FileType.REGULAR)
    image.directory(11, [])
    image.file(12, b"x")
    image.inode(13, 0o010000 * 0xF | 0o644)
    made = extract(image.open(), tmp_path / "out")
    assert sorted(made.problems) == [
        (b"/nothing", "the image is damaged: its mode is 0o170644, want what its entry says"),
        (b"/said-dir", "inode 12: Not a directory"),
        (b"/said-file", "the image is damaged: its mode is 0o40755, want what its entry says"),
    ]
    assert (tmp_path / "out" / "said-dir").stat().st_mode == 0o040700


def test_a_nul_where_no_host_takes_one(tmp_path):
    tree = MemoryTree()
    owner = {"uid": os.getuid(), "gid": os.getgid()}
    tree.add(b"link", MemoryNode(0o120777, b"a\0b", **owner))
    tree.add(b"file", MemoryNode(0o100644, b"x", xattrs={b"user.a\0b": b"", b"user.good": b"y"}, **owner))
    made = extract(tree, tmp_path / "out")
    assert (made.files, made.problems) == (1, [(b"/link", "the image is damaged: the target of the link has a NUL")])
    assert made.xattrs_left >= 1


def test_links_to_what_could_not_be_created(tmp_path):
    tree = three_files()
    tree.add(b"z", 2)
    made = extract(Failing(tree, "content"), tmp_path / "out")
    assert made.problems == [(b"/b", os.strerror(errno.EIO)), (b"/z", "the file it is a link to could not be created")]


def test_names_of_one_node_are_links_whatever_it_counts(tmp_path):
    image = TinyImage()
    for name in (b"a", b"b"):
        image.entry(name, 11, FileType.REGULAR)
    image.file(11, b"x")
    made = extract(image.open(), tmp_path / "out")
    assert (made.files, made.links) == (1, 1)


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("names", [1, 3])
def test_devices_that_the_host_refuses_are_counted(tmp_path, monkeypatch, names):
    """With all their names, as GNU tar leaves them out: that is no error."""
    tree = MemoryTree()
    device = tree.add(b"device", MemoryNode(0o020666, device=(1, 3)))
    for number in range(1, names):
        tree.add(b"%d" % number, device)

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "mknod", refuse)
    made = extract(tree, tmp_path / "out")
    assert (made.specials, made.specials_left, made.links, made.failed) == (0, names, 0, 0)


@pytest.mark.parametrize(
    ("way", "call"),
    [("extract", "mknod"), ("extract", "symlink"), ("extract", "link"), ("copy", "mknod"), ("copy", "symlink")],
)
def test_what_cannot_be_created_costs_no_existing_file(tmp_path, monkeypatch, way, call):
    """A user without root creates no devices; the file of that name stays, and no other name appears."""
    tree = MemoryTree()
    tree.add(b"a", MemoryNode(0o100644, b"content"))
    if call == "link":
        tree.add(b"name", 1)
    else:
        tree.add(b"name", MemoryNode(0o020666, device=(1, 3)) if call == "mknod" else MemoryNode(0o120777, b"a"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "name").write_bytes(b"old")
    real = getattr(os, call)

    def refuse(*arguments, **rest):
        new = arguments[0] if call == "mknod" else arguments[1]
        if os.path.lexists(tmp_path / "out" / os.fsdecode(new)):
            return real(*arguments, **rest)
        raise error(errno.EPERM)

    monkeypatch.setattr(os, call, refuse)
    monkeypatch.setattr(extracting, "supported", lambda: True)
    if way == "extract":
        made = extract(tree, tmp_path / "out", force=True)
        assert made.specials_left + made.failed == 1
    else:
        with pytest.raises(PermissionError):
            copy_file_out(tree, 2, os.fsencode(tmp_path / "out" / "name"), CopyOutOptions())
    assert (tmp_path / "out" / "name").read_bytes() == b"old"
    assert names_below(tmp_path / "out") == (["a", "name"] if way == "extract" else ["name"])


# -- paths ---------------------------------------------------------------------------------------------------------------


def names_below(top):
    return sorted(
        os.path.relpath(os.path.join(above, name), top) for above, below, files in os.walk(top) for name in below + files
    )


def small_tree():
    tree = MemoryTree()
    for path in (b"a", b"a/b", b"a/b/c", b"d"):
        tree.add(path, MemoryNode(0o040755))
    one = tree.add(b"a/b/one", MemoryNode(0o100644, b"1"))
    tree.add(b"a/two", MemoryNode(0o100644, b"2"))
    tree.add(b"d/one", one)
    return tree


@pytest.mark.parametrize(
    ("paths", "names", "links"),
    [
        (["/"], ["a", "a/b", "a/b/c", "a/b/one", "a/two", "d", "d/one"], 1),
        (["a/b", "/a//b/."], ["a", "a/b", "a/b/c", "a/b/one"], 0),
        (["a/b/one", "a/b"], ["a", "a/b", "a/b/c", "a/b/one"], 0),
        (["a/b", "a"], ["a", "a/b", "a/b/c", "a/b/one", "a/two"], 0),
        (["a/b/c", "."], ["a", "a/b", "a/b/c", "a/b/one", "a/two", "d", "d/one"], 1),
        (["a/b/one", "d/one"], ["a", "a/b", "a/b/one", "d", "d/one"], 1),
        (["a/b/one", "a/b/one"], ["a", "a/b", "a/b/one"], 0),
        (["a/two", "a/b/c"], ["a", "a/b", "a/b/c", "a/two"], 0),
    ],
)
def test_paths_in_one_another(tmp_path, paths, names, links):
    made = extract(small_tree(), tmp_path / "out", paths)
    assert names_below(tmp_path / "out") == names
    assert (made.links, made.failed) == (links, 0)


def test_a_directory_in_two_of_the_paths_is_extracted_once(tmp_path):
    tree = small_tree()
    tree.add(b"d/again", 2)  # a/b
    tree.add(b"d/up", 4)  # d itself
    made = extract(tree, tmp_path / "out", ["a/b", "d"])
    twice = "the image is damaged: this directory is in it twice"
    assert made.problems == [(b"/d/again", twice), (b"/d/up", twice)]
    assert names_below(tmp_path / "out") == ["a", "a/b", "a/b/c", "a/b/one", "d", "d/one"]
    with pytest.raises(DamagedTreeError, match="/d/up: the image is damaged"):
        extract(tree, tmp_path / "other", ["a/b", "d/up/again"])


def test_a_chosen_file_that_cannot_be_read_is_a_problem(tmp_path):
    tree = three_files()
    real = tree.stat

    def stat(node, /):
        if node == 2:
            raise error(errno.EIO)
        return real(node)

    failing = Failing(tree, "stat")
    failing.stat = stat
    made = extract(failing, tmp_path / "out", ["b", "c"])
    assert (made.files, made.problems) == (1, [(b"/b", os.strerror(errno.EIO))])
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        extract(failing, tmp_path / "other", ["b/"])
