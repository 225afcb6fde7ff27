"""The bench of the resize: what it ages, that both sides resize copies of one image, and what it needs."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ext3 import Filesystem

from ...support.tools import require

TOOLS = Path(__file__).resolve().parents[3] / "tools"
MIB = 1 << 20


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))  # as for a script
    monkeypatch.setattr(os, "sync", lambda: None)  # of the whole machine
    return importlib.import_module("bench_resize")


def test_half_of_the_files_go_and_large_ones_come(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LARGE_FILES", 2)
    monkeypatch.setattr(bench, "LARGE_MIB", 1)
    (tmp_path / "directory").mkdir()
    for name in "abcd":
        (tmp_path / "directory" / name).touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert bench.age(tmp_path) == 5
    assert sorted(os.listdir(tmp_path / "directory")) == ["b", "d"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "large-0", "large-1"]
    assert (tmp_path / "large-1").stat().st_size == MIB


@pytest.mark.compat
def test_both_sides_resize_copies_of_one_image(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("mke2fs", "e2fsck", "resize2fs")
    cases, sizes = bench.Bench(1, tmp_path), []
    cases.make_image("12M", "-b", "1024")
    work = cases.on_copy

    def looked_at(resize: object) -> object:
        def both() -> object:
            done = work(resize)()
            with Filesystem.open(cases.image) as filesystem:
                sizes.append((os.stat(cases.base).st_size, filesystem.superblock.size_bytes))
            return done

        return both

    monkeypatch.setattr(cases, "on_copy", looked_at)
    left, right = cases.both("20M", "--size", "20M", slow_runs=1)
    assert sizes == [(12 * MIB, 20 * MIB)] * 3  # ours twice, the first time for the cache
    assert len(left) == len(right) == 1 and min(left[0].seconds, right[0].seconds) > 0
    assert not list(tmp_path.iterdir())
    assert cases.row("name", left, right, 1e9).met and not cases.row("name", left, right, 0).met


def test_without_root_no_image_is_aged(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as caught:
        bench.main(["--only", "grow,shrink"])
    assert caught.value.code == 2


def test_what_a_resize_loads_can_be_loaded(bench: ModuleType) -> None:
    assert bench.measure([sys.executable, "-c", bench.START]).seconds > 0  # raises for an exit code
