"""Paths below the root of a container: hostile symlinks stay inside, missing mount points are made in a layer of their own."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from sifkit.runtime.container.mount_points import Root, TreeRoot, add_mount_point, find_link, resolve_below
from sifkit.vfs.host_tree import HostTree

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="containers run on Linux only")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "root"
    (found / "a/b").mkdir(parents=True)
    (found / "file").touch()
    (found / "absolute").symlink_to("/a")
    (found / "above").symlink_to("../../../a/../a/b")
    (found / "circle").symlink_to("circle")
    (found / "dangling").symlink_to("nowhere/at/all")
    return found


@pytest.fixture(params=["mounted", "tree"])
def looked_into(root: Path, request: pytest.FixtureRequest) -> bytes | Root:
    """The root as a mounted directory, and as the tree that a server will show."""
    return os.fsencode(root) if request.param == "mounted" else TreeRoot(HostTree(root))


@pytest.mark.parametrize(
    ("path", "existing", "missing"),
    [
        (b"/", (), ()),
        (b"/a/b", (b"a", b"b"), ()),
        (b"/a/./b/../b//c/d", (b"a", b"b"), (b"c", b"d")),
        (b"/absolute/b", (b"a", b"b"), ()),
        (b"/above", (b"a", b"b"), ()),
        (b"/../../etc/passwd", (), (b"etc", b"passwd")),
        (b"/dangling/x", (), (b"nowhere", b"at", b"all", b"x")),
        (b"/file", (b"file",), ()),
    ],
)
def test_paths_stay_below_the_root(
    root: Path, looked_into: bytes | Root, path: bytes, existing: tuple[bytes, ...], missing: tuple[bytes, ...]
) -> None:
    found = resolve_below(looked_into, path)
    assert (found.existing, found.missing) == (existing, missing)
    assert os.path.lexists(found.below(os.fsencode(root)))


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"/circle", errno.ELOOP),
        (b"/file/x", errno.ENOTDIR),
        (b"/new/../x", errno.ENOENT),
        (b"/a" * 5000, errno.ENAMETOOLONG),
    ],
)
def test_paths_that_cannot_be(looked_into: bytes | Root, path: bytes, number: int) -> None:
    with pytest.raises(OSError) as error:
        resolve_below(looked_into, path)
    assert error.value.errno == number


def test_missing_mount_points_lie_in_the_layer(root: Path, looked_into: bytes | Root, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (root / "a").chmod(0o2751)
    before = sorted(root.rglob("*"))

    def add(path: bytes, *, is_directory: bool = True) -> bool:
        return add_mount_point(looked_into, os.fsencode(layer), path, is_directory=is_directory)

    assert add(b"/absolute/new/deep") and add(b"/a/new/text", is_directory=False) and add(b"/a/new/deep/er")
    assert not add(b"/a/b") and not add(b"/file", is_directory=False)
    assert {str(path.relative_to(layer)): path.is_dir() for path in layer.rglob("*")} == {
        "a": True,
        "a/new": True,
        "a/new/deep": True,
        "a/new/deep/er": True,
        "a/new/text": False,
    }
    assert stat.S_IMODE((layer / "a").stat().st_mode) == 0o2751
    assert sorted(root.rglob("*")) == before


def test_a_link_is_hidden_and_not_followed(root: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (root / "a/link").symlink_to("/file")
    found = find_link(bytes(root), b"/absolute/link")
    assert found is not None and (found.existing, found.missing) == ((b"a",), (b"link",))
    assert not add_mount_point(bytes(root), bytes(layer), b"/a/link", is_directory=False)
    assert add_mount_point(bytes(root), bytes(layer), b"/absolute/link", is_directory=False, hides_link=True)
    assert (layer / "a/link").is_file()
    for other in (b"/file", b"/a/b", b"/nothing/at/all", b"/dangling/x"):
        assert find_link(bytes(root), other) is None
