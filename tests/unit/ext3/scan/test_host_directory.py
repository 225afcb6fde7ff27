"""Scanning a host directory: everything is taken, in canonical order, with one thread and with many."""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ext3
from ext3 import workers
from ext3.scan import host_walk
from ext3.scan.host_directory import host_times

needs_links = pytest.mark.skipif(not hasattr(os, "link") or sys.platform == "win32", reason="needs hard links")
STAMP = ext3.Stamp(1_700_000_000, uuid.UUID(int=1).bytes, uuid.UUID(int=2).bytes)


def scanned(source: Path, **options: object) -> tuple[ext3.Tree, ext3.TreeBuilder]:
    found = source.stat()
    builder = ext3.TreeBuilder()
    builder.add(0, b"", found.st_mode, found.st_uid, found.st_gid, 0, host_times(found))
    content = ext3.scan_directory(builder, os.fsencode(source), 0, ext3.ScanOptions(**options))  # type: ignore[arg-type]
    return builder.finish(content), builder


@pytest.fixture
def threaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call counts as one that waits: threads read all but the first directory."""
    monkeypatch.setattr(workers, "WAIT_SECONDS", -1.0)
    monkeypatch.setattr(workers, "SAMPLE_CALLS", 1)
    monkeypatch.setattr(workers, "SLOW_SAMPLES", 1)


@pytest.fixture(params=["plain", "threads", "one thread", "small pieces", "late"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways a scan may go."""
    if request.param == "plain":
        monkeypatch.setattr(workers, "WAIT_SECONDS", float("inf"))
        return "plain"
    request.getfixturevalue("threaded")
    if request.param == "one thread":
        monkeypatch.setattr(workers, "THREADS", 1)
    elif request.param == "small pieces":
        monkeypatch.setattr(host_walk, "PIECE_NAMES", 3)
        monkeypatch.setattr(host_walk, "MAX_RUNNING", 5)
        monkeypatch.setattr(host_walk, "MAX_READ_AHEAD", 10)
    elif request.param == "late":
        monkeypatch.setattr(workers, "SAMPLE_CALLS", 300)
    return str(request.param)


