"""Files of the host as a tree: what a link leads to that has no path, and files whose size only reading them tells."""

from __future__ import annotations

import errno
import io
import os
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from sifkit.overlay.oci_layer.layer_export import export_layer
from sifkit.vfs import host_tree
from sifkit.vfs.compare import compare_trees
from sifkit.vfs.extracting import extract
from sifkit.vfs.host_tree import HostContent, HostStream, HostTree

SETTINGS = Path("/proc/sys/net/ipv4/conf/lo")


@pytest.fixture
def settings() -> Path:
    if not SETTINGS.is_dir():
        pytest.skip(f"there is no {SETTINGS} here")
    return SETTINGS


@pytest.mark.parametrize("path", ["/proc/sys/kernel/ostype", "/sys/kernel/mm/transparent_hugepage/enabled"])
def test_a_file_with_a_false_size(path: str) -> None:
    """cat and cp of coreutils read it to its end."""
    if not os.path.exists(path):
        pytest.skip(f"there is no {path} here")
    wanted = Path(path).read_bytes()
    tree = HostTree("/")
    with tree.open_file(os.fsencode(path)) as file:
        assert not file.is_sized
        assert (file.size, file.data_ranges(), file.host_ranges()) == (len(wanted), [(0, len(wanted))], None)
        assert file.read_at(0, 1 << 20) == wanted and file.read_at(2, 3) == wanted[2:5]
        assert HostStream(file.fd).read(1 << 20) == wanted
    (loaded,) = tree.load_many([os.fsencode(path)])
    assert loaded.content is None  # it is opened


def test_true_sizes_are_copied_in_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"data")
    (tmp_path / "empty").touch()
    tree = HostTree(tmp_path)
    for name, size in (("f", 4), ("empty", 0)):
        with tree.open_file(os.fsencode(tmp_path / name)) as file:
            assert file.is_sized and file.size == size
            ranges = file.host_ranges()
            assert ranges is not None and sum(length for *_, length in ranges) == size


def test_what_is_held_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tree, "MAX_HELD_BYTES", 1000)
    (tmp_path / "f").write_bytes(b"x" * 1001)
    with HostContent(tmp_path / "f").open_file(os.fsencode(tmp_path / "f")) as file:
        assert file.size == 1001  # it is sized
    monkeypatch.setattr(host_tree.hostio, "true_size", lambda fd: None)
    with HostTree(tmp_path).open_file(os.fsencode(tmp_path / "f")) as file:
        with pytest.raises(OSError, match="too large") as caught:
            file.data_ranges()
        assert caught.value.errno == errno.EFBIG
        assert HostStream(file.fd).read(2000) == b"x" * 1001


def test_the_files_of_proc_are_exported_extracted_and_compared(settings: Path, tmp_path: Path) -> None:
    wanted = {path.name: path.read_bytes() for path in settings.iterdir()}
    tree = HostTree(settings)
    archive = io.BytesIO()
    assert export_layer(tree, archive).failed == 0
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar:
        assert {info.name: tar.extractfile(info).read() for info in tar if info.isreg()} == wanted  # type: ignore[union-attr]
    assert extract(tree, tmp_path / "out").failed == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == wanted
    problems: list[object] = []
    copy = HostTree(tmp_path / "out")
    assert not list(compare_trees(tree, copy, lambda *problem: problems.append(problem))) and not problems
    name = min(wanted)
    (tmp_path / "out" / name).write_bytes(b"x" + wanted[name])
    assert [one.path for one in compare_trees(tree, copy, lambda *_: None)] == [os.fsencode(name)]


def test_only_the_root_is_followed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"data")
    (tmp_path / "link").symlink_to("f")
    link = os.fsencode(tmp_path / "link")
    tree = HostTree(link)
    assert tree.stat(link).size == 4
    with tree.open_file(link) as file:
        assert file.read_at(0, 10) == b"data"
    with pytest.raises(OSError, match="symbolic"):
        HostTree(tmp_path).open_file(link)


def test_a_removed_file_by_its_descriptor(tmp_path: Path) -> None:
    if not os.path.isdir("/dev/fd"):
        pytest.skip("there is no /dev/fd here")
    (tmp_path / "f").write_bytes(b"data")
    with (tmp_path / "f").open("rb") as opened:
        (tmp_path / "f").unlink()
        path = b"/dev/fd/%d" % opened.fileno()
        tree = HostTree(path)
        assert (tree.stat(path).size, tree.stat(path).links) == (4, 0)
        with tree.open_file(path) as file:
            assert file.is_sized and file.read_at(0, 10) == b"data"


def test_the_content_of_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o640)
    path = os.fsencode(tmp_path / "fifo")
    tree = HostContent(path)
    found = tree.stat(path)
    assert (found.mode & ~0o022, found.size, found.blocks) == (0o100640 & ~0o022, 0, 0)
    writer = threading.Thread(target=lambda: (tmp_path / "fifo").write_bytes(b"data"))
    writer.start()
    with tree.open_file(path) as file:  # waits for the writer
        assert not file.is_sized and file.host_ranges() is None
        assert file.size == 4 and file.read_at(1, 2) == b"at"
    writer.join()
    with pytest.raises(OSError, match="Invalid argument"):
        HostTree(tmp_path).open_file(path)
    with pytest.raises(IsADirectoryError):
        HostContent(tmp_path).stat(os.fsencode(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="longest path of Linux")
def test_a_file_with_too_long_a_path_is_not_missing(tmp_path: Path) -> None:
    name, depth = "d" * 255, 0
    above = os.open(tmp_path, os.O_RDONLY)
    while len(os.fsencode(tmp_path)) + 256 * depth < 4096:
        os.mkdir(name, dir_fd=above)
        below = os.open(name, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above, depth = below, depth + 1
    os.close(above)
    tree = HostTree(tmp_path)
    node = b"/".join([os.fsencode(tmp_path), *[name.encode()] * (depth - 1)])
    (row,) = next(iter(tree.scan_many([node]))).rows
    with pytest.raises(OSError, match="its path is longer") as caught:
        tree.find_name(node, name.encode())
    for error in (caught.value, row.stat):
        assert isinstance(error, OSError) and error.errno == errno.EIO
    with pytest.raises(OSError, match="name too long"):
        tree.find_name(tree.root, b"n" * 256)
