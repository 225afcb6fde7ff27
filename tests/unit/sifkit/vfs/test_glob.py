"""Patterns for paths in a tree match what the shell matches in the same directories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sifkit.vfs.glob import expand, has_magic
from sifkit.vfs.host_tree import HostTree

NAMES = [
    "a.so",
    "b.so",
    ".h.so",
    "x*.so",
    "x1.so",
    "c.txt",
    "d/e.so",
    "d/f.so",
    "dd/e.so",
    "d2",
    "[x]",
    "q?",
    "sp ace.so",
    "z\\*",
]
PATTERNS = [
    "*.so",
    ".*.so",
    "*",
    "?.so",
    "[ab].so",
    "[!a].so",
    "[^a].so",
    "*/e.so",
    "d*/*",
    "d*/",
    "link/*.so",
    "link*",
    "x*.so",
    "none*",
    "d/none*",
    "a.so/*",
    "d2/*",
    "*/../a.so",
    "./*.txt",
    "d/./*",
    "x\\*.so",
    "\\[x\\]",
    "q\\?",
    "[x]",
    "*[x]*",
    "broken*",
    "broken/*",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("glob")
    for name in NAMES:
        path = top / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (top / "link").symlink_to("d")
    (top / "broken").symlink_to("nowhere")
    return top


@pytest.mark.parametrize("pattern", PATTERNS)
def test_as_the_shell(pattern: str, tree: Path) -> None:
    if os.path.lexists(tree / pattern):
        want = [os.fsencode(pattern)]  # the name itself wins
    else:
        script = f"LC_ALL=C; for name in {pattern}; do printf '%s\\0' \"$name\"; done"
        done = subprocess.run(["bash", "-c", script], cwd=tree, capture_output=True, check=True)
        want = done.stdout.split(b"\0")[:-1]
        if len(want) == 1 and not os.path.lexists(tree / os.fsdecode(want[0]).rstrip("/")):
            want = [os.fsencode(pattern)]  # nothing matches: bash removes backslashes then
    found = expand(HostTree(tree), os.fsencode(pattern))
    assert [os.path.normpath(path) for path in found] == [os.path.normpath(path) for path in want]


def test_absolute_paths(tree: Path) -> None:
    assert expand(HostTree(tree), b"/d/*.so") == [b"/d/e.so", b"/d/f.so"]
    assert expand(HostTree(tree), b"/*.txt") == [b"/c.txt"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    for name in (b"\xff.so", b"\xfe.so", b"a.so"):
        (Path(os.fsdecode(bytes(tmp_path) + b"/" + name))).write_bytes(b"")
    assert expand(HostTree(tmp_path), b"?.so") == [b"a.so", b"\xfe.so", b"\xff.so"]


def test_has_magic() -> None:
    assert [has_magic(path) for path in (b"/a/b", b"/a*", b"/?", b"/[a]", b"/a\\b")] == [False, True, True, True, False]
