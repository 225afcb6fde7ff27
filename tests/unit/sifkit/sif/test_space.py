"""Space in images: it comes back after deletions and interrupted edits, gaps are zero, other programs' records stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sifkit.sif import (
    SIF,
    DataType,
    PartType,
)

from ....support.platforms import linux_holes
from ....support.sif_images import assert_sound, content, edited, partition

MIB = 1 << 20


@linux_holes
def test_space_comes_back(path: Path) -> None:
    """The file is cut at its end, and punched before that."""
    with edited(path) as sif:
        sif.add(os.urandom(MIB), DataType.GENERIC)
        sif.add(os.urandom(MIB), DataType.GENERIC)
        full = path.stat()
        sif.delete(7)
        punched = path.stat()
        assert punched.st_size == full.st_size
        assert punched.st_blocks * 512 < full.st_blocks * 512 - MIB // 2
        assert sif.warnings == ()
        sif.delete(8)
        cut = path.stat()
        assert cut.st_size == sif.get(6).end
        sif.delete([1, 2, 3, 4, 5, 6])
        assert path.stat().st_size == sif.header.data_offset


@linux_holes
@pytest.mark.parametrize("how", ["a deletion", "the last", "an addition", "an appended file"])
def test_the_space_of_an_interrupted_edit_comes_back(path: Path, how: str) -> None:
    """A record that is unused and not empty tells where the bytes are that nobody wants; nothing else is touched."""
    with edited(path) as sif:
        gone = sif.add(os.urandom(MIB), DataType.GENERIC)
        if how == "a deletion":
            sif.add(b"behind", DataType.GENERIC)
        kept = content(sif)[1:]
    size, blocks = path.stat().st_size, path.stat().st_blocks
    with path.open("r+b") as file:
        file.seek(4096 + gone.slot * 585 + 4)
        file.write(b"\0")
        if how == "an appended file":
            file.seek(0, os.SEEK_END)
            file.write(b"somebody's")
    with edited(path) as sif:
        now = content(sif)[1:]
        assert now == [one for one in kept if one[0].id != gone.id]
    raw = path.read_bytes()
    if how in ("a deletion", "an appended file"):
        assert raw[gone.end :] == (b"behind" if how == "a deletion" else b"somebody's")
        assert how != "a deletion" or not any(raw[gone.offset : gone.end])
        assert how != "a deletion" or path.stat().st_blocks * 512 < blocks * 512 - MIB // 2
    else:
        assert len(raw) == size - MIB


@linux_holes
def test_the_space_of_an_interrupted_replacement_comes_back(path: Path) -> None:
    """The header tells of the new table, and the old one still of what was replaced."""
    with edited(path) as sif:
        old = sif.add(os.urandom(MIB), DataType.GENERIC)
        sif.add(b"behind", DataType.GENERIC)
    before = path.read_bytes()
    with edited(path) as sif:
        sif.replace(old.id, b"new")
        header, end = sif.header, sif.get(old.id).end
    after = path.read_bytes()
    shadow = -(-end // 4096) * 4096
    pointing = header._replace(descriptors_offset=shadow, data_size=shadow + 8 * 585 - header.data_offset)
    raw = before + after[len(before) :]
    path.write_bytes(pointing.pack() + raw[128:].ljust(shadow - 128, b"\0") + after[4096 : 4096 + 8 * 585])
    with edited(path) as sif:
        assert sif.read(old.id) == b"new"
    assert path.read_bytes() == after


@pytest.mark.parametrize("edit", ["update", "set_primary", "delete", "add", "replace"])
def test_what_belongs_to_nothing_goes_with_the_next_edit(path: Path, edit: str) -> None:
    """Whatever edit; opening alone leaves it."""
    with path.open("ab") as file:
        file.write(bytes(MIB) + b"somebody's")
    before = path.read_bytes()
    with edited(path) as sif:
        assert path.read_bytes() == before
        assert [notice.kind for notice in sif.warnings] == ["trailing-bytes"]
        match edit:
            case "update":
                sif.update(1, name=b"x")
            case "set_primary":
                sif.set_primary(4)
            case "delete":
                sif.delete(1)
            case "add":
                sif.add(b"x", DataType.GENERIC)
            case "replace":
                sif.replace(6, b"x")
        assert sif.file_size == max(descriptor.end for descriptor in sif)
        assert sif.warnings == ()
    assert_sound(path.read_bytes())


def test_zeroing_where_nothing_can_be_punched(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ext3 import hostio

    monkeypatch.setattr(hostio, "punch_hole", lambda fd, offset, size: False)
    with edited(path) as sif:
        places = [(d.offset, d.end) for d in (sif.get(2), sif.get(4))]
        sif.delete(2)
        assert b"root" in path.read_bytes()[slice(*places[0])]
        assert [notice.kind for notice in sif.warnings] == ["space-kept", "link"]
        sif.delete(4, zero=True)
        assert not any(path.read_bytes()[slice(*places[1])])
    assert_sound(path.read_bytes())


def test_gaps_are_zero(path: Path) -> None:
    """Bytes of deleted objects do not stay readable in the gap before a later one."""
    with edited(path) as sif:
        end = sif.get(6).end
    with path.open("ab") as file:
        file.write(b"secret" * 5000)
    with edited(path) as sif:
        assert [notice.kind for notice in sif.warnings] == ["trailing-bytes"]
        added = sif.add(b"x", DataType.PARTITION, metadata=partition(PartType.DATA))
        assert sif.warnings == ()
    raw = path.read_bytes()
    assert len(raw) == added.end
    assert not any(raw[end : added.offset])


def test_opening_a_sound_image_for_writing_writes_nothing(path: Path) -> None:
    before, times = path.read_bytes(), path.stat().st_mtime_ns
    with edited(path):
        pass
    assert path.read_bytes() == before and path.stat().st_mtime_ns == times


def test_records_of_others_are_kept_to_the_byte(path: Path) -> None:
    """Bits nobody knows survive what is done to other descriptors: a used byte of 2, bytes behind a name's NUL."""
    raw = bytearray(path.read_bytes())
    at = 4096 + 2 * 585
    raw[at + 4] = 2
    raw[at + 73 : at + 83] = b"a\0b\0c\0\0\0d\0"
    path.write_bytes(raw)
    record = bytes(raw[at : at + 585])
    with edited(path) as sif:
        sif.set_primary(4)
        sif.add(b"", DataType.GENERIC)
        sif.delete([1, 7])
        sif.replace(6, b"x")
    assert path.read_bytes()[at : at + 585] == record


