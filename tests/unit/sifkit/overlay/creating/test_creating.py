"""overlay.create: layouts, owners, what is left out, what is refused, and that nothing is left behind."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

import ext3
from ext3 import workers
from ext3.errors import SourceError
from ext3.newfs import copy as build_copy
from sifkit.errors import LayoutError, NotReplaceableError, TargetError, UsageError
from sifkit.overlay.creating import source as build_source
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions, CreateResult
from tests.support.tar_samples import END, directory, file, header

EPOCH = 1_700_000_000
ROOT = Path(__file__).resolve().parents[5]
is_root = hasattr(os, "geteuid") and os.geteuid() == 0


def make(target: Path, **options: Any) -> CreateResult:
    return create(target, CreateOptions(**options))


def listing(image: Path) -> dict[str, ext3.Stat]:
    with ext3.Filesystem.open(image) as fs:
        return {os.fsdecode(path).strip("/"): fs.stat(entry.ino) for path, entry in fs.walk()}


def names(image: Path) -> set[str]:
    return set(listing(image))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    (top / "opt/app").mkdir(parents=True)
    (top / "opt/app/run").write_bytes(b"#!/bin/sh\n")
    (top / "etc").mkdir()
    (top / "etc/conf").write_bytes(b"k=v\n" * 1000)
    return top


def test_without_a_source_64_mebibytes_with_upper_and_work(tmp_path: Path) -> None:
    result = make(tmp_path / "o.img")
    assert result.size_bytes == 64 << 20
    assert (tmp_path / "o.img").stat().st_size == 64 << 20
    assert names(tmp_path / "o.img") == {"upper", "work", "lost+found"}
    assert stat.S_IMODE((tmp_path / "o.img").stat().st_mode) == 0o600


def test_mode_and_sparseness(tmp_path: Path) -> None:
    make(tmp_path / "sparse.img", mode=0o644)
    make(tmp_path / "full.img", sparse=False)
    assert stat.S_IMODE((tmp_path / "sparse.img").stat().st_mode) == 0o644
    assert (tmp_path / "sparse.img").stat().st_blocks * 512 < 8 << 20
    assert (tmp_path / "full.img").stat().st_blocks * 512 >= 64 << 20


def test_a_plain_source_goes_below_upper(tmp_path: Path, source: Path) -> None:
    result = make(tmp_path / "o.img", from_dir=source)
    assert result.layout == "upper"
    assert not any("below upper/" in note for note in result.notes)  # the command says so on a terminal
    assert {"upper/opt/app/run", "upper/etc/conf", "work"} <= names(tmp_path / "o.img")
    assert "opt" not in names(tmp_path / "o.img")


def test_an_overlay_becomes_the_root(tmp_path: Path, source: Path) -> None:
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    source.rename(overlay / "upper")
    result = make(tmp_path / "o.img", from_dir=overlay)
    assert result.layout == "root"
    assert {"upper/opt/app/run", "work"} <= names(tmp_path / "o.img")


def test_upper_and_more_is_ambiguous(tmp_path: Path, source: Path) -> None:
    (source / "upper").mkdir()
    with pytest.raises(LayoutError, match="upper/") as caught:
        make(tmp_path / "o.img", from_dir=source)
    assert "--layout root" in caught.value.hint
    assert "--layout upper" in caught.value.hint
    assert caught.value.exit_code == 2
    make(tmp_path / "root.img", from_dir=source, layout="root")
    make(tmp_path / "upper.img", from_dir=source, layout="upper")
    assert "opt/app/run" in names(tmp_path / "root.img")
    assert {"upper/upper", "upper/opt"} <= names(tmp_path / "upper.img")


def test_data_layout_adds_nothing(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "o.img", from_dir=source, layout="data")
    assert names(tmp_path / "o.img") == {"opt", "opt/app", "opt/app/run", "etc", "etc/conf", "lost+found"}
    with pytest.raises(UsageError, match="create-dir"):
        make(tmp_path / "p.img", from_dir=source, layout="data", create_dirs=("x",))


def test_owners(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "a.img", from_dir=source, owner=(1234, 70000))
    facts = listing(tmp_path / "a.img")
    assert {(fact.uid, fact.gid) for path, fact in facts.items() if path != "lost+found"} == {(1234, 70000)}
    assert (facts["lost+found"].uid, facts["lost+found"].gid) == (0, 0)
    make(tmp_path / "b.img", from_dir=source, upper_owner=(99, 98))
    facts = listing(tmp_path / "b.img")
    assert (facts["upper"].uid, facts["work"].gid) == (99, 98)
    assert facts["upper/etc"].uid == source.stat().st_uid


def test_work_follows_the_source_owner(tmp_path: Path, source: Path) -> None:
    if is_root:
        os.chown(source, 4321, 1234)
    make(tmp_path / "o.img", from_dir=source)
    facts = listing(tmp_path / "o.img")
    want = (source.stat().st_uid, source.stat().st_gid)
    assert (facts["work"].uid, facts["work"].gid) == (facts["upper"].uid, facts["upper"].gid) == want


def test_a_root_owned_upper_is_said(tmp_path: Path, source: Path) -> None:
    told = [note for note in make(tmp_path / "a.img", from_dir=source, owner=(0, 0)).notes if "owned by root" in note]
    assert told == []
    if is_root:
        told = [note for note in make(tmp_path / "b.img", from_dir=source).notes if "owned by root" in note]
        assert len(told) == 1
        assert "--owner me" in told[0]


def test_create_dirs(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "o.img", from_dir=source, create_dirs=("/opt/app/data/cache", "new"), upper_owner=(7, 8))
    assert {"upper/opt/app/data/cache", "upper/new"} <= names(tmp_path / "o.img")


@pytest.mark.parametrize("path", ["../upperx", "a/../../x", "..", "", "/"])
def test_create_dirs_that_escape(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError, match="create-dir"):
        make(tmp_path / "o.img", create_dirs=(path,))
    assert list(tmp_path.iterdir()) == []


def test_create_dir_over_a_file(tmp_path: Path, source: Path) -> None:
    with pytest.raises(UsageError, match="not a directory"):
        make(tmp_path / "o.img", from_dir=source, create_dirs=("etc/conf/x",))


def test_the_target_is_never_taken_in(source: Path) -> None:
    target = source / "overlay.img"
    make(target, from_dir=source)
    first = names(target)
    assert "upper/overlay.img" not in first
    (source / ".overlay.img.0a1b2c.tmp").write_bytes(b"left by a killed run")
    make(target, from_dir=source, force=True)
    assert names(target) == first
    assert "upper/overlay.img" in names_of_copy(source)


def names_of_copy(source: Path) -> set[str]:
    other = source.parent / "other.img"
    make(other, from_dir=source)
    return names(other)


def test_excludes(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "o.img", from_dir=source, exclude=("conf", "/opt/app/"))
    assert names(tmp_path / "o.img") == {"upper", "upper/etc", "upper/opt", "work", "lost+found"}


@pytest.mark.slow
@pytest.mark.parametrize("wait", [-1.0, float("inf")], ids=["threads", "plain"])
def test_what_is_excluded_is_counted(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, wait: float) -> None:
    monkeypatch.setattr(workers, "WAIT_SECONDS", wait)
    for number in range(200):
        (source / f"{number}" / "skip").mkdir(parents=True)
        (source / f"{number}" / "skip" / "inside").touch()
        (source / f"{number}" / "kept").touch()
    result = make(tmp_path / "o.img", from_dir=source, exclude=("skip", "conf"))
    assert (result.excluded, result.files) == (201, 200 * 2 + 4)
    assert "201 entries of the source excluded (a directory counts once)" in result.notes
    result = make(tmp_path / "p.img", from_dir=source, exclude=("no such",))
    assert result.excluded == 0 and not any("excluded" in note for note in result.notes)


def test_the_scan_begins_before_numpy_is_loaded(tmp_path: Path, source: Path) -> None:
    code = """
