"""Edits of images: objects added, deleted, replaced and reserved, fields changed, the place and time each gets."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest

from sifkit.sif import (
    SIF,
    Arch,
    Change,
    CryptoMeta,
    DataType,
    EditError,
    FormatType,
    FSType,
    HashType,
    MessageType,
    ObjectNotFoundError,
    OCIMeta,
    PartitionMeta,
    PartType,
    SBOMFormat,
    SBOMMeta,
    SignatureMeta,
)

from ....support.sif_images import LATER, STAMP, assert_sound, content, edited, partition

MIB = 1 << 20


def test_every_type_of_object(tmp_path: Path) -> None:
    path = tmp_path / "all.sif"
    fingerprint = bytes(range(20))
    metadata = {
        DataType.PARTITION: PartitionMeta(FSType.GOCRYPTFS_SQUASHFS, PartType.PRIMARY_SYSTEM, Arch.LOONG64),
        DataType.SIGNATURE: SignatureMeta(HashType.SHA384, fingerprint),
        DataType.CRYPTO_MESSAGE: CryptoMeta(FormatType.OPENPGP, MessageType.CLEAR_SIGNATURE),
        DataType.SBOM: SBOMMeta(SBOMFormat.SYFT_JSON),
    }
    with SIF.create(path, stamp=STAMP) as sif:
        for data_type in DataType:
            payload = b"payload of %s" % data_type.name.encode()
            added = sif.add(
                payload, data_type, group=3, name=data_type.name.encode(), metadata=metadata.get(data_type), created=5
            )
            assert sif.get(added.id) is added
    assert_sound(path.read_bytes())
    with SIF.open(path) as sif:
        assert sif.warnings == ()
        assert sif.header.arch is Arch.LOONG64
        for number, (data_type, found) in enumerate(zip(DataType, sif, strict=True), 1):
            assert found.id == number
            assert (found.data_type, found.group, found.name) == (data_type, 3, data_type.name.encode())
            assert (found.created, found.modified, found.uid, found.gid) == (5, 5, 0, 0)
            assert sif.read(number) == b"payload of %s" % data_type.name.encode()
            if data_type in metadata:
                assert found.metadata == metadata[data_type]
            elif data_type in (DataType.OCI_BLOB, DataType.OCI_ROOT_INDEX):
                assert isinstance(found.metadata, OCIMeta) and found.metadata.valid
        blob = sif.select(data_type=DataType.OCI_BLOB)[0].metadata
        assert blob == OCIMeta(b"sha256:" + hashlib.sha256(b"payload of OCI_BLOB").hexdigest().encode())


def test_places_and_padding(path: Path) -> None:
    """Objects lie one behind the other; the gap an alignment leaves counts with the object behind it."""
    with edited(path) as sif:
        end = sif.get(6).end
        packed = sif.add(b"abc", DataType.GENERIC)
        assert (packed.offset, packed.size_with_padding) == (end, 3)
        odd = sif.add(b"abc", DataType.GENERIC, alignment=1000)
        assert odd.offset % 1000 == 0
        assert odd.size_with_padding == odd.end - packed.end
    with edited(path) as sif:
        sif.delete([7, 8])
        page = sif.add(b"abc", DataType.PARTITION, metadata=partition(PartType.DATA))
        assert page.offset % 4096 == 0
        sif.delete(7)
        anywhere = sif.add(b"abc", DataType.PARTITION, metadata=partition(PartType.DATA), alignment=-1)
        assert anywhere.offset == end
    assert_sound(path.read_bytes())


def test_a_descriptor_that_was_freed_is_used_again(path: Path) -> None:
    with edited(path) as sif:
        sif.delete([2, 4])
        assert sif.header.arch is Arch.UNKNOWN
        assert sif.add(b"", DataType.GENERIC).id == 2
        assert sif.add(b"", DataType.GENERIC).id == 4
        assert [descriptor.id for descriptor in sif] == [1, 2, 3, 4, 5, 6]


def test_times(path: Path) -> None:
    with edited(path) as sif:
        before = sif.header
        assert (before.created, before.modified) == (STAMP.seconds, STAMP.seconds)
        added = sif.add(b"", DataType.GENERIC)
        assert (added.created, added.modified) == (LATER.seconds, LATER.seconds)
        assert (sif.header.created, sif.header.modified) == (STAMP.seconds, LATER.seconds)
        changed = sif.update(1, name=b"x")
        assert (changed.created, changed.modified) == (STAMP.seconds, LATER.seconds)
        assert sif.get(3).modified == STAMP.seconds
    with SIF.open(path, "r+") as sif:
        assert sif.add(b"", DataType.GENERIC).created > LATER.seconds - 200_000_000


def test_deleting(path: Path) -> None:
    with edited(path) as sif:
        sif.delete([])
        sif.delete([3, 3])
        assert [d.id for d in sif] == [1, 2, 4, 5, 6]
        with pytest.raises(ObjectNotFoundError):
            sif.delete([1, 3])
        assert [d.id for d in sif] == [1, 2, 4, 5, 6]
        sif.delete(iter((1, 2)))
        assert [d.id for d in sif] == [4, 5, 6]
        assert [notice.kind for notice in sif.warnings] == ["link"]
    assert_sound(path.read_bytes())


def test_set_primary(path: Path) -> None:
    with edited(path) as sif:
        sif.set_primary(4)
        assert sif.primary is sif.get(4)
        assert sif.get(2).part_type is PartType.SYSTEM
        assert sif.header.arch is Arch.ARM64
        before = path.read_bytes()
        sif.set_primary(4)
        assert path.read_bytes() == before
        with pytest.raises(EditError, match="not a partition"):
            sif.set_primary(1)
        with pytest.raises(EditError, match="not a system partition"):
            sif.set_primary(5)
        with pytest.raises(ObjectNotFoundError):
            sif.set_primary(0)
        assert path.read_bytes() == before
        sif.delete(4)
        assert sif.header.arch is Arch.UNKNOWN
        sif.set_primary(2)
        assert sif.header.arch is Arch.AMD64


def test_update(path: Path) -> None:
    with edited(path) as sif:
        changed = sif.update(6, name=b"new", group=7, link_group=1)
        assert (changed.name, changed.group, changed.link, changed.link_group) == (b"new", 7, 0, 1)
        changed = sif.update(6, link=1, group=0)
        assert (changed.group, changed.link, changed.link_group) == (0, 1, 0)
        changed = sif.update(6, link=0, name=b"", created=9)
        assert (changed.name, changed.link, changed.linked_id, changed.created) == (b"", 0, 0, 9)
        sif.update(5, metadata=partition(PartType.OVERLAY, FSType.SQUASHFS))
        assert sif.overlays[0].fs_type is FSType.SQUASHFS
        before = path.read_bytes()
        sif.update(5, metadata=partition(PartType.OVERLAY, FSType.SQUASHFS))
        sif.update(5)
        assert path.read_bytes() == before, "nothing is written where nothing changes"
        swap = {2: Change(metadata=partition(PartType.SYSTEM)), 4: Change(metadata=partition(PartType.PRIMARY_SYSTEM))}
        sif.update_all(swap)
        assert sif.primary is sif.get(4)
        sif.update(4, metadata=partition(PartType.DATA))
        assert sif.header.arch is Arch.UNKNOWN
    assert_sound(path.read_bytes())


def test_replace(path: Path) -> None:
    with edited(path) as sif:
        old = sif.get(2)
        new = sif.replace(2, b"replaced")
        assert sif.read(2) == b"replaced"
        assert new.offset % 4096 == 0 and new.offset > sif.get(6).end
        assert (new.name, new.group, new.created, new.metadata) == (old.name, old.group, old.created, old.metadata)
        assert not any(path.read_bytes()[old.offset : old.end])
        assert path.stat().st_size == new.end
        blob = sif.add(b"one", DataType.OCI_BLOB)
        again = sif.replace(blob.id, io.BytesIO(b"two"))
        assert again.metadata != blob.metadata
        sif.replace(5, b"x", metadata=partition(PartType.OVERLAY))
        assert sif.get(5).fs_type is FSType.SQUASHFS
    assert_sound(path.read_bytes())


def test_reserve(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"stale" * 100_000)
    with edited(path) as sif:
        with sif.reserve(300_000, partition(PartType.DATA, FSType.EXT3), name=b"room", group=1) as room:
            assert room.offset % 4096 == 0
            assert not any(path.read_bytes()[room.offset :])
            assert len(sif) == 6
            os.lseek(room.fd, room.offset + 1000, os.SEEK_SET)
            os.write(room.fd, b"in place")
            for edit in (lambda: sif.delete(1), lambda: sif.add(b"", DataType.GENERIC)):
                with pytest.raises(EditError, match="reserved"):
                    edit()
        data = sif.read(7)
        assert len(data) == room.size == 300_000 and data[1000:1008] == b"in place"
        assert sif.get(7) == room.descriptor
        assert path.stat().st_size == sif.get(7).end
        with sif.reserve_again(7, 10_000) as room:
            os.lseek(room.fd, room.offset, os.SEEK_SET)
            os.write(room.fd, b"anew")
        assert sif.read(7).rstrip(b"\0") == b"anew"
        assert (sif.get(7).name, sif.get(7).size) == (b"room", 10_000)
    assert_sound(path.read_bytes())


def test_a_reservation_that_comes_to_nothing(path: Path) -> None:
    before = path.read_bytes()
    with edited(path) as sif:
        for again in (False, True):
            room_of = sif.reserve_again(5, 5000) if again else sif.reserve(5000, partition(PartType.DATA))
            with pytest.raises(KeyError), room_of as room:
                os.lseek(room.fd, room.offset, os.SEEK_SET)
                os.write(room.fd, b"half")
                raise KeyError
            assert path.read_bytes() == before
        sif.update(1, name=b"works again")
    assert path.read_bytes() != before


def test_an_image_inside_a_file_is_edited_in_place(path: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.write_bytes(b"x" * 1024 + path.read_bytes())
    for where, offset in ((path, 0), (inside, 1024)):
        with SIF.open(where, "r+", offset=offset, stamp=LATER) as sif:
            sif.add(b"new" * 1000, DataType.PARTITION, metadata=partition(PartType.DATA))
            sif.update(1, name=b"a")
            sif.delete([2, 3])
            with sif.reserve(5000, partition(PartType.DATA)) as room:
                assert room.offset == room.descriptor.offset + offset
                os.lseek(room.fd, room.offset, os.SEEK_SET)
                os.write(room.fd, b"in place")
    assert inside.read_bytes() == b"x" * 1024 + path.read_bytes()
    inside.write_bytes(b"x" * 500 + path.read_bytes())
    with pytest.raises(EditError, match="two sectors"):
        SIF.open(inside, "r+", offset=500)


def test_an_image_in_memory(path: Path) -> None:
    memory = io.BytesIO(path.read_bytes())
    for where in (path, memory):
        with SIF.open(where, "r+", stamp=LATER) as sif:
            sif.add(b"new" * 1000, DataType.PARTITION, metadata=partition(PartType.DATA))
            sif.set_primary(4)
            sif.delete(7)
            sif.delete(1)
            with SIF.open(path) as other:
                assert other.header.data_offset
    with SIF.open(memory) as one, SIF.open(path) as other:
        assert content(one) == content(other)
    with SIF.open(memory, "r+") as sif, pytest.raises(EditError, match="descriptor"), sif.reserve(1, partition(PartType.DATA)):
        pytest.fail("the block must not be entered")


def test_a_descriptor_stands_for_its_id(tmp_path: Path) -> None:
    path = tmp_path / "a.sif"
    with SIF.create(path, stamp=STAMP) as sif:
        first, second, third = (sif.add(b"%d" % number, DataType.GENERIC) for number in (1, 2, 3))
        assert sif[1] == sif[first] == sif.get(first) == first
        assert sif.read(second) == b"2" and sif.open_object(third).read() == b"3"
        sif.extract(second, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b"2"
        assert sif.update(first, name=b"n").name == b"n"
        assert sif.replace(second, b"two").id == second.id and sif.read(second) == b"two"
        sif.delete([first, 2])
        sif.delete(third)
        assert len(sif) == 0
        with pytest.raises(ObjectNotFoundError):
            sif[first]
        for wrong in ("1", None, True, b"1"):
            with pytest.raises(TypeError, match="named by its ID or its descriptor"):
                sif[wrong]  # type: ignore[index]


def test_an_image_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.sif"
    with SIF.create(path, stamp=STAMP) as sif:
        sif.add(b"1", DataType.GENERIC)
        assert repr(sif) == f"<SIF '{path}', 1 object, mode 'r+'>"
    assert repr(sif) == f"<SIF '{path}', closed>"


def test_the_object_at_the_end_changes_its_size(path: Path) -> None:
    """What is added reads as zero, whatever was behind it; nothing else changes."""
    with edited(path) as sif:
        before = {one.id: sif.read(one.id) for one in sif}
        old = sif.get(6)
        assert [one.id for one in sif if sif.is_at_end(one.id)] == [6]
    with path.open("ab") as file:
        file.write(b"stale" * 1000)
    with edited(path) as sif:
        new = sif.resize_object(6, 5000)
        assert (new.size, new.offset, new.size_with_padding - new.size) == (5000, old.offset, old.size_with_padding - old.size)
        assert sif.read(6) == before[6] + bytes(5000 - old.size) and sif.file_size == new.end
        sif.resize_object(6, 10)
        assert sif.read(6) == before[6][:10] and sif.file_size == old.offset + 10
        assert all(sif.read(id) == content for id, content in before.items() if id != 6)
    assert_sound(path.read_bytes())
