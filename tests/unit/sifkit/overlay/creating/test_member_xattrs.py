"""Extended attributes and ACLs of archives' members."""

from __future__ import annotations

import base64
import struct

import pytest

from ext3.format import acl
from sifkit.overlay.creating import member_xattrs
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


def test_attributes_without_a_value() -> None:
    """GNU tar and bsdtar restore them."""
    records = [(b"SCHILY.xattr.user.a", b""), (b"LIBARCHIVE.xattr.user.b", b"")]
    records += [(b"SCHILY.xattr.system.posix_acl_access", b""), (b"SCHILY.acl.default", b"")]
    with scanned(file(b"f", records=records) + END) as got:
        assert got.xattrs(b"/f") == {b"user.a": b"", b"user.b": b""}
        assert got.tree.left_out.counts == {}


def test_acls_with_names_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """GNU tar writes names only; it and bsdtar give them the ids of the host, as --owner NAME does."""
    users, groups = {"alice": 1000, "a:b": 1001, "r\udce9": 1002}, {"lab": 2000}
    monkeypatch.setattr(member_xattrs, "user_id", users.get)
    monkeypatch.setattr(member_xattrs, "group_id", groups.get)

    def entry(name: bytes, acl_text: bytes) -> bytes:
        return file(name, records=[(b"SCHILY.acl.access", b"user::rw-,group::---,mask::r--,other::---," + acl_text)])

    archive = (
        entry(b"f", b"user:alice:r--,user:a\\072b:---,user:r\xe9:r--,group:lab:r--")
        + entry(b"id", b"user:alice:r--:7")
        + entry(b"user", b"user:lab:r--")
        + entry(b"group", b"group:alice:r--")
    )
    with scanned(archive + END) as got:
        text = "user::rw-,group::---,mask::r--,other::---,"
        assert got.xattrs(b"/f") == {
            member_xattrs.ACCESS: acl.parse_text(text + "user:1000:r--,user:1001:---,user:1002:r--,group:2000:r--")
        }
        assert got.xattrs(b"/id") == {member_xattrs.ACCESS: acl.parse_text(text + "user:7:r--")}
        assert got.xattrs(b"/user") == got.xattrs(b"/group") == {}
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
