"""Places of mounts below the root of a container, and the mount points that are made in directories of the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sifkit.runtime.container.container_mounts import _target
from sifkit.runtime.planning.run_plan import Mount


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
