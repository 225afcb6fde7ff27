"""Patterns inside images: in every reading command and in sources of cp."""

from __future__ import annotations

from pathlib import Path

import pytest

from ....support.commands import Run, good, refused

NAMES = ["a.so", "b.so", "x*.so", "c.txt"]


@pytest.fixture(autouse=True)
def image(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree").mkdir()
    for name in NAMES:
        (tmp_path / "tree" / name).write_text(f"{name}\n")
    good(run, "-q", "overlay", "create", "--size", "16M", "--from-dir", "tree", "o.img")
    return tmp_path / "o.img"


def test_cat_and_ls(run: Run) -> None:
    assert good(run, "cat", "o.img:/upper/?.so") == "a.so\nb.so\n"
    assert good(run, "cat", "o.img", "/upper/x*.so") == "x*.so\n"
    assert good(run, "ls", "o.img:/upper/*.so") == "/upper/a.so\n/upper/b.so\n/upper/x*.so\n"
    assert good(run, "ls", "--upper", "o.img:/[ab]*") == "/a.so\n/b.so\n"


def test_nothing_matches(run: Run) -> None:
    for words in (["ls"], ["cat"], ["stat"], ["du"], ["find"], ["tree"], ["extract"], ["xattr", "list"]):
        assert "'/upper/*.none': No such file or directory" in (err := refused(run, *words, "o.img:/upper/*.none")) or (
            "/upper/*.none: No such file or directory" in err
        )
    assert "'o.img:/upper/*.none': No such file or directory" in refused(run, "cp", "o.img:/upper/*.none", ".")


def test_cp(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    good(run, "cp", "o.img:/upper/*.so", "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.so", "b.so", "x*.so"]
    good(run, "mkdir", "o.img:/upper/in")
    good(run, "cp", "o.img:/upper/[ab].so", "o.img:/upper/in/")
    assert good(run, "ls", "o.img:/upper/in") == "a.so\nb.so\n"
    assert "Not a directory" in refused(run, "cp", "o.img:/upper/[ab].so", "tree/c.txt")
    good(run, "cp", "tree/x*.so", "o.img:/upper/in/")
    assert good(run, "cat", "o.img:/upper/in/x*.so") == "x*.so\n"


def test_extract(run: Run, tmp_path: Path) -> None:
    good(run, "-q", "extract", "o.img", "/upper/[ab].so", "-C", "out")
    assert sorted(path.name for path in (tmp_path / "out/upper").iterdir()) == ["a.so", "b.so"]
