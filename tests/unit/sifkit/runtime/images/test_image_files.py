"""Image files of a run: who may open which at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from threading import Timer

import pytest

from ext3.edit.filesystem import WritableFilesystem
from sifkit.errors import ImageInUseError
from sifkit.file_locks import lock_range
from sifkit.in_use import LockHolder
from sifkit.overlay.edit.edit_session import EditOptions, edit_image
from sifkit.runtime.errors import LaunchError
from sifkit.runtime.images.image_files import ImageFiles
from sifkit.runtime.planning.run_plan import Layer, Upper

from .....support.containers import sif_of
from .....support.tools import run

Opener = Callable[[ImageFiles], object]


def test_upper_directories_and_work_directories_have_one_writer_each(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = Upper(kind="directory", path=str(tmp_path), upper="one", work="work-1")
    with closing(ImageFiles(print)) as files:
        files.open((), first, for_kernel=False)
        for other in (first._replace(work="work-2"), first._replace(upper="two")):
            with closing(ImageFiles(print)) as others:
                expected = f"/{other.upper} is in use: locked for writing by process {os.getpid()} "
                with pytest.raises(ImageInUseError, match=expected):
                    others.open((), other, for_kernel=False)
    with closing(ImageFiles(print)) as files:
        files.open((), first, for_kernel=False)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sifkit.runtime.images.image_files.END_SECONDS", 0)
    found = tmp_path / "a.img"
    run("mke2fs", "-q", "-F", "-t", "ext3", found, "4M")
    return found


def openers(image: Path, offset: int | None) -> dict[str, Opener]:
    """Ways in which a run reads and writes an image, or the overlay in a SIF at ``offset``."""
    if offset is None:
        layer, upper = Layer(path=str(image), kind="ext3", has_marks=True), Upper(kind="image", path=str(image))
    else:
        place = {"path": str(image), "offset": offset, "size": 4 << 20, "object_id": 1}
        layer, upper = Layer(kind="ext3", has_marks=True, **place), Upper(kind="image", **place)  # type: ignore[arg-type]
    return {
        "read": lambda images: images.open([layer], None, for_kernel=True),
        "write": lambda images: images.open([], upper, for_kernel=False),
    }


@pytest.mark.parametrize("in_sif", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [("read", "read", True), ("read", "write", False), ("write", "read", False), ("write", "write", False)],
)
def test_one_writes_or_many_read(tmp_path: Path, image: Path, in_sif: bool, first: str, second: str, allowed: bool) -> None:
    offset = None
    if in_sif:
        content = image.read_bytes()
        image = sif_of(tmp_path / "a.sif", None, image)
        offset = image.read_bytes().index(content)
    ways = openers(image, offset)
    with closing(ImageFiles(print)) as one, closing(ImageFiles(print)) as two:
        ways[first](one)
        if allowed:
            ways[second](two)
        else:
            with pytest.raises(ImageInUseError, match=f"in use: locked for .*ing by process {os.getpid()} ") as caught:
                ways[second](two)
            assert "--wait" not in caught.value.hint
        edit = EditOptions(partition="1" if in_sif else None)
        with pytest.raises(ImageInUseError), edit_image(image, edit):
            pass
    with closing(ImageFiles(print)) as images:
        ways["write"](images)


def test_a_lock_of_apptainer_counts(image: Path) -> None:
    """It locks the whole of an image: all up to its end, however far that is."""
    ways = openers(image, None)
    with image.open("r+b") as file, closing(ImageFiles(print)) as images:
        lock_range(file.fileno(), write=False)
        ways["read"](images)
        with pytest.raises(ImageInUseError):
            ways["write"](images)


def test_fuse2fs_opens_for_writing_what_it_shows_read_only(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Apptainer mounts an image for a plain user who only reads: then it is locked for reading, and marked as in use."""
    server = LockHolder(1, "fuse2fs", "write")
    monkeypatch.setattr("sifkit.in_use.fuse_servers", lambda found: iter([server]))
    run("debugfs", "-w", "-R", "ssv state 0", image)
    ways = openers(image, None)
    notes: list[str] = []
    with image.open("rb") as file, closing(ImageFiles(notes.append)) as images:
        with pytest.raises(ImageInUseError, match="mounted by process 1"):
            ways["read"](images)
        lock_range(file.fileno(), write=False)
        ways["read"](images)
    assert not notes