def test_putting_right(path: Path) -> None:
    """Counters that are wrong are right after opening for writing; what a crash of another writer left is removed."""
    whole = path.read_bytes()
    for at, value in ((80, 99), (120, 1), (120, 1 << 40)):
        path.write_bytes(whole[:at] + value.to_bytes(8, "little") + whole[at + 8 :])
        with edited(path):
            pass
        assert path.read_bytes() == whole
    for at in (4096 + 6 * 585, 4096 + 7 * 585 + 584):
        path.write_bytes(whole[:at] + b"x" + whole[at + 1 :])
        with edited(path):
            pass
        assert path.read_bytes() == whole
    path.write_bytes(whole[:45] + b"04\0" + whole[48:])
    with edited(path):
        pass
    assert path.read_bytes() == whole


def test_a_table_among_the_data_stays_where_its_place_is_taken(path: Path) -> None:
    """Nobody writes such an image, and nothing in it may be lost."""
    whole = path.read_bytes()
    with SIF.open(path) as sif:
        header = sif.header._replace(descriptors_offset=len(whole), data_size=len(whole) + 8 * 585 - sif.header.data_offset)
        first = sif.get(1)._replace(offset=4096)
    table = first.pack() + whole[4096 + 585 : 4096 + 8 * 585]
    path.write_bytes(header.pack() + whole[128:] + table)
    with edited(path) as sif:
        assert sif.header.descriptors_offset == len(whole)
        before = sif.read(1)
        sif.update(1, name=b"moved nothing")
        sif.add(b"new", DataType.GENERIC)
        sif.delete([3, 4])
        assert sif.read(1) == before
        assert sif.header.descriptors_offset == len(whole)
    with SIF.open(path) as sif:
        assert sif.read(1) == before and sif.read(7) == b"new"
        assert sif.get(7).offset >= len(whole) + 8 * 585
