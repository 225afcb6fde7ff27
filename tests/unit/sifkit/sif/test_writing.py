"""Editing images: what comes of it, what is refused before a byte is written, and that files stay small."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sifkit.errors import ImageInUseError, NotReplaceableError, TargetError
from sifkit.sif import (
    NIL_UUID,
    SIF,
    YEAR_ONE,
    Arch,
    Change,
    CryptoMeta,
    DataType,
    EditError,
    FormatType,
    FSType,
    HashType,
    ImageFullError,
    MessageType,
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
    Stamp,
    TruncatedError,
)

from ....support.sif_images import LATER, STAMP, assert_sound, content, partition, sample_image

linux = pytest.mark.skipif(sys.platform != "linux", reason="these locks, and holes as they are measured here, are Linux's")
MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image.sif"
    sample_image(path)
    return path


def edited(path: Path) -> SIF:
    return SIF.open(path, "r+", stamp=LATER)


def test_create(tmp_path: Path) -> None:
    path = tmp_path / "new.sif"
    with SIF.create(path, stamp=STAMP, launch=b"#!run\n", arch=Arch.ARM64, capacity=3) as sif:
        assert not path.exists()
        assert len(sif) == 0 and sif.capacity == 3
    raw = path.read_bytes()
    assert len(raw) == 4096 + 3 * 585
    with SIF.open(path) as sif:
        header = sif.header
        assert (header.launch, header.arch, header.id) == (b"#!run\n", Arch.ARM64, STAMP.uuid)
        assert header.created == header.modified == STAMP.seconds
        assert sif.warnings == ()


def test_an_empty_image_is_as_the_reference_librarys(tmp_path: Path) -> None:
    SIF.create(tmp_path / "new.sif", stamp=Stamp.deterministic()).close()
    raw = (tmp_path / "new.sif").read_bytes()
    assert len(raw) == 32176
    assert raw[32:48] == b"SIF_MAGIC\0" + b"01\0" + b"00\0"
    assert raw[48:64] == bytes(16)
    assert raw[64:80] == bytes.fromhex("00096e88f1ffffff") * 2
    assert not any(raw[128:])


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_the_mode_of_a_new_image(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        SIF.create(tmp_path / "a.sif").close()
        SIF.create(tmp_path / "b.sif", mode=0o600).close()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.sif").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "b.sif").stat().st_mode) == 0o600


def test_a_new_image_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new.sif"
    with pytest.raises(KeyError), SIF.create(path) as sif:
        sif.add(b"x", DataType.GENERIC)
        raise KeyError
    sif = SIF.create(path)
    sif.abandon()
    sif.close()
    assert os.listdir(tmp_path) == []
    with SIF.create(path) as sif:
        sif.add(b"x", DataType.GENERIC)
    assert os.listdir(tmp_path) == ["new.sif"]
    with pytest.raises(NotReplaceableError, match="exists"):
        SIF.create(path)
    with SIF.create(path, force=True):
        pass
    with SIF.open(path) as sif:
        assert len(sif) == 0


@pytest.mark.parametrize("what", ["text", "directory", "fifo"])
def test_what_is_never_replaced(tmp_path: Path, what: str) -> None:
    path = tmp_path / "there"
    if what == "text":
        path.write_text("precious")
    elif what == "directory":
        path.mkdir()
    elif not hasattr(os, "mkfifo"):
        pytest.skip("no FIFOs here")
    else:
        os.mkfifo(path)
    with pytest.raises(TargetError):
        SIF.create(path, force=True)
    assert os.listdir(tmp_path) == ["there"]


def test_an_empty_file_and_a_link_to_nothing_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    SIF.create(tmp_path / "empty", force=True).close()
    if hasattr(os, "symlink"):
        (tmp_path / "link").symlink_to("target.sif")
        SIF.create(tmp_path / "link").close()
        assert (tmp_path / "target.sif").stat().st_size == 32176


@pytest.mark.parametrize(
    "options",
    [
        {"launch": b"x" * 32},
        {"launch": b"a\0b"},
        {"capacity": 0},
        {"capacity": -1},
        {"capacity": 1 << 40},
    ],
)
def test_images_that_cannot_be_made(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(EditError):
        SIF.create(tmp_path / "x.sif", **options)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


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


def test_a_deterministic_image_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "d.sif"
    SIF.create(path, stamp=Stamp.deterministic()).close()
    with edited(path) as sif:
        sif.add(b"a", DataType.GENERIC)
        sif.update(1, name=b"b")
        assert sif.header.deterministic
        assert {sif.get(1).created, sif.get(1).modified} == {YEAR_ONE}
    with SIF.create(tmp_path / "n.sif", stamp=STAMP, id=NIL_UUID) as sif:
        assert not sif.header.deterministic, "an image without identity that has a time is an ordinary one"


def test_a_given_date() -> None:
    one, other = Stamp.at(86400), Stamp.at(86401)
    assert one == Stamp.at(86400) and one.uuid != other.uuid
    assert one.uuid.version == 4 and one.seconds == 86400
    assert Stamp.now().uuid != Stamp.now().uuid


@linux
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


@linux
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


@linux
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
    pointing = replace(header, descriptors_offset=shadow, data_size=shadow + 8 * 585 - header.data_offset)
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


def test_opening_a_sound_image_for_writing_writes_nothing(path: Path) -> None:
    before, times = path.read_bytes(), path.stat().st_mtime_ns
    with edited(path):
        pass
    assert path.read_bytes() == before and path.stat().st_mtime_ns == times


@linux
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


@linux
def test_a_partition_a_container_writes_to_is_not_taken_away(path: Path) -> None:
    from sifkit.atomic import lock_range

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


def test_file_objects_that_cannot_be_edited(path: Path) -> None:
    for mode in ("rb", "ab", "a+b"):
        with path.open(mode) as file, pytest.raises(NotWritableError, match="reading and writing"):
            SIF.open(file, "r+")
    with path.open("r+b") as file, SIF.open(file, "r+") as sif:
        sif.add(b"", DataType.GENERIC)


def test_a_table_among_the_data_stays_where_its_place_is_taken(path: Path) -> None:
    """Nobody writes such an image, and nothing in it may be lost."""
    whole = path.read_bytes()
    with SIF.open(path) as sif:
        header = replace(sif.header, descriptors_offset=len(whole), data_size=len(whole) + 8 * 585 - sif.header.data_offset)
        first = replace(sif.get(1), offset=4096)
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
