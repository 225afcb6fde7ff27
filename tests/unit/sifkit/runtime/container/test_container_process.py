"""The command of a container: executed or refused, and signals passed on to it.

Each runs in a process of its own: a process with threads, as that of a test may be, loses signals to them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("containers run on Linux only", allow_module_level=True)

PROGRAM = """
import sys
from sifkit.runtime.container.container_process import run_in_container
from sifkit.runtime.errors import LaunchError
from sifkit.runtime.planning.run_plan import Start
start = Start(tuple(sys.argv[1:]), {"PATH": "/usr/bin:/bin"})
try:
    sys.exit(run_in_container(lambda: start, cwd=["/"], no_new_privileges=False))
except LaunchError as error:
    sys.exit(error.message)
"""


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stderr=subprocess.PIPE, text=True)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.touch(0o755)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#!/no/such/interpreter\n", "program needs /no/such/interpreter, which is not in the container"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), "program is no program for this host's processor"),
        (None, "program is a directory"),
    ],
)
def test_programs_that_cannot_be_executed(program: Path, content: bytes | None, message: str) -> None:
    if content is None:
        program.unlink()
        program.mkdir()
    else:
        program.write_bytes(content)
    with started(str(program)) as process:
        assert message in process.communicate(timeout=30)[1]


def test_a_script_without_an_interpreter_line(program: Path) -> None:
    program.write_text('[ "$1" = x ] && [ "$#" = 1 ] && exit 7\n')
    with started(str(program), "x") as process:
        assert process.wait(30) == 7


def test_signals_are_passed_on(program: Path, tmp_path: Path) -> None:
    program.write_text(f'#!/bin/sh\ntrap "exit 3" WINCH\ntouch {tmp_path}/up\nwhile :; do sleep 0.1; done\n')
    with started(str(program)) as process:
        until = time.monotonic() + 30
        while not (tmp_path / "up").exists() and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGWINCH)
        assert process.wait(30) == 3
