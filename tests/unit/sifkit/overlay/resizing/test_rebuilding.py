"""Rebuild of an overlay: the same files in a fresh filesystem, at once or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

import ext3
from ext3.constants import S_IFIFO, STATE_ERROR, SUPERBLOCK_OFFSET, USER_FLAGS, InodeFlag
from ext3.errors import CorruptError, NeedsCheckError, NoInodesError, NoSpaceError
from ext3.format.inode_table import inode_offset
from ext3.format.schema import INODE_CORE, SUPERBLOCK
from ext3.format.superblock import Superblock
from ext3.newfs import emit
from sifkit.errors import FormatError, HostFullError, ImageInUseError, SifkitError, UsageError
from sifkit.file_locks import lock_range
from sifkit.overlay.creating.standalone import create
from sifkit.overlay.embedding.attaching import attach
from sifkit.overlay.options import CreateOptions
from sifkit.overlay.resizing import rebuilding
from sifkit.overlay.resizing.rebuilding import RebuildOptions, RebuildStart, rebuild
from sifkit.sif import SIF, DataType, FSType, PartType, SignatureMeta
from sifkit.sif.format.types import HashType
from sifkit.sif.signatures import SignedError

from .....support.commands import copy_sparse
from .....support.facts import TreeFacts, facts_of_image
from .....support.sif_images import STAMP, assert_sound, partition
from .....support.trees import everything

MIB = 1 << 20
IDENTITY = UUID("01234567-89ab-cdef-0123-456789abcdef")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with one of everything, of which some files were removed."""
    top = tmp_path_factory.mktemp("made")
    path = top / "a.img"
    options = CreateOptions(
        size=24 * MIB,
        from_dir=everything(top / "t" / "upper", big=False).parent,
        label=b"mine",
        uuid=IDENTITY,
        reserved_percent=3,
        mode=0o640,
        xattrs="all",
    )
    create(path, options)
    with ext3.Filesystem.open(path, "r+") as fs:
        fs.remove_tree("/upper/names")
        fs.write_bytes("/upper/new", os.urandom(6 * MIB))
    return path


@pytest.fixture
def image(made: Path, tmp_path: Path) -> Path:
    path = copy_sparse(made, tmp_path / "a.img")
    path.chmod(0o640)
    return path


def facts(path: Path, offset: int = 0) -> TreeFacts:
    with ext3.Filesystem.open(path, offset=offset) as fs:
        return facts_of_image(fs)


def assert_silent(path: Path) -> None:
    with path.open("rb") as file:
        report = ext3.fsck.check(ext3.FileDevice(file.fileno()), ext3.CheckOnly(), options=ext3.CheckOptions(force=True))
    assert not report.findings


def superblock(path: Path) -> Superblock:
    with ext3.Filesystem.open(path) as fs:
        return fs.superblock


def test_the_files_stay_and_the_filesystem_is_new(image: Path) -> None:
    before, old, inode = facts(image), superblock(image), image.stat().st_ino
    done = rebuild(image)
    new = superblock(image)
    assert facts(image) == before
    assert_silent(image)
    assert image.stat().st_ino != inode and image.stat().st_size == 24 * MIB
    assert stat.S_IMODE(image.stat().st_mode) == 0o640
    assert (new.label, new.hash_seed, new.geometry) == (b"mine", old.hash_seed, old.geometry)
    assert new.reserved_blocks == old.reserved_blocks == 24 * 1024 * 3 // 100
    assert new.uuid != IDENTITY and done.after.uuid == new.uuid and done.before.uuid == IDENTITY
    assert (done.before.inodes, done.before.journal_bytes) == (done.after.inodes, done.after.journal_bytes)
    assert (done.after.free_bytes, done.after.inodes_used) == (
        new.free_blocks * 1024,
        new.inodes_count - new.free_inodes,
    )
    assert {path.name for path in image.parent.iterdir()} == {"a.img"}


