"""Programs found in a PATH, and what is said of those that cannot be executed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("containers run on Linux only", allow_module_level=True)

from sifkit.runtime.container.programs import find_program, is_plain_script, why_not_executed


def refused(program: Path) -> str:
    """Message on a program that the kernel does not execute."""
    try:
        os.execve(program, [str(program)], {})
    except OSError as error:
        return why_not_executed(str(program), error).removeprefix(str(program))
    raise AssertionError("it is executed")


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"#!/nowhere/python -x\n", 0o755, " needs /nowhere/python, which is not in the container"),
        (b"\x7fELF\2\1\1" + bytes(200), 0o755, " is no program for this host's processor"),
        (b"#!/bin/sh\n", 0o644, " is not executable"),
    ],
)
def test_programs_that_are_refused(content: bytes, mode: int, said: str, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(mode)
    assert refused(program) == said


def test_other_files_that_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == ": no such file in the container"
    assert refused(tmp_path) == " is a directory"
    loader = b"/lib/ld-musl-nowhere.so.1"
    program = tmp_path / "program"
    own = Path(sys.executable).resolve().read_bytes()
    start = own.find(b"/lib", 0, 4096)
    end = own.index(b"\0", start)
    if start < 0 or end - start < len(loader):
        pytest.skip("this interpreter needs no dynamic loader")
    program.write_bytes(own[:start] + loader + bytes(end - start - len(loader)) + own[end:])
    program.chmod(0o755)
    assert refused(program) == " needs /lib/ld-musl-nowhere.so.1, which is not in the container"


def test_scripts_without_a_first_line(tmp_path: Path) -> None:
    program = tmp_path / "program"
    for content, plain in ((b"echo x", True), (b"#!/bin/sh\n", False), (b"\x7fELF\0", False), (b"", True)):
        program.write_bytes(content)
        assert is_plain_script(str(program)) == plain
    assert not is_plain_script(str(tmp_path / "none")) and not is_plain_script(str(tmp_path))


def test_the_path(tmp_path: Path) -> None:
    for name, mode in (("a", 0o644), ("b", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_bytes(b"")
        (tmp_path / name / "tool").chmod(mode)
    path = f"{tmp_path}/none:{tmp_path}/a:{tmp_path}/b"
    assert find_program("tool", path) == f"{tmp_path}/b/tool"
    assert find_program("./tool", path) == "./tool"
    with pytest.raises(FileNotFoundError, match="not found in \\$PATH"):
        find_program("other", path)
    with pytest.raises(PermissionError):
        find_program("tool", f"{tmp_path}/a")
