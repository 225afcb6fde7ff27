"""Attributes of files created on the host: in cp's order, and never of another file that took the name meanwhile."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from ext3.format.acl import parse_text
from sifkit.vfs.copy_out import CopyOutOptions, copy_file_out
from sifkit.vfs.extracting import extract
from sifkit.vfs.host_attributes import ACCESS_ACL, DEFAULT_ACL

from ....support.memory_tree import MemoryNode, MemoryTree

pytestmark = pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="this system has no O_PATH")

EVERYTHING = CopyOutOptions(preserve=frozenset({"mode", "owner", "times", "xattrs"}))
ACL = parse_text("user::rw-,user:1001:rw-,group::r--,mask::rw-,other::---")
DIRECTORY_ACL = parse_text("user::rwx,user:1001:r-x,group::---,mask::r-x,other::---")


def has_acls(directory):
    try:
        os.setxattr(directory, ACCESS_ACL, ACL)
        os.removexattr(directory, ACCESS_ACL)
    except OSError:
        return False
    return True


@pytest.fixture
def acls(tmp_path):
    if not has_acls(tmp_path):
        pytest.skip("the host's filesystem has no ACLs")


def node(mode, **facts):
    return MemoryNode(mode, uid=os.getuid(), gid=os.getgid(), **facts)


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def copy(way, tree, target):
    """Copy all of a tree, or its only file, to a directory."""
    if way == "extract":
        return extract(tree, target)
    os.mkdir(target)
    ((name, number),) = tree.nodes[0].entries.items()
    return copy_file_out(tree, number, os.fsencode(target) + b"/" + name, EVERYTHING)


# -- names that others replace -------------------------------------------------------------------------------------------


KINDS = {"fifo": ("mknod", node(0o010666)), "symlink": ("symlink", MemoryNode(0o120777, b"to", uid=7, gid=7, mtime=5))}


@pytest.mark.parametrize("way", ["extract", "copy"])
@pytest.mark.parametrize("swap", ["symlink", "hard link", "file", "directory"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_replaced_meanwhile_is_not_followed(tmp_path, monkeypatch, way, swap, kind):
    """The race that a delayed mknodat shows: what a name leads to after its creation may be anything."""
    call, found = KINDS[kind]
    victim = tmp_path / "victim"
    if kind == "fifo" and swap == "hard link":
        os.mkfifo(victim)
    elif swap == "directory":
        victim.mkdir()
    else:
        victim.write_bytes(b"secret")
    if kind == "symlink" and swap == "symlink":
        victim.unlink()
        os.symlink("elsewhere", victim)
    if swap != "symlink" or kind == "fifo":
        victim.chmod(0o700)
    before = os.lstat(victim)
    real = getattr(os, call)

    def create(*arguments, dir_fd=None, **rest):
        real(*arguments, dir_fd=dir_fd, **rest)
        name = arguments[0] if call == "mknod" else arguments[1]
        os.unlink(name, dir_fd=dir_fd)
        if swap == "symlink" and kind == "fifo":
            os.symlink(victim, name, dir_fd=dir_fd)
        elif swap == "directory":
            os.rename(victim, name, dst_dir_fd=dir_fd)
        else:
            os.link(victim, name, dst_dir_fd=dir_fd, follow_symlinks=False)

    monkeypatch.setattr(os, call, create)
    monkeypatch.setattr("sifkit.vfs.extracting.supported", lambda: True)
    tree = MemoryTree()
    tree.add(b"name", found)
    reason = "another process replaced it while it was created"
    if way == "extract":
        assert copy(way, tree, tmp_path / "out").problems == [(b"/name", reason)]
    else:
        with pytest.raises(FileExistsError, match=reason):
            copy(way, tree, tmp_path / "out")
    after = os.lstat(tmp_path / "out" / "name" if swap == "directory" else victim)
    for field in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_atime_ns"):
        assert getattr(after, field) == getattr(before, field), field


def swapping(monkeypatch, call, when, swap):
    """Call ``swap`` after a directory was created or opened by this name."""
    real = getattr(os, call)

    def wrapped(name, *rest, dir_fd=None, **more):
        result = real(name, *rest, dir_fd=dir_fd, **more)
        if name == when and dir_fd is not None:
            monkeypatch.setattr(os, call, real)
            swap()
        return result

    monkeypatch.setattr(os, call, wrapped)
    monkeypatch.setattr("sifkit.vfs.extracting.supported", lambda: True)


def exchange(one, other):
    spare = one.with_name("spare")
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


@pytest.mark.parametrize("late", [False, True], ids=["when it is created", "when it is filled"])
@pytest.mark.parametrize("victim", ["another", "new", "link"])
def test_a_directory_replaced_meanwhile_is_not_taken(tmp_path, monkeypatch, late, victim):
    """By one that is not for everybody, by another new one, or by a link: it gets neither files nor a mode."""
    out = tmp_path / "out"
    (out / "private").mkdir(parents=True)
    (out / "private" / "secret").write_bytes(b"s")
    (out / "private").chmod(0o700)
    tree = MemoryTree()
    tree.nodes[0] = node(0o040755)
    for name, mode in ((b"a-locked", 0o040700), (b"b-open", 0o041777)):
        tree.add(name, node(mode))
        tree.add(name + b"/file", node(0o100644, content=name))
    target = out / "b-open"

    def swap():
        if victim == "another":
            exchange(target, out / "private")
        elif victim == "new":
            exchange(target, out / "a-locked")
        else:
            target.rename(out / "away")
            target.symlink_to(out / "private")

    swapping(monkeypatch, "mkdir", b"b-open", swap if not late else lambda: swapping(monkeypatch, "open", b"b-open", swap))
    made = extract(tree, out, force=True)
    assert made.failed >= 1 and {path for path, _ in made.problems} <= {
        b"/b-open",
        b"/b-open/file",
        b"/a-locked",
        b"/a-locked/file",
    }
    private = out / ("b-open" if victim == "another" else "private")
    assert (mode_of(private), os.listdir(private)) == (0o700, ["secret"])
    locked = out / ("b-open" if victim == "new" else "a-locked")
    assert mode_of(locked) == 0o700


def test_directories_that_exist_are_used(tmp_path):
    tree = MemoryTree()
    tree.nodes[0] = node(0o040755)
    for path in (b"a", b"a/b", b"a/b/c", b"new", b"new/deep"):
        tree.add(path, node(0o040750))
        tree.add(path + b"/file", node(0o100640, content=path))
    (tmp_path / "out/a/b").mkdir(parents=True)
    (tmp_path / "out/a/b/kept").write_bytes(b"k")
    for _ in range(2):
        made = extract(tree, tmp_path / "out", force=True)
        assert (made.failed, made.files, made.directories) == (0, 5, 5)
        assert sorted(os.listdir(tmp_path / "out/a/b")) == ["c", "file", "kept"]
        assert [mode_of(tmp_path / "out" / name) for name in ("a", "a/b", "a/b/c", "new/deep")] == [0o750] * 4


def test_a_file_of_another_owner_is_left_as_it_is(tmp_path, monkeypatch):
    """A server that maps owners, or a file that somebody put there."""
    tree = MemoryTree()
    tree.add(b"fifo", node(0o010666))
    real = os.geteuid
    monkeypatch.setattr(os, "geteuid", lambda: real() + 1)
    made = extract(tree, tmp_path / "out", owners=False)
    assert (made.specials, made.failed, mode_of(tmp_path / "out" / "fifo")) == (1, 0, 0o600)
    assert made.owners_left


def test_without_proc_it_is_said(tmp_path, monkeypatch):
    tree = MemoryTree()
    tree.add(b"fifo", node(0o010666))
    monkeypatch.setattr("sifkit.vfs.host_attributes._has_proc", lambda: False)
    made = extract(tree, tmp_path / "out")
    assert made.problems == [(b"/fifo", "/proc is not mounted: its attributes cannot be set")]


def test_attributes_of_what_is_not_opened(tmp_path):
    tree = MemoryTree()
    tree.add(b"fifo", node(0o010624, mtime=1_234_567_890_123))
    tree.add(b"socket", node(0o140602, mtime=1_234_567_890_124))
    tree.add(b"link", node(0o120777, content=b"nowhere", mtime=1_234_567_890_125))
    made = extract(tree, tmp_path / "out")
    assert (made.specials, made.symlinks, made.failed, made.owners_left) == (2, 1, 0, 0)
    found = {name: os.lstat(tmp_path / "out" / name) for name in ("fifo", "socket", "link")}
    assert [mode_of(tmp_path / "out" / name) for name in ("fifo", "socket")] == [0o624, 0o602]
    assert [one.st_mtime_ns for one in found.values()] == [1_234_567_890_123, 1_234_567_890_124, 1_234_567_890_125]


# -- ACLs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("acls")
@pytest.mark.parametrize("way", ["extract", "copy"])
def test_an_acl_that_differs_from_the_mode_wins(tmp_path, way):
    """As with ``cp -a`` from a kernel mount, where it is set last: such a file is not readable for others."""
    tree = MemoryTree()
    tree.add(b"file", node(0o104644, content=b"x", mtime=77, xattrs={b"user.note": b"n", ACCESS_ACL: ACL}))
    made = copy(way, tree, tmp_path / "out")
    found = tmp_path / "out" / "file"
    assert (made.xattrs_left, made.failed) == (0, 0)
    assert (mode_of(found), found.stat().st_mtime_ns) == (0o4660, 77)
    assert (os.getxattr(found, ACCESS_ACL), os.getxattr(found, "user.note")) == (ACL, b"n")


@pytest.mark.usefixtures("acls")
def test_acls_of_directories_and_fifos(tmp_path):
    tree = MemoryTree()
    tree.add(b"dir", node(0o042755, xattrs={ACCESS_ACL: DIRECTORY_ACL, DEFAULT_ACL: ACL}))
    tree.add(b"fifo", node(0o010644, xattrs={ACCESS_ACL: ACL}))
    assert extract(tree, tmp_path / "out").failed == 0
    assert [mode_of(tmp_path / "out" / name) for name in ("dir", "fifo")] == [0o2750, 0o660]
    assert os.getxattr(tmp_path / "out" / "dir", DEFAULT_ACL) == ACL
    assert os.getxattr(tmp_path / "out" / "fifo", ACCESS_ACL) == ACL


@pytest.mark.usefixtures("acls")
@pytest.mark.parametrize("way", ["extract", "force", "copy", "existing"])
def test_inherited_acls_are_removed(tmp_path, way):
    """As with ``cp -a``: a file that has none in the image gives nobody permissions by one."""
    out = tmp_path / "out"
    out.mkdir()
    os.setxattr(out, DEFAULT_ACL, parse_text("user::rwx,user:1001:rwx,group::rwx,mask::rwx,other::rwx"))
    tree = MemoryTree()
    tree.nodes[0] = node(0o040755)
    file = tree.add(b"file", node(0o100664, content=b"x"))
    if way == "existing":
        (out / "file").write_bytes(b"old")
        assert ACCESS_ACL.decode() in os.listxattr(out / "file")
    if way in ("copy", "existing"):
        copy_file_out(tree, file, os.fsencode(out / "file"), CopyOutOptions(preserve=frozenset({"mode", "times"})))
        assert (os.listxattr(out / "file"), mode_of(out / "file")) == ([], 0o664)
        return
    tree.add(b"other", node(0o100664, content=b"y"))
    tree.add(b"noted", node(0o100664, xattrs={b"user.note": b"n"}))
    tree.add(b"fifo", node(0o010664))
    tree.add(b"dir", node(0o040775))
    tree.add(b"dir/file", node(0o100660, content=b"z"))
    if way == "force":
        (out / "dir").mkdir()
    assert extract(tree, out, force=way == "force").failed == 0
    found = {name: os.listxattr(out / name) for name in ("file", "other", "noted", "fifo", "dir", "dir/file", "")}
    assert found == {name: ["user.note"] if name == "noted" else [] for name in found}
    assert [mode_of(out / name) for name in found] == [0o664, 0o664, 0o664, 0o664, 0o775, 0o660, 0o755]


@pytest.mark.usefixtures("acls")
def test_preserving_the_mode_preserves_the_acl(tmp_path):
    """As with ``cp -p``: the mode alone would give the group what the mask allows."""
    tree = MemoryTree()
    file = tree.add(b"file", node(0o100660, content=b"x", xattrs={ACCESS_ACL: ACL, b"user.note": b"n"}))
    copy_file_out(tree, file, os.fsencode(tmp_path / "file"), CopyOutOptions(preserve=frozenset({"mode", "owner", "times"})))
    assert os.listxattr(tmp_path / "file") == [ACCESS_ACL.decode()]


@pytest.mark.parametrize("acl", [ACL, ACL[:-3], b""], ids=["good", "cut short", "empty"])
def test_without_acls_on_the_host_nobody_gets_more(tmp_path, monkeypatch, acl):
    real = os.setxattr

    def refuse(target, name, value, **rest):
        if name == ACCESS_ACL:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        real(target, name, value, **rest)

    monkeypatch.setattr(os, "setxattr", refuse)
    tree = MemoryTree()
    tree.add(b"file", node(0o100666, xattrs={ACCESS_ACL: acl}))
    made = extract(tree, tmp_path / "out")
    assert (made.xattrs_left, mode_of(tmp_path / "out" / "file")) == (1, 0o640 if acl == ACL else 0o600)


def test_a_plain_user_sets_attributes_of_a_read_only_file(tmp_path, monkeypatch):
    """Linux asks for permission to write to the file, whatever the descriptor is open for."""
    real = os.setxattr

    def set_xattr(target, name, value, **rest):
        if not os.stat(target).st_mode & 0o200:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        real(target, name, value, **rest)

    monkeypatch.setattr(os, "setxattr", set_xattr)
    tree = MemoryTree()
    file = tree.add(b"file", node(0o100444, content=b"x", xattrs={b"user.note": b"n"}))
    for made in (
        extract(tree, tmp_path / "out"),
        copy_file_out(tree, file, os.fsencode(tmp_path / "copy"), EVERYTHING),
    ):
        assert made.xattrs_left == 0
    assert [mode_of(tmp_path / name) for name in ("out/file", "copy")] == [0o444] * 2


@pytest.mark.parametrize("kind", ["small", "xattrs", "fifo", "directory", "copy"])
def test_set_id_bits_need_the_owner_that_the_file_has(tmp_path, monkeypatch, kind):
    """Not that of the caller: a set-group-ID directory gives new files its group, and an existing file keeps its owner."""
    uid, gid = os.geteuid(), os.getegid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    monkeypatch.setattr(os, "getegid", lambda: gid + 1)
    form = {"fifo": 0o010000, "directory": 0o040000}.get(kind, 0o100000)
    tree = MemoryTree()
    xattrs = {b"user.a": b"1"} if kind == "xattrs" else {}
    tree.add(b"name", MemoryNode(form | 0o6755, uid=uid + 1, gid=gid + 1, xattrs=xattrs))
    tree.add(b"own", MemoryNode(0o106755, uid=uid, gid=gid))
    if kind == "copy":
        copy_file_out(tree, 1, os.fsencode(tmp_path / "name"), CopyOutOptions(preserve=frozenset({"mode", "times"})))
        assert mode_of(tmp_path / "name") == 0o755
        return
    made = extract(tree, tmp_path / "out", owners=False)
    assert (mode_of(tmp_path / "out/name") & 0o7000, mode_of(tmp_path / "out/own")) == (0, 0o6755)
    assert made.failed == 0
