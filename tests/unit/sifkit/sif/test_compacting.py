"""Images made anew: nothing of their content changes, gaps are zero, and whatever goes wrong leaves the old image."""

from __future__ import annotations

import os
import stat
from importlib import import_module
from pathlib import Path

import pytest

from sifkit.errors import ImageInUseError
from sifkit.file_locks import lock_range
from sifkit.sif import SIF, Arch, DataType, EditError, FSType, PartType, StoreError, TruncatedError
from sifkit.sif.checking import check_file
from sifkit.sif.compacting import compact
from sifkit.sif.finding import Problem
from sifkit.sif.format.placement import TABLE_OFFSET

from ....support.sif_damage import header, set_field
from ....support.sif_images import LATER, STAMP, assert_sound, partition, sample_image

module = import_module("sifkit.sif.compacting")  # the package has a function of this name


def facts(path: Path) -> list[object]:
    """What compaction must not change."""
    with SIF.open(path) as sif:
        header = sif.header
        identity = (header.launch, header.id, header.arch, header.created)
        objects = [
            (d.slot, d.id, d.data_type, d.group_id, d.linked_id, d.created, d.modified, d.name, d.extra, sif.read(d.id))
            for d in sif
        ]
        order = [d.id for d in sorted(sif, key=lambda d: d.offset)]
        return [identity, objects, order]


def image_with_gaps(path: Path) -> None:
    """As siftool leaves images: the deleted objects' bytes are there still."""
    sample_image(path)
    with SIF.open(path) as sif:
        gone = {id: (sif.get(id).offset, sif.read(id)) for id in (1, 2, 6)}
    with SIF.open(path, "r+") as sif:
        sif.delete(list(gone))
    with path.open("r+b") as file:
        for offset, data in gone.values():
            file.seek(offset)
            file.write(data)


def test_space_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    image_with_gaps(path)
    before, size = facts(path), path.stat().st_size
    assert {Problem.STALE_BYTES, Problem.TRAILING_BYTES} <= {finding.problem for finding in check_file(path)}
    result = compact(path, stamp=LATER)
    assert result.changed and result.before_bytes == size and result.after_bytes == path.stat().st_size < size
    assert result.moved == 3
    assert facts(path) == before
    assert_sound(path.read_bytes())
    assert {finding.problem for finding in check_file(path)} == {Problem.FILESYSTEM}
    with SIF.open(path) as sif:
        assert sif.header.modified == LATER.seconds
        assert all(d.offset % 4096 == 0 for d in sif if d.data_type == DataType.PARTITION)
        end = sif.header.data_offset
        for d in sif:
            assert d.size_with_padding == d.end - end
            end = d.end
    assert [entry.name for entry in tmp_path.iterdir()] == ["image.sif"]


def test_a_compact_image_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    image_with_gaps(path)
    compact(path)
    before, raw = path.stat(), path.read_bytes()
    result = compact(path)
    assert not result.changed and result.moved == 0
    assert path.stat().st_ino == before.st_ino and path.read_bytes() == raw


@pytest.mark.parametrize("capacity", [6, 7, 9, 48, 1000])
def test_capacity(tmp_path: Path, capacity: int) -> None:
    path = tmp_path / "image.sif"
    sample_image(path)
    before = facts(path)
    result = compact(path, capacity=capacity)
    assert result.capacity == capacity
    assert facts(path) == before
    assert_sound(path.read_bytes())
    with SIF.open(path, "r+") as sif:
        assert sif.capacity == capacity and sif.header.descriptors_free == capacity - 6
        more = min(capacity - 6, 45)
        for _ in range(more):
            sif.add(b"more", DataType.GENERIC)
        assert len(sif) == 6 + more


def test_capacity_of_what_is_used(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    sample_image(path)
    with SIF.open(path, "r+") as sif:
        sif.delete([2, 6])
    assert compact(path, capacity=0).capacity == 5
    with pytest.raises(EditError, match="descriptor 5 is in use"):
        compact(path, capacity=4)
    with pytest.raises(EditError, match="too large"):
        compact(path, capacity=1 << 40)
    with SIF.create(tmp_path / "empty.sif"):
        pass
    assert compact(tmp_path / "empty.sif", capacity=0).capacity == 1


def test_alignments_stay(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    with SIF.create(path, stamp=STAMP) as sif:
        sif.add(b"a" * 70000, DataType.GENERIC)
        sif.add(b"b" * 10, DataType.PARTITION, metadata=partition(PartType.DATA), alignment=1 << 20)
        sif.add(b"c" * 3000, DataType.GENERIC, alignment=512)
        sif.add(b"d" * 3000, DataType.GENERIC)
        sif.delete(1)
    compact(path)
    with SIF.open(path) as sif:
        assert [d.offset % unit for d, unit in zip(sif, (1 << 20, 512, 1), strict=True)][:2] == [0, 0]
        assert sif.get(4).offset == sif.get(3).end
    again = path.read_bytes()
    assert not compact(path).changed
    assert path.read_bytes() == again


def test_old_images_keep_the_start_of_their_data(tmp_path: Path) -> None:
    """The first releases began the data at byte 32768, behind a table that ends at 32176."""
    path = tmp_path / "image.sif"
    with SIF.create(path, stamp=STAMP) as sif:
        sif.add(b"x" * 592, DataType.GENERIC)
        sif.add(b"y" * 100, DataType.GENERIC)
        sif.add(b"z" * 100, DataType.GENERIC)
        sif.delete([1, 2])
    raw = bytearray(path.read_bytes())
    header(DataOffset=32768, DataSize=200)(raw)
    path.write_bytes(raw)
    compact(path)
    with SIF.open(path) as sif:
        assert sif.header.data_offset == sif.get(3).offset == 32768
    compact(path, capacity=50)
    with SIF.open(path) as sif:
        assert sif.header.data_offset == sif.get(3).offset == TABLE_OFFSET + 50 * 585


def test_holes_stay_holes(scratch: Path) -> None:
    path, source = scratch / "image.sif", scratch / "source"
    with source.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"middle")
    with SIF.create(path) as sif:
        sif.add(b"first" * 5000, DataType.GENERIC)
        sif.add(source, DataType.PARTITION, metadata=partition(PartType.OVERLAY, FSType.EXT3))
        sif.delete(1)
    counted: list[int] = []
    result = compact(path, advance=counted.append)
    assert result.moved == 1 and result.after_bytes > 1 << 30
    if result.used_before < 1 << 28:
        assert result.used_after < 1 << 22 and sum(counted) < 1 << 22
    with SIF.open(path) as sif, sif.open_object(2) as file:
        file.seek(1 << 29)
        assert file.read(6) == b"middle"


@pytest.mark.skipif(os.name == "nt", reason="no modes there")
def test_mode_owner_links(tmp_path: Path) -> None:
    path, link, other = tmp_path / "image.sif", tmp_path / "link.sif", tmp_path / "other.sif"
    image_with_gaps(path)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 5678)
    before = path.stat()
    link.symlink_to("image.sif")
    os.link(path, other)
    result = compact(link)
    after = path.stat()
    assert link.is_symlink() and result.changed
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert len(result.notes) == 1 and "hard link" in result.notes[0]
    assert other.stat().st_ino == before.st_ino != after.st_ino