import sys
from sifkit.overlay.creating import source
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
scan = source.scan_directory
def watched(*arguments):
    content = scan(*arguments)
    assert "numpy" not in sys.modules and "construct" not in sys.modules
    return content
source.scan_directory = watched
create(sys.argv[1], CreateOptions(from_dir=sys.argv[2]))
assert "numpy" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "o.img", source], check=True, cwd=ROOT)
    assert "upper/etc/conf" in names(tmp_path / "o.img")


def test_a_size_that_cannot_be_is_refused_before_the_scan(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(*_: object) -> None:
        raise AssertionError("the source was scanned")

    monkeypatch.setattr(build_source, "scan_directory", scan)
    with pytest.raises(UsageError, match="--size"):
        make(tmp_path / "o.img", from_dir=source, size=1000)


def test_only_what_the_source_has_is_counted(tmp_path: Path, source: Path) -> None:
    assert make(tmp_path / "a.img", from_dir=source, create_dirs=("new/one",)).files == 5
    (source / "upper").mkdir()
    assert make(tmp_path / "b.img", from_dir=source, layout="root").files == 6
    assert make(tmp_path / "c.img").files == 0


def test_an_epoch_to_come_is_told_once(tmp_path: Path, source: Path) -> None:
    for epoch, said in ((EPOCH, 0), (int(time.time()) + 1000, 1), (2**32 - 1, 1)):
        notes = make(tmp_path / f"{epoch}.img", from_dir=source, source_date_epoch=epoch).notes
        assert sum("SOURCE_DATE_EPOCH is in the future" in note for note in notes) == said


def test_too_little_space_is_told_in_sizes(tmp_path: Path, source: Path) -> None:
    (source / "big").write_bytes(bytes(range(256)) * (40 << 10))
    with pytest.raises(ext3.NoSpaceError, match=r"^the content does not fit in an image of 4 MiB: it needs \d+ MiB$") as caught:
        make(tmp_path / "o.img", from_dir=source, size=4 << 20)
    size = int(caught.value.hint.partition("--size ")[2].partition("M")[0]) << 20
    assert caught.value.needed_bytes <= size
    make(tmp_path / "o.img", from_dir=source, size=size)


@pytest.mark.slow
def test_the_size_that_is_named_is_enough_for_the_inodes(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(12_000):
        (tmp_path / "many" / f"{number}").touch()
    with pytest.raises(ext3.NoSpaceError, match=r"^the content does not fit in an image of 4 MiB: it needs \d+ MiB$") as caught:
        make(tmp_path / "o.img", from_dir=tmp_path / "many", size=4 << 20)
    enough = int(caught.value.hint.partition("--size ")[2].partition("M")[0]) << 20
    assert make(tmp_path / "o.img", from_dir=tmp_path / "many", size=enough).size_bytes == enough


def test_inodes_for_twice_the_content_are_not_too_few(tmp_path: Path) -> None:
    source = tmp_path / "many"
    source.mkdir()
    for number in range(130):
        (source / str(number)).touch()
    chosen = make(tmp_path / "a.img", size=2 << 20, from_dir=source, owner=(1000, 1000))
    assert chosen.inodes == 280 and chosen.notes == ()
    asked = make(tmp_path / "b.img", size=2 << 20, from_dir=source, owner=(1000, 1000), inodes=200)
    assert asked.notes == ("71 % of the 200 inodes are used: --profile conda, or -N, gives more",)


def test_an_excluded_upper_changes_the_layout(tmp_path: Path, source: Path) -> None:
    (source / "upper").mkdir()
    assert make(tmp_path / "o.img", from_dir=source, exclude=("/upper",)).layout == "upper"


def test_unreadable_files(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(25):
        (source / f"secret{number:02}").write_bytes(b"x")
        (source / f"secret{number:02}").chmod(0)
    real = os.access
    if is_root:  # who reads everything
        monkeypatch.setattr(os, "access", lambda path, mode: b"secret" not in os.fsencode(path) and real(path, mode))
    with pytest.raises(ext3.SourceError) as caught:
        make(tmp_path / "o.img", from_dir=source)
    assert "25 files" in str(caught.value)
    assert "secret19" in str(caught.value)
    assert "secret20" not in str(caught.value)
    assert not (tmp_path / "o.img").exists()
    result = make(tmp_path / "o.img", from_dir=source, skip_unreadable=True)
    assert any("25 files" in note for note in result.notes)
    assert "upper/etc/conf" in names(tmp_path / "o.img")


@pytest.mark.skipif(not hasattr(os, "listxattr"), reason="needs extended attributes")
def test_strict_names_what_would_be_lost_and_where(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = {os.fsencode(source / "opt/app"), os.fsencode(source / "etc/conf")}
    monkeypatch.setattr(os, "listxattr", lambda path, **_: ["system.nfs4_acl"] if path in labelled else [])
    with pytest.raises(ext3.SourceError, match=r"would lose: system\.nfs4_acl \(2, first .*etc/conf\)"):
        make(tmp_path / "o.img", from_dir=source, xattrs="strict")
    assert not (tmp_path / "o.img").exists()
    assert any("system.nfs4_acl (2)" in note for note in make(tmp_path / "o.img", from_dir=source).notes)


def test_force_replaces_images_only(tmp_path: Path) -> None:
    target = tmp_path / "o.img"
    make(target)
    with pytest.raises(TargetError, match="exists"):
        make(target)
    make(target, force=True)
    target.write_bytes(b"precious text\n")
    with pytest.raises(NotReplaceableError):
        make(target, force=True)
    assert target.read_bytes() == b"precious text\n"
    target.write_bytes(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + bytes(200))
    for force in (False, True):
        with pytest.raises(NotReplaceableError, match="SIF"):
            make(target, force=force)


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="is a directory"):
        make(tmp_path)
    with pytest.raises(TargetError, match="does not exist"):
        make(tmp_path / "no" / "o.img")


def test_sources_that_cannot_be(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ext3.SourceError, match="No such file"):
        make(tmp_path / "o.img", from_dir=tmp_path / "missing")
    with pytest.raises(ext3.SourceError, match="Not a directory"):
        make(tmp_path / "o.img", from_dir=source / "etc/conf")
    with pytest.raises(ext3.SourceError, match="No such file"):
        make(tmp_path / "o.img", from_tar=tmp_path / "missing.tar")
    with pytest.raises(UsageError):
        make(tmp_path / "o.img", from_dir=source, from_tar=source)
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def test_profiles_and_inodes(tmp_path: Path, source: Path) -> None:
    usual = make(tmp_path / "a.img", size=1 << 30).inodes
    assert usual == 65536
    assert make(tmp_path / "b.img", size=1 << 30, profile="conda").inodes == 4 * usual
    assert make(tmp_path / "c.img", size=1 << 30, profile="data").inodes < usual // 8
    for number in range(40):
        (source / f"f{number}").write_bytes(b"")
    tight = make(tmp_path / "d.img", size=64 << 20, inodes=80, from_dir=source)
    assert any("% of the" in note and "--profile conda" in note for note in tight.notes)


def test_no_journal_is_said(tmp_path: Path) -> None:
    assert any("no journal" in note for note in make(tmp_path / "o.img", journal=False).notes)
    with ext3.Filesystem.open(tmp_path / "o.img") as fs:
        assert not fs.superblock.has_journal


def test_reproducible(tmp_path: Path, source: Path) -> None:
    os.utime(source / "etc/conf", ns=(1, EPOCH * 10**9 - 5))
    images = []
    for number in range(2):
        copy = tmp_path / f"copy{number}"
        for path in [source, *sorted(source.rglob("*"))]:
            target = copy / path.relative_to(source)
            if path.is_dir():
                target.mkdir()
            else:
                target.write_bytes(path.read_bytes())
        os.utime(copy / "etc/conf", ns=(number, EPOCH * 10**9 - 5))
        make(tmp_path / f"{number}.img", from_dir=copy, source_date_epoch=EPOCH)
        images.append((tmp_path / f"{number}.img").read_bytes())
    assert images[0] == images[1]
    facts = listing(tmp_path / "0.img")
    assert facts["upper/etc/conf"].mtime == EPOCH * 10**9 - 5
    assert facts["upper/opt"].mtime == facts["work"].ctime == EPOCH * 10**9
    other = make(tmp_path / "other.img", from_dir=source, source_date_epoch=EPOCH + 1)
    assert other.uuid != make(tmp_path / "o.img", from_dir=source, source_date_epoch=EPOCH).uuid


def test_reproducible_without_an_epoch(tmp_path: Path, source: Path) -> None:
    for path in [source, *source.rglob("*")]:
        os.utime(path, (EPOCH, EPOCH))
    make(tmp_path / "a.img", from_dir=source, reproducible=True)
    make(tmp_path / "b.img", from_dir=source, reproducible=True)
    make(tmp_path / "e1.img", reproducible=True)
    make(tmp_path / "e2.img", reproducible=True)
    assert (tmp_path / "a.img").read_bytes() == (tmp_path / "b.img").read_bytes()
    assert (tmp_path / "e1.img").read_bytes() == (tmp_path / "e2.img").read_bytes()
    with ext3.Filesystem.open(tmp_path / "a.img") as fs:
        assert fs.stat(b"/work").mtime == 315532800 * 10**9
        assert fs.stat(b"/upper/etc").ctime == EPOCH * 10**9


@pytest.mark.parametrize("moment", ["read", "write"])
def test_an_interrupt_leaves_nothing(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    if moment == "read":

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(build_copy.DataWriter, "_copy_small", stop)
    else:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(KeyboardInterrupt if moment == "read" else TargetError) as caught:
        make(tmp_path / "o.img", from_dir=source)
    if moment == "write":
        assert "needs up to" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def test_a_file_that_keeps_changing(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = source / "big"
    big.write_bytes(b"a" * (3 << 20))
    growing = source / "growing"
    growing.write_bytes(b"b" * 5000)
    real = os.readv

    def readv(fd: int, views: list[memoryview]) -> int:
        done = real(fd, views)
        with growing.open("ab") as file:
            file.write(b"more")
        return done

    monkeypatch.setattr(os, "readv", readv)
    with pytest.raises(ext3.ContentChangedError, match=r"growing.*twice"):
        make(tmp_path / "o.img", from_dir=source)
    make(tmp_path / "o.img", from_dir=source, allow_changed=True)
    with ext3.Filesystem.open(tmp_path / "o.img") as fs:
        assert fs.read_bytes(b"/upper/big") == b"a" * (3 << 20)
        assert set(fs.read_bytes(b"/upper/growing")) <= set(b"bmore")


def test_a_file_that_changed_once_is_read_again(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = source / "once"
    once.write_bytes(b"old!")
    real = os.readv
    changed = []

    def readv(fd: int, views: list[memoryview]) -> int:
        done = real(fd, views)
        if not changed and bytes(views[0]) == b"old!":
            changed.append(True)
            once.write_bytes(b"new!")
        return done

    monkeypatch.setattr(os, "readv", readv)
    make(tmp_path / "o.img", from_dir=source)
    assert changed
    with ext3.Filesystem.open(tmp_path / "o.img") as fs:
        assert fs.read_bytes(b"/upper/once") == b"new!"


def _layer() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("etc/conf", b"1"), ("etc/.wh.gone", b""), ("var/.wh..wh..opq", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_a_container_layer_becomes_an_overlay(tmp_path: Path) -> None:
    result = make(tmp_path / "o.img", from_tar=io.BytesIO(_layer()), owner=(5, 5))
    assert result.layout == "upper"
    facts = listing(tmp_path / "o.img")
    assert (facts["upper/etc/gone"].mode & 0o170000, facts["upper/etc/gone"].major) == (0o020000, 0)
    with ext3.Filesystem.open(tmp_path / "o.img") as fs:
        assert fs.xattrs(b"/upper/var") == {b"trusted.overlay.opaque": b"y", b"user.overlay.opaque": b"y"}
    with pytest.raises(UsageError, match="exclude"):
        make(tmp_path / "p.img", from_tar=io.BytesIO(_layer()), exclude=("x",))


def _archive(*members: bytes) -> io.BytesIO:
    return io.BytesIO(b"".join(members) + END)


def test_attributes_without_a_value_are_kept_from_archives(tmp_path: Path) -> None:
    """GNU tar and bsdtar restore them."""
    keys = (b"SCHILY.xattr.user.a", b"LIBARCHIVE.xattr.user.b")
    make(tmp_path / "o.img", from_tar=_archive(file(b"f", records=[(key, b"") for key in keys])), xattrs="strict")
    with ext3.Filesystem.open(tmp_path / "o.img") as fs:
        assert fs.xattrs(b"/upper/f") == {b"user.a": b"", b"user.b": b""}


def test_a_leftover_that_means_nothing_is_no_loss(tmp_path: Path) -> None:
    leftovers = header(b"d/.wh..opq", kind=b"3") + file(b".wh..wh.aufs") + header(b"label", kind=b"V")
    done = make(tmp_path / "o.img", from_tar=_archive(directory(b"d"), leftovers), xattrs="strict")
    assert [note for note in done.notes if ".wh..opq of fuse-overlayfs (1), tar member type V (1)" in note]
    assert names(tmp_path / "o.img") == {"lost+found", "upper", "work", "upper/d"}
    with pytest.raises(SourceError, match=r"would lose: SCHILY.acl.ace \(1, first f\)$"):
        acl = file(b"f", records=[(b"SCHILY.acl.ace", b"nfs")])
        make(tmp_path / "p.img", from_tar=_archive(acl, leftovers), xattrs="strict")


def test_notes_of_an_archive_are_in_the_result(tmp_path: Path) -> None:
    done = make(tmp_path / "o.img", from_tar=io.BytesIO(gzip.compress(header(b"odd", kind=b"Z"))))
    assert [note.partition(" ")[2].partition(",")[0] for note in done.notes[:2]] == [
        "member of the unknown type Z",
        "archive has no end marker; the gzip stream it is packed in is whole",
    ]


@pytest.mark.parametrize("name", [b".wh..wh..opq", b"upper/.wh..wh..opq"])
def test_an_opaque_top_is_said(tmp_path: Path, name: bytes) -> None:
    """The kernel shows the lower layers all the same."""
    done = make(tmp_path / "o.img", from_tar=_archive(file(name)))
    with ext3.Filesystem.open(tmp_path / "o.img") as fs:
        assert fs.xattrs(b"/upper")[b"trusted.overlay.opaque"] == b"y"
    assert [note for note in done.notes if note.startswith("the top of upper/ is opaque: the kernel ignores that")]
    done = make(tmp_path / "p.img", from_tar=_archive(file(b"d/.wh..wh..opq")))
    assert not [note for note in done.notes if "opaque" in note]


def test_what_fuse_overlayfs_left_and_the_kernel_does_not_know_is_said(tmp_path: Path) -> None:
    """As a user fuse-overlayfs 1.13 marks an opaque directory so; the kernel wants an attribute of another name."""
    for name in ("d", "e", "plain"):
        (tmp_path / "upper" / name).mkdir(parents=True)
        (tmp_path / "upper" / name / (".wh..wh..opq" if name != "plain" else "f")).touch()
    done = make(tmp_path / "o.img", from_dir=tmp_path / "upper")
    assert [note for note in done.notes if ".wh." in note] == [
        "2 directories are opaque by .wh..wh..opq, which the kernel ignores: it shows what lower layers have there"
    ]


def test_devices_that_fuse_overlayfs_left_are_said() -> None:
    """The kernel lists them, and lookups find nothing."""
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o040755, 0, 0, 0, (0,) * 6)
    for name in (b".wh..opq", b"gone"):
        builder.devices[builder.add(0, name, stat.S_IFCHR, 0, 0, 0, (0,) * 6)] = (0, 0)
    assert build_source._notes_of_fuse_overlayfs(builder) == [
        "1 device .wh..opq of fuse-overlayfs: in an opaque directory the kernel lists that name, and nobody can remove it"
    ]
