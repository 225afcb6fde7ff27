"""What overlay filesystems hide in upper/: the kernel's whiteouts and those of fuse-overlayfs, looked at and edited."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from ext3 import Filesystem
from ext3.constants import S_IFCHR
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.edit.edit_session import edit_image
from sifkit.overlay.options import CreateOptions
from sifkit.vfs.whiteouts import has_whiteout_prefix, whited_out_name, whiteout_name

from ....support.commands import good, names_in, refused


@pytest.fixture
def image(overlay):
    """As containers leave it: etc/gone and etc/old are removed, opt/ is opaque, a directory was a whiteout once."""
    with edit_image("overlay.img") as edited:
        fs = edited.filesystem
        for path in ("/upper/etc", "/upper/opt", "/upper/opt/d", "/upper/etc/.wh.olddir"):
            fs.mkdir(path)
        for path in ("etc/.wh.gone", "etc/here", "opt/.wh..wh..opq", "opt/d/.wh.x", "etc/.wh.both", "etc/both"):
            fs.write_bytes(f"/upper/{path}", path.encode())
        fs.mknod("/upper/etc/old", S_IFCHR)
        fs.mknod("/upper/opt/.wh..opq", S_IFCHR)
    return overlay


def test_names_of_whiteouts():
    assert whited_out_name(b".wh.a") == b"a"
    assert [whited_out_name(name) for name in (b".wh.", b".wh..wh..opq", b"a", b".who")] == [None] * 4
    assert has_whiteout_prefix(b".wh.") and not has_whiteout_prefix(b".w")
    assert whiteout_name(b"n" * 251) == b".wh." + b"n" * 251 and whiteout_name(b"n" * 252) is None


def test_reading_with_upper_shows_what_the_container_sees(run, image):
    assert good(run, "ls", "--upper", "overlay.img", "/etc") == "here\n"
    assert good(run, "ls", "-R", "--upper", "overlay.img") == "/:\netc\nopt\n\n/etc:\nhere\n\n/opt:\nd\n\n/opt/d:\n"
    assert good(run, "find", "--upper", "overlay.img") == "/\n/etc\n/etc/here\n/opt\n/opt/d\n"
    assert good(run, "du", "-a", "--upper", "--inodes", "overlay.img", "/etc") == "1\t/etc/here\n2\t/etc\n"
    tree = good(run, "tree", "--upper", "overlay.img")
    assert ".wh." not in tree and "old" not in tree and "opt  (opaque)" in tree and tree.endswith("3 directories, 1 file\n")


def test_extracting_with_upper_gives_what_the_container_sees(run, image, tmp_path):
    good(run, "extract", "-q", "--upper", "overlay.img", "-C", "seen")
    assert sorted(os.path.relpath(path, tmp_path / "seen") for path in (tmp_path / "seen").rglob("*")) == [
        "etc", "etc/here", "opt", "opt/d",
    ]  # fmt: skip
    good(run, "extract", "-q", "overlay.img:/upper", "-C", "raw")
    assert (tmp_path / "raw/upper/etc/.wh.gone").exists()


def test_diff_with_upper_compares_what_the_container_sees(run, image, tmp_path):
    shutil.copyfile("overlay.img", "cleaned.img")
    with edit_image("cleaned.img") as edited:
        fs = edited.filesystem
        for name in ("etc/.wh.gone", "etc/old", "etc/.wh.both", "etc/both", "opt/.wh..opq", "opt/d/.wh.x", "opt/.wh..wh..opq"):
            fs.unlink(f"/upper/{name}")
        fs.rmdir("/upper/etc/.wh.olddir")
        fs.set_xattr("/upper/etc", b"trusted.overlay.opaque", b"y")
        fs.set_xattr("/upper/opt/d", b"user.fuseoverlayfs.origin", b"x")
    assert run("diff", "--upper", "overlay.img", "cleaned.img") == (0, "", "")
    code, out, err = run("diff", "overlay.img:/upper", "cleaned.img:/upper")
    assert (code, err) == (1, "") and "D etc/old\n" in out and "D etc/.wh.gone\n" in out and "M etc  (xattrs)\n" in out
    good(run, "extract", "-q", "--upper", "overlay.img", "-C", "seen")
    assert run("diff", "--upper", "--no-owner", "cleaned.img", "seen") == (0, "", "")


def test_diff_with_upper_tells_of_files_that_a_whiteout_replaced(run, image, tmp_path):
    shutil.copyfile("overlay.img", "later.img")
    with edit_image("later.img") as edited:
        edited.filesystem.unlink("/upper/etc/here")
        edited.filesystem.mknod("/upper/etc/here", S_IFCHR)
        edited.filesystem.unlink("/upper/etc/.wh.both")
        edited.filesystem.set_xattr("/upper/opt", b"user.comment", b"x")
    assert run("diff", "--upper", "overlay.img", "later.img")[:2] == (1, "A etc/both\nD etc/here\nM opt  (xattrs)\n")
    assert run("diff", "--upper", "overlay.img:/etc", "later.img:/etc")[:2] == (1, "A both\nD here\n")
    assert run("diff", "overlay.img:/upper/etc", "later.img:/upper/etc")[:2] == (1, "D .wh.both\nM here  (type)\n")
    assert run("diff", "--upper", "overlay.img:/etc/.wh.olddir", "later.img:/etc")[0] == 2


@pytest.mark.parametrize("path", ["/etc/gone", "/etc/old", "/etc/both", "/etc/olddir", "/etc/.wh.gone", "/opt/.wh..wh..opq"])
@pytest.mark.parametrize("verb", [("cat",), ("stat",), ("ls",), ("find",), ("du",), ("tree",), ("xattr", "list")])
def test_what_is_hidden_is_not_there(run, image, path, verb):
    assert "No such file or directory" in refused(run, *verb, "--upper", "overlay.img", path)


def test_with_upper_the_attributes_overlay_filesystems_keep_for_themselves_are_not_there(run, image, tmp_path):
    with edit_image("overlay.img") as edited:
        edited.filesystem.set_xattr("/upper/opt", b"trusted.overlay.opaque", b"y")
        edited.filesystem.set_xattr("/upper/opt", b"user.comment", b"x")
    assert good(run, "xattr", "list", "--upper", "overlay.img", "/opt") == '# file: /opt\nuser.comment="x"\n'
    assert "trusted.overlay.opaque" in good(run, "xattr", "list", "overlay.img", "/upper/opt")
    assert "no attribute" in refused(run, "xattr", "get", "--upper", "trusted.overlay.opaque", "overlay.img", "/opt")
    found = json.loads(good(run, "stat", "--json", "--upper", "overlay.img", "/opt"))
    assert (found["xattrs"], found["opaque"]) == (1, True)
    for words in (["set", "trusted.overlay.opaque", "y"], ["rm", "trusted.overlay.opaque"]):
        assert "hide it from containers; without --upper" in refused(run, "xattr", *words, "--upper", "overlay.img:/opt")
    good(run, "cp", "-a", "--upper", "overlay.img:/opt", "overlay.img:/copy")
    create("other.img", CreateOptions(size=8 << 20))
    good(run, "cp", "-a", "--upper", "overlay.img:/opt", "other.img:/copy")
    for name in ("overlay.img", "other.img"):
        with Filesystem.open(name) as filesystem:
            assert filesystem.xattrs("/upper/copy") == {b"user.comment": b"x"}


@pytest.mark.skipif(not hasattr(os, "getxattr"), reason="a host without extended attributes")
def test_with_upper_they_do_not_come_onto_the_host(run, image, tmp_path, monkeypatch):
    with edit_image("overlay.img") as edited:
        for path in ("/upper/opt", "/upper/etc/here"):
            for name in (b"user.overlay.origin", b"user.comment"):
                edited.filesystem.set_xattr(path, name, b"x")
    asked: list[str] = []
    monkeypatch.setattr(os, "setxattr", lambda path, name, *_, **__: asked.append(os.fsdecode(name)))
    good(run, "extract", "-q", "--upper", "overlay.img", "-C", "seen")
    good(run, "cp", "-a", "--upper", "overlay.img:/opt", "out")
    good(run, "cp", "-a", "--upper", "overlay.img:/etc/here", "here")
    assert asked == ["user.comment"] * 4
    good(run, "overlay", "export", "-q", "overlay.img", "-o", "raw/")
    assert "user.overlay.origin" in asked  # a directory that is an upper/ again


def test_reading_without_upper_names_the_marks(run, image):
    tree = good(run, "tree", "overlay.img", "/upper")
    assert ".wh.gone  (whiteout of gone)" in tree and "old  (whiteout)" in tree and "opt  (opaque)" in tree
    found = json.loads(good(run, "stat", "--json", "overlay.img", "/upper/etc/.wh.gone"))
    assert found["whiteout"] is True and found["type"] == "file"
    assert "hides gone of a lower layer" in good(run, "stat", "overlay.img", "/upper/etc/.wh.gone")
    assert json.loads(good(run, "stat", "--json", "overlay.img", "/upper/opt"))["opaque"] is True
    assert good(run, "cat", "overlay.img", "/upper/etc/.wh.gone") == "etc/.wh.gone"


def test_a_new_file_takes_the_place_of_its_whiteout(run, image, tmp_path):
    (tmp_path / "new").write_bytes(b"new")
    good(run, "cp", "--upper", "new", "overlay.img:/etc/gone")
    good(run, "ln", "-s", "--upper", "here", "overlay.img:/etc/old")
    good(run, "mkdir", "--upper", "overlay.img:/etc/olddir")
    good(run, "mv", "--upper", "overlay.img:/etc/here", "overlay.img:/opt/d/x")
    assert names_in(image, "/upper/etc") == [b".wh.both", b"both", b"gone", b"here", b"old", b"olddir"]
    assert names_in(image, "/upper/opt/d") == [b"x"]
    with Filesystem.open(image) as filesystem:
        assert filesystem.xattrs("/upper/etc/olddir")[b"trusted.overlay.opaque"] == b"y"
        assert filesystem.read_bytes("/upper/etc/gone") == b"new"
        assert filesystem.stat("/upper/etc/here").mode == S_IFCHR  # moved: the old name stays hidden
    assert good(run, "ls", "--upper", "overlay.img", "/etc") == "gone\nold\nolddir\n"


def test_a_whiteout_comes_back_where_its_name_could_not_be_taken(run, image):
    assert "File name too long" in refused(run, "ln", "-s", "--upper", "t" * 5000, "overlay.img:/etc/old")
    with Filesystem.open(image) as filesystem:
        assert filesystem.stat("/upper/etc/old").mode == S_IFCHR
    assert "File name too long" in refused(run, "ln", "-s", "--upper", "t" * 5000, "overlay.img:/etc/gone")
    assert b".wh.gone" in names_in(image, "/upper/etc")


def test_what_the_runtimes_see_differently_is_not_touched(run, image, tmp_path):
    """The kernel shows a file beside a fuse-overlayfs whiteout of its name, fuse-overlayfs does not."""
    (tmp_path / "new").write_bytes(b"new")
    before = names_in(image, "/upper/etc")
    for words in (("cp", "new", "overlay.img:/etc/both"), ("mkdir", "overlay.img:/etc/both")):
        said = refused(run, words[0], "--upper", *words[1:])
        assert "both and .wh.both are both in upper/" in said and "without --upper" in said
    assert names_in(image, "/upper/etc") == before
    with Filesystem.open(image) as filesystem:
        assert filesystem.read_bytes("/upper/etc/both") == b"etc/both"
    good(run, "rm", "overlay.img:/upper/etc/.wh.both")
    good(run, "cp", "--upper", "new", "overlay.img:/etc/both")


def test_names_of_marks_are_not_made_with_upper(run, image, tmp_path):
    (tmp_path / "new").write_bytes(b"new")
    for words in (
        ("cp", "new", "overlay.img:/etc/.wh.new"),
        ("mkdir", "overlay.img:/etc/.wh.new"),
        ("ln", "-s", "x", "overlay.img:/etc/.wh.new"),
        ("mv", "overlay.img:/etc/here", "overlay.img:/etc/.wh.new"),
        ("rm", "-f", "overlay.img:/etc/.wh.new"),
    ):
        assert "begins with .wh. is a whiteout" in refused(run, words[0], "--upper", *words[1:])
    assert b".wh.new" not in names_in(image, "/upper/etc") and b"here" in names_in(image, "/upper/etc")
    good(run, "cp", "new", "overlay.img:/upper/etc/.wh.new")


def test_changes_below_a_directory_leave_marks_alone(run, image):
    good(run, "chmod", "-R", "--upper", "700", "overlay.img:/etc")
    good(run, "chown", "-R", "--upper", "5:6", "overlay.img:/etc")
    with Filesystem.open(image) as filesystem:
        assert filesystem.stat("/upper/etc/here").uid == 5
        for name in (".wh.gone", "old", "both"):
            assert filesystem.stat(f"/upper/etc/{name}").uid == 0
            assert filesystem.stat(f"/upper/etc/{name}").mode & 0o777 != 0o700


def test_directories_of_marks_are_empty(run, image):
    """An opaque directory leaves no whiteout for what goes from it."""
    good(run, "rm", "-d", "--upper", "overlay.img:/opt/d")
    assert names_in(image, "/upper/opt") == [b".wh..opq", b".wh..wh..opq"]
    good(run, "rm", "-d", "--upper", "overlay.img:/opt")
    with Filesystem.open(image) as filesystem:
        assert filesystem.stat("/upper/opt").mode == S_IFCHR
    assert "Directory not empty" in refused(run, "rm", "-d", "--upper", "overlay.img:/etc")
    assert b".wh.gone" in names_in(image, "/upper/etc")


def test_copies_out_leave_marks_behind(run, image, tmp_path):
    good(run, "cp", "-r", "--upper", "overlay.img:/", "out")
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")) == [
        "etc",
        "etc/here",
        "opt",
        "opt/d",
    ]
    good(run, "overlay", "create", "--size", "8M", "other.img", "-q")
    good(run, "cp", "-r", "--upper", "overlay.img:/etc", "other.img:/")
    assert names_in("other.img", "/upper/etc") == [b"here"]
