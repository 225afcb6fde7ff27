"""Places of mounts below the root of a container, and the mount points that are made in directories of the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sifkit.runtime.container.container_mounts import (
    _DoneMount,
    _holder,
    _target,
    is_directory_mount,
    mounts_in_written_root,
    with_image_sources,
)
from sifkit.runtime.errors import LaunchError
from sifkit.runtime.planning.run_plan import Layer, Mount


def test_mount_points_in_directories_of_the_host(tmp_path: Path) -> None:
    home = tmp_path / "home/me"
    home.mkdir(parents=True)

    def target(name: str, **more: bool) -> bytes:
        mount = Mount(kind="bind", source=str(tmp_path), target=f"/home/me/{name}", **more)  # type: ignore[arg-type]
        return _target(str(tmp_path), mount, (_DoneMount(os.fsencode(home), "host"),), makes_missing=True)

    assert target("asked/for") == os.fsencode(home / "asked/for") and (home / "asked/for").is_dir()
    with pytest.raises(FileNotFoundError):
        target("usual", is_optional=True)
    assert target("project", is_optional=True, make_in_bind=True) == os.fsencode(home / "project")
    with pytest.raises(FileNotFoundError):
        target("scratch", make_target=False)
    assert sorted(os.listdir(home)) == ["asked", "project"]


def test_no_mount_points_are_made_in_directories_of_the_kernel(tmp_path: Path) -> None:
    for source, holder in (("/dev", "kernel"), ("/dev/shm", "host"), ("/sys/fs/cgroup", "kernel"), ("/system", "host")):
        assert _holder(Mount(kind="bind", source=source, target="/x")) == holder
    assert _holder(Mount(kind="proc", target="/proc")) == "kernel" and _holder(Mount(kind="tmpfs", target="/x")) == "memory"
    (tmp_path / "dev/shm").mkdir(parents=True)
    devices = _DoneMount(os.fsencode(tmp_path / "dev"), "kernel")
    mount = Mount(kind="bind", source=str(tmp_path), target="/dev/shm/x")
    with pytest.raises(FileNotFoundError, match="no such path"):
        _target(str(tmp_path), mount, (devices,), makes_missing=True)
    memory = _DoneMount(os.fsencode(tmp_path / "dev/shm"), "memory")
    assert _target(str(tmp_path), mount, (devices, memory), makes_missing=False) == os.fsencode(tmp_path / "dev/shm/x")


def test_a_missing_home_directory_in_a_root_that_is_written_to(tmp_path: Path) -> None:
    """It is in memory, unless a directory is mounted above it: memory would hide that."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    temporary = Mount(kind="bind", source="/tmp", target="/tmp")
    for home, memory in (("/home/me", ["/home"]), ("/tmp/me", []), ("/me", [])):
        mounts = [temporary, Mount(kind="bind", source="/data", target=home)]
        found = mounts_in_written_root(str(tmp_path), mounts, home)
        assert [mount.target for mount in found if mount.kind == "tmpfs"] == memory


def test_nothing_is_mounted_over_the_root(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/.")
    mount = Mount(kind="bind", source="/tmp", target="/link")
    with pytest.raises(OSError, match="root of the container"):
        _target(str(tmp_path), mount, (), makes_missing=True)


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
