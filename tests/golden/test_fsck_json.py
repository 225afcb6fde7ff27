"""The JSON of ``sifkit overlay fsck`` and ``undo``, held key by key; docs/json.md names every key, docs/problems.md every
code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sifkit.overlay.edit.edit_session import edit_image
from tools.list_problems import all_problems, page

from ..support.commands import Run
from ..support.fsck_damage import damage_counts, damage_pointer
from ..unit.sifkit.conftest import empty_overlay, overlay, run  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "json.md").read_text()
HEAD = {"sifkit", "command", "image"}
FINDING = HEAD | {
    "code", "message", "repair", "note", "safe", "repaired", "path", "group", "ino", "block", "logical", "offset_bytes",
    "name", "parent", "got", "want",
}  # fmt: skip
SUMMARY = HEAD | {
    "clean", "skipped", "reason", "findings",
    "codes", "corrected", "left", "stopped", "gave_up", "restarts", "replayed", "orphans",
    "changed", "inodes", "inodes_used", "directories", "files", "fragmented", "blocks", "blocks_used", "block_bytes", "label",
    "partition", "in_use", "locked", "dropped_signatures", "notes", "undo", "exit_code", "passes", "seconds",
}  # fmt: skip
UNDO = HEAD | {"undo", "blocks", "written_bytes", "complete", "checked", "partition", "dropped_signatures", "notes"}


def section(name: str) -> str:
    return DOCS.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_every_key_is_documented() -> None:
    fsck, undo = section("`overlay fsck`"), section("`overlay undo`")
    assert not [key for key in FINDING | SUMMARY if f"`{key}`" not in fsck]
    assert not [key for key in UNDO - HEAD if f"`{key}`" not in undo]


def test_every_code_is_documented() -> None:
    """The page is what the tables say: python -m tools.list_problems > docs/problems.md"""
    assert (ROOT / "docs" / "problems.md").read_text() == page()


def test_codes_are_stable_words_of_their_own() -> None:
    codes = [problem.code for _, problem in all_problems()]
    assert len(set(codes)) == len(codes) > 100
    assert not [code for code in codes if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", code)]


@pytest.fixture
def image(overlay: Path) -> Path:  # noqa: F811
    with edit_image("overlay.img") as edited:
        edited.filesystem.write_bytes(b"/upper/\xff", b"a" * 3000)
    damage_counts(overlay)
    damage_pointer(overlay, b"/upper/\xff")  # type: ignore[arg-type]
    return overlay


def objects(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def test_the_keys_of_a_check(run: Run, image: Path) -> None:  # noqa: F811
    code, out, err = run("overlay", "fsck", "-fn", "--json", image)
    *findings, summary = objects(out)
    assert (code, err) == (4, "") and set(summary) == SUMMARY
    for finding in findings:
        assert set(finding) - {"path_b64"} == FINDING and finding["repaired"] is False
    assert {finding["code"] for finding in findings} == set(summary["codes"])  # type: ignore[call-overload]
    bad = findings[0]
    assert (bad["path"], bad["path_b64"]) == ("/upper/\ufffd", "L3VwcGVyL/8=")
    assert (bad["got"], bad["safe"], bad["note"]) == (4_000_000, False, False)
    left = len(findings) - 1  # the count in the superblock alone is no error, as with e2fsck
    assert (summary["clean"], summary["skipped"], summary["left"], summary["corrected"]) == (False, False, left, 0)
    assert (summary["exit_code"], summary["changed"], summary["locked"], summary["undo"]) == (4, False, None, None)
    assert set(summary["passes"]) >= {"1", "2", "3", "4", "5"}  # type: ignore[call-overload]

    code, out, err = run("overlay", "fsck", "-fp", "--json", image)
    summary = objects(out)[-1]
    assert code == 4 and summary["stopped"] == bad["code"] and summary["exit_code"] == 4

    code, out, err = run("overlay", "fsck", "-fy", "--json", "-z", "undo", image)
    *findings, summary = objects(out)
    assert code == 1 and all(finding["repaired"] or finding["note"] for finding in findings)
    assert (summary["clean"], summary["left"], summary["corrected"]) == (True, 0, summary["findings"])
    assert (summary["exit_code"], summary["changed"], summary["undo"]) == (1, True, "undo")

    code, out, err = run("overlay", "fsck", "-p", "--json", image)
    (summary,) = objects(out)
    assert code == 0 and set(summary) == SUMMARY and summary["skipped"] is True and summary["codes"] == {}


def test_the_keys_of_an_undo(run: Run, image: Path) -> None:  # noqa: F811
    assert run("overlay", "fsck", "-fy", "-z", "undo", image)[0] == 1
    code, out, _ = run("overlay", "undo", "--json", "undo", image)
    (found,) = objects(out)
    assert code == 0 and set(found) == UNDO
    assert found["complete"] is True and found["blocks"] > 2  # type: ignore[operator]
    code, out, _ = run("overlay", "undo", "--json", "undo", image)
    assert objects(out)[0]["blocks"] == 0


def test_json_of_failures(run: Run, image: Path) -> None:  # noqa: F811
    code, out, err = run("overlay", "undo", "--json", image, image)
    assert (code, err, objects(out)[0]["error"]["kind"]) == (2, "", "usage")  # type: ignore[index]
    Path("text").write_bytes(b"text" * 500)
    code, out, err = run("overlay", "undo", "--json", "text", image)
    assert (code, objects(out)[0]["error"]["kind"]) == (1, "undo")  # type: ignore[index]
    code, out, err = run("overlay", "fsck", "--json", image)
    assert (code, objects(out)[0]["error"]["kind"]) == (8, "usage")  # type: ignore[index]
