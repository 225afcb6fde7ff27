"""What we take out of an image is what debugfs and the kernel take out of it."""

from __future__ import annotations

import os
import stat

import pytest

from ext3.read.filesystem import Filesystem
from sifkit.cli import main
from sifkit.vfs.extracting import extract

from ..support.facts import assert_same, facts_of_host
from ..support.tools import assert_clean, kernel_mount, require, requires_root, run


@requires_root
def test_an_image_that_the_kernel_filled_comes_out_as_the_kernel_shows_it(tmp_path):
    require("mke2fs")
    image = tmp_path / "a.img"
    run("mke2fs", "-q", "-t", "ext3", "-b", "1024", image, "32M")
    with kernel_mount(image, rw=True) as point:
        for number in range(700):  # more than a block of names: an index
            (point / f"file-with-a-long-name-{number:04}").write_bytes(b"%d" % number * (number % 97))
        for number in range(0, 700, 3):
            (point / f"file-with-a-long-name-{number:04}").unlink()
        deep = point / "a" / "b"
        deep.mkdir(parents=True)
        with open(deep / "sparse", "wb") as file:
            file.seek(5 << 20)
            file.write(b"end")
        (deep / "big").write_bytes(os.urandom(3 << 20))
        os.setxattr(deep / "big", "user.note", b"n" * 300)
        os.setxattr(deep / "big", "trusted.t", b"\0\1")
        os.link(deep / "big", point / "again")
        (deep / "link").symlink_to("x" * 90)
        os.mkfifo(deep / "fifo")
        os.mknod(deep / "device", stat.S_IFCHR | 0o620, os.makedev(7, 300))
        os.chown(deep / "big", 70_000, 80_000)
        os.chmod(deep / "big", 0o4755)
        os.setxattr(deep, "system.posix_acl_default", bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000000ffffffff"))
    with Filesystem.open(image) as fs:
        made = extract(fs, tmp_path / "ours")
    assert (made.failed, made.owners_left, made.xattrs_left, made.specials_left) == (0, 0, 0, 0)
    with kernel_mount(image) as point:
        wanted = facts_of_host(point)
    assert_same(facts_of_host(tmp_path / "ours"), wanted)
    sparse = os.stat(tmp_path / "ours" / "a" / "b" / "sparse")
    assert sparse.st_blocks * 512 < 1 << 20
    assert os.path.samefile(tmp_path / "ours" / "again", tmp_path / "ours" / "a" / "b" / "big")


def test_debugfs_takes_out_the_same(tmp_path):
    require("mke2fs", "debugfs")
    source = tmp_path / "source"
    for number in range(40):
        (source / f"d{number}").mkdir(parents=True)
        for size in (0, 1, 4096, 13_000, 300_000):
            (source / f"d{number}" / f"f{size}").write_bytes(os.urandom(size))
    image = tmp_path / "a.img"
    run("mke2fs", "-q", "-t", "ext3", "-d", source, image, "64M")
    (tmp_path / "theirs").mkdir()
    run("debugfs", "-R", f"rdump / {tmp_path / 'theirs'}", image)
    with Filesystem.open(image) as fs:
        assert extract(fs, tmp_path / "ours").failed == 0

    def contents(top):
        return {path: fact.content for path, fact in facts_of_host(top).items()}

    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


@requires_root
def test_changes_that_are_only_in_the_journal_come_out(tmp_path):
    """A copy of an image that is mounted, taken right after fsync: what it says of directories and inodes is in its journal."""
    require("mke2fs", "debugfs")
    image, copy = tmp_path / "a.img", tmp_path / "copy.img"
    run("mke2fs", "-q", "-t", "ext3", image, "64M")
    with kernel_mount(image, rw=True) as point:
        (point / "old").mkdir()
        for number in range(300):
            (point / "old" / f"f{number}").write_bytes(b"before %d" % number)
    with kernel_mount(image, rw=True) as point:
        (point / "old").rename(point / "moved")
        for number in range(0, 300, 2):
            (point / "moved" / f"f{number}").unlink()
        (point / "new").mkdir()
        (point / "new" / "large").write_bytes(os.urandom(2 << 20))
        os.setxattr(point / "new" / "large", "user.note", b"note")
        (point / "new" / "link").symlink_to("y" * 100)
        (point / "moved" / "f1").write_bytes(b"after")
        for path in (point / "new" / "large", point / "moved" / "f1", point / "new", point / "moved", point):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        copy.write_bytes(image.read_bytes())
    before = copy.read_bytes()
    assert b"File not found" in run("debugfs", "-R", "stat /new/large", copy, ok=(0, 1)).stderr  # which does not look into it
    with Filesystem.open(copy) as fs:
        assert fs.needs_recovery and fs.journal_problem is None
        assert extract(fs, tmp_path / "ours").failed == 0
    assert copy.read_bytes() == before
    with kernel_mount(copy, rw=True) as point:  # plays it back
        wanted = facts_of_host(point)
    assert_same(facts_of_host(tmp_path / "ours"), wanted)
    assert b"/new/large" in wanted and b"/moved/f0" not in wanted and b"/moved/f299" in wanted


@requires_root
def test_a_user_gets_files_of_their_own_without_privileges(tmp_path):
    require("mke2fs")
    source = tmp_path / "source"
    source.mkdir()
    (source / "program").write_bytes(b"x")
    os.chmod(source / "program", 0o4755)
    image = tmp_path / "a.img"
    run("mke2fs", "-q", "-t", "ext3", "-d", source, image, "16M")
    os.chmod(image, 0o644)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            out = tmp_path / "out"
            out.mkdir()
            os.chown(out, 65534, 65534)
            descriptor = os.open(image, os.O_RDONLY)
            os.chdir(out)  # its parents are not for everybody
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with open(descriptor, "rb") as file, Filesystem.open(file) as fs:
                made = extract(fs, ".", force=True)
                facts = os.stat("program")
                code = 0 if facts.st_uid == 65534 and not facts.st_mode & 0o6000 and made.owners_left else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def acl_image(tmp_path):
    """Files and directories whose ACL and mode differ, as fuse2fs leaves them; e2fsck calls them clean."""
    require("mke2fs", "debugfs", "setfacl", "e2fsck")
    image = tmp_path / "a.img"
    run("mke2fs", "-q", "-F", "-t", "ext3", image, "8M")
    with kernel_mount(image, rw=True) as point:
        upper = point / "upper"
        (upper / "d").mkdir(parents=True)
        for name in ("f", "d/plain", "d/special"):
            (upper / name).write_text(name)
        os.mkfifo(upper / "fifo")
        for name in ("f", "d/special", "fifo"):
            run("setfacl", "-m", "u:1001:rw,o::-", upper / name)
        run("setfacl", "-m", "u:1001:rx,g::-,o::-,d:u:1001:rwx,d:o::-", upper / "d")
        os.setxattr(upper / "d/special", "user.note", b"n" * 300)
        os.chown(upper / "d/special", 70_000, 80_000)
        for name in ("f", "d/plain", "d/special", "d", ""):
            os.utime(upper / name, (5, 7))
    for name, mode in (("f", "0100644"), ("d/special", "0104755"), ("fifo", "010666"), ("d", "042777")):
        run("debugfs", "-w", "-R", f"sif /upper/{name} mode {mode}", image)
    assert_clean(image)
    return image


@requires_root
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_acls_that_differ_from_the_mode_come_out_as_cp_copies_them(tmp_path, monkeypatch, umask):
    """``cp -a`` and ``cp -p`` of coreutils from a kernel mount: the ACL is set last, and says what others may do."""
    image = acl_image(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = os.umask(umask)
    try:
        with kernel_mount(image) as point:
            run("cp", "-a", point / "upper", tmp_path / "theirs")
            run("cp", "-p", point / "upper/f", tmp_path / "theirs-p")
        assert main(["-q", "extract", "--upper", "a.img", "-C", "extracted"]) == 0
        assert main(["-q", "cp", "-a", "a.img:/upper", "copied"]) == 0
        assert main(["-q", "overlay", "export", "a.img", "-o", "exported/"]) == 0
        assert main(["-q", "cp", "-a", "a.img:/upper/f", "f"]) == 0
        assert main(["-q", "cp", "-p", "a.img:/upper/f", "f-p"]) == 0
        inherited = tmp_path / "inherited"
        inherited.mkdir()
        run("setfacl", "-m", "d:u:5:rwx", inherited)
        assert main(["-q", "extract", "--upper", "a.img", "-C", "inherited"]) == 0
    finally:
        os.umask(before)
    wanted = facts_of_host(tmp_path / "theirs")
    assert stat.S_IMODE(wanted[b"/f"].mode) == 0o660
    for name in ("extracted", "copied", "exported", "inherited"):
        assert_same(facts_of_host(tmp_path / name), wanted)
        for path in ("", "f", "d"):
            assert os.stat(tmp_path / name / path).st_mtime_ns == os.stat(tmp_path / "theirs" / path).st_mtime_ns
    for ours, theirs in (("f", "theirs/f"), ("f-p", "theirs-p")):
        assert acl_of(tmp_path / ours) == acl_of(tmp_path / theirs)


def acl_of(path):
    return os.stat(path).st_mode, os.getxattr(path, "system.posix_acl_access")


@requires_root
def test_files_whose_attribute_block_is_damaged_come_out_as_cp_copies_them(tmp_path, monkeypatch, capfd):
    """``cp -a`` of coreutils from a kernel mount saves the data for its owner, reports the file and exits 1."""
    require("mke2fs", "debugfs")
    image = tmp_path / "a.img"
    run("mke2fs", "-q", "-F", "-t", "ext3", "-b", "1024", image, "8M")
    with kernel_mount(image, rw=True) as point:
        (point / "upper" / "d").mkdir(parents=True)
        for number, name in enumerate(("file", "d/file", "d", "good")):
            if name != "d":
                (point / "upper" / name).write_bytes(name.encode() * 1000)
            os.setxattr(point / "upper" / name, "user.x", b"%d" % number * 300)
            os.chmod(point / "upper" / name, 0o775)
    with Filesystem.open(image) as fs:
        blocks = [fs.inode(fs.lookup(f"/upper/{name}")).stat.file_acl for name in ("file", "d/file", "d")]
    with image.open("r+b") as file:
        for block in blocks:
            os.pwrite(file.fileno(), b"\xde\xad\xbe\xef", block * 1024)
    theirs = tmp_path / "theirs"
    with kernel_mount(image) as point:
        run("cp", "-a", point / "upper", theirs, ok=(1,))
    monkeypatch.chdir(tmp_path)
    wanted = facts_of_host(theirs)
    assert stat.S_IMODE(wanted[b"/file"].mode) == stat.S_IMODE(wanted[b"/d"].mode) == 0o700
    for words in (
        ["extract", "--upper", "a.img", "-C", "ours"],
        ["cp", "-a", "a.img:/upper", "ours"],
        ["overlay", "export", "a.img", "-o", "ours/"],
    ):
        assert main(["-q", *words]) == 1
        assert capfd.readouterr().err.count("its extended attributes cannot be read: inode") == 3
        found = facts_of_host(tmp_path / "ours")
        assert_same(found, wanted)
        run("rm", "-r", "ours", cwd=tmp_path)
    assert main(["-q", "cp", "-a", "a.img:/upper/file", "ours"]) == 1
    assert os.stat("ours").st_mode == wanted[b"/file"].mode and (tmp_path / "ours").read_bytes() == b"file" * 1000
