"""Members of archives merged by path: links, replacements, whiteouts, and what leads outside."""

from __future__ import annotations

import gzip

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


def test_paths_through_symlinks_of_the_archive_that_stay_inside() -> None:
    """GNU tar and umoci, Apptainer's reader of layers, go where the link leads; umoci also where that is not yet."""
    archive = (
        directory(b"usr/lib", mode=b"0000711")
        + symlink(b"lib", b"usr/lib")
        + file(b"lib/a", b"1")
        + file(b"lib/new/b", b"2")
        + hardlink(b"c", b"lib/a")
        + file(b"lib/.wh.gone")
        + symlink(b"usr/up", b"../usr/./lib/..")
        + file(b"usr/up/d")
        + symlink(b"dangling", b"to/be")
        + file(b"dangling/made")
        + directory(b"run")
        + directory(b"var")
        + symlink(b"var/run", b"/run")
        + symlink(b"chain", b"var/run")
        + file(b"chain/e")
    )
    with scanned(archive + END) as got:
        assert list(got.paths()) == [
            *(b"/c", b"/chain", b"/dangling", b"/lib", b"/run", b"/to", b"/usr", b"/var"),
            *(b"/run/e", b"/to/be", b"/to/be/made", b"/usr/d", b"/usr/lib", b"/usr/up"),
            *(b"/usr/lib/gone", b"/usr/lib/new", b"/usr/lib/new/b", b"/var/run", b"/usr/lib/a"),
        ]
        assert got.node(b"/c") == got.node(b"/usr/lib/a") and got.data(b"/usr/lib/a") == b"1"
        assert got.mode(b"/usr/lib") == DIR | 0o711 and got.tree.targets[got.node(b"/lib")] == b"usr/lib"
        assert got.tree.devices == {got.node(b"/usr/lib/gone"): (0, 0)}


def test_a_symlink_that_is_replaced_is_not_followed() -> None:
    archive = symlink(b"l", b"a") + file(b"l/1") + symlink(b"l", b"b") + file(b"l/2") + directory(b"l") + file(b"l/3")
    with scanned(archive + END) as got:
        assert list(got.paths()) == [b"/a", b"/b", b"/l", b"/a/1", b"/b/2", b"/l/3"]


@pytest.mark.parametrize("target", [b"..", b"../x", b"d/../..", b"/d/../../x", b"/etc", b"/", b"f", b"l", b"f/.."])
def test_symlinks_that_lead_nowhere(target: bytes) -> None:
    before = directory(b"d") + file(b"f") + symlink(b"l", target)
    if target == b"/":
        with scanned(before + file(b"l/x") + END) as got:
            assert list(got.paths()) == [b"/d", b"/f", b"/l", b"/x"]
        return
    for entry in (file(b"l/x"), hardlink(b"link", b"l/x")):
        error = refused(before + entry + END)
        assert "leads outside" in str(error) or "more than 40 symlinks" in str(error), str(error)


def test_an_empty_name_is_the_top() -> None:
    """GNU tar: "Substituting `.' for empty member name"."""
    with scanned(directory(b"", mode=b"0000750") + file(b"f") + END) as got:
        assert got.scan.root is not None and got.scan.root.mode == DIR | 0o750
        assert list(got.paths()) == [b"/f"]


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


def test_what_fuse_overlayfs_leaves_in_opaque_directories() -> None:
    """fuse-overlayfs 1.13 as root and as a user: an attribute, a file ``.wh..wh..opq``, and a device ``.wh..opq``."""
    archive = (
        pax([(b"SCHILY.xattr.user.fuseoverlayfs.opaque", b"y")])
        + directory(b"d")
        + header(b"d/.wh..opq", kind=b"3")
        + file(b"d/.wh..wh..opq", mode=b"0000700")
        + file(b"d/z")
        + file(b".wh..opq")
    )
    with scanned(archive + END) as got:
        assert list(got.paths()) == [b"/.opq", b"/d", b"/d/z"]  # as a file it is the whiteout of ".opq"
        assert got.xattrs(b"/d").keys() == {
            *(b"trusted.overlay.opaque", b"user.overlay.opaque", b"user.fuseoverlayfs.opaque"),
        }
        assert got.tree.left_out.counts == {"devices .wh..opq of fuse-overlayfs": 1}
        assert got.tree.left_out.harmless == set(got.tree.left_out.counts)


def test_notes_of_what_is_unusual() -> None:
    odd = header(b"odd", kind=b"Z", size=b"00000000003") + padded(b"abc")
    with scanned(odd + header(b"more", kind=b"Z") + header(b"e\n", kind=b"\x80") + END) as got:
        assert list(got.paths()) == [b"/e\n", b"/more", b"/odd"] and got.data(b"/odd") == b"abc"
        assert got.scan.notes == (
            "2 members of the unknown type Z, first odd: taken for regular files, as tar does",
            "1 member of the unknown type \\x80, first e\\n: taken for regular files, as tar does",
        )
    with scanned(gzip.compress(file(b"f"))) as got:
        assert list(got.paths()) == [b"/f"]
        assert got.scan.notes == ("the archive has no end marker; the gzip stream it is packed in is whole",)
    with scanned(file(b"f") + END) as got:
        assert got.scan.notes == ()


OPAQUE = {b"trusted.overlay.opaque": b"y", b"user.overlay.opaque": b"y"}


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(file(b"L/d/.wh..wh..opq"), id="opaque whiteout"),
        pytest.param(file(b"L/.wh.d"), id="directory created again"),
        pytest.param(pax([(b"SCHILY.xattr.trusted.overlay.opaque", b"y")]) + directory(b"L/d"), id="attribute of root"),
        pytest.param(pax([(b"SCHILY.xattr.user.overlay.opaque", b"y")]) + directory(b"L/d"), id="attribute of users"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_whiteouts_below_an_opaque_directory_are_left_out(cut: bytes, late: bool) -> None:
    """At any depth: the kernel lists them as names that nobody can remove (tests/compat)."""
    content = (
        file(b"L/d/.wh.gone")
        + file(b"L/d/e/f/.wh.deep")
        + file(b"L/d/e/.wh.again")
        + directory(b"L/d/e/again")
        + file(b"L/d/e/again/.wh.inner")
        + header(b"L/d/e/zero", kind=b"3")
        + header(b"L/d/e/null", kind=b"3", major=b"0000001", minor=b"0000003")
        + header(b"L/d/e/block", kind=b"4")
        + file(b"L/d/e/here", b"h")
        + file(b"L/.wh.stays")
    )
    archive = content + cut if late else cut + content
    with scanned(archive + END, lambda name: True) as got:
        paths = {b"/L", b"/L/stays", b"/L/d", b"/L/d/e", b"/L/d/e/f", b"/L/d/e/again"}
        assert set(got.paths()) == paths | {b"/L/d/e/null", b"/L/d/e/block", b"/L/d/e/here"}
        assert got.xattrs(b"/L/d") == OPAQUE
        assert got.xattrs(b"/L/d/e/again") == {}


def test_an_opaque_top_cuts_nothing_off() -> None:
    """As in the kernel, which ignores that the top of upper/ is opaque."""
    with scanned(file(b".wh..wh..opq") + file(b".wh.a") + file(b"d/.wh.b") + END, lambda name: True) as got:
        assert list(got.paths()) == [b"/a", b"/d", b"/d/b"]


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
