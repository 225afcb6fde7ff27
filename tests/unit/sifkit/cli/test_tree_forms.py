"""Every reading command says the same of a tree, whatever holds it: an image, a directory of the host, memory, a squashfs, or
a container with its root and overlays."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sifkit.overlay.images.filesystem_opening import OpenedFilesystem
from sifkit.overlay.view import tree_opening
from sifkit.overlay.view.tree_opening import OpenedTree, open_tree

from ....support.commands import Run, good, refused
from ....support.containers import sif_of
from ....support.memory_tree import MemoryNode, MemoryTree
from ....support.squashfs_images import make_squashfs
from ....support.tools import find
from ....support.tree_forms import host_directory_of, image_of, overlay_images, sample_tree, xattrs_work

FORMS = ["tree.img", "tree", "tree.mem", "root.sif", "view.sif", "given.sif", "mixed.sif", "tree.sqfs"]
"""``view.sif`` has two overlays of its own, ``given.sif`` and ``mixed.sif`` get them by OPTIONS."""
OPTIONS = {
    "given.sif": ["--overlay", "first.img", "--overlay", "second.img"],
    "mixed.sif": ["--overlay", "second.img:ro"],
}
OF_EXT3 = {"tree.img", "root.sif", "view.sif", "given.sif", "mixed.sif"}
TIMES = ("atime", "ctime", "crtime")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryTree]:
    top = tmp_path_factory.mktemp("forms")
    tree = sample_tree(xattrs=xattrs_work(top / "probe"))
    (top / "probe").rmdir()
    del tree.nodes[0].entries[b"same-link"]  # mksquashfs makes two files of a symlink with two names
    image_of(tree, top / "tree.img")
    host_directory_of(tree, top / "tree")
    lower, first, second = overlay_images(tree, top)
    sif_of(top / "root.sif", top / "tree.img")
    sif_of(top / "view.sif", lower, first, second)
    sif_of(top / "given.sif", lower)
    sif_of(top / "mixed.sif", lower, first)
    (top / "tree.mem").touch()
    if find("mksquashfs") or os.environ.get("SIFKIT_REQUIRE_TOOLS") == "1":
        make_squashfs(top / "tree", top / "tree.sqfs")
    return top, tree


def forms_here() -> list[str]:
    """The forms of the tree; without mksquashfs there is no squashfs."""
    return [form for form in FORMS if Path(form).exists()]


def words_for(words: list[str], form: str) -> list[str]:
    """A command for one form, without notes."""
    argv = [word.format(form) for word in words] if any("{}" in word for word in words) else [*words, form]
    return ["-q", *argv, *OPTIONS.get(form, [])]


@pytest.fixture
def forms(made: tuple[Path, MemoryTree], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory holds the tree in its forms; tree.mem stands for the tree in memory."""
    top, tree = made

    @contextmanager
    def opened(path: Any, partition: str | None = None, **options: bool) -> Iterator[OpenedTree]:
        if os.fspath(path) == "tree.mem":
            yield OpenedTree(tree, (OpenedFilesystem(tree, "directory", "tree.mem"),))
        else:
            with open_tree(path, partition, **options) as found:
                yield found

    monkeypatch.setattr(tree_opening, "open_tree", opened)
    monkeypatch.setattr("sifkit.overlay.copying.copy_in.open_tree", opened)
    monkeypatch.chdir(top)
    return top


def entries(output: str) -> list[dict[str, Any]]:
    """JSON of files without what depends on where they are: sizes and links of directories, inode numbers, other times, and
    what a second has beyond it, which squashfs cannot hold."""
    found = []
    for line in output.splitlines():
        fields = json.loads(line)
        for entry in fields.get("entries", [fields]) if not isinstance(fields.get("entries"), int) else []:
            for key in ("ino", "allocated_bytes", "image", *TIMES, "flags", "generation", "extents", "layer"):
                entry.pop(key, None)
            if "mtime" in entry:
                entry["mtime"] = entry["mtime"].partition(".")[0]
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
    for form in forms_here():
        output = good(run, *words_for(words, form))
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
    found = [entries(good(run, *words_for(words, form))) for form in forms_here()]
    assert len(found[0]) >= 5
    assert all(one == found[0] for one in found)


