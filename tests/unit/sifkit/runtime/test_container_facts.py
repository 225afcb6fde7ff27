"""Facts of a container, read from this host's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sifkit.errors import FormatError
from sifkit.runtime import container_facts
from sifkit.runtime.container_facts import find_executable, read_container_facts, read_small_file
from sifkit.runtime.run_plan import Command


def test_programs_are_found_in_the_path(tmp_path: Path) -> None:
    program = tmp_path / "b" / "run"
    program.parent.mkdir()
    program.write_text("")
    program.chmod(0o755)
    (tmp_path / "run").mkdir()
    assert find_executable("run", f"{tmp_path}:{tmp_path}/b") == str(program)
    assert find_executable(str(program), "") == str(program)
    for missing in ("no", str(tmp_path / "no")):
        with pytest.raises(FileNotFoundError):
            find_executable(missing, str(tmp_path))
    with pytest.raises(PermissionError):
        find_executable(str(tmp_path / "run"), "")


def test_only_small_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("fifo", "loop", "missing", "."):
        assert read_small_file(str(tmp_path / name)) is None
    with open(tmp_path / "big", "wb") as file:
        file.truncate(1 << 20)
    assert len(read_small_file(str(tmp_path / "big")) or b"") == 1 << 20
    with open(tmp_path / "big", "ab") as file:
        file.write(b"x")
    with pytest.raises(FormatError, match="more than 1 MiB"):
        read_small_file(str(tmp_path / "big"))


def test_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "20-b.sh").write_text("export B=1")
    (tmp_path / "10-a.sh").write_text("export A=1")
    (tmp_path / "readme").write_text("")
    monkeypatch.setattr(container_facts, "ENVIRONMENT_DIRECTORY", str(tmp_path))
    facts = read_container_facts(Command(action="shell", shell="/bin/sh"))
    assert facts.shell and facts.has_asked_shell and facts.scripts == (("10-a.sh", b""), ("20-b.sh", b""))
    monkeypatch.setattr(container_facts, "is_executable", lambda path: False)
    facts = read_container_facts(Command(action="run", app="no-such"))
    assert not facts.shell and not facts.has_app and facts.scripts == (("10-a.sh", b"export A=1"), ("20-b.sh", b"export B=1"))
    monkeypatch.setattr(container_facts, "MOST_SCRIPTS", 1)
    with pytest.raises(FormatError, match="more than 1 scripts"):
        read_container_facts(Command(action="exec"))
