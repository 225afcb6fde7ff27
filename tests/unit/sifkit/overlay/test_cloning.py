"""overlay clone: the same bytes, holes kept, a UUID of its own where asked, never from an image somebody writes to."""

from __future__ import annotations

import errno
import os
import stat
from uuid import UUID

import pytest

from ext3 import hostio
from ext3.constants import Incompat
from ext3.errors import NotExt3Error
from ext3.format.geometry import plan_geometry
from ext3.format.schema import SUPERBLOCK
from ext3.read.filesystem import Filesystem
from sifkit.cli import main
from sifkit.errors import ImageInUseError, NotReplaceableError, NotYetError, SifkitError, TargetError, UsageError
from sifkit.file_locks import lock_range
from sifkit.in_use import ImageUse, Mount
from sifkit.overlay.cloning import clone
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions

from ....support.platforms import linux_locks

SIZE = 40 << 20
UUID_1 = UUID("01234567-89ab-cdef-0123-456789abcdef")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a.img"
    create(path, CreateOptions(size=SIZE, create_dirs=("opt/x",), uuid=UUID_1, mode=0o640))
    return path


def uuids(path):
    """The UUID in every superblock, the primary's first."""
    geometry = plan_geometry(SIZE)
    data = path.read_bytes()
    places = [1024] + [(1 + group * geometry.blocks_per_group) * geometry.block_size for group in geometry.backup_groups]
    assert len(places) > 2
    return [bytes(SUPERBLOCK.view(data, 1, place)[0]["s_uuid"]) for place in places]


def no_copy_file_range(*_):
    raise OSError(errno.EXDEV, "not across these")


@pytest.mark.parametrize("way", ["as it comes", "no copy_file_range", "no copy in the kernel", "no holes known"])
def test_the_copy_is_the_same(image, tmp_path, monkeypatch, way):
    if way == "no copy_file_range":
        monkeypatch.setattr(os, "copy_file_range", no_copy_file_range, raising=False)
    if way == "no copy in the kernel":
        monkeypatch.setattr(hostio, "kernel_copy", lambda *_: 0)
    if way == "no holes known":
        monkeypatch.delattr(os, "SEEK_DATA", raising=False)
    monkeypatch.setattr(hostio, "clone_file", lambda source, target: False)
    copy = tmp_path / "b.img"
    result = clone(image, copy)
    assert copy.read_bytes() == image.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o640
    assert (result.method, result.uuid, result.new_uuid, result.journal_dirty) == ("copy", UUID_1, False, False)
    assert result.size_bytes == SIZE
    if way != "no holes known" and hasattr(os, "SEEK_DATA") and result.copied_bytes < SIZE:
        assert copy.stat().st_blocks <= image.stat().st_blocks + 64
    assert sorted(os.listdir(tmp_path)) == ["a.img", "b.img"]


def test_a_new_uuid_in_every_superblock_and_nothing_else(image, tmp_path):
    copy = tmp_path / "b.img"
    result = clone(image, copy, new_uuid=True)
    found = uuids(copy)
    assert set(found) == {result.uuid.bytes} != set(uuids(image)) == {UUID_1.bytes}
    assert copy.read_bytes().replace(result.uuid.bytes, UUID_1.bytes, len(found)) == image.read_bytes()
    with Filesystem.open(copy) as filesystem:
        assert filesystem.stat(b"/upper/opt/x").is_dir


def test_a_dirty_journal_is_told_and_keeps_its_uuid(image, tmp_path, capfd):
    data = bytearray(image.read_bytes())
    SUPERBLOCK.view(data, 1, 1024)["s_feature_incompat"] |= int(Incompat.NEEDS_RECOVERY)
    image.write_bytes(data)
    assert clone(image, tmp_path / "b.img").journal_dirty
    with pytest.raises(SifkitError, match="journal"):
        clone(image, tmp_path / "c.img", new_uuid=True)
    assert main(["overlay", "clone", str(image), str(tmp_path / "d.img")]) == 0
    assert "journal" in capfd.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["a.img", "b.img", "d.img"]


def test_targets(image, tmp_path):
    other = tmp_path / "b.img"
    other.write_text("precious")
    with pytest.raises(TargetError, match="exists"):
        clone(image, other)
    with pytest.raises(NotReplaceableError):
        clone(image, other, force=True)
    assert other.read_text() == "precious"
    other.write_bytes(b"")
    clone(image, other, force=True)
    clone(image, other, force=True)
    assert other.read_bytes() == image.read_bytes()
    for same in (image, tmp_path / "." / "a.img"):
        with pytest.raises(UsageError, match="itself"):
            clone(image, same, force=True)
    with pytest.raises(TargetError, match="directory"):
        clone(image, tmp_path)


def test_sources(tmp_path):
    (tmp_path / "sif").write_bytes(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + bytes(5000))
    (tmp_path / "text").write_bytes(b"x" * 5000)
    for name, error in (("sif", NotYetError), ("text", NotExt3Error), ("none", FileNotFoundError)):
        with pytest.raises(error):
            clone(tmp_path / name, tmp_path / "b.img")
    assert sorted(os.listdir(tmp_path)) == ["sif", "text"]


@linux_locks
def test_an_image_locked_for_writing_is_refused(image, tmp_path):
    fd = os.open(image, os.O_RDWR)
    try:
        if not lock_range(fd, write=False):
            pytest.skip("this filesystem has no locks")
        assert clone(image, tmp_path / "b.img").locked  # readers do not matter
        assert lock_range(fd, write=True)
        with pytest.raises(ImageInUseError):
            clone(image, tmp_path / "c.img")
    finally:
        os.close(fd)
    assert sorted(os.listdir(tmp_path)) == ["a.img", "b.img"]


@pytest.mark.parametrize("read_only", [True, False])
def test_a_mounted_image(image, tmp_path, monkeypatch, read_only):
    use = ImageUse("none", (), (Mount("/dev/loop9", "/mnt", read_only),))
    monkeypatch.setattr("sifkit.in_use.image_use", lambda path: use)
    if read_only:
        assert clone(image, tmp_path / "b.img").size_bytes == SIZE
    else:
        with pytest.raises(ImageInUseError, match="mounted at /mnt"):
            clone(image, tmp_path / "b.img")


def test_an_image_that_changes_meanwhile_leaves_no_copy(image, tmp_path, monkeypatch):
    def share(source, target):
        os.utime(image, ns=(1, 1))
        return True

    monkeypatch.setattr(hostio, "clone_file", share)
    with pytest.raises(SifkitError, match="changed while"):
        clone(image, tmp_path / "b.img")
    assert os.listdir(tmp_path) == ["a.img"]
