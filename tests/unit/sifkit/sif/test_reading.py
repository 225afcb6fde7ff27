"""Reading images: what is there, what is wrong and harmless, and what is refused before it can hurt."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sifkit.errors import FormatError, SifkitError
from sifkit.sif import (
    SIF,
    AmbiguousObjectError,
    Arch,
    CorruptSIFError,
    CryptoMeta,
    DataType,
    Descriptor,
    FormatType,
    FSType,
    GlobalHeader,
    MessageType,
    NotSIFError,
    NotWritableError,
    ObjectNotFoundError,
    ObjectSizeError,
    OCIMeta,
    PartitionMeta,
    PartType,
    SBOMFormat,
    SBOMMeta,
    SignatureMeta,
    TruncatedError,
)
from sifkit.sif.format.descriptor import DESCRIPTOR_BYTES
from sifkit.sif.format.placement import MAX_CAPACITY

from ....support.sif_images import content, sample_image

TABLE = 4096
HUGE = (1 << 63) - 1


@pytest.fixture
def raw(tmp_path: Path) -> bytes:
    path = tmp_path / "sample.sif"
    sample_image(path)
    return path.read_bytes()


def with_header(raw: bytes, **fields: Any) -> bytes:
    return GlobalHeader.parse(raw[:128])._replace(**fields).pack() + raw[128:]


def with_descriptor(raw: bytes, slot: int, **fields: Any) -> bytes:
    at = TABLE + slot * DESCRIPTOR_BYTES
    old = Descriptor.parse(raw, at)
    assert old is not None
    return raw[:at] + old._replace(**fields).pack() + raw[at + DESCRIPTOR_BYTES :]


def opened(raw: bytes) -> SIF:
    return SIF.open(io.BytesIO(raw))


def kinds(sif: SIF) -> list[str]:
    return [notice.kind for notice in sif.warnings]


def test_what_is_in_an_image(raw: bytes) -> None:
    with opened(raw) as sif:
        assert len(sif) == 6
        assert sif.capacity == 8
        assert [descriptor.id for descriptor in sif] == [1, 2, 3, 4, 5, 6]
        assert sif.header.arch is Arch.AMD64
        assert sif.header.launch == b"#!/usr/bin/env run-singularity\n"
        assert sif.warnings == ()
        assert sif.get(3) is sif.by_name(b"inspect-metadata.json")
        assert sif.primary is sif.get(2)
        assert sif.overlays == (sif.get(5),)
        assert sif.select(data_type=DataType.PARTITION, group=1) == (sif.get(2), sif.get(4), sif.get(5))
        assert sif.select(link=2) == sif.select(group=0) == sif.select(name=b"last") == (sif.get(6),)
        assert sif.select(fs_type=FSType.EXT3) == sif.select(part_type=PartType.OVERLAY) == (sif.get(5),)
        assert sif.select(link_group=1) == ()
        assert len(sif.select(link=0, link_group=0)) == 5
        assert sif.get(2).type_text == "FS (Squashfs/*System/amd64)"
        assert sif.get(2).offset % 4096 == 0
        assert sif.read(3) == b"{}"
        assert sif.file_size == len(raw)


def test_looking_for_what_is_not_there(raw: bytes) -> None:
    with opened(raw) as sif:
        with pytest.raises(ObjectNotFoundError, match="ID 7") as caught:
            sif.get(7)
        assert "1, 2, 3" in caught.value.hint
        with pytest.raises(ObjectNotFoundError):
            sif.read(0)
        with pytest.raises(ObjectNotFoundError, match=r"named a\\x1b\\xff"):
            sif.by_name(b"a\x1b\xff")
        with pytest.raises(AmbiguousObjectError) as several:
            sif.by_name(b"")
        assert several.value.ids == (1, 4, 5)


def test_an_object_as_a_file(raw: bytes) -> None:
    with opened(raw) as sif, sif.open_object(2) as file:
        assert file.readable() and file.seekable() and not file.writable()
        assert file.read(8) == b"rootroot"
        assert file.seek(-4, os.SEEK_END) == 1196
        assert file.read() == b"root"
        assert file.read() == b""
        assert file.seek(5000) == file.tell() == 5000
        assert file.read() == b""
        assert file.seek(2) == 2
        assert file.seek(2, os.SEEK_CUR) == 4
        assert file.read() == b"root" * 299
        with pytest.raises(ValueError, match="before"):
            file.seek(-1)
        with pytest.raises(ValueError, match="seek from"):
            file.seek(0, 9)
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")
        assert io.BufferedReader(file).readline() == b""
        with pytest.raises(ValueError):
            file.read()  # the buffered reader is gone, and closed it


def test_after_close(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(raw)
    sif = SIF.open(path)
    file = sif.open_object(1)
    sif.close()
    sif.close()
    assert len(sif) == 6
    with pytest.raises(ValueError, match="closed"):
        sif.read(1)
    with pytest.raises(ValueError, match="closed"):
        sif.add(b"", DataType.GENERIC)
    with pytest.raises((OSError, ValueError)):
        file.read()


def test_an_image_inside_a_file(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "inside"
    path.write_bytes(b"x" * 777 + raw)
    with SIF.open(path, offset=777) as sif, opened(raw) as plain:
        assert content(sif) == content(plain)
        assert sif.offset == 777
    with path.open("rb") as file, SIF.open(file, offset=777) as sif:
        assert sif.read(3) == b"{}"
    with pytest.raises(SifkitError):
        SIF.open(path, offset=-1)
    with pytest.raises(NotSIFError):
        SIF.open(path, offset=1 << 40)


def test_a_limit_on_reading(raw: bytes) -> None:
    with opened(raw) as sif:
        with pytest.raises(ObjectSizeError) as caught:
            sif.read(2, limit=100)
        assert (caught.value.size_bytes, caught.value.limit_bytes) == (1200, 100)
        assert len(sif.read(2, limit=1200)) == len(sif.read(2, limit=None)) == 1200


def test_metadata_of_every_kind() -> None:
    digest = b"sha256:" + b"0a" * 32
    fingerprint = bytes(range(19)) + b"\0"
    for data_type, metadata, text in [
        (DataType.PARTITION, PartitionMeta(FSType.RAW, PartType.DATA, Arch.ARM), "FS (Raw/Data/arm)"),
        (DataType.PARTITION, PartitionMeta(99, -5, b"99\0"), "FS (Unknown (0x63)/Unknown (-0x5)/unknown)"),
        (DataType.SIGNATURE, SignatureMeta(9, fingerprint), "Signature (Unknown (0x9))"),
        (DataType.CRYPTO_MESSAGE, CryptoMeta(FormatType.PEM, MessageType.RSA_OAEP), "Cryptographic Message (PEM/RSA-OAEP)"),
        (DataType.SBOM, SBOMMeta(SBOMFormat.SPDX_JSON), "SBOM (spdx-json)"),
        (DataType.OCI_BLOB, OCIMeta(digest), "OCI.Blob"),
        (DataType.OCI_ROOT_INDEX, OCIMeta(b""), "OCI.RootIndex"),
    ]:
        extra = metadata.pack_onto(b"")
        assert len(extra) == 384
        descriptor = Descriptor(
            data_type=data_type, id=1, offset=0, size=0, size_with_padding=0, created=0, modified=0, extra=extra.rstrip(b"\0")
        )
        again = Descriptor.parse(descriptor.pack())
        assert again == descriptor
        assert again is not None and again.type_text == text
        if not isinstance(metadata, SignatureMeta):
            assert again.metadata == metadata
    signature = SignatureMeta.parse(SignatureMeta(HashType := 1, fingerprint).pack_onto(b""))
    assert signature.fingerprint == fingerprint and signature.hash_type == HashType
    assert SignatureMeta(1).fingerprint == b""
    assert OCIMeta(digest).valid
    assert not OCIMeta(digest[:-1]).valid and not OCIMeta(digest.upper()).valid and not OCIMeta(b"").valid


def test_bytes_behind_the_metadata_are_kept() -> None:
    extra = PartitionMeta(FSType.RAW, PartType.DATA, Arch.ARM).pack_onto(b"\xff" * 384)
    assert extra[11:] == b"\xff" * 373
    assert PartitionMeta.parse(extra) == PartitionMeta(FSType.RAW, PartType.DATA, Arch.ARM)


def test_a_name_may_fill_its_field(raw: bytes) -> None:
    with opened(with_descriptor(raw, 0, name=b"n" * 128)) as sif:
        assert sif.by_name(b"n" * 128).id == 1


def test_groups_and_links_as_the_reference_library_reads_them(raw: bytes) -> None:
    """The upper four bits of a group never count; those of a link only when all are set."""
    for group_id, group in [(0xF0000000, 0), (0xF0000003, 3), (3, 3), (0x50000002, 2)]:
        with opened(with_descriptor(raw, 0, group_id=group_id)) as sif:
            assert sif.get(1).group == group
            assert ("group" in kinds(sif)) == (group_id < 0xF0000000)
    for linked_id, link, link_group in [(0, 0, 0), (3, 3, 0), (0xF0000001, 0, 1), (0x80000001, 1, 0)]:
        with opened(with_descriptor(raw, 0, linked_id=linked_id)) as sif:
            assert (sif.get(1).link, sif.get(1).link_group) == (link, link_group)
            assert ("link" in kinds(sif)) == (linked_id == 0x80000001)


def test_version_1_images(raw: bytes) -> None:
    """Their data begins at 32768, whatever the table leaves; a gap behind the table is nothing to complain of."""
    with opened(raw) as plain:
        first = plain.get(2).offset
        header = plain.header
    moved = with_header(raw, data_offset=first, data_size=header.data_offset + header.data_size - first)
    at = TABLE
    moved = moved[:at] + bytes(DESCRIPTOR_BYTES) + moved[at + DESCRIPTOR_BYTES :]
    moved = with_header(moved, descriptors_free=3)
    with opened(moved) as sif:
        assert sif.warnings == ()
        assert sif.read(2) == b"root" * 300


HARMLESS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("free-count", lambda raw: with_header(raw, descriptors_free=8)),
    ("free-count", lambda raw: with_header(raw, descriptors_free=-HUGE)),
    ("data-size", lambda raw: with_header(raw, data_size=0)),
    ("data-size", lambda raw: with_header(raw, data_size=1 << 40)),
    ("table-size", lambda raw: with_header(raw, descriptors_size=8 * 585 + 1)),
    ("architecture", lambda raw: with_header(raw, arch=Arch.ARM)),
    ("architecture", lambda raw: with_header(raw, arch=b"zz\0")),
    ("unused-slot", lambda raw: raw[: TABLE + 7 * 585 + 100] + b"x" + raw[TABLE + 7 * 585 + 101 :]),
    ("outside-file", lambda raw: raw[:-1]),
    ("outside-file", lambda raw: with_descriptor(raw, 5, size=1 << 50)),
    ("trailing-bytes", lambda raw: raw + b"x"),
    ("duplicate-id", lambda raw: with_descriptor(raw, 5, id=1)),
    ("id-zero", lambda raw: with_descriptor(raw, 5, id=0)),
    ("several-primaries", lambda raw: with_descriptor(raw, 3, extra=b"\1\0\0\0\2\0\0\0" + b"04")),
    ("unknown-type", lambda raw: with_descriptor(raw, 5, data_type=0)),
    ("unknown-type", lambda raw: with_descriptor(raw, 5, data_type=-5)),
    ("padding", lambda raw: with_descriptor(raw, 5, size_with_padding=-1)),
    ("link", lambda raw: with_descriptor(raw, 5, linked_id=9)),
    ("link", lambda raw: with_descriptor(raw, 5, linked_id=0xF0000009)),
    ("digest", lambda raw: with_descriptor(raw, 5, data_type=DataType.OCI_BLOB, extra=b"sha256:no")),
    ("interrupted-edit", lambda raw: with_header(raw, descriptors_offset=len(raw)) + raw[TABLE : TABLE + 8 * 585]),
]


@pytest.mark.parametrize(("kind", "damage"), HARMLESS, ids=[f"{i}-{kind}" for i, (kind, _) in enumerate(HARMLESS)])
def test_what_is_wrong_and_harmless(raw: bytes, kind: str, damage: Callable[[bytes], bytes]) -> None:
    with opened(damage(raw)) as sif:
        assert len(sif) == 6
        assert kind in kinds(sif)
        assert all(notice.message and "\n" not in notice.message for notice in sif.warnings)


HARMFUL: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("DescriptorsTotal", lambda raw: with_header(raw, descriptors_total=-1)),
    ("DescriptorsTotal", lambda raw: with_header(raw, descriptors_total=10**12)),
    ("DescriptorsTotal", lambda raw: with_header(raw, descriptors_total=MAX_CAPACITY + 1)),
    ("DescriptorsOffset", lambda raw: with_header(raw, descriptors_offset=-1)),
    ("DescriptorsOffset", lambda raw: with_header(raw, descriptors_offset=0)),
    ("DescriptorsOffset", lambda raw: with_header(raw, descriptors_offset=HUGE)),
    ("DescriptorsSize", lambda raw: with_header(raw, descriptors_size=8 * 585 - 1)),
    ("DescriptorsSize", lambda raw: with_header(raw, descriptors_size=-1)),
    ("DescriptorsSize", lambda raw: with_header(raw, descriptors_size=HUGE)),
    ("DataOffset", lambda raw: with_header(raw, data_offset=-1)),
    ("DataOffset", lambda raw: with_header(raw, data_offset=0)),
    ("DataOffset", lambda raw: with_header(raw, data_offset=TABLE + 8 * 585 - 1)),
    ("DataSize", lambda raw: with_header(raw, data_size=-1)),
    ("DataSize", lambda raw: with_header(raw, data_size=HUGE)),
    ("descriptor table", lambda raw: raw[: TABLE + 8 * 585 - 1]),
    ("descriptor table", lambda raw: raw[:128]),
    ("length", lambda raw: raw[:127]),
    ("object 6: Offset", lambda raw: with_descriptor(raw, 5, offset=-1)),
    ("object 6: Offset", lambda raw: with_descriptor(raw, 5, offset=HUGE)),
    ("object 6: Offset", lambda raw: with_descriptor(raw, 5, offset=0)),
    ("object 6: Offset", lambda raw: with_descriptor(raw, 5, offset=TABLE + 8 * 585 - 1)),
    ("object 6: Size", lambda raw: with_descriptor(raw, 5, size=-1)),
    ("object 6: Offset", lambda raw: with_descriptor(raw, 5, size=HUGE)),
    ("after object 1", lambda raw: with_descriptor(raw, 5, offset=TABLE + 8 * 585)),
]


@pytest.mark.parametrize(("says", "damage"), HARMFUL, ids=[f"{i}-{says}" for i, (says, _) in enumerate(HARMFUL)])
def test_what_is_refused(raw: bytes, tmp_path: Path, says: str, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "bad.sif"
    path.write_bytes(damage(raw))
    for mode in ("r", "r+"):
        with pytest.raises((CorruptSIFError, TruncatedError), match=says) as caught:
            SIF.open(path, mode)  # type: ignore[arg-type]
        assert isinstance(caught.value, FormatError)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
        assert caught.value.hint
    assert path.read_bytes() == damage(raw)


@pytest.mark.parametrize(
    "head",
    [b"", b"x", bytes(128), b"#!/bin/sh\n" * 20, b"SIF_MAGIC\0" + bytes(200), bytes(33) + b"SIF_MAGIC\0" + bytes(200)],
)
def test_what_is_no_image(head: bytes) -> None:
    with pytest.raises(NotSIFError):
        opened(head)


def test_another_version(raw: bytes) -> None:
    with pytest.raises(NotSIFError, match="'02'"):
        opened(raw[:42] + b"02\0" + raw[45:])


def test_objects_outside_the_file_are_listed_and_not_read(raw: bytes) -> None:
    """A download that was cut short."""
    with opened(raw[:-10]) as sif:
        assert len(sif) == 6
        assert sif.read(5) == b"over" * 500
        for read in (lambda: sif.read(6), lambda: sif.open_object(6), lambda: sif.extract(6, io.BytesIO())):
            with pytest.raises(TruncatedError, match="object 6"):
                read()
    with opened(with_descriptor(raw, 5, size=0, offset=1 << 40)) as sif:
        assert sif.read(6) == b""


@pytest.mark.slow
def test_hostile_tables_take_little_memory(tmp_path: Path) -> None:
    """The largest table there may be, full of descriptors whose every byte counts; and one larger by one."""
    path = tmp_path / "large.sif"
    record = Descriptor(
        data_type=DataType.PARTITION,
        id=1,
        offset=HUGE,
        size=0,
        size_with_padding=0,
        created=HUGE,
        modified=HUGE,
        name=b"\xff" * 128,
        extra=b"\xff" * 384,
    ).pack()
    header = GlobalHeader.parse(_empty_header())
    table = MAX_CAPACITY * DESCRIPTOR_BYTES
    header = header._replace(descriptors_total=MAX_CAPACITY, descriptors_size=table, data_offset=4096 + table)
    with path.open("wb") as file:
        file.write(header.pack())
        file.seek(4096)
        file.write(record * MAX_CAPACITY)
    tracemalloc.start()
    try:
        with SIF.open(path) as sif:
            assert len(sif) == MAX_CAPACITY
            assert len(sif.warnings) <= 101
        with pytest.raises(AmbiguousObjectError) as caught:
            sif.get(1)
        assert len(str(caught.value)) < 200
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def _empty_header() -> bytes:
    return b"".join(
        [
            *[bytes(32), b"SIF_MAGIC\0", b"01\0", b"00\0", bytes(16), bytes(16)],
            *(number.to_bytes(8, "little") for number in (48, 48, 4096, 28080, 32176, 0)),
        ]
    )


def test_files_that_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SIF.open(tmp_path / "missing")
    for mode in ("r", "r+"):
        with pytest.raises(FormatError, match="directory"):
            SIF.open(tmp_path, mode)  # type: ignore[arg-type]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(FormatError, match="a pipe"):
            SIF.open(tmp_path / "fifo")


def test_editing_needs_to_be_asked_for(raw: bytes) -> None:
    with opened(raw) as sif:
        for edit in (
            lambda: sif.add(b"", DataType.GENERIC),
            lambda: sif.delete(1),
            lambda: sif.set_primary(4),
            lambda: sif.update(1, name=b"x"),
            lambda: sif.replace(1, b"x"),
        ):
            with pytest.raises(NotWritableError, match="read-only"):
                edit()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions are of POSIX")
def test_no_permission_to_write(raw: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.sif").write_bytes(raw)
    (tmp_path / "x.sif").chmod(0o444)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        with pytest.raises(NotWritableError, match="cannot write to") as caught:
            SIF.open("x.sif", "r+")
        with SIF.open("x.sif") as sif:
            assert len(sif) == 6
    finally:
        os.seteuid(user)
    assert caught.value.hint
