"""Some mutants of tools/fuzz_fsck.py, which tries thousands."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tools.ext3_mutants import sample_of
from tools.fuzz_fsck import Fault, damage, facts_of, try_mutant
from tools.sound_images import BASES, base_image

from ..support.tools import require

pytestmark = [pytest.mark.compat, pytest.mark.slow]
MUTANTS = 6


@pytest.mark.parametrize("base", BASES)
def test_random_damage_is_repaired_as_e2fsck_does(base: str, tmp_path: Path) -> None:
    require("e2fsck", "mke2fs", "debugfs")
    sample = sample_of(base_image(base))
    originals = facts_of(sample)
    for number in range(MUTANTS):
        chance = random.Random(f"{base} {number}")
        try:
            try_mutant(damage(sample, chance), chance, tmp_path, originals)
        except Fault as fault:
            pytest.fail(f"mutant {number} of {base}: {fault}")


def test_a_sound_image_stays_sound(tmp_path: Path) -> None:
    require("e2fsck", "mke2fs", "debugfs")
    sample = sample_of(base_image("ext3"))
    assert try_mutant(sample.data, random.Random(1), tmp_path, facts_of(sample)) == "sound"


def test_a_fault_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("e2fsck", "mke2fs", "debugfs")
    sample = sample_of(base_image("ext3"))
    monkeypatch.setattr("ext3.fsck.checking._PASSES", ())
    damaged = bytearray(sample.data)
    start = next(offset for kind, offset, _ in sample.spots["bitmap"])
    damaged[start : start + 16] = bytes(16)
    with pytest.raises(Fault, match="e2fsck still says"):
        try_mutant(bytes(damaged), random.Random(1), tmp_path, facts_of(sample))
