"""docs/errors.md, judged by Apptainer: the messages it quotes are what a plain user gets, and the commands it names help."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ext3
from sifkit.cli import main
from sifkit.overlay import create
from tools import story_container

from ..support.tools import NOBODY, as_user, find, run

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
HOME = "/home/u"
"""The directory of env.img in the page's messages."""

OTHER = 4321
"""An owner of files that is not the plain user."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find("apptainer") or not find("fuse2fs"), reason="Apptainer or fuse2fs is not installed"),
]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory that the plain user can enter, with base.sif."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        story_container.main(str(path / "base.sif"))
        (path / "base.sif").chmod(0o755)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        yield path


@pytest.fixture
def image(directory: Path) -> Path:
    """An overlay of the plain user, with /opt, of 32 MiB."""
    return new_image(directory)


def user() -> int:
    """The plain user's ID."""
    return NOBODY if os.geteuid() == 0 else os.geteuid()


def new_image(directory: Path, **options: object) -> Path:
    path = directory / "env.img"
    path.unlink(missing_ok=True)
    owner = f"{user()}:{NOBODY if os.geteuid() == 0 else os.getegid()}"
    create(path, size="32M", owner=owner, create_dirs=("/opt",), **options)  # type: ignore[arg-type]
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    return path


def start(image: Path, *command: str, mode: str = "") -> tuple[int, str]:
    """Exit code and messages of `apptainer exec --overlay IMAGE[:ro] base.sif COMMAND` by the plain user."""
    done = as_user(user(), words(image, *command, mode=mode))
    return done.returncode, (done.stdout + done.stderr).decode().replace(str(image.parent), HOME)


def words(image: Path, *command: str, mode: str = "") -> list[str]:
    folder = image.parent
    return ["sh", "-c", 'cd "$0" && exec apptainer exec --overlay "$@"', str(folder), f"env.img{mode}", "base.sif", *command]


def sifkit(*arguments: str | Path) -> None:
    """A command of sifkit by the plain user, or where we are root by root: it may not read this checkout."""
    subprocess.run([sys.executable, "-m", "sifkit", "-q", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


def quoted(message: str) -> list[str]:
    """The lines of Apptainer's message that the page quotes."""
    return [line for line in message.splitlines() if line in re.findall(r"^ {4}(.*)$", PAGE, re.MULTILINE)]


@pytest.mark.parametrize("which", ["work", "upper"])
def test_foreign_directories_are_handed_over_by_overlay_chown(image: Path, which: str) -> None:
    with ext3.Filesystem.open(image, "r+") as fs:
        fs.chown(f"/{which}", OTHER, OTHER)
    code, message = start(image, "true")
    assert code == 255
    assert f"overlay-images/0/{which} is not writable: permission denied" in message
    assert len(quoted(message)) == (2 if which == "work" else 1)
    assert start(image, "true", mode=":ro")[0] == 0
    sifkit("overlay", "chown", f"{user()}:{user()}", image)
    assert start(image, "touch", "/opt/x")[0] == 0


def test_an_image_marked_as_damaged_is_saved_and_checked(image: Path) -> None:
    run("debugfs", "-w", "-R", "set_super_value state 2", image)
    for mode in ("", ":ro"):
        code, message = start(image, "true", mode=mode)
        assert code == 255 and quoted(message), message
    sifkit("extract", image, "-C", image.parent / "saved")
    assert main(["-q", "overlay", "fsck", "-y", str(image)]) == 1
    assert start(image, "touch", "/opt/x")[0] == 0


def test_a_closed_image_and_closed_files(image: Path) -> None:
    image.chmod(0)
    code, message = start(image, "true")
    assert code == 255 and quoted(message), message
    image.chmod(0o444)
    code, message = start(image, "true")
    assert code == 0 and quoted(message), message
    image.chmod(0o644)
    with ext3.Filesystem.open(image, "r+") as fs:
        fs.chown("/upper", OTHER, OTHER)
        fs.chmod("/upper", 0o700)
    code, message = start(image, "true", mode=":ro")
    assert code == 255 and "chdir /var/lib/apptainer/mnt/session/final: permission denied" in message
    sifkit("chmod", "-R", "a+rX", f"{image}:/upper")
    assert start(image, "true", mode=":ro")[0] == 0


def test_inodes_used_up(directory: Path) -> None:
    image = new_image(directory, inodes=64)
    fill = "mkdir /opt/d; i=0; while touch /opt/d/$i; do i=$((i+1)); done"
    assert "No space left on device" in start(image, "sh", "-c", fill)[1]
    with ext3.Filesystem.open(image) as fs:
        assert fs.statfs().free_inodes == 0


@pytest.mark.parametrize("mode", ["", ":ro"])
def test_an_image_in_use(image: Path, mode: str) -> None:
    started = image.parent / "started"
    started.unlink(missing_ok=True)
    command = ["setpriv", f"--reuid={user()}", f"--regid={user()}", "--clear-groups"] if os.geteuid() == 0 else []
    command += words(image, "sh", "-c", "echo started; exec sleep 600")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"started\n"
        try:
            code, message = start(image, "true", mode=mode)
        finally:
            holder.terminate()
    assert code == 255 and quoted(message), message
    deadline = time.monotonic() + 60
    while start(image, "true", mode=mode)[0] and time.monotonic() < deadline:
        time.sleep(0.2)
