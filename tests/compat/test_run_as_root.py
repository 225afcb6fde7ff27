"""``sifkit exec``, ``run`` and ``shell`` as root, as users type them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.containers import sif_of
from ..support.program_tree import write_program_tree
from ..support.squashfs_images import make_squashfs
from ..support.tools import assert_clean, requires_root

pytestmark = [pytest.mark.compat, requires_root]

ENVIRONMENT = 'export FOO=image\nexport EMPTY=\nexport PATH="/img/bin:$PATH"\n'
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base.sif and the directory box with the same files."""
    top = tmp_path_factory.mktemp("containers")
    root = write_program_tree(top / "box")
    scripts = root / ".singularity.d"
    (scripts / "env").mkdir(parents=True)
    (scripts / "env/90-environment.sh").write_text(ENVIRONMENT)
    (scripts / "env/99-base.sh").write_text("export LD_LIBRARY_PATH=/.singularity.d/libs\n")
    (scripts / "runscript").write_text('#!/bin/sh\necho run "$FOO" "$@"\n')
    (scripts / "runscript").chmod(0o755)
    squashfs = make_squashfs(root, top / "root.sqfs")
    sif_of(top / "base.sif", squashfs)
    return top


@pytest.fixture
def directory(box: Path, tmp_path: Path) -> Path:
    """A working directory outside /tmp's own, with the image."""
    shutil.copy(box / "base.sif", tmp_path / "base.sif")
    return tmp_path


def sifkit(directory: Path, *words: str, stdin: str = "", **variables: str) -> tuple[int, str, str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/root",
        "PYTHONPATH": str(PROJECT),
        "HOST": "yes",
        "FOO": "host",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-m", "sifkit", *words],
        cwd=directory,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_the_environment_of_a_command(directory: Path) -> None:
    code, out, err = sifkit(
        directory, "exec", "--env", "A=$FOO", "base.sif", "env", EMPTY="host", SINGULARITYENV_PREPEND_PATH="/p"
    )
    found = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    assert (code, err) == (0, "")
    assert found["FOO"] == found["A"] == "image" and found["HOST"] == "yes" and "EMPTY" not in found
    assert found["PATH"].startswith("/p:/img/bin:/usr/local/sbin:") and found["LD_LIBRARY_PATH"] == "/.singularity.d/libs"
    assert found["PWD"] == str(directory) and found["HOME"] == "/root"
    assert not {name for name in found if name.startswith("_sifkit") or "OPENBLAS" in name or name == "LC_CTYPE"}
    assert "LC_CTYPE=C" in sifkit(directory, "exec", "base.sif", "env", LC_CTYPE="C")[1]


def test_run_and_shell(directory: Path) -> None:
    assert sifkit(directory, "run", "base.sif", "a", "b c", "--help") == (0, "run image a b c --help\n", "")
    assert sifkit(directory, "shell", "base.sif", stdin="echo $SHELL $FOO; exit 7\n")[:2] == (7, "/bin/sh image\n")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("sh", "-c", "exit 9"), 9),
        (("sh", "-c", "kill -9 $$"), 137),
        (("no-such",), 255),
        (("/etc/passwd",), 255),
        (("/no",), 255),
    ],
)
def test_exit_codes(directory: Path, words: tuple[str, ...], code: int) -> None:
    done, _, err = sifkit(directory, "exec", "base.sif", *words)
    assert done == code and err.count("\n") == (code == 255)


def test_an_overlay_keeps_changes(directory: Path) -> None:
    assert sifkit(directory, "-q", "overlay", "create", "--size", "8M", "over.img")[0] == 0
    script = "mkdir /opt/x && echo kept >/opt/x/f && rm /bin/sleep && echo 5 >/etc/new"
    assert sifkit(directory, "exec", "-o", "over.img", "base.sif", "sh", "-c", script) == (0, "", "")
    assert_clean(directory / "over.img")
    for options in (("-o", "over.img"), ("--overlay", "over.img:ro")):
        assert sifkit(directory, "exec", *options, "base.sif", "sh", "-c", "cat /opt/x/f; ls /bin/sleep")[:2] == (2, "kept\n")
    assert sifkit(directory, "exec", "base.sif", "ls", "/opt") == (0, "", "")
    code, _, err = sifkit(directory, "exec", "-o", "over.img:ro", "base.sif", "touch", "/opt/y")
    assert code == 1 and "Read-only file system" in err


