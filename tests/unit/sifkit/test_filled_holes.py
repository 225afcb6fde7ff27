"""Holes that a copy filled are told: the copy takes more of its disk than the original."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ext3 import hostio
from sifkit.host_space import filled_holes_notes

from ...support.commands import Run, good

MIB = 1 << 20


def test_what_is_told() -> None:
    assert filled_holes_notes("a", 20 * MIB, 20 * MIB + 100_000) == ()
    assert filled_holes_notes("a", 20 * MIB, 10 * MIB) == ()
    assert filled_holes_notes("a", 100 * MIB, 110 * MIB) == ()
    (text,) = filled_holes_notes("a", 20 * MIB, 500 * MIB)
    assert text.startswith("a: the copy takes 500 MiB on disk, the original 20 MiB: its holes were filled")


@pytest.fixture
def images(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse overlay a.img, alone and in a.sif, with a gap in b.sif, where holes cannot be found."""
    monkeypatch.chdir(tmp_path)
    good(run, "-q", "overlay", "create", "--size", "24M", "a.img")
    for name in ("a.sif", "b.sif"):
        good(run, "-q", "sif", "new", name)
    good(run, "-q", "sif", "add", "--parttype", "overlay", "a.sif", "a.img")

    def no_holes(fd: int, offset: int, size: int) -> Iterator[tuple[int, int]]:
        if size:
            yield offset, size

    monkeypatch.setattr(hostio, "data_ranges", no_holes)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    "argv",
    [("overlay", "clone", "a.img", "c.img"), ("overlay", "attach", "b.sif", "a.img"), ("overlay", "detach", "a.sif", "--keep")],
)
def test_copies(run: Run, argv: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostio, "clone_file", lambda *args: False)
    monkeypatch.setattr("sifkit.sif.store.FileStore.data_spans", lambda self, offset, size: [(offset, size)])
    code, out, err = run(*argv, "--json")
    assert code == 0
    notes = json.loads(out)["notes"]
    (note,) = [note for note in notes if "the copy takes 24 MiB on disk" in note]
    assert "its holes were filled" in note and note in err


@pytest.mark.usefixtures("images")
def test_compact(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sifkit.sif.store.FileStore.data_spans", lambda self, offset, size: [(offset, size)])
    code, out, _ = run("sif", "compact", "a.sif", "--capacity", "96", "--json")
    assert code == 0
    (note,) = json.loads(out)["notes"]
    assert "its holes were filled" in note
