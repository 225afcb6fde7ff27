"""Places of mounts below the root of a container, and the mount points that are made in directories of the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sifkit.runtime.container.container_mounts import _target, is_directory_mount, with_image_sources
from sifkit.runtime.errors import LaunchError
from sifkit.runtime.planning.run_plan import Layer, Mount


def test_mount_points_in_directories_of_the_host(tmp_path: Path) -> None:
    home = tmp_path / "home/me"
    home.mkdir(parents=True)

    def target(name: str, **more: bool) -> bytes:
        mount = Mount(kind="bind", source=str(tmp_path), target=f"/home/me/{name}", **more)  # type: ignore[arg-type]
        return _target(str(tmp_path), mount, (), (os.fsencode(home),), makes_missing=True)

    assert target("asked/for") == os.fsencode(home / "asked/for") and (home / "asked/for").is_dir()
    with pytest.raises(FileNotFoundError):
        target("usual", is_optional=True)
    assert target("project", is_optional=True, make_in_bind=True) == os.fsencode(home / "project")
    assert sorted(os.listdir(home)) == ["asked", "project"]


def test_nothing_is_mounted_over_the_root(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/.")
    mount = Mount(kind="bind", source="/tmp", target="/link")
    with pytest.raises(OSError, match="root of the container"):
        _target(str(tmp_path), mount, (), (), makes_missing=True)


def test_sources_in_images_do_not_lead_out_of_them(tmp_path: Path) -> None:
    """The links of an image are its own, and its root has nothing above it."""
    image = Layer(path="/data.sqfs", kind="squashfs")
    root = tmp_path / "mounted"
    (root / "sub").mkdir(parents=True)
    (root / "sub/file").touch()
    (tmp_path / "outside").touch()
    for name, text in (("up", "../../../sub"), ("absolute", "/sub"), ("host", "/etc"), ("loop", "loop"), ("out", "../outside")):
        (root / name).symlink_to(text)
    host = Mount(kind="bind", source="/usr", target="/usr")

    def found(path: str) -> Mount:
        bind = Mount(kind="bind", target="/data", image=image, image_source=path)
        kept, mount = with_image_sources([host, bind], {image: str(root)})
        assert kept is host
        return mount

    for path, wanted in (("/", ""), ("/sub/../../..", ""), ("/up", "/sub"), ("/absolute", "/sub"), ("/up/file", "/sub/file")):
        mount = found(path)
        assert mount.source == f"{root}{wanted}" and is_directory_mount(mount) == (wanted != "/sub/file")
    for path, reason in (
        ("/host", "no such file"),
        ("/out", "no such file"),
        ("/loop", "symbolic links"),
        ("/sub/file/x", "not a dir"),
    ):
        with pytest.raises(LaunchError, match=f"^{path} in /data.sqfs: .*{reason}"):
            found(path)
