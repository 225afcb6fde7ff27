"""Values of --overlay: names, Apptainer's :ro, lists, and suffixes that mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifkit.errors import UsageError
from sifkit.overlay.view.overlay_argument import OverlayArgument, parse_overlays


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.img", "b.img", "x:ro", "x:y", "x", "a,b"):
        (tmp_path / name).touch()
    (tmp_path / "dir").mkdir()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.img", [("a.img", False)]),
        ("a.img:ro", [("a.img", True)]),
        ("dir:ro", [("dir", True)]),
        ("a.img:ro,b.img", [("a.img", True), ("b.img", False)]),
        ("a,b", [("a,b", False)]),
        ("a,b:ro", [("a,b", True)]),
        ("x:ro", [("x:ro", False)]),
        ("x:y", [("x:y", False)]),
        ("x:y:ro", [("x:y", True)]),
        ("none.img", [("none.img", False)]),
        ("none.img:ro", [("none.img", True)]),
        ("none.img:rw", [("none.img:rw", False)]),
    ],
)
def test_names(text: str, found: list[tuple[str, bool]]) -> None:
    assert parse_overlays([text]) == tuple(OverlayArgument(*one) for one in found)


def test_the_order_is_kept() -> None:
    assert [one.path for one in parse_overlays(["b.img", "a.img,dir", "x"])] == ["b.img", "a.img", "dir", "x"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a.img:rw", "write a.img; the only suffix is :ro"),
        ("a.img:", "write a.img; the only suffix is :ro"),
        ("a.img:work:rw", "write a.img or a.img:ro; upper/ and work/ are directories in the overlay"),
        ("a.img:RO", "write a.img or a.img:ro"),
        ("a.img:/upper/x", "--overlay a.img, then the path of a file in the container"),
    ],
)
def test_other_suffixes_say_what_is_meant(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match="has no meaning") as caught:
        parse_overlays([text])
    assert caught.value.hint.count("\n") == 0 and hint in caught.value.hint


def test_an_empty_name_in_a_list() -> None:
    with pytest.raises(UsageError, match="a name is empty"):
        parse_overlays(["a.img,,b.img"])
