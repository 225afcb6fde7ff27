"""What a check finds: every recipe breaks one thing; what can be repaired is gone afterwards, and nothing else has changed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sifkit.sif import SIF, Arch, CorruptSIFError, DataType, FSType, NotWritableError, PartType
from sifkit.sif.checking import check, check_file
from sifkit.sif.finding import Finding, Problem
from sifkit.sif.format.descriptor import DESCRIPTOR_BYTES
from sifkit.sif.format.schema import DESCRIPTOR, GLOBAL_HEADER, PARTITION, PackedStruct
from sifkit.sif.repairing import repair
from sifkit.sif.sniff import HEAD_BYTES

from ....support.sif_images import STAMP, assert_sound, content, partition
from .test_sniff import SQUASHFS, ext

TABLE = 4096
EXTRA = DESCRIPTOR.offset_of("Extra")
Recipe = Callable[[bytearray], None]


def sound_image(path: Path) -> None:
    """1 deffile, 2 squashfs root, 3 ext3 overlay, 4 JSON linked to 2, 5 OCI blob; room for 8."""
    with SIF.create(path, capacity=8, stamp=STAMP, force=True) as sif:
        sif.add(b"Bootstrap: docker\n", DataType.DEFFILE, group=1)
        sif.add(SQUASHFS.ljust(5000, b"x"), DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
        overlay = partition(PartType.OVERLAY, FSType.EXT3)
        sif.add(ext().ljust(HEAD_BYTES, b"\0"), DataType.PARTITION, group=1, metadata=overlay)
        sif.add(b"{}", DataType.GENERIC_JSON, name=b"x.json", link=2)
        sif.add(b"blob", DataType.OCI_BLOB)


def set_field(layout: PackedStruct, start: int, **values: object) -> Recipe:
    def change(raw: bytearray) -> None:
        raw[start : start + layout.size] = layout.build({**layout.read(raw, start), **values})

    return change


def header(**values: object) -> Recipe:
    return set_field(GLOBAL_HEADER, 0, **values)


def slot(number: int, **values: object) -> Recipe:
    return set_field(DESCRIPTOR, TABLE + number * DESCRIPTOR_BYTES, **values)


def put(offset: int, data: bytes) -> Recipe:
    def change(raw: bytearray) -> None:
        raw[offset : offset + len(data)] = data

    return change


def append(data: bytes) -> Recipe:
    return lambda raw: raw.extend(data)


def cut(size: int) -> Recipe:
    def change(raw: bytearray) -> None:
        del raw[-size:]

    return change


def extra(number: int, layout: PackedStruct, **values: object) -> Recipe:
    return set_field(layout, TABLE + number * DESCRIPTOR_BYTES + EXTRA, **values)


DATA = TABLE + 8 * DESCRIPTOR_BYTES
REPAIRABLE: dict[str, tuple[Recipe, Problem]] = {
    "free descriptors": (header(DescriptorsFree=8), Problem.FREE_COUNT),
    "data size too small": (header(DataSize=10), Problem.DATA_SIZE),
    "data size too large": (header(DataSize=1 << 40), Problem.DATA_SIZE),
    "architecture": (header(Arch=b"04\0"), Problem.HEADER_ARCH),
    "start of an architecture's name": (extra(2, PARTITION, Arch=b"amd"), Problem.PARTITION_ARCH),
    "table size": (header(DescriptorsSize=8 * DESCRIPTOR_BYTES + 1), Problem.TABLE_SIZE),
    "unused descriptor": (slot(6, ID=7), Problem.UNUSED_SLOT),
    "bytes behind the header": (put(200, b"stale"), Problem.STALE_BYTES),
    "bytes before a partition": (put(12287, b"s"), Problem.STALE_BYTES),
    "bytes behind the image": (append(b"stale"), Problem.TRAILING_BYTES),
    "group without mask": (slot(0, GroupID=1), Problem.GROUP),
    "padding": (slot(1, SizeWithPadding=0), Problem.PADDING),
}
HOPELESS: dict[str, tuple[Recipe, Problem]] = {
    "magic": (header(Magic=b"SIF_MAGIX\0"), Problem.NOT_SIF),
    "version": (header(Version=b"02\0"), Problem.NOT_SIF),
    "count": (header(DescriptorsTotal=10**12), Problem.UNREADABLE),
    "negative count": (header(DescriptorsTotal=-1), Problem.UNREADABLE),
    "table behind the end": (header(DescriptorsOffset=1 << 40), Problem.TRUNCATED),
    "hidden descriptors": (header(DescriptorsTotal=4), Problem.TABLE_SIZE),
    "cut short": (cut(3), Problem.TRUNCATED),
    "negative offset": (slot(3, Offset=-5), Problem.BAD_PLACE),
    "negative size": (slot(3, Size=-5), Problem.BAD_PLACE),
    "overlap": (slot(3, Offset=DATA), Problem.OVERLAP),
    "over the table": (slot(3, Offset=5000), Problem.OVERLAP),
    "over the header": (slot(3, Offset=3), Problem.OVERLAP),
    "before the data": (slot(3, Offset=1000), Problem.OUTSIDE_DATA),
    "one id twice": (slot(3, ID=1), Problem.DUPLICATE_ID),
    "id 0": (slot(3, ID=0), Problem.ID_ZERO),
    "type": (slot(3, DataType=77), Problem.UNKNOWN_CODE),
    "partition type": (extra(1, PARTITION, FSType=1, PartType=9, Arch=b"02\0"), Problem.UNKNOWN_CODE),
    "partition architecture": (extra(2, PARTITION, FSType=2, PartType=4, Arch=b"99\0"), Problem.UNKNOWN_CODE),
    "two primaries": (extra(2, PARTITION, PartType=2), Problem.SEVERAL_PRIMARIES),
    "filesystem": (extra(1, PARTITION, FSType=2), Problem.FILESYSTEM),
    "ext4": (put(20480 + 1120, b"\x42"), Problem.FILESYSTEM),
    "no journal": (put(20480 + 1116, b"\0"), Problem.FILESYSTEM),
    "overlay group": (slot(2, GroupID=0xF0000002), Problem.OVERLAY_GROUP),
    "dangling link": (slot(3, LinkedID=9), Problem.LINK),
    "empty group": (slot(3, LinkedID=0xF0000009), Problem.LINK),
    "odd link": (slot(3, LinkedID=0x80000002), Problem.LINK),
    "no digest": (slot(4, Extra=b"md5:1"), Problem.NO_DIGEST),
    "wrong digest": (slot(4, Extra=b"sha256:" + b"0" * 64), Problem.DIGEST_MISMATCH),
    "used byte": (slot(3, Used=2), Problem.USED_BYTE),
    "launch script": (header(LaunchScript=b"x" * 32), Problem.LAUNCH_SCRIPT),
}


def broken(path: Path, recipe: Recipe) -> bytes:
    sound_image(path)
    raw = bytearray(path.read_bytes())
    recipe(raw)
    path.write_bytes(raw)
    return bytes(raw)


def found_in(path: Path) -> list[Finding]:
    return list(check_file(path, digests=True))


def test_a_sound_image_has_nothing(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    sound_image(path)
    assert found_in(path) == []
    with SIF.open(path) as sif:
        assert list(check(sif)) == []


@pytest.mark.parametrize("name", REPAIRABLE)
def test_repairable(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image.sif"
    sound_image(path)
    want = path.read_bytes()
    recipe, problem = REPAIRABLE[name]
    before = broken(path, recipe)
    findings = found_in(path)
    assert [finding.problem for finding in findings] == [problem]
    assert findings[0].repairable and "\n" not in findings[0].text
    assert path.read_bytes() == before
    assert repair(path, findings, cut_trailing=True) == findings
    assert found_in(path) == []
    assert path.read_bytes() == want
    assert_sound(want)
    assert repair(path, found_in(path)) == []


@pytest.mark.parametrize("name", HOPELESS)
def test_not_repairable(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image.sif"
    recipe, problem = HOPELESS[name]
    before = broken(path, recipe)
    findings = found_in(path)
    assert problem in {finding.problem for finding in findings}
    assert not any(finding.repairable for finding in findings if finding.problem is problem)
    repair(path, [finding for finding in findings if finding.problem is problem], cut_trailing=True)
    assert path.read_bytes() == before


def test_everything_at_once(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    sound_image(path)
    want = path.read_bytes()

    def all_of_it(raw: bytearray) -> None:
        for recipe, _ in REPAIRABLE.values():
            recipe(raw)

    broken(path, all_of_it)
    findings = found_in(path)
    assert {finding.problem for finding in findings} == {problem for _, problem in REPAIRABLE.values()}
    assert repair(path, findings, cut_trailing=True) == findings
    assert path.read_bytes() == want


def test_what_is_behind_the_image_stays_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    before = broken(path, append(b"somebody's"))
    assert repair(path, found_in(path)) == []
    assert path.read_bytes() == before


def test_a_second_writable_overlay_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    sound_image(path)
    with SIF.open(path, "r+", stamp=STAMP) as sif:
        overlay = partition(PartType.OVERLAY, FSType.EXT3)
        sif.add(ext().ljust(HEAD_BYTES, b"\0"), DataType.PARTITION, group=1, metadata=overlay)
    found = [(finding.problem, finding.severity, finding.id) for finding in found_in(path)]
    assert found == [(Problem.SEVERAL_OVERLAYS, "note", 6)]


def test_an_image_nobody_can_open_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"

    def two_things(raw: bytearray) -> None:
        slot(3, Offset=DATA)(raw)
        header(DescriptorsFree=8)(raw)

    before = broken(path, two_things)
    findings = found_in(path)
    assert {Problem.OVERLAP, Problem.FREE_COUNT} <= {finding.problem for finding in findings}
    assert repair(path, findings) == []
    with pytest.raises(CorruptSIFError):
        SIF.open(path)
    assert path.read_bytes() == before


def test_a_truncated_image_is_counted_right_but_not_completed(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"

    def two_things(raw: bytearray) -> None:
        cut(3)(raw)
        header(DescriptorsFree=8)(raw)

    broken(path, two_things)
    assert [finding.problem for finding in repair(path, found_in(path))] == [Problem.FREE_COUNT]
    assert [finding.problem for finding in found_in(path)] == [Problem.TRUNCATED]


def test_repair_of_an_open_image(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    broken(path, put(200, b"stale"))
    with SIF.open(path) as sif, pytest.raises(NotWritableError):
        repair(sif, list(check(sif)))
    with SIF.open(path, "r+") as sif:
        before = content(sif)
        assert len(repair(sif, list(check(sif)))) == 1
        assert content(sif) == before
        assert list(check(sif)) == []


def test_stale_bytes_beyond_a_large_hole_are_found(scratch: Path) -> None:
    """2 TiB of nothing between two objects take no time to look at."""
    path = scratch / "image.sif"
    sound_image(path)
    with SIF.open(path, "r+") as sif:
        added = sif.add(b"far", DataType.GENERIC)
    far = 1 << 41
    with path.open("r+b") as file:
        try:
            file.truncate(far + 3)
        except OSError:
            pytest.skip("no file so large here")
        file.seek(TABLE)
        table = bytearray(file.read(8 * DESCRIPTOR_BYTES))
        set_field(DESCRIPTOR, added.slot * DESCRIPTOR_BYTES, Offset=far)(table)
        file.seek(TABLE)
        file.write(table)
        file.seek(far)
        file.write(b"far")
    findings = found_in(path)
    assert {finding.problem for finding in findings} == {Problem.DATA_SIZE, Problem.STALE_BYTES}
    repair(path, findings)
    assert found_in(path) == []
    assert os.stat(path).st_blocks * 512 < 1 << 20


def test_an_interrupted_edit_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    sound_image(path)
    want = path.read_bytes()
    shadow = -(-len(want) // 4096) * 4096
    raw = bytearray(want.ljust(shadow, b"\0") + want[TABLE:DATA])
    header(DescriptorsOffset=shadow, DataSize=len(raw) - DATA)(raw)
    path.write_bytes(raw)
    findings = found_in(path)
    assert Problem.INTERRUPTED_EDIT in {finding.problem for finding in findings}
    repair(path, findings)
    assert path.read_bytes() == want


def test_a_file_object(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    raw = broken(path, put(200, b"stale"))
    with SIF.open(io.BytesIO(raw)) as sif:
        assert [finding.problem for finding in check(sif)] == [Problem.STALE_BYTES]


@pytest.mark.parametrize(
    ("of_header", "code", "meant"),
    [
        (b"04\0", b"arm", Arch.ARM64),
        (b"03\0", b"arm", Arch.ARM),
        (b"02\0", b"arm", None),
        (b"02\0", b"s39", Arch.S390X),
        (b"02\0", b"xyz", None),
    ],
)
def test_an_architecture_by_the_start_of_its_name(tmp_path: Path, of_header: bytes, code: bytes, meant: Arch | None) -> None:
    """As siftool 2.8's setprim writes it; the header's is right then, and no edit may lose it."""
    path = tmp_path / "image.sif"
    sound_image(path)
    raw = bytearray(path.read_bytes())
    header(Arch=of_header)(raw)
    extra(1, PARTITION, Arch=code)(raw)
    path.write_bytes(raw)
    with SIF.open(path, "r+") as sif:
        sif.update(1, name=b"changed")
        assert sif.header.pack()[45:48] == of_header
    repaired = repair(path, check_file(path))
    with SIF.open(path) as sif:
        assert sif.get(2).arch == (code if meant is None else meant)
        assert sif.header.arch == (meant or sif.header.arch)
    assert [finding.problem for finding in repaired] == ([] if meant is None else [Problem.PARTITION_ARCH])
    assert bool(list(check_file(path))) == (meant is None)
