"""siftool, the reference library's tool, reads what we write and we read what it writes, fact for fact; what we leave after a
crash does no harm in its hands."""

from __future__ import annotations

import io
import os
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sifkit.sif import (
    SIF,
    YEAR_ONE,
    Arch,
    CryptoMeta,
    DataType,
    Descriptor,
    FormatType,
    FSType,
    HashType,
    MessageType,
    PartitionMeta,
    PartType,
    SBOMFormat,
    SBOMMeta,
    SignatureMeta,
    Stamp,
    describe,
)
from sifkit.sif.format.descriptor import DESCRIPTOR_BYTES

from ..support.sif_edits import EDITS, PREPARE, content_of, record, recovered
from ..support.sif_images import LATER, STAMP, assert_sound, content, partition, sample_image
from ..support.sif_recorder import crashes
from ..support.tools import require, run

FINGERPRINT = "433FE984155206BD962725E20E8713472A879943"
OCI = (DataType.OCI_ROOT_INDEX, DataType.OCI_BLOB)
NEWER_ARCHS = (Arch.LOONG64,)
"""Not known to every siftool: it shows them as unknown."""


@pytest.fixture(autouse=True)
def _siftool() -> None:
    require("siftool")


def siftool(*arguments: object, ok: tuple[int, ...] = (0,)) -> bytes:
    return run("siftool", *map(str, arguments), ok=ok).stdout


def knows_oci() -> bool:
    """Whether this siftool knows the types of OCI-SIF (2.8 does not)."""
    return b"OCI" in siftool("add", "--help")


def listing(path: Path) -> list[tuple[str, ...]]:
    """The rows of ``siftool list``: id, group, link, place, type."""
    rows = siftool("list", path).decode().splitlines()[3:]
    return [tuple(" ".join(column.split()) for column in row.split("|", 4)) for row in rows]


def our_listing(path: Path, *, oci: bool = True) -> list[tuple[str, ...]]:
    def row(found: Descriptor) -> tuple[str, ...]:
        link = f"{found.link_group} (G)" if found.link_group else str(found.link or "NONE")
        text = "Unknown" if found.data_type in OCI and not oci else found.type_text
        return (str(found.id), str(found.group or "NONE"), link, f"{found.offset}-{found.end}", text)

    with SIF.open(path) as sif:
        return [row(found) for found in sif]


def fields(output: bytes) -> dict[str, str]:
    lines = (line.strip().partition(":") for line in output.decode().splitlines())
    return {name: value.strip() for name, _, value in lines}


