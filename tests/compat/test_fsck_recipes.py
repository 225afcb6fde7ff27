"""Every kind of damage of tools/recipes: e2fsck finds it, our check repairs it as e2fsck does, and changes nothing else."""

from __future__ import annotations

import os

import pytest

from ext3.device.base import FileDevice
from ext3.fsck.checking import check
from ext3.fsck.context import CheckOptions
from ext3.fsck.policy import Yes
from tools.corrupt import RECIPES, damaged
from tools.damage import Damage
from tools.judge_fsck import complaints, e2fsck, judge
from tools.sound_images import BASES, base_image

from ..support.tools import require

QUICK = 15
"""One recipe of so many is tried in every run; the others are slow together."""

PREENS = ("fp", "p")
"""Modes of safe repairs, which recipes take by turns; ``python -m tools.judge_fsck --recipes`` takes both for each."""
ORDER = {name: number for number, name in enumerate(RECIPES)}

NAMES = [
    pytest.param(name, marks=[] if number % QUICK == 0 else [pytest.mark.slow]) for number, name in enumerate(RECIPES)
]  # fmt: skip

ONLY_THERE = {
    "super-free-blocks": [],
    "super-free-inodes": [],
    "count-free-blocks": ["group[1].bg_free_blocks_count"],
    "count-directories": ["group[0].bg_used_dirs_count"],
    "block-bitmap-lost-bits": ["used.block[300]"],
    "block-bitmap-more-bits": ["used.block[7000]"],
    "inode-bitmap-lost-bit": ["used.inode[12]"],
    "padding-blocks": ["used.block[12000]"],
    "inode-dtime": ["inode[/file].i_dtime"],
    "inode-faddr": ["inode[/file].i_faddr"],
    "flag-index-file": ["inode[/file].i_flags"],
    "blocks-zero": ["inode[/file].i_blocks"],
    "size-small": ["inode[/file].i_size"],
    "size-directory": ["inode[/dir].i_size"],
    "links-large": ["inode[/twin].i_links_count"],
    "extra-isize": ["inode[/twin].i_extra_isize"],
    "ibody-hash": ["inode[/twin].i_mode"],
    "xattr-refcount": ["xattr[/file].h_refcount"],
    "dot-inode": ["entry[/dir:.].inode"],
    "dotdot-inode": ["entry[/dir/sub:..].inode"],
    "entry-slash": ["entry[/dir:file-2].inode"],
    "entry-file-type": ["entry[/dir:file-2].inode"],
    "resize-size": ["inode[7].i_size"],
}
"""Where a repair may write, besides the superblock: the blocks in which these fields lie."""


@pytest.mark.parametrize("base", BASES)
def test_the_undamaged_images_are_sound(base, scratch):
    require("e2fsck", "mke2fs", "debugfs")
    image = scratch / "sound.img"
    image.write_bytes(base_image(base))
    result = judge(image, scratch, base)
    assert not result.complaints
    assert not result.differences, result.differences
    assert not result.codes


@pytest.mark.parametrize("name", NAMES)
def test_as_e2fsck(name, scratch):
    require("e2fsck", "mke2fs", "debugfs")
    recipe = RECIPES[name]
    image = scratch / "recipe.img"
    image.write_bytes(damaged(recipe))
    if recipe.apart:
        assert bool(complaints(*e2fsck(image, "-fn"))) != bool(recipe.clean)
        pytest.skip(f"not as e2fsck: {recipe.apart}")
    result = judge(image, scratch, name, preens=[PREENS[ORDER[name] % len(PREENS)]])
    assert bool(result.complaints) != bool(recipe.clean)
    assert not result.differences, "\n".join([*result.differences, result.their_text, *result.codes])


@pytest.mark.parametrize("name", ONLY_THERE)
def test_nothing_else_is_written(name, scratch):
    require("mke2fs", "debugfs")
    recipe = RECIPES[name]
    before = damaged(recipe)
    sound = Damage(base_image(recipe.base))
    size = sound.size
    image = scratch / "recipe.img"
    image.write_bytes(before)
    fd = os.open(image, os.O_RDWR)
    try:
        report = check(FileDevice(fd), Yes(), options=CheckOptions(force=True))
    finally:
        os.close(fd)
    assert report.corrected
    after = image.read_bytes()
    changed = {at // size for at in range(0, len(before), size) if before[at : at + size] != after[at : at + size]}
    allowed = {1024 // size, *(sound.offset(path) // size for path in ONLY_THERE[name])}
    assert changed <= allowed
    assert len(changed) >= min(2, len(allowed))
