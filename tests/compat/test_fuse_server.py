"""The FUSE server's mounts of squashfs images and of a merged view, against the kernel's."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from sifkit.squashfs.reader import Reader
from sifkit.vfs.file_tree import FileTree
from sifkit.vfs.host_tree import HostTree
from sifkit.vfs.union import UnionTree
from tests.support.fuse_mounts import fuse_mount
from tests.support.squashfs_images import facts_of_tree, make_squashfs, squashfs_mount
from tests.support.tools import requires_root

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

FIXTURES = Path(__file__).parents[2] / "fixtures/squashfs"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a large file, a large directory and names of every length."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "root/many").mkdir(parents=True)
    for number in range(3000):
        (folder / f"root/many/{number:0{1 + number % 250}d}x").touch()
    (folder / "root/big").write_bytes(os.urandom(1 << 20) + bytes(3 << 20) + os.urandom(12345))
    return make_squashfs(folder / "root", folder / "image")


@pytest.mark.parametrize("compressor", ["gzip", "zstd"])
def test_every_file_is_as_the_kernel_shows_it(compressor: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a/b/c").mkdir(parents=True, mode=0o1771)
    (root / "a/file").write_bytes(bytes(300_000) + b"end")
    os.link(root / "a/file", root / "a/b/hard")
    (root / "a/link").symlink_to("../nowhere")
    os.setxattr(root / "a/file", "user.note", b"x" * 300)
    os.setxattr(root / "a", "trusted.overlay.opaque", b"y")
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "gone", 0o20000, 0)
    os.mkfifo(root / "fifo")
    os.chown(root / "a/b/c", 1234, 70_000)
    os.utime(root / "a/b", ns=(5, 2_000_000_000 * 10**9))
    image = make_squashfs(root, tmp_path / "image", "-comp", compressor)
    with Reader.open(image) as reader, fuse_mount(reader) as point, squashfs_mount(image) as kernel:
        assert facts_of_tree(HostTree(point)) == facts_of_tree(HostTree(kernel))
        assert os.statvfs(point).f_files == os.statvfs(kernel).f_files


@pytest.mark.parametrize("threads", [1, 3])
def test_large_directories_and_files(large: Path, threads: int) -> None:
    with Reader.open(large) as reader, fuse_mount(reader, threads=threads) as point:
        names = os.listdir(point / "many")
        assert sorted(names) == sorted(os.listdir(large.parent / "root/many"))
        wanted = (large.parent / "root/big").read_bytes()
        readers = [subprocess.Popen(["cmp", point / "big", large.parent / "root/big"]) for _ in range(4)]
        assert [reader.wait() for reader in readers] == [0] * 4
        with open(point / "big", "rb") as file:
            file.seek(len(wanted) - 100)
            assert file.read() == wanted[-100:]
        assert len(list(os.scandir(point / "many"))) == 3000


def test_an_answer_that_the_kernel_refuses_ends_no_server(tmp_path: Path) -> None:
    class Tree(HostTree):
        def readlink(self, node: bytes, /) -> bytes:
            return b"x" * 5000

    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("read")
    with fuse_mount(Tree(tmp_path)) as point:
        with pytest.raises(OSError) as error:
            os.readlink(point / "link")
        assert error.value.errno == errno.EIO
        assert (point / "file").read_text() == "read"


def test_changes_are_refused_and_missing_names_stay_missing() -> None:
    with Reader.open(FIXTURES / "gzip.sqfs") as reader, fuse_mount(reader, owner=(7, 8)) as point:
        assert (point.stat().st_uid, point.stat().st_gid) == (7, 8)
        for attempt in (
            lambda: (point / "new").write_bytes(b"x"),
            (point / "new").mkdir,
            lambda: os.setxattr(point, "user.x", b"y"),
            lambda: os.chmod(point, 0o700),
        ):
            with pytest.raises(OSError) as error:
                attempt()
            assert error.value.errno == errno.EROFS
        for _ in range(2):
            assert not (point / "missing").exists()
        with pytest.raises(OSError) as error:
            os.getxattr(point, "user.missing")
        assert error.value.errno == errno.ENODATA


def test_a_merged_view(tmp_path: Path) -> None:
    for name in ("low/etc/a", "low/etc/b", "low/gone", "high/etc/b", "high/new"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    os.mknod(tmp_path / "high/gone", 0o20000, 0)
    layers: list[FileTree[object]] = [HostTree(tmp_path / "low"), HostTree(tmp_path / "high")]  # type: ignore[list-item]
    with fuse_mount(UnionTree(layers)) as point:
        found = {str(path.relative_to(point)): path.read_text() for path in point.rglob("*") if path.is_file()}
    assert found == {"etc/a": "low/etc/a", "etc/b": "high/etc/b", "new": "high/new"}
