"""The commands that change an image: their words, what they leave behind, and what they refuse."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ext3 import Filesystem
from sifkit.cli.support.modes import apply_mode, parse_mode
from sifkit.errors import ImageInUseError, UsageError
from sifkit.overlay import edit_session as edit
from sifkit.overlay.edit_session import EditOptions, edit_image

from ....support.image_checks import check_counts

SIZE = "8M"


@pytest.fixture
def image(tmp_path, run, monkeypatch):
    """An empty overlay called overlay.img in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert run("overlay", "create", "--size", SIZE, "overlay.img", "-q")[0] == 0
    return tmp_path / "overlay.img"


@pytest.fixture
def source(tmp_path, image):
    """A small tree on the host."""
    top = tmp_path / "src"
    (top / "d" / "e").mkdir(parents=True)
    (top / "a").write_bytes(b"hello\n")
    os.link(top / "a", top / "twin")
    (top / "l").symlink_to("a")
    (top / "d" / "e" / "f").write_bytes(b"x" * 5000)
    (top / "d" / "e" / "f").chmod(0o640)
    with (top / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    return top


def read(image, path):
    with Filesystem.open(image) as filesystem:
        return filesystem.read_bytes(path)


def stat(image, path, *, follow=False):
    with Filesystem.open(image) as filesystem:
        return filesystem.stat(path, follow=follow)


def names(image, path="/upper"):
    with Filesystem.open(image) as filesystem:
        return sorted(entry.name for entry in filesystem.scandir(path.encode()))


def good(run, *argv):
    code, out, err = run(*argv)
    assert code == 0 and not err, (argv, code, out, err)
    return out


def refused(run, *argv, code=1):
    found, out, err = run(*argv)
    assert found == code and not out, (argv, found, out, err)
    assert err.count("\n") == 1, err
    return err


# Copying in


def test_a_tree_goes_in_with_all_it_has(run, image, source):
    os.utime(source / "a", ns=(1_600_000_000_123_456_789, 1_600_000_001_987_654_321))
    good(run, "cp", "-a", "src", "overlay.img:/upper")
    assert names(image, "/upper/src") == [b"a", b"d", b"l", b"sparse", b"twin"]
    assert read(image, "/upper/src/a") == b"hello\n"
    assert read(image, "/upper/src/d/e/f") == b"x" * 5000
    assert stat(image, "/upper/src/d/e/f").mode & 0o7777 == 0o640
    assert stat(image, "/upper/src/a").mtime == 1_600_000_001_987_654_321
    assert stat(image, "/upper/src/a").ino == stat(image, "/upper/src/twin").ino
    assert stat(image, "/upper/src/l").is_symlink
    sparse = stat(image, "/upper/src/sparse")
    assert sparse.size == (1 << 20) + 3 and sparse.blocks * 512 < 100_000


def test_a_copy_without_r_follows_links_and_leaves_directories_out(run, image, source):
    code, _, err = run("cp", "src/l", "src/d", "overlay.img:/upper")
    assert code == 1 and err == "sifkit cp: -r not specified; omitting directory 'src/d'; give -r\n"
    assert names(image) == [b"l"] and read(image, "/upper/l") == b"hello\n"


def test_new_files_follow_the_umask_and_belong_to_the_caller(run, image, source):
    (source / "a").chmod(0o4777)
    before = os.umask(0o027)
    try:
        good(run, "cp", "src/a", "overlay.img:/upper/a")
        good(run, "cp", "--owner", "1234:4321", "src/a", "overlay.img:/upper/b")
    finally:
        os.umask(before)
    assert stat(image, "/upper/a").mode & 0o7777 == 0o750
    assert (stat(image, "/upper/a").uid, stat(image, "/upper/a").gid) == (os.getuid(), os.getgid())
    assert (stat(image, "/upper/b").uid, stat(image, "/upper/b").gid) == (1234, 4321)


def test_a_file_that_is_there_stays_the_same_file(run, image, source):
    good(run, "cp", "src/a", "overlay.img:/upper/a")
    good(run, "ln", "overlay.img:/upper/a", "overlay.img:/upper/b")
    before = stat(image, "/upper/a").ino
    good(run, "cp", "src/d/e/f", "overlay.img:/upper/a")
    assert stat(image, "/upper/a").ino == before and read(image, "/upper/b") == b"x" * 5000
    good(run, "cp", "-n", "src/a", "overlay.img:/upper/a")
    assert read(image, "/upper/a") == b"x" * 5000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("src/a", "overlay.img:/upper/none/x"),
            "cannot create regular file 'overlay.img:/upper/none/x': No such file or directory",
        ),
        (("src/a", "overlay.img:/upper/none/"), "cannot create regular file 'overlay.img:/upper/none/': Not a directory"),
        (("-rT", "src/d", "overlay.img:/upper/file"), "cannot overwrite non-directory"),
        (("-T", "src/a", "overlay.img:/upper/dir"), "cannot overwrite directory"),
        (("overlay.img:/upper/file", "overlay.img:/upper/file"), "are the same file"),
        (("-r", "overlay.img:/upper/dir", "overlay.img:/upper/dir/x"), "cannot copy a directory"),
        (("nosuch", "overlay.img:/upper"), "cannot stat 'nosuch': No such file or directory"),
        (("src/a", "src/d", "overlay.img:/upper/file"), "target 'overlay.img:/upper/file': Not a directory"),
        (("src/a", "overlay.img:/upper/dangling"), "not writing through dangling symlink"),
        (("src/a", "overlay.img:/upper/loop/x"), "Too many levels of symbolic links"),
    ],
)
def test_what_cp_refuses(run, image, source, words, said):
    good(run, "cp", "src/a", "overlay.img:/upper/file")
    good(run, "mkdir", "overlay.img:/upper/dir")
    good(run, "ln", "-s", "nowhere", "overlay.img:/upper/dangling")
    good(run, "ln", "-s", "loop", "overlay.img:/upper/loop")
    before = names(image)
    assert said in refused(run, "cp", *words)
    assert names(image) == before and names(image, "/upper/dir") == []


