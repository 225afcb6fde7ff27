"""Commands run in this process by the fixture ``run``, and a look at what they left in an image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ext3 import Filesystem
from ext3.format.inode import Stat

__all__ = ["Run", "copy_sparse", "copy_tree", "done", "good", "names_in", "read_in", "refused", "stat_in"]

Run = Callable[..., tuple[int, str, str]]
"""Takes the words of a command; gives (exit code, stdout, stderr)."""
CHUNK = 64 << 10


def good(run: Run, *argv: object) -> str:
    """Run a command that succeeds and has nothing to complain of; its output."""
    code, out, err = run(*argv)
    assert code == 0 and not err, (argv, code, out, err)
    return out


def done(run: Run, *argv: object) -> tuple[str, str]:
    """Run a command that succeeds; its output, and what it says on stderr."""
    code, out, err = run(*argv)
    assert code == 0, (argv, code, out, err)
    return out, err


def refused(run: Run, *argv: object, code: int = 1) -> str:
    """Run a command that fails with one line, which is given."""
    found, out, err = run(*argv)
    assert found == code and not out and err.count("\n") == 1, (argv, found, out, err)
    return err


def names_in(image: str | Path, path: str | bytes = "/upper") -> list[bytes]:
    """The names in a directory of an image, sorted."""
    with Filesystem.open(image) as filesystem:
        return sorted(entry.name for entry in filesystem.scandir(path))


def read_in(image: str | Path, path: str | bytes) -> bytes:
    """The content of a file in an image."""
    with Filesystem.open(image) as filesystem:
        return filesystem.read_bytes(path)


def stat_in(image: str | Path, path: str | bytes, *, follow: bool = False) -> Stat:
    """The facts of a file in an image."""
    with Filesystem.open(image) as filesystem:
        return filesystem.stat(path, follow=follow)


def copy_sparse(source: Path, target: Path) -> Path:
    """A copy of a file in which zeros are holes."""
    data = memoryview(source.read_bytes())
    with target.open("wb") as file:
        for start in range(0, len(data), CHUNK):
            piece = data[start : start + CHUNK]
            if piece != bytes(len(piece)):
                os.pwrite(file.fileno(), piece, start)
        file.truncate(len(data))
    return target


def copy_tree(source: Path, target: Path) -> None:
    """Copy what is in a directory into another one, with modes and times; zeros of files are holes."""

    def copy(one: str, two: str) -> None:
        copy_sparse(Path(one), Path(two))
        shutil.copystat(one, two)

    shutil.copytree(source, target, copy_function=copy, dirs_exist_ok=True)
