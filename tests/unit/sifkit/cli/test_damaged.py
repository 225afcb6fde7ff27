"""Damaged files: every verb reports and counts them, goes on, and says in which image and where they are."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from sifkit.cli import main

from ....support.commands import names_in
from ....support.inode_damage import damage_attributes, patch_inode

LINK = "i_size is 100, want a target of 1 to 59 bytes"
BLOCK = "i_block[0] is 4000000"


@pytest.fixture
def images(tmp_path, monkeypatch):
    """bad.img with damaged files, and good.img, which has the same files."""
    monkeypatch.chdir(tmp_path)
    upper = tmp_path / "src" / "upper"
    (upper / "d").mkdir(parents=True)
    for name in ("a", "c", "d/q", "z"):
        (upper / name).write_text(name)
    for name in ("b", "d/l"):
        (upper / name).symlink_to("x")
    (upper / "noted").write_text("noted")
    os.setxattr(upper / "noted", "user.x", b"y" * 300)
    assert main(["-q", "overlay", "create", "--size", "8M", "--from-dir", "src", "good.img"]) == 0
    Path("bad.img").write_bytes(Path("good.img").read_bytes())
    patch_inode("bad.img", "/upper/b", i_size=100)
    patch_inode("bad.img", "/upper/d/l", i_size=100)
    patch_inode("bad.img", "/upper/c", i_block=4_000_000)
    damage_attributes("bad.img", "/upper/noted")
    return "bad.img", "good.img"


def objects(out):
    return [json.loads(line) for line in out.splitlines()]


def errors(err):
    """Lines of standard error without the verb; warnings are left out."""
    return [line.partition(": ")[2] for line in err.splitlines() if ": warning: " not in line]


@pytest.mark.parametrize("verb", [["find", "--json"], ["tree", "--json"], ["ls", "-R", "--json"]])
def test_a_walk_goes_on_behind_damaged_links(run, images, verb):
    """As coreutils and findutils do; the summary counts them."""
    bad, _ = images
    code, out, err = run(*verb, bad, "/upper")
    *found, summary = objects(out)
    names = {one["path"] for one in found} - {"/upper"}
    assert names == {f"/upper/{name}" for name in ("a", "c", "d", "d/q", "noted", "z")}
    assert (code, summary["errors"]) == (1, 2)
    lines = sorted(errors(err))
    assert len(lines) == 2
    for line, path in zip(lines, ("/upper/b", "/upper/d/l"), strict=True):
        assert line.startswith(f"{path}: inode ") and line.endswith(LINK)


@pytest.mark.parametrize(
    ("verb", "damaged", "said"),
    [
        (["cat"], "/upper/c", BLOCK),
        (["cat"], "/upper/b", LINK),
        (["ls", "-l"], "/upper/b", LINK),
        (["tree"], "/upper/b", LINK),
        (["stat", "-L"], "/upper/b", LINK),
        (["xattr", "list"], "/upper/noted", "h_magic"),
        (["find"], "/upper/b/", LINK),
        (["du"], "/upper/b/", LINK),
    ],
)
def test_other_paths_are_read(run, images, verb, damaged, said):
    bad, _ = images
    code, out, err = run(*verb, bad, damaged, "/upper/a")
    assert code == 1 and out, err
    (line,) = errors(err)
    assert line.startswith(f"{damaged}: inode ") and said in line
    if verb[0] not in ("find", "du"):  # which always go on
        code, out, err = run(*verb, bad, damaged)
        assert code == 1 and not out
        assert err.startswith(f"sifkit {' '.join(verb[:1] if verb[0] != 'xattr' else verb)}: {bad}:{damaged}: inode ")
        assert f"the image is damaged; check it with: sifkit overlay fsck -fn {bad}" in err


@pytest.mark.parametrize("verb", [["cat"], ["ls"], ["tree"], ["stat"], ["find"], ["du"], ["xattr", "list"]])
def test_other_images_are_read(run, images, verb):
    _, good = images
    Path("text").write_text("no image")
    code, out, err = run(*verb, "text:/a", f"{good}:/upper/a")
    assert code == 1 and "a" in out
    assert errors(err)[0].startswith("text: ")
    code, out, err = run(*verb, "text:/a")
    assert code == 1 and not out and errors(err)[0].startswith("text: ")


def test_stat_shows_what_can_be_decoded(run, images):
    bad, good = images
    for path, unknown, said in (
        ("/upper/b", "data", LINK),
        ("/upper/c", "data", BLOCK),
        ("/upper/noted", "attributes", "h_magic"),
    ):
        assert run("stat", good, path)[0] == 0
        code, out, err = run("stat", bad, path)
        fields = dict(line.split(None, 1) for line in out.splitlines())
        assert (code, fields[unknown]) == (1, "unknown")
        assert len(fields) == 13 and fields["mode"] and fields["modified"]
        (line,) = errors(err)
        assert line.startswith(f"{path}: inode ") and said in line
    code, out, _ = run("stat", "--json", bad, "/upper/noted", "/upper/c")
    first, second = objects(out)
    assert (code, first["xattrs"], second["xattrs"], second["extents"], first["size_bytes"]) == (1, None, 0, None, 5)


# -- copies --------------------------------------------------------------------------------------------------------------


def test_a_copy_out_goes_on(run, images):
    """As cp of coreutils does; a file whose attributes are damaged is saved, with permissions for its owner only."""
    bad, _ = images
    os.mkdir("out")
    sources = [f"{bad}:/upper/{name}" for name in ("b", "c", "noted", "z")]
    code, _, err = run("cp", "-a", *sources, "out")
    assert code == 1 and sorted(os.listdir("out")) == ["noted", "z"]
    first, second, third = errors(err)
    assert first.startswith(f"error reading '{bad}:/upper/b': inode ") and LINK in first
    assert second.startswith(f"error reading '{bad}:/upper/c': inode ") and BLOCK in second
    assert third.startswith(f"'{bad}:/upper/noted': its extended attributes cannot be read: inode ")
    assert stat.S_IMODE(os.stat("out/noted").st_mode) == 0o600
    code, _, err = run("cp", "-a", f"{bad}:/upper", "tree")
    assert code == 1 and sorted(os.listdir("tree")) == ["a", "d", "noted", "z"]
    assert f"cannot copy '{bad}:/upper/d/l': inode " in err


def test_a_copy_between_images_blames_the_right_one(run, images):
    """An error of the source was told of the target, which is healthy."""
    bad, good = images
    sources = [f"{bad}:/upper/{name}" for name in ("b", "c", "noted", "z")]
    code, _, err = run("cp", "-p", *sources, f"{good}:/")
    assert code == 1 and b"z" in names_in(good, "/") and b"noted" in names_in(good, "/")
    assert f"{good}: " not in err
    first, second, third = errors(err)
    assert first.startswith(f"cannot stat '{bad}:/upper/b': inode ")
    assert second.startswith(f"error reading '{bad}:/upper/c': inode ")
    assert third.startswith(f"error reading '{bad}:/upper/noted': inode ")
    code, _, err = run("cp", "-a", f"{bad}:/upper", f"{good}:/all")
    assert code == 1 and f"{good}: " not in err
    assert names_in(good, "/all") == [b"a", b"d", b"noted", b"z"]
    code, out, _ = run("stat", "--json", good, "/all/noted", "/noted")
    assert [one["mode"] for one in objects(out)] == ["0600", "0600"]


def test_an_image_that_cannot_be_opened_is_named(run, images):
    """The target, which was open too, was blamed."""
    _, good = images
    Path("text").write_text("no image")
    assert main(["-q", "sif", "new", "a.sif"]) == 0
    for words in (
        ["cp", "text:/a", f"{good}:/"],
        ["find", good, "-newer", "text:/a"],
        ["diff", good, "text"],
        ["overlay", "attach", "a.sif", "text"],
    ):
        code, _, err = run(*words)
        assert code == (2 if words[0] == "diff" else 1)
        assert errors(err)[0].startswith("text: ")


def test_newer_names_the_image_and_path(run, images):
    bad, good = images
    code, out, err = run("find", good, "-newer", f"{bad}:/upper/b")
    assert code == 1 and not out
    assert errors(err)[0].startswith(f"{bad}:/upper/b: inode ")


# -- comparison ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("bad.img", "good.img"), ("good.img", "bad.img"), ("bad.img:/upper", "src/upper")])
def test_diff_says_which_side_is_damaged(run, images, order):
    code, out, err = run("diff", "--no-owner", *order)
    assert (code, out) == (2, "")
    upper = "upper/" if order[0] != "bad.img:/upper" else ""
    assert {line.partition(": ")[0] for line in errors(err)} == {
        f"bad.img:/upper/{name}" for name in ("b", "c", "d/l", "noted")
    }
    assert not upper or "upper/upper" not in err


def test_diff_says_nothing_of_what_it_cannot_read(run, images):
    """A file whose inode or directory cannot be read on one side was called added or deleted."""
    _, good = images
    Path("worse.img").write_bytes(Path(good).read_bytes())
    patch_inode("worse.img", "/upper/a", i_mode=0)
    patch_inode("worse.img", "/upper/d", i_block=4_000_000)
    for order in ((good, "worse.img"), ("worse.img", good)):
        code, out, err = run("diff", *order)
        assert (code, [line for line in out.splitlines() if not line.startswith("M")]) == (2, []), err
        assert "worse.img:/upper/d: " in err


@pytest.mark.parametrize("mode", [0, 0o644, 0o170644])
def test_a_file_of_no_type_is_not_copied(run, images, mode):
    """It became an empty regular file, exit 0; the kernel does not even show its attributes."""
    _, good = images
    Path("worse.img").write_bytes(Path(good).read_bytes())
    patch_inode("worse.img", "/upper/a", i_mode=mode)
    reason = f"the image is damaged: its mode is {mode:#o}, want what its entry says"
    os.mkdir("out")
    for target in ("out", f"{good}:/"):
        code, _, err = run("cp", "-a", "worse.img:/upper/a", "worse.img:/upper/z", target)
        assert code == 1 and errors(err) == [f"error reading 'worse.img:/upper/a': {reason}"]
    assert os.listdir("out") == ["z"] and b"a" not in names_in(good, "/")
    code, _, err = run("cp", "-a", "worse.img:/upper", f"{good}:/copy")
    assert code == 1 and b"a" not in names_in(good, "/copy") and reason in err


def test_damage_that_two_reads_meet_is_counted_once(run, images):
    _, good = images
    Path("worse.img").write_bytes(Path(good).read_bytes())
    patch_inode("worse.img", "/upper/d", i_block=4_000_000)
    code, out, err = run("tree", "--json", "worse.img")
    assert (code, len(errors(err)), objects(out)[-1]["errors"]) == (1, 1, 1)