def test_a_file_is_not_copied_onto_itself_through_a_link(run, image, source):
    good(run, "cp", "src/a", "overlay.img:/upper/a")
    good(run, "ln", "overlay.img:/upper/a", "overlay.img:/upper/h")
    good(run, "ln", "-s", "a", "overlay.img:/upper/l")
    assert "are the same file" in refused(run, "cp", "overlay.img:/upper/h", "overlay.img:/upper/l")
    assert "are the same file" in refused(run, "cp", "-a", "overlay.img:/upper/h", "overlay.img:/upper/l")
    assert read(image, "/upper/a") == b"hello\n"
    assert "Too many levels" not in run("ln", "-sf", "l", "overlay.img:/upper/l")[2]
    good(run, "ln", "-sf", "a", "overlay.img:/upper/l")


def test_no_space_ends_the_copy_and_keeps_what_was_copied(run, image, tmp_path):
    (tmp_path / "big").write_bytes(os.urandom(12 << 20))
    (tmp_path / "small").write_bytes(b"s")
    code, _, err = run("cp", "small", "big", "overlay.img:/upper")
    assert code == 1 and err.count("\n") == 1 and "big" not in names(image)
    assert Filesystem.open(image).superblock.needs_recovery is False


def test_a_file_outside_upper_is_warned_of(run, image, source):
    code, _, err = run("cp", "src/a", "overlay.img:/opt")
    assert code == 0
    assert "overlay.img:/opt lies outside upper/: no container will see it (did you mean overlay.img:/upper/opt?)" in err


# Copying out, and between images


def test_a_tree_comes_out_again(run, image, source, tmp_path):
    good(run, "cp", "-a", "src", "overlay.img:/upper")
    good(run, "cp", "-a", "overlay.img:/upper/src", "out")
    good(run, "cp", "overlay.img:/upper/src/a", "overlay.img:/upper/src/l", ".")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "l").read_bytes() == b"hello\n"
    assert sorted(os.listdir("out")) == sorted(os.listdir("src"))
    assert (tmp_path / "out/sparse").stat().st_blocks * 512 < 100_000
    assert (tmp_path / "out/d/e/f").read_bytes() == b"x" * 5000
    assert (tmp_path / "out/d/e/f").stat().st_mode & 0o7777 == 0o640
    good(run, "cp", "-a", "overlay.img:/upper/src/l", "link")
    assert os.readlink("link") == "a"
    assert "omitting directory" in refused(run, "cp", "overlay.img:/upper/src", "again")
    assert not os.path.exists("again")


