"""Orders, depths and selections of the reading verbs: ls -t -S -r --color, find -iname -path -maxdepth, du -d --top, df -i."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ....support.commands import Run, good, refused

NS = 1_000_000_000
PATH = {"PATH": os.environ.get("PATH", os.defpath)}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory of the host, which reads as an image does: files of other sizes and times, three levels deep."""
    top = tmp_path / "tree"
    for number, (name, size) in enumerate([("a", 10), ("b", 3000), ("c", 3000), ("sub/D.TXT", 9000), ("sub/deep/e.txt", 5)]):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        os.utime(path, ns=(0, (100 - number % 2 * 50) * NS))
    (top / "link").symlink_to("a")
    (top / "run").touch(mode=0o755)
    (top / "run").chmod(0o755)
    for path in (top / "sub", top / "run"):
        os.utime(path, ns=(0, NS))
    os.utime(top / "link", ns=(0, 2 * NS), follow_symlinks=False)
    monkeypatch.chdir(tmp_path)
    return "tree"


def listed(run: Run, *words: str) -> list[str]:
    return good(run, "ls", *words).split()


def test_ls_sorts(run: Run, tree: str) -> None:
    assert listed(run, tree) == ["a", "b", "c", "link", "run", "sub"]
    assert listed(run, "-r", tree) == ["sub", "run", "link", "c", "b", "a"]
    assert listed(run, "-t", tree) == ["a", "c", "b", "link", "run", "sub"]
    assert listed(run, "-tr", tree) == ["sub", "run", "link", "b", "c", "a"]
    assert [name for name in listed(run, "-S", tree) if name in "abc"] == ["b", "c", "a"]
    assert [name for name in listed(run, "-Sr", tree) if name in "abc"] == ["a", "c", "b"]
    assert [line.split()[-1] for line in good(run, "ls", "-lt", tree).splitlines()][:2] == ["a", "c"]
    entries = json.loads(good(run, "ls", "-t", "--json", tree))["entries"]
    assert [entry["name"] for entry in entries] == listed(run, "-t", tree)


@pytest.mark.parametrize("option", ["-R", "-Rt", "-RS", "-Rr", "-Rtr", "-RSr"])
def test_ls_walks_directories_in_its_order(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """As ls of coreutils."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["b/x", "a/z", "a/y", "c/deep/f", "c/more/g"]):
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (number * 7 % 5))
    for number, path in enumerate(sorted((tmp_path / "top").rglob("*"))):
        os.utime(path, ns=(0, (number * 5 % 11) * NS))
    want = subprocess.run(["ls", "-A", option, "top"], env={"LC_ALL": "C", **PATH}, capture_output=True, text=True, check=True)
    assert good(run, "ls", option, ".", "/top") == want.stdout.replace("top", "/top")


def test_ls_colours(run: Run, tree: str) -> None:
    out = good(run, "ls", "--color", tree)
    assert out == good(run, "ls", "--color=always", tree)
    assert out.splitlines() == ["a", "b", "c", "\x1b[01;36mlink\x1b[0m", "\x1b[01;32mrun\x1b[0m", "\x1b[01;34msub\x1b[0m"]
    assert "\x1b" not in good(run, "ls", "--color=auto", tree) + good(run, "ls", tree)
    assert "must be one of auto, always, never" in refused(run, "ls", "--color=blue", tree, code=2)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["-iname", "*.txt"], ["/sub/D.TXT", "/sub/deep/e.txt"]),
        (["-name", "*.txt"], ["/sub/deep/e.txt"]),
        (["-path", "/sub/*"], ["/sub/D.TXT", "/sub/deep", "/sub/deep/e.txt"]),
        (["-path", "*deep*", "-type", "d"], ["/sub/deep"]),
        (["-maxdepth", "0"], ["/"]),
        (["-maxdepth", "1", "-type", "d"], ["/", "/sub"]),
        (["-maxdepth", "2", "-iname", "*.txt"], ["/sub/D.TXT"]),
    ],
)
def test_find(run: Run, tree: str, words: list[str], found: list[str]) -> None:
    assert good(run, "find", tree, *words).split() == found


def test_depths_that_are_none(run: Run, tree: str) -> None:
    for words in (["find", tree, "-maxdepth", "x"], ["du", "-d", "-1", tree], ["du", "-d", "1.5", tree]):
        assert "not a number of levels" in refused(run, *words, code=2)
    assert "-s is -d 0" in refused(run, "du", "-s", "-d", "1", tree, code=2)
    assert "-s and -a contradict" in refused(run, "du", "-s", "-a", tree, code=2)


def test_du_depths(run: Run, tree: str) -> None:
    def paths(*words: str) -> list[str]:
        return [line.split("\t")[1] for line in good(run, "du", *words, tree).splitlines()]

    assert paths() == ["/sub/deep", "/sub", "/"]
    assert paths("-d", "1") == ["/sub", "/"]
    assert paths("-d", "0") == paths("-s") == ["/"]
    assert paths("-a", "-d", "1") == ["/a", "/b", "/c", "/link", "/run", "/sub", "/"]
    assert good(run, "du", "-d", "1", "--inodes", tree) == "4\t/sub\n10\t/\n"


def test_du_top(run: Run, tree: str) -> None:
    lines = good(run, "du", "--inodes", "--top", "2", tree).splitlines()
    assert [line.split()[-1] for line in lines] == ["/", "/sub"]
    assert lines[0].split()[1:3] == ["10", "inodes"]
    found = [json.loads(line) for line in good(run, "du", "-a", "--json", "--top", "3", "--inodes", tree).splitlines()]
    assert [row["path"] for row in found[:-1]] == ["/", "/sub", "/sub/deep"] and found[-1]["entries"] == 3
    assert len(good(run, "du", "-a", "--top", "100", tree).splitlines()) == 10
    assert "not a count" in refused(run, "du", "--top", "x", tree, code=2)


def test_df_inodes(run: Run, tree: str) -> None:
    lines = good(run, "df", "-i", tree).splitlines()
    assert len(lines) == 2 and lines[1].split()[1] == "inodes"


def test_diff_brief(run: Run, tree: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert run("diff", "--brief", tree, tree) == (0, "", "")
    code, out, err = run("diff", "--brief", tree, "other")
    assert (code, out, err) == (1, "tree and other differ: 9 deleted\n", "")
    code, out, _ = run("diff", "--brief", "--json", tree, "other")
    assert code == 1 and json.loads(out)["deleted"] == 9
