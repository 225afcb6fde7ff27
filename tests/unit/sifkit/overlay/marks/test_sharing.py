"""Sharing of an overlay: what is missing, what is changed, and what is refused before any change."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ext3 import Filesystem
from ext3.constants import S_IFCHR, S_IFIFO
from ext3.edit.filesystem import WritableFilesystem
from sifkit.cli import main
from sifkit.errors import ImageInUseError, SifkitError
from sifkit.file_locks import lock_range
from sifkit.overlay.marks.normalizing import NormalizeOptions, normalize
from sifkit.overlay.marks.sharing import NotSharableError, check_shared, share

from .....support.commands import stat_in

STATE = 1024 + 58
"""Byte of an image where s_state is."""
MODES = {
    "private": (0o600, 0o644),
    "run": (0o4710, 0o4755),
    "open": (0o644, 0o644),
    "none": (0, 0o444),
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An overlay that lacks everything: marks of fuse-overlayfs, closed files, a file mode of 0600."""
    path = tmp_path / "a.img"
    assert main(["-q", "overlay", "create", "--size", "8M", str(path)]) == 0
    with Filesystem.open(path, "r+") as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.mkdir("/upper/d", 0o700)
        fs.create("/upper/d/.wh.gone", 0o700)
        for name, (mode, _) in MODES.items():
            fs.create(f"/upper/{name}", mode)
        fs.symlink("private", "/upper/link")
        fs.link("/upper/private", "/upper/d/again")
        fs.mknod("/upper/removed", S_IFCHR)
        fs.mknod("/upper/fifo", S_IFIFO | 0o600)
        fs.mkdir("/work/work", 0)
    path.chmod(0o600)
    return path


def set_state(image: Path, state: int) -> None:
    with open(image, "rb+") as file:
        os.pwrite(file.fileno(), bytes((state, 0)), STATE)


def test_what_is_missing(image: Path) -> None:
    data = image.read_bytes()
    found = check_shared(image)
    text = "\n".join(found.missing)
    assert len(found.missing) == 3 and image.read_bytes() == data
    assert "do not hold for every user" in text
    assert "5 files in upper/ cannot be read by all" in text and "its mode is 0600" in text


def test_share(image: Path) -> None:
    done = share(image)
    assert (done.plan.converted, done.modes, done.file_mode, done.replayed) == (1, 5, 0o600, False)
    for name, (_, mode) in MODES.items():
        assert stat.S_IMODE(stat_in(image, f"/upper/{name}").mode) == mode, name
    assert stat.S_IMODE(stat_in(image, "/upper/d").mode) == 0o755
    assert stat.S_IMODE(stat_in(image, "/upper/fifo").mode) == 0o644
    assert stat_in(image, "/upper/removed").mode == stat_in(image, "/upper/d/gone").mode == S_IFCHR
    assert stat_in(image, "/upper/link").mode & 0o777 == 0o777
    assert stat.S_IMODE(stat_in(image, "/work/work").mode) == 0
    data = image.read_bytes()
    assert not share(image).changes and image.read_bytes() == data
    assert check_shared(image).missing == ("the image file cannot be read by all: its mode is 0600",)
    image.chmod(0o444)
    assert check_shared(image).missing == ()


@pytest.mark.parametrize(("state", "reason"), [(0, "unmounted"), (3, "marked as damaged")])
def test_a_filesystem_that_says_it_is_not_clean(image: Path, state: int, reason: str) -> None:
    set_state(image, state)
    data = image.read_bytes()
    assert any(reason in one for one in check_shared(image).missing)
    with pytest.raises(NotSharableError, match=reason) as caught:
        share(image)
    assert "fsck -fp" in caught.value.hint and image.read_bytes() == data


def test_a_damaged_filesystem(image: Path) -> None:
    with Filesystem.open(image) as fs:
        ino, table = fs.lookup("/upper/open"), int(fs.groups["bg_inode_table"][0])
        offset = table * fs.superblock.block_size + (ino - 1) * fs.superblock.inode_size
    with open(image, "rb+") as file:
        os.pwrite(file.fileno(), b"\7\0", offset + 26)  # i_links_count
    data = image.read_bytes()
    assert any("damaged" in one for one in check_shared(image).missing)
    with pytest.raises(NotSharableError, match="damaged") as caught:
        share(image)
    assert image.read_bytes() == data
    assert caught.value.hint == f"repair it with: sifkit overlay fsck -fp {image}"
    assert main(["-q", *caught.value.hint.split()[4:]]) == 1  # corrected, although the image says that it is clean
    share(image)


def test_a_directory_that_is_none(image: Path) -> None:
    """Its entry says that it is one."""
    with Filesystem.open(image) as fs:
        ino, table = fs.lookup("/upper/d"), int(fs.groups["bg_inode_table"][0])
        offset = table * fs.superblock.block_size + (ino - 1) * fs.superblock.inode_size
    with open(image, "rb+") as file:
        os.pwrite(file.fileno(), bytes(128), offset)
    for work in (check_shared, normalize):
        with pytest.raises(SifkitError, match="/d: the image is damaged"):
            work(image)


def test_opaque_directories_need_a_base(image: Path, tmp_path: Path) -> None:
    with Filesystem.open(image, "r+") as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.set_xattr("/upper/d", b"user.overlay.opaque", b"y")
    data = image.read_bytes()
    assert any("1 directory is opaque" in one for one in check_shared(image).missing)
    with pytest.raises(NotSharableError, match="opaque"):
        share(image)
    assert image.read_bytes() == data
    (tmp_path / "base" / "d").mkdir(parents=True)
    options = NormalizeOptions(base=tmp_path / "base")
    assert share(image, options).plan.opened == 1
    assert len(check_shared(image, options).missing) == 1


def test_names_that_are_no_clear_marks(image: Path) -> None:
    with Filesystem.open(image, "r+") as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.create("/upper/d/gone")
    data = image.read_bytes()
    assert any("upper/d/gone" in one for one in check_shared(image).missing)
    with pytest.raises(NotSharableError, match="upper/d/gone"):
        share(image)
    assert image.read_bytes() == data


def test_an_image_that_is_written_to(image: Path) -> None:
    with open(image, "rb+") as file:
        if not lock_range(file.fileno(), write=True):
            pytest.skip("no locks here")
        assert any("in use" in one for one in check_shared(image).missing)
        with pytest.raises(ImageInUseError):
            share(image)


def test_jobs_that_read_are_welcome(image: Path) -> None:
    share(image)
    image.chmod(0o444)
    with open(image, "rb") as file:
        lock_range(file.fileno(), write=False)
        assert check_shared(image).missing == ()
        assert not share(image).changes


def test_an_image_that_apptainer_refuses(tmp_path: Path) -> None:
    path = tmp_path / "b.img"
    assert main(["-q", "overlay", "create", "--no-journal", "--size", "8M", str(path)]) == 0
    with pytest.raises(NotSharableError, match="no journal"):
        share(path)
