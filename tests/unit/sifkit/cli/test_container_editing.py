"""Editing what a container sees: a SIF with an overlay inside, and images with ``--overlay``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ....support.commands import Run, good, refused
from ....support.containers import sif_of
from ....support.image_checks import check_counts
from ....support.memory_tree import MemoryNode, MemoryTree
from ....support.partitions import open_partition_filesystem
from ....support.tiny_squashfs import TINY_SQUASHFS
from ....support.tree_forms import image_of

DIRECTORY, REGULAR, WHITEOUT = 0o040755, 0o100644, 0o020000


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """base.sif; own.sif with an overlay; ov.img and low.img, overlays; dir/, a directory with an upper/."""
    monkeypatch.chdir(tmp_path)
    root = MemoryTree()
    for path, content in (
        (b"etc", None),
        (b"etc/motd", b"motd of the root\n"),
        (b"etc/group", b"g\n"),
        (b"opt", None),
        (b"opt/x", b"x"),
    ):
        root.add(path, MemoryNode(DIRECTORY) if content is None else MemoryNode(REGULAR, content, uid=3, mtime=10**18))
    image_of(root, tmp_path / "root.img")
    upper, low = MemoryTree(), MemoryTree()
    for tree in (upper, low):
        tree.add(b"upper", MemoryNode(DIRECTORY))
        tree.add(b"work", MemoryNode(DIRECTORY))
    low.add(b"upper/low", MemoryNode(REGULAR, b"low\n"))
    image_of(upper, tmp_path / "ov.img")
    image_of(low, tmp_path / "low.img")
    sif_of(tmp_path / "base.sif", tmp_path / "root.img")
    sif_of(tmp_path / "own.sif", tmp_path / "root.img", tmp_path / "ov.img")
    (tmp_path / "dir/upper").mkdir(parents=True)
    (tmp_path / "file").write_text("new\n")
    return tmp_path


CASES = [
    ["own.sif"],
    ["base.sif", "--overlay", "ov.img"],
    ["root.img", "--overlay", "ov.img"],
    ["base.sif", "--overlay", "low.img:ro,ov.img"],
    ["base.sif", "--overlay", "ov.img", "--overlay", "dir:ro", "--overlay", "low.img:ro"],
]


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_every_editing_command(run: Run, here: Path, words: list[str]) -> None:
    image, *options = words
    before = (here / "base.sif").read_bytes(), (here / "low.img").read_bytes()
    owner = ["--owner", "0:0"]
    good(run, "chmod", "600", f"{image}:/etc/group", *options)
    good(run, "chown", "-h", "5:6", f"{image}:/etc", *options)
    good(run, "cp", *owner, "file", f"{image}:/etc/motd", *options)
    good(run, "mkdir", "-p", *owner, f"{image}:/etc/a/b", *options)
    good(run, "mv", f"{image}:/opt", f"{image}:/etc/a/opt", *options)
    good(run, "ln", f"{image}:/etc/a/opt/x", f"{image}:/linked", *options)
    good(run, "ln", *owner, "-s", "/etc/motd", f"{image}:/link", *options)
    good(run, "xattr", "set", "user.note", "n", f"{image}:/etc/group", *options)
    good(run, "cp", *owner, "-a", f"{image}:/etc/a", f"{image}:/copy", *options)
    assert set(good(run, "find", *words).splitlines()) - {"/low", "/lost+found"} == {
        *("/", "/copy", "/copy/b", "/copy/opt", "/copy/opt/x", "/etc", "/etc/a", "/etc/a/b", "/etc/a/opt", "/etc/a/opt/x"),
        *("/etc/group", "/etc/motd", "/link", "/linked"),
    }
    assert good(run, "cat", *words, "/link") == "new\n"
    lines = good(run, "stat", "--json", *words, "/etc/motd", "/etc/group", "/linked").splitlines()
    stats = [json.loads(line) for line in lines]
    assert [(one["uid"], one["mode"], one["links"]) for one in stats] == [(3, "0644", 1), (3, "0600", 1), (3, "0644", 2)]
    assert stats[1]["mtime"].startswith("2001-09-09")
    good(run, "rm", f"{image}:/etc/motd", *options)
    good(run, "rm", "-r", f"{image}:/etc/a", *options)
    assert good(run, "ls", f"{image}:/etc", *options) == "group\n"
    assert ((here / "base.sif").read_bytes(), (here / "low.img").read_bytes()) == before
    check(here, image)


def check(here: Path, image: str) -> None:
    import ext3

    if image == "own.sif":
        with open_partition_filesystem(here / "own.sif", "overlay") as found:
            check_counts(found)
            return
    with ext3.Filesystem.open(here / "ov.img") as found:
        check_counts(found)


def test_the_result_names_the_overlay(run: Run, here: Path) -> None:
    found = json.loads(good(run, "rm", "--json", "base.sif:/etc/group", "--overlay", "ov.img"))
    assert found["layer"] == "ov.img" and found["image"] == "base.sif" and found["whiteouts"] == 1
    assert json.loads(good(run, "rm", "--json", "own.sif:/etc/motd"))["layer"].startswith("own.sif, object ")
    assert json.loads(good(run, "mkdir", "--json", "ov.img:/upper/new"))["layer"] is None


def test_no_whiteout_of_what_no_layer_has(run: Run, here: Path) -> None:
    good(run, "cp", "file", "own.sif:/etc/new")
    assert json.loads(good(run, "rm", "--json", "own.sif:/etc/new"))["whiteouts"] == 0
    good(run, "rm", "-f", "own.sif:/none", "own.sif:/etc/none/x")
    assert good(run, "find", "--partition", "overlay", "own.sif", "/upper") == "/upper\n/upper/etc\n"
    err = refused(run, "rm", "own.sif:/none")
    assert err == "sifkit rm: cannot remove 'own.sif:/none': No such file or directory\n"


def test_no_layer_to_write_to(run: Run, here: Path) -> None:
    err = refused(run, "rm", "base.sif:/etc/motd")
    assert err == "sifkit rm: base.sif has no writable layer; create one: sifkit overlay create --size 1G base.sif\n"
    err = refused(run, "mkdir", "base.sif:/new", "--overlay", "ov.img:ro")
    assert "no writable layer: ov.img can only be read" in err
    err = refused(run, "mkdir", "base.sif:/new", "--overlay", "ov.img", "--overlay", "dir", code=2)
    assert "dir is a directory, not an image" in err and "write dir:ro" in err
    err = refused(run, "mkdir", "base.sif:/new", "--overlay", "ov.img", "--upper", code=2)
    assert "--upper and --overlay contradict each other" in err
    good(run, "-q", "sif", "update", "2", "own.sif", "--group", "7")
    err = refused(run, "rm", "own.sif:/etc/motd")
    assert "its overlay, object 2, is not used; it is in group 7" in err and "sifkit sif list own.sif" in err
    err = refused(run, "diff", "own.sif", code=2)
    assert "own.sif has no overlay that could change it: its overlay, object 2, is not used; it is in group 7" in err


def test_hints_give_the_overlay(run: Run, here: Path) -> None:
    err = refused(run, "cp", "file", "base.sif:/none/file", "--overlay", "ov.img")
    assert err.endswith("create the directory first: sifkit mkdir -p --overlay ov.img base.sif:/none\n")


def test_upper_of_a_sif_is_that_of_its_overlay(run: Run, here: Path) -> None:
    good(run, "mkdir", "--upper", "own.sif:/new")
    assert good(run, "ls", "--partition", "overlay", "own.sif", "/upper") == "new\n"


def test_a_copy_of_a_file_of_another_layer_onto_itself(run: Run, here: Path) -> None:
    err = refused(run, "cp", "own.sif:/etc/motd", "own.sif:/etc/motd")
    assert "are the same file" in err
    err = refused(run, "cp", "-a", "own.sif:/etc", "own.sif:/etc/in")
    assert "into itself" in err
    err = refused(run, "mv", "own.sif:/etc", "own.sif:/etc/in")
    assert "to a subdirectory of itself" in err


@pytest.mark.parametrize(
    ("words", "began"),
    [
        (["chmod", "700", "bad.sif:/d/data"], "changing permissions of 'bad.sif:/d/data'"),
        (["mv", "bad.sif:/d", "bad.sif:/e"], "cannot move 'bad.sif:/d' to 'bad.sif:/e'"),
        (["ln", "bad.sif:/d/data", "bad.sif:/e"], "failed to create hard link 'bad.sif:/e' => 'bad.sif:/d/data'"),
        (["cp", "bad.sif:/d/data", "bad.sif:/e"], "error reading 'bad.sif:/d/data'"),
    ],
)
def test_damage_of_a_lower_layer_is_said_with_its_place(run: Run, here: Path, words: list[str], began: str) -> None:
    damaged = bytearray(TINY_SQUASHFS)
    damaged[100:110] = bytes(10)
    (here / "bad.sqfs").write_bytes(damaged)
    sif_of(here / "bad.sif", here / "bad.sqfs", here / "ov.img")
    code, _, err = run(*words)
    assert code == 1 and began in err and ": object 1: data block at byte 96: " in err
    assert err.endswith("check it with: sifkit check bad.sif\n") and err.count("\n") == 1
