"""Attributes of a file that is replaced by its changed copy: an edit without a journal and ``sif compact`` keep them all."""

from __future__ import annotations

import errno
import os
import stat
import struct

import pytest

from sifkit.file_attributes import keep_attributes
from sifkit.sif import SIF, DataType
from sifkit.sif.compacting import compact

from ...support.commands import good, names_in

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
pytestmark = pytest.mark.skipif(not hasattr(os, "setxattr"), reason="no extended attributes here")


def acl(group: int, named: int, mask: int) -> bytes:
    """An ACL as the kernel takes it (``include/uapi/linux/posix_acl_xattr.h``): user rw, user 1001, group, mask, other none."""
    nobody = 0xFFFFFFFF
    entries = [(1, 6, nobody), (2, named, 1001), (4, group, nobody), (16, mask, nobody), (32, 0, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.fixture
def with_acls(tmp_path):
    try:
        os.setxattr(tmp_path, DEFAULT, acl(7, 7, 7))
        os.setxattr(tmp_path, "user.there", b"1")
    except OSError as error:
        pytest.skip(f"no ACLs here: {error}")
    return tmp_path


def dress(path):
    """Mode 0640 by the mask, an ACL that lets user 1001 read, and an attribute."""
    os.setxattr(path, ACCESS, acl(0, 4, 4))
    os.setxattr(path, "user.comment", b"precious")


def check(path, *, owner=None):
    assert os.getxattr(path, ACCESS) == acl(0, 4, 4)
    assert os.getxattr(path, "user.comment") == b"precious"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    if owner is not None:
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == owner


@pytest.fixture
def plain(run, with_acls, monkeypatch):
    monkeypatch.chdir(with_acls)
    good(run, "overlay", "create", "--size", "8M", "--no-journal", "plain.img", "-q")
    return "plain.img"


def test_an_edit_keeps_attributes_and_acls(run, plain):
    """Judge: what getfacl and getfattr show before and after. A new file beside it would get the directory's default ACL."""
    dress(plain)
    before = os.stat(plain).st_ino
    good(run, "mkdir", "plain.img:/upper/kept", "-q")
    assert os.stat(plain).st_ino != before and names_in(plain) == [b"kept"]
    check(plain)


def test_an_edit_adds_no_acl_of_the_directory(run, plain):
    os.removexattr(plain, ACCESS)
    os.chmod(plain, 0o640)
    good(run, "mkdir", "plain.img:/upper/kept", "-q")
    assert ACCESS not in os.listxattr(plain) and stat.S_IMODE(os.stat(plain).st_mode) == 0o640


def test_other_hard_links_are_told(run, plain):
    os.link(plain, "second.img")
    code, _, err = run("mkdir", "plain.img:/upper/kept")
    assert code == 0 and "1 other hard link of the image keeps the old content" in err
    assert names_in("second.img") == []
    code, _, err = run("mkdir", "plain.img:/upper/more")
    assert code == 0 and "other hard link" not in err  # by now the two are different files


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can change owners")
def test_the_owner_is_kept(run, plain):
    dress(plain)
    os.chown(plain, 1234, 4321)
    good(run, "mkdir", "plain.img:/upper/kept", "-q")
    check(plain, owner=(1234, 4321))


def test_what_cannot_be_kept_is_told(run, plain, monkeypatch):
    dress(plain)

    def refuse(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if os.geteuid() == 0:
        os.chown(plain, 1234, 0)
        monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(os, "setxattr", refuse)
    code, _, err = run("mkdir", "plain.img:/upper/kept")
    assert code == 0 and "could not preserve the extended attribute user.comment: Operation not permitted" in err
    assert f"could not preserve the extended attribute {ACCESS}" in err
    if os.geteuid() == 0:
        assert "could not preserve the owner of the image: it was user 1234, now user 0" in err


def test_compact_keeps_them_too(with_acls):
    path = with_acls / "i.sif"
    with SIF.create(path) as sif:
        sif.add(b"gone" * 5000, DataType.GENERIC)
        sif.add(b"kept", DataType.GENERIC)
    with SIF.open(path, "r+") as sif:
        sif.delete(1)
    dress(path)
    os.link(path, with_acls / "second.sif")
    assert compact(path).notes == ("1 other hard link of the image keeps the old content",)
    check(path)


def test_a_filesystem_without_attributes(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "listxattr", refuse)
    with open(tmp_path / "one", "wb") as one, open(tmp_path / "two", "wb") as two:
        assert keep_attributes(one.fileno(), two.fileno()) == ()
