"""Resize of an overlay and of what holds it: a file, a partition of a SIF image, a part of a larger file."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ext3
from ext3.constants import STATE_ERROR, SUPERBLOCK_OFFSET
from ext3.errors import DeviceError, GeometryError, JournalFullError, NeedsCheckError, TooSmallError
from ext3.format.schema import SUPERBLOCK
from ext3.format.superblock import read_superblock
from ext3.resize import block_moves
from sifkit.errors import FormatError, HostFullError, ImageInUseError, SifkitError, UsageError
from sifkit.file_locks import lock_range
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions
from sifkit.overlay.resizing import resize_steps
from sifkit.overlay.resizing.image_resize import resize
from sifkit.overlay.resizing.resize_request import ResizeOptions, ResizeResult, ResizeStart, ResizeTarget
from sifkit.sif import SIF, DataType, FSType, PartType, SignatureMeta
from sifkit.sif.format.types import HashType
from sifkit.sif.signatures import SignedError

from .....support.commands import copy_sparse
from .....support.facts import TreeFacts, facts_of_image
from .....support.sif_images import STAMP, assert_sound, partition
from .....support.trees import everything

MIB = 1 << 20


def to(size: int, **options: object) -> ResizeOptions:
    """A resize to so many MiB."""
    return ResizeOptions(target=ResizeTarget(size=size * MIB), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 24 MiB with one of everything: a.img, and plain.img without a journal."""
    top = tmp_path_factory.mktemp("made")
    tree = everything(top / "t" / "upper", big=False).parent
    create(top / "a.img", CreateOptions(size=24 * MIB, from_dir=tree, mode=0o640, xattrs="all"))
    create(top / "plain.img", CreateOptions(size=24 * MIB, from_dir=tree, mode=0o640, journal=False))
    return top


@pytest.fixture
def image(samples: Path, tmp_path: Path) -> Path:
    path = copy_sparse(samples / "a.img", tmp_path / "a.img")
    path.chmod(0o640)
    return path


@pytest.fixture
def plain(samples: Path, tmp_path: Path) -> Path:
    path = copy_sparse(samples / "plain.img", tmp_path / "plain.img")
    path.chmod(0o640)
    return path


def facts(path: Path, offset: int = 0) -> TreeFacts:
    with ext3.Filesystem.open(path, offset=offset) as fs:
        return facts_of_image(fs)


def assert_silent(path: Path, offset: int = 0, size: int | None = None) -> None:
    with path.open("rb") as file:
        device = ext3.FileDevice(file.fileno(), offset, size)
        report = ext3.fsck.check(device, ext3.CheckOnly(), options=ext3.CheckOptions(force=True))
    assert not report.findings


def assert_result(done: ResizeResult, path: Path, offset: int = 0) -> None:
    """The facts of the result are those of the image."""
    with ext3.Filesystem.open(path, offset=offset) as fs:
        found = fs.superblock
        assert (done.after.size_bytes, done.after.inodes, done.after.groups) == (
            found.size_bytes,
            found.inodes_count,
            found.groups_count,
        )
        assert done.after.free_bytes == found.free_blocks * found.block_size