def facts(tree: ext3.Tree) -> dict[str, object]:
    """All of a tree but the times of access: reading a symlink or a directory changes them."""
    for name in ("atime", "atime_ns"):
        tree.nodes[name] = 0
    names = ("names", "extra_links", "targets", "devices", "xattrs", "segments", "unreadable", "left_out")
    return {"nodes": tree.nodes.tobytes()} | {name: getattr(tree, name) for name in names}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 directories with files, symlinks, holes, and hard links from one subtree to another; tests only read them."""
    top = tmp_path_factory.mktemp("scanned") / "many"
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
    (top / "d02-after").write_bytes(b"x")  # sorts behind d02, before what d02 holds
    (top / "d02" / "Z").mkdir()
    (top / "d02" / os.fsdecode(b"\xff")).mkdir()
    return top


def canonical(top: bytes, directory: bytes = b"") -> Iterator[bytes]:
    """The paths below ``top`` in the order their nodes have, by the definition."""
    names = sorted(os.listdir(os.path.join(top, directory)))
    paths = [os.path.join(directory, name) for name in names]
    yield from paths
    for path in paths:
        if os.path.isdir(os.path.join(top, path)) and not os.path.islink(os.path.join(top, path)):
            yield from canonical(top, path)


def first_names(top: bytes) -> list[bytes]:
    """What of ``canonical`` is a node: the first name of each file."""
    seen: dict[tuple[int, int], bytes] = {}
    for path in canonical(top):
        status = os.lstat(os.path.join(top, path))
        seen.setdefault((status.st_dev, status.st_ino), path)
    return list(seen.values())


@pytest.mark.slow
@needs_links
def test_nodes_are_numbered_in_canonical_order(many: Path, way: str) -> None:
    tree, _ = scanned(many)
    paths = [tree.path(node).strip(b"/") for node in range(1, len(tree))]
    assert paths == [*first_names(os.fsencode(many)), b"lost+found"]


@needs_links
def test_every_way_gives_the_same_tree(many: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = facts(scanned(many)[0])
    with monkeypatch.context() as patch:
        patch.setattr(workers, "WAIT_SECONDS", float("inf"))
        assert found == facts(scanned(many)[0])


@pytest.mark.slow
def test_threads_read_where_reading_waits(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = os.lstat, set()

    def lstat(path: bytes) -> os.stat_result:
        seen.add(threading.get_ident())
        time.sleep(0.0005)
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", lstat)
        slow = facts(scanned(many)[0])
    assert 8 < len(seen) <= 17
    assert threading.active_count() == 1, "processes are forked next"
    seen.clear()
    monkeypatch.setattr(workers, "WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(os, "lstat", lstat)
    assert slow == facts(scanned(many)[0])
    assert seen == {threading.get_ident()}


def test_one_stall_is_not_waiting(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, stalls = os.lstat, [0.3]
    begun: list[int] = []

    def lstat(path: bytes) -> os.stat_result:
        time.sleep(stalls.pop() if stalls else 0)
        return real(path)

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(workers, "WAIT_SECONDS", 0.002)  # far from what a busy machine makes of a call
    monkeypatch.setattr(host_walk, "Threads", lambda work: begun.append(1) or workers.Threads(work))
    scanned(many)
    assert not begun and not stalls


@pytest.mark.slow
@needs_links
def test_the_order_of_directories_on_disk_does_not_matter(many: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = facts(scanned(many)[0])
    real = os.listdir

    def shuffled(path: Any) -> list[Any]:
        names = real(path)
        random.Random(len(names)).shuffle(names)
        return names

    monkeypatch.setattr(os, "listdir", shuffled)
    assert facts(scanned(many)[0]) == expected


def fill(top: Path, order: Callable[[int], int]) -> Path:
    """Three directories of 300 files each, made in the order given by a key; the same times everywhere."""
    top.mkdir()
    paths = [top / f"d{number % 3}" / f"file{number}" for number in sorted(range(900), key=order)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(path.name.encode() * (1 + len(path.name) * 100))
    if hasattr(os, "link"):
        os.link(top / "d1" / "file1", top / "d0" / "zz")
        os.link(top / "d1" / "file1", top / "d2" / "aa")
    for path in (*paths, *(top / f"d{number}" for number in range(3)), top):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return top


def image_bytes(source: Path, image: Path) -> bytes:
    tree, _ = scanned(source)
    tree.clamp_times(1_650_000_000)
    ext3.build_image(tree, image, stamp=STAMP)
    return image.read_bytes()


@pytest.mark.slow
def test_the_image_is_the_same_to_the_byte(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, backward = fill(tmp_path / "a", lambda number: number), fill(tmp_path / "b", lambda number: -number)
    image = image_bytes(forward, tmp_path / "a.img")
    with monkeypatch.context() as patch:
        patch.setattr(workers, "WAIT_SECONDS", float("inf"))
        assert image_bytes(backward, tmp_path / "b.img") == image


@needs_links
def test_links_between_directories_are_one_file(many: Path, way: str) -> None:
    tree, _ = scanned(many)
    wanted = {os.path.relpath(path, many) for path in many.rglob("*")}
    paths = {os.fsdecode(tree.path(node)).strip("/") for node in range(1, len(tree))}
    parents = {parent: os.fsdecode(tree.path(parent)).strip("/") for parent, _, _ in tree.extra_links}
    paths |= {os.path.join(parents[parent], os.fsdecode(name)) for parent, name, _ in tree.extra_links}
    assert paths - {"lost+found"} == wanted
    shared = [node for node in range(len(tree)) if tree.nodes["links"][node] > 2]
    assert len(shared) == 1
    assert tree.path(shared[0]) == b"/d00/e080/same"  # the canonically first of its names
    assert tree.nodes["links"][shared[0]] == (many / "d02/e002/file").stat().st_nlink


@needs_links
def test_links_of_all_kinds_in_many_directories(tmp_path: Path, way: str) -> None:
    """Symlinks, FIFOs and sparse files with more names, the first of them not the one that was made first."""
    top = tmp_path / "top"
    (top / "z").mkdir(parents=True)
    os.symlink("somewhere", top / "z" / "symlink")
    os.mkfifo(top / "z" / "fifo")
    with (top / "z" / "sparse").open("wb") as file:
        file.write(b"x")
        file.truncate(1 << 20)
    for number in range(40):
        (top / f"{number:02}").mkdir()
        for name in ("symlink", "fifo", "sparse"):
            os.link(top / "z" / name, top / f"{number:02}" / name, follow_symlinks=False)
        (top / f"{number:02}" / "between").write_bytes(b"own")
    tree, _ = scanned(top)
    assert len(tree) == 2 + 41 + 40 + 3
    for name, kind in ((b"symlink", 0o120000), (b"fifo", 0o010000), (b"sparse", 0o100000)):
        (node,) = (node for node in range(len(tree)) if tree.names[node] == name)
        assert tree.path(node) == b"/00/" + name
        assert (tree.nodes["links"][node], tree.nodes["mode"][node] & 0o170000) == (41, kind)
        assert [link for _, link, found in tree.extra_links if found == node] == [name] * 40
    assert list(tree.targets.values()) == [b"somewhere"] and len(tree.segments) <= 1
    assert sum(tree.names[node] == b"between" for node in range(len(tree))) == 40


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


def test_unreadable_directories_are_reported_in_order(many: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, real_lstat = os.listdir, os.lstat

    def listdir(path: bytes) -> list[bytes]:
        if path.endswith((b"/e005", b"/e123", b"/e399")):
            raise PermissionError(13, "Permission denied")
        return real(path)

    def lstat(path: bytes) -> os.stat_result:
        if path.endswith((b"/d03", b"/e006/file")):
            raise OSError(errno.EIO, "Input/output error")
        return real_lstat(path)

    monkeypatch.setattr(os, "listdir", listdir)
    monkeypatch.setattr(os, "lstat", lstat)
    _, builder = scanned(many)
    assert [(os.path.relpath(path, os.fsencode(many)), reason) for path, reason in builder.unreadable] == [
        (b"d03", "Input/output error"),
        (b"d05/e005", "Permission denied"),
        (b"d06/e006/file", "Input/output error"),
        (b"d19/e399", "Permission denied"),
    ]


def test_what_is_removed_while_it_is_read_is_left_out(many: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = {name: getattr(os, name) for name in ("listdir", "lstat", "readlink")}

    def gone(name: str, *endings: bytes) -> Callable[[bytes], object]:
        def call(path: bytes) -> object:
            if path.endswith(endings):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory")
            return real[name](path)

        return call

    monkeypatch.setattr(os, "listdir", gone("listdir", b"/e007"))
    monkeypatch.setattr(os, "lstat", gone("lstat", b"/e008/file"))
    monkeypatch.setattr(os, "readlink", gone("readlink", b"/e009/deep/link"))
    tree, builder = scanned(many)
    assert not builder.unreadable
    paths = {tree.path(node) for node in range(len(tree))}
    assert b"/d07/e007" in paths
    assert not paths & {b"/d07/e007/file", b"/d08/e008/file", b"/d09/e009/deep/link"}


def test_attributes_that_cannot_be_read_are_reported(many: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed(path: bytes, **_: object) -> list[str]:
        if path.endswith((b"/e005/file", b"/e004/file")):
            raise OSError(errno.EIO, "Input/output error")
        return []

    monkeypatch.setattr(os, "listxattr", listed, raising=False)
    _, builder = scanned(many)
    assert [(path[-9:], reason) for path, reason in builder.unreadable] == [
        (b"e004/file", "its extended attributes: Input/output error"),
        (b"e005/file", "its extended attributes: Input/output error"),
    ]


def test_attributes_in_canonical_order(many: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first file that says so on, the filesystem knows no attributes, whatever threads found behind it."""

    def listed(path: bytes, **_: object) -> list[str]:
        if path.endswith((b"/e005/file", b"/e008/file")):
            raise OSError(errno.ENOTSUP, "Operation not supported")
        return ["user.kept", "system.lost"]

    def get(path: bytes, name: bytes, **_: object) -> bytes:
        if path.endswith(b"/e004/file"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return os.path.basename(path)

    monkeypatch.setattr(os, "listxattr", listed, raising=False)
    monkeypatch.setattr(os, "getxattr", get, raising=False)
    tree, builder = scanned(many, take_attribute=lambda name: name.startswith(b"user."))
    named = {tree.path(node): values for node, values in tree.xattrs.items()}
    assert named.pop(b"/") == {b"user.kept": b"."}
    assert all(values == {b"user.kept": os.path.basename(path)} for path, values in named.items())
    first = next(node for node in range(len(tree)) if tree.path(node).endswith(b"/e005/file"))
    wanted = [tree.path(node) for node in range(1, first) if not tree.path(node).endswith(b"/e004/file")]
    assert [tree.path(node) for node in sorted(tree.xattrs)] == [b"/", *wanted]
    assert dict(builder.left_out.counts) == {"system.lost": first, "user.kept": 1}
    assert builder.left_out.first["user.kept"].endswith(b"/e004/file")


def test_a_link_without_attributes_says_nothing_of_the_files_beside_it(
    many: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: set[bytes] = set()

    def list_names(path: bytes, **_: object) -> list[str]:
        listed.add(path.split(b"/")[-1])
        if path.endswith(b"/link"):
            raise OSError(errno.ENOTSUP, "Operation not supported")
        return []

    monkeypatch.setattr(os, "listxattr", list_names, raising=False)
    scanned(many)
    assert {b"link", b"file", b"d19", b"e399"} <= listed


def test_an_error_in_a_thread_is_raised_here(many: Path, threaded: None) -> None:
    def exclude(path: bytes, is_directory: bool) -> bool:
        if path == b"d10/e010/deep":
            raise ValueError("of a caller's function")
        return False

    with pytest.raises(ValueError, match="of a caller's function"):
        scanned(many, exclude=exclude)
    assert threading.active_count() == 1


def test_an_interrupt_ends_the_threads(many: Path, threaded: None) -> None:
    class Interrupted(ext3.progress.Silent):
        def __init__(self) -> None:
            self.listed = 0

        def advance(self, count: int) -> None:
            self.listed += count
            if self.listed > 100:
                raise KeyboardInterrupt

    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o040755, 0, 0, 0, (0,) * 6)
    with pytest.raises(KeyboardInterrupt):
        ext3.scan_directory(builder, os.fsencode(many), 0, ext3.ScanOptions(), Interrupted())
    assert threading.active_count() == 1
    assert len(builder.names) < 400


def test_progress_goes_on(many: Path, way: str) -> None:
    class Counting(ext3.progress.Silent):
        def __init__(self) -> None:
            self.counts: list[int] = []

        def advance(self, count: int) -> None:
            assert threading.current_thread() is threading.main_thread()
            self.counts.append(count)

    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o040755, 0, 0, 0, (0,) * 6)
    progress = Counting()
    ext3.scan_directory(builder, os.fsencode(many), 0, ext3.ScanOptions(), progress)
    assert sum(progress.counts) == len(list(many.rglob("*")))
    assert max(progress.counts) <= 64


def test_one_file_system(many: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.lstat

    def lstat(path: bytes) -> os.stat_result:
        status = real(path)
        if b"/d04" in path:
            return os.stat_result((*status[:2], status[2] + 1, *status[3:]), status.__reduce__()[1][1])
        return status

    monkeypatch.setattr(os, "lstat", lstat)
    tree, _ = scanned(many, one_file_system=True)
    paths = {tree.path(node) for node in range(len(tree))}
    assert b"/d04" in paths and b"/d04/e004" not in paths and b"/d05/e005/deep/link" in paths


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


@pytest.mark.slow
def test_thousands_of_directories_in_one(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    for number in range(17_000):
        os.mkdir(f"{top}/{number}")
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
