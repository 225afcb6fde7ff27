"""Findings in JSON: numbers are numbers, text stays text."""

from __future__ import annotations

import numpy as np
import pytest

from sifkit.cli.support.fsck_report import _plain


@pytest.mark.parametrize(
    ("value", "want"),
    [(None, None), (True, True), (7, 7), (np.uint32(7), 7), ("-17", "-17"), ("+(2--5)", "+(2--5)"), (b"a\xff", "a\\xff")],
)
def test_values_keep_their_kind(value: object, want: object) -> None:
    assert _plain(value) == want
    assert type(_plain(value)) is type(want)
