"""``sifkit overlay export`` and ``extract``: what a person is told, and what is left behind."""

from __future__ import annotations

import json
import os
import tarfile

import pytest

from sifkit.cli import main


@pytest.fixture
def holes(tmp_path, monkeypatch):
    """An overlay of 16 MiB with a file of 3 GiB, nearly all of it a hole."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    with (tmp_path / "source" / "hole").open("wb") as file:
        file.truncate(3 << 30)
        file.seek(1 << 30)
        file.write(b"data")
    if os.stat("source/hole").st_blocks * 512 > 1 << 20:
        pytest.skip("this filesystem keeps no holes")
    assert main(["-q", "overlay", "create", "--size", "16M", "--from-dir", "source", "a.img"]) == 0
    return "a.img"


def test_a_hole_that_would_fill_the_disk_is_refused(run, holes, tmp_path):
    code, out, err = run("overlay", "export", holes, "-o", "layer.tar")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "/hole, 3 GiB of which" in err and "--sparse" in err
    assert sorted(os.listdir(tmp_path)) == ["a.img", "source"]
    code, out, _ = run("overlay", "export", "--json", holes, "-o", "layer.tar")
    assert code == 1 and json.loads(out)["error"]["kind"] == "too-large"


def test_a_hole_is_kept_where_that_is_asked_for(run, holes):
    assert run("overlay", "export", "--sparse", holes, "-o", "layer.tar")[0] == 0
    assert os.path.getsize("layer.tar") < 100_000
    with tarfile.open("layer.tar") as tar:
        assert tar.getmember("hole").size == 3 << 30
    assert run("overlay", "export", holes, "-o", "out/")[0] == 0
    assert os.path.getsize("out/hole") == 3 << 30
    assert os.stat("out/hole").st_blocks * 512 < 1 << 20
    assert run("-q", "overlay", "create", "--size", "16M", "--from-tar", "layer.tar", "b.img")[0] == 0
    assert run("diff", f"{holes}:/upper", "b.img:/upper") == (0, "", "")


def test_sparse_is_for_archives(run, holes):
    code, _, err = run("overlay", "export", "--sparse", holes, "-o", "out/")
    assert code == 2 and "--sparse is for archives" in err
    assert not os.path.exists("out")


def test_problems_are_lines_and_count(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source" / "upper").mkdir(parents=True)
    (tmp_path / "source" / "upper" / ".wh.odd\n").write_bytes(b"not a mark")
    (tmp_path / "source" / "upper" / "good").write_bytes(b"x")
    assert main(["-q", "overlay", "create", "--layout", "root", "--from-dir", "source", "a.img"]) == 0
    code, out, err = run("overlay", "export", "--json", "a.img", "-o", "layer.tar")
    assert (code, json.loads(out)["errors"], json.loads(out)["entries"]) == (1, 1, 2)
    assert err.startswith("sifkit overlay export: /.wh.odd\\n: a name that begins with .wh. would be a whiteout")
    assert err.count("\n") == 1


def test_more_problems_than_anybody_reads_are_counted(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source" / "upper").mkdir(parents=True)
    for number in range(130):
        (tmp_path / "source" / "upper" / f".wh.{number}").write_bytes(b"not a mark")
    assert main(["-q", "overlay", "create", "--layout", "root", "--from-dir", "source", "a.img"]) == 0
    code, out, err = run("overlay", "export", "--json", "a.img", "-o", "layer.tar")
    assert (code, json.loads(out)["errors"], err.count("\n")) == (1, 130, 101)
    assert err.endswith("... and 30 more problems\n")
