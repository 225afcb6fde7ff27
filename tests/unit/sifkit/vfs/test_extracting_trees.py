"""Extraction and copies out of any tree: in memory, an ext3 image and a directory of the host give the same files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sifkit.vfs import extracting
from sifkit.vfs.copy_out import CopyOutOptions, copy_file_out, copy_tree_out
from sifkit.vfs.extracting import extract
from sifkit.vfs.resolve import Resolver
from sifkit.vfs.subtree import Subtree

from ....support.facts import assert_same, facts_of_host
from ....support.memory_tree import MemoryTree
from ....support.platforms import linux_holes
from ....support.tree_forms import TreeForms, tree_forms

pytestmark = pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot extract")

EVERYTHING = CopyOutOptions(preserve=frozenset({"mode", "owner", "times", "xattrs"}))


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    with tree_forms(tmp_path_factory.mktemp("forms")) as found:
        yield found


@pytest.fixture(params=TreeForms._fields)
def tree(forms, request):
    return getattr(forms, request.param)


@pytest.fixture(params=[1, 3], ids=["one process", "three processes"])
def workers(request, monkeypatch):
    monkeypatch.setattr(extracting, "workers_for", lambda jobs: min(jobs, request.param))
    monkeypatch.setattr(extracting, "BATCH_FILES", 7)
    return request.param


def source_of(forms: TreeForms) -> Path:
    return Path(os.fsdecode(forms.host.root))


def counts_of(facts):
    """How many (directories, files, symlinks, specials, further names) an extraction creates."""
    kinds = [stat.S_IFMT(fact.mode) for path, fact in facts.items() if fact.first == path]
    directories, files, symlinks = (kinds.count(kind) for kind in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK))
    return directories, files, symlinks, len(kinds) - directories - files - symlinks, len(facts) - len(kinds)


@pytest.mark.usefixtures("workers")
def test_every_tree_gives_the_same_files(forms, tree, tmp_path):
    expected = facts_of_host(source_of(forms))
    made = extract(tree, tmp_path / "out")
    assert_same(facts_of_host(tmp_path / "out"), expected)
    assert (made.failed, made.owners_left, made.xattrs_left, made.specials_left) == (0, 0, 0, 0)
    found = made.directories - 1, made.files, made.symlinks, made.specials, made.links  # lost+found is not in the facts
    assert found == counts_of(expected)
    for name in (".", "lost+found", "dir"):
        one, other = os.stat(tmp_path / "out" / name), os.stat(source_of(forms) / name)
        assert (one.st_mode, one.st_uid, one.st_mtime_ns) == (other.st_mode, other.st_uid, other.st_mtime_ns)


@linux_holes
def test_holes_stay_holes(forms, tree, tmp_path):
    made = extract(tree, tmp_path / "out", ["sparse", "small-sparse", "only-hole", "large"])
    for name, data in (("sparse", 12288), ("small-sparse", 4096), ("only-hole", 0)):
        assert os.stat(tmp_path / "out" / name).st_blocks * 512 <= data, name
    sizes = {"sparse": 8192 + 3, "small-sparse": 4096, "only-hole": 0, "large": 700_001}
    assert made.written_bytes in range(sum(sizes.values()), sum(sizes.values()) + 2 * 4096)  # a host's block may be larger


@pytest.mark.parametrize("deep", [False, True])
def test_the_order_of_creation_changes_nothing(forms, tree, tmp_path, monkeypatch, deep):
    monkeypatch.setattr(extracting, "DEEP_LEVELS", 0 if deep else 100)
    asked = []

    class Watched(Subtree):
        def load_many(self, nodes, /, *, keep_order=True, limit=1 << 16):
            asked.append(keep_order)
            return super().load_many(nodes, keep_order=keep_order, limit=limit)

    extract(Watched(tree, tree.root), tmp_path / "out")
    assert asked[0] is deep
    assert_same(facts_of_host(tmp_path / "out"), facts_of_host(source_of(forms)))


class Unordered(MemoryTree):
    """View of a tree in memory whose nodes are complex numbers, which cannot be compared."""

    def __init__(self, tree):
        super().__init__()
        self.nodes = tree.nodes

    @property
    def root(self):
        return 0j

    def scan_many(self, directories, /, *, stats=True):
        for listing in super().scan_many([int(node.real) for node in directories], stats=stats):
            rows = [row._replace(node=complex(row.node)) for row in listing.rows]
            yield listing._replace(node=complex(listing.node), rows=rows)

    def load_many(self, nodes, /, *, keep_order=True, limit=1 << 16):
        for loaded in super().load_many([int(node.real) for node in nodes], keep_order=keep_order, limit=limit):
            yield loaded._replace(node=complex(loaded.node))

    def readlink(self, node, /):
        return super().readlink(int(node.real))

    def open_file(self, node, /):
        return super().open_file(int(node.real))


@pytest.mark.usefixtures("workers")
def test_nodes_without_an_order(forms, tmp_path):
    assert extract(Unordered(forms.memory), tmp_path / "out").failed == 0
    assert_same(facts_of_host(tmp_path / "out"), facts_of_host(source_of(forms)))


@pytest.mark.usefixtures("workers")
def test_progress_ends_at_its_total(tree, tmp_path):
    phases = []

    class Told:
        def phase(self, name, total, unit):
            phases.append([name, total, 0])

        def advance(self, count):
            phases[-1][2] += count

        def done(self):
            pass

    made = extract(tree, tmp_path / "out", progress=Told())
    (look, none, seen), (name, total, advanced) = phases
    assert (look, none, name) == ("look", None, "extract")
    assert seen == total + made.directories
    assert advanced == total == made.files + made.symlinks + made.specials + made.links


def test_a_part_of_a_tree(forms, tree, tmp_path):
    node = Resolver(tree).lookup(b"/dir")
    for name, made in (
        ("extract", extract(Subtree(tree, node), tmp_path / "extract")),
        ("copy", copy_tree_out(tree, node, os.fsencode(tmp_path / "copy"), EVERYTHING)),
    ):
        assert made.failed == 0
        expected = facts_of_host(source_of(forms) / "dir")
        assert_same(facts_of_host(tmp_path / name), {path: fact._replace(links=None) for path, fact in expected.items()})


def test_every_file_is_copied_out(forms, tree, tmp_path):
    expected = facts_of_host(source_of(forms))
    for path, fact in expected.items():
        if stat.S_ISDIR(fact.mode):
            continue
        target = os.fsencode(tmp_path / "copy")
        told: list[int] = []
        made = copy_file_out(tree, Resolver(tree).lookup(path, follow=False), target, EVERYTHING, advance=told.append)
        found = facts_of_host(tmp_path)[b"/copy"]
        assert found == fact._replace(links=1, first=b"/copy"), path
        assert sum(told) == made.written_bytes
        os.unlink(target)


def test_without_options_a_copy_is_new(forms, tree, tmp_path):
    copy_file_out(tree, Resolver(tree).lookup(b"/set-ids"), os.fsencode(tmp_path / "copy"), CopyOutOptions(umask=0o27))
    found = os.stat(tmp_path / "copy")
    assert stat.S_IMODE(found.st_mode) == 0o710 & 0o777 & ~0o27 and found.st_mtime_ns > 1_600_000_100 * 10**9


@linux_holes
def test_an_existing_file_gets_the_content(forms, tree, tmp_path):
    target = tmp_path / "copy"
    target.write_bytes(b"x" * 2_000_000)
    target.chmod(0o604)
    node = Resolver(tree).lookup(b"/sparse")
    copy_file_out(tree, node, os.fsencode(target), CopyOutOptions())
    assert target.read_bytes() == (source_of(forms) / "sparse").read_bytes()
    assert (stat.S_IMODE(target.stat().st_mode), target.stat().st_blocks * 512 <= 12288) == (0o604, True)


def test_a_pipe_gets_all_bytes(forms, tree, tmp_path):
    """Holes, too, as zeros."""
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        made = copy_file_out(tree, Resolver(tree).lookup(b"/small-sparse"), os.fsencode(tmp_path / "fifo"), EVERYTHING)
        assert os.read(reader, 1 << 20) == bytes(4096) + b"data".ljust(4096, b".")
        assert made.written_bytes == 8192
    finally:
        os.close(reader)
