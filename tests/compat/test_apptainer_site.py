"""Site configuration beside the Apptainer that is installed: both read the same file, and show and refuse the same."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.plain_user import program_for, user_directory
from ..support.program_tree import write_program_tree
from ..support.tools import NOBODY, find, requires_root

CONFIG = "/etc/apptainer/apptainer.conf"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.compat,
    requires_root,
    pytest.mark.skipif(not find("apptainer") or not os.path.exists(CONFIG), reason="Apptainer is not installed"),
]

PLAIN = next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid >= 1000 and os.path.isdir(entry.pw_dir)), NOBODY)
"""A plain user with a home directory, which Apptainer wants."""
LOOK = """while read -r a b c d target rest; do case $target in
*/cgroup*|/dev/*|/sys/*|/tmp/*) ;; *) echo "mount $target";; esac; done </proc/self/mountinfo; ls /dev; pwd"""


@pytest.fixture(scope="module")
def box() -> Iterator[Path]:
    """A directory as image, and directories to bind, in one that every user can enter."""
    with user_directory(0) as folder:
        write_program_tree(folder / "box")
        (folder / "data").mkdir()
        yield folder / "box"


def both(box: Path, lines: tuple[str, ...], *words: str) -> list[tuple[int, list[str]]]:
    """Exit codes and sorted output of sifkit and of Apptainer with these lines in the site's configuration."""
    text = Path(CONFIG).read_text()
    for key in {line.partition("=")[0].strip() for line in lines}:
        text = re.sub(rf"(?m)^{re.escape(key)}\s*=.*\n", "", text)
    config = box.parent / "apptainer.conf"
    config.write_text(text + "".join(f"{line}\n" for line in lines))
    program, path = program_for(PLAIN)
    found = []
    for command in ([program, "-m", "sifkit"], [find("apptainer") or ""]):
        done = subprocess.run(
            [
                *("unshare", "-m", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(config), CONFIG),
                *("setpriv", f"--reuid={PLAIN}", f"--regid={PLAIN}", "--clear-groups", *command, *words),
            ],
            cwd=box.parent,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "HOME": "/", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        found.append((done.returncode, sorted(done.stdout.splitlines()) or [done.stderr] * (done.returncode == 0)))
    return found


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("mount home = no", "mount tmp = no"),
        ("mount proc = yes", "mount sys = no", "mount dev = minimal", "mount devpts = no"),
        ("config passwd = no", "config group = no", "config resolv_conf = no"),
        ("bind path = /srv:/data/srv,/opt:/mnt/opt", "bind path = /etc/hosts"),
        ("user bind control = no",),
        ("mount hostfs = yes",),
        ("allow pid ns = no", "allow uts ns = no", "sessiondir max size = 16"),
    ],
    ids=lambda lines: lines[0] if lines else "defaults",
)
def test_directives(box: Path, lines: tuple[str, ...]) -> None:
    for options in ((), ("-c",), ("-B", f"{box.parent}/data:/mnt/data", "-p", "--hostname", "h")):
        ours, theirs = both(box, lines, "exec", *options, str(box), "sh", "-c", LOOK)
        if "mount hostfs = yes" in lines:  # all mounts of the host, and with -c none of ours
            assert ours[0] == theirs[0] == 0
            continue
        assert ours == theirs, options


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("limit container owners = nobody",), ()),
        (("limit container groups = nogroup",), ()),
        (("limit container paths = /opt",), ()),
        (("allow container dir = no",), ()),
        (("allow user ns = no",), ()),
        (("enable overlay = no",), ("--writable-tmpfs",)),
        (("user bind control = no",), ("-H", "data:/home/x")),
        (("mount dev = maybe",), ()),
    ],
)
def test_what_a_site_refuses(box: Path, lines: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert [code for code, _ in both(box, lines, "exec", *words, str(box), "ls")] == [255, 255]
