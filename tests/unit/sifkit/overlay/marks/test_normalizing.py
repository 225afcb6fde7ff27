"""Normalization of image files and SIF images: what is opened, locked, written; and what stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from ext3 import Filesystem
from ext3.constants import S_IFCHR
from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import NotExt3Error
from sifkit.cli import main
from sifkit.errors import FormatError, ImageInUseError, SifkitError, UsageError
from sifkit.file_locks import lock_range
from sifkit.overlay.marks.normalizing import NormalizeOptions, normalize
from sifkit.overlay.view.overlay_argument import OverlayArgument
from sifkit.sif import SIF, DataType, HashType, SignatureMeta
from sifkit.sif.signatures import SignedError
from sifkit.squashfs import Reader
from sifkit.vfs.errors import MissingPathError

from .....support.commands import names_in
from .....support.containers import sif_of
from .....support.sif_images import STAMP

FIXTURES = Path(__file__).parents[5] / "fixtures"
BASE = ("etc/passwd", "opt/d/old", "opt/d/both", "opt/d/sub/low")


def add_marks(image: Path, at: int = 0) -> None:
    """Marks as a plain user's container leaves them: /etc/passwd is removed, /opt/d made anew."""
    with Filesystem.open(image, "r+", offset=at) as fs:
        assert isinstance(fs, WritableFilesystem)
        for name in ("etc", "opt", "opt/d", "opt/d/sub"):
            fs.mkdir(f"/upper/{name}")
        for name in ("etc/.wh.passwd", "opt/d/both", "opt/d/sub/new", "opt/d/.wh..wh..opq"):
            fs.create(f"/upper/{name}")
        fs.mknod("/upper/opt/d/.wh..opq", S_IFCHR | 0o700)
        fs.set_xattr("/upper/opt/d", b"user.fuseoverlayfs.opaque", b"y")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    top = tmp_path / "base"
    for name in BASE:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    return top


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    assert main(["-q", "overlay", "create", "--size", "8M", str(path)]) == 0
    add_marks(path)
    return path


@pytest.fixture
def sif(tmp_path: Path, base: Path, image: Path) -> Path:
    """A SIF image whose root is an ext3 filesystem, with the overlay in it."""
    path = tmp_path / "a.sif"
    root = tmp_path / "root.img"
    assert main(["-q", "overlay", "create", "--size", "8M", "--from-dir", str(base), "--layout", "root", str(root)]) == 0
    assert main(["-q", "sif", "new", str(path)]) == 0
    assert (
        main(["-q", "sif", "add", "--parttype", "primsys", "--partarch", "amd64", "--groupid", "1", str(path), str(root)]) == 0
    )
    assert main(["-q", "overlay", "attach", str(path), str(image)]) == 0
    return path


def is_normal(image: Path) -> None:
    assert names_in(image, "/upper/etc") == [b"passwd"]
    assert names_in(image, "/upper/opt/d") == [b"both", b"old", b"sub"]
    assert names_in(image, "/upper/opt/d/sub") == [b"low", b"new"]
    with Filesystem.open(image) as fs:
        for name in ("etc/passwd", "opt/d/old", "opt/d/sub/low"):
            found = fs.stat(f"/upper/{name}", follow=False)
            assert (found.mode, found.major, found.minor) == (S_IFCHR, 0, 0), name
        assert not fs.xattrs("/upper/opt/d")


def test_a_file_with_a_base(image: Path, base: Path) -> None:
    seen = []
    options = NormalizeOptions(base=base)
    done = normalize(image, options, observe=lambda path, marks: seen.append(path))
    assert (done.converted, done.opened, done.hidden, done.removed, done.opaque) == (1, 1, 2, 1, 0)
    assert done.has_base and done.locked is not None and not done.unchanged
    assert set(seen) == {b"/etc", b"/opt/d", b"/opt/d/sub"} and seen.index(b"/opt/d/sub") < seen.index(b"/opt/d")
    is_normal(image)
    data = image.read_bytes()
    again = normalize(image, options)
    assert again.unchanged and again.locked is None and image.read_bytes() == data


def test_a_file_without_a_base(image: Path) -> None:
    done = normalize(image)
    assert (done.converted, done.marked, done.removed, done.opaque, done.has_base) == (1, 1, 1, 1, False)
    assert names_in(image, "/upper/opt/d") == [b"both", b"sub"]
    with Filesystem.open(image) as fs:
        assert fs.xattrs("/upper/opt/d") == {b"trusted.overlay.opaque": b"y", b"user.overlay.opaque": b"y"}
    data = image.read_bytes()
    assert normalize(image).unchanged and image.read_bytes() == data


def test_a_dry_run_writes_nothing(image: Path, base: Path) -> None:
    data, seen = image.read_bytes(), []
    options = NormalizeOptions(base=base, dry_run=True)
    done = normalize(image, options, observe=lambda path, marks: seen.append(path))
    assert (done.converted, done.opened, done.hidden) == (1, 1, 2) and len(seen) == 3
    assert not done.unchanged and done.dry_run and image.read_bytes() == data


def test_an_image_as_the_base(image: Path, base: Path, tmp_path: Path) -> None:
    root = tmp_path / "root.img"
    assert main(["-q", "overlay", "create", "--size", "8M", "--from-dir", str(base), "--layout", "root", str(root)]) == 0
    normalize(image, NormalizeOptions(base=root))
    is_normal(image)


