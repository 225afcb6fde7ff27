"""Images damaged at random are read, extracted and changed: data or a clear error, and nothing written where it must not be."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.ext3_mutants import Sample, mutate, samples
from tools.fuzz_ext3 import SECONDS, try_image
from tools.fuzzing import time_limit


@cache
def good() -> list[Sample]:
    return samples()


def test_undamaged_images_can_be_changed() -> None:
    """What is tried on damaged images works on good ones."""
    for number, sample in enumerate(good()):
        assert "CorruptError" not in try_image(sample.data, random.Random(number))
        assert {"superblock", "group", "bitmap", "inode", "directory", "pointers", "attributes"} <= sample.spots.keys()
    assert any("log" in sample.spots for sample in good())
    assert any("index" in sample.spots for sample in good())


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(st.integers(0, 4), st.integers(0, 1 << 32))
def test_any_damage(which: int, seed: int) -> None:
    chance = random.Random(seed)
    mutant = mutate(good()[which], chance)
    with time_limit(4 * SECONDS):
        try_image(mutant, chance)
