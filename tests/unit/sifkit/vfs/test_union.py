"""UnionTree of layers in memory: what hides what, what is merged, and where content is found."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace

import pytest

from sifkit.vfs.errors import LowerContentError, MissingLowerError
from sifkit.vfs.file_tree import TreeListing, TreeRow
from sifkit.vfs.subtree import Subtree
from sifkit.vfs.union import IgnoredMarks, UnionTree
from sifkit.vfs.walk import walk

from ....support.layers import facts_of_tree
from ....support.memory_tree import MemoryNode, MemoryTree

WHITEOUT = MemoryNode(0o020000)
DIRECTORY = object()
OPAQUE = (b"trusted.overlay.opaque", b"user.overlay.opaque", b"user.fuseoverlayfs.opaque")
METACOPY, REDIRECT = b"trusted.overlay.metacopy", b"user.overlay.redirect"


def layer(files, xattrs=None):
    """A tree of these paths: bytes of a file, DIRECTORY, or a node; directories above them are made."""
    tree = MemoryTree()
    made = {b""}
    for path, content in files.items():
        parts = path.split(b"/")
        for end in range(1, len(parts)):
            above = b"/".join(parts[:end])
            if above not in made:
                tree.add(above, MemoryNode(0o040755))
                made.add(above)
        made.add(path)
        node = MemoryNode(0o040755) if content is DIRECTORY else content
        tree.add(path, MemoryNode(0o100644, node) if isinstance(node, bytes) else replace(node))
    for path, values in (xattrs or {}).items():
        tree.nodes[node_of(tree, path)].xattrs.update(values)
    return tree


def node_of(tree, path):
    node = tree.root
    for name in path.split(b"/") if path else ():
        node = tree.find_name(node, name)
        assert node is not None, path
    return node


def shown(*layers):
    """Path -> content of files, None of directories; every way to read a union says the same."""
    return {path: facts[6] if stat.S_ISREG(facts[0]) else None for path, facts in facts_of_tree(UnionTree(layers)).items()}


@pytest.mark.parametrize("marked", [{b"d/x": WHITEOUT}, {b"d/.wh.x": b""}, {b"d/.wh.x": b"", b"d/x": b"beside"}])
def test_a_whiteout_hides_a_name_of_all_layers_below(marked):
    lower = layer({b"d/x": b"1", b"d/y": b"1"})
    middle = layer({b"d/x": b"2"})
    assert shown(lower, middle, layer(marked)) == {b"d": None, b"d/y": b"1"}
    assert shown(lower, layer(marked), middle) == {b"d": None, b"d/x": b"2", b"d/y": b"1"}


def test_marks_are_not_shown_where_nothing_is_below():
    marked = layer({b"d/.wh.x": b"", b"d/.wh..wh..opq": b"", b"d/.wh..opq": WHITEOUT, b"w": WHITEOUT, b"f": b"f"})
    assert shown(marked) == {b"d": None, b"f": b"f"}
    assert shown(layer({}), marked) == {b"d": None, b"f": b"f"}


@pytest.mark.parametrize("name", OPAQUE)
def test_an_opaque_directory_hides_those_below(name):
    lower = layer({b"d/x": b"1", b"d/e/y": b"1"})
    upper = layer({b"d/z": b"2", b"d/e/z": b"2"}, {b"d/e": {name: b"y"}})
    assert shown(lower, upper) == {b"d": None, b"d/x": b"1", b"d/z": b"2", b"d/e": None, b"d/e/z": b"2"}
    assert shown(lower, layer({b"d/w": b"2"}, {b"d": {name: b"y"}}), upper) == {
        b"d": None,
        b"d/w": b"2",
        b"d/z": b"2",
        b"d/e": None,
        b"d/e/z": b"2",
    }
    assert b"d/e/y" in shown(lower, layer({b"d/e/z": b"2"}, {b"d/e": {name: b"n"}}))


def test_an_opaque_whiteout():
    lower = layer({b"d/x": b"1"})
    assert shown(lower, layer({b"d/.wh..wh..opq": b"", b"d/z": b"2"})) == {b"d": None, b"d/z": b"2"}
    assert shown(lower, layer({b".wh..wh..opq": b"", b"z": b"2"})) == {b"z": b"2"}


def test_the_top_is_opaque_to_fuse_overlayfs_only():
    lower = layer({b"x": b"1"})
    for name in OPAQUE:
        is_hidden = name == b"user.fuseoverlayfs.opaque"
        assert shown(lower, layer({}, {b"": {name: b"y"}})) == ({} if is_hidden else {b"x": b"1"})


def test_other_types_stop_the_merge():
    lower = layer({b"a/x": b"1"})
    assert shown(lower, layer({b"a": b"2"})) == {b"a": b"2"}
    assert shown(lower, layer({b"a": b"2"}), layer({b"a/y": b"3"})) == {b"a": None, b"a/y": b"3"}
    assert shown(layer({b"a": b"1"}), layer({b"a/y": b"2"})) == {b"a": None, b"a/y": b"2"}


@pytest.mark.parametrize("name", [b"trusted.overlay.whiteout", b"user.overlay.whiteout"])
def test_an_empty_file_is_a_whiteout_by_its_xattr(name):
    upper = layer({b"x": b"", b"y": b"not empty"}, {b"x": {name: b""}, b"y": {name: b""}})
    assert shown(layer({b"x": b"1", b"y": b"1"}), upper) == {b"y": b"not empty"}


def test_stat_of_the_highest_layer():
    lower = layer({b"d/x": b"1", b"d/e": DIRECTORY})
    upper = layer({b"d/y": b"2"})
    upper.nodes[node_of(upper, b"d")] = MemoryNode(0o040700, uid=7, mtime=9, entries={b"y": node_of(upper, b"d/y")})
    union = UnionTree([lower, upper])
    merged = union.find_name(union.root, b"d")
    found = union.stat(merged)
    assert (found.mode, found.uid, found.mtime, found.links) == (0o040700, 7, 9, 1)
    assert union.layer_of(merged) == 1
    assert union.layer_of(union.find_name(merged, b"x")) == 0
    assert union.stat(union.find_name(merged, b"e")).links == 2


def test_hard_links_are_those_of_one_layer():
    lower, upper = layer({b"a": b"same"}), layer({b"c": b"same"})
    lower.add(b"b", node_of(lower, b"a"))
    upper.add(b"d", node_of(upper, b"c"))
    assert node_of(lower, b"a") == node_of(upper, b"c")
    union = UnionTree([lower, upper])
    (listing,) = union.scan_many([union.root])
    a, b, c, d = ((row.stat.dev, row.stat.ino) for row in listing.rows)
    assert a == b != c == d
    assert [(loaded.stat.dev, loaded.stat.ino) for loaded in union.load_many([row.node for row in listing.rows])] == [
        a,
        b,
        c,
        d,
    ]


def redirected(target, *, path=b"new"):
    """new/ was old/ of the lower layer, which has a whiteout for it."""
    return layer({b"old": WHITEOUT, path + b"/added": b"2"}, {path: {REDIRECT: target}})


LOWER = {b"old/x": b"1", b"old/e/y": b"1", b"other": b"1"}


@pytest.mark.parametrize(("target", "path"), [(b"old", b"new"), (b"/old", b"new"), (b"/old", b"in/new")])
def test_a_redirect_is_followed(target, path):
    found = shown(layer(LOWER), redirected(target, path=path))
    assert found.pop(b"other") == b"1" and found.pop(b"in", None) is None
    assert found == {path: None, path + b"/x": b"1", path + b"/e": None, path + b"/e/y": b"1", path + b"/added": b"2"}


def test_redirects_of_several_layers_are_followed_in_turn():
    """The directory was a/b, then c/b (its parent was renamed), then d."""
    one = layer({b"a/b/x": b"1"})
    two = layer({b"a": WHITEOUT, b"c/b/y": b"2"}, {b"c": {REDIRECT: b"a"}})
    three = layer({b"c/b": WHITEOUT, b"d/z": b"3"}, {b"d": {REDIRECT: b"/c/b"}})
    assert shown(one, two, three) == {b"c": None, b"d": None, b"d/x": b"1", b"d/y": b"2", b"d/z": b"3"}


@pytest.mark.parametrize(
    "target", [b"none", b"/none/x", b"", b"/", b"//", b"/old/../old", b"..", b"old/e", b"other", b"/other/x"]
)
def test_a_redirect_to_nothing_is_a_problem_of_the_directory(target):
    union = UnionTree([layer(LOWER), redirected(target)])
    problems = []
    found = {walked.path for walked in walk(union, union.root, on_problem=lambda path, error: problems.append((path, error)))}
    assert found == {b"new", b"new/added", b"other"}
    ((path, error),) = problems
    assert path == b"new" and isinstance(error, MissingLowerError) and isinstance(error, OSError)
    assert error.reason.startswith("its content is in a lower layer, which has it as ")


@pytest.mark.parametrize("redirect", [None, b"/d/was", b"was"])
def test_the_content_of_a_metacopy_is_the_lower_one(redirect):
    name = b"was" if redirect else b"f"
    lower = layer({b"d/" + name: MemoryNode(0o100600, b"lower content", xattrs={b"user.x": b"lower"})})
    middle = layer({b"d/" + name: MemoryNode(0o100600, bytes(13), xattrs={METACOPY: b"", b"user.x": b"middle"})})
    marks = {METACOPY: b"", b"user.x": b"upper", **({REDIRECT: redirect} if redirect else {})}
    upper = layer({b"d/f": MemoryNode(0o100640, bytes(13), xattrs=marks)})
    for layers in ([lower, upper], [lower, middle, upper]):
        assert shown(*layers)[b"d/f"] == b"lower content"
        union = UnionTree(layers)
        node = node_of(union, b"d/f")
        assert union.stat(node).mode == 0o100640 and union.xattrs(node) == {b"user.x": b"upper"}
        assert union.stat(node).blocks == 8 and len(node) == 2


@pytest.mark.parametrize("lower", [{}, {b"f": DIRECTORY}, {b"f": WHITEOUT}, {b"g": b"1"}])
def test_a_metacopy_without_its_content(lower):
    union = UnionTree([layer(lower), layer({b"f": MemoryNode(0o100640, bytes(3), xattrs={METACOPY: b""})})])
    node = union.find_name(union.root, b"f")
    assert union.stat(node).size == 3
    with pytest.raises(MissingLowerError, match="which has it as f: it is not there"):
        union.open_file(node)
    (loaded,) = union.load_many([node])
    assert isinstance(loaded.content, LowerContentError) and loaded.xattrs == {}


def test_marks_that_apptainer_ignores_are_counted_once():
    lower = layer({b"d/x": b"1", b"e/x": b"1"})
    upper = layer(
        {
            b"d/.wh..wh..opq": b"",
            b"d/.wh..opq": WHITEOUT,
            b"d/y": b"2",
            b"e/.wh.x": b"",
            b"e/.wh.z": b"",
            b"new/y": b"2",
            b"w": WHITEOUT,
        },
        {b"d": {OPAQUE[0]: b"y"}, b"new": {OPAQUE[0]: b"y"}},
    )
    union = UnionTree([lower, upper, layer({b"e/.wh.other": b""})])
    assert union.marks == {}
    for _ in range(2):
        list(walk(union, union.root))
    assert union.marks == {1: IgnoredMarks(whiteouts=2, opaque=1), 2: IgnoredMarks(whiteouts=1, opaque=0)}


class Damaged(MemoryTree):
    """Attributes of some nodes cannot be read."""

    bad: frozenset[int] = frozenset()
    number = errno.EIO

    def xattrs(self, node, /):
        if node in self.bad:
            raise OSError(self.number, os.strerror(self.number))
        return super().xattrs(node)

    def scan_many(self, directories, /, *, stats=True):
        for directory in directories:
            entries = sorted(self.nodes[directory].entries.items())
            rows = [TreeRow(name, node, 0, self.stat(node), True) for name, node in entries]
            yield TreeListing(directory, rows, None, 4096)


def damaged(number):
    tree = Damaged()
    tree.number = number
    tree.bad = frozenset({tree.add(b"d", MemoryNode(0o040755))})
    tree.add(b"d/y", MemoryNode(0o100644, b"2"))
    return tree


def test_attributes_that_cannot_be_read_are_a_problem():
    union = UnionTree([layer({b"d/x": b"1"}), damaged(errno.EIO)])
    (listing,) = union.scan_many([union.root])
    assert [row.name for row in listing.rows] == [b"d"]
    assert "d: its extended attributes cannot be read" in str(listing.problem)
    with pytest.raises(OSError) as caught:
        union.find_name(union.root, b"d")
    assert caught.value.errno == errno.EIO


def test_a_host_without_attributes_has_no_marks():
    union = UnionTree([layer({b"d/x": b"1"}), damaged(errno.ENOTSUP)])
    (listing,) = union.scan_many([union.root])
    assert listing.problem is None
    assert union.find_name(listing.rows[0].node, b"x") and union.find_name(listing.rows[0].node, b"y")


def test_a_listing_that_is_cut_short_in_one_layer():
    class Cut(MemoryTree):
        def scan_many(self, directories, /, *, stats=True):
            for listing in super().scan_many(directories, stats=stats):
                yield listing._replace(problem=OSError(errno.EIO, "cut"))

    cut = Cut()
    cut.add(b"b", MemoryNode(0o100644))
    union = UnionTree([layer({b"a": b"1"}), cut])
    (listing,) = union.scan_many([union.root])
    assert [row.name for row in listing.rows] == [b"a", b"b"] and listing.problem.errno == errno.EIO
    assert listing.directory_bytes == 8192


def test_totals_are_sums():
    one, two = layer({b"a": b"1"}), layer({b"b": b"2"})
    one.total_bytes, two.total_bytes = 5, 7
    assert UnionTree([one, two]).statfs()[:6] == (12, 0, 0, 4, 0, None)
    one.data_limit = 3
    assert UnionTree([one, two]).statfs().data_limit is None
    two.data_limit = 4
    assert UnionTree([one, two]).statfs().data_limit == 7


def test_directories_are_read_together_and_no_more_than_are_wanted():
    asked = []

    class Counted(MemoryTree):
        def scan_many(self, directories, /, *, stats=True):
            asked.append(list(directories))
            yield from super().scan_many(directories, stats=stats)

    tree = Counted()
    directories = [tree.add(b"d%d" % number, MemoryNode(0o040755)) for number in range(5)]
    union = UnionTree([tree, Subtree(tree, directories[0])])
    nodes = [union.find_name(union.root, b"d%d" % number) for number in range(5)]
    scan = union.scan_many(nodes)
    assert next(scan).node == nodes[0]
    assert asked == [directories]


def test_a_walk_of_directories_that_all_lead_to_one_ends():
    """The layers have fewer bytes than these directories would take."""
    lower = layer({b"old/%03d" % number: DIRECTORY for number in range(50)})
    lower.total_bytes = 20 * 4096
    upper = layer({b"new%02d" % number: DIRECTORY for number in range(50)})
    upper.total_bytes = 20 * 4096
    for number in range(50):
        upper.nodes[node_of(upper, b"new%02d" % number)].xattrs[REDIRECT] = b"/old"
    union = UnionTree([lower, upper])
    problems = []
    assert len(list(walk(union, union.root, on_problem=lambda path, error: problems.append(error)))) < 20 * 50
    assert "directories share blocks" in str(problems[-1])