def test_changes_in_memory_are_lost(directory: Path) -> None:
    assert sifkit(directory, "exec", "--writable-tmpfs", "base.sif", "sh", "-c", "echo x >/opt/y; cat /opt/y") == (0, "x\n", "")
    assert sifkit(directory, "exec", "base.sif", "ls", "/opt") == (0, "", "")


def test_a_directory_overlay(directory: Path) -> None:
    for name in ("over", "up", "wk"):
        (directory / name).mkdir()
    assert sifkit(directory, "exec", "-o", "over", "base.sif", "touch", "/opt/a") == (0, "", "")
    assert (directory / "over/upper/opt/a").exists()
    assert sifkit(directory, "exec", "-o", "up:wk:rw", "base.sif", "touch", "/opt/b") == (0, "", "")
    assert (directory / "up/opt/b").exists()
    assert sifkit(directory, "exec", "-o", "up:ro", "-o", "over:ro", "base.sif", "ls", "/opt") == (0, "a\nb\n", "")


def test_binds_and_contained_directories(directory: Path) -> None:
    (directory / "data").mkdir()
    (directory / "data/f").write_text("of the host\n")
    words = ("exec", "-C", "-B", "data:/new/data:ro", "-W", "data", "-S", "/scr", "base.sif", "sh", "-c")
    script = "cat /new/data/f; ls /tmp /home /dev/shm; touch /new/data/g 2>/dev/null || echo ro; id -u"
    script += "; echo t >/tmp/t; echo s >/scr/s"
    code, out, err = sifkit(directory, *words, script)
    assert (code, err) == (0, "")
    assert out == "of the host\n/dev/shm:\n\n/home:\n\n/tmp:\nro\n0\n"
    assert (directory / "data/tmp/t").read_text() == "t\n" and (directory / "data/scratch/scr/s").read_text() == "s\n"


def test_a_working_directory_that_the_image_lacks(directory: Path) -> None:
    assert sifkit(directory, "exec", "base.sif", "sh", "-c", "pwd; ls base.sif") == (0, f"{directory}\nbase.sif\n", "")
    code, _, err = sifkit(directory, "exec", "--cwd", "/nowhere", "base.sif", "ls")
    assert code == 255 and "--cwd /nowhere: no such directory in the container" in err
    code, out, err = sifkit(directory, "exec", "--no-mount", "cwd,tmp", "base.sif", "sh", "-c", "pwd")
    assert (code, out) == (0, "/root\n") and "is not in the container; the command starts in /root" in err


def test_a_temporary_directory_that_the_image_lacks(directory: Path) -> None:
    code, _, err = sifkit(directory, "exec", "base.sif", "ls", "/opt", TMPDIR="/boot")
    assert code == 0 and err == (
        "sifkit exec: warning: TMPDIR is /boot, which the container does not show; show it with -B /boot\n"
    )
    assert "/no/tmp, which does not exist" in sifkit(directory, "exec", "base.sif", "ls", "/opt", TMPDIR="/no/tmp")[2]
    assert sifkit(directory, "exec", "-e", "base.sif", "ls", "/opt", TMPDIR="/boot") == (0, "", "")


def test_the_home_directory_and_accounts(directory: Path) -> None:
    (directory / "me").mkdir()
    code, out, _ = sifkit(
        directory, "exec", "-H", "me:/home/me", "base.sif", "sh", "-c", "cat /etc/passwd; touch ~/f; echo $HOME"
    )
    assert (code, out) == (0, "root:x:0:0:root:/home/me:/bin/sh\n/home/me\n")
    assert (directory / "me/f").exists()


def test_a_directory_is_the_image(box: Path, directory: Path) -> None:
    assert sifkit(directory, "run", str(box / "box"), "x") == (0, "run image x\n", "")


def test_a_directory_is_written_to(box: Path, directory: Path) -> None:
    shutil.copytree(box / "box", directory / "box", symlinks=True)
    code, out, err = sifkit(directory, "exec", "-w", "--cwd", "/opt", "box", "touch", "made")
    assert (code, out) == (0, "") and "/etc/localtime cannot be mounted: the container has no such path" in err
    assert (directory / "box/opt/made").exists() and not (directory / "box/etc/localtime").exists()
    code, _, err = sifkit(directory, "exec", "-w", "-B", "/srv:/not/there", "box", "true")
    assert code == 255 and "the container has no such path" in err
