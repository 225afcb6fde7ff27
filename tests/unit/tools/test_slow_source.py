"""A source that answers slowly: what lies in it waits, what lies elsewhere does not, and nothing stays behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tools import slow_source


def test_calls_below_the_directory_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "file").write_bytes(b"x")
    (tmp_path / "slower").mkdir()
    before = {name: getattr(os, name) for name in (*slow_source.CALLS, "scandir") if hasattr(os, name)}
    with slow_source.slowed(str(tmp_path / "slow"), 0.5, (*slow_source.CALLS, "scandir")):
        os.lstat(tmp_path / "slower")
        os.stat(os.fsencode(tmp_path))
        with os.scandir(tmp_path) as entries:
            assert {entry.name for entry in entries if entry.stat() and entry.is_dir()} == {"slow", "slower"}
        assert waited == [0.5], "the entry slow, and no other"
        os.lstat(tmp_path / "slow" / "file")
        os.stat(os.fsencode(tmp_path / "slow"))
        os.close(os.open(tmp_path / "slow" / "file", os.O_RDONLY))
        assert waited == [0.5] * 4
        assert [names for _, _, names in os.walk(tmp_path / "slow")] == [["file"]]
    assert {name: getattr(os, name) for name in before} == before


def test_a_command_runs_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"x")
    command = ["--", "-q", "overlay", "create", "--from-dir", str(tmp_path / "source"), str(tmp_path / "o.img")]
    assert slow_source.main(["--below", str(tmp_path / "source"), "--milliseconds", "2", *command]) == 0
    assert (tmp_path / "o.img").exists()
    assert waited.count(0.002) >= 3, "lstat, listxattr, open"
