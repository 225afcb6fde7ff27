"""Check that images are whole and readable: good ones, every truncation, damage in each kind of image, files that are none."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import threading
from pathlib import Path

import pytest

from sifkit.file_locks import lock_range
from sifkit.overlay.checks import image_check
from sifkit.overlay.checks.image_check import check_image
from sifkit.overlay.checks.image_result import KEPT_PROBLEMS, ImageProblem, ImageResult
from sifkit.sif import SIF, DataType, FSType, PartType

from .....support.commands import copy_sparse
from .....support.fsck_damage import damage_counts
from .....support.fsck_volumes import dirty_volume
from .....support.sif_damage import slot
from .....support.sif_images import partition
from .....support.tiny_squashfs import TINY_SQUASHFS, tiny_sif

FIXTURES = Path(__file__).parents[5] / "fixtures" / "squashfs"


@pytest.fixture
def ext3(tmp_path, empty_overlay):
    return copy_sparse(empty_overlay, tmp_path / "o.img")


@pytest.fixture
def sif(tmp_path):
    return tiny_sif(tmp_path / "a.sif")


def codes(result):
    return [problem.code for problem in result.problems]


def flipped(path, offset, bit=1):
    """Flip a bit of a file."""
    raw = bytearray(path.read_bytes())
    raw[offset] ^= bit
    path.write_bytes(raw)
    return path


# -- good images ---------------------------------------------------------------------------------------------------------


def test_a_squashfs(tmp_path):
    (tmp_path / "t").write_bytes(TINY_SQUASHFS)
    result = check_image(tmp_path / "t")
    assert (result.good, result.kind, result.size_bytes, result.problems) == (True, "squashfs", len(TINY_SQUASHFS), [])
    assert [(part.kind, part.detail, part.inodes) for part in result.parts] == [("squashfs", "gzip", 5)]


def test_filesystems_in_a_larger_file(tmp_path, ext3, sif):
    path = tmp_path / "t"
    path.write_bytes(b"x" * 512 + TINY_SQUASHFS)
    result = check_image(path, offset=512)
    assert (result.good, result.kind, result.size_bytes) == (True, "squashfs", path.stat().st_size)
    os.truncate(path, path.stat().st_size - 10)
    result = check_image(path, offset=512)
    assert codes(result) == ["truncated"] and result.missing_bytes == 10
    path.write_bytes(b"x" * 512 + ext3.read_bytes())
    damage_counts(path, offset=512)
    result = check_image(path, offset=512)
    assert result.kind == "ext3" and "free blocks count is" in result.problems[0].text
    path.write_bytes(b"x" * 512 + sif.read_bytes())
    assert "a SIF image begins at byte 512" in check_image(path, offset=512).problems[0].text


def test_an_ext3_image(ext3):
    result = check_image(ext3)
    assert (result.good, result.kind, result.notes) == (True, "ext3", [])
    assert [(part.kind, part.inodes) for part in result.parts] == [("ext3", 13)]


def test_a_sif_with_two_filesystems_and_signatures(tmp_path, ext3):
    path = tiny_sif(tmp_path / "a.sif", signatures=2)
    with SIF.open(path, "r+") as sif:
        sif.delete(2)
        sif.add(ext3, DataType.PARTITION, group=1, metadata=partition(PartType.OVERLAY, FSType.EXT3))
    result = check_image(path)
    assert result.good and result.kind == "sif" and result.signatures == 2
    assert [(part.id, part.role, part.kind, part.inodes) for part in result.parts] == [
        (1, "root", "squashfs", 5),
        (2, "overlay", "ext3", 13),
    ]


def test_an_image_whose_journal_is_to_be_replayed_is_whole(tmp_path):
    (tmp_path / "o.img").write_bytes(dirty_volume().data)
    result = check_image(tmp_path / "o.img")
    assert result.good and not result.problems
    assert [note.split("has")[0] for note in result.notes] == ["its journal "]


def test_nothing_is_written(sif, ext3):
    for path in (sif, ext3):
        before = path.read_bytes(), path.stat().st_mtime_ns
        check_image(path)
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before


# -- truncated -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sif", "squashfs"])
def test_every_truncation_says_how_much_is_missing(tmp_path, sif, kind):
    path = sif
    if kind == "squashfs":
        path = tmp_path / "t.sqfs"
        path.write_bytes(TINY_SQUASHFS)
    whole = path.stat().st_size
    header = 128 if kind == "sif" else 96
    for size in range(whole - 1, -1, -1):
        os.truncate(path, size)
        result = check_image(path)
        assert not result.good and codes(result) == ["truncated"], size
        text = result.problems[0].text
        if size >= header:
            assert result.missing_bytes == whole - size and "at least" not in text, size
            assert f"{whole - size:,} byte" in text and f"{whole:,} bytes" in text, (size, text)
        else:
            assert result.missing_bytes and ("at least" in text or not size), size


@pytest.mark.parametrize("size", [8 << 19, 1 << 20, 2048])
def test_a_truncated_ext3_image(ext3, size):
    os.truncate(ext3, size)
    result = check_image(ext3)
    assert codes(result) == ["truncated"] and result.missing_bytes == (8 << 20) - size


def test_a_partition_that_is_too_small_for_its_filesystem(tmp_path, ext3):
    path = tmp_path / "a.sif"
    with SIF.create(path) as sif:
        sif.add(ext3.read_bytes()[: 1 << 20], DataType.PARTITION, group=1, metadata=partition(PartType.OVERLAY, FSType.EXT3))
        sif.add(TINY_SQUASHFS[:-1], DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
    result = check_image(path)
    assert [(problem.code, problem.id) for problem in result.problems] == [("format", 1), ("truncated", 2)]
    assert "the filesystem in object 1 has 8 MiB, its partition 1 MiB" in result.problems[0].text
    assert result.problems[1].text == "object 2 is truncated: 1 byte of 381 bytes are missing"
    assert result.missing_bytes == 1


# -- damaged -------------------------------------------------------------------------------------------------------------


def test_a_damaged_block_of_squashfs(tmp_path, sif):
    path = tmp_path / "t.sqfs"
    path.write_bytes(TINY_SQUASHFS)
    result = check_image(flipped(path, 100))
    assert not result.good and result.problems[0].code.startswith("squashfs-") and "/d/data" in result.problems[0].text
    with SIF.open(sif) as opened:
        offset = opened.get(1).offset
    result = check_image(flipped(sif, offset + 100))
    assert not result.good and result.problems[0].id == 1 and result.problems[0].text.startswith("object 1: ")


@pytest.mark.parametrize("offset", [0, 20, 28, 32, 40, 64, 88])
def test_a_damaged_superblock_of_squashfs(tmp_path, offset):
    path = tmp_path / "t.sqfs"
    path.write_bytes(TINY_SQUASHFS)
    result = check_image(flipped(path, offset, 0x80))
    assert not result.good and "\n" not in result.problems[0].text


def test_damage_that_readers_tolerate_is_a_warning(tmp_path, ext3, sif):
    with sif.open("ab") as file:
        file.write(b"more")
    result = check_image(sif)
    assert result.good and (result.errors, result.warnings, codes(result)) == (0, 1, ["trailing-bytes"])


def test_a_damaged_ext3_image(ext3):
    damage_counts(ext3)
    result = check_image(ext3)
    assert not result.good and all(code.startswith("ext3-") for code in codes(result))
    assert result.errors == len(result.problems) and "\n" not in "".join(problem.text for problem in result.problems)


def test_overlapping_objects_are_not_read(tmp_path):
    path = tmp_path / "a.sif"
    with SIF.create(path) as sif:
        for _ in range(20):
            sif.add(TINY_SQUASHFS, DataType.PARTITION, group=1, metadata=partition(PartType.SYSTEM))
    raw = bytearray(path.read_bytes())
    for number in range(1, 20):
        slot(number, Offset=1 << 16)(raw)
    path.write_bytes(raw)
    result = check_image(path)
    assert not result.good and not result.parts


def test_many_partitions_are_not_read(tmp_path):
    path = tmp_path / "a.sif"
    with SIF.create(path, capacity=70) as sif:
        for _ in range(65):
            sif.add(TINY_SQUASHFS, DataType.PARTITION, group=1, alignment=1, metadata=partition(PartType.SYSTEM))
    result = check_image(path)
    assert codes(result) == ["partitions"] and not result.parts


def test_a_missing_codec_is_said(tmp_path, monkeypatch):
    (tmp_path / "t").write_bytes(TINY_SQUASHFS[:20] + b"\5" + TINY_SQUASHFS[21:])  # lz4
    monkeypatch.setitem(sys.modules, "lz4", None)
    monkeypatch.setitem(sys.modules, "lz4.block", None)
    result = check_image(tmp_path / "t")
    assert codes(result) == ["missing-codec"]
    assert result.problems[0].text.endswith("pip install 'sifkit[codecs]'")


@pytest.mark.parametrize("name", ["gzip", "lz4", "lzma", "lzo", "options", "xz", "zstd"])
def test_images_of_every_compressor_are_good(name):
    path = FIXTURES / f"{name}.sqfs"
    result = check_image(path, threads=2)
    assert result.good and not result.warnings and not result.notes, result.problems


def test_mutants_have_a_result(sif):
    raw, numbers = sif.read_bytes(), random.Random(5)
    places = [*range(200), *range(4096, 5300), *range(8192, 8573)]
    verdicts = set()
    for _ in range(400):
        mutant = bytearray(raw)
        for _ in range(numbers.choice((1, 1, 4))):
            at, width = numbers.choice(places), numbers.choice((1, 2, 4, 8))
            mutant[at : at + width] = numbers.choice((0, 1, (1 << 8 * width) - 1, 1 << (8 * width - 1))).to_bytes(
                width, "little"
            )
        sif.write_bytes(mutant)
        result = check_image(sif)
        verdicts.add(result.good)
        assert result.good == (not result.errors) and "\n" not in "".join(problem.text for problem in result.problems)
    assert verdicts == {False, True}


def test_only_some_problems_are_kept():
    result = ImageResult("x")
    for number in range(KEPT_PROBLEMS + 5):
        result.add(ImageProblem("code", str(number)))
    assert len(result.problems) == KEPT_PROBLEMS and result.errors == KEPT_PROBLEMS + 5


# -- in use, other files -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="locks of open files are Linux's")
def test_an_image_in_use_is_checked_with_a_note(ext3):
    fd = os.open(ext3, os.O_RDWR)
    try:
        assert lock_range(fd, write=True, path=str(ext3))
        result = check_image(ext3)
    finally:
        os.close(fd)
    assert result.good and result.in_use
    assert result.notes[0].startswith(f"in use: locked for writing by process {os.getpid()}")


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (b"", "truncated", "truncated: it is empty"),
        (b"x" * 95, "truncated", "truncated: at least 1 byte of at least 96 bytes are missing"),
        (b"x" * 5000, "not-image", "it is not an image: neither SIF nor squashfs nor ext3"),
        (b"sqsh" + bytes(5000), "unsupported", "squashfs: a big-endian squashfs image"),
        (b"hsqs" + bytes(24) + b"\3" + bytes(5000), "unsupported", "squashfs: squashfs version 3.0"),
    ],
)
def test_files_that_are_no_image(tmp_path, content, code, text):
    (tmp_path / "x").write_bytes(content)
    result = check_image(tmp_path / "x")
    assert codes(result) == [code] and result.problems[0].text.startswith(text)
    assert check_image(tmp_path / "x", any_content=True).good is (code in ("truncated", "not-image"))


def test_ext4_is_named(tmp_path, ext3):
    result = check_image(flipped(ext3, 1024 + 0x60, 0x40))
    assert codes(result) == ["unsupported"] and "ext4" in result.problems[0].text


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_what_cannot_be_read_is_bad(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    result = check_image(path)
    assert not result.good and len(result.problems) == 1


def test_an_error_of_reading_is_bad(sif, monkeypatch):
    def fail(fd, offset, size):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("ext3.hostio.read_at", fail)
    result = check_image(sif)
    assert [problem.text for problem in result.problems] == ["it cannot be read: Input/output error"]


def test_digests(sif):
    got = hashlib.sha256(sif.read_bytes()).hexdigest()
    done = []
    result = check_image(sif, hashed=True, want=got, advance=done.append)
    assert result.good and result.digest is not None and result.digest.matches and sum(done) == 2 * result.size_bytes
    result = check_image(sif, hashed=True, want="0" * 64)
    assert codes(result) == ["digest"] and got in result.problems[0].text
    assert codes(check_image(sif, hashed=True)) == ["not-listed"]


def test_an_interrupt_does_not_wait_for_the_digest(tmp_path, monkeypatch):
    path = tmp_path / "t"
    path.write_bytes(TINY_SQUASHFS)
    os.truncate(path, 1 << 40)
    hashing = threading.Event()

    def interrupted(*_, **__):
        assert hashing.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(image_check, "_check_content", interrupted)
    done = []

    def advance(count):
        done.append(count)
        hashing.set()
        assert len(done) < 5000  # MiB: ends the thread of a check that waits for it

    with pytest.raises(KeyboardInterrupt):
        check_image(path, hashed=True, advance=advance)
    assert len(done) < 5000


def test_progress_is_the_size_of_the_file(sif, ext3):
    for path in (sif, ext3):
        done = []
        assert check_image(path, advance=done.append).good and sum(done) == path.stat().st_size


def test_an_encrypted_partition_is_named(tmp_path):
    path = tmp_path / "a.sif"
    with SIF.create(path) as sif:
        content = b"LUKS\xba\xbe" + bytes(5000)
        meta = partition(PartType.PRIMARY_SYSTEM, FSType.ENCRYPTED_SQUASHFS)
        sif.add(content, DataType.PARTITION, group=1, metadata=meta)
    result = check_image(path)
    assert result.good and [(part.role, part.skipped) for part in result.parts] == [("root", "encrypted, not checked")]