def test_a_tree_goes_from_one_image_to_another_and_within_one(run, image, source):
    good(run, "overlay", "create", "--size", SIZE, "other.img", "-q")
    good(run, "cp", "-a", "src", "overlay.img:/upper")
    good(run, "cp", "-a", "overlay.img:/upper/src", "other.img:/upper/copy")
    good(run, "cp", "-a", "overlay.img:/upper/src", "overlay.img:/upper/copy")
    for name in ("other.img", "overlay.img"):
        assert read(name, "/upper/copy/d/e/f") == b"x" * 5000
        assert stat(name, "/upper/copy/a").ino == stat(name, "/upper/copy/twin").ino
        assert stat(name, "/upper/copy/a").mtime == (source / "a").stat().st_mtime_ns
        assert stat(name, "/upper/copy/sparse").blocks * 512 < 100_000


# Removing, moving, making, linking


def test_rm(run, image, source):
    good(run, "cp", "-a", "src", "overlay.img:/upper")
    assert "cannot remove 'overlay.img:/upper/src': Is a directory" in refused(run, "rm", "overlay.img:/upper/src")
    assert "No such file or directory" in refused(run, "rm", "overlay.img:/upper/none")
    good(run, "rm", "-f", "overlay.img:/upper/none", "overlay.img:/upper/none/deeper")
    code, _, err = run("rm", "overlay.img:/upper/src/a", "overlay.img:/upper/none", "overlay.img:/upper/src/l")
    assert code == 1 and err.count("\n") == 1
    assert names(image, "/upper/src") == [b"d", b"sparse", b"twin"]
    assert "refusing to remove '.' or '..'" in refused(run, "rm", "-rf", "overlay.img:/upper/src/..")
    assert "root of the image" in refused(run, "rm", "-rf", "overlay.img:/")
    code, _, err = run("rm", "-rv", "overlay.img:/upper/src")
    assert code == 0 and "removed 'overlay.img:/upper/src/d/e/f'\nremoved directory 'overlay.img:/upper/src/d/e'\n" in err
    assert names(image) == []


def test_mkdir(run, image):
    good(run, "mkdir", "-p", "overlay.img:/upper/a/b/c")
    good(run, "mkdir", "-p", "overlay.img:/upper/a/b")
    good(run, "mkdir", "-m", "2775", "--owner", "7:8", "overlay.img:/upper/shared/")
    found = stat(image, "/upper/shared")
    assert (found.mode & 0o7777, found.uid, found.gid) == (0o2775, 7, 8)
    said = "cannot create directory 'overlay.img:/upper/a': File exists"
    assert said in refused(run, "mkdir", "overlay.img:/upper/a")
    assert "No such file or directory" in refused(run, "mkdir", "overlay.img:/upper/x/y")
    good(run, "ln", "-s", "a", "overlay.img:/upper/link")
    good(run, "mkdir", "-p", "overlay.img:/upper/link/new")
    assert names(image, "/upper/a") == [b"b", b"new"]


def test_mv(run, image):
    good(run, "mkdir", "-p", "overlay.img:/upper/a/b", "overlay.img:/upper/c", "overlay.img:/upper/full/x")
    good(run, "mv", "overlay.img:/upper/a", "overlay.img:/upper/c")
    assert names(image, "/upper/c/a") == [b"b"]
    assert "to a subdirectory of itself" in refused(run, "mv", "overlay.img:/upper/c", "overlay.img:/upper/c/a/new")
    good(run, "mkdir", "-p", "overlay.img:/upper/x/y")
    good(run, "mkdir", "overlay.img:/upper/full/x/z")
    said = refused(run, "mv", "overlay.img:/upper/x", "overlay.img:/upper/full")
    assert "cannot move 'overlay.img:/upper/x' to 'overlay.img:/upper/full/x': Directory not empty" in said
    good(run, "mv", "-T", "overlay.img:/upper/c", "overlay.img:/upper/d/")
    assert b"d" in names(image)
    assert "cannot stat" in refused(run, "mv", "overlay.img:/upper/none", "overlay.img:/upper/d")


