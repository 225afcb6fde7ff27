"""Scanning a host directory: everything is taken, in the same order with one process and with many."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

import ext3
from ext3.scan import host_directory as scan_module
from ext3.scan.host_directory import host_times

needs_links = pytest.mark.skipif(not hasattr(os, "link") or sys.platform == "win32", reason="needs hard links")


def scanned(source: Path, **options: object) -> tuple[ext3.Tree, ext3.TreeBuilder]:
    found = source.stat()
    builder = ext3.TreeBuilder()
    builder.add(0, b"", found.st_mode, found.st_uid, found.st_gid, 0, host_times(found))
    content = ext3.scan_directory(builder, os.fsencode(source), 0, ext3.ScanOptions(**options))  # type: ignore[arg-type]
    return builder.finish(content), builder


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """400 directories with files, symlinks, holes, and hard links from one subtree to another."""
    top = tmp_path / "many"
    top.mkdir()
    for number in range(400):
        directory = top / f"d{number % 20:02}" / f"e{number:03}"
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(b"%d" % number)
        (directory / "deep").mkdir()
        (directory / "deep" / "link").symlink_to(f"../file{number}")
        if number % 7 == 3:
            os.link(top / "d02" / "e002" / "file", directory / "same")
            os.link(directory / "file", directory / "deep" / "other")
        if number % 50 == 0:
            with (directory / "deep" / "holes").open("wb") as file:
                file.truncate(1 << 20)
                file.seek(500_000)
                file.write(b"x")
    return top


@needs_links
@pytest.mark.parametrize("most", [3, 2048])
def test_one_process_and_many_give_the_same_tree(many: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(scan_module, "SUBTREE_NAMES", most)
    results = []
    for workers in (1, 3):
        monkeypatch.setattr(scan_module, "workers_for", lambda jobs, count=workers: count)
        tree, _ = scanned(many)
        for name in ("atime", "atime_ns"):
            tree.nodes[name] = 0  # reading a symlink or a directory changes it
        results.append(tree)
    one, several = results
    assert one.names == several.names
    assert one.nodes.tobytes() == several.nodes.tobytes()
    for name in ("extra_links", "targets", "devices", "xattrs", "segments"):
        assert getattr(one, name) == getattr(several, name)


@needs_links
@pytest.mark.parametrize("most", [3, 2048])
def test_links_between_subtrees_are_one_file(many: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(scan_module, "SUBTREE_NAMES", most)
    tree, _ = scanned(many)
    wanted = {os.path.relpath(path, many) for path in many.rglob("*")}
    paths = {os.fsdecode(tree.path(node)).strip("/") for node in range(1, len(tree))}
    parents = {parent: os.fsdecode(tree.path(parent)).strip("/") for parent, _, _ in tree.extra_links}
    paths |= {os.path.join(parents[parent], os.fsdecode(name)) for parent, name, _ in tree.extra_links}
    assert paths - {"lost+found"} == wanted
    shared = [node for node in range(len(tree)) if tree.nodes["links"][node] > 2]
    assert len(shared) == 1
    assert tree.nodes["links"][shared[0]] == (many / "d02/e002/file").stat().st_nlink


def test_what_is_left_of_a_large_subtree_is_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        for name in range(10):
            (tmp_path / "top" / "one" / f"{number:02}" / f"{name}" / "deep").mkdir(parents=True)
    (tmp_path / "top" / "two").mkdir()
    monkeypatch.setattr(scan_module, "SUBTREES", 2)
    monkeypatch.setattr(scan_module, "SUBTREE_NAMES", 30)
    shared: list[int] = []
    monkeypatch.setattr(scan_module, "workers_for", lambda jobs: shared.append(jobs) or 2)
    tree, _ = scanned(tmp_path / "top")
    assert len(tree) == 40 * 21 + 2 + 2
    assert {tree.path(node) for node in range(len(tree))} >= {b"/one/%02d/9/deep" % number for number in range(40)}
    assert shared[0] == 2 and len(shared) < 10 and max(shared) > 20


def test_data_is_read_where_it_was_found(many: Path, tmp_path: Path) -> None:
    tree, _ = scanned(many)
    ext3.build_image(tree, tmp_path / "o.img")
    with ext3.Filesystem.open(tmp_path / "o.img") as fs:
        for path in many.rglob("file"):
            assert fs.read_bytes(os.fsencode(path.relative_to(many))) == path.read_bytes()


def test_without_attributes_none_are_listed(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(*_: object, **__: object) -> list[str]:
        raise AssertionError("attributes were listed")

    monkeypatch.setattr(os, "listxattr", listed, raising=False)
    tree, builder = scanned(many, take_attribute=None)
    assert not tree.xattrs
    assert not builder.left_out.counts


def test_an_unreadable_directory_is_reported(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.listdir

    def listdir(path: bytes) -> list[bytes]:
        if path.endswith(b"/e005"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    _, builder = scanned(many)
    assert [(path.split(b"/")[-1], reason) for path, reason in builder.unreadable] == [(b"e005", "Permission denied")]


def test_few_wide_directories_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        for name in range(50):
            (tmp_path / "top" / f"{number:02}" / f"{name}").mkdir(parents=True)
    monkeypatch.setattr(scan_module, "WIDE", 100)
    shared: list[int] = []
    monkeypatch.setattr(scan_module, "workers_for", lambda jobs: shared.append(jobs) or 1)
    tree, _ = scanned(tmp_path / "top")
    assert len(tree) == 20 * 51 + 2
    assert shared[0] >= 8


def test_attributes_that_cannot_be_read_are_reported(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(path: bytes, **_: object) -> list[str]:
        if path.endswith(b"/e005/file"):
            raise OSError(errno.EIO, "Input/output error")
        return []

    monkeypatch.setattr(os, "listxattr", listed, raising=False)
    _, builder = scanned(many)
    assert [reason for _, reason in builder.unreadable] == ["its extended attributes: Input/output error"]


def test_a_link_without_attributes_says_nothing_of_the_files_beside_it(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: set[bytes] = set()

    def list_names(path: bytes, **_: object) -> list[str]:
        listed.add(path.split(b"/")[-1])
        if path.endswith(b"/link"):
            raise OSError(errno.ENOTSUP, "Operation not supported")
        return []

    monkeypatch.setattr(os, "listxattr", list_names, raising=False)
    monkeypatch.setattr(scan_module, "workers_for", lambda jobs: 1)
    scanned(many)
    assert {b"link", b"file", b"d19", b"e399"} <= listed


def test_a_file_that_vanishes_is_an_error_that_names_it(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "gone").write_bytes(b"data")
    tree, _ = scanned(top)
    (top / "gone").unlink()
    with pytest.raises(ext3.SourceError, match="gone: was removed"):
        ext3.build_image(tree, tmp_path / "o.img")


def test_a_source_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ext3.SourceError, match="not a directory"):
        scanned(tmp_path / "file")


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_to_be_done_meanwhile_is_done_once(many: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(scan_module, "workers_for", lambda jobs: workers)
    monkeypatch.setattr(scan_module, "SUBTREE_NAMES", 3)  # many rounds
    for source in (many, many / "d00" / "e000" / "deep"):
        calls: list[int] = []
        builder = ext3.TreeBuilder()
        builder.add(0, b"", 0o040755, 0, 0, 0, (0,) * 6)
        ext3.scan_directory(builder, os.fsencode(source), 0, ext3.ScanOptions(), meanwhile=lambda calls=calls: calls.append(1))
        assert calls == [1]


def test_thousands_of_directories_in_one(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for number in range(17_000):  # more than numbers fit a pipe
        (top / f"{number}").mkdir(parents=True)
    tree, _ = scanned(top)
    assert len(tree) == 17_002


def test_a_hole_that_got_data_after_the_scan_is_an_error(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    for name, first in (("some", b"data"), ("none", b"")):
        with (top / name).open("wb") as file:
            file.write(first)
            file.truncate(1 << 20)
    for name in ("some", "none"):
        tree, builder = scanned(top)
        if len(builder.segments) < 2:
            pytest.skip("this filesystem keeps no holes")
        with (top / name).open("r+b") as file:
            file.seek(500_000)
            file.write(b"late")
        with pytest.raises(ext3.ContentChangedError, match=name):
            ext3.build_image(tree, tmp_path / "o.img")
        with (top / name).open("r+b") as file:
            file.truncate(4)
            file.truncate(1 << 20)


@needs_links
def test_a_hard_link_called_lost_and_found_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    os.link(tmp_path / "a", tmp_path / "lost+found")
    with pytest.raises(ext3.SourceError, match=r"lost\+found"):
        scanned(tmp_path)


def test_attributes_of_a_source_reached_by_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    try:
        os.setxattr(tmp_path / "real", "user.x", b"1")
    except (OSError, AttributeError):
        pytest.skip("no extended attributes here")
    (tmp_path / "link").symlink_to("real")
    tree, _ = scanned(tmp_path / "link")
    assert tree.xattrs[0] == {b"user.x": b"1"}
