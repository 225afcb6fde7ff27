"""Images damaged at random are resized, rebuilt and tuned: done right, or refused with a clear error and left as they are."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ext3
from ext3.device.base import MemoryDevice
from sifkit.errors import SifkitError
from sifkit.overlay.edit.edit_session import edit_image
from sifkit.overlay.resizing.image_resize import resize
from sifkit.overlay.resizing.rebuilding import RebuildOptions, rebuild
from sifkit.overlay.resizing.resize_request import ResizeOptions, ResizeTarget
from tools.ext3_mutants import Sample, mutate, samples
from tools.fuzzing import time_limit

from ..support.facts import TreeFacts, facts_of_image

pytestmark = pytest.mark.slow
SECONDS = 60
TYPED = (SifkitError, ext3.Ext3Error, OSError)


@cache
def good() -> list[Sample]:
    return samples()


def facts(data: bytes) -> TreeFacts | None:
    """What an image holds, None if it cannot be read."""
    with suppress(*TYPED, AssertionError), ext3.Filesystem.open(MemoryDevice(data)) as fs:
        if fs.journal_problem is None:
            return facts_of_image(fs)
    return None


def without_links(found: TreeFacts | None) -> TreeFacts | None:
    """Facts without links: wrong counts are right in a rebuilt image."""
    return found and {path: fact._replace(links=None, first=b"") for path, fact in found.items()}


def codes(data: bytes) -> set[str]:
    """Codes of what a check finds."""
    report = ext3.fsck.check(MemoryDevice(data), ext3.CheckOnly(), options=ext3.CheckOptions(force=True))
    return {finding.code for finding in report.findings}


def is_silent(data: bytes) -> bool:
    return not codes(data)


def attempt(path: Path, data: bytes, job: Any) -> bool:
    """Do something to an image. Return whether it was done; a refusal leaves it as it is."""
    path.write_bytes(data)
    try:
        job(path)
    except TYPED as error:
        assert str(error) and "\n" not in str(error)
        assert path.read_bytes() == data, error
        return False
    return True


def grow(path: Path) -> None:
    resize(path, ResizeOptions(target=ResizeTarget(change=20 << 20)))


def shrink(path: Path) -> None:
    resize(path, ResizeOptions(target=ResizeTarget(minimum=True)))


def tune(path: Path) -> None:
    with edit_image(path) as edited:
        edited.filesystem.change_settings(label=b"tuned", reserved_blocks=3)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 4), st.integers(0, 1 << 32), st.booleans())
@example(which=4, seed=90304, sound=False)  # an empty file with a flag of other formats
@example(which=2, seed=2612, sound=False)  # a creation time after 2262
@example(which=2, seed=10096, sound=False)  # a file that has the block of the superblock, which a growth changes
def test_any_damage(tmp_path: Path, which: int, seed: int, sound: bool) -> None:
    sample = good()[which % len(good())]
    data = bytes(sample.data) if sound and not seed % 5 else bytes(mutate(sample, random.Random(seed)))
    path, before = tmp_path / "a.img", facts(data)
    with time_limit(SECONDS):
        if attempt(path, data, lambda image: rebuild(image, RebuildOptions(size="auto"))):
            assert is_silent(path.read_bytes()) and without_links(facts(path.read_bytes())) == without_links(before)
        for job in (shrink, grow):
            if attempt(path, data, job):
                assert before is None or facts(path.read_bytes()) == before or "blocks-shared" in codes(data)
                assert is_silent(path.read_bytes()) or not is_silent(data)
        attempt_tune(path, data)


def attempt_tune(path: Path, data: bytes) -> None:
    """As an edit: opening the image may replay its journal and delete orphans before a refusal."""
    path.write_bytes(data)
    with suppress(*TYPED):
        tune(path)
