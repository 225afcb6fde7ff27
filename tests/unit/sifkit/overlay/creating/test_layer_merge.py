"""Members of archives merged by path: links, replacements, whiteouts, and what leads outside."""

from __future__ import annotations

import pytest

from tests.support.scanned_tar import refused, scanned
from tests.support.tar_samples import END, directory, file, hardlink, header, padded, pax, symlink

DIR, CHR = 0o040000, 0o020000


def test_hard_links() -> None:
    archive = (
        directory(b"d")
        + file(b"d/first", b"data")
        + symlink(b"sym", b"t")
        + hardlink(b"a", b"./d/first")
        + hardlink(b"z/also", b"/d/first")
        + hardlink(b"sym2", b"sym")
        + file(b"d/first", b"replaced")
        + hardlink(b"a", b"a")
    )
    with scanned(archive + END) as got:
        assert got.data(b"/a") == got.data(b"/z/also") == b"data"
        assert got.node(b"/a") == got.node(b"/z/also") and got.row(b"/a", "links") == (2,)
        assert got.node(b"/sym") == got.node(b"/sym2")
        assert got.data(b"/d/first") == b"replaced" and got.row(b"/d/first", "links") == (1,)


@pytest.mark.parametrize("target", [b"missing", b"later", b"d", b".", b"no/such", b"../d/f", b"d/f/x", b""])
def test_hard_links_that_lead_nowhere(target: bytes) -> None:
    error = refused(directory(b"d") + file(b"d/f") + hardlink(b"link", target) + file(b"later") + END)
    assert "link" in str(error)
    assert target.decode() in str(error)
    assert "archive" in str(error)


def test_later_entries_replace_earlier_ones() -> None:
    archive = (
        file(b"f", b"old")
        + directory(b"d", mode=b"0000700")
        + file(b"d/kept", b"1")
        + directory(b"gone")
        + file(b"gone/x")
        + file(b"f", b"new")
        + directory(b"d", mode=b"0000711")
        + file(b"gone", b"now a file")
        + file(b"becomes", b"x")
        + directory(b"becomes")
        + file(b"becomes/y")
    )
    with scanned(archive + END) as got:
        assert list(got.paths()) == [b"/becomes", b"/d", b"/f", b"/gone", b"/becomes/y", b"/d/kept"]
        assert got.data(b"/f") == b"new" and got.data(b"/gone") == b"now a file"
        assert got.mode(b"/d") == DIR | 0o711


def test_a_directory_that_was_replaced_is_not_written_into() -> None:
    archive = directory(b"d") + file(b"d/x") + symlink(b"d", b"/etc") + file(b"d/passwd")
    assert "leads outside" in str(refused(archive + END))


def test_missing_parents_and_the_order_of_nodes() -> None:
    archive = file(b"b/c/d", mtime=b"00000000011") + file(b"b/c.x") + file(b"a") + file(b"b/c/\xff") + file(b"b/c/D")
    with scanned(archive + END) as got:
        assert list(got.paths()) == [b"/a", b"/b", b"/b/c", b"/b/c.x", b"/b/c/D", b"/b/c/d", b"/b/c/\xff"]
        assert got.row(b"/b/c", "mode", "uid", "gid", "mtime", "atime") == (DIR | 0o755, 0, 0, 9, 9)


def test_the_top_is_reported() -> None:
    records = [(b"SCHILY.xattr.user.a", b"1"), (b"mtime", b"3.5")]
    archive = pax(records) + directory(b"./", mode=b"0001700", uid=b"0001750") + file(b"./a") + file(b".//b/./c")
    with scanned(archive + END) as got:
        root = got.scan.root
        assert root is not None
        assert (root.mode, root.uid, root.gid, root.times) == (DIR | 0o1700, 1000, 0, (3, 3, 3) + (500000000,) * 3)
        assert root.xattrs == got.scan.root_xattrs == {b"user.a": b"1"}
        assert list(got.paths()) == [b"/a", b"/b", b"/b/c"]
    assert "top" in str(refused(file(b"./", kind=b"2", link=b"x") + END))