def test_mv_replaces_an_empty_directory_and_no_full_one(run, image):
    good(run, "mkdir", "-p", "overlay.img:/upper/x/y", "overlay.img:/upper/empty", "overlay.img:/upper/full/z")
    assert "Directory not empty" in refused(run, "mv", "-T", "overlay.img:/upper/x", "overlay.img:/upper/full")
    good(run, "mv", "-T", "overlay.img:/upper/x", "overlay.img:/upper/empty")
    assert names(image, "/upper/empty") == [b"y"]


def test_ln(run, image, source):
    good(run, "cp", "src/a", "overlay.img:/upper/a")
    good(run, "ln", "-s", "../a", "overlay.img:/upper/s")
    good(run, "ln", "overlay.img:/upper/a", "overlay.img:/upper/h")
    assert stat(image, "/upper/a").links == 2 and stat(image, "/upper/s").size == 4
    said = "failed to create symbolic link 'overlay.img:/upper/s': File exists; -f replaces it\n"
    assert said in refused(run, "ln", "-s", "a", "overlay.img:/upper/s")
    good(run, "ln", "-sf", "a", "overlay.img:/upper/s")
    with Filesystem.open(image) as filesystem:
        assert filesystem.readlink("/upper/s") == b"a"
    assert "hard link not allowed for directory" in refused(run, "ln", "overlay.img:/upper", "overlay.img:/upper/x")
    assert "the text of a link is a path" in refused(run, "ln", "-s", "overlay.img:/upper/a", "overlay.img:/upper/x", code=2)
    refused(run, "ln", "-sf", "t" * 5000, "overlay.img:/upper/s")
    with Filesystem.open(image) as filesystem:
        assert filesystem.readlink("/upper/s") == b"a"


# Facts


@pytest.mark.parametrize(
    ("text", "mode", "is_dir", "want"),
    [
        ("755", 0o644, False, 0o755),
        ("u+x,g-r", 0o644, False, 0o704),
        ("a+X", 0o644, False, 0o644),
        ("a+X", 0o744, False, 0o755),
        ("+X", 0o644, True, 0o755),
        ("g=u", 0o640, False, 0o660),
        ("o=", 0o777, False, 0o770),
        ("u+s,g+s,+t", 0o755, False, 0o7755),
        ("755", 0o6755, True, 0o6755),
        ("00755", 0o6755, True, 0o755),
        ("755", 0o6755, False, 0o755),
        ("u=rwx,go=rx", 0o2700, True, 0o2755),
        ("+w", 0o444, False, 0o644),
        ("a+w", 0o444, False, 0o666),
        ("u=rw+x-w", 0o000, False, 0o500),
        ("-s", 0o6755, False, 0o755),
    ],
)
def test_modes(text, mode, is_dir, want):
    assert apply_mode(parse_mode(text), mode, is_dir=is_dir, mask=0o022) == want


@pytest.mark.parametrize("text", ["", "8", "17777", "u", "u+q", "rwx", "u+x,", "0o755", "-1", "u+rg"])
def test_what_is_no_mode(text):
    with pytest.raises(UsageError):
        parse_mode(text)


def test_chmod_and_chown(run, image, source):
    good(run, "cp", "-a", "src", "overlay.img:/upper")
    good(run, "chmod", "-R", "u=rwX,go=", "overlay.img:/upper/src")
    assert stat(image, "/upper/src/d/e/f").mode & 0o7777 == 0o600
    assert stat(image, "/upper/src/d").mode & 0o7777 == 0o700
    assert stat(image, "/upper/src/l").mode & 0o7777 == 0o777
    good(run, "chown", "-R", "1000:2000", "overlay.img:/upper/src")
    for path in ("/upper/src", "/upper/src/l", "/upper/src/d/e/f"):
        assert (stat(image, path).uid, stat(image, path).gid) == (1000, 2000)
    good(run, "chown", ":7", "overlay.img:/upper/src/l")
    assert (stat(image, "/upper/src/a").uid, stat(image, "/upper/src/a").gid) == (1000, 7)
    good(run, "chown", "8", "overlay.img:/upper/src/a")
    assert (stat(image, "/upper/src/a").uid, stat(image, "/upper/src/a").gid) == (8, 7)
    assert "cannot access" in refused(run, "chmod", "755", "overlay.img:/upper/none")
    assert "OWNER" in refused(run, "chown", "no-such-user-here", "overlay.img:/upper", code=2)
    refused(run, "chown", ":", "overlay.img:/upper", code=2)


