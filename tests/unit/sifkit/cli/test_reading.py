"""The verbs that look into an image."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest

from sifkit.cli import main
from sifkit.overlay.edit.edit_session import edit_image


@pytest.fixture
def image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    (source / "upper" / "etc" / "deep").mkdir(parents=True)
    (source / "work").mkdir()
    (source / "upper" / "etc" / "motd").write_bytes(b"hello\n")
    (source / "upper" / "etc" / "large").write_bytes(b"x" * 20_000)
    (source / "upper" / "etc" / "link").symlink_to("/etc/motd")
    os.link(source / "upper" / "etc" / "large", source / "upper" / "second")
    os.utime(source / "upper" / "etc" / "motd", (1_500_000_000, 1_500_000_000))
    assert main(["-q", "overlay", "create", "--from-dir", "source", "a.img"]) == 0
    return "a.img"


def lines(out):
    return [json.loads(line) for line in out.splitlines()]


def test_find_takes_the_words_of_find(run, image):
    assert run("find", image, "/upper/etc", "-name", "m*", "-type", "f")[1] == "/upper/etc/motd\n"
    assert run("find", image, "/upper", "-size", "+10k")[1] == "/upper/etc/large\n/upper/second\n"
    assert run("find", image, "-type", "l", "-0")[1] == "/upper/etc/link\0"
    assert run("find", image, "/upper/etc", "-newer", f"{image}:/upper/etc/motd", "-type", "f")[1] == "/upper/etc/large\n"
    assert run("find", f"{image}:/upper/etc/motd")[1] == "/upper/etc/motd\n"


def test_find_goes_on_behind_what_is_not_there(run, image):
    code, out, err = run("find", image, "/nothing", "/upper/etc/motd")
    assert (code, out) == (1, "/upper/etc/motd\n")
    assert "/nothing: No such file or directory" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-bogus"], "no such option -bogus; see sifkit find -h"),
        (["-nmae", "x"], "no such option -nmae (did you mean -name?); see sifkit find -h"),
        (["-name", "x", "-0z"], "no such option -0z"),
        (["--bogus"], "no such option --bogus"),
    ],
)
def test_find_names_the_whole_word_that_it_does_not_know(run, image, words, said):
    code, out, err = run("find", image, *words)
    assert (code, out) == (2, "") and err.startswith(f"sifkit find: {said}")


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("*", ["*", ".dot", "[x", "a*b", "axb", "q\\z", "ü"]),
        ("a\\*b", ["a*b"]),
        ("a*b", ["a*b", "axb"]),
        ("?", ["*", "ü"]),
        ("[", []),
        ("[x", ["[x"]),
        ("\\[x", ["[x"]),
        ("q\\\\z", ["q\\z"]),
        (".*", [".dot"]),
        ("[!a-z]*", ["*", ".dot", "[x", "ü"]),
        ("[^a-z]*", ["*", ".dot", "[x", "ü"]),
        ("[qa]*", ["a*b", "axb", "q\\z"]),
    ],
)
def test_find_names(run, tmp_path, monkeypatch, glob, names):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    for name in ("a*b", "axb", "[x", "q\\z", "ü", ".dot", "*"):
        (tmp_path / "source" / name).touch()
    assert run("-q", "overlay", "create", "--from-dir", "source", "b.img")[0] == 0
    found = run("find", "b.img:/upper", "-type", "f", "-name", glob)[1].splitlines()
    assert found == [f"/upper/{name}" for name in names]


def test_paths_that_are_not_there_in_the_words_of_coreutils(run, image):
    for words, said in (
        (("ls", image, "/none"), "cannot access '/none': No such file or directory"),
        (("du", image, "/none"), "cannot access '/none': No such file or directory"),
        (("stat", image, "/upper/etc/motd/x"), "cannot stat '/upper/etc/motd/x': Not a directory"),
        (("cat", image, "/upper/etc"), "/upper/etc: Is a directory"),
        (("find", image, "/upper/etc/motd/"), "/upper/etc/motd/: Not a directory"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (1, "") and err.startswith(f"sifkit {words[0]}: {said}")
    assert run("ls", image, "/upper/etc/../etc/.")[1] == run("ls", image, "/upper/etc/")[1] == "deep\nlarge\nlink\nmotd\n"
    assert run("ls", image, "/../..")[1] == run("ls", image)[1]


@pytest.mark.parametrize("words", [["-type", "x"], ["-size", "ten"], ["-name", "a", "-name", "b"]])
def test_find_says_what_it_does_not_understand(run, image, words):
    code, out, err = run("find", image, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_upper_is_what_the_container_sees(run, image):
    assert run("ls", "--upper", image, "/etc")[1] == "deep\nlarge\nlink\nmotd\n"
    assert run("cat", "--upper", image, "/etc/link")[1] == "hello\n"
    assert run("cat", "--upper", image, "/../../etc/motd")[1] == "hello\n"
    assert run("cat", image, "/upper/etc/link")[0] == 1
    assert run("ls", "--upper", image, "/upper")[0] == 1


def test_ls_tells_all_in_long_lines(run, image):
    out = run("ls", "-lR", image, "/upper")[1]
    assert out.count("\n") == 11
    assert "link -> /etc/motd\n" in out
    assert run("ls", "-R0", image, "/upper/etc")[1].split("\0")[1] == "/upper/etc/large"


def test_ls_names_each_file_once_in_json(run, image):
    found = lines(run("ls", "-R0", "--json", image, "/upper/etc")[1])
    assert [row["path"] for row in found[:-1]] == [f"/upper/etc/{name}" for name in ("deep", "large", "link", "motd")]


def test_ls_of_a_link_as_ls_has_it(run, image):
    for text, name in (("nowhere", "lost"), ("loop", "loop"), ("etc", "dir"), ("etc/motd", "file")):
        assert run("ln", "-s", text, f"{image}:/upper/{name}")[0] == 0
    for name in ("lost", "loop", "file"):
        assert run("ls", image, f"/upper/{name}") == (0, f"/upper/{name}\n", "")
    for name, text in (("lost", "nowhere"), ("loop", "loop"), ("dir", "etc")):
        code, out, err = run("ls", "-l", image, f"/upper/{name}")
        assert (code, err) == (0, "") and out.endswith(f"/upper/{name} -> {text}\n")
    assert run("ls", image, "/upper/dir")[1] == "deep\nlarge\nlink\nmotd\n"
    assert "motd" in run("ls", "-l", image, "/upper/dir/")[1]
    assert run("ls", image, "/upper/lost/")[0] == run("ls", image, "/upper/loop/")[0] == 1


def test_ls_of_directories_themselves(run, image):
    code, out, err = run("ls", "-ld", image, "/upper")
    assert (code, err) == (0, "") and out.startswith("drwx") and out.endswith(" /upper\n") and out.count("\n") == 1
    assert run("ls", "-dR1", image, "/upper", "/upper/etc") == (0, "/upper\n/upper/etc\n", "")
    assert run("ls", "-d", image) == (0, "/\n", "")
    assert [row["path"] for row in lines(run("ls", "-dR", "--json", image, "/upper")[1])[0]["entries"]] == ["/upper"]


def test_tree(run, image):
    out = run("tree", "-L", "2", image, "/upper")[1]
    assert "motd" in out and out.endswith("\n2 directories, 4 files\n")
    assert run("tree", "-L", "0", image)[0] == 2
    last = lines(run("tree", "--json", image)[1])[-1]
    assert (last["directories"], last["files"], last["errors"]) == (5, 4, 0)


def test_stat(run, image):
    found = lines(run("stat", "--json", image, "/upper/etc/motd")[1])[0]
    assert (found["size_bytes"], found["links"], found["mtime"]) == (6, 1, "2017-07-14T02:40:00.000000000Z")
    assert found["whiteout"] is False
    code, out, err = run("stat", image, "/nothing", "/upper")
    assert code == 1 and "directory" in out and "/nothing" in err
    with edit_image(image) as edited:
        edited.filesystem.write_bytes("/upper/one", b"1")
    assert "  1 byte, " in run("stat", image, "/upper/one")[1]


def test_df_and_du(run, image):
    found = lines(run("df", "--json", image)[1])[0]
    assert found["used_bytes"] + found["free_bytes"] == found["size_bytes"]
    assert found["inodes_used"] + found["inodes_free"] == found["inodes"]
    out = run("df", "-h", image)[1].splitlines()
    assert len(out) == 3 and " inodes " in out[2]
    total = lines(run("du", "--json", image, "/upper")[1])[-1]
    assert total["inodes"] == 6  # a file with two names counts once
    assert run("du", "-s", "--inodes", image, "/upper")[1] == "6\t/upper\n"


def test_extract(run, image, tmp_path):
    assert run("extract", image)[0] == 0
    assert (tmp_path / "a.d" / "upper" / "etc" / "motd").read_bytes() == b"hello\n"
    code, _, err = run("extract", image)
    assert code == 2 and "--force" in err
    assert run("extract", "--force", image)[0] == 0
    assert run("extract", f"{image}:/upper/etc", "-C", "out")[0] == 0
    assert os.listdir(tmp_path / "out") == ["upper"]
    assert run("extract", "--upper", image, "-C", "seen", "/etc/motd")[0] == 0
    assert (tmp_path / "seen" / "etc" / "motd").exists()


def test_diff(run, image, tmp_path):
    assert run("diff", image, "source") == (0, "", "")
    (tmp_path / "source" / "upper" / "etc" / "motd").write_bytes(b"hellO\n")
    (tmp_path / "source" / "upper" / "new").mkdir()
    (tmp_path / "source" / "upper" / "etc" / "link").unlink()
    code, out, _ = run("diff", image, "source")
    assert (code, out) == (1, "D upper/etc/link\nM upper/etc/motd  (content)\nA upper/new\n")
    found = lines(run("diff", "--json", image, "source")[1])
    assert [row.get("change") for row in found] == ["deleted", "modified", "added", None]
    assert (found[-1]["added"], found[-1]["modified"], found[-1]["deleted"], found[-1]["errors"]) == (1, 1, 1, 0)
    assert run("diff", image, "nothing")[0] == 2


def test_an_exported_layer_makes_the_same_overlay(run, image, tmp_path):
    assert run("overlay", "export", image, "-o", "layer.tar")[0] == 0
    with tarfile.open("layer.tar") as tar:
        assert tar.getnames() == [".", "etc", "etc/deep", "etc/large", "etc/link", "etc/motd", "second"]
    assert run("-q", "overlay", "create", "--from-tar", "layer.tar", "b.img")[0] == 0
    assert run("diff", f"{image}:/upper", "b.img:/upper") == (0, "", "")
    code, _, err = run("overlay", "export", image, "-o", "layer.tar")
    assert code == 1 and "--force" in err
    assert run("overlay", "export", image, "-o", "tree/")[0] == 0
    assert run("diff", f"{image}:/upper", "tree") == (0, "", "")


def test_marks_become_whiteouts_and_marks_again(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tarfile.open("marks.tar", "w") as tar:
        for name in ("etc/.wh.gone", "opt/.wh..wh..opq"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert run("-q", "overlay", "create", "--from-tar", "marks.tar", "a.img")[0] == 0
    assert "gone  (whiteout)" in run("tree", "a.img")[1]
    assert lines(run("stat", "--json", "a.img", "/upper/opt")[1])[0]["opaque"] is True
    assert lines(run("overlay", "export", "--json", "a.img", "-o", "again.tar")[1])[0]["whiteouts"] == 1
    with tarfile.open("again.tar") as tar:
        assert {"etc/.wh.gone", "opt/.wh..wh..opq"} <= set(tar.getnames())


def test_names_are_escaped_on_a_terminal_only(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a\x1b[31m\nb").touch()
    (tmp_path / "source" / "c\x7f\x9b2J").touch()
    assert run("-q", "overlay", "create", "--layout", "data", "--from-dir", "source", "a.img")[0] == 0
    assert "/a\x1b[31m\nb\n" in run("find", "a.img")[1]
    assert "c\x7f\x9b2J" in run("find", "--json", "a.img")[1]
    monkeypatch.setattr("sifkit.cli.support.console._is_terminal", lambda stream: True)
    for words in (["find", "a.img"], ["tree", "a.img"], ["ls", "-l", "a.img"], ["du", "-a", "a.img"]):
        out = run(*words)[1]
        assert "\x1b[31m" not in out and "\\033[31m" in out
    assert "c\\u007f\\u009b2J" in run("find", "--json", "a.img")[1]


def test_one_that_is_not_there_does_not_keep_the_others_from_being_shown(run, image):
    for words, shown in (
        (("cat", image, "/none", "/upper/etc/motd"), "hello\n"),
        (("tree", image, "/none", "/upper/etc"), "/upper/etc\n"),
        (("xattr", "list", image, "/none", "/upper/etc"), "# file: /upper/etc\n"),
        (("df", "none", image), "Image "),
    ):
        code, out, err = run(*words)
        assert code == 1 and out.startswith(shown) and err.count("\n") == 1 and "none" in err
    code, out, err = run("df", "--json", "none", image)
    assert (code, err) == (1, "") and [row.get("image") for row in lines(out)] == [None, image]
    assert run("df", "none", "none either")[:2] == (1, "")


def test_du_counts_what_is_named_twice_once(run, image):
    found = run("du", "-a", "--inodes", image, "/upper/etc", "/upper", "/upper/etc", "/upper/second")[1]
    assert found.splitlines() == [
        "1\t/upper/etc/deep", "1\t/upper/etc/large", "1\t/upper/etc/link", "1\t/upper/etc/motd", "5\t/upper/etc", "1\t/upper",
    ]  # fmt: skip


def test_hints_look_where_the_command_looked(run, image):
    assert run("cat", "--upper", image, "/none")[2].endswith("; list files with: sifkit ls --upper a.img\n")
    assert run("cat", image, "/none")[2].endswith("; list files with: sifkit ls a.img\n")


def test_a_file_is_no_place_to_extract_to(run, image, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for words in (("extract", image, "-C", "file"), ("overlay", "export", image, "-o", "file/")):
        code, out, err = run(*words)
        assert (code, out) == (2, "") and "exists and is not a directory" in err


def test_files_of_the_host_that_cannot_be_compared_are_told_in_words(run, image, monkeypatch):
    def open_none(*_, **__):
        raise PermissionError(13, "Permission denied", b"source/upper/etc/motd")

    monkeypatch.setattr("sifkit.vfs.host_tree.HostTree.open_file", open_none)
    code, _, err = run("diff", image, "source")
    assert code == 2 and err.splitlines()[0] == "sifkit diff: source/upper/etc/motd: Permission denied"
