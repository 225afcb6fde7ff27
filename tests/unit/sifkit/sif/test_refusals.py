"""Refused edits: one line says why, and the file is as it was."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from sifkit.errors import ImageInUseError
from sifkit.sif import (
    SIF,
    Arch,
    Change,
    DataType,
    EditError,
    FSType,
    HashType,
    ImageFullError,
    NotSIFError,
    NotWritableError,
    ObjectNotFoundError,
    OCIMeta,
    PartitionMeta,
    PartType,
    SBOMFormat,
    SBOMMeta,
    SIFError,
    SignatureMeta,
    TruncatedError,
)

from ....support.platforms import linux_locks
from ....support.sif_images import LATER, assert_sound, edited, partition

MIB = 1 << 20
STRANGE = PartitionMeta(99, PartType.DATA, Arch.ARM)
REFUSED: list[tuple[type[SIFError], str, Callable[[SIF], object]]] = [
    (EditError, "the maximum is 128", lambda sif: sif.add(b"x", DataType.GENERIC, name=b"n" * 129)),
    (EditError, "NUL", lambda sif: sif.add(b"x", DataType.GENERIC, name=b"a\0b")),
    (EditError, "group", lambda sif: sif.add(b"x", DataType.GENERIC, group=0x10000000)),
    (EditError, "group", lambda sif: sif.add(b"x", DataType.GENERIC, group=-1)),
    (EditError, "link", lambda sif: sif.add(b"x", DataType.GENERIC, link=0xF0000001)),
    (EditError, "link", lambda sif: sif.add(b"x", DataType.GENERIC, link_group=-1)),
    (EditError, "not to both", lambda sif: sif.add(b"x", DataType.GENERIC, link=1, link_group=1)),
    (ObjectNotFoundError, "object 9: no such", lambda sif: sif.add(b"x", DataType.GENERIC, link=9)),
    (ObjectNotFoundError, "group 9", lambda sif: sif.add(b"x", DataType.GENERIC, link_group=9)),
    (EditError, "alignment", lambda sif: sif.add(b"x", DataType.GENERIC, alignment=1 << 40)),
    (EditError, "time", lambda sif: sif.add(b"x", DataType.GENERIC, created=1 << 63)),
    (EditError, "not a data type", lambda sif: sif.add(b"x", 0x4004)),  # type: ignore[arg-type]
    (EditError, "metadata", lambda sif: sif.add(b"x", DataType.PARTITION)),
    (EditError, "metadata", lambda sif: sif.add(b"x", DataType.SIGNATURE)),
    (EditError, "metadata", lambda sif: sif.add(b"x", DataType.SBOM)),
    (EditError, "is not for", lambda sif: sif.add(b"x", DataType.SBOM, metadata=partition(PartType.DATA))),
    (EditError, "is not for", lambda sif: sif.add(b"x", DataType.GENERIC, metadata=partition(PartType.DATA))),
    (EditError, "raw metadata", lambda sif: sif.add(b"x", DataType.PARTITION, metadata=b"raw")),
    (EditError, "raw metadata", lambda sif: sif.add(b"x", DataType.GENERIC, metadata=bytes(385))),
    (EditError, "not the last", lambda sif: sif.resize_object(5, 10)),
    (EditError, "0 bytes", lambda sif: sif.resize_object(6, 0)),
    (EditError, "maximum size", lambda sif: sif.resize_object(6, 1 << 63)),
    (ObjectNotFoundError, "9", lambda sif: sif.resize_object(9, 10)),
    (EditError, "architecture", lambda sif: sif.add(b"x", DataType.PARTITION, metadata=partition(PartType.DATA, arch=Arch(0)))),
    (
        EditError,
        "unknown fs type",
        lambda sif: sif.add(b"x", DataType.PARTITION, metadata=PartitionMeta(99, PartType.DATA, Arch.ARM)),
    ),
    (EditError, "unknown part type", lambda sif: sif.update(2, metadata=PartitionMeta(FSType.RAW, 99, Arch.ARM))),
    (EditError, "not raw", lambda sif: sif.update(5, metadata=partition(PartType.OVERLAY, FSType.RAW))),
    (EditError, "unknown hash type", lambda sif: sif.add(b"x", DataType.SIGNATURE, metadata=SignatureMeta(9))),
    (EditError, "20 bytes", lambda sif: sif.add(b"x", DataType.SIGNATURE, metadata=SignatureMeta(HashType.SHA256, b"short"))),
    (EditError, "digest", lambda sif: sif.add(b"x", DataType.OCI_BLOB, metadata=OCIMeta(b"md5:0"))),
    (EditError, "primary", lambda sif: sif.add(b"x", DataType.PARTITION, metadata=partition(PartType.PRIMARY_SYSTEM))),
    (EditError, "primary", lambda sif: sif.update(4, metadata=partition(PartType.PRIMARY_SYSTEM))),
    (ObjectNotFoundError, "ID 9", lambda sif: sif.update_all({1: Change(name=b"x"), 9: Change(name=b"y")})),
    (EditError, "the maximum is 128", lambda sif: sif.update_all({1: Change(name=b"x"), 2: Change(name=b"y" * 129)})),
    (ObjectNotFoundError, "ID 9", lambda sif: sif.replace(9, b"x")),
    (EditError, "is not for", lambda sif: sif.replace(2, b"x", metadata=SBOMMeta(SBOMFormat.SPDX_JSON))),
    (EditError, "reserved", lambda sif: sif.reserve(0, partition(PartType.DATA)).__enter__()),
    (EditError, "maximum size of a file", lambda sif: sif.reserve(1 << 63, partition(PartType.DATA)).__enter__()),
    (SIFError, "too large", lambda sif: sif.reserve((1 << 63) - (1 << 20), partition(PartType.DATA)).__enter__()),
    (SIFError, "missing: No such", lambda sif: sif.add("missing", DataType.GENERIC)),
    (SIFError, "directory", lambda sif: sif.add(".", DataType.GENERIC)),
    (SIFError, "endless", lambda sif: sif.add("/dev/zero", DataType.GENERIC)),
    (SIFError, "descriptor 9999", lambda sif: sif.add(9999, DataType.GENERIC)),
]


@pytest.mark.parametrize(("error", "says", "edit"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused_leaves_the_file_as_it_was(
    path: Path, error: type[SIFError], says: str, edit: Callable[[SIF], object]
) -> None:
    before, times = path.read_bytes(), path.stat().st_mtime_ns
    with edited(path) as sif:
        with pytest.raises(error, match=says) as caught:
            edit(sif)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        if error is not SIFError:
            assert path.stat().st_mtime_ns == times, "refused before anything is written"
        sif.add(b"works", DataType.GENERIC)


def test_a_full_table(path: Path) -> None:
    with edited(path) as sif:
        for _ in range(2):
            sif.add(b"x", DataType.GENERIC)
        before = path.read_bytes()
        with pytest.raises(ImageFullError, match="8 of 8") as caught:
            sif.add(b"x", DataType.GENERIC)
        assert caught.value.hint == f"raise the capacity with: sifkit sif compact {path} --capacity 48"
        assert path.read_bytes() == before


def test_an_image_that_is_cut_short_is_not_added_to(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with edited(path) as sif:
        before = path.read_bytes()
        for edit in (
            lambda: sif.add(b"x", DataType.GENERIC),
            lambda: sif.replace(1, b"x"),
            lambda: sif.update(1, name=b"x"),
            lambda: sif.set_primary(4),
        ):
            with pytest.raises(TruncatedError):
                edit()
        assert path.read_bytes() == before
        sif.delete([6, 1])
        sif.add(b"x", DataType.GENERIC)
    assert_sound(path.read_bytes())


def test_an_object_without_bytes_far_behind_the_end(path: Path) -> None:
    """No second table goes there: what needs one is refused, and several objects are deleted one by one."""
    with edited(path) as sif:
        empty = sif.add(b"", DataType.GENERIC)
    raw = bytearray(path.read_bytes())
    at = 4096 + empty.slot * 585 + 17
    raw[at : at + 8] = (1 << 41).to_bytes(8, "little")
    file = io.BytesIO(raw)
    with SIF.open(file, "r+", stamp=LATER) as sif:
        with pytest.raises(TruncatedError, match="far beyond"):
            sif.update(1, name=b"x")
        sif.delete([1, 3])
        assert [descriptor.id for descriptor in sif] == [2, 4, 5, 6, 7]
        sif.delete([2, 7])
        sif.update(4, name=b"x")
    assert len(file.getvalue()) <= len(raw)
    assert_sound(file.getvalue())


@linux_locks
def test_two_writers(path: Path) -> None:
    with edited(path) as sif:
        assert sif.locked
        with pytest.raises(ImageInUseError):
            edited(path)
        with SIF.open(path) as reader:
            assert len(reader) == 6
        with pytest.raises(ImageInUseError):
            SIF.create(path, force=True)
    with edited(path) as sif:
        assert sif.locked


@linux_locks
def test_a_partition_a_container_writes_to_is_not_taken_away(path: Path) -> None:
    from sifkit.file_locks import lock_range

    with edited(path) as sif, path.open("r+b") as container:
        overlay = sif.get(5)
        assert lock_range(container.fileno(), write=True, offset=overlay.offset, size=overlay.size)
        for edit in (lambda: sif.delete([1, 5]), lambda: sif.replace(5, b"x")):
            with pytest.raises(ImageInUseError, match="object 5"):
                edit()
        sif.delete(1)
        sif.add(b"", DataType.GENERIC)


def test_a_filesystem_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sifkit.sif import loading as opening

    monkeypatch.setattr(opening, "lock_range", lambda *_, **__: False)
    with edited(path) as sif:
        assert not sif.locked
        assert [notice.kind for notice in sif.warnings] == ["no-locks"]
        sif.add(b"", DataType.GENERIC)
        assert [notice.kind for notice in sif.warnings] == ["no-locks"]


def test_what_is_no_image_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"text" * 100)
    with pytest.raises(NotSIFError):
        SIF.open(path, "r+")
    assert path.read_bytes() == b"text" * 100


def test_file_objects_that_cannot_be_edited(path: Path) -> None:
    for mode in ("rb", "ab", "a+b"):
        with path.open(mode) as file, pytest.raises(NotWritableError, match="reading and writing"):
            SIF.open(file, "r+")
    with path.open("r+b") as file, SIF.open(file, "r+") as sif:
        sif.add(b"", DataType.GENERIC)
