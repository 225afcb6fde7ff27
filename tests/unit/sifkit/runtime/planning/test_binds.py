"""Arguments of --bind, --mount and --home."""

from __future__ import annotations

import pytest

from sifkit.errors import NotYetError, UsageError
from sifkit.runtime.planning.binds import BindSpec, parse_binds, parse_home, parse_mounts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/a", [BindSpec("/a", "/a")]),
        ("/a/", [BindSpec("/a", "/a")]),
        ("/a:/b", [BindSpec("/a", "/b")]),
        ("/a:/b:ro", [BindSpec("/a", "/b", True)]),
        ("/a::ro", [BindSpec("/a", "/a", True)]),
        ("/a:/b:rw", [BindSpec("/a", "/b")]),
        ("/a,/b:/c:ro,/d", [BindSpec("/a", "/a"), BindSpec("/b", "/c", True), BindSpec("/d", "/d")]),
        ("/a:/b:rw,ro", [BindSpec("/a", "/b", True)]),
        ("x/y", [BindSpec("/cwd/x/y", "/cwd/x/y")]),
        (".:/w", [BindSpec("/cwd", "/w")]),
        (r"/a\:b\,c:/d", [BindSpec("/a:b,c", "/d")]),
        ("/a://b/../c/", [BindSpec("/a", "/c")]),
        ("", []),
        (",/a,,/b:/c:ro,", [BindSpec("/a", "/a"), BindSpec("/b", "/c", True)]),
    ],
)
def test_binds(text: str, found: list[BindSpec]) -> None:
    assert list(parse_binds([text], "/cwd")) == found


@pytest.mark.parametrize("text", [":/b", "/a:b", "/a:/", "/a:/b/..", "/a:/b:rx", "/a:/b:ro:x", "/a:/b:"])
def test_binds_that_are_wrong(text: str) -> None:
    with pytest.raises(UsageError, match="--bind"):
        parse_binds([text], "/cwd")


def test_binds_from_images_are_refused() -> None:
    for text in ("/a.sif:/b:image-src=/x", "/a.sif:/b:ro,id=3"):
        with pytest.raises(NotYetError, match="from images"):
            parse_binds([text], "/")


def test_mounts() -> None:
    found = parse_mounts(
        ["type=bind,source=/a,destination=/b", 'type=bind,"src=/a,1",dst=/c,ro', "type=bind,src=d,target=/e,readonly=false"],
        "/cwd",
    )
    assert found == (BindSpec("/a", "/b"), BindSpec("/a,1", "/c", True), BindSpec("/cwd/d", "/e"))
    assert parse_mounts(["", "source=/a,destination=/b\n"], "/") == (BindSpec("/a", "/b"),)


@pytest.mark.parametrize("text", ["type=tmpfs,destination=/b", "type=bind,source=/a", "type=bind,x=1", "a\nb", '"a'])
def test_mounts_that_are_wrong(text: str) -> None:
    with pytest.raises(UsageError, match="--mount"):
        parse_mounts([text], "/")


def test_home() -> None:
    assert parse_home("/a", "/") == ("/a", "/a")
    assert parse_home("h:/home/me", "/cwd") == ("/cwd/h", "/home/me")
    for wrong in ("", ":/a", "/a:b", "/a:/b:ro", "/a:/"):
        with pytest.raises(UsageError, match="--home"):
            parse_home(wrong, "/")
