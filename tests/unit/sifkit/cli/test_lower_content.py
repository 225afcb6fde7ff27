"""Files whose content is in a lower layer (metacopy), and directories that are there under another name (redirect)."""

from __future__ import annotations

import json
import os

import pytest

from ext3 import Filesystem
from ext3.constants import S_IFCHR
from sifkit.overlay.edit.edit_session import edit_image

from ....support.commands import good, names_in, read_in

LOWER = "its content is in a lower layer"


@pytest.fixture(params=["trusted", "user"])
def image(overlay, request):
    """d/meta and d/large have their content below, d/old is renamed, d/done was renamed and has its content since."""
    mark = f"{request.param}.overlay.".encode()
    with edit_image("overlay.img") as edited:
        fs = edited.filesystem
        for path in ("/upper/d", "/upper/d/old", "/upper/e"):
            fs.mkdir(path)
        for name, size in (("meta", 1000), ("large", 300_000), ("done", 0), ("plain", 0)):
            path = f"/upper/d/{name}"
            fs.write_bytes(path, b"own\n")
            if size:
                fs.truncate(path, 0)
                fs.truncate(path, size)
                fs.set_xattr(path, mark + b"metacopy", b"")
                fs.set_xattr(path, b"user.note", b"n")
            if name != "plain":
                fs.set_xattr(path, mark + b"redirect", b"/other/name")
        fs.set_xattr("/upper/d/old", mark + b"redirect", b"before")
    return overlay


def said(err, name="meta"):
    """The line that complains of a file."""
    (line,) = [line for line in err.splitlines() if LOWER in line and name in line]
    return line


@pytest.mark.parametrize("name", ["meta", "large"])
def test_reading_says_so(run, image, name):
    """Instead of zeros, which the blocks of such a file hold."""
    code, out, err = run("cat", "--upper", image, f"/d/{name}")
    assert (code, out) == (1, "") and said(err, name) == err.strip() and f"{image}:/d/{name}: {LOWER}" in err
    code, out, err = run("cat", "--upper", image, f"/d/{name}", "/d/done")
    assert (code, out) == (1, "own\n") and f"/d/{name}: {LOWER}" in said(err, name)
    for words in (["cp", f"{image}:/d/{name}", "copy"], ["cp", "-a", f"{image}:/d/{name}", "copy"]):
        code, _, err = run(*words, "--upper")
        assert code == 1 and said(err, name) and not os.path.lexists("copy")
    assert good(run, "cat", image, f"/upper/d/{name}") == "\0" * (1000 if name == "meta" else 300_000)  # as it is


def test_walks_go_on(run, image):
    for words in (["extract", image, "-C", "out"], ["cp", "-a", f"{image}:/d", "out"]):
        os.makedirs("out", exist_ok=True)
        code, _, err = run(*words, "--upper", "-f")
        assert code == 1 and said(err, "/meta") and said(err, "/large")
        assert sorted(os.listdir("out/d")) == ["done", "old", "plain"]
    os.makedirs("host/d")
    for name, size in (("meta", 1000), ("large", 300_000)):
        with open(f"host/d/{name}", "wb") as file:
            file.truncate(size)
    code, out, err = run("diff", "--upper", "--no-owner", image, "host")
    assert code == 2 and said(err, "/d/meta").startswith(f"sifkit diff: {image}:/d/meta: {LOWER}") and "meta" not in out
    code, out, _ = run("ls", "-l", "--upper", image, "/d")  # what is known is shown
    assert code == 0 and "1000" in out
    code, _, err = run("overlay", "export", image, "-o", "layer.tar")
    assert code == 1 and said(err, "/d/meta")


@pytest.mark.parametrize("name", ["meta", "large"])
def test_a_copy_within_the_image_is_refused(run, image, name):
    code, _, err = run("cp", "-a", "--upper", f"{image}:/d/{name}", f"{image}:/e/copy")
    assert code == 1 and said(err, name) and names_in(image, "/upper/e") == []
    code, _, err = run("cp", "-a", "--upper", f"{image}:/d", f"{image}:/e")
    assert code == 1 and said(err, name) and names_in(image, "/upper/e/d") == [b"done", b"old", b"plain"]


