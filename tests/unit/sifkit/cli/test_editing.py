"""Commands that change an image: what they leave behind, what they refuse, and the container's view of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ext3 import Filesystem

from ....support.commands import good, names_in, read_in, refused, stat_in

# Removing, moving, making, linking


def test_rm(run, image, source):
    good(run, "cp", "-a", "src", "overlay.img:/upper")
    assert "cannot remove 'overlay.img:/upper/src': Is a directory" in refused(run, "rm", "overlay.img:/upper/src")
    assert "No such file or directory" in refused(run, "rm", "overlay.img:/upper/none")
    good(run, "rm", "-f", "overlay.img:/upper/none", "overlay.img:/upper/none/deeper")
    code, _, err = run("rm", "overlay.img:/upper/src/a", "overlay.img:/upper/none", "overlay.img:/upper/src/l")
    assert code == 1 and err.count("\n") == 1
    assert names_in(image, "/upper/src") == [b"d", b"sparse", b"twin"]
    assert "refusing to remove '.' or '..'" in refused(run, "rm", "-rf", "overlay.img:/upper/src/..")
    assert "root of the image" in refused(run, "rm", "-rf", "overlay.img:/")
    code, _, err = run("rm", "-rv", "overlay.img:/upper/src")
    assert code == 0 and "removed 'overlay.img:/upper/src/d/e/f'\nremoved directory 'overlay.img:/upper/src/d/e'\n" in err
    assert names_in(image) == []


def test_mkdir(run, image):
    good(run, "mkdir", "-p", "overlay.img:/upper/a/b/c")
    good(run, "mkdir", "-p", "overlay.img:/upper/a/b")
    good(run, "mkdir", "-m", "2775", "--owner", "7:8", "overlay.img:/upper/shared/")
    found = stat_in(image, "/upper/shared")
    assert (found.mode & 0o7777, found.uid, found.gid) == (0o2775, 7, 8)
    said = "cannot create directory 'overlay.img:/upper/a': File exists"
    assert said in refused(run, "mkdir", "overlay.img:/upper/a")
    assert "No such file or directory" in refused(run, "mkdir", "overlay.img:/upper/x/y")
    good(run, "ln", "-s", "a", "overlay.img:/upper/link")
    good(run, "mkdir", "-p", "overlay.img:/upper/link/new")
    assert names_in(image, "/upper/a") == [b"b", b"new"]


def test_mv(run, image):
    good(run, "mkdir", "-p", "overlay.img:/upper/a/b", "overlay.img:/upper/c", "overlay.img:/upper/full/x")
    good(run, "mv", "overlay.img:/upper/a", "overlay.img:/upper/c")
    assert names_in(image, "/upper/c/a") == [b"b"]
    assert "to a subdirectory of itself" in refused(run, "mv", "overlay.img:/upper/c", "overlay.img:/upper/c/a/new")
    good(run, "mkdir", "-p", "overlay.img:/upper/x/y")
    good(run, "mkdir", "overlay.img:/upper/full/x/z")
    said = refused(run, "mv", "overlay.img:/upper/x", "overlay.img:/upper/full")
    assert "cannot move 'overlay.img:/upper/x' to 'overlay.img:/upper/full/x': Directory not empty" in said
    good(run, "mv", "-T", "overlay.img:/upper/c", "overlay.img:/upper/d/")
    assert b"d" in names_in(image)
    assert "cannot stat" in refused(run, "mv", "overlay.img:/upper/none", "overlay.img:/upper/d")


def test_mv_replaces_an_empty_directory_and_no_full_one(run, image):
    good(run, "mkdir", "-p", "overlay.img:/upper/x/y", "overlay.img:/upper/empty", "overlay.img:/upper/full/z")
    assert "Directory not empty" in refused(run, "mv", "-T", "overlay.img:/upper/x", "overlay.img:/upper/full")
    good(run, "mv", "-T", "overlay.img:/upper/x", "overlay.img:/upper/empty")
    assert names_in(image, "/upper/empty") == [b"y"]


def test_ln(run, image, source):
    good(run, "cp", "src/a", "overlay.img:/upper/a")
    good(run, "ln", "-s", "../a", "overlay.img:/upper/s")
    good(run, "ln", "overlay.img:/upper/a", "overlay.img:/upper/h")
    assert stat_in(image, "/upper/a").links == 2 and stat_in(image, "/upper/s").size == 4
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


def test_chmod_and_chown(run, image, source):
    good(run, "cp", "-a", "src", "overlay.img:/upper")
    good(run, "chmod", "-R", "u=rwX,go=", "overlay.img:/upper/src")
    assert stat_in(image, "/upper/src/d/e/f").mode & 0o7777 == 0o600
    assert stat_in(image, "/upper/src/d").mode & 0o7777 == 0o700
    assert stat_in(image, "/upper/src/l").mode & 0o7777 == 0o777
    good(run, "chown", "-R", "1000:2000", "overlay.img:/upper/src")
    for path in ("/upper/src", "/upper/src/l", "/upper/src/d/e/f"):
        assert (stat_in(image, path).uid, stat_in(image, path).gid) == (1000, 2000)
    good(run, "chown", ":7", "overlay.img:/upper/src/l")
    assert (stat_in(image, "/upper/src/a").uid, stat_in(image, "/upper/src/a").gid) == (1000, 7)
    good(run, "chown", "8", "overlay.img:/upper/src/a")
    assert (stat_in(image, "/upper/src/a").uid, stat_in(image, "/upper/src/a").gid) == (8, 7)
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
    assert (stat_in(image, "/upper/src/a").mode, stat_in(image, "/upper/src/a").major) == (0o020000, 0)
    assert "No such file or directory" in refused(run, "rm", "--upper", "overlay.img:/src/a")
    assert "-f hides" in refused(run, "rm", "--upper", "overlay.img:/src/lower-only")
    good(run, "rm", "-f", "--upper", "overlay.img:/src/lower-only")
    assert stat_in(image, "/upper/src/lower-only").mode == 0o020000
    good(run, "rm", "-r", "--upper", "overlay.img:/src")
    assert names_in(image) == [b"src"] and stat_in(image, "/upper/src").mode == 0o020000
    good(run, "mkdir", "--upper", "overlay.img:/src")
    with Filesystem.open(image) as filesystem:
        assert filesystem.xattrs("/upper/src")[b"trusted.overlay.opaque"] == b"y"
    good(run, "cp", "--upper", "src/a", "overlay.img:/src/a")
    good(run, "rm", "--upper", "overlay.img:/src/a")
    assert names_in(image, "/upper/src") == []  # an opaque directory needs none
    assert "cannot hide" in refused(run, "rm", "-f", "--upper", "overlay.img:/etc/motd")


def test_moving_by_the_containers_view_hides_the_old_name(run, image, source):
    good(run, "cp", "-a", "--upper", "src/a", "src/d", "overlay.img:/")
    good(run, "mv", "--upper", "overlay.img:/a", "overlay.img:/b")
    good(run, "mv", "--upper", "overlay.img:/d", "overlay.img:/moved")
    assert names_in(image) == [b"a", b"b", b"d", b"moved"]
    assert stat_in(image, "/upper/a").mode == stat_in(image, "/upper/d").mode == 0o020000
    with Filesystem.open(image) as filesystem:
        assert filesystem.xattrs("/upper/moved")[b"trusted.overlay.opaque"] == b"y"
    good(run, "mv", "--upper", "overlay.img:/b", "overlay.img:/a")
    assert read_in(image, "/upper/a") == b"hello\n"


def test_links_in_the_containers_view_start_at_upper(run, image, source):
    good(run, "mkdir", "overlay.img:/upper/real")
    good(run, "ln", "-s", "/real", "overlay.img:/upper/link")
    good(run, "cp", "--upper", "src/a", "overlay.img:/link/../../../link/x")
    assert read_in(image, "/upper/real/x") == b"hello\n"


def test_without_upper_nothing_is_left_behind(run, image, source):
    good(run, "cp", "src/a", "overlay.img:/upper/a")
    good(run, "rm", "overlay.img:/upper/a")
    assert names_in(image) == []


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


def test_h_is_no_dereference_in_chown_and_chmod(run, image, source):
    """As in coreutils: chown changes the link; chmod, since 9.6, leaves it alone, as Linux has no modes of links. No help."""
    good(run, "cp", "-a", "src", "overlay.img:/upper", "--owner", "0:0", "-q")
    good(run, "ln", "-s", "nowhere", "overlay.img:/upper/src/dangling", "-q")
    before = stat_in(image, "/upper/src/a").mode
    for name in ("l", "dangling"):
        good(run, "chown", "-h", "5:6", f"overlay.img:/upper/src/{name}", "-q")
        assert (stat_in(image, f"/upper/src/{name}").uid, stat_in(image, f"/upper/src/{name}").gid) == (5, 6)
        good(run, "chmod", "-h", "700", f"overlay.img:/upper/src/{name}", "-q")
        assert stat_in(image, f"/upper/src/{name}").mode & 0o777 == 0o777
    assert stat_in(image, "/upper/src/a").uid == 0 and stat_in(image, "/upper/src/a").mode == before
    good(run, "chmod", "-h", "701", "overlay.img:/upper/src/a", "-q")
    assert stat_in(image, "/upper/src/a").mode & 0o777 == 0o701
    for verb in ("chmod", "chown"):
        assert "is missing; see" in refused(run, verb, "-h", code=2)
        assert run(verb, "--help")[1].startswith(f"Usage: sifkit {verb}")


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
