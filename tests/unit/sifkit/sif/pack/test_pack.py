"""Images taken apart and put together: the same bytes again, whatever is in them; nothing leaves the directory."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sifkit.errors import SifkitError, TargetError
from sifkit.sif import SIF, Arch, CorruptSIFError, DataType, FSType, PartType, SourceError, TruncatedError
from sifkit.sif.checking import check
from sifkit.sif.format.schema import DESCRIPTOR, PARTITION
from sifkit.sif.pack.manifest import ManifestError
from sifkit.sif.pack.packing import pack
from sifkit.sif.pack.unpacking import MANIFEST_NAME, unpack

from .....support.sif_damage import REPAIRABLE, SQUASHFS, TABLE, append, broken, extra, header, put, slot
from .....support.sif_images import STAMP, assert_sound, content, sample_image


def round_trip(path: Path) -> bytes:
    directory = path.with_name("unpacked")
    with SIF.open(path) as sif:
        manifest = unpack(sif, directory)
    assert manifest == str(directory / MANIFEST_NAME)
    again = path.with_name("again.sif")
    result = pack(directory, again)
    assert result.exact and result.size_bytes == again.stat().st_size
    return again.read_bytes()


ODD = {
    "nothing": append(b""),
    **{name: recipe for name, (recipe, _) in REPAIRABLE.items()},
    "unknown type": slot(3, DataType=77),
    "unknown codes": extra(1, PARTITION, FSType=99, PartType=-7, Arch=b"xyz"),
    "long extra": slot(1, Extra=bytes(range(1, 200))),
    "extra of a type without": slot(0, Extra=b"mine"),
    "odd digest": slot(4, Extra=b"\xff\xfe"),
    "bytes behind a digest": slot(4, Extra=b"sha256:" + b"0" * 64 + b"\0\0x"),
    "odd link": slot(3, LinkedID=0x80000002),
    "link to a group": slot(3, LinkedID=0xF0000001),
    "one id twice": slot(3, ID=1),
    "name that is no text": slot(3, Name=b"\xff\x01\n\0x"),
    "launch script that is full": header(LaunchScript=b"\xff" * 32),
    "used byte": slot(3, Used=7),
    "owner": slot(3, UID=-5, GID=1 << 62, CreatedAt=-(1 << 63)),
    "counts": header(DescriptorsFree=-9, DataSize=0),
    "hidden descriptors": header(DescriptorsTotal=4),
    "before the data": slot(3, Offset=1000),
}


@pytest.mark.parametrize("name", ODD)
def test_the_same_bytes_again(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image.sif"
    raw = broken(path, ODD[name])
    assert round_trip(path) == raw


def test_an_empty_image_and_one_of_an_interrupted_edit(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    with SIF.create(path, launch=b"#!/bin/sh\n", stamp=STAMP):
        pass
    assert round_trip(path) == path.read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    path = other / "image.sif"
    raw = broken(path, put(0, b""))
    shadow = bytearray(raw + raw[TABLE : TABLE + 8 * DESCRIPTOR.size])
    header(DescriptorsOffset=len(raw), DataSize=1 << 20)(shadow)
    path.write_bytes(shadow)
    assert round_trip(path) == shadow


def test_holes_stay_holes(scratch: Path) -> None:
    source, path = scratch / "source", scratch / "image.sif"
    with source.open("wb") as file:
        file.truncate(1 << 30)
    sample_image(path)
    with SIF.open(path, "r+") as sif:
        sif.add(source, DataType.GENERIC)
    directory, again = scratch / "unpacked", scratch / "again.sif"
    with SIF.open(path) as sif:
        unpack(sif, directory)
    assert pack(directory, again).exact
    assert again.stat().st_size == path.stat().st_size
    if path.stat().st_blocks * 512 < 1 << 28:
        assert again.stat().st_blocks * 512 < 1 << 22
        assert sum(entry.stat().st_blocks for entry in directory.iterdir()) * 512 < 1 << 22


@pytest.mark.parametrize(
    "name",
    [b"../../x", b"/etc/passwd", b"..", b".", b"a\nb\x1b[31m", b"\xff\xfe", b"con", b"manifest.json", b"a" * 128, b"~root"],
)
def test_hostile_names_stay_in_the_directory(tmp_path: Path, name: bytes) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with SIF.create(place / "image.sif", stamp=STAMP) as sif:
        for _ in range(2):
            sif.add(b"data", DataType.GENERIC, name=name)
    with SIF.open(place / "image.sif") as sif:
        unpack(sif, place / "unpacked")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["place"]
    assert sorted(entry.name for entry in place.iterdir()) == ["image.sif", "unpacked"]
    names = sorted(entry.name for entry in (place / "unpacked").iterdir())
    assert len(names) == 3 and names[-1] == MANIFEST_NAME
    assert all(text.isascii() and text.isprintable() and "/" not in text for text in names)
    assert names[0].startswith("1-") and names[1].startswith("2-")


def test_a_directory_with_something_in_it(tmp_path: Path) -> None:
    path, directory = tmp_path / "image.sif", tmp_path / "unpacked"
    sample_image(path)
    directory.mkdir()
    (directory / "mine").write_bytes(b"mine")
    (tmp_path / "victim").write_bytes(b"precious")
    (directory / "1-deffile.def").symlink_to(tmp_path / "victim")
    with SIF.open(path) as sif:
        with pytest.raises(TargetError, match="not empty"):
            unpack(sif, directory)
        unpack(sif, directory, force=True)
        unpack(sif, directory, force=True)
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (directory / "mine").read_bytes() == b"mine"
    assert pack(directory, tmp_path / "again.sif").exact
    assert (tmp_path / "again.sif").read_bytes() == path.read_bytes()


def test_the_image_itself_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "1-deffile.def"
    sample_image(path)
    before = path.read_bytes()
    with SIF.open(path) as sif, pytest.raises(TargetError, match="is the image itself"):
        unpack(sif, tmp_path, force=True)
    assert path.read_bytes() == before


def test_nothing_is_left_after_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, directory = tmp_path / "image.sif", tmp_path / "unpacked"
    sample_image(path)

    def failing(manifest: object, **options: object) -> str:
        raise KeyboardInterrupt

    with SIF.open(path) as sif:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(json, "dumps", failing)
            unpack(sif, directory)
        assert not directory.exists()
        with pytest.raises(TargetError, match="No such file"):
            unpack(sif, tmp_path / "no" / "such")
    os.truncate(path, path.stat().st_size - 1)
    with SIF.open(path) as sif, pytest.raises(TruncatedError):
        unpack(sif, directory)
    assert not directory.exists()


def test_files_are_on_storage_before_the_manifest_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, directory = tmp_path / "image.sif", tmp_path / "unpacked"
    sample_image(path)
    synced = []
    sync = os.fsync

    def fsync(fd: int) -> None:
        synced.append((os.fstat(fd).st_ino, (directory / MANIFEST_NAME).exists()))
        sync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with SIF.open(path) as sif:
        unpack(sif, directory)
    objects = {file.stat().st_ino for file in directory.iterdir() if file.name != MANIFEST_NAME}
    assert len(objects) == 6
    assert {inode for inode, manifest in synced if not manifest} >= objects


def hand_written(directory: Path, *objects: dict[str, Any], **more: Any) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "root").write_bytes(SQUASHFS.ljust(5000, b"x"))
    (directory / "text").write_bytes(b"Bootstrap: docker\n")
    (directory / MANIFEST_NAME).write_text(json.dumps({"objects": objects, **more}), encoding="utf-8")


ROOT = {"type": "partition", "fs": "squashfs", "part": "primsys", "arch": "amd64", "file": "root", "group": 1}
TEXT = {"type": "deffile", "file": "text"}


def test_a_manifest_by_hand(tmp_path: Path) -> None:
    directory, path = tmp_path / "in", tmp_path / "image.sif"
    blob = {"type": "11", "file": "text", "name": "é"}
    link = {"type": "sbom", "sbom": "spdx-json", "file": "text", "link": 2}
    hand_written(directory, TEXT, ROOT, blob, link, header={"launch": "#!/bin/sh\n", "descriptors_total": 5})
    result = pack(directory, path, stamp=STAMP)
    assert not result.exact and result.objects == 4
    assert_sound(path.read_bytes())
    with SIF.open(path) as sif:
        assert list(check(sif, digests=True)) == []
        assert sif.header.arch == Arch.AMD64 and sif.header.launch == b"#!/bin/sh\n" and sif.capacity == 5
        assert sif.header.created == STAMP.seconds and sif.header.id == STAMP.uuid
        assert [d.id for d in sif] == [1, 2, 3, 4]
        assert sif.get(3).name == "é".encode() and sif.get(4).link == 2
        assert sif.get(2).fs_type == FSType.SQUASHFS and sif.get(2).part_type == PartType.PRIMARY_SYSTEM
        assert sif.read(2) == (directory / "root").read_bytes()
        assert sif.get(2).offset % 4096 == 0


def test_a_changed_file_is_packed_anew(tmp_path: Path) -> None:
    path, directory = tmp_path / "image.sif", tmp_path / "unpacked"
    sample_image(path)
    with SIF.open(path) as sif:
        before = content(sif)
        unpack(sif, directory)
    (directory / "3-inspect-metadata.json").write_bytes(b'{"longer": true}')
    result = pack(directory, tmp_path / "again.sif")
    assert not result.exact
    assert_sound((tmp_path / "again.sif").read_bytes())
    with SIF.open(tmp_path / "again.sif") as sif:
        after = content(sif)
        assert sif.read(3) == b'{"longer": true}'
    assert after[0] == before[0]
    assert [(d.id, d.name, d.metadata, d.linked_id) for d, _ in after[1:]] == [
        (d.id, d.name, d.metadata, d.linked_id) for d, _ in before[1:]
    ]
    assert [data for _, data in after[1:] if data != b'{"longer": true}'] == [data for _, data in before[1:] if data != b"{}"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"type": "nonsense"}, r"objects\[0\], type: unknown data type 'nonsense'"),
        ({"type": None}, "type: missing"),
        ({"file": "../image.sif"}, "outside the directory"),
        ({"file": "missing"}, "not in the directory"),
        ({"file": "."}, "not a regular file"),
        ({"file": "/etc/hostname"}, "outside the directory|not in the directory"),
        ({"file": "pipe"}, "not a regular file"),
        ({"file": "a\0b"}, "cannot be read"),
        ({"file": 5}, "expected text"),
        ({"name": "x" * 129}, "129 bytes"),
        ({"name": "\ud800"}, "invalid text"),
        ({"name_hex": "zz"}, "not hexadecimal"),
        ({"name": "a", "name_hex": "61"}, "name and name_hex exclude each other"),
        ({"type_code": 7}, "type and type_code exclude each other"),
        ({"group": 1, "group_id": 1}, "group and group_id exclude each other"),
        ({"link_group": 1, "linked_id": 1}, "link_group and linked_id exclude each other"),
        ({"grup": 1}, r"objects\[0\], grup: a deffile has no such key"),
        ({"fs": "raw"}, "fs: a deffile has no such key"),
        ({"\ud800\n": 1}, "has no such key"),
        ({"type": "\ud800"}, "invalid text"),
        ({"file": "\ud800"}, "invalid text"),
        ({"file": ""}, "file: empty"),
        ({"file": "out"}, "outside the directory"),
        ({"file": "loop"}, "cannot be read"),
        ({"group": -1}, "expected a number from 0"),
        ({"group": True}, "expected a number"),
        ({"link": 9}, "not listed"),
        ({"link": 1, "link_group": 1}, "not to both"),
        ({"id": 1 << 40}, "expected a number"),
        ({"id": 0}, "the id 0 is invalid"),
        ({"slot": 1 << 40}, "expected a number"),
        ({"created": 1 << 80}, "expected a number"),
        ({"alignment": 1 << 60}, "1 GiB"),
        ({"type": "partition"}, "part: missing|fs: missing"),
        ({"type": "signature"}, "hash: missing"),
    ],
)
def test_a_bad_object(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    directory = tmp_path / "in"
    hand_written(directory, {**TEXT, **change})
    if hasattr(os, "mkfifo"):
        os.mkfifo(directory / "pipe")
    (tmp_path / "elsewhere").write_bytes(b"secret")
    os.symlink("../elsewhere", directory / "out")
    os.symlink("loop", directory / "loop")
    (tmp_path / "image.sif").write_bytes(b"")
    with pytest.raises(ManifestError, match=complaint) as caught:
        pack(directory, tmp_path / "new.sif")
    assert "\n" not in str(caught.value) and caught.value.hint
    assert not (tmp_path / "new.sif").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "5",
        "\xff",
        "{}",
        "[" * 100_000,
        '{"objects": 5}',
        '{"objects": [5]}',
        '{"objects": [], "header": 5}',
        '{"objects": [], "header": {"id": "x"}}',
        '{"objects": [], "header": {"descriptors_total": 99999999}}',
        '{"objects": [], "header": {"created": ' + "9" * 5000 + "}}",
        '{"objects": [], "header": {"launch": "' + "x" * 40 + '"}}',
        '{"objects": [], "sifkit_manifest": 2}',
        '{"objects": [], "layout": {"size": 5}, "header": {}}',
        '{"objects": [], "objects": []}',
        '{"objects": [], "object": []}',
        '{"objects": [], "header": {"creatd": 1}}',
        '{"objects": [], "header": {"arch": "amd64", "arch_hex": "303200"}}',
    ],
)
def test_a_bad_manifest(tmp_path: Path, text: str) -> None:
    directory = tmp_path / "in"
    directory.mkdir()
    (directory / MANIFEST_NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(ManifestError) as caught:
        pack(directory, tmp_path / "new.sif")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_no_manifest_and_an_image_larger_than_files_are(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file") as caught:
        pack(tmp_path / "in", tmp_path / "new.sif")
    assert caught.value.hint
    sample_image(tmp_path / "image.sif")
    with SIF.open(tmp_path / "image.sif") as sif:
        path = Path(unpack(sif, tmp_path / "in"))
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["layout"]["size"] = (1 << 63) - 1
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(TargetError, match="its filesystem does not allow files of 8192 PiB"):
        pack(tmp_path / "in", tmp_path / "new.sif")
    assert not (tmp_path / "new.sif").exists()


def test_a_second_primary_and_one_id_twice(tmp_path: Path) -> None:
    hand_written(tmp_path / "in", ROOT, ROOT)
    with pytest.raises(ManifestError, match="primary"):
        pack(tmp_path / "in", tmp_path / "new.sif")
    hand_written(tmp_path / "in", {**TEXT, "slot": 0}, {**TEXT, "slot": 0})
    with pytest.raises(ManifestError, match="used twice"):
        pack(tmp_path / "in", tmp_path / "new.sif")
    hand_written(tmp_path / "in", {**TEXT, "id": 3}, {**TEXT, "id": 3})
    with pytest.raises(ManifestError, match="duplicate id 3"):
        pack(tmp_path / "in", tmp_path / "new.sif")


def test_what_is_wrong_with_a_packed_image_is_told(tmp_path: Path) -> None:
    """A damaged image comes out as it was; whoever edited a manifest may not have meant it."""
    sample_image(tmp_path / "image.sif")
    with SIF.open(tmp_path / "image.sif") as sif:
        path = Path(unpack(sif, tmp_path / "in"))
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["objects"][2]["id"] = 1
    path.write_text(json.dumps(manifest), encoding="utf-8")
    result = pack(tmp_path / "in", tmp_path / "new.sif")
    assert result.exact and [(notice.kind, notice.id) for notice in result.warnings] == [("duplicate-id", 1)]


JSON = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just([]), st.just({}), st.just("partition"))


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_change_of_a_manifest(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A typed error in one line, or an image that opens or is refused for what is in it."""
    place = tmp_path_factory.mktemp("fuzz")
    sample_image(place / "image.sif")
    with SIF.open(place / "image.sif") as sif:
        manifest = json.loads(Path(unpack(sif, place / "in")).read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 3))):
        target = data.draw(st.sampled_from([manifest["header"], manifest["layout"], *manifest["objects"]]))
        target[data.draw(st.sampled_from(sorted(target)))] = data.draw(st.one_of(JSON, st.integers(0, 40000)))
    (place / "in" / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
    size = manifest["layout"].get("size")
    if isinstance(size, int) and size > 1 << 20:
        return  # files of any length are made, if the filesystem has them
    try:
        result = pack(place / "in", place / "new.sif")
    except SifkitError as error:
        assert "\n" not in str(error)
        assert not (place / "new.sif").exists()
        return
    try:
        with SIF.open(io.BytesIO((place / "new.sif").read_bytes())) as sif:
            assert len(sif) == result.objects
    except CorruptSIFError:
        pytest.fail("an image was made that does not open")