def test_moving_and_linking_are_refused(run, image):
    """In the container they gave EIO: the content is found by the path."""
    for words in (
        ["mv", f"{image}:/d/meta", f"{image}:/e/meta"],
        ["mv", f"{image}:/d/large", f"{image}:/d/other"],
        ["mv", f"{image}:/d/old", f"{image}:/d/new"],
        ["mv", f"{image}:/d", f"{image}:/e"],
        ["ln", f"{image}:/d/meta", f"{image}:/e/second"],
    ):
        code, _, err = run(*words, "--upper")
        assert code == 1 and LOWER in err, words
    assert "/d/large: " in run("mv", "--upper", f"{image}:/d", f"{image}:/e")[2]
    with Filesystem.open(image) as fs:
        assert sorted(path for path, _ in fs.walk("/upper")) == sorted(
            [b"d", b"d/done", b"d/large", b"d/meta", b"d/old", b"d/plain", b"e"]
        )
    good(run, "mv", "--upper", f"{image}:/d/done", f"{image}:/e/done")
    good(run, "mv", f"{image}:/upper/d/meta", f"{image}:/upper/e/meta")  # the raw view stays as it is
    assert names_in(image, "/upper/e") == [b"done", b"meta"]


def test_json_has_a_word_for_it(run, image):
    code, out, _ = run("mv", "--upper", "--json", f"{image}:/d/meta", f"{image}:/e")
    assert code == 1 and json.loads(out)["errors"][0]["kind"] == "lower-layer"


@pytest.mark.parametrize("size", [0, 5, 100_000])
@pytest.mark.parametrize("name", ["meta", "large", "done"])
def test_overwriting_takes_the_content(run, image, name, size, tmp_path):
    """The container went on reading the lower file."""
    (tmp_path / "new").write_bytes(b"n" * size)
    good(run, "cp", "--upper", "new", f"{image}:/d/{name}")
    with Filesystem.open(image) as fs:
        assert fs.xattrs(f"/upper/d/{name}").keys() == ({b"user.note"} if name != "done" else set())
    assert read_in(image, f"/upper/d/{name}") == b"n" * size
    assert good(run, "cat", "--upper", image, f"/d/{name}") == "n" * size


def test_without_upper_the_marks_stay(run, image, tmp_path):
    (tmp_path / "new").write_bytes(b"new")
    with Filesystem.open(image) as fs:
        before = fs.xattrs("/upper/d/meta")
    good(run, "cp", "new", f"{image}:/upper/d/meta")
    with Filesystem.open(image) as fs:
        assert fs.xattrs("/upper/d/meta") == before


def test_attributes_and_removal(run, image):
    """The kernel makes metacopies for changes of attributes, and these are right whatever the content is."""
    good(run, "chmod", "--upper", "600", f"{image}:/d/meta")
    assert json.loads(good(run, "stat", "--json", "--upper", image, "/d/meta"))["mode"] == "0600"
    good(run, "rm", "--upper", f"{image}:/d/meta")
    good(run, "rm", "-r", "--upper", f"{image}:/d")
    with Filesystem.open(image) as fs:
        assert fs.stat("/upper/d").mode == S_IFCHR


# -- marks that come from elsewhere --------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="a host without extended attributes")
def test_marks_of_the_host_are_not_copied_through_the_view(run, overlay, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(b"x")
    for name in ("user.overlay.metacopy", "user.overlay.redirect", "user.note"):
        os.setxattr(tmp_path / "source/file", name, b"y")
    good(run, "cp", "-a", "--upper", "source", f"{overlay}:/a")
    good(run, "cp", "-a", "source", f"{overlay}:/upper/b")
    with Filesystem.open(overlay) as fs:
        assert fs.xattrs("/upper/a/file").keys() == {b"user.note"}
        assert fs.xattrs("/upper/b/file").keys() == {b"user.note", b"user.overlay.metacopy", b"user.overlay.redirect"}


@pytest.mark.root
def test_a_whiteout_is_no_device_to_copy(run, overlay, tmp_path):
    """As mknod(2) in the container, where it is not permitted."""
    os.mknod(tmp_path / "device", S_IFCHR, 0)
    os.mknod(tmp_path / "null", S_IFCHR, os.makedev(1, 3))
    code, _, err = run("cp", "-a", "--upper", "device", "null", f"{overlay}:/")
    assert code == 1 and "cannot create special file" in err and "Operation not permitted" in err
    assert names_in(overlay) == [b"null"]
    good(run, "cp", "-a", "device", f"{overlay}:/upper")