def test_xattr_set_and_rm(run, image, source):
    good(run, "cp", "src/a", "overlay.img:/upper/a")
    good(run, "xattr", "set", "user.k", "0x00ff", "overlay.img:/upper/a")
    with Filesystem.open(image) as filesystem:
        assert filesystem.xattrs("/upper/a") == {b"user.k": b"\0\xff"}
    good(run, "xattr", "rm", "user.k", "overlay.img:/upper/a")
    refused(run, "xattr", "rm", "user.k", "overlay.img:/upper/a")
    refused(run, "xattr", "set", "user.k", "0xz", "overlay.img:/upper/a", code=2)
    with Filesystem.open(image) as filesystem:
        assert filesystem.xattrs("/upper/a") == {}


# The container's view


def test_removing_by_the_containers_view_leaves_whiteouts(run, image, source):
    good(run, "cp", "-a", "src", "overlay.img:/upper")
    good(run, "rm", "--upper", "overlay.img:/src/a")
    assert (stat(image, "/upper/src/a").mode, stat(image, "/upper/src/a").major) == (0o020000, 0)
    assert "No such file or directory" in refused(run, "rm", "--upper", "overlay.img:/src/a")
    assert "-f hides" in refused(run, "rm", "--upper", "overlay.img:/src/lower-only")
    good(run, "rm", "-f", "--upper", "overlay.img:/src/lower-only")
    assert stat(image, "/upper/src/lower-only").mode == 0o020000
    good(run, "rm", "-r", "--upper", "overlay.img:/src")
    assert names(image) == [b"src"] and stat(image, "/upper/src").mode == 0o020000
    good(run, "mkdir", "--upper", "overlay.img:/src")
    with Filesystem.open(image) as filesystem:
        assert filesystem.xattrs("/upper/src")[b"trusted.overlay.opaque"] == b"y"
    good(run, "cp", "--upper", "src/a", "overlay.img:/src/a")
    good(run, "rm", "--upper", "overlay.img:/src/a")
    assert names(image, "/upper/src") == []  # an opaque directory needs none
    assert "cannot hide" in refused(run, "rm", "-f", "--upper", "overlay.img:/etc/motd")


def test_moving_by_the_containers_view_hides_the_old_name(run, image, source):
    good(run, "cp", "-a", "--upper", "src/a", "src/d", "overlay.img:/")
    good(run, "mv", "--upper", "overlay.img:/a", "overlay.img:/b")
    good(run, "mv", "--upper", "overlay.img:/d", "overlay.img:/moved")
    assert names(image) == [b"a", b"b", b"d", b"moved"]
    assert stat(image, "/upper/a").mode == stat(image, "/upper/d").mode == 0o020000
    with Filesystem.open(image) as filesystem:
        assert filesystem.xattrs("/upper/moved")[b"trusted.overlay.opaque"] == b"y"
    good(run, "mv", "--upper", "overlay.img:/b", "overlay.img:/a")
    assert read(image, "/upper/a") == b"hello\n"


def test_links_in_the_containers_view_start_at_upper(run, image, source):
    good(run, "mkdir", "overlay.img:/upper/real")
    good(run, "ln", "-s", "/real", "overlay.img:/upper/link")
    good(run, "cp", "--upper", "src/a", "overlay.img:/link/../../../link/x")
    assert read(image, "/upper/real/x") == b"hello\n"


def test_without_upper_nothing_is_left_behind(run, image, source):
    good(run, "cp", "src/a", "overlay.img:/upper/a")
    good(run, "rm", "overlay.img:/upper/a")
    assert names(image) == []


# Arguments, JSON


