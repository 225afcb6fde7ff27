"""``sifkit overlay fsck --undo`` and ``sifkit overlay undo``: the image as it was, or not touched."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from ext3 import hostio
from ext3.device.base import FileDevice
from sifkit.file_locks import lock_range
from sifkit.overlay.edit.edit_session import edit_image

from .....support.commands import Run, good, refused
from .....support.fsck_damage import damage_counts, damage_pointer, set_superblock

UNDO = ("overlay", "undo")


@pytest.fixture
def image(overlay: Path) -> Path:
    """overlay.img with a damaged file and a wrong count."""
    with edit_image("overlay.img") as edited:
        edited.filesystem.write_bytes("/upper/a", b"a" * 3000)
    damage_counts(overlay)
    damage_pointer(overlay)
    return overlay


def test_a_check_is_undone(run: Run, image: Path) -> None:
    before = image.read_bytes()
    code, _, err = run("overlay", "fsck", "-fy", "--undo", "my undo", image)
    assert code == 1 and err.endswith(f"to undo it: sifkit overlay undo 'my undo' {image}\n")
    assert stat.S_IMODE(os.stat("my undo").st_mode) == 0o600
    assert image.read_bytes() != before and run("overlay", "fsck", "-fn", image)[0] == 0
    assert good(run, *UNDO, "my undo", image) == ""
    assert image.read_bytes() == before
    code, _, err = run(*UNDO, "-v", "my undo", image)
    assert code == 0 and "it is as it was before the check" in err
    assert os.path.exists("my undo")


def test_a_check_that_stopped_is_undone(run: Run, image: Path) -> None:
    before = image.read_bytes()
    assert run("overlay", "fsck", "-fp", "-z", "undo", image)[0] == 4
    assert image.read_bytes() != before
    good(run, *UNDO, "undo", image)
    assert image.read_bytes() == before


def test_nothing_changed_needs_no_undo_file(run: Run, image: Path) -> None:
    assert run("overlay", "fsck", "-fn", "-z", "undo", image)[0] == 4
    assert run("overlay", "fsck", "-y", image)[0] == 0  # it says that it is clean
    assert run("overlay", "fsck", "-fy", image)[0] == 1
    assert run("overlay", "fsck", "-y", "-z", "undo", image)[0] == 0
    assert sorted(os.listdir()) == ["overlay.img"]


def test_an_undo_file_is_never_replaced(run: Run, image: Path) -> None:
    before = image.read_bytes()
    for name in ("there", "link", str(image)):
        if name == "there":
            Path(name).write_bytes(b"precious")
        elif name == "link":
            os.symlink("nowhere", name)
        said = refused(run, "overlay", "fsck", "-fy", "-z", name, image, code=8)
        assert "exists; give another name" in said
    assert Path("there").read_bytes() == b"precious" and image.read_bytes() == before


def test_another_file_takes_the_name_meanwhile(run: Run, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = image.read_bytes()
    real = hostio.write_at

    def write_at(fd: int, offset: int, data: bytes) -> None:
        Path("undo").write_bytes(b"other")
        real(fd, offset, data)

    monkeypatch.setattr(hostio, "write_at", write_at)
    code, _, err = run("overlay", "fsck", "-fy", "-z", "undo", image)
    assert code == 8 and "undo was created by another process" in err.splitlines()[-1]
    assert Path("undo").read_bytes() == b"other" and image.read_bytes() == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["write_at", "sync"])
def test_a_full_disk_keeps_the_image(run: Run, image: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str) -> None:
    before = image.read_bytes()
    real = getattr(hostio, call)

    def fails(fd: int, *rest: object) -> None:
        if os.path.samestat(os.fstat(fd), os.stat(image)):
            real(fd, *rest)
        else:
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(hostio, call, fails)
        code, _, err = run("overlay", "fsck", "-fy", "-z", "undo", image)
    assert code == 8 and "undo" in err.splitlines()[-1], err
    assert image.read_bytes() == before and sorted(os.listdir()) == ["overlay.img"]


def test_a_killed_check_is_undone(run: Run, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = image.read_bytes()
    real = FileDevice.write

    class Killed(BaseException):
        pass

    for number in range(1, 5):
        left = [number]

        def write(self: FileDevice, offset: int, data: bytes, left: list[int] = left) -> None:
            if os.path.samestat(os.fstat(self.fd), os.stat(image)):
                left[0] -= 1
                if not left[0]:
                    raise Killed
            real(self, offset, data)

        name = f"undo-{number}"
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(FileDevice, "write", write)
            run("overlay", "fsck", "-fy", "-z", name, image)
        assert number == 1 or image.read_bytes() != before
        good(run, *UNDO, name, image)
        assert image.read_bytes() == before
        os.unlink(name)


def test_an_image_that_was_used_since_is_kept(run: Run, image: Path) -> None:
    other = Path(shutil.copyfile(image, "other.img"))
    assert run("overlay", "fsck", "-fy", "-z", "undo", image)[0] == 1
    assert run("overlay", "fsck", "-fy", "-z", "undo-2", other)[0] == 1
    assert run("cp", "undo", f"{image}:/upper/new")[0] == 0
    set_superblock(other, s_mnt_count=7)
    for path in (image, other):
        kept = path.read_bytes()
        said = refused(run, *UNDO, "undo" if path == image else "undo-2", path)
        assert "changed since" in said and said.startswith("sifkit overlay undo: undo")
        assert path.read_bytes() == kept


def test_what_is_no_undo_file(run: Run, image: Path) -> None:
    before = image.read_bytes()
    Path("text").write_bytes(b"text" * 500)
    os.mkfifo("pipe")
    assert "text: it is not an undo file" in refused(run, *UNDO, "text", image)
    assert "is the image itself" in refused(run, *UNDO, image, image, code=2)
    assert "pipe is not a regular file" in refused(run, *UNDO, "pipe", image)
    assert "missing: No such file or directory" in refused(run, *UNDO, "missing", image)
    assert "missing: No such file or directory" in refused(run, *UNDO, "text", "missing")
    assert image.read_bytes() == before


def test_an_image_in_use_is_kept(run: Run, image: Path) -> None:
    assert run("overlay", "fsck", "-fy", "-z", "undo", image)[0] == 1
    kept = image.read_bytes()
    fd = os.open(image, os.O_RDWR)
    try:
        if not lock_range(fd, write=False, path=str(image)):
            pytest.skip("no locks here")
        assert "is in use" in refused(run, *UNDO, "undo", image)
    finally:
        os.close(fd)
    assert image.read_bytes() == kept


def test_a_filesystem_in_a_larger_file(run: Run, image: Path) -> None:
    before = bytes(range(256)) * 4096 + image.read_bytes()
    Path("disk.img").write_bytes(before)
    place = ["--offset", "1048576", "disk.img"]
    code, _, err = run("overlay", "fsck", "-fy", "-z", "undo", *place)
    assert code == 1 and "sifkit overlay undo undo --offset 1048576 disk.img" in err
    good(run, *UNDO, "undo", *place)
    assert Path("disk.img").read_bytes() == before
