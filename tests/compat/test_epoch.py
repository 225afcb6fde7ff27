"""A time to come in the superblock: what e2fsck says of it, and that we said so before."""

from __future__ import annotations

import time
from pathlib import Path

from sifkit.overlay.creating.standalone import create
from sifkit.overlay.options import CreateOptions

from ..support.tools import assert_clean, run


def test_e2fsck_wants_to_correct_a_time_to_come(scratch: Path) -> None:
    image = scratch / "o.img"
    told = create(image, CreateOptions(size=8 << 20, source_date_epoch=int(time.time()) + 10 * 86400)).notes
    text = run("e2fsck", "-fn", image, ok=range(256)).stdout
    assert b"is in the future" in text and b"Fix?" in text
    assert sum("SOURCE_DATE_EPOCH is in the future" in note for note in told) == 1


def test_e2fsck_is_content_with_a_past_time(scratch: Path) -> None:
    image = scratch / "o.img"
    told = create(image, CreateOptions(size=8 << 20, source_date_epoch=int(time.time()) - 10)).notes
    assert_clean(image)
    assert not any("future" in note for note in told)
