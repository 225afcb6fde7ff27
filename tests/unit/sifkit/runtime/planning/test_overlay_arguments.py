"""Arguments of --overlay for a run."""

from __future__ import annotations

import pytest

from sifkit.errors import UsageError
from sifkit.runtime.planning.overlay_arguments import RunOverlay, parse_run_overlays
from sifkit.runtime.planning.request import PathKind

FILES = {"a.img", "b.img", "x:ro", "with,comma", "odd:name"}
DIRECTORIES = {"dir", "up", "wk", "old", "old/upper", "up:wk:dir"}


def kind_of(path: str) -> PathKind:
    return "file" if path in FILES else "directory" if path in DIRECTORIES else "missing"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.img", [RunOverlay("a.img")]),
        ("a.img:ro", [RunOverlay("a.img", True)]),
        ("a.img:rw", [RunOverlay("a.img")]),
        ("a.img:ro,b.img", [RunOverlay("a.img", True), RunOverlay("b.img")]),
        ("x:ro", [RunOverlay("x:ro")]),
        ("x:ro:ro", [RunOverlay("x:ro", True)]),
        ("with,comma:ro", [RunOverlay("with,comma", True)]),
        ("odd:name", [RunOverlay("odd:name")]),
        ("missing", [RunOverlay("missing")]),
        ("missing:ro", [RunOverlay("missing", True)]),
        ("up:wk:rw", [RunOverlay("up", False, "wk")]),
        ("up:wk", [RunOverlay("up", False, "wk")]),
        ("up:wk:ro", [RunOverlay("up", True)]),
    ],
)
def test_arguments(text: str, found: list[RunOverlay]) -> None:
    assert list(parse_run_overlays([text], kind_of)) == found


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a.img:work:rw", "write a.img to write to it, or a.img:ro"),
        ("a.img:r", "write a.img to write to it, or a.img:ro"),
        ("a.img:", "write a.img to write to it, or a.img:ro"),
        ("a.img:/opt", "an overlay is given as a whole: --overlay a.img; to show a directory of the host use --bind"),
        (":ro", "write --overlay PATH or --overlay PATH:ro"),
        ("dir:missing:rw", "write dir to write to it, or dir:ro"),
    ],
)
def test_suffixes_without_meaning(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match="has no meaning") as caught:
        parse_run_overlays([text], kind_of)
    assert caught.value.hint == hint


def test_directories_that_apptainer_has_used_otherwise() -> None:
    with pytest.raises(UsageError, match="Apptainer took old/upper as the whole overlay") as caught:
        parse_run_overlays(["old:wk:rw"], kind_of)
    assert caught.value.hint == "use --overlay old"


def test_empty_names() -> None:
    with pytest.raises(UsageError, match="a name is empty"):
        parse_run_overlays(["a.img,"], kind_of)