def test_arguments_are_in_an_image(run, image, source):
    assert "is not IMAGE:/PATH" in refused(run, "rm", "src/a", code=2)
    (source.parent / "overlay.img:").mkdir()
    (source.parent / "overlay.img:" / "x").write_bytes(b"on the host")
    assert "is not IMAGE:/PATH" in refused(run, "rm", "overlay.img:/x", code=2)
    assert "is not IMAGE:/PATH" in refused(run, "rm", "./overlay.img:/x", code=2)
    assert "no.img: No such file" in refused(run, "rm", "no.img:/x")
    assert "neither src/a nor b is in an image" in refused(run, "cp", "src/a", "b", code=2)
    assert "not a SIF image" in refused(run, "rm", "--partition", "overlay", "overlay.img:/upper/a", code=2)


def test_json(run, image, source):
    code, out, _ = run("cp", "-r", "--json", "src", "overlay.img:/upper")
    report = json.loads(out)
    assert code == 0 and report["copied"] == 8 and report["errors"] == [] and report["image"] == "overlay.img"
    code, out, err = run("rm", "--json", "overlay.img:/upper/src/a", "overlay.img:/none")
    report = json.loads(out)
    assert (code, err, report["removed"]) == (1, "", 1)
    assert report["errors"] == [
        {
            "kind": "not-found",
            "message": "cannot remove 'overlay.img:/none': No such file or directory",
            "hint": "",
            "path": "overlay.img:/none",
        }
    ]


# Who else is there; how it ends


