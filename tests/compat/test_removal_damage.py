"""Removals in damaged images, before real judges: what debugfs damages, e2fsck repairs without loss."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ext3 import Filesystem
from sifkit.cli import main

from ..support.commands import Run
from ..support.directory_damage import INDEX_DAMAGE, IndexRecipe, damaged_index
from ..support.tools import assert_clean, run

MIB = 1 << 20


@pytest.fixture
def sifkit(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run a command in this process: (exit code, stdout, stderr)."""

    def call(*argv: object) -> tuple[int, str, str]:
        code = main([str(arg) for arg in argv])
        sys.stdout.flush()
        found = capfdbinary.readouterr()
        return code, found.out.decode(), found.err.decode()

    return call


@pytest.fixture
def linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/upper/a/b/c is also /upper/p and, in a directory of its own, /upper/x/c."""
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "a.img"
    with image.open("wb") as file:
        file.truncate(8 * MIB)
    (tmp_path / "data").write_bytes(b"intact" * 1000)
    run("mke2fs", "-q", "-F", "-t", "ext3", image)
    commands = ["mkdir upper", "mkdir upper/a", "mkdir upper/a/b", "mkdir upper/a/b/c", "mkdir upper/x", "mkdir upper/e"]
    commands += ["write data upper/a/b/c/f", "ln upper/a/b/c upper/p", "ln upper/a/b/c upper/x/c"]
    (tmp_path / "commands").write_text("\n".join(commands))
    run("debugfs", "-w", "-f", tmp_path / "commands", image, cwd=tmp_path)
    return image


@pytest.mark.parametrize(
    "words",
    [
        ["rm", "-r", "a.img:/upper/p"],
        ["rm", "-rf", "a.img:/upper/x"],
        ["rm", "-rf", "--upper", "a.img:/p"],
        ["mv", "a.img:/upper/p", "a.img:/upper/q"],
        ["mv", "a.img:/upper/p", "a.img:/upper/e"],
        ["mv", "a.img:/upper/a", "a.img:/upper/p"],
        ["mv", "-T", "a.img:/upper/p", "a.img:/upper/e"],
        ["mv", "a.img:/upper/x", "a.img:/upper/x/c"],
    ],
    ids=" ".join,
)
def test_a_directory_with_two_names(words: list[str], linked: Path, sifkit: Run) -> None:
    """e2fsck removes the second and third name, and finds every byte of what the first leads to."""
    before = linked.read_bytes()
    code, _, said = sifkit(*words)
    assert code == 1 and said.count("\n") == 1
    assert linked.read_bytes() == before
    run("e2fsck", "-fy", linked, ok=(1,))
    assert_clean(linked)
    with Filesystem.open(linked) as fs:
        found = [path for path, entry in fs.walk() if entry.name == b"f"]
        assert [fs.read_bytes(b"/" + path) for path in found] == [b"intact" * 1000]


def test_mv_of_a_directory_above_the_first_name(linked: Path, sifkit: Run) -> None:
    """What is moved by its own name is there afterwards, for e2fsck too."""
    assert sifkit("mv", "a.img:/upper/a", "a.img:/upper/e")[0] == 0
    run("e2fsck", "-fy", linked, ok=(1,))
    with Filesystem.open(linked) as fs:
        assert b"intact" * 1000 in [fs.read_bytes(b"/" + path) for path, entry in fs.walk() if entry.name == b"f"]


@pytest.mark.parametrize("recipe", INDEX_DAMAGE.values(), ids=list(INDEX_DAMAGE))
def test_rm_in_a_directory_with_an_odd_index(recipe: IndexRecipe, tmp_path: Path, sifkit: Run) -> None:
    """e2fsck finds nothing in what is left."""
    image = tmp_path / "a.img"
    image.write_bytes(damaged_index(recipe))
    assert b"HTREE directory inode" in run("e2fsck", "-fn", image, ok=range(256)).stdout
    assert sifkit("rm", "-rf", f"{image}:/d") == (0, "", "")
    assert_clean(image)
