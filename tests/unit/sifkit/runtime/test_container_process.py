"""The command of a container: executed or refused, and signals passed on to it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sifkit.runtime.container_process import Start, run_in_container
from sifkit.runtime.errors import LaunchError


def ran(*words: str) -> int:
    return run_in_container(lambda: Start(words, {"PATH": "/usr/bin:/bin"}), cwd=["/"], no_new_privileges=False)


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
    with pytest.raises(LaunchError, match=message):
        ran(str(program))


def test_a_script_without_an_interpreter_line(program: Path) -> None:
    program.write_text('[ "$1" = x ] && [ "$#" = 1 ] && exit 7\n')
    assert ran(str(program), "x") == 7


def test_signals_are_passed_on(program: Path, tmp_path: Path) -> None:
    program.write_text(f'#!/bin/sh\ntrap "exit 3" WINCH\ntouch {tmp_path}/up\nfor i in 1 2 3 4 5 6 7 8 9; do sleep 1; done\n')
    kill = f"until [ -e {tmp_path}/up ]; do sleep 0.05; done; kill -WINCH {os.getpid()}"
    with subprocess.Popen(["sh", "-c", kill]):
        assert ran(str(program)) == 3
