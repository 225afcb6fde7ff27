"""The check beside e2fsck on damaged images that somebody else made."""

from __future__ import annotations

import csv

import pytest

from tools.judge_fsck import judge

from ..support.tools import corpus, require

CORPUS = corpus("e2fsprogs")
CASES = sorted(CORPUS.glob("*/image.gz"))

LARGE = ("f_h_normal", "f_h_unsigned")
PARAMETERS = [
    pytest.param(case, id=case.parent.name, marks=[pytest.mark.slow] if case.parent.name in LARGE else []) for case in CASES
]

pytestmark = pytest.mark.skipif(not CASES, reason=f"no images in {CORPUS.name} (SIFKIT_CORPUS names the directory above)")


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, str]]:
    """Rows of cases.csv by case."""
    with (CORPUS / "cases.csv").open(encoding="utf-8", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("case", PARAMETERS)
def test_as_e2fsck(case, scratch, expected):
    require("e2fsck")
    name = case.parent.name
    result = judge(case, scratch, name)
    assert not result.differences, "\n".join([*result.differences, result.their_text, *result.codes])
    if name in expected:
        assert result.ours["y"] == int(expected[name]["fsck_y_exit"])
        assert result.ours["fp"] == int(expected[name]["fsck_p_exit"])