def test_whiteouts() -> None:
    opaque = {b"trusted.overlay.opaque": b"y", b"user.overlay.opaque": b"y"}
    archive = (
        file(b"d/.wh.gone", mtime=b"00000000005")
        + file(b".wh..wh..opq")
        + file(b"o/.wh..wh..opq")
        + file(b".wh.stays")
        + file(b"stays", b"s")
        + file(b"also", b"s")
        + file(b".wh.also")
        + directory(b"anew")
        + file(b".wh.anew")
        + directory(b".wh..wh.plnk")
        + file(b".wh..wh.plnk/1.2")
        + file(b".wh..wh.aufs")
    )
    with scanned(archive + END, lambda name: False) as got:
        assert list(got.paths()) == [b"/also", b"/anew", b"/d", b"/o", b"/stays", b"/d/gone"]
        assert got.row(b"/d/gone", "mode", "uid", "gid", "mtime") == (CHR, 0, 0, 5)
        assert got.tree.devices == {got.node(b"/d/gone"): (0, 0)}
        assert got.xattrs(b"/o") == got.xattrs(b"/anew") == got.scan.root_xattrs == opaque
        assert got.scan.root is None
        assert got.tree.left_out.counts == {"aufs metadata (.wh..wh.*)": 3}
    for name in (b".wh.", b".wh..", b".wh..."):
        assert "whiteout" in str(refused(file(name) + END))


def test_members_that_are_no_files() -> None:
    label = header(b"label", kind=b"V")
    with scanned(label + header(b"dump", kind=b"D", size=b"%011o" % 7) + padded(b"Yf\0Dd\0\0") + file(b"f") + END) as got:
        assert list(got.paths()) == [b"/dump", b"/f"]
        assert got.mode(b"/dump") & 0o170000 == DIR
        assert got.tree.left_out.counts == {"tar member type V": 1}
    assert "type M" in str(refused(header(b"part", kind=b"M") + END))


@pytest.mark.parametrize(
    "name",
    [
        b"../x",
        b"a/../b",
        b"..",
        b"/..",
        b"a/..",
        b"f/x",
        b"l/x",
        b"l/y/z",
        b"n" * 256,
        b"n" * 256 + b"/x",
        b"",
        b"a\0b",
        b"a/" * 500_000,
    ],
)
def test_paths_that_are_refused(name: bytes) -> None:
    before = directory(b"a") + file(b"f") + symlink(b"l", b"/etc")
    records = [(b"path", name), (b"uid", b"0")]
    entry = pax(records) + header(b"" if not name else b"cut")
    error = refused(before + entry + END)
    assert str(error).startswith("archive: ")
    assert "(at byte " in str(error)


@pytest.mark.parametrize("target", [b"", b"x" * 4096, b"x" * 70_000])
def test_symlink_targets_that_are_refused(target: bytes) -> None:
    refused(pax([(b"linkpath", target)]) + header(b"l", kind=b"2") + END)


def test_devices_and_times_that_cannot_be() -> None:
    error = refused(header(b"c", kind=b"3", major=b"0010000") + END)
    assert str(error) == "archive: c: device numbers 4096, 0 do not fit ext3 (at byte 0)" and error.hint
    refused(header(b"c", kind=b"4", minor=b"\xff" * 8) + END)
    refused(file(b"f", mtime=b"\x80\x7f" + b"\xff" * 10) + END)


def test_a_flood_of_implied_directories_is_refused() -> None:
    deep = b"".join(
        header(b"L", kind=b"L", size=b"%011o" % 4001) + padded((b"%04d/" % number + b"a/" * 2000)[:4000] + b"\0") + file(b"x")
        for number in range(20)
    )
    assert "directories" in str(refused(deep + END))