def test_a_locked_overlay_is_left_alone(tmp_path: Path) -> None:
    """A container holds a lock on the ext3 partition it uses; one that runs from the squashfs does not mind."""
    path = tmp_path / "image.sif"
    image_with_gaps(path)
    before = path.read_bytes()
    with SIF.open(path) as sif:
        overlay = sif.get(5)
    fd = os.open(path, os.O_RDONLY)
    try:
        if not lock_range(fd, write=False, offset=overlay.offset, size=overlay.size):
            pytest.skip("no locks here")
        with pytest.raises(ImageInUseError):
            compact(path)
    finally:
        os.close(fd)
    assert path.read_bytes() == before
    assert compact(path).changed


def test_truncated_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.sif"
    sample_image(path)
    os.truncate(path, path.stat().st_size - 1)
    before = path.read_bytes()
    with pytest.raises(TruncatedError):
        compact(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("error", [StoreError("no space"), KeyboardInterrupt()])
def test_trouble_leaves_the_old_image_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "image.sif"
    image_with_gaps(path)
    before = path.read_bytes()
    copy_in = module.copy_in
    left = 2

    def failing(*arguments: object, **options: object) -> int:
        nonlocal left
        left -= 1
        if not left:
            raise error
        return copy_in(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "copy_in", failing)
    with pytest.raises(type(error)):
        compact(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["image.sif"]


def test_a_writer_meanwhile_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.sif"
    image_with_gaps(path)
    check_written = module._verify_written

    def slow(*arguments: object) -> None:
        check_written(*arguments)  # type: ignore[arg-type]
        with path.open("ab") as file:
            file.write(b"somebody's")

    monkeypatch.setattr(module, "_verify_written", slow)
    with pytest.raises(ImageInUseError, match="changed"):
        compact(path)
    assert path.read_bytes().endswith(b"somebody's")
    assert [entry.name for entry in tmp_path.iterdir()] == ["image.sif"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", range(8))
def test_killed_in_between(tmp_path: Path, step: int) -> None:
    """Killed after any number of writes to the new file: under the image's name there is the old one or the new one."""
    path, whole = tmp_path / "image.sif", tmp_path / "whole.sif"
    image_with_gaps(path)
    before = path.read_bytes()
    whole.write_bytes(before)
    compact(whole, stamp=STAMP)
    child = os.fork()
    if child == 0:
        try:
            left = step

            class Dying(module.NewFileStore):
                def set_size(self, size: int) -> None:
                    nonlocal left
                    if left == 0:
                        os._exit(9)
                    left -= 1
                    super().set_size(size)

            module.NewFileStore = Dying  # type: ignore[misc]
            compact(path, stamp=STAMP)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    died = os.waitstatus_to_exitcode(status) == 9
    assert path.read_bytes() == (before if died else whole.read_bytes())
    assert died or step > 3


def test_a_table_without_a_place_gets_one(tmp_path: Path) -> None:
    """A writer may put the table behind the data."""
    path = tmp_path / "image.sif"
    with SIF.create(path, capacity=2, stamp=STAMP) as sif:
        sif.add(b"data" * 1000, DataType.PARTITION, metadata=partition(PartType.DATA, arch=Arch.ARM))
    from sifkit.sif.format.schema import DESCRIPTOR

    raw = bytearray(path.read_bytes())
    data, table = raw[8192:], raw[4096 : 4096 + 1170]
    odd = bytearray(raw[:128] + data + table)
    header(DescriptorsOffset=128 + len(data), DataOffset=128, DataSize=len(odd) - 128)(odd)
    set_field(DESCRIPTOR, 128 + len(data), Offset=128)(odd)
    path.write_bytes(odd)
    compact(path)
    assert_sound(path.read_bytes())
    with SIF.open(path) as sif:
        assert sif.read(1) == b"data" * 1000 and sif.header.descriptors_offset == 4096
