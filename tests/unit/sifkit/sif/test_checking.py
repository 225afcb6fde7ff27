"""Checks and repairs: every recipe breaks one thing; what can be repaired is gone afterwards, and nothing else has changed."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from sifkit.sif import SIF, Arch, CorruptSIFError, DataType, FSType, NotWritableError, PartType
from sifkit.sif.checking import check, check_file
from sifkit.sif.finding import Finding, Problem
from sifkit.sif.format.descriptor import DESCRIPTOR_BYTES
from sifkit.sif.format.schema import DESCRIPTOR, PARTITION
from sifkit.sif.repairing import repair
from sifkit.sif.sniff import HEAD_BYTES

from ....support.sif_damage import (
    DATA,
    HOPELESS,
    REPAIRABLE,
    TABLE,
    append,
    broken,
    cut,
    ext,
    extra,
    header,
    put,
    set_field,
    slot,
    sound_image,
)
from ....support.sif_images import STAMP, assert_sound, content, partition


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


def test_superblock_fields_of_fuse2fs_are_a_note(tmp_path: Path) -> None:
    """Bytes as ``apptainer exec --writable`` 1.4.5 left them for a user without root; with any other byte they are stale."""
    path = tmp_path / "image.sif"
    sound_image(path)
    want = path.read_bytes()
    fields = {0x0C: "52660000f11f0000", 0x2C: "80600c6b816000000100", 0x3A: "0100"}
    with path.open("r+b") as file:
        for place, written in fields.items():
            file.seek(1024 + place)
            file.write(bytes.fromhex(written))
    (finding,) = found_in(path)
    assert (finding.problem, finding.severity, finding.repairable) == (Problem.MISPLACED_SUPERBLOCK, "note", True)
    with path.open("r+b") as file:
        file.seek(1024 + 0x38)
        file.write(b"\x53\xef")
    assert [(finding.problem, finding.severity) for finding in found_in(path)] == [(Problem.STALE_BYTES, "warning")]
    with path.open("r+b") as file:
        file.seek(1024 + 0x38)
        file.write(bytes(2))
    assert [finding.problem for finding in repair(path, found_in(path))] == [Problem.MISPLACED_SUPERBLOCK]
    assert path.read_bytes() == want


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