def times(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")


def assert_same_facts(path: Path) -> None:
    """Header, listing, every object's facts and bytes, as siftool and as we see them."""
    oci = knows_oci()
    assert listing(path) == our_listing(path, oci=oci)
    with SIF.open(path) as sif:
        header, shown = sif.header, fields(siftool("header", path))
        assert shown.get("Launch Script", "") == header.launch.decode().strip()
        assert shown.get("ID", str(uuid.UUID(int=0))) == str(header.id)
        assert shown.get("Created At", times_of_none(header.created)) == times(header.created)
        assert shown["Descriptors Free"] == str(header.descriptors_free)
        assert shown["Descriptors Total"] == str(header.descriptors_total)
        assert shown["Data Offset"] == str(header.data_offset)
        if isinstance(header.arch, Arch) and header.arch not in (Arch.UNKNOWN, *NEWER_ARCHS):
            assert shown["Primary Architecture"] == describe(header.arch)
        for found in sif:
            assert siftool("dump", found.id, path) == sif.read(found.id)
            shown = fields(siftool("info", found.id, path))
            assert shown["Offset"] == str(found.offset)
            assert shown["Size"] == str(found.size)
            assert shown.get("Name", "") == found.name.decode()
            assert shown.get("Created At", times_of_none(found.created)) == times(found.created)
            assert shown.get("Modified At", times_of_none(found.modified)) == times(found.modified)
            assert_same_metadata(found, shown)


def times_of_none(seconds: int) -> str:
    return times(seconds) if seconds == YEAR_ONE else "not shown"


def assert_same_metadata(found: Descriptor, shown: dict[str, str]) -> None:
    metadata = found.metadata
    if isinstance(metadata, PartitionMeta):
        assert shown["Filesystem Type"] == describe(metadata.fs_type)
        assert shown["Partition Type"] == describe(metadata.part_type)
        if metadata.arch not in NEWER_ARCHS:
            assert shown["Architecture"] == (describe(metadata.arch) if isinstance(metadata.arch, Arch) else "unknown")
    elif isinstance(metadata, SignatureMeta):
        assert shown["Hash Type"] == describe(metadata.hash_type)
        assert shown.get("Entity", "") == metadata.fingerprint.hex().upper()
    elif isinstance(metadata, CryptoMeta):
        assert shown["Format Type"] == describe(metadata.format_type)
        assert shown["Message Type"] == describe(metadata.message_type)
    elif isinstance(metadata, SBOMMeta):
        assert shown["Format"] == describe(metadata.sbom_format)


def every_kind() -> list[tuple[DataType, Any]]:
    """Every data type with every code of its metadata."""
    parts = [PartType.SYSTEM, PartType.DATA]
    kinds: list[tuple[DataType, Any]] = [(t, None) for t in DataType if t.number not in (4, 5, 8, 9) and t not in OCI]
    kinds += [(DataType.PARTITION, PartitionMeta(fs, part, Arch.AMD64)) for fs in list(FSType)[:5] for part in parts]
    kinds += [(DataType.PARTITION, partition(PartType.OVERLAY, FSType.EXT3))]
    kinds += [(DataType.PARTITION, partition(PartType.SYSTEM, arch=arch)) for arch in Arch.choices() if arch not in NEWER_ARCHS]
    kinds += [(DataType.SIGNATURE, SignatureMeta(hash_type, bytes.fromhex(FINGERPRINT))) for hash_type in HashType]
    kinds += [(DataType.SBOM, SBOMMeta(sbom)) for sbom in SBOMFormat]
    return kinds


def test_siftool_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "ours.sif"
    with SIF.create(path, stamp=STAMP, launch=b"#!/usr/bin/env run-singularity\n", capacity=100) as sif:
        for number, (data_type, metadata) in enumerate(every_kind()):
            group = number % 3 * 0x7FFFFFF
            sif.add(os.urandom(number * 10), data_type, group=group, name=b"object %d" % number, metadata=metadata)
        for format_type in FormatType:
            for message_type in MessageType:
                sif.add(b"message", DataType.CRYPTO_MESSAGE, link=1, metadata=CryptoMeta(format_type, message_type))
        for data_type in OCI:
            sif.add(b"{}", data_type, link_group=0x7FFFFFF)
        sif.add(b"root", DataType.PARTITION, metadata=partition(PartType.PRIMARY_SYSTEM, arch=Arch.RISCV64), name=b"n" * 128)
        sif.add(b"", DataType.GENERIC, alignment=4096)
    assert_same_facts(path)


def test_we_read_what_siftool_writes(tmp_path: Path) -> None:
    path, payload = tmp_path / "theirs.sif", tmp_path / "payload"
    siftool("new", path)
    assert_same_facts(path)
    kinds = every_kind()
    kinds.insert(3, (DataType.PARTITION, partition(PartType.PRIMARY_SYSTEM, arch=Arch.S390X)))
    if knows_oci():
        kinds += [(data_type, None) for data_type in OCI]
    for number, (data_type, metadata) in enumerate(kinds):
        if number and number % 40 == 0:
            check_theirs(path)
            siftool("new", path)
        payload.write_bytes(os.urandom(number * 7))
        options = ["--datatype", data_type.number, "--groupid", number % 3, "--filename", f"object {number}"]
        if isinstance(metadata, PartitionMeta):
            options += ["--partfs", int(metadata.fs_type), "--parttype", int(metadata.part_type)]
            options += ["--partarch", metadata.arch.number if isinstance(metadata.arch, Arch) else 0]
        elif isinstance(metadata, SignatureMeta):
            options += ["--signhash", int(metadata.hash_type), "--signentity", metadata.entity.hex()]
        elif isinstance(metadata, SBOMMeta):
            options += ["--sbomformat", describe(metadata.sbom_format)]
        if number == 5:
            options += ["--link", 1, "--alignment", 8192]
        siftool("add", path, payload, *options)
        with SIF.open(path) as sif:
            found = sif.descriptors[-1]
            assert sif.read(found.id) == payload.read_bytes()
            assert (found.data_type, found.group, found.name.decode()) == (data_type, number % 3, f"object {number}")
            if not isinstance(metadata, SignatureMeta):
                assert found.metadata == metadata or data_type in OCI
            if number == 5:
                assert found.link == 1 and found.offset % 8192 == 0
    check_theirs(path)


def check_theirs(path: Path) -> None:
    assert_same_facts(path)
    assert_sound(path.read_bytes())
    with SIF.open(path) as sif:
        assert {notice.kind for notice in sif.warnings} <= {"digest"}
    before = path.read_bytes()
    with SIF.open(path, "r+"):
        pass
    assert path.read_bytes() == before, "opening a sound image for writing writes nothing"


def test_the_same_bytes(tmp_path: Path) -> None:
    """The same objects, added by siftool and by us, make the same file but for identity and times."""
    theirs, ours = tmp_path / "theirs.sif", tmp_path / "ours.sif"
    (tmp_path / "a").write_bytes(b"Bootstrap: docker\nFrom: alpine\n")
    (tmp_path / "b").write_bytes(b"p" * 100)
    siftool("new", theirs)
    siftool("add", theirs, tmp_path / "a", "--datatype", 1)
    root = ["--parttype", 2, "--partfs", 1, "--partarch", 2, "--groupid", 1, "--filename", "rootfs"]
    siftool("add", theirs, tmp_path / "b", "--datatype", 4, *root)
    siftool("add", theirs, tmp_path / "a", "--datatype", 9, "--sbomformat", "spdx-rdf", "--link", 2)
    signed = ["--signhash", 2, "--signentity", FINGERPRINT, "--alignment", 512]
    siftool("add", theirs, tmp_path / "a", "--datatype", 5, *signed)
    with SIF.create(ours, stamp=Stamp.deterministic()) as sif:
        sif.add(tmp_path / "a", DataType.DEFFILE)
        sif.add(tmp_path / "b", DataType.PARTITION, group=1, name=b"rootfs", metadata=partition(PartType.PRIMARY_SYSTEM))
        sif.add(tmp_path / "a", DataType.SBOM, link=2, metadata=SBOMMeta(SBOMFormat.SPDX_RDF))
        metadata = SignatureMeta(HashType.SHA384, bytes.fromhex(FINGERPRINT))
        sif.add(tmp_path / "a", DataType.SIGNATURE, alignment=512, metadata=metadata)
    assert timeless(theirs) == ours.read_bytes()


def timeless(path: Path) -> bytes:
    """The image without identity and times, as deterministic ones are."""
    raw = path.read_bytes()
    with SIF.open(path) as sif:
        header = sif.header._replace(id_bytes=bytes(16), created=YEAR_ONE, modified=YEAR_ONE)
        table = bytearray(raw[4096 : 4096 + sif.header.descriptors_size])
        for found in sif:
            record = found._replace(created=YEAR_ONE, modified=YEAR_ONE).pack()
            table[found.slot * DESCRIPTOR_BYTES : (found.slot + 1) * DESCRIPTOR_BYTES] = record
    return header.pack() + raw[128:4096] + table + raw[4096 + len(table) :]


def test_edits_in_turn(tmp_path: Path) -> None:
    """siftool and we take turns with one image, and both know what is in it."""
    path, payload = tmp_path / "image.sif", tmp_path / "payload"
    sample_image(path, capacity=20)
    payload.write_bytes(b"theirs" * 100)
    siftool("del", 6, path)
    siftool("del", 3, path)
    with SIF.open(path) as sif:
        assert {notice.kind for notice in sif.warnings} == {"data-size", "trailing-bytes"}
    with SIF.open(path, "r+") as sif:
        assert {notice.kind for notice in sif.warnings} == {"trailing-bytes"}
        ours = sif.add(b"ours", DataType.GENERIC, name=b"ours")
        assert sif.warnings == ()
    siftool("add", path, payload, "--datatype", 7, "--filename", "theirs")
    siftool("setprim", 4, path)
    with SIF.open(path, "r+", stamp=LATER) as sif:
        assert sif.read(ours.id) == b"ours"
        assert sif.read(sif.by_name(b"theirs").id) == payload.read_bytes()
        # siftool 2.8 writes the architecture's name where its code belongs; the reference library reads that as unknown.
        assert sif.primary is sif.get(4) and sif.header.arch in (Arch.ARM64, b"arm")
        sif.set_primary(2)
        sif.replace(5, b"new overlay")
        sif.delete([1, ours.id])
    assert_same_facts(path)
    siftool("add", path, payload, "--datatype", 7)
    assert_sound(path.read_bytes())
    assert_same_facts(path)


@pytest.mark.parametrize("name", EDITS)
def test_after_a_crash(tmp_path: Path, name: str) -> None:
    """siftool lists what a crash left as we do; after our next opening for writing it may add to it, and nothing is lost."""
    path, payload = tmp_path / "image.sif", tmp_path / "payload"
    payload.write_bytes(b"theirs" * 1000)
    sample_image(path, capacity=10)
    if name in PREPARE:
        record(path, PREPARE[name])
    before = path.read_bytes()
    ops, _ = record(path, EDITS[name])
    states = list(crashes(before, ops))
    oci = knows_oci()
    for what, raw in states[:: max(1, len(states) // 12)]:
        path.write_bytes(raw)
        assert listing(path) == our_listing(path, oci=oci), what
        path.write_bytes(recovered(raw))
        siftool("add", path, payload, "--datatype", 7, "--filename", "theirs")
        with SIF.open(path) as sif, SIF.open(io.BytesIO(raw)) as old:
            added = sif.by_name(b"theirs")
            assert sif.read(added.id) == payload.read_bytes(), what
            assert content(sif)[1:] != [] and [pair for pair in content(sif) if pair[0] != added] == content_of(raw), what
            assert len(sif) == len(old) + 1
        assert listing(path) == our_listing(path, oci=oci), what
        assert_sound(path.read_bytes())


def test_the_counters_keep_a_trusting_writer_away(tmp_path: Path) -> None:
    """siftool 2.8 adds behind the header's data size: at every stage of our adding, that is behind what is there."""
    path, payload = tmp_path / "image.sif", tmp_path / "payload"
    payload.write_bytes(b"theirs" * 1000)
    sample_image(path, capacity=10)
    before = path.read_bytes()
    ops, _ = record(path, EDITS["add a partition"])
    for what, raw in crashes(before, ops):
        path.write_bytes(raw)
        found = content_of(raw)
        siftool("add", path, payload, "--datatype", 7, "--filename", "theirs", ok=(0, 1))
        with SIF.open(path) as sif:
            assert [pair for pair in content(sif) if getattr(pair[0], "name", b"") != b"theirs"] == found, what


def test_versions_say_the_same(tmp_path: Path) -> None:
    """The format's version, as siftool shows it."""
    siftool("new", tmp_path / "x.sif")
    assert re.search(rb"Version:\s+01\b", siftool("header", tmp_path / "x.sif"))
