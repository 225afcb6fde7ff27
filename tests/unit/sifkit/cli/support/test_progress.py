"""Progress as bars, plain lines and JSON."""

from __future__ import annotations

import json

import pytest

from sifkit.cli.support.console import Console
from sifkit.cli.support.progress import reporter


def test_json_progress(run, made):
    lines = [json.loads(line) for line in run("overlay", "create", "-q", "--progress", "json")[2].splitlines()]
    assert {line["command"] for line in lines} == {"overlay create"} and {line["sifkit"] for line in lines} == {1}
    told = [line["progress"] for line in lines]
    assert all(one.pop("seconds") >= 0 for one in told)
    assert told[-1].pop("phases").keys() == {"copy"}
    assert told == [
        {"phase": "copy", "unit": "files", "done": 0, "total": 10},
        {"phase": "copy", "unit": "files", "done": 10, "total": 10},
        {"phase": "done", "unit": "bytes", "done": 0, "total": 0, "files": 10},
    ]


def test_json_progress_of_a_whole_create(run, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(5):
        (source / f"{number}").write_bytes(b"x" * 100)
    code, _, err = run("overlay", "create", "--progress", "json", "-q", "-d", source, tmp_path / "o.img")
    told = [json.loads(line)["progress"] for line in err.splitlines()]
    assert code == 0
    phases = list(dict.fromkeys(one["phase"] for one in told))
    assert phases == ["scan", "plan", "copy", "verify", "sync", "done"]
    last = {one["phase"]: one for one in told}
    assert last["scan"]["done"] == 5 and last["copy"]["done"] == last["copy"]["total"] == 500
    assert (last["done"]["done"], last["done"]["files"] >= 5) == (500, True)
    assert list(last["done"]["phases"]) == phases[:-1]
    assert [one["seconds"] for one in told] == sorted(one["seconds"] for one in told)
    told = run("overlay", "create", "--progress", "json", "-q", "-d", source, tmp_path / "none" / "o.img")[2].splitlines()
    assert json.loads(told[0])["progress"]["phase"] == "failed" and len(told) == 2


def test_what_is_counted_stays_below_the_total():
    bar_ = reporter("off", Console())
    bar_.phase("copy", 10, "bytes")
    for _ in range(3):
        bar_.advance(4)
    bar_.done()
    assert [phase[:3] for phase in bar_.phases] == [("copy", "bytes", 10)]


def test_plain_progress_speaks_after_a_while(capfd, monkeypatch):
    clock = iter([0.0, 0.0, 29.0, 31.0, 32.0, 61.5, 62.0])
    monkeypatch.setattr("sifkit.cli.support.progress.time.monotonic", lambda: next(clock))
    with reporter("auto", Console()) as bar_:
        bar_.phase("copy", 4 << 20, "bytes")
        for _ in range(4):
            bar_.advance(1 << 20)
    assert capfd.readouterr().err == "sifkit: copy: 2 MiB of 4 MiB\nsifkit: copy: 4 MiB of 4 MiB\n"


def test_a_bar_on_a_terminal_leaves_nothing_behind(capfd, monkeypatch):
    monkeypatch.setattr(Console, "err_is_terminal", True)
    with pytest.raises(KeyboardInterrupt), reporter("auto", Console()) as shown:
        shown.phase("scan", None, "files")
        shown.advance(3)
        raise KeyboardInterrupt
    assert "Traceback" not in capfd.readouterr().err


def test_a_bar_in_bytes_has_binary_units(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    monkeypatch.setattr(Console, "err_is_terminal", True)
    with reporter("auto", console) as shown:
        shown.phase("copy", 10 << 20, "bytes")
        shown._bar.delay = 0  # type: ignore[attr-defined]
        shown.advance(5 << 20)
        shown._bar.refresh()  # type: ignore[attr-defined]
        text = str(shown._bar)  # type: ignore[attr-defined]
    assert "5.00MiB/10.0MiB" in text or "5.00M/10.0M" in text
    assert "iB/s" in text


def test_steps_have_no_unit(capfd, monkeypatch):
    clock = iter([0.0, 0.0, 31.0, 32.0])
    with monkeypatch.context() as patched:
        patched.setattr("sifkit.cli.support.progress.time.monotonic", lambda: next(clock))
        with reporter("auto", Console()) as bar_:
            bar_.phase("pass 1", 5000, "steps")
            bar_.clear()
            bar_.advance(1234)
    assert capfd.readouterr().err == "sifkit: pass 1: 1,234 of 5,000\n"
    monkeypatch.setattr(Console, "err_is_terminal", True)
    with reporter("auto", Console()) as shown:
        shown.clear()
        shown.phase("pass 1", 10, "steps")
        shown.advance(4)
        shown.clear()
        assert "4/10" in str(shown._bar) and "files" not in str(shown._bar)
