"""--exclude patterns."""

from __future__ import annotations

import pytest

from sifkit.errors import UsageError
from sifkit.overlay.creating.exclude import path_filter


@pytest.mark.parametrize(
    ("pattern", "excluded", "kept"),
    [
        ("*.pyc", [b"a.pyc", b"lib/x/a.pyc", b".pyc"], [b"a.py", b"a.pyc/b"]),
        ("__pycache__", [b"__pycache__", b"a/b/__pycache__"], [b"x__pycache__", b"__pycache__2"]),
        ("/build", [b"build"], [b"a/build", b"builds"]),
        ("./a", [b"a"], [b"b/a", b"./a", b"ab"]),
        ("./lib/./*.so", [b"lib/a.so"], [b"lib/x/a.so", b"x/lib/a.so"]),
        (".//a//b", [b"a/b"], [b"b", b"a"]),
        ("./.a", [b".a"], [b"a", b"x/.a"]),
        ("..a", [b"..a", b"x/..a"], [b"a"]),
        ("lib/*.so", [b"lib/a.so"], [b"lib/x/a.so", b"x/lib/a.so"]),
        ("lib/**/test", [b"lib/test", b"lib/a/test", b"lib/a/b/test"], [b"lib/tests", b"test"]),
        ("**/cache", [b"cache", b"a/b/cache"], [b"a/cachet"]),
        ("a/**", [b"a/b", b"a/b/c"], [b"a", b"b/a"]),
        ("file?.[ch]", [b"file1.c", b"d/fileX.h"], [b"file.c", b"file1.o"]),
        ("[!a-c]x", [b"dx"], [b"ax", b"/x"]),
        (r"\*", [b"*"], [b"a"]),
        ("caf\udce9", [b"caf\xe9"], [b"cafe"]),
        ("a.b", [b"a.b"], [b"axb"]),
    ],
)
def test_patterns(pattern: str, excluded: list[bytes], kept: list[bytes]) -> None:
    matches = path_filter([pattern])
    assert matches is not None
    assert [path for path in excluded if not matches(path, False)] == []
    assert [path for path in kept if matches(path, False)] == []


def test_a_trailing_slash_means_directories_only() -> None:
    matches = path_filter(["tmp/"])
    assert matches is not None
    assert matches(b"tmp", True)
    assert matches(b"a/tmp", True)
    assert not matches(b"tmp", False)


def test_dots_of_a_directory_are_no_names() -> None:
    for pattern in ("./tmp/", "./tmp/.", "/tmp/./"):
        matches = path_filter([pattern])
        assert matches is not None
        assert matches(b"tmp", True)
        assert not matches(b"tmp", False) and not matches(b"a/tmp", True)


def test_several_and_none() -> None:
    assert path_filter([]) is None
    matches = path_filter(["a", "b/"])
    assert matches is not None
    assert matches(b"a", False)
    assert matches(b"b", True)
    assert not matches(b"c", True)


@pytest.mark.parametrize("pattern", ["", "/", "//", ".", "./", "/.", "././/", "[z-a]"])
def test_patterns_that_cannot_be_meant(pattern: str) -> None:
    with pytest.raises(UsageError):
        path_filter([pattern])
