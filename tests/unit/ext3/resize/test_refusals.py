"""What is not resized: filesystems that have to be checked first, changes that do not fit the journal. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import ext3
from ext3.constants import RESIZE_INO, SUPERBLOCK_OFFSET, Compat, Incompat, RoCompat
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice
from ext3.errors import CorruptError, NeedsCheckError, UnsupportedError
from ext3.format.group_desc import read_groups
from ext3.format.inode_table import inode_offset
from ext3.format.schema import GROUP_DESC, INODE_CORE, SUPERBLOCK
from ext3.format.superblock import read_superblock
from ext3.resize import prepare
from ext3.resize.transactions import Transactions

from ....support.recorded_edits import state
from ....support.resizes import aged_image, findings_of, resize
from ....support.sessions import clock

MIB = 1 << 20
PRISTINE = bytes(aged_image(20 * MIB, files=40).data)
READY = prepare(MemoryDevice(PRISTINE))
LEAST = READY.minimum().size_bytes


def set_super(**fields: int) -> Callable[[MemoryDevice], None]:
    """Change fields of the superblock; ``x_or`` sets bits, ``x_not`` clears them."""

    def change(device: MemoryDevice) -> None:
        row = SUPERBLOCK.view(memoryview(device.data)[SUPERBLOCK_OFFSET : SUPERBLOCK_OFFSET + 1024])[0]
        for name, value in fields.items():
            if name.endswith("_or"):
                row[name[:-3]] |= value
            elif name.endswith("_not"):
                row[name[:-4]] &= ~value & 0xFFFF
            else:
                row[name] = value

    return change


def set_group(group: int, **fields: int) -> Callable[[MemoryDevice], None]:
    def change(device: MemoryDevice) -> None:
        at = 2048 + group * 32
        row = GROUP_DESC.view(memoryview(device.data)[at : at + 32])[0]
        for name, value in fields.items():
            row[name] = value

    return change


def set_inode(ino: int, **fields: object) -> Callable[[MemoryDevice], None]:
    def change(device: MemoryDevice) -> None:
        superblock = read_superblock(device)
        at = inode_offset(superblock, read_groups(device, superblock), ino)
        row = INODE_CORE.view(memoryview(device.data)[at : at + 128])[0]
        for name, value in fields.items():
            row[name] = value

    return change


def flip(column: str, group: int, byte: int, bits: int = 0xFF) -> Callable[[MemoryDevice], None]:
    """Flip bits of a bitmap."""

    def change(device: MemoryDevice) -> None:
        device.data[int(READY.groups[column][group]) * 1024 + byte] ^= bits

    return change


DIND = int(INODE_CORE.view(PRISTINE, 1, inode_offset(READY.superblock, READY.groups, RESIZE_INO))[0]["i_block"][13])


def set_byte(at: int, value: int) -> Callable[[MemoryDevice], None]:
    def change(device: MemoryDevice) -> None:
        device.data[at] = value

    return change


ALWAYS = {
    "errors": (set_super(s_state_or=2), NeedsCheckError),
    "not clean": (set_super(s_state_not=1), NeedsCheckError),
    "dirty journal": (set_super(s_feature_incompat_or=int(Incompat.NEEDS_RECOVERY)), NeedsCheckError),
    "orphans": (set_super(s_last_orphan=12), NeedsCheckError),
    "visible journal": (set_super(s_journal_inum=12), NeedsCheckError),
    "both kinds of growth": (set_super(s_feature_incompat_or=int(Incompat.META_BG)), NeedsCheckError),
    "reserve without its inode": (set_super(s_feature_compat_not=int(Compat.RESIZE_INODE)), NeedsCheckError),
    "sparse_super2": (set_super(s_feature_compat_or=int(Compat.SPARSE_SUPER2)), UnsupportedError),
    "flex_bg": (set_super(s_feature_incompat_or=int(Incompat.FLEX_BG)), UnsupportedError),
    "bigalloc": (set_super(s_feature_ro_compat_or=int(RoCompat.BIGALLOC)), UnsupportedError),
    "checksums": (set_super(s_feature_ro_compat_or=int(RoCompat.METADATA_CSUM)), UnsupportedError),
    "too many reserved": (set_super(s_r_blocks_count=20_000), CorruptError),
    "bitmap elsewhere": (set_group(1, bg_block_bitmap=20), CorruptError),
    "table elsewhere": (set_group(2, bg_inode_table=3), CorruptError),
    "overlap": (set_group(1, bg_inode_bitmap=int(READY.groups["bg_block_bitmap"][1])), NeedsCheckError),
    "resize inode without a map": (set_inode(RESIZE_INO, i_block=0), CorruptError),
    "resize inode with more": (set_inode(RESIZE_INO, i_block=[5, *[0] * 12, DIND, 0]), CorruptError),
    "resize inode of another kind": (set_inode(RESIZE_INO, i_mode=0o40700), CorruptError),
    "map of the resize inode": (set_byte(DIND * 1024 + 4 * 2, 99), CorruptError),
    "last bitmap": (flip("bg_block_bitmap", 2, 400), CorruptError),
    "last padding": (flip("bg_block_bitmap", 2, 1000, 0x80), CorruptError),
    "last inode bitmap": (flip("bg_inode_bitmap", 2, 100), CorruptError),
    "last count": (set_group(2, bg_free_blocks_count=7), CorruptError),
    "last inode count": (set_group(2, bg_free_inodes_count=7), CorruptError),
}
ONLY_MOVES = {
    "a block used and marked as free": flip("bg_block_bitmap", 0, 130),
    "another inode count": set_group(0, bg_free_inodes_count=3),
    "another directory count": set_group(0, bg_used_dirs_count=30),
    "two owners": set_inode(12, i_block=[DIND + 1, *[0] * 14]),
    "links": set_inode(12, i_links_count=40),
    "inode bitmap": flip("bg_inode_bitmap", 0, 0, 0x01),
}


def _attempt(change: Callable[[MemoryDevice], None], size: int) -> ext3.Ext3Error | None:
    device = MemoryDevice(PRISTINE)
    change(device)
    before = bytes(device.data)
    recorded = RecordingDevice(device)
    try:
        resize(recorded, size)
    except ext3.Ext3Error as error:
        assert not recorded.events
        assert device.data == before
        return error
    return None


@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.parametrize("size", [LEAST, 30 * MIB])
def test_refused(name: str, size: int) -> None:
    change, kind = ALWAYS[name]
    error = _attempt(change, size)
    # A plan that moves something finds it by the census.
    assert isinstance(error, (kind, NeedsCheckError) if name.startswith("last") else kind)
    assert error.needs_check or isinstance(error, UnsupportedError)
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", ONLY_MOVES)
def test_refused_if_something_moves(name: str) -> None:
    error = _attempt(ONLY_MOVES[name], LEAST)
    assert isinstance(error, NeedsCheckError)
    assert error.needs_check
    assert _attempt(ONLY_MOVES[name], 30 * MIB) is None


def test_a_filesystem_that_changed_since() -> None:
    device = MemoryDevice(PRISTINE)
    plan = prepare(device).plan(LEAST)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.write_bytes("/many/new", b"n" * 4_000_000)
    before = bytes(device.data)
    with pytest.raises(NeedsCheckError, match="planned for"):
        ext3.resize.apply(device, plan, device_bytes=LEAST, clock=clock)
    resized = MemoryDevice(PRISTINE)
    resize(resized, 30 * MIB)
    with pytest.raises(NeedsCheckError, match="planned for"):
        ext3.resize.apply(resized, plan, clock=clock)
    assert device.data == before


def test_a_device_that_is_too_small() -> None:
    device = MemoryDevice(PRISTINE)
    plan = prepare(device).plan(30 * MIB)
    with pytest.raises(ext3.DeviceError, match="do not fit"):
        ext3.resize.apply(device, plan, clock=clock)
    assert device.data == PRISTINE


def test_one_change_too_large_for_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found before anything is written; a copy can do without the journal."""
    device = MemoryDevice(PRISTINE)
    content = state(device)
    plan = prepare(device).plan(LEAST)
    monkeypatch.setattr(Transactions, "capacity", 5)
    recorded = RecordingDevice(device)
    with pytest.raises(ext3.JournalFullError):
        ext3.resize.apply(recorded, plan, device_bytes=LEAST, clock=clock)
    assert not recorded.events
    monkeypatch.undo()
    ext3.resize.apply(recorded, plan, device_bytes=LEAST, journaled=False, clock=clock)
    assert sum(event.kind == "sync" for event in recorded.events) < 14
    assert not findings_of(device)
    assert state(device) == content


@pytest.mark.parametrize("seed", [1, 2])
def test_without_a_journal(seed: int) -> None:
    device = aged_image(20 * MIB, journal=False, seed=seed)
    content = state(device)
    for size in (None, 40 * MIB, 15 * MIB):
        resize(device, size or prepare(device).minimum().size_bytes)
        assert not findings_of(device)
        assert state(device) == content


def test_not_clean_while_it_is_resized_without_a_journal() -> None:
    device = aged_image(20 * MIB, journal=False)
    plan = prepare(device).plan(prepare(device).minimum().size_bytes)

    class Stops(RecordingDevice):
        def sync(self) -> None:
            super().sync()
            if sum(event.kind == "sync" for event in self.events) == 3:
                raise ext3.DeviceError("stopped")

    with pytest.raises(ext3.DeviceError, match="stopped"):
        ext3.resize.apply(Stops(device), plan, clock=clock)
    assert not read_superblock(device).clean