def test_a_growth_loads_neither_the_check_nor_numpy(image: Path) -> None:
    """They are most of what it would load; it moves nothing, and new groups are all alike."""
    code = """
import sys
from sifkit.overlay.resizing.image_resize import resize
from sifkit.overlay.resizing.resize_request import ResizeOptions, ResizeTarget
resize(sys.argv[1], ResizeOptions(target=ResizeTarget(size=200 << 20)))
print([name for name in sys.modules if "fsck" in name or "census" in name or name == "numpy"])
"""
    done = subprocess.run([sys.executable, "-c", code, image], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert image.stat().st_size == 200 * MIB
    assert_silent(image)


# A file


@pytest.mark.parametrize("size", [30, 100, 3000])
def test_a_file_grows(image: Path, size: int) -> None:
    before, inode, taken = facts(image), image.stat().st_ino, image.stat().st_blocks * 512
    done = resize(image, to(size))
    assert image.stat().st_blocks * 512 - taken <= done.start.needed_bytes + MIB // 2
    assert image.stat().st_size == size * MIB and image.stat().st_ino == inode
    assert stat.S_IMODE(image.stat().st_mode) == 0o640
    assert facts(image) == before
    assert (done.before.file_bytes, done.after.file_bytes) == (24 * MIB, size * MIB)
    assert_result(done, image)
    assert_silent(image)
    assert image.stat().st_blocks * 512 < 24 * MIB  # sparse


def test_what_is_asked_for(image: Path) -> None:
    resize(image, ResizeOptions(target=ResizeTarget(change=16 * MIB)))
    assert image.stat().st_size == 40 * MIB
    before = image.read_bytes()
    for target in (ResizeTarget(), ResizeTarget(change=0), ResizeTarget(size=40 * MIB)):
        done = resize(image, ResizeOptions(target=target))
        assert done.unchanged and done.before == done.after
    assert image.read_bytes() == before


def test_a_file_that_is_longer_is_filled(image: Path) -> None:
    """Whatever lies behind the filesystem."""
    before = facts(image)
    with image.open("ab") as file:
        file.write(b"stale" * 2_000_000)
    resize(image, to(33))
    assert read_superblock(ext3.MemoryDevice(image.read_bytes())).size_bytes == 33 * MIB
    assert facts(image) == before
    assert_silent(image)


def test_the_filesystem_may_be_a_little_smaller(image: Path) -> None:
    done = resize(image, ResizeOptions(target=ResizeTarget(size=24 * MIB + 5000)))
    assert image.stat().st_size == 24 * MIB + 5000 and done.unused_bytes > 0
    assert_silent(image)


def test_without_a_journal_a_copy_is_resized(plain: Path) -> None:
    before, inode, told = facts(plain), plain.stat().st_ino, []
    done = resize(plain, to(60), begin=told.append)
    assert plain.stat().st_ino != inode and plain.stat().st_size == 60 * MIB
    assert stat.S_IMODE(plain.stat().st_mode) == 0o640 and facts(plain) == before
    assert 0 < told[0].copied_bytes <= told[0].needed_bytes and told[0] == done.start
    assert {path.name for path in plain.parent.iterdir()} == {"plain.img"}
    assert_result(done, plain)
    assert_silent(plain)


@pytest.mark.parametrize("name", ["a.img", "plain.img"])
def test_only_planned(samples: Path, tmp_path: Path, name: str) -> None:
    image = copy_sparse(samples / name, tmp_path / name)
    before, status = image.read_bytes(), image.stat()
    image.chmod(0o400)
    plan = resize(image, to(600, dry_run=True))
    assert image.read_bytes() == before and image.stat().st_mtime_ns == status.st_mtime_ns
    assert plan.dry_run and (plan.start.copied_bytes > 0) == (name == "plain.img")
    image.chmod(0o600)
    done = resize(image, to(600))
    assert plan.after == done.after


def aged(path: Path) -> None:
    """Fill the image, and delete most of what lies at its beginning: what is left has to move in a shrink."""
    with ext3.Filesystem.open(path, "r+") as fs:
        for number in range(60):
            fs.write_bytes(f"/upper/{number}", os.urandom(200_000))
        fs.sync()
        for number in range(50):
            fs.unlink(f"/upper/{number}")
        fs.remove_tree("/upper/files")


@pytest.mark.parametrize("name", ["a.img", "plain.img"])
def test_a_file_shrinks(samples: Path, tmp_path: Path, name: str) -> None:
    image = copy_sparse(samples / name, tmp_path / name)
    aged(image)
    before, told, inode = facts(image), [], image.stat().st_ino
    plan = resize(image, to(11, dry_run=True))
    done = resize(image, to(11), begin=told.append)
    assert image.stat().st_size == 11 * MIB and (image.stat().st_ino == inode) == (name == "a.img")
    assert facts(image) == before
    assert plan.after == done.after and told[0].moved_bytes > MIB and told[0].needed_bytes >= told[0].moved_bytes
    assert_result(done, image)
    assert_silent(image)


def test_the_smallest_size(image: Path) -> None:
    """It is what is asked for; less is refused, and says so. Slack comes on top."""
    aged(image)
    before = facts(image)
    plan = resize(image, ResizeOptions(target=ResizeTarget(minimum=True), dry_run=True))
    least = plan.after.file_bytes
    with pytest.raises(TooSmallError) as caught:
        resize(image, ResizeOptions(target=ResizeTarget(size=least - 1024)))
    assert caught.value.least == least
    for target, size in (
        (ResizeTarget(minimum=True, slack_bytes=MIB), least + MIB),
        (ResizeTarget(minimum=True, slack_share=0.05), least + least // 20),
        (ResizeTarget(minimum=True), least),
    ):
        done = resize(image, ResizeOptions(target=target))
        assert image.stat().st_size == size == done.after.file_bytes and done.unused_bytes < 1024
        assert facts(image) == before
        assert_silent(image)
    assert done.after.size_bytes == least
    assert resize(image, ResizeOptions(target=ResizeTarget(minimum=True))).unchanged
    resize(image, to(64))
    assert facts(image) == before
    assert_silent(image)


@pytest.fixture
def untouched(image: Path) -> Iterator[Path]:
    """An image that the test leaves as it is, alone in its directory."""
    before, status = image.read_bytes(), image.stat()
    yield image
    assert image.read_bytes() == before
    assert (image.stat().st_ino, image.stat().st_size) == (status.st_ino, status.st_size)
    assert {path.name for path in image.parent.iterdir()} == {"a.img"}


def test_below_the_smallest(untouched: Path) -> None:
    with pytest.raises(TooSmallError, match=r"a\.img: the smallest is .* MiB \(content .*, journal 1 MiB\)") as caught:
        resize(untouched, to(2))
    assert f"give --size {-(-caught.value.least // MIB)}M or more, or --minimum" == caught.value.hint
    with pytest.raises(TooSmallError):
        resize(untouched, ResizeOptions(target=ResizeTarget(change=-1 << 50)))


def test_above_the_largest(untouched: Path) -> None:
    with pytest.raises(GeometryError) as caught:
        resize(untouched, ResizeOptions(target=ResizeTarget(size=5 << 40)))
    assert "the largest size" in caught.value.hint


def test_an_exception_before_the_first_write(untouched: Path) -> None:
    def begin(start: ResizeStart) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        resize(untouched, to(60), begin=begin)


def test_an_image_in_use(untouched: Path) -> None:
    fd = os.open(untouched, os.O_RDWR)
    try:
        if not lock_range(fd, write=False, path=untouched):
            pytest.skip("no locks here")
        with pytest.raises(ImageInUseError):
            resize(untouched, to(60))
        assert resize(untouched, to(60, dry_run=True)).after.size_bytes == 60 * MIB
    finally:
        os.close(fd)


class Failing:
    """Fails in a resize after some writes: the device's, or the journal's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
        self.left = after
        real = ext3.FileDevice.write

        def write(device: ext3.FileDevice, offset: int, data: bytes) -> None:
            self.left -= 1
            if self.left < 0:
                monkeypatch.setattr(ext3.FileDevice, "write", real)
                raise error
            real(device, offset, data)

        monkeypatch.setattr(ext3.FileDevice, "write", write)


@pytest.mark.slow
@pytest.mark.parametrize("size", [100, 11])
@pytest.mark.parametrize("error", [DeviceError("no", error=OSError(28, "No space left on device")), KeyboardInterrupt()])
def test_a_failure_leaves_a_sound_filesystem(image: Path, error: BaseException, size: int) -> None:
    """Of the old size or of the new one; the file has the size of the filesystem, or the old one."""
    aged(image)
    before, sizes, content = facts(image), set(), image.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        counted = Failing(patch, 10_000, error)
        resize(image, to(size))
        count = 10_000 - counted.left
    for after in sorted({0, 1, 2, *range(3, count, max(1, count // 10)), *range(count - 6, count)}):
        image.write_bytes(content)
        with pytest.MonkeyPatch.context() as patch:
            Failing(patch, after, error)
            with pytest.raises((type(error), HostFullError)):
                resize(image, to(size))
        superblock = read_superblock(ext3.MemoryDevice(image.read_bytes()))
        sizes.add(superblock.size_bytes)
        assert image.stat().st_size == max(24 * MIB, superblock.size_bytes) and not superblock.needs_recovery
        assert facts(image) == before
        resize(image, to(size))
        assert image.stat().st_size == size * MIB
        assert_silent(image)
    assert sizes == {24 * MIB, size * MIB}


def test_a_full_host_gets_back_what_was_copied(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that a shrink had made lie in free blocks, which were holes."""
    aged(image)
    with ext3.Filesystem.open(image, "r+") as fs:
        fs.trim()
    before, used, copied = facts(image), image.stat().st_blocks, []
    copy_blocks = block_moves.copy_blocks

    def copy(*words: Any) -> None:
        copy_blocks(*words)
        copied.append(image.stat().st_blocks)
        raise DeviceError("no", error=OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(block_moves, "copy_blocks", copy)
    with pytest.raises(HostFullError):
        resize(image, to(11))
    assert copied[0] - used > MIB // 512
    assert facts(image) == before and image.stat().st_blocks - used < 100
    assert_silent(image)


@pytest.mark.parametrize("state", [STATE_ERROR | 1, 0])
def test_a_check_first(image: Path, state: int) -> None:
    data = bytearray(image.read_bytes())
    SUPERBLOCK.view(data, 1, SUPERBLOCK_OFFSET)["s_state"] = state
    image.write_bytes(data)
    with pytest.raises(NeedsCheckError, match=r"a\.img"):
        resize(image, to(60))
    assert image.read_bytes() == data
    done = resize(image, to(60, check_first=True))
    assert image.stat().st_size == 60 * MIB and done.after.size_bytes == 60 * MIB
    assert_silent(image)


def test_a_check_that_leaves_errors(image: Path) -> None:
    with ext3.Filesystem.open(image) as fs:
        block = fs.data_extents("/upper/links")[0][1]
    data = bytearray(image.read_bytes())
    data[block * 1024 + 4 : block * 1024 + 6] = b"\3\0"
    image.write_bytes(data)
    with pytest.raises(SifkitError, match="need a decision") as caught:
        resize(image, to(60, check_first=True))
    assert caught.value.kind == "needs-check" and image.stat().st_size == 24 * MIB


@pytest.mark.parametrize("content", [b"hsqs" + bytes(5000), b"#!/bin/sh\n" * 1000, b""])
def test_what_is_no_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises((SifkitError, ext3.Ext3Error)):
        resize(path, to(60))
    with pytest.raises((SifkitError, OSError)):
        resize(tmp_path / "missing", to(60))
    with pytest.raises(FormatError):
        resize(tmp_path, to(60))
    assert path.read_bytes() == content


def test_in_a_larger_file(image: Path, plain: Path) -> None:
    """The filesystem gets what is asked for, up to the end of the file; the file stays."""
    before, content = facts(image), image.read_bytes()
    larger = image.with_name("disk.img")
    larger.write_bytes(b"\xee" * MIB + content + b"\xee" * 20 * MIB)
    done = resize(larger, to(40, offset=MIB))
    assert larger.stat().st_size == 45 * MIB and larger.read_bytes()[:MIB] == b"\xee" * MIB
    assert larger.read_bytes()[41 * MIB :] == b"\xee" * 4 * MIB and facts(larger, MIB) == before
    assert (done.after.size_bytes, done.after.file_bytes) == (40 * MIB, 44 * MIB)
    assert_silent(larger, MIB, 40 * MIB)
    with pytest.raises(UsageError, match="44 MiB up to the end"):
        resize(larger, to(50, offset=MIB))
    larger.write_bytes(bytes(MIB) + plain.read_bytes() + bytes(20 * MIB))
    with pytest.raises(UsageError, match="without a journal"):
        resize(larger, to(40, offset=MIB))


# In a SIF image


def sif_with(overlay: Path, *, behind: bool = False) -> Path:
    path = overlay.with_name("a.sif")
    with SIF.create(path, capacity=8, stamp=STAMP) as made:
        made.add(b"hsqs" + b"root" * 300, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
        made.add(overlay, DataType.PARTITION, group=1, metadata=partition(PartType.OVERLAY, FSType.EXT3))
        if behind:
            made.add(b"behind" * 1000, DataType.GENERIC)
    return path


def place(path: Path) -> tuple[int, int]:
    with SIF.open(path) as found:
        return found.overlays[0].offset, found.overlays[0].size


def others(path: Path) -> list[tuple[int, bytes]]:
    with SIF.open(path) as found:
        return [(one.id, found.read(one.id)) for one in found if one.part_type != PartType.OVERLAY]


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("behind", [True, False])
def test_a_partition_grows(image: Path, plain: Path, behind: bool, journal: bool) -> None:
    """In place if it ends the image and has a journal, else at the end; its old place is a hole then."""
    path = sif_with(image if journal else plain, behind=behind)
    (start, _), rest, told = place(path), others(path), []
    before = facts(path, start)
    plan = resize(path, to(60, dry_run=True))
    assert others(path) == rest and place(path) == (start, 24 * MIB)
    done = resize(path, to(60), begin=told.append)
    now, size = place(path)
    stays = journal and not behind
    assert size == 60 * MIB and (now == start) == stays
    assert (done.old_partition is None) == stays and (told[0].copied_bytes == 0) == stays
    assert (plan.start.copied_bytes == 0) == stays and plan.after == done.after
    assert done.partition is not None and (done.partition.offset, done.partition.id) == (now, 2)
    assert facts(path, now) == before and others(path) == rest
    assert_result(done, path, now)
    assert_silent(path, now, size)
    assert_sound(path.read_bytes())
    assert path.stat().st_blocks * 512 < 30 * MIB
    assert resize(path, to(60)).unchanged


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("behind", [True, False])
def test_a_partition_shrinks(image: Path, plain: Path, behind: bool, journal: bool) -> None:
    """The space is given back: the file is cut, or the old place becomes a hole."""
    overlay = image if journal else plain
    aged(overlay)
    path = sif_with(overlay, behind=behind)
    (start, _), rest = place(path), others(path)
    before, length, taken = facts(path, start), path.stat().st_size, path.stat().st_blocks * 512
    plan = resize(path, to(11, dry_run=True))
    done = resize(path, to(11))
    now, size = place(path)
    stays = journal and not behind
    assert size == 11 * MIB and (now == start) == stays and plan.after == done.after
    assert facts(path, now) == before and others(path) == rest
    assert path.stat().st_size == (length - 13 * MIB if stays else now + 11 * MIB)
    assert path.stat().st_blocks * 512 < taken
    assert_result(done, path, now)
    assert_silent(path, now, size)
    assert_sound(path.read_bytes())


def test_a_partition_by_its_number_and_offset(image: Path) -> None:
    path = sif_with(image)
    resize(path, to(30, partition="2"))
    done = resize(path, to(40, offset=place(path)[0]))
    assert place(path)[1] == 40 * MIB == done.after.size_bytes


def test_signatures(image: Path) -> None:
    path = sif_with(image)
    with SIF.open(path, "r+", stamp=STAMP) as found:
        found.add(b"not parsed", DataType.SIGNATURE, link_group=1, metadata=SignatureMeta(HashType.SHA256, b""))
    before, start = path.read_bytes(), place(path)[0]
    with pytest.raises(SignedError, match="resizing object 2 would break signature 3"):
        resize(path, to(60))
    assert path.read_bytes() == before
    kept = resize(path, to(60, on_signatures="keep"))
    assert kept.old_partition is not None and any("breaks" in note for note in kept.notes)
    path.write_bytes(before)
    done = resize(path, to(60, on_signatures="drop"))
    assert done.dropped == (3,) and done.old_partition is None  # nothing is behind it then
    assert place(path) == (start, 60 * MIB) and len(others(path)) == 1
    assert_silent(path, *place(path))


def test_the_plan_for_a_signed_image_is_what_is_done(image: Path) -> None:
    path = sif_with(image)
    with SIF.open(path, "r+", stamp=STAMP) as found:
        found.add(b"not parsed", DataType.SIGNATURE, link_group=1, metadata=SignatureMeta(HashType.SHA256, b""))
    before = path.read_bytes()
    with pytest.raises(SignedError, match="resizing object 2 would break signature 3"):
        resize(path, to(60, dry_run=True))
    kept, drop = (resize(path, to(60, dry_run=True, on_signatures=word)) for word in ("keep", "drop"))
    assert kept.start.copied_bytes and not kept.dropped and any("breaks" in note for note in kept.notes)
    assert (drop.start.copied_bytes, drop.dropped, drop.notes) == (0, (3,), ())
    assert resize(path, to(24, dry_run=True)).unchanged and path.read_bytes() == before
    done = resize(path, to(60, on_signatures="drop"))
    assert done.start.needed_bytes == drop.start.needed_bytes and done.old_partition is None


def test_a_failure_in_a_sif(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(resize_steps, "apply", fail)
    for behind in (False, True):
        path = sif_with(image, behind=behind)
        rest, start = others(path), place(path)
        data = path.read_bytes()[start[0] :]
        with pytest.raises(KeyboardInterrupt):
            resize(path, to(60))
        assert place(path) == start and others(path) == rest and path.read_bytes()[start[0] :] == data
        assert_sound(path.read_bytes())
        path.unlink()


def test_another_process_has_the_new_range(image: Path) -> None:
    """It is locked before the partition grows over it."""
    path = sif_with(image)
    start, size = place(path)
    before = path.read_bytes()
    fd = os.open(path, os.O_RDWR)
    try:
        if not lock_range(fd, write=True, offset=start + size + 4096, size=4096, path=path):
            pytest.skip("no locks here")
        with pytest.raises(ImageInUseError):
            resize(path, to(60))
    finally:
        os.close(fd)
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [40, 2000])
def test_an_empty_image_to_the_smallest_size_and_back(tmp_path: Path, size: int) -> None:
    """Nothing moves, or the journal alone."""
    image = tmp_path / "a.img"
    ext3.mkfs(image, 9 * MIB, block_size=1024)
    for target in (ResizeTarget(size=size * MIB), ResizeTarget(minimum=True), ResizeTarget(size=size * MIB)):
        resize(image, ResizeOptions(target=target))
        assert_silent(image)


@pytest.mark.parametrize("inside", [False, True])
def test_a_journal_that_is_too_small(image: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    """For a single change: then a copy is resized, without it."""
    aged(image)
    path = sif_with(image) if inside else image
    start = place(path)[0] if inside else 0
    before, told, real = facts(path, start), [], resize_steps.apply

    def apply(device: ext3.BlockDevice, plan: ext3.resize.ResizePlan, *, journaled: bool, **options: Any) -> object:
        if journaled:
            raise JournalFullError(2000, 1000)
        return real(device, plan, journaled=False, **options)

    monkeypatch.setattr(resize_steps, "apply", apply)
    done = resize(path, to(11), begin=told.append)
    assert [one.copied_bytes > 0 for one in told] == [False, True] and done.start == told[1]
    assert (done.old_partition is not None) == inside
    now = place(path)[0] if inside else 0
    assert facts(path, now) == before
    assert_silent(path, now, 11 * MIB)
    if inside:
        assert_sound(path.read_bytes())
