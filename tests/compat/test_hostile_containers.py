"""Containers made to harm whoever runs them: nothing outside is touched, no file of theirs gains rights or stops the start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.plain_user import USER, run_sifkit, user_directory
from tests.support.squashfs_images import make_squashfs
from tests.support.tools import missing, requires_root

pytestmark = [pytest.mark.compat, pytest.mark.root, requires_root]

ID_PROGRAM = "/usr/bin/id"


def write_hostile_root(root: Path, victim: Path) -> None:
    """A root whose mount points are links to a directory of the host, and whose files are not what they should be."""
    for name in ("etc", "app", "opt", "sys", "dev", "var", "usr"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "proc").symlink_to(victim)
    (root / "tmp").symlink_to("../../../../opt")
    (root / "home").symlink_to(victim)
    (root / "var/tmp").symlink_to("/proc/self/root")
    (root / ".singularity.d").symlink_to(victim)
    (root / "etc/passwd").mkdir()
    os.mkfifo(root / "etc/group")
    (root / "etc/hosts").symlink_to(victim / "file")
    (root / "etc/resolv.conf").symlink_to("resolv.conf")
    shutil.copy(ID_PROGRAM, root / "app/id")
    (root / "app/id").chmod(0o6755)
    os.mknod(root / "app/null", 0o20666, os.makedev(1, 3))
    (root / "data").symlink_to("/../../opt/../data2")


def facts(directory: Path) -> list[tuple[str, int, int]]:
    return [(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in (directory, *directory.rglob("*"))]


@pytest.mark.parametrize("uid", [0, USER])
def test_nothing_outside_is_touched(tmp_path: Path, uid: int) -> None:
    with user_directory(uid) as directory:
        victim = directory / "victim"
        victim.mkdir()
        (victim / "file").write_text("of the host\n")
        for path in (victim, victim / "file"):
            path.chmod(0o777)
        write_hostile_root(tmp_path / "root", victim)
        make_squashfs(tmp_path / "root", directory / "image.sqfs").chmod(0o644)
        before = facts(victim)
        (directory / "shown").mkdir()
        (directory / "shown/file").write_text("shown\n")
        script = "/app/id -u; cat /data/file; cat /app/null 2>/dev/null || echo no device"
        for options in ((), ("--containall",), ("--writable-tmpfs",)):
            code, out, err = run_sifkit(
                uid, directory, "exec", *options, "-B", "/usr", "-B", "shown:/data", "image.sqfs", "/usr/bin/sh", "-c", script
            )
            assert (code, out) == (0, f"{uid}\nshown\nno device\n"), err
            assert facts(victim) == before


KEYS = """
import ctypes, os, sys
from sifkit.runtime.sys import KEYCTL, join_new_keyring
keyctl = KEYCTL[os.uname().machine]
libkeys, session = ctypes.CDLL(None), ctypes.c_long(-3)
add_key = {"x86_64": 248, "aarch64": 217}[os.uname().machine]
if sys.argv[1:]:
    join_new_keyring()
    if libkeys.syscall(ctypes.c_long(add_key), b"user", b"a secret", b"x", ctypes.c_long(1), session) < 0:
        sys.exit("no keys")
    os.execv(sys.argv[1], sys.argv[1:])
print(libkeys.syscall(ctypes.c_long(keyctl), ctypes.c_long(10), session, b"user", b"a secret", ctypes.c_long(0)) > 0)
"""


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="the number of add_key(2) is not known")
def test_keys_of_the_session_are_not_in_a_contained_container(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    script = tmp_path / "keys.py"
    script.write_text(KEYS)
    project = str(Path(__file__).parents[2])
    binds = ["/usr", "/lib", "/lib64", os.path.realpath(sys.base_prefix), project, str(script)]
    shown = [word for path in binds if os.path.exists(path) for word in ("-B", path)]
    for options, is_shown in (((), True), (("--containall",), False)):
        command = [
            sys.executable,
            "-m",
            "sifkit",
            "exec",
            *options,
            *shown,
            "--env",
            f"PYTHONPATH={project}",
            str(tmp_path / "root"),
        ]
        inside = [os.path.realpath(sys.executable), str(script)]
        done = subprocess.run(
            [sys.executable, script, *command, *inside], capture_output=True, text=True, check=False, cwd=project
        )
        if done.stderr == "no keys\n":
            missing("keys of the kernel are not allowed here")
        assert (done.returncode, done.stdout) == (0, f"{is_shown}\n"), done.stderr