def test_stat_leaves_out_what_only_ext3_knows(run: Run, forms: Path) -> None:
    facts = {
        form: dict(line.split(None, 1) for line in good(run, *words_for(["stat", "{}", "/linked"], form)).splitlines())
        for form in forms_here()
    }
    for form, found in facts.items():
        assert ("generation" in found["inode"]) == (form in OF_EXT3) != found["inode"].isdigit()
        assert found.get("data") == ("1 extent" if form in OF_EXT3 else None)
        assert found.get("layer") == (f"{form}, object 1" if form.endswith(".sif") else None)
        for key in ("file", "type", "mode", "owner", "links", "attributes"):
            assert found[key] == facts["tree.img"][key]


def test_totals(run: Run, forms: Path) -> None:
    for form in forms_here():
        found = json.loads(good(run, *words_for(["df", "--json"], form)))
        assert found["size_bytes"] >= found["used_bytes"] >= 0 and found["inodes"] > 0
        assert form in good(run, *words_for(["df"], form))


@pytest.mark.parametrize("old", FORMS)
@pytest.mark.parametrize("new", ["tree.img", "tree", "tree.mem", "given.sif"])
def test_there_is_no_difference(run: Run, forms: Path, old: str, new: str) -> None:
    if old not in forms_here():
        pytest.skip("no mksquashfs")
    options = OPTIONS.get(new) or OPTIONS.get(old, [])
    assert run("-q", "diff", old, new, *options) == (0, "", "")
    assert run("-q", "diff", f"{old}:/dir", f"{new}:/dir", *options) == (0, "", "")
    code, out, _ = run("-q", "diff", f"{old}:/dir", new, *options)
    assert code == 1 and "A empty\n" in out and "D many-00\n" in out


def facts_below(top: Path, *, whole_seconds: bool = False) -> dict[str, tuple[Any, ...]]:
    """What is in a directory of the host, by path; hard links by the first name."""
    found: dict[str, tuple[Any, ...]] = {}
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
        time = status.st_mtime_ns // 10**9 if whole_seconds else status.st_mtime_ns
        found[name] = (status.st_mode, owner, time, status.st_rdev, content, xattrs, link)
    return found


EXTRACTED = ["extract", "{}", "-C", "out"]
EXTRACTED_BELOW = ["extract", "-C", "out", "{}:/dir"]
COPIED = ["cp", "-a", "{}:/", "out"]


@pytest.mark.skipif(not hasattr(os, "listxattr"), reason="no xattrs here")
@pytest.mark.parametrize("words", [EXTRACTED, EXTRACTED_BELOW, COPIED], ids=["extract", "extract below", "cp"])
def test_files_come_onto_the_host_the_same(run: Run, forms: Path, words: list[str]) -> None:
    found = []
    for form in forms_here():
        shutil.rmtree("out", ignore_errors=True)
        good(run, *words_for(words, form))
        found.append(facts_below(Path("out"), whole_seconds=form == "tree.sqfs"))
        if form == "tree.sqfs":
            assert found.pop() == {name: (*facts[:2], facts[2] // 10**9, *facts[3:]) for name, facts in found[0].items()}
    shutil.rmtree("out")
    assert len(found[0]) > 40
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in OPTIONS])
def test_files_come_into_an_image_the_same(run: Run, forms: Path, tmp_path: Path, form: str) -> None:
    if form not in forms_here():
        pytest.skip("no mksquashfs")
    image = tmp_path / "new.img"
    good(run, "-q", "overlay", "create", "--size", "32M", image)
    good(run, "-q", "cp", "-a", f"{form}:/", f"{image}:/upper/copy")
    assert run("diff", "tree.img", f"{image}:/upper/copy") == (0, "", "")


def test_paths_that_are_not_there(run: Run, forms: Path) -> None:
    said = set()
    for form in forms_here():
        err = refused(run, *words_for(["ls", "{}", "/dir/none"], form))
        given = "".join(f"{word} " for word in OPTIONS.get(form, []))
        said.add(err.replace(given + form, "TREE"))
        refused(run, *words_for(["cat", "{}", "/empty/x"], form))
        refused(run, *words_for(["ls", "{}:/dir/none"], form))
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
        yield OpenedTree(tree)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tree_opening, "open_tree", opened)
        assert "the image is damaged" in refused(run, "extract", "tree.mem", "-C", tmp_path / "out")
        assert good(run, "ls", "tree.mem") == "a\nb\n"
