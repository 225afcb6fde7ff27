"""Space of removed objects after interrupted edits of SIF images: the next opening for writing gives it back, and cuts nothing
that may be somebody's."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from ext3 import hostio
from sifkit.sif import SIF, DataType
from sifkit.sif.format.placement import data_end, dead_spans
from sifkit.sif.gaps import first_nonzero
from sifkit.sif.store import FileStore

from ..support.sif_edits import EDITS, PREPARE, content_of, record
from ..support.sif_images import assert_sound, sample_image
from ..support.sif_recorder import crashes

REMOVING = [name for name in EDITS if "delete" in name or "drop" in name or "replace" in name or "again" in name]


@pytest.fixture(autouse=True)
def _holes(tmp_path: Path) -> None:
    with (tmp_path / "probe").open("wb") as file:
        file.write(b"x" * 8192)
        file.flush()
        if not hostio.punch_hole(file.fileno(), 0, 4096):
            pytest.skip("no holes can be punched here")


def reopen(path: Path) -> None:
    """Open an image for writing, and close it."""
    with SIF.open(path, "r+"):
        pass


def wasted(path: Path) -> tuple[int, int | None]:
    """(bytes after the last object, offset of the first byte between objects that is not zero)."""
    with SIF.open(path) as sif, path.open("rb") as file:
        end = data_end(sif.header, list(sif))
        store = FileStore(file.fileno())
        found = (first_nonzero(store, begin, size) for begin, size in dead_spans(sif.header, list(sif)))
        return store.size - end, next((offset for offset in found if offset is not None), None)


@pytest.mark.slow
@pytest.mark.parametrize("name", REMOVING)
def test_every_crash_of_a_removal(tmp_path: Path, name: str) -> None:
    """Once the objects are gone, their bytes go as well, also if the recovery is interrupted."""
    path = tmp_path / "image.sif"
    sample_image(path)
    if name in PREPARE:
        record(path, PREPARE[name])
    before = path.read_bytes()
    ops, after = record(path, EDITS[name])
    late = 0
    for what, raw in crashes(before, ops):
        if content_of(raw) != content_of(after):
            continue
        path.write_bytes(raw)
        late += wasted(path) != (0, None)
        steps, _ = record(path, lambda sif: None)
        assert wasted(path) == (0, None), what
        assert_sound(path.read_bytes())
        for again, interrupted in crashes(raw, steps):
            path.write_bytes(interrupted)
            reopen(path)
            assert wasted(path) == (0, None), (what, again)
            assert content_of(path.read_bytes()) == content_of(after)
    assert late


def test_nothing_is_written_where_nothing_is_wasted(tmp_path: Path) -> None:
    """The gap in front of an aligned object shares its blocks with the neighbours: it is zero, and stays as it is."""
    path = tmp_path / "image.sif"
    sample_image(path)
    record(path, EDITS["delete one in the middle"])
    before = path.read_bytes()
    os.utime(path, ns=(10**18, 10**18))
    reopen(path)
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == 10**18


def test_large_gaps_become_holes(tmp_path: Path) -> None:
    """The blocks are free again, those that hold zeros too."""
    path = tmp_path / "image.sif"
    sample_image(path, capacity=16)
    with SIF.open(path, "r+") as sif:
        added = [sif.add(fill * (1 << 20), DataType.GENERIC) for fill in (b"x", b"\0", b"y")]
        sif.delete([descriptor.id for descriptor in added[:2]])
    with path.open("r+b") as file:
        file.seek(added[0].offset)
        file.write(b"x" * (1 << 20) + b"\0" * (1 << 20))
        file.flush()
        os.fsync(file.fileno())
    used = path.stat().st_blocks
    reopen(path)
    assert path.stat().st_blocks <= used - 2 * ((1 << 20) - 8192) // 512
    assert wasted(path) == (0, None)


def test_bytes_after_the_counted_ones_are_kept(tmp_path: Path) -> None:
    """Somebody appended them, or another writer is about to add them; what the header counts before them is zeroed."""
    path = tmp_path / "image.sif"
    sample_image(path)
    raw = path.read_bytes()
    path.write_bytes(raw + b"appended" * 1000)
    reopen(path)
    assert path.read_bytes() == raw + b"appended" * 1000
    with SIF.open(io.BytesIO(raw)) as sif:
        header = sif.header._replace(data_size=sif.header.data_size + 5000)
    path.write_bytes(header.pack() + raw[128:] + b"stale" * 1000 + b"appended" * 1000)
    reopen(path)
    assert path.read_bytes() == raw + bytes(5000) + b"appended" * 1000
    path.write_bytes(header.pack() + raw[128:] + b"stale" * 1000)
    reopen(path)
    assert path.read_bytes() == raw


def test_an_edit_that_is_refused_frees_nothing(tmp_path: Path) -> None:
    """An error leaves the image as it was."""
    path = tmp_path / "image.sif"
    sample_image(path)
    with SIF.open(path) as sif:
        gone = sif.get(3)
    record(path, lambda sif: sif.delete(3))
    with path.open("r+b") as file:
        file.seek(gone.offset)
        file.write(b"{}")
    before = path.read_bytes()
    with pytest.raises(KeyError), SIF.open(path, "r+"):
        raise KeyError
    assert path.read_bytes() == before
    reopen(path)
    assert wasted(path) == (0, None)
