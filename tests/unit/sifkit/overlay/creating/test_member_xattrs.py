"""Extended attributes and ACLs of archives' members."""

from __future__ import annotations

import base64
import struct

from ext3.format import acl
from tests.support.scanned_tar import refused, scanned
from tests.support.tar_samples import END, directory, file, pax

REG, DIR = 0o100000, 0o040000


def test_xattrs_are_binary_and_filtered() -> None:
    value = b"\0\xff=\n" * 5
    records = [
        (b"SCHILY.xattr.user.a", value),
        (b"SCHILY.xattr.user.100%25%3D", b"v"),
        (b"LIBARCHIVE.xattr.user.b%3D", base64.b64encode(value).rstrip(b"=")),
        (b"LIBARCHIVE.xattr.user.a", b"AAAA"),
        (b"SCHILY.xattr.security.selinux", b"label"),
        (b"RHT.security.selinux", b"label"),
        (b"SCHILY.acl.ace", b"nfs"),
    ]
    with scanned(file(b"f", records=records) + file(b"g") + END, lambda name: name.startswith(b"user.")) as got:
        assert got.xattrs(b"/f") == {b"user.a": value, b"user.100%=": b"v", b"user.b=": value}
        assert got.tree.left_out.counts == {"security.selinux": 1, "SCHILY.acl.ace": 1}
        assert got.xattrs(b"/g") == {}
    assert "base64" in str(refused(file(b"f", records=[(b"LIBARCHIVE.xattr.user.b", b"!!")]) + END))


def test_acls() -> None:
    text = "user::rw-,user:7:r--,group::---,mask::rwx,other::r--"
    minimal = b"user::rwx,group::r-x,other::---"
    unknown = b"user::rw-,user:bob:r--,group::---,mask::rwx,other::r--"
    broken = struct.pack("<I", 2) + b"xxx"
    archive = (
        file(b"f", records=[(b"SCHILY.acl.access", text.encode())])
        + pax([(b"SCHILY.acl.default", minimal.replace(b",", b"\n")), (b"SCHILY.acl.access", minimal)])
        + directory(b"d")
        + file(b"named", records=[(b"SCHILY.acl.access", unknown)])
        + file(b"broken", records=[(b"SCHILY.xattr.system.posix_acl_access", broken)])
    )
    with scanned(archive + END) as got:
        assert got.xattrs(b"/f") == {b"system.posix_acl_access": acl.parse_text(text)}
        assert got.mode(b"/f") == REG | 0o674  # the group's bits are the mask's
        assert got.xattrs(b"/d") == {b"system.posix_acl_default": acl.parse_text("user::rwx,group::r-x,other::---")}
        assert got.mode(b"/d") == DIR | 0o755
        assert got.xattrs(b"/named") == got.xattrs(b"/broken") == {}
        assert got.tree.left_out.counts == {"system.posix_acl_access": 2}


def test_acls_as_libarchive_writes_them_are_checked() -> None:
    good = acl.parse_text("user::rw-,user:7:r--,group::---,mask::rwx,other::r--")
    for value in (b"xx123", struct.pack("<I", 2), good[:-8], good + b"x"):
        records = [(b"LIBARCHIVE.xattr.system.posix_acl_access", base64.b64encode(value))]
        with scanned(file(b"f", records=records) + END) as got:
            assert got.xattrs(b"/f") == {} and got.mode(b"/f") == REG | 0o644
            assert got.tree.left_out.counts == {"system.posix_acl_access": 1}
    with scanned(file(b"f", records=[(b"LIBARCHIVE.xattr.system.posix_acl_access", base64.b64encode(good))]) + END) as got:
        assert got.xattrs(b"/f") == {b"system.posix_acl_access": good} and got.mode(b"/f") == REG | 0o674