def test_layers_between_the_base_and_the_overlay(image: Path, base: Path, tmp_path: Path) -> None:
    """What a layer between removed needs no whiteout, what it added does."""
    (tmp_path / "lower" / "opt" / "d").mkdir(parents=True)
    (tmp_path / "lower" / "opt" / "d" / "added").touch()
    middle = tmp_path / "middle.img"
    assert main(["-q", "overlay", "create", "--size", "8M", str(middle)]) == 0
    with Filesystem.open(middle, "r+") as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.mkdir("/upper/opt")
        fs.mkdir("/upper/opt/d")
        fs.create("/upper/opt/d/.wh.old")
    overlays = tuple(OverlayArgument(str(path)) for path in (tmp_path / "lower", middle))
    normalize(image, NormalizeOptions(base=base, overlays=overlays))
    assert names_in(image, "/upper/opt/d") == [b"added", b"both", b"sub"]
    with pytest.raises(UsageError, match="--overlay"):
        normalize(image, NormalizeOptions(overlays=overlays))
    with pytest.raises(UsageError, match="not the image of a container"):
        normalize(image, NormalizeOptions(base=middle))


def test_overlays_of_a_sif_image_below_its_own(sif: Path, tmp_path: Path) -> None:
    """Each has the root and the overlays before it below it."""
    second = tmp_path / "second.img"
    assert main(["-q", "overlay", "create", "--size", "8M", str(second)]) == 0
    add_marks(second)
    with Filesystem.open(second, "r+") as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.unlink("/upper/opt/d/both")
    assert main(["-q", "sif", "add", "--parttype", "overlay", str(sif), str(second)]) == 0
    with SIF.open(sif) as opened:
        first, last = (str(one.id) for one in opened.overlays)
    assert normalize(sif, NormalizeOptions(partition=last)).hidden == 1
    assert normalize(sif, NormalizeOptions(partition=first)).hidden == 2


def test_a_larger_file(image: Path, base: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 4096 + image.read_bytes())
    normalize(disk, NormalizeOptions(base=base, offset=4096))
    copy = tmp_path / "copy.img"
    copy.write_bytes(disk.read_bytes()[4096:])
    is_normal(copy)


def test_an_overlay_in_a_sif_image_has_its_root_as_the_base(sif: Path, base: Path, tmp_path: Path) -> None:
    done = normalize(sif)
    assert done.has_base and (done.converted, done.opened, done.hidden) == (1, 1, 2)
    copy = tmp_path / "copy.img"
    assert main(["-q", "overlay", "detach", "--keep", "-o", str(copy), str(sif)]) == 0
    is_normal(copy)
    with pytest.raises(UsageError, match="root"):
        normalize(sif, NormalizeOptions(base=base))


def test_signatures(sif: Path) -> None:
    """They are decided on before the first write; with nothing to do they stay."""
    with SIF.open(sif, "r+", stamp=STAMP) as opened:
        opened.add(b"signed", DataType.SIGNATURE, link_group=1, metadata=SignatureMeta(HashType.SHA256))
    data = sif.read_bytes()
    with pytest.raises(SignedError):
        normalize(sif)
    assert sif.read_bytes() == data
    done = normalize(sif, NormalizeOptions(on_signatures="keep"))
    assert done.notes and not done.dropped and not done.unchanged
    data = sif.read_bytes()
    assert normalize(sif).unchanged and sif.read_bytes() == data


def test_an_image_in_use_is_left_alone(image: Path, base: Path) -> None:
    data = image.read_bytes()
    with open(image, "rb+") as file:
        if not lock_range(file.fileno(), write=True):
            pytest.skip("no locks here")
        with pytest.raises(ImageInUseError):
            normalize(image, NormalizeOptions(base=base))
        dry = normalize(image, NormalizeOptions(base=base, dry_run=True))
        assert "in use" in dry.notes[0]
    assert image.read_bytes() == data


def test_refused_before_anything_is_written(image: Path, base: Path, tmp_path: Path) -> None:
    data = image.read_bytes()
    with pytest.raises(FileNotFoundError):
        normalize(image, NormalizeOptions(base=tmp_path / "missing"))
    (tmp_path / "empty").touch()
    with pytest.raises(NotExt3Error, match="empty"):
        normalize(image, NormalizeOptions(base=tmp_path / "empty"))
    with pytest.raises(UsageError):
        normalize(image, NormalizeOptions(partition="overlay"))
    with pytest.raises(FormatError):
        normalize(base)
    assert image.read_bytes() == data
    with Filesystem.open(image, "r+") as fs:
        assert isinstance(fs, WritableFilesystem)
        fs.rename("/upper", "/other")
    with pytest.raises(MissingPathError):
        normalize(image)


def test_a_damaged_base_is_named(image: Path, tmp_path: Path) -> None:
    """The tables at its end are lost: the top of a squashfs cannot be read, or not the directories in it."""
    found = (FIXTURES / "squashfs" / "gzip.sqfs").read_bytes()
    data = image.read_bytes()
    path = tmp_path / "root.sqfs"
    with Reader.open(FIXTURES / "squashfs" / "gzip.sqfs") as reader:
        start, end = reader.superblock.directory_table_start, reader.superblock.fragment_table_start
    for broken in (found[: len(found) // 2], found[:start] + b"\xff" * (end - start) + found[end:]):
        path.write_bytes(broken)
        (tmp_path / "root.sqfs.sif").unlink(missing_ok=True)
        for damaged in (path, sif_of(tmp_path / "root.sqfs.sif", path, image)):
            with pytest.raises((OSError, SifkitError)) as caught:
                normalize(image, NormalizeOptions(base=damaged))
            assert damaged.name in str(caught.value) and "\n" not in str(caught.value)
        assert image.read_bytes() == data


def test_an_image_without_a_journal_is_changed_as_a_copy(tmp_path: Path, base: Path) -> None:
    path = tmp_path / "b.img"
    assert main(["-q", "overlay", "create", "--no-journal", "--size", "8M", str(path)]) == 0
    add_marks(path)
    normalize(path, NormalizeOptions(base=base))
    is_normal(path)
