"""The check beside e2fsck on damaged directories and indexes: blocks damaged by hand, and at random."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import ext3
from ext3.device.base import FileDevice, MemoryDevice
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.policy import Yes
from tools.judge_fsck import e2fsck, judge

from ..support.directory_damage import (
    BLOCK_SIZE,
    DAMAGE,
    DIRECTORY,
    INDEX_DAMAGE,
    SOUND,
    damaged_image,
    damaged_index,
    directory_blocks,
    indexed_image,
    sample_image,
)
from ..support.tools import assert_clean, require

pytestmark = pytest.mark.compat

FEW_SEEDS, MORE_SEEDS = 6, range(6, 60)
FIXED = "e2fsck itself leaves "
APART = {"slash as a name": FIXED + "a second '.'"}
"""Damage that e2fsck repairs into other damage."""
CASES: dict[str, Callable[[], bytes | bytearray]] = {
    **{name: lambda recipe=recipe: damaged_image(recipe) for name, recipe in {**DAMAGE, **SOUND}.items()},
    **{f"index: {name}": lambda recipe=recipe: damaged_index(recipe) for name, recipe in INDEX_DAMAGE.items()},
}
QUICK = 6
"""One case of so many is tried in every run; the others are slow together."""


def cases() -> list[object]:
    slow = pytest.mark.slow
    return [pytest.param(name, marks=[] if at % QUICK == 0 else [slow]) for at, name in enumerate(CASES)]


@pytest.mark.parametrize("name", cases())
def test_as_e2fsck(name: str, tmp_path: Path) -> None:
    require("e2fsck")
    if name in APART:
        pytest.skip(APART[name])
    image = tmp_path / "case.img"
    image.write_bytes(CASES[name]())
    result = judge(image, tmp_path, name)
    assert not result.differences, "\n".join([*result.differences, result.their_text, *result.codes])


def mutated(seed: int) -> bytes:
    """A sample with a few bytes, fields or names of its directories changed."""
    generator = random.Random(seed)
    image = bytearray((sample_image, lambda: indexed_image(0), lambda: indexed_image(1))[seed % 3]())
    blocks = directory_blocks(image)
    for _ in range(generator.choice((1, 1, 2, 4))):
        at = generator.choice(blocks)
        offsets, offset = [], 0
        while offset < BLOCK_SIZE - 12:
            offsets.append(offset)
            length = struct.unpack_from("<H", image, at + offset + 4)[0]
            offset += length if length >= 12 else BLOCK_SIZE
        record = at + generator.choice(offsets)
        kind = generator.randrange(6)
        if kind == 0:
            struct.pack_into(
                "<H", image, record + 4, generator.choice((0, 8, 12, 20, BLOCK_SIZE, generator.randrange(1 << 16)))
            )
        elif kind == 1:
            struct.pack_into("<I", image, record, generator.choice((0, 1, 2, 8, 11, 12, 13, 900, 1 << 31)))
        elif kind == 2:
            image[record + 6] = generator.choice((0, 1, 2, 200))
        elif kind == 3:
            image[record + 7] = generator.randrange(9)
        elif kind == 4:
            image[at + generator.choice((24, 28, 29, 30, 32, 34, 36, 40, 44, 8, 10))] = generator.randrange(256)
        else:
            image[at + generator.randrange(BLOCK_SIZE)] ^= 1 << generator.randrange(8)
    return bytes(image)


@pytest.mark.parametrize("seed", [*range(FEW_SEEDS), *(pytest.param(seed, marks=pytest.mark.slow) for seed in MORE_SEEDS)])
def test_random_damage_is_repaired_at_once(seed: int, tmp_path: Path) -> None:
    require("e2fsck")
    image = tmp_path / "random.img"
    image.write_bytes(mutated(seed))
    result = judge(image, tmp_path, str(seed))
    # Where preening stops, e2fsck goes on from the image, and it may not manage at once.
    differences = [text for text in result.differences if not text.startswith(("-p", "-fp:", "-fp loses"))]
    assert not differences, "\n".join([*differences, result.their_text, *result.codes])


@pytest.mark.parametrize("levels", [0, 1])
def test_rebuilt_directories_are_sound_for_e2fsck(levels: int, tmp_path: Path) -> None:
    image = tmp_path / "all.img"
    image.write_bytes(indexed_image(levels))
    with ext3.Filesystem.open(image, "r+") as fs:
        before = {path: entry.ino for path, entry in fs.walk()}
        for path in sorted(before)[::2]:
            if path.startswith(DIRECTORY[1:] + b"/"):
                fs.unlink(b"/" + path)
        before = {path: entry.ino for path, entry in fs.walk()}
    with image.open("r+b") as file:
        options = CheckOptions(force=True, rebuild_directories=True)
        report = check(FileDevice(file.fileno()), Yes(), options=options)
    assert report.changed
    assert_clean(image)
    with ext3.Filesystem.open(MemoryDevice(image.read_bytes())) as fs:
        assert {path: entry.ino for path, entry in fs.walk()} == before
    assert e2fsck(image, "-fy")[0] == 0
