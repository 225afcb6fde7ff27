"""Copies into images, out of them and between them: everything is copied, and what is refused leaves no trace."""

from __future__ import annotations

import errno
import os

import pytest

from ext3 import Filesystem

from ....support.commands import good, names_in, read_in, refused, stat_in

# Copying in


def test_a_tree_goes_in_with_all_it_has(run, image, source):
    os.utime(source / "a", ns=(1_600_000_000_123_456_789, 1_600_000_001_987_654_321))
    good(run, "cp", "-a", "src", "overlay.img:/upper")
    assert names_in(image, "/upper/src") == [b"a", b"d", b"l", b"sparse", b"twin"]
    assert read_in(image, "/upper/src/a") == b"hello\n"
    assert read_in(image, "/upper/src/d/e/f") == b"x" * 5000
    assert stat_in(image, "/upper/src/d/e/f").mode & 0o7777 == 0o640
    assert stat_in(image, "/upper/src/a").mtime == 1_600_000_001_987_654_321
    assert stat_in(image, "/upper/src/a").ino == stat_in(image, "/upper/src/twin").ino
    assert stat_in(image, "/upper/src/l").is_symlink
    sparse = stat_in(image, "/upper/src/sparse")
    assert sparse.size == (1 << 20) + 3 and sparse.blocks * 512 < 100_000


def test_a_copy_without_r_follows_links_and_leaves_directories_out(run, image, source):
    code, _, err = run("cp", "src/l", "src/d", "overlay.img:/upper")
    assert code == 1 and err == "sifkit cp: -r not specified; omitting directory 'src/d'; give -r\n"
    assert names_in(image) == [b"l"] and read_in(image, "/upper/l") == b"hello\n"


def test_new_files_follow_the_umask_and_belong_to_the_caller(run, image, source):
    (source / "a").chmod(0o4777)
    before = os.umask(0o027)
    try:
        good(run, "cp", "src/a", "overlay.img:/upper/a")
        good(run, "cp", "--owner", "1234:4321", "src/a", "overlay.img:/upper/b")
    finally:
        os.umask(before)
    assert stat_in(image, "/upper/a").mode & 0o7777 == 0o750
    assert (stat_in(image, "/upper/a").uid, stat_in(image, "/upper/a").gid) == (os.getuid(), os.getgid())
    assert (stat_in(image, "/upper/b").uid, stat_in(image, "/upper/b").gid) == (1234, 4321)


def test_a_file_that_is_there_stays_the_same_file(run, image, source):
    good(run, "cp", "src/a", "overlay.img:/upper/a")
    good(run, "ln", "overlay.img:/upper/a", "overlay.img:/upper/b")
    before = stat_in(image, "/upper/a").ino
    good(run, "cp", "src/d/e/f", "overlay.img:/upper/a")
    assert stat_in(image, "/upper/a").ino == before and read_in(image, "/upper/b") == b"x" * 5000
    good(run, "cp", "-n", "src/a", "overlay.img:/upper/a")
    assert read_in(image, "/upper/a") == b"x" * 5000


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
    before = names_in(image)
    assert said in refused(run, "cp", *words)
    assert names_in(image) == before and names_in(image, "/upper/dir") == []


def test_a_file_is_not_copied_onto_itself_through_a_link(run, image, source):
    good(run, "cp", "src/a", "overlay.img:/upper/a")
    good(run, "ln", "overlay.img:/upper/a", "overlay.img:/upper/h")
    good(run, "ln", "-s", "a", "overlay.img:/upper/l")
    assert "are the same file" in refused(run, "cp", "overlay.img:/upper/h", "overlay.img:/upper/l")
    assert "are the same file" in refused(run, "cp", "-a", "overlay.img:/upper/h", "overlay.img:/upper/l")
    assert read_in(image, "/upper/a") == b"hello\n"
    assert "Too many levels" not in run("ln", "-sf", "l", "overlay.img:/upper/l")[2]
    good(run, "ln", "-sf", "a", "overlay.img:/upper/l")


def test_no_space_ends_the_copy_and_keeps_what_was_copied(run, image, tmp_path):
    (tmp_path / "big").write_bytes(os.urandom(12 << 20))
    (tmp_path / "small").write_bytes(b"s")
    code, _, err = run("cp", "small", "big", "overlay.img:/upper")
    assert code == 1 and err.count("\n") == 1 and "big" not in names_in(image)
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


def test_a_file_too_large_for_the_host_costs_no_content(run, image, source):
    """The kernel judges: RLIMIT_FSIZE gives EFBIG, as filesystems with small files do. It is no refusal to overwrite."""
    resource = pytest.importorskip("resource")
    with open(source / "large", "wb") as file:
        file.truncate(2_000_000)
    good(run, "cp", "src/large", "overlay.img:/upper")
    (source / "large").write_bytes(b"old" * 100)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        code, _, err = run("cp", "overlay.img:/upper/large", "src/large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1 and "its filesystem does not allow files of 1.9 MiB" in err and "will not overwrite" not in err
    assert (source / "large").read_bytes() == b"old" * 100


@pytest.mark.parametrize("call", ["mkfifo", "link"])
def test_what_the_host_does_not_create_costs_no_existing_file(run, image, source, monkeypatch, call):
    """Devices need root, links a filesystem that has them; the existing file stays until there is one to take its name."""
    if call == "mkfifo":
        os.mkfifo(source / "name")
    else:
        os.link(source / "a", source / "name")
    good(run, "cp", "-a", "src/a", "src/name", "overlay.img:/upper")
    os.unlink(source / "name")
    (source / "name").write_bytes(b"old")
    name = "mknod" if call == "mkfifo" else "link"
    real = getattr(os, name)

    def refuse(*arguments, **rest):
        new = os.fsencode(arguments[0] if name == "mknod" else arguments[1])
        if os.path.basename(new) == b"name" and (source / "name").exists():
            return real(*arguments, **rest)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, name, refuse)
    code, _, err = run("cp", "-a", "overlay.img:/upper/a", "overlay.img:/upper/name", "src")
    assert code == 1 and "Operation not permitted" in err
    assert (source / "name").read_bytes() == b"old"
    monkeypatch.setattr(os, name, real)
    before = sorted(os.listdir(source))
    good(run, "cp", "-a", "overlay.img:/upper/a", "overlay.img:/upper/name", "src")
    assert not (source / "name").is_file() or (source / "name").samefile(source / "a")
    assert sorted(os.listdir(source)) == before


def test_a_tree_goes_from_one_image_to_another_and_within_one(run, image, source):
    good(run, "overlay", "create", "--size", "8M", "other.img", "-q")
    good(run, "cp", "-a", "src", "overlay.img:/upper")
    good(run, "cp", "-a", "overlay.img:/upper/src", "other.img:/upper/copy")
    good(run, "cp", "-a", "overlay.img:/upper/src", "overlay.img:/upper/copy")
    for name in ("other.img", "overlay.img"):
        assert read_in(name, "/upper/copy/d/e/f") == b"x" * 5000
        assert stat_in(name, "/upper/copy/a").ino == stat_in(name, "/upper/copy/twin").ino
        assert stat_in(name, "/upper/copy/a").mtime == (source / "a").stat().st_mtime_ns
        assert stat_in(name, "/upper/copy/sparse").blocks * 512 < 100_000
