"""Every reading command says the same of a tree, whatever holds it: an image, a directory of the host, memory, or layers."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sifkit.overlay import opening
from sifkit.overlay.opening import OpenedTree, open_tree
from sifkit.vfs.union import UnionTree

from ....support.commands import Run, good, refused
from ....support.memory_tree import MemoryNode, MemoryTree
from ....support.tree_forms import host_directory_of, image_of, sample_tree, union_layers, xattrs_work

FORMS = ["tree.img", "tree", "tree.mem", "tree.union"]
TIMES = ("atime", "ctime", "crtime")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryTree]:
    top = tmp_path_factory.mktemp("forms")
    tree = sample_tree(xattrs=xattrs_work(top / "probe"))
    (top / "probe").rmdir()
    image_of(tree, top / "tree.img")
    host_directory_of(tree, top / "tree")
    image_of(union_layers(tree)[0], top / "lower.img")
    (top / "tree.mem").touch()
    (top / "tree.union").touch()
    return top, tree


@pytest.fixture
def forms(made: tuple[Path, MemoryTree], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory holds the tree as tree.img, tree/, tree.mem, which stands for the tree in memory, and tree.union,
    which stands for layers: lower.img, and one in memory over it."""
    top, tree = made

    @contextmanager
    def opened(path: Any, partition: str | None = None, **options: bool) -> Iterator[OpenedTree]:
        if os.fspath(path) == "tree.mem":
            yield OpenedTree(tree, None)
        elif os.fspath(path) == "tree.union":
            with open_tree("lower.img") as lower:
                yield OpenedTree(UnionTree([lower.tree, union_layers(tree)[1]]), None)
        else:
            with open_tree(path, partition, **options) as found:
                yield found

    monkeypatch.setattr(opening, "open_tree", opened)
    monkeypatch.setattr("sifkit.overlay.copy_in.open_tree", opened)
    monkeypatch.chdir(top)
    return top


def entries(output: str) -> list[dict[str, Any]]:
    """JSON of files without what depends on where they are: sizes and links of directories, inode numbers, other times."""
    found = []
    for line in output.splitlines():
        fields = json.loads(line)
        for entry in fields.get("entries", [fields]) if not isinstance(fields.get("entries"), int) else []:
            for key in ("ino", "allocated_bytes", "image", *TIMES, "flags", "generation", "extents"):
                entry.pop(key, None)
            if entry.get("type") == "directory":
                entry.pop("size_bytes", None)
                entry.pop("links", None)
            found.append(entry)
    return found


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["ls", "-R"],
        ["ls", "-R0"],
        ["ls", "-d", "{}", "/dir/deep/file"],
        ["ls", "{}:/dir/deep"],
        ["find"],
        ["ls", "{}", "/d*"],
        ["find", "{}:/d?r/*"],
        ["find", "-type", "f,l", "{}", "/dir"],
        ["find", "-name", "many-*3"],
        ["find", "-size", "+10k", "-type", "f"],
        ["find", "{}:/dir/deep"],
        ["find", "-0"],
        ["tree"],
        ["tree", "-L", "1"],
        ["tree", "{}:/dir"],
        ["du", "--inodes"],
        ["du", "-a", "--inodes"],
        ["du", "-s", "--inodes", "{}", "/dir", "/linked"],
        ["cat", "{}", "/dir/deep/file", "/linked", "/empty"],
        ["cat", "{}:/sparse"],
        ["xattr", "list", "{}", "/linked", "/empty", "/dir"],
    ],
    ids=" ".join,
)
def test_the_output_is_the_same(run: Run, forms: Path, words: list[str]) -> None:
    first = None
    for form in FORMS:
        argv = [word.format(form) for word in words] if any("{}" in word for word in words) else [*words, form]
        output = good(run, *argv)
        assert output
        first = first or output
        assert output == first, form


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "--json", "{}", "/"],
        ["ls", "-R", "--json", "{}"],
        ["find", "--json", "{}"],
        ["tree", "--json", "{}"],
        ["stat", "--json", "{}", "/linked", "/dir", "/fifo", "/long-link", "/sparse"],
    ],
    ids=" ".join,
)
def test_the_metadata_is_the_same(run: Run, forms: Path, words: list[str]) -> None:
    found = [entries(good(run, *(word.format(form) for word in words))) for form in FORMS]
    assert len(found[0]) >= 5
    assert all(one == found[0] for one in found)


def test_stat_leaves_out_what_only_ext3_knows(run: Run, forms: Path) -> None:
    facts = [dict(line.split(None, 1) for line in good(run, "stat", form, "/linked").splitlines()) for form in FORMS]
    assert facts[0]["data"] == "1 extent" and not any("data" in one for one in facts[1:])
    assert "generation" in facts[0]["inode"] and all(one["inode"].isdigit() for one in facts[1:])
    for key in ("file", "type", "mode", "owner", "links", "modified", "attributes"):
        assert all(one[key] == facts[0][key] for one in facts)


