"""Archives of other programs, and odd ones that they take: what GNU tar and bsdtar unpack is in the image."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

import ext3
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions, CreateResult

from ..support.tar_samples import END, directory, file, header, padded, pax, symlink
from ..support.tools import find, missing, require, run

PROGRAMS = ["tar", "bsdtar"]
XATTRS = {"tar": ["--xattrs", "--xattrs-include=*", "--acls"], "bsdtar": ["--xattrs", "--acls"]}

pytestmark = pytest.mark.compat


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def unpacked(program: str, archive: str) -> Path:
    """The archive as a program unpacks it."""
    require(program)
    out = Path(f"out-{program}")
    out.mkdir()
    run(program, "-xpf", archive, "-C", out, *XATTRS[program])
    return out


def create_from(archive: str) -> CreateResult:
    return create("o.img", CreateOptions(from_tar=archive, xattrs="strict", layout="upper", force=True))


def xattrs_of(path: Path) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.getxattr(path, name) for name in os.listxattr(path)}


def xattrs_in_image(path: str) -> dict[bytes, bytes]:
    with ext3.Filesystem.open("o.img") as fs:
        return dict(fs.xattrs(f"/upper/{path}"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_attributes_without_a_value(program: str) -> None:
    require(program)
    Path("f").write_bytes(b"1")
    try:
        os.setxattr("f", "user.empty", b"")
        os.setxattr("f", "user.full", b"1")
    except OSError:
        missing("this filesystem has no attributes of users")
    run(program, "-cf", "a.tar", *XATTRS[program], *(["--format=pax"] if program == "tar" else []), "f")
    for reader in PROGRAMS:
        if find(reader):
            assert xattrs_of(unpacked(reader, "a.tar") / "f") == {b"user.empty": b"", b"user.full": b"1"}
    create_from("a.tar")
    assert xattrs_in_image("f") == {b"user.empty": b"", b"user.full": b"1"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_acls_with_names(program: str) -> None:
    require(program, "setfacl")
    Path("f").write_bytes(b"1")
    os.mkdir("d")
    if run("setfacl", "-m", "u:daemon:rw,g:daemon:r", "f", ok=range(256)).returncode:
        missing("this filesystem has no ACLs, or this host no daemon")
    run("setfacl", "-dm", "u:daemon:rwx", "d")
    run(program, "-cf", "a.tar", *XATTRS[program], *(["--format=pax"] if program == "tar" else []), "f", "d")
    assert b"user:daemon:rw-" in Path("a.tar").read_bytes()
    create_from("a.tar")
    name = b"system.posix_acl_access"
    assert xattrs_in_image("f")[name] == xattrs_of(Path("f"))[name]
    name = b"system.posix_acl_default"
    assert xattrs_in_image("d")[name] == xattrs_of(Path("d"))[name]


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_end_marker(program: str) -> None:
    Path("a.tar.gz").write_bytes(gzip.compress(directory(b"d/") + file(b"d/f", b"data")))
    assert (unpacked(program, "a.tar.gz") / "d/f").read_bytes() == b"data"
    assert any("no end marker" in note for note in create_from("a.tar.gz").notes)
    with ext3.Filesystem.open("o.img") as fs:
        assert fs.read_bytes("/upper/d/f") == b"data"


def test_a_path_through_a_symlink() -> None:
    """GNU tar goes through it; bsdtar does with -P only."""
    Path("a.tar").write_bytes(directory(b"usr/lib/") + symlink(b"lib", b"usr/lib") + file(b"lib/f", b"data") + END)
    assert (unpacked("tar", "a.tar") / "usr/lib/f").read_bytes() == b"data"
    create_from("a.tar")
    with ext3.Filesystem.open("o.img") as fs:
        assert fs.read_bytes("/upper/usr/lib/f") == b"data"
        assert fs.readlink("/upper/lib") == b"usr/lib"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_type_that_is_not_known(program: str) -> None:
    Path("a.tar").write_bytes(header(b"odd", kind=b"Z", size=b"00000000004") + padded(b"data") + file(b"f", b"next") + END)
    out = unpacked(program, "a.tar")
    assert ((out / "odd").read_bytes(), (out / "f").read_bytes()) == (b"data", b"next")
    assert any("unknown type Z" in note for note in create_from("a.tar").notes)
    with ext3.Filesystem.open("o.img") as fs:
        assert (fs.read_bytes("/upper/odd"), fs.read_bytes("/upper/f")) == (b"data", b"next")


def test_an_empty_member_name() -> None:
    """GNU tar takes it for the directory it unpacks to."""
    Path("a.tar").write_bytes(directory(b"", mode=b"0000750") + file(b"f", b"data") + END)
    out = unpacked("tar", "a.tar")
    assert out.stat().st_mode & 0o7777 == 0o750
    create_from("a.tar")
    with ext3.Filesystem.open("o.img") as fs:
        assert fs.stat("/upper").mode & 0o7777 == 0o750 and fs.read_bytes("/upper/f") == b"data"


def test_records_that_delete_fields_of_the_header() -> None:
    """bsdtar: a deleted time is 0, a name stays that of the header."""
    records = [(b"mtime", b""), (b"path", b"")]
    Path("a.tar").write_bytes(pax(records) + header(b"f", size=b"00000000004", mtime=b"00000001750") + padded(b"data") + END)
    wanted = (unpacked("bsdtar", "a.tar") / "f").stat()
    create_from("a.tar")
    with ext3.Filesystem.open("o.img") as fs:
        assert fs.stat("/upper/f").mtime == wanted.st_mtime_ns == 0