def test_what_is_asked_for(image: Path) -> None:
    before = facts(image)
    options = RebuildOptions(
        size=40 * MIB, inodes=40_000, block_size=4096, inode_size=512, journal_bytes=5 * MIB, keep_uuid=True
    )
    done = rebuild(image, options)
    new = superblock(image)
    assert facts(image) == before and new.uuid == IDENTITY and image.stat().st_size == 40 * MIB
    assert (new.block_size, new.inode_size, done.after.journal_bytes) == (4096, 512, 5 * MIB)
    assert 40_000 <= new.inodes_count < 40_100
    assert new.reserved_blocks == 10240 * (24 * 1024 * 3 // 100) // (24 * 1024)
    assert_silent(image)


@pytest.mark.parametrize("time", [1_234_567_890_987_654_321, -1, (2**34 - 2**31) * 10**9 - 1])
def test_creation_times(image: Path, time: int) -> None:
    """They stay; where the old inodes have none, the files are created with the new filesystem."""
    with ext3.Filesystem.open(image, "r+", clock=lambda: time) as fs:
        fs.mkdir("/upper/later")
        fs.write_bytes("/upper/later/file", b"later")

    def created() -> dict[bytes, int | None]:
        with ext3.Filesystem.open(image) as fs:
            return {path: fs.stat(b"/" + path, follow=False).crtime for path in [b"", *(path for path, _ in fs.walk("/"))]}

    before = created()
    assert before[b"upper/later"] == before[b"upper/later/file"] == time != before[b"upper/new"]
    rebuild(image)
    assert created() == before
    rebuild(image, RebuildOptions(inode_size=128))
    assert set(created().values()) == {None}
    rebuild(image, RebuildOptions(inode_size=256))
    assert set(created().values()) == {superblock(image).mkfs_time * 10**9}
    assert_silent(image)


def flags_of(path: Path) -> dict[str, int]:
    with ext3.Filesystem.open(path) as fs:
        return {name: fs.stat(name).flags for name in ("/", "/upper", "/upper/new", "/upper/deep")}


def test_flags_of_chattr_stay(image: Path) -> None:
    with ext3.Filesystem.open(image, "r+") as fs:
        fs.mkdir("/upper/deep")
        for number in range(200):
            fs.create(f"/upper/deep/a name of some length {number}")
        places = {name: inode_offset(fs.superblock, fs.groups, fs.stat(name).ino) for name in ("/", "/upper", "/upper/new")}
    wanted = {"/": InodeFlag.NOATIME, "/upper": USER_FLAGS, "/upper/new": InodeFlag.IMMUTABLE | InodeFlag.NODUMP}
    data = bytearray(image.read_bytes())
    for name, flags in wanted.items():
        INODE_CORE.view(data, 1, places[name])["i_flags"] |= int(flags)
    image.write_bytes(data)
    before = flags_of(image)
    rebuild(image, RebuildOptions(block_size=4096))  # in which the directory needs no index
    after = flags_of(image)
    assert after == before | {"/upper/deep": InodeFlag.INDEX} and after["/upper/new"] == wanted["/upper/new"]
    assert_silent(image)


def test_flags_that_only_damage_sets_do_not_stay(image: Path) -> None:
    """A check clears immutable and append-only of special files and symlinks."""
    names = ("/upper/link", "/upper/fifo")
    with ext3.Filesystem.open(image, "r+") as fs:
        fs.symlink("new", "/upper/link")
        fs.mknod("/upper/fifo", S_IFIFO | 0o600)
        places = [inode_offset(fs.superblock, fs.groups, fs.stat(name, follow=False).ino) for name in names]
    data = bytearray(image.read_bytes())
    for place in places:
        INODE_CORE.view(data, 1, place)["i_flags"] |= int(InodeFlag.IMMUTABLE | InodeFlag.APPEND | InodeFlag.NODUMP)
    image.write_bytes(data)
    rebuild(image)
    assert_silent(image)
    with ext3.Filesystem.open(image) as fs:
        assert [fs.stat(name, follow=False).flags for name in names] == [InodeFlag.NODUMP] * 2


def test_times_that_do_not_fit_are_told(image: Path) -> None:
    assert not rebuild(image).notes
    (note,) = rebuild(image, RebuildOptions(inode_size=128)).notes
    assert "hold whole seconds until 2038: times of " in note
    assert not rebuild(image, RebuildOptions(inode_size=128)).notes  # which are whole seconds now


def test_the_size_that_fits(image: Path) -> None:
    before = facts(image)
    rebuild(image, RebuildOptions(size="auto"))
    found = superblock(image)
    assert facts(image) == before and image.stat().st_size == found.size_bytes < 24 * MIB
    assert found.free_blocks >= (found.blocks_count - found.free_blocks) // 10


def test_one_reserved_block_is_not_rounded_away(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    create(image, CreateOptions(size=24 * MIB))
    for size, reserved in ((8, 1), (24, 3)):
        rebuild(image, RebuildOptions(size=size * MIB))
        assert superblock(image).reserved_blocks == reserved
    with ext3.Filesystem.open(image, "r+") as fs:
        fs.change_settings(reserved_blocks=0)
    rebuild(image)
    assert superblock(image).reserved_blocks == 0


def test_inodes_that_are_used_up_are_doubled(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    create(image, CreateOptions(size=24 * MIB, inodes=200))
    with ext3.Filesystem.open(image, "r+") as fs, pytest.raises(ext3.NoFreeInodesError):
        for number in range(1000):
            fs.write_bytes(f"/upper/{number}", b"x")
    before = superblock(image)
    assert before.free_inodes == 0
    done = rebuild(image)
    assert 2 * before.inodes_count - 50 < done.after.inodes < 3 * before.inodes_count
    rebuild(image)
    assert superblock(image).inodes_count == done.after.inodes  # half of them are free now: they stay as they are


def test_an_image_without_a_journal_stays_so(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    create(image, CreateOptions(size=24 * MIB, journal=False))
    assert rebuild(image).after.journal_bytes == 0 and not superblock(image).has_journal
    assert rebuild(image, RebuildOptions(journal_bytes=2 * MIB)).after.journal_bytes == 2 * MIB
    assert superblock(image).has_journal


@pytest.mark.parametrize(("content", "inodes"), [(0, 150_000), (28 * MIB, 40_000)])  # beside it the files fit, or do not
def test_a_large_journal_gives_way_to_inodes(tmp_path: Path, content: int, inodes: int) -> None:
    image, source = tmp_path / "a.img", tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(bytes(range(256)) * (content // 256))
    create(image, CreateOptions(size=48 * MIB, journal_bytes=16 * MIB, from_dir=source))
    done = rebuild(image, RebuildOptions(inodes=inodes))
    assert done.before.journal_bytes == 16 * MIB and 0 < done.after.journal_bytes < 16 * MIB
    assert done.after.inodes >= inodes * 0.99
    assert ["smaller journal" in note for note in done.notes] == [True]


def test_a_small_journal_stays_where_there_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(bytes(range(256)) * (40 * MIB // 256))
    create(tmp_path / "a.img", CreateOptions(size=48 * MIB, journal_bytes=MIB, from_dir=tmp_path / "source"))
    with pytest.raises(NoSpaceError) as caught:
        rebuild(tmp_path / "a.img", RebuildOptions(inodes=40_000))  # 10 MiB of them; the usual journal has 4 MiB
    assert 51 * MIB < caught.value.needed_bytes < 55 * MIB


@pytest.mark.parametrize(
    ("made", "options", "hint"),
    [
        (CreateOptions(size=24 * MIB, block_size=4096, inode_size=2048), RebuildOptions(block_size=1024), "-I 256"),
        (CreateOptions(size=24 * MIB, block_size=1024), RebuildOptions(size=8 << 40), "-b 4096"),
        (CreateOptions(size=16 * MIB, block_size=2048, inode_ratio=1024), RebuildOptions(inode_size=2048), "-N"),
    ],
)
def test_a_value_that_stays_and_does_not_fit_any_more(
    tmp_path: Path, made: CreateOptions, options: RebuildOptions, hint: str
) -> None:
    create(tmp_path / "a.img", made)
    with pytest.raises(UsageError) as caught:
        rebuild(tmp_path / "a.img", options)
    assert hint in caught.value.hint and "leave" not in caught.value.hint


def test_what_it_needs_is_said_before(image: Path) -> None:
    told: list[RebuildStart] = []
    content = image.read_bytes()

    def begin(start: RebuildStart) -> None:
        told.append(start)
        raise KeyError

    with pytest.raises(KeyError):
        rebuild(image, begin=begin)
    assert image.read_bytes() == content
    used = 24 * MIB - superblock(image).free_blocks * 1024
    assert abs(told[0].needed_bytes - used) < 4 * MIB and (told[0].available_bytes or 0) > 0


@pytest.fixture
def untouched(image: Path) -> Iterator[Path]:
    """An image that the test leaves as it is, alone in its directory."""
    before, status = image.read_bytes(), image.stat()
    yield image
    assert image.read_bytes() == before
    assert (image.stat().st_ino, image.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert {path.name for path in image.parent.iterdir()} == {"a.img"}


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        (RebuildOptions(size=5 * MIB), NoSpaceError, "it needs"),
        (RebuildOptions(inodes=16), NoInodesError, "inodes"),
        (RebuildOptions(inodes=1 << 24), (NoSpaceError, UsageError), "inodes"),
        (RebuildOptions(size=100), UsageError, "too small"),
        (RebuildOptions(block_size=512), UsageError, "--block-size 512"),
        (RebuildOptions(inode_size=64), UsageError, "--inode-size 64"),
        (RebuildOptions(journal_bytes=1000), UsageError, "journal"),
        (RebuildOptions(inodes=500, inode_ratio=4096), UsageError, "contradict"),
        (RebuildOptions(offset=1024), UsageError, "larger file"),
        (RebuildOptions(partition="overlay"), UsageError, "partition"),
    ],
)
def test_impossible_requests(untouched: Path, options: RebuildOptions, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        rebuild(untouched, options)
    assert caught.value.hint  # type: ignore[attr-defined]


def test_a_size_that_is_named_is_enough(image: Path) -> None:
    with pytest.raises(NoSpaceError) as caught:
        rebuild(image, RebuildOptions(size=5 * MIB))
    least = int(caught.value.hint.split("--size ")[1].split("M")[0])
    rebuild(image, RebuildOptions(size=least * MIB))
    with pytest.raises(NoInodesError) as few:
        rebuild(image, RebuildOptions(inodes=20))
    rebuild(image, RebuildOptions(inodes=few.value.enough))


def test_an_image_in_use(untouched: Path) -> None:
    fd = os.open(untouched, os.O_RDWR)
    try:
        if not lock_range(fd, write=False, path=untouched):
            pytest.skip("no locks here")
        with pytest.raises(ImageInUseError):
            rebuild(untouched)
    finally:
        os.close(fd)


def set_field(path: Path, **fields: int) -> None:
    data = bytearray(path.read_bytes())
    row = SUPERBLOCK.view(data, 1, SUPERBLOCK_OFFSET)
    for name, value in fields.items():
        row[name] = value
    path.write_bytes(data)


@pytest.mark.parametrize("state", [STATE_ERROR | 1, 0])
def test_an_image_that_is_marked_as_damaged(image: Path, state: int) -> None:
    set_field(image, s_state=state)
    with pytest.raises(NeedsCheckError, match=r"a\.img"):
        rebuild(image)


def test_damage_is_met(image: Path) -> None:
    with ext3.Filesystem.open(image) as fs:
        block = fs.data_extents("/upper/links")[0][1]
    data = bytearray(image.read_bytes())
    data[block * 1024 + 4 : block * 1024 + 6] = b"\3\0"
    image.write_bytes(data)
    before = image.read_bytes()
    with pytest.raises(CorruptError):
        rebuild(image)
    assert image.read_bytes() == before


def test_a_dirty_journal_is_read_through(image: Path) -> None:
    copy = image.with_name("dirty.img")
    fs = ext3.Filesystem.open(image, "r+")
    fs.write_bytes("/upper/late", b"late")
    fs._session._failed = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(fs._session), "_end_use", lambda self: None)  # as if it was killed before the journal was empty
        fs.close()
    copy.write_bytes(image.read_bytes())
    before = facts(copy)
    assert superblock(copy).needs_recovery and b"/upper/late" in before
    rebuild(copy)
    assert facts(copy) == before and not superblock(copy).needs_recovery


def test_a_failure_while_writing(untouched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(emit, "_write_directories", fail)
    with pytest.raises(HostFullError, match="needs up to"):
        rebuild(untouched)


def test_a_link_is_followed(image: Path) -> None:
    link, before = image.with_name("link.img"), facts(image)
    link.symlink_to(image.name)
    rebuild(link)
    assert link.is_symlink() and facts(image) == before


@pytest.mark.parametrize("content", [b"hsqs" + bytes(5000), b"#!/bin/sh\n" * 1000, b""])
def test_what_is_no_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises((SifkitError, ext3.Ext3Error)):
        rebuild(path)
    with pytest.raises((SifkitError, OSError)):
        rebuild(tmp_path / "missing")
    with pytest.raises(FormatError):
        rebuild(tmp_path)
    assert path.read_bytes() == content


# In a SIF image


@pytest.fixture
def sif(tmp_path: Path, image: Path) -> Path:
    path = tmp_path / "a.sif"
    with SIF.create(path, capacity=8, stamp=STAMP) as made:
        made.add(b"hsqs" + b"root" * 300, DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
    attach(path, image, stamp=STAMP)
    return path


def overlay_offset(path: Path) -> int:
    with SIF.open(path) as found:
        return found.overlays[0].offset


def others(path: Path) -> list[tuple[int, bytes]]:
    with SIF.open(path) as found:
        return [(one.id, found.read(one.id)) for one in found if one.part_type != PartType.OVERLAY]


@pytest.mark.parametrize("last", [True, False])
def test_in_a_sif(sif: Path, last: bool) -> None:
    if not last:
        with SIF.open(sif, "r+", stamp=STAMP) as found:
            found.add(b"behind" * 1000, DataType.GENERIC)
    start = overlay_offset(sif)
    before, rest = facts(sif, start), others(sif)
    done = rebuild(sif, RebuildOptions(size=30 * MIB, inodes=20_000))
    assert done.partition is not None and (done.partition.id, done.partition.size) == (2, 30 * MIB)
    assert done.partition.offset == overlay_offset(sif) > start
    assert done.old_partition is not None and (done.old_partition.offset, done.old_partition.size) == (start, 24 * MIB)
    assert facts(sif, done.partition.offset) == before and others(sif) == rest
    assert_sound(sif.read_bytes())
    with SIF.open(sif) as found:
        assert found.get(2).fs_type == FSType.EXT3 and found.get(2).group == 1
    assert sif.stat().st_blocks * 512 < sif.stat().st_size - 20 * MIB  # the old place is a hole


def test_a_partition_by_its_offset(sif: Path) -> None:
    before = facts(sif, overlay_offset(sif))
    rebuild(sif, RebuildOptions(offset=overlay_offset(sif)))
    assert facts(sif, overlay_offset(sif)) == before


def test_a_failure_in_a_sif(sif: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sif.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rebuilding, "write_image", fail)
    with pytest.raises(KeyboardInterrupt):
        rebuild(sif)
    assert sif.read_bytes() == before


def test_signatures(sif: Path) -> None:
    """Refused, or removed in the same commit."""
    with SIF.open(sif, "r+", stamp=STAMP) as found:
        found.add(b"not parsed", DataType.SIGNATURE, link_group=1, metadata=SignatureMeta(HashType.SHA256, b""))
    before, files = sif.read_bytes(), facts(sif, overlay_offset(sif))
    with pytest.raises(SignedError, match="rebuilding object 2 would break signature 3"):
        rebuild(sif)
    assert sif.read_bytes() == before
    kept = rebuild(sif, RebuildOptions(on_signatures="keep"))
    assert kept.dropped == () and any("breaks" in note for note in kept.notes)
    assert rebuild(sif, RebuildOptions(on_signatures="drop")).dropped == (3,)
    assert facts(sif, overlay_offset(sif)) == files and len(others(sif)) == 1
