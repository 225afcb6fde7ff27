"""Names of directories found, added and removed while the filesystem may still be damaged."""

from __future__ import annotations

import pytest

from ext3.fsck.directory_names import DirectoryNames
from tests.support.directory_damage import BLOCK_SIZE, DAMAGE, DIRECTORY, SOUND, damaged_image, directory_block, sample_image
from tests.support.fsck_images import Image, context_of

TORN = [name for name, recipe in DAMAGE.items() if recipe.field in ("record", "rec_len") and not recipe.logical and recipe.at]
"""Recipes for block 0 with a record that cannot be stepped over."""


@pytest.mark.parametrize("name", TORN)
def test_no_name_is_added_to_a_block_that_records_do_not_tile(name: str) -> None:
    image = Image(damaged_image(DAMAGE[name]))
    start = directory_block(bytearray(sample_image()), 0)
    context = context_of(image)
    names = DirectoryNames(context, image.ino(DIRECTORY.decode()))
    added = 0
    while names.add(b"new%d" % added, 12):
        added += 1
    assert added
    assert context.read(start // BLOCK_SIZE) == image.data[start : start + BLOCK_SIZE]
    before = DAMAGE[name].at
    assert (names.find(b"aa") is not None) == (before > 24)
    assert names.find(b"new0") is not None


@pytest.mark.parametrize("name", SOUND)
def test_names_are_added_to_a_block_that_only_looks_odd(name: str) -> None:
    image = Image(damaged_image(SOUND[name]))
    names = DirectoryNames(context_of(image), image.ino(DIRECTORY.decode()))
    assert names.add(b"new", 12)
    found = names.find(b"new")
    assert found is not None and found.offset > 12
