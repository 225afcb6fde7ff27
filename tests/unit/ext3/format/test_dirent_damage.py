"""One judge of directory blocks: who reads a directory and who changes it refuse the same blocks in the same words."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import ext3
from ext3.device.base import MemoryDevice
from ext3.errors import CorruptError
from ext3.format import dirent_columns
from ext3.format.dirent import DirentFields, dirent_violations, length_fault, read_dirents
from ext3.format.dirent_columns import read_dirent_columns

from ....support.directory_damage import (
    BLOCK_SIZE,
    DAMAGE,
    DIRECTORY,
    NAMES,
    SOUND,
    Recipe,
    damaged_image,
    directory_block,
    put,
    sample_image,
)
from ....support.sessions import clock
from ....support.tiny_image import dirents

INODES = 100


def refused(work: Callable[[], object]) -> tuple[str, str, object, object]:
    """The facts of the CorruptError that comes."""
    with pytest.raises(CorruptError) as caught:
        work()
    error = caught.value
    return error.where, error.field, error.got, error.want


@pytest.mark.parametrize("recipe", DAMAGE.values(), ids=list(DAMAGE))
def test_readers_and_editors_refuse_the_same(recipe: Recipe) -> None:
    image = damaged_image(recipe)
    name = NAMES[recipe.logical]
    path = DIRECTORY + b"/" + name
    with ext3.Filesystem.open(io.BytesIO(bytes(image))) as fs:
        ino = fs.lookup(DIRECTORY)
        facts = refused(lambda: list(fs.scandir(DIRECTORY)))
        assert facts[:2] == (f"directory inode {ino}, block {recipe.logical} at byte {recipe.at}", recipe.field)
        assert refused(lambda: fs.lookup(path)) == facts
        assert refused(lambda: fs.lookup(DIRECTORY + b"/absent")) == facts
        top, damaged = fs.scan_many([2, ino])
        assert top.problem is None
        assert isinstance(damaged.problem, CorruptError) and (damaged.problem.where, damaged.problem.field) == facts[:2]
    device = MemoryDevice(bytearray(image))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        before = bytes(device.data)
        works: list[Callable[[], object]] = [
            lambda: fs.lookup(path),
            lambda: list(fs.scandir(DIRECTORY)),
            lambda: fs.create(DIRECTORY + b"/new"),
            lambda: fs.create_at(ino, b"y" * 200),
            lambda: fs.unlink(path),
            lambda: fs.rename(path, "/moved"),
            lambda: fs.rename(path, DIRECTORY + b"/renamed"),
        ]
        if not recipe.logical:  # else the names before say enough
            works.append(lambda: fs.rmdir(DIRECTORY))
        for work in works:
            assert refused(work) == facts
        fs.sync()
        assert bytes(device.data) == before


@pytest.mark.parametrize("recipe", SOUND.values(), ids=list(SOUND))
def test_what_looks_odd_is_read_and_changed(recipe: Recipe) -> None:
    image = damaged_image(recipe)
    with ext3.Filesystem.open(io.BytesIO(bytes(image))) as fs:
        ino = fs.lookup(DIRECTORY)
        entries = list(fs.scandir(DIRECTORY))
        together = list(fs.scan_many([2, ino]))[1]
        assert together.problem is None
        assert [row[:3] for row in together.rows] == sorted(entries)
        assert fs.lookup(DIRECTORY + b"/dd")
    device = MemoryDevice(image)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        assert list(fs.scandir(DIRECTORY)) == entries
        fs.unlink(DIRECTORY + b"/dd")
        for number in range(40):
            fs.create(DIRECTORY + b"/%d" % number)
    with ext3.Filesystem.open(device) as fs:
        names = {entry.name for entry in fs.scandir(DIRECTORY)}
        assert names == {entry.name for entry in entries} - {b"dd"} | {b"%d" % number for number in range(40)}


def test_nothing_is_put_between_the_dots() -> None:
    """A name would fit behind a long ``.``, and ``..`` would no longer be second."""
    image = damaged_image(SOUND["dot of 24 bytes"])
    with ext3.Filesystem.open(MemoryDevice(image), "r+", clock=clock) as fs:
        fs.create(DIRECTORY + b"/n")
        assert fs.lookup(DIRECTORY + b"/n")
        assert [entry.name for entry in fs.scandir(DIRECTORY)][:3] == [b"bbbb", b"dd", b"n"]


def random_block(chosen: random.Random, first: bool) -> bytes:
    names = [b"".join(chosen.choices((b"a", b".", b"\xff", b"name"), k=chosen.randrange(1, 6))) for _ in range(12)]
    entries = [(name, chosen.choice((0, 11, 12, 99)), 1) for name in names if name not in (b".", b"..")]
    block = bytearray(dirents([(b".", 12, 2), (b"..", 2, 2), *entries] if first else entries or [(b"x", 0, 0)]))
    for _ in range(chosen.choice((0, 0, 1, 1, 2))):
        at = chosen.choice((chosen.randrange(40), chosen.randrange(160)))
        block[at] = chosen.choice((0, 1, 2, 4, 46, 47, 12, 24, 28, 100, 101, chosen.randrange(256)))
    return bytes(block)


def one_by_one(blocks: Sequence[bytes], first: Sequence[bool]) -> tuple[list[int], list[tuple[int, int, int, bytes]]]:
    """The damaged blocks, and the records of the others."""
    damaged, good = [], []
    for number, (block, is_first) in enumerate(zip(blocks, first, strict=True)):
        found: list[DirentFields] = []
        try:
            read_dirents(block, 0 if is_first else 5, found, inodes=INODES, where="test")
        except CorruptError:
            damaged.append(number)
            continue
        found = found[2:] if is_first else found
        good += [(number * BLOCK_SIZE + at, ino, file_type, name) for at, ino, _, file_type, name in found]
    return damaged, good


@pytest.mark.parametrize("few", [0, 16, 1 << 30])
@pytest.mark.parametrize("seed", range(20))
def test_many_blocks_are_judged_as_one(monkeypatch: pytest.MonkeyPatch, seed: int, few: int) -> None:
    monkeypatch.setattr(dirent_columns, "FEW", few)
    chosen = random.Random(seed)
    first = [chosen.random() < 0.5 for _ in range(200)]
    blocks = [random_block(chosen, is_first) for is_first in first]
    damaged, good = one_by_one(blocks, first)
    assert 20 < len(damaged) < 180
    raw = b"".join(blocks) + bytes(12)
    found = read_dirent_columns(raw, np.array(first), block_size=BLOCK_SIZE, inodes=INODES)
    assert sorted(set(found.damaged.tolist())) == damaged
    rows = zip(found.at.tolist(), found.inodes.tolist(), found.file_types.tolist(), found.names, strict=True)
    assert [row for row in rows if row[0] // BLOCK_SIZE not in set(damaged)] == good


@pytest.mark.parametrize("few", [0, 16])
@pytest.mark.parametrize("recipe", DAMAGE.values(), ids=list(DAMAGE))
def test_each_recipe_among_many_blocks(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, few: int) -> None:
    monkeypatch.setattr(dirent_columns, "FEW", few)
    image = damaged_image(recipe)
    with ext3.Filesystem.open(io.BytesIO(bytes(image))) as fs:
        (_, start, count), *more = fs.data_extents(DIRECTORY)
        numbers = [start + at for at in range(count)] + [block for _, block, _ in more]
    blocks = [bytes(image[number * BLOCK_SIZE : (number + 1) * BLOCK_SIZE]) for number in numbers] * 20
    raw = b"".join(blocks) + bytes(12)
    found = read_dirent_columns(raw, np.array([True, False] * 20), block_size=BLOCK_SIZE, inodes=1024)
    assert sorted(set(found.damaged.tolist())) == list(range(recipe.logical, 40, 2))


def first_error(block: bytes, logical: int, inodes: int) -> list[str]:
    """What the reader raises, if it does."""
    try:
        read_dirents(block, logical, [], inodes=inodes, where="test")
    except CorruptError as error:
        return [str(error)]
    return []


def violations(block: bytes | bytearray, logical: int, inodes: int) -> list[str]:
    return [str(found) for found in dirent_violations(bytes(block), logical, inodes=inodes, where="test")]


@pytest.mark.parametrize("recipe", [*DAMAGE.values(), *SOUND.values()], ids=[*DAMAGE, *SOUND])
def test_the_reader_raises_the_first_violation(recipe: Recipe) -> None:
    image = damaged_image(recipe)
    start = directory_block(bytearray(sample_image()), recipe.logical)
    block = bytes(image[start : start + BLOCK_SIZE])
    found = violations(block, recipe.logical, 1024)
    assert found[:1] == first_error(block, recipe.logical, 1024)
    assert bool(found) == bool(recipe.field)


@pytest.mark.parametrize("seed", range(10))
def test_the_reader_raises_the_first_violation_of_any_block(seed: int) -> None:
    chosen = random.Random(seed)
    several = 0
    for number in range(300):
        block = random_block(chosen, first=number % 2 == 0)
        found = violations(block, number % 2, INODES)
        assert found[:1] == first_error(block, number % 2, INODES)
        several += len(found) > 1
    assert several > 3


def test_violations_go_on_behind_a_record_with_a_fault() -> None:
    block = bytearray(
        dirents([(b".", 12, 2), (b"..", 2, 2), *((b"n%d" % number, 12, 1) for number in range(6)), (b"x", 12, 1)])
    )
    for change in (
        put(0, "I", 999),  # "." leads nowhere and is too long a name
        put(6, "B", 2),
        put(22, "c", b"x"),  # no NUL behind ".."
        put(24, "I", 998),  # an inode that does not exist
        put(42, "B", 200),  # a name that leaves its record
        put(48, "I", 997),  # both
        put(56, "2s", b"a/"),
        put(66, "B", 0),  # no name
        put(78, "B", 1),  # "." once more
        put(80, "2s", b".x"),
    ):
        change(block)
    found = list(dirent_violations(bytes(block), 0, inodes=INODES, where="d"))
    assert [(violation.where, violation.field) for violation in found] == [
        ("d, block 0 at byte 0", "inode"),
        ("d, block 0 at byte 0", "name"),
        ("d, block 0 at byte 12", "name"),
        ("d, block 0 at byte 24", "inode"),
        ("d, block 0 at byte 36", "name_len"),
        ("d, block 0 at byte 48", "inode"),
        ("d, block 0 at byte 48", "name"),
        ("d, block 0 at byte 60", "name_len"),
        ("d, block 0 at byte 72", "name"),
    ]


def test_violations_end_where_a_record_cannot_be_stepped_over() -> None:
    block = bytearray(dirents([(b"a", 999, 1), (b"b", 12, 1), (b"c", 998, 1)]))
    put(16, "H", 6)(block)
    assert [found.field for found in dirent_violations(bytes(block), 1, inodes=INODES, where="d")] == ["inode", "rec_len"]
    assert length_fault(block, 0) is None
    assert length_fault(block, 12) == ("rec_len", 6, "a multiple of 4 from 12 to 1012")


def test_a_block_in_which_the_dots_are_missing() -> None:
    block = bytearray(BLOCK_SIZE)
    put(0, "IHBB4s", 12, BLOCK_SIZE, 1, 2, b".")(block)
    found = list(dirent_violations(bytes(block), 0, inodes=INODES, where="d"))
    assert [(violation.where, violation.field, violation.want) for violation in found] == [
        ("d, block 0 at byte 0", "rec_len", "from 12 to 24"),
        ("d, block 0 at byte 1024", "record", ".."),
    ]
    assert violations(b"", 0, INODES) == [f"test, block 0 at byte 0: record is missing, want {name}" for name in (".", "..")]
