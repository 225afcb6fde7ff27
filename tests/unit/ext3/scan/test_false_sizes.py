"""Files whose reported size is false: which are read in a scan, and what is in the tree then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ext3
from ext3 import hostio
from ext3.newfs import host_files
from ext3.scan import directory_reader, false_sizes
from ext3.scan.false_sizes import SizeTrust, doubtful_devices

from .test_host_directory import scanned

MOUNTS = b"""\
22 27 0:21 / /proc rw,relatime - proc proc rw
23 27 0:22 / /sys rw,relatime shared:7 - sysfs sysfs rw
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /mnt/a\\040b rw - fuse.sshfs host: rw
31 27 0:41 / /net rw - nfs4 server:/ rw
32 27 8:1 / /win rw - fuseblk /dev/sda1 rw
33 27 0:99999 / /odd rw - unheardof none rw
nonsense
- -
""".splitlines()


def test_filesystems_that_are_doubted() -> None:
    assert doubtful_devices(MOUNTS) == {
        os.makedev(0, 21): False,
        os.makedev(0, 22): False,
        os.makedev(0, 40): True,
        os.makedev(0, 99999): False,
    }


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SizeTrust:
    (tmp_path / "mounts").write_bytes(b"\n".join(MOUNTS))
    monkeypatch.setattr(false_sizes, "MOUNTS", str(tmp_path / "mounts"))
    monkeypatch.setattr(false_sizes, "FUSE_SAMPLES", 2)
    return SizeTrust()


def test_files_that_are_read(trust: SizeTrust) -> None:
    proc, disk, subvolume, fuse = (os.makedev(*number) for number in ((0, 21), (254, 0), (0, 77), (0, 40)))
    assert [trust.doubts(proc, blocks) for blocks in (0, 8, 0)] == [True, False, True]
    assert not trust.doubts(disk, 0) and not trust.doubts(subvolume, 0)
    assert trust.trusted == {disk, subvolume}
    assert [trust.doubts(fuse, 8) for _ in range(4)] == [True, True, False, False]  # a sample
    assert trust.doubts(fuse, 0)
    trust.distrust(fuse)
    assert all(trust.doubts(fuse, 8) for _ in range(4))


def test_without_proc_all_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(false_sizes, "MOUNTS", "/no/such/file")
    assert not SizeTrust().doubts(os.makedev(0, 21), 0)


def test_the_files_of_proc_are_in_the_tree() -> None:
    source = Path("/proc/sys/net/ipv4/conf/lo")
    if not source.is_dir():
        pytest.skip(f"there is no {source} here")
    tree, builder = scanned(source)
    assert not builder.unreadable
    wanted = {os.fsencode(path.name): path.read_bytes() for path in source.iterdir()}
    found = {}
    for node in range(1, len(tree)):
        if node != tree.lost_found:
            view = bytearray(int(tree.nodes["size"][node]))
            tree.content.read_whole(node, memoryview(view))
            with tree.content.open(node) as file:
                again = bytearray(len(view))
                assert file.read_into(memoryview(again), 0) == len(view) and again == view
                assert not file.changed()
            found[tree.names[node]] = bytes(view)
    assert found == wanted and len(found) > 10


@pytest.fixture
def all_false(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes of all files are taken to be false."""
    monkeypatch.setattr(SizeTrust, "doubts", lambda *_: True)
    monkeypatch.setattr(hostio, "true_size", lambda fd: None)


@pytest.mark.usefixtures("all_false")
def test_content_is_held_with_links_and_holes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    os.link(tmp_path / "a", tmp_path / "b")
    with (tmp_path / "c").open("wb") as file:
        file.truncate(3 << 20)
    tree, builder = scanned(tmp_path)
    nodes = {name: node for node, name in enumerate(tree.names)}
    assert [(name, node) for _, name, node in tree.extra_links] == [(b"b", nodes[b"a"])]
    assert not tree.segments and not builder.unreadable
    for name, content in ((b"a", b"data"), (b"c", bytes(3 << 20))):
        assert int(tree.nodes["size"][nodes[name]]) == len(content)
        with tree.content.open(nodes[name]) as opened:
            view = bytearray(b"\xaa" * len(content))
            assert opened.read_into(memoryview(view), 0) == len(content) and view == content


@pytest.mark.usefixtures("all_false")
def test_what_is_held_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_reader, "MAX_HELD_BYTES", 1 << 20)
    (tmp_path / "a").write_bytes(bytes(600_000))
    (tmp_path / "b").write_bytes(bytes(600_000))
    tree, builder = scanned(tmp_path)
    assert b"b" not in tree.names
    reason = "it has more than the 600000 bytes its filesystem reports; 1 MiB are read"
    assert builder.unreadable == [(os.fsencode(tmp_path / "b"), reason)]


@pytest.mark.parametrize("size", [10, 1 << 20])
@pytest.mark.parametrize("real", [-1, 1])
def test_a_false_size_that_no_scan_saw_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, real: int
) -> None:
    """A FUSE filesystem whose first files had true sizes."""
    (tmp_path / "f").write_bytes(b"x" * size)
    tree, _ = scanned(tmp_path)
    (tmp_path / "f").write_bytes(b"x" * (size + real))
    state = (size, *(int(tree.nodes[name][1]) for name in ("mtime", "mtime_ns")))
    monkeypatch.setattr(host_files, "_fingerprint", lambda fd: state)
    stat = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*stat(fd)[:6], size, *stat(fd)[7:10]]))
    with pytest.raises(ext3.SourceError, match=rf"/f: its filesystem reports {size} bytes, and it has more or fewer$"):
        if size < 1 << 20:
            tree.content.read_whole(1, memoryview(bytearray(size)))
        else:
            with tree.content.open(1) as file:
                file.changed()