def test_totals(run: Run, forms: Path) -> None:
    for form in FORMS:
        found = json.loads(good(run, "df", "--json", form))
        assert found["size_bytes"] >= found["used_bytes"] >= 0 and found["inodes"] > 0
        assert form in good(run, "df", form)


@pytest.mark.parametrize("old", FORMS)
@pytest.mark.parametrize("new", FORMS)
def test_there_is_no_difference(run: Run, forms: Path, old: str, new: str) -> None:
    assert run("diff", old, new) == (0, "", "")
    assert run("diff", f"{old}:/dir", f"{new}:/dir") == (0, "", "")
    code, out, _ = run("diff", f"{old}:/dir", new)
    assert code == 1 and "A empty\n" in out and "D many-00\n" in out


def facts_below(top: Path) -> dict[str, tuple[object, ...]]:
    """What is in a directory of the host, by path; hard links by the first name."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(top))
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
        owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
        link = name if stat.S_ISDIR(status.st_mode) else first.setdefault(status.st_ino, name)
        found[name] = (status.st_mode, owner, status.st_mtime_ns, status.st_rdev, content, xattrs, link)
    return found


def extracted(run: Run, form: str) -> None:
    good(run, "-q", "extract", form, "-C", "out")


def extracted_below(run: Run, form: str) -> None:
    good(run, "-q", "extract", "-C", "out", f"{form}:/dir")


def copied(run: Run, form: str) -> None:
    good(run, "-q", "cp", "-a", f"{form}:/", "out")


@pytest.mark.skipif(not hasattr(os, "listxattr"), reason="no xattrs here")
@pytest.mark.parametrize("work", [extracted, extracted_below, copied])
def test_files_come_onto_the_host_the_same(run: Run, forms: Path, work: Callable[[Run, str], None]) -> None:
    found = []
    for form in FORMS:
        shutil.rmtree("out", ignore_errors=True)
        work(run, form)
        found.append(facts_below(Path("out")))
    shutil.rmtree("out")
    assert len(found[0]) > 40
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("form", FORMS)
def test_files_come_into_an_image_the_same(run: Run, forms: Path, tmp_path: Path, form: str) -> None:
    image = tmp_path / "new.img"
    good(run, "-q", "overlay", "create", "--size", "32M", image)
    good(run, "-q", "cp", "-a", f"{form}:/", f"{image}:/upper/copy")
    assert run("diff", "tree.img", f"{image}:/upper/copy") == (0, "", "")


def test_paths_that_are_not_there(run: Run, forms: Path) -> None:
    said = set()
    for form in FORMS:
        err = refused(run, "ls", form, "/dir/none")
        said.add(err.replace(form, "TREE"))
        refused(run, "cat", form, "/empty/x")
        refused(run, "ls", f"{form}:/dir/none")
    assert said == {"sifkit ls: cannot access '/dir/none': No such file or directory; list files with: sifkit ls TREE\n"}


def test_a_directory_is_no_image_where_one_is_changed(run: Run, forms: Path) -> None:
    for words in (["rm", "tree:/empty"], ["mkdir", "tree:/new"], ["cp", "tree.img:/empty", "tree:/new"]):
        assert "tree is a directory, not an image" in refused(run, *words)
    assert "is for SIF images" in refused(run, "ls", "--partition", "overlay", "tree", code=2)


def test_upper_of_a_directory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "overlay" / "upper" / "etc").mkdir(parents=True)
    (tmp_path / "overlay" / "upper" / "etc" / ".wh.gone").touch()
    (tmp_path / "overlay" / "upper" / "etc" / "here").touch()
    assert good(run, "find", "--upper", "overlay") == "/\n/etc\n/etc/here\n"
    assert "the image has no upper/" in refused(run, "ls", "--upper", "overlay/upper")


def test_a_tree_whose_files_share_their_data(run: Run, forms: Path, made: tuple[Path, MemoryTree], tmp_path: Path) -> None:
    tree = MemoryTree()
    tree.add(b"a", MemoryNode(0o100644, b"x" * 5000))
    tree.add(b"b", MemoryNode(0o100644, b"y" * 5000))
    tree.data_limit = 8000

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[OpenedTree]:
        yield OpenedTree(tree, None)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opening, "open_tree", opened)
        assert "the image is damaged" in refused(run, "extract", "tree.mem", "-C", tmp_path / "out")
        assert good(run, "ls", "tree.mem") == "a\nb\n"
