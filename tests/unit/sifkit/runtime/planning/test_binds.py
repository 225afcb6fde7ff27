"""Arguments of --bind, --mount and --home."""

from __future__ import annotations

import pytest

from sifkit.errors import UsageError
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
        (" /a: /b: ro , /c:/d , ", [BindSpec("/a", "/b", True), BindSpec("/c", "/d ")]),
        ("/a:/b:rw, ro,./c,d/e,.", [BindSpec("/a", "/b", True), *(BindSpec(c, c) for c in ("/cwd/c", "/cwd/d/e", "/cwd"))]),
        ("/a:/b:,ro", [BindSpec("/a", "/b", True)]),
        ("id,/a:/b:ro,c:/d", [BindSpec("/cwd/id", "/cwd/id"), BindSpec("/a", "/b", True), BindSpec("/cwd/c", "/d")]),
    ],
)
def test_binds(text: str, found: list[BindSpec]) -> None:
    assert list(parse_binds([text], "/cwd")) == found


@pytest.mark.parametrize("text", [":/b", "/a:b", "/a:/", "/a:/b/..", "/a:/b:rx", "/a:/b:ro:x", "/a:/b:"])
def test_binds_that_are_wrong(text: str) -> None:
    with pytest.raises(UsageError, match="--bind"):
        parse_binds([text], "/cwd")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/a:/b:ro,bogus", "no such option bogus"),
        ("/a:/b:rw, noexec,/c:/d", "no such option noexec"),
        ("/a:/b:ro,x=1", "no such option x=1"),
        ("/a:/b,ro", "the option ro belongs to no bind"),
        ("ro", "the option ro belongs to no bind"),
        ("/a.sqfs,image-src=/", "the option image-src=/ belongs to no bind"),
    ],
)
def test_words_that_are_no_binds(text: str, reason: str) -> None:
    """An option that is misspelt, or that has no place to stand, is not the name of a directory."""
    with pytest.raises(UsageError, match=reason):
        parse_binds([text], "/cwd")


@pytest.mark.parametrize(
    ("options", "readonly", "path", "object_id"),
    [
        ("image-src=/x", False, "/x", None),
        ("ro,image-src=x/y", True, "/x/y", None),
        ("image-src=", False, "/", None),
        ("image-src=/x,rw,image-src=//y", False, "/y", None),
        ("id=3", False, "/", 3),
        (r"image-src=/a\:b\,c,id=12,ro", True, "/a:b,c", 12),
    ],
)
def test_binds_from_images(options: str, readonly: bool, path: str, object_id: int | None) -> None:
    image = BindSpec("/cwd/a.sif", "/b", readonly, path, object_id, asks_to_write="rw" in options)
    assert parse_binds([f"a.sif:/b:{options},/c,/d:/e:ro"], "/cwd") == (image, BindSpec("/c", "/c"), BindSpec("/d", "/e", True))


def test_mounts_from_images() -> None:
    found = parse_mounts(["type=bind,source=a.sif,dst=/b,image-src=/x,id=2\nsrc=/a,dst=/b,ro,image-src=/"], "/cwd")
    assert found == (BindSpec("/cwd/a.sif", "/b", False, "/x", 2), BindSpec("/a", "/b", True, "/"))


@pytest.mark.parametrize("option", ["id=", "id=x", "id=0", "id=-1", "id=99999999999", "id=\u0663", "image-src", "id"])
def test_binds_from_images_that_are_wrong(option: str) -> None:
    with pytest.raises(UsageError, match=r"no ID of an object|no such option"):
        parse_binds([f"/a.sif:/b:{option}"], "/")


def test_mounts() -> None:
    found = parse_mounts(
        ["type=bind,source=/a,destination=/b", 'type=bind,"src=/a,1",dst=/c,ro', "type=bind,src=d,target=/e,readonly=false"],
        "/cwd",
    )
    assert found == (BindSpec("/a", "/b"), BindSpec("/a,1", "/c", True), BindSpec("/cwd/d", "/e"))
    assert parse_mounts(["", "source=/a,destination=/b\n"], "/") == (BindSpec("/a", "/b"),)


@pytest.mark.parametrize("more", ["image-src=", "image-src", "id=", "id", "ro=maybe", "dst="])
def test_mounts_with_values_that_mean_nothing(more: str) -> None:
    with pytest.raises(UsageError, match=r"is empty|neither true nor false|the destination is missing"):
        parse_mounts([f"type=bind,source=/a,destination=/b,{more}"], "/")


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
