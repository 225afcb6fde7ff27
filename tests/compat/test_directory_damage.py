"""Directory blocks that we refuse are those that e2fsck would change; those that only look odd are not."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import pytest

import ext3
from ext3.errors import CorruptError

from ..support.directory_damage import (
    BLOCK_SIZE,
    DAMAGE,
    DIRECTORY,
    INDEX_DAMAGE,
    SOUND,
    IndexRecipe,
    Recipe,
    damaged_image,
    damaged_index,
    indexed_image,
)
from ..support.tools import assert_clean, run

pytestmark = pytest.mark.compat

COMPLAINTS = re.compile(
    rb"""directory\ corrupted | zero-length\ name | illegal\ characters\ in\ its\ name
    | has\ invalid\ inode\ \#:\ (?!0*(10|[1-9])\.) | is\ duplicate\ '\.\.?'\ entry
    | ^First\ entry.*should\ be\ '\.' | ^Second\ entry.*should\ be\ '\.\.' | ^Missing\ '\.\.?'\ in\ directory
    | is\ not\ NULL\ terminated | ^Directory\ entry\ for\ '\.'.*is\ big""",
    re.MULTILINE | re.VERBOSE,
)
"""What pass 2 of e2fsck says of a block, whatever its names lead to: not that an inode is reserved."""


def e2fsck_complains(path: Path) -> bool:
    done = run("e2fsck", "-fn", path, ok=range(256))
    return COMPLAINTS.search(done.stdout) is not None


def we_refuse(image: bytes) -> bool:
    with ext3.Filesystem.open(io.BytesIO(image)) as fs:
        try:
            list(fs.scandir(DIRECTORY))
        except CorruptError:
            return True
    return False


@pytest.mark.parametrize("recipe", DAMAGE.values(), ids=list(DAMAGE))
def test_e2fsck_would_change_what_we_refuse(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(damaged_image(recipe))
    assert e2fsck_complains(path)


@pytest.mark.parametrize("recipe", SOUND.values(), ids=list(SOUND))
def test_e2fsck_would_not_change_what_only_looks_odd(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(damaged_image(recipe))
    assert not e2fsck_complains(path)


@pytest.mark.parametrize("seed", range(100))
def test_random_damage(seed: int, tmp_path: Path) -> None:
    """We refuse a block if and only if e2fsck would change it."""
    chosen = random.Random(seed)

    def change(block: bytearray) -> None:
        for _ in range(chosen.choice((1, 1, 2))):
            at = chosen.choice((chosen.randrange(84), chosen.randrange(84), chosen.randrange(BLOCK_SIZE)))
            block[at] = chosen.choice((0, 1, 2, 4, 12, 16, 24, 46, 47, 255, chosen.randrange(256)))

    image = damaged_image(Recipe(change, "", 0, logical=chosen.choice((0, 0, 1))))
    path = tmp_path / "a.img"
    path.write_bytes(image)
    assert we_refuse(bytes(image)) == e2fsck_complains(path)


@pytest.mark.parametrize("recipe", INDEX_DAMAGE.values(), ids=list(INDEX_DAMAGE))
def test_e2fsck_complains_of_an_odd_index(recipe: IndexRecipe, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(damaged_index(recipe))
    assert b"HTREE directory inode" in run("e2fsck", "-fn", path, ok=range(256)).stdout


@pytest.mark.parametrize("recipe", INDEX_DAMAGE.values(), ids=list(INDEX_DAMAGE))
def test_a_directory_with_an_odd_index_is_removed_and_e2fsck_is_content(recipe: IndexRecipe, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(damaged_index(recipe))
    with ext3.Filesystem.open(path, "r+") as fs:
        fs.remove_tree(DIRECTORY)
    assert_clean(path)


@pytest.mark.parametrize("levels", [0, 1])
def test_the_index_before_it_is_damaged(levels: int, tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(indexed_image(levels))
    assert_clean(path)
