"""Overlays that a plain user's Apptainer wrote: our view is what that user saw, and so is every user's after ``normalize`` and
``share``."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sifkit.cli import main
from tools import story_container

from ..support.tools import NOBODY, as_user, assert_clean, find, tool_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.compat,
    pytest.mark.skipif(not find("apptainer") or not find("fuse2fs"), reason="Apptainer or fuse2fs is not installed"),
]

SESSION = """
cd /data && rm file && rm -r gone && rm -r again && mkdir again && touch again/new again/sub-new
rm -r replaced && touch replaced && rm other && mkdir other && touch other/in && mkdir fresh && touch fresh/x && rm fresh/x
rm -r deep/low && mkdir -p deep/low/er && touch deep/low/er/new
"""
LOOK = "ls -RA /data"
BASE = ("file", "other", "gone/x", "again/old", "again/sub/low", "replaced/x", "deep/kept", "deep/low/old", "deep/low/er/old")


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory of the plain user with base.sif, and env.img, to which a container of that user wrote."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        root = path / "root"
        story_container.fill(root)
        for file in BASE:
            (root / "data" / file).parent.mkdir(parents=True, exist_ok=True)
            (root / "data" / file).touch()
        for above, _, _ in os.walk(root / "data"):
            os.chmod(above, 0o777)  # the files are root's, and the user may remove them
        story_container.pack(root, str(path / "base.sif"))
        (path / "base.sif").chmod(0o755)
        owner = f"{user()}:{NOBODY if os.geteuid() == 0 else os.getegid()}"
        assert main(["-q", "overlay", "create", "--size", "32M", "--owner", owner, str(path / "env.img")]) == 0
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
            os.chown(path / "env.img", NOBODY, NOBODY)
        done = by_user(path, "env.img", SESSION)
        assert done.returncode == 0, done.stderr
        yield path


def user() -> int:
    return NOBODY if os.geteuid() == 0 else os.geteuid()


def words(directory: Path, overlay: str, script: str) -> list[str]:
    line = 'cd "$0" && exec apptainer exec --overlay "$1" base.sif sh -c "$2"'
    return ["sh", "-c", line, str(directory), overlay, script]


def by_user(directory: Path, overlay: str, script: str) -> subprocess.CompletedProcess[bytes]:
    return as_user(user(), words(directory, overlay, script))


def listing(directory: Path, overlay: str) -> bytes:
    """What the plain user sees."""
    done = by_user(directory, overlay, LOOK)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listing_by_root(directory: Path, overlay: str) -> bytes:
    argv = words(directory, overlay, LOOK)
    done = subprocess.run(argv, env=tool_environment(), capture_output=True, stdin=subprocess.DEVNULL, check=True)
    return done.stdout


def copy(directory: Path, name: str) -> Path:
    target = directory / name
    target.write_bytes((directory / "env.img").read_bytes())
    if os.geteuid() == 0:
        os.chown(target, NOBODY, NOBODY)
    return target


def test_our_view_is_what_the_user_saw(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen = listing(directory, "env.img").decode()
    assert main(["-q", "ls", "-R", str(directory / "base.sif"), "/data", "--overlay", str(directory / "env.img")]) == 0
    assert capfd.readouterr().out == seen


def test_normalize(directory: Path) -> None:
    image = copy(directory, "normal.img")
    before = listing(directory, "env.img")
    assert listing(directory, "env.img:ro") != before
    assert main(["-q", "overlay", "normalize", "--base", str(directory / "base.sif"), str(image)]) == 0
    assert_clean(image)
    assert listing(directory, "normal.img:ro") == before
    if os.geteuid() == 0:
        assert listing_by_root(directory, "normal.img:ro") == before
        assert listing_by_root(directory, "normal.img") == before
    assert listing(directory, "normal.img") == before


def test_without_a_base_writable_use_and_root_see_the_same(directory: Path) -> None:
    image = copy(directory, "plain.img")
    before = listing(directory, "env.img")
    assert main(["-q", "overlay", "normalize", str(image)]) == 0
    assert listing(directory, "plain.img") == before
    if os.geteuid() == 0:
        assert listing_by_root(directory, "plain.img") == before
        assert listing_by_root(directory, "plain.img:ro") == before


def test_share(directory: Path) -> None:
    """Jobs of several users at once; each sees the same."""
    image = copy(directory, "shared.img")
    image.chmod(0o600)
    before = listing(directory, "env.img")
    assert main(["-q", "overlay", "share", "--base", str(directory / "base.sif"), str(image)]) == 0
    image.chmod(0o444)
    if os.geteuid() == 0:
        os.chown(image, 0, 0)
    lines = words(directory, "shared.img:ro", f"{LOOK}; sleep 1")
    lines[2] = f"for n in 1 2 3; do ({lines[2]}) >$0/out.$n 2>/dev/null & done; wait; cat $0/out.1 $0/out.2 $0/out.3"
    assert as_user(user(), lines).stdout == before * 3
    assert main(["-q", "overlay", "share", "--check", "--base", str(directory / "base.sif"), str(image)]) == 0