def test_an_image_in_use_is_refused(run, image):
    fd = os.open(image, os.O_RDWR)
    try:
        fcntl.fcntl(fd, 37, struct.pack("@hhqqi0q", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
        assert f"process {os.getpid()}" in refused(run, "mkdir", "overlay.img:/upper/x")
    finally:
        os.close(fd)
    good(run, "mkdir", "overlay.img:/upper/x")


def test_the_image_is_locked_while_it_is_changed(image):
    with edit_image(image), pytest.raises(ImageInUseError), edit_image(image):
        pass


def test_a_file_that_cannot_be_written_is_one_line(run, image, monkeypatch):
    opened = os.open

    def read_only(path, flags, *more, **named):
        if path == "overlay.img" and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(edit.os, "open", read_only)
    assert "overlay.img: Permission denied" in refused(run, "mkdir", "overlay.img:/upper/x")


def test_an_interrupted_edit_leaves_the_last_sync_and_a_clean_image(image):
    with pytest.raises(KeyboardInterrupt), edit_image(image) as edited:
        edited.filesystem.mkdir("/upper/kept")
        edited.sync()
        edited.filesystem.mkdir("/upper/lost")
        raise KeyboardInterrupt
    assert names(image) == [b"kept"]
    with Filesystem.open(image) as filesystem:
        assert not filesystem.needs_recovery and filesystem.superblock.state == 1


def test_an_image_without_a_journal_is_changed_as_a_copy(run, image):
    good(run, "overlay", "create", "--size", SIZE, "--no-journal", "plain.img", "-q")
    os.chmod("plain.img", 0o640)
    before = os.stat("plain.img").st_ino
    with pytest.raises(RuntimeError), edit_image("plain.img") as edited:
        assert edited.copied
        edited.filesystem.mkdir("/upper/lost")
        edited.sync()
        raise RuntimeError
    assert names("plain.img") == [] and os.stat("plain.img").st_ino == before
    good(run, "mkdir", "plain.img:/upper/kept")
    assert names("plain.img") == [b"kept"] and os.stat("plain.img").st_mode & 0o777 == 0o640
    assert sorted(name for name in os.listdir() if "plain" in name) == ["plain.img"]


def test_ctrl_c_during_a_long_copy(run, tmp_path, monkeypatch):
    """One line, and what was synced before: whole files."""
    monkeypatch.chdir(tmp_path)
    assert run("overlay", "create", "--size", "16M", "-N", "4000", "-J", "size=1M", "overlay.img", "-q")[0] == 0
    (tmp_path / "many").mkdir()
    for number in range(3000):
        (tmp_path / "many" / f"{number}").write_bytes(b"x")
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from sifkit.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, "cp", "-rv", "many", "overlay.img:/upper"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert child.stderr is not None
    for _ in range(1800):
        child.stderr.readline()
    child.send_signal(signal.SIGINT)
    rest = child.communicate(timeout=120)[1].splitlines()
    assert child.returncode == 130
    assert rest[-1] == b"sifkit cp: interrupted" and all(line.startswith(b"'") for line in rest[:-1])
    with Filesystem.open(tmp_path / "overlay.img") as filesystem:
        assert not filesystem.needs_recovery and filesystem.superblock.state == 1
        check_counts(filesystem)
        left = [filesystem.read_bytes(entry.ino) for _, entry in filesystem.walk("/upper") if entry.file_type == 1]
        assert set(left) == {b"x"} and len(left) < 3000


def test_options_are_for_sif_images(image):
    with pytest.raises(UsageError), edit_image(image, EditOptions(partition="overlay")):
        pass


def test_examples_of_other_kinds_are_refused(run, image, tmp_path):
    (tmp_path / "x.sqfs").write_bytes(b"hsqs" + bytes(4096))
    assert "squashfs" in refused(run, "rm", "x.sqfs:/a")
    (tmp_path / "junk").write_bytes(Path(image).read_bytes()[:1000])
    refused(run, "rm", "junk:/a")


def test_mkdir_says_what_makes_the_directories_above(run, image):
    code, _, err = run("mkdir", "overlay.img:/upper/a/b")
    assert code == 1 and err.endswith("No such file or directory; -p creates parent directories\n")


def test_xattr_set_says_what_is_wrong_with_an_acl(run, image):
    code, _, err = run("xattr", "set", "system.posix_acl_access", "0x02", "overlay.img:/upper")
    assert code == 1 and "the attribute system.posix_acl_access cannot be that: not an ACL of version 2" in err


def test_xattr_set_takes_an_empty_value(run, image):
    assert run("xattr", "set", "user.mark", "", "overlay.img:/upper") == (0, "", "")
    assert run("xattr", "list", "overlay.img", "/upper")[1].endswith('user.mark=""\n')
    assert "NAME is empty" in run("xattr", "set", "", "x", "overlay.img:/upper")[2]


def test_chmod_takes_permissions_away_as_chmod_does(run, image, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x")
    assert run("cp", "file", "overlay.img:/upper/file")[0] == 0
    old = os.umask(0o022)
    try:
        for words, mode in (
            (["777"], 0o777),
            (["-x"], 0o666),
            (["-rw,u+x"], 0o122),  # what the umask forbids is not taken away
            (["-R", "u=rwx,go="], 0o700),
            (["--", "-w"], 0o500),
            (["-x", "-R"], 0o400),
        ):
            assert run("chmod", *words, "overlay.img:/upper/file") == (0, "", "")
            with Filesystem.open("overlay.img") as filesystem:
                assert filesystem.stat("/upper/file").mode & 0o7777 == mode
    finally:
        os.umask(old)
    assert "no such option -z" in run("chmod", "-z", "overlay.img:/upper/file")[2]


def test_chown_names_the_owner_as_it_was_written(run, image):
    for owner in ("7:4294967295", ":nosuch"):
        code, _, err = run("chown", owner, "overlay.img:/upper")
        assert code == 2 and err.startswith(f"sifkit chown: OWNER {owner}: ")


def test_an_image_behind_a_dot_is_told_how_to_write_it(run, image, tmp_path):
    for words in (["ls"], ["rm"], ["cp", "overlay.img"], ["find"]):
        code, out, err = run(*words, "./overlay.img:/upper")
        assert (code, out) == (2, "") and err.endswith("is a host path; write overlay.img:/upper\n")
    (tmp_path / "overlay.img:").mkdir()
    assert run("cp", "-r", "overlay.img:/upper", "./overlay.img:/new") == (0, "", "")
    assert (tmp_path / "overlay.img:" / "new").is_dir()


def test_hints_to_make_a_directory_repeat_the_options(run, image):
    err = run("rm", "-f", "--upper", "overlay.img:/etc/hosts")[2]
    assert err.endswith("create it first: sifkit mkdir -p --upper overlay.img:/etc\n")