def test_runs_that_find_a_journal_wait_for_the_one_that_replays_it(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("debugfs", "-w", "-R", "feature needs_recovery", image)
    image.chmod(0o444)
    ways = openers(image, None)
    for is_served in (False, True):
        servers = [LockHolder(1, "fuse2fs", "write")] if is_served else []
        monkeypatch.setattr("sifkit.in_use.fuse_servers", lambda found, servers=servers: iter(servers))
        file = image.open("r+b")
        lock_range(file.fileno(), write=True)
        other = Timer(0.3, file.close)
        other.start()
        with closing(ImageFiles(print)) as images:
            if is_served:
                with pytest.raises(ImageInUseError):
                    ways["read"](images)
            else:
                ways["read"](images)
        other.join()


def test_an_image_that_is_replaced_while_it_is_opened(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is on the file that has the name."""
    other = image.with_name("b.img")
    other.write_bytes(image.read_bytes())
    wanted = other.stat().st_ino
    real = os.open

    def replacing(path: str, *arguments: int) -> int:
        fd = real(path, *arguments)
        if path == str(image) and other.exists():
            other.rename(image)
        return fd

    monkeypatch.setattr(os, "open", replacing)
    with closing(ImageFiles(print)) as images:
        openers(image, None)["write"](images)
        assert os.fstat(images.descriptor(Upper(kind="image", path=str(image)))).st_ino == wanted


def test_data_images(tmp_path: Path, image: Path) -> None:
    """Each is locked by itself; a server keeps only what it serves."""
    other = tmp_path / "b.img"
    other.write_bytes(image.read_bytes())
    with WritableFilesystem.open_for_changes(image) as fs:
        fs.mkdir("/upper")
        fs.create("/upper/.wh.x")  # here a name like others
    written, read = Upper(kind="image", path=str(image), upper="", work=""), Layer(path=str(other), kind="ext3")
    with closing(ImageFiles(print)) as images:
        assert images.open_data([written, read], for_kernel=True) == frozenset()
        for path, write in ((image, False), (other, True)):
            with open(path, "rb+") as file, pytest.raises(ImageInUseError):
                lock_range(file.fileno(), write=write, path=str(path))
        images.close_others([read])
        with open(image, "rb+") as file:
            lock_range(file.fileno(), write=True, path=str(image))
        assert os.fstat(images.descriptor(read)).st_ino == other.stat().st_ino
    with WritableFilesystem.open_for_changes(image) as fs:
        assert fs.stat("/upper/.wh.x").size == 0


def test_a_partition_that_moved_before_the_lock(tmp_path: Path, image: Path) -> None:
    sif = sif_of(tmp_path / "a.sif", None, image)
    with closing(ImageFiles(print)) as images, pytest.raises(LaunchError, match="changed by another process"):
        openers(sif, 4096)["write"](images)


def test_large_images_are_not_searched_for_what_was_moved(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain user's kernel finds it by itself; root's searches for other marks as well."""
    with WritableFilesystem.open_for_changes(image) as fs:
        fs.mkdir("/upper")
        fs.mkdir("/upper/moved")
        fs.set_xattr("/upper/moved", b"trusted.overlay.redirect", b"/app")
    upper = Upper(kind="image", path=str(image))
    for most, for_kernel, is_refused in ((2_000_000, False, True), (100, False, False), (100, True, True)):
        monkeypatch.setattr("sifkit.runtime.images.image_files.MOST_INODES", most)
        with closing(ImageFiles(print)) as images, pytest.raises(LaunchError) if is_refused else nullcontext():
            images.open([], upper, for_kernel=for_kernel)


def test_without_locks_a_journal_is_not_replayed_for_reading(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another node may be writing to the image, where nobody can see it."""
    monkeypatch.setattr("sifkit.file_locks.lock_range", lambda *_, **__: False)
    run("debugfs", "-w", "-R", "feature needs_recovery", image)
    ways, notes, raw = openers(image, None), list[str](), image.read_bytes()
    with closing(ImageFiles(notes.append)) as images:
        assert ways["read"](images) is True
    assert image.read_bytes() == raw and not notes
    with closing(ImageFiles(notes.append)) as images:
        ways["write"](images)
    assert len(notes) == 1 and "has no file locks" in notes[0]


def test_who_has_locked_an_image_is_said_by_any_of_its_names(tmp_path: Path, image: Path) -> None:
    os.link(image, tmp_path / "b.img")
    with closing(ImageFiles(print)) as one, closing(ImageFiles(print)) as two:
        openers(image, None)["write"](one)
        with pytest.raises(ImageInUseError, match=f"locked for writing by process {os.getpid()} "):
            openers(tmp_path / "b.img", None)["read"](two)


@pytest.mark.parametrize("is_left", [False, True])
def test_an_image_that_is_deleted_during_a_run_is_said(tmp_path: Path, image: Path, is_left: bool) -> None:
    notes: list[str] = []
    with closing(ImageFiles(notes.append)) as images:
        openers(image, None)["write"](images)
        if is_left:
            image.rename(tmp_path / "b.img")
        else:
            image.unlink()
    assert notes == ([] if is_left else [f"{image} was deleted or replaced during the run: what was written to it is lost"])
