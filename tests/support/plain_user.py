"""sifkit as a process of any user: with an interpreter, a checkout and packages that he can read, as they may be root's."""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from termios import TIOCSCTTY

from .tools import missing

__all__ = ["USER", "become_user", "program_for", "run_sifkit", "start_sifkit", "user_directory"]

USER = 4321
"""A plain user, whom no user database knows."""
PROJECT = Path(__file__).parents[2]
PACKAGES = ("ext3", "sifkit", "numpy", "construct", "typer", "click", "rich", "shellingham", "tqdm", "typing_extensions")
PACKAGES += ("markdown_it", "mdurl", "pygments", "annotated_doc")
"""Packages that sifkit loads; those that are not installed are not needed by this version of the others."""
PR_SET_DUMPABLE = 4
TRIAL = "import sifkit.cli, sifkit.runtime, ext3, numpy, construct, typer"


def become_user(uid: int) -> None:
    """Make this process one of a plain user, to whom its /proc/self belongs, as after a login."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0


@contextmanager
def user_directory(uid: int) -> Iterator[Path]:
    """A directory that belongs to a user, below one that everybody can enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="sifkit-user-") as name:
        os.chmod(name, 0o755)
        found = Path(name, "work")
        found.mkdir()
        os.chown(found, uid, uid)
        yield found


@contextmanager
def start_sifkit(
    uid: int, directory: Path, *words: str, terminal: int | None = None, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Start ``sifkit WORDS`` as a user, in a directory that is his home, too. ``variables``: of his environment.

    ``terminal``: it is the process's own, and its input and output. A test that fails does not wait for its end.
    """

    def take_terminal() -> None:
        ioctl(0, TIOCSCTTY, 0)

    program, path = program_for(uid)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(directory),
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": path,
        **variables,
    }
    with subprocess.Popen(
        [program, "-m", "sifkit", *words],
        cwd=directory,
        env=environment,
        stdin=subprocess.PIPE if terminal is None else terminal,
        stdout=subprocess.PIPE if terminal is None else terminal,
        stderr=subprocess.PIPE if terminal is None else terminal,
        user=uid,
        group=uid,
        extra_groups=[],
        start_new_session=terminal is not None,
        preexec_fn=None if terminal is None else take_terminal,  # noqa: PLW1509 - tests have a single thread here
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def run_sifkit(uid: int, directory: Path, *words: str, stdin: str = "", **variables: str) -> tuple[int, str, str]:
    """Exit code, output and messages of ``sifkit WORDS``, run as ``start_sifkit`` does."""
    with start_sifkit(uid, directory, *words, **variables) as process:
        out, err = process.communicate(stdin.encode(), timeout=300)
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


@cache
def program_for(uid: int) -> tuple[str, str]:
    """Return an interpreter and a PYTHONPATH that a user can read: ours, or copies."""
    if _works(uid, sys.executable, str(PROJECT)):
        return sys.executable, str(PROJECT)
    copies = Path(tempfile.mkdtemp(prefix="sifkit-packages-"))
    atexit.register(shutil.rmtree, copies, ignore_errors=True)
    copies.chmod(0o755)
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        if origin.name != "__init__.py":
            shutil.copy(origin, copies)
            continue
        for folder in (origin.parent, origin.parent.with_name(f"{package}.libs")):
            if folder.exists():
                shutil.copytree(folder, copies / folder.name, ignore=shutil.ignore_patterns("tests"))
    program = os.path.realpath(sys.executable)
    if not _works(uid, program, str(copies)):
        missing(f"user {uid} cannot run {program}")
    return program, str(copies)


def _works(uid: int, program: str, path: str) -> bool:
    done = subprocess.run(
        [program, "-c", TRIAL],
        cwd="/",
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=uid,
        group=uid,
        extra_groups=[],
        check=False,
    )
    return done.returncode == 0
