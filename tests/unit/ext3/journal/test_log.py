"""The journal read: what a replay would change, what is refused, and that a hostile log ends."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from typing import Any

import pytest

import ext3
from ext3.constants import JBD_MAGIC, SUPERBLOCK_OFFSET, Incompat
from ext3.device.base import MemoryDevice
from ext3.device.block_overlay import BlockOverlay
from ext3.device.copy_on_write import CopyOnWriteDevice
from ext3.edit.session import Session
from ext3.errors import CorruptError, DeviceError, Ext3Error, UnsupportedError
from ext3.format.group_desc import read_groups
from ext3.format.jbd_schema import (
    JOURNAL_COMMIT,
    JOURNAL_HEADER,
    JOURNAL_REVOKE,
    JOURNAL_SUPERBLOCK,
    JOURNAL_TAG,
)
from ext3.format.schema import INODE_CORE, SUPERBLOCK
from ext3.format.superblock import Superblock, read_superblock
from ext3.journal.log import (
    COMMIT,
    DESCRIPTOR,
    REVOKE,
    TAG_ESCAPE,
    TAG_LAST,
    TAG_SAME_UUID,
    Journal,
    read_journal,
    scan_log,
)
from ext3.journal.replay import recover, through_journal

from ....support.sessions import clock, sample

BLOCK = 1024
MAGIC = JBD_MAGIC.to_bytes(4, "big")


def open_journal(device: MemoryDevice) -> tuple[Superblock, Journal]:
    superblock = read_superblock(device)
    return superblock, read_journal(device, superblock, read_groups(device, superblock))


def journal_field(device: MemoryDevice, **fields: int) -> None:
    _, journal = open_journal(device)
    row = JOURNAL_SUPERBLOCK.view(device.data, 1, journal.offset(0))
    for name, value in fields.items():
        row[name] = value


def superblock_field(device: MemoryDevice, **fields: int) -> None:
    row = SUPERBLOCK.view(device.data, 1, SUPERBLOCK_OFFSET)
    for name, value in fields.items():
        row[name] = value


def descriptor(sequence: int, blocks: Sequence[int], *, flags: int = 0) -> bytes:
    data = JOURNAL_HEADER.packer.pack(JBD_MAGIC, DESCRIPTOR, sequence)
    for number, block in enumerate(blocks):
        last = TAG_LAST if number == len(blocks) - 1 else 0
        data += JOURNAL_TAG.packer.pack(block, 0, flags | last | (TAG_SAME_UUID if number else 0))
        data += b"" if number else b"U" * 16
    return data.ljust(BLOCK, b"\0")


def revoke(sequence: int, blocks: Sequence[int]) -> bytes:
    head = JOURNAL_REVOKE.packer.pack(JBD_MAGIC, REVOKE, sequence, 16 + 4 * len(blocks))
    return (head + b"".join(block.to_bytes(4, "big") for block in blocks)).ljust(BLOCK, b"\0")


def commit(sequence: int) -> bytes:
    return JOURNAL_COMMIT.packer.pack(JBD_MAGIC, COMMIT, sequence, 0, 0, b"\0\0", *[0] * 8, 1, 0).ljust(BLOCK, b"\0")


def content(fill: int) -> bytes:
    return bytes((fill,)) * BLOCK


def dirty(blocks: Sequence[bytes], *, start: int = 1, sequence: int = 7) -> MemoryDevice:
    """An image whose log holds ``blocks`` from ``start`` on (wrapping around)."""
    device = sample()
    _, journal = open_journal(device)
    for number, data in enumerate(blocks):
        position = journal.first + (start - journal.first + number) % (journal.maxlen - journal.first)
        device.write(journal.offset(position), data)
    journal_field(device, s_start=start, s_sequence=sequence)
    superblock_field(device, s_feature_incompat=int(Incompat.FILETYPE | Incompat.NEEDS_RECOVERY))
    return device


def replayed(device: MemoryDevice) -> dict[int, bytes]:
    superblock, journal = open_journal(device)
    replay = scan_log(device, journal, blocks_count=superblock.blocks_count)
    return {block: replay.load(device, block) for block in replay.blocks}


def test_last_content_counts() -> None:
    device = dirty(
        [descriptor(7, [5000, 5001]), content(1), content(2), commit(7), descriptor(8, [5001]), content(3), commit(8)]
    )
    assert replayed(device) == {5000: content(1), 5001: content(3)}
    superblock, journal = open_journal(device)
    replay = scan_log(device, journal, blocks_count=superblock.blocks_count)
    assert (replay.transactions, replay.next_sequence) == (2, 10)


def test_without_commit_nothing_counts() -> None:
    device = dirty([descriptor(7, [5000]), content(1), commit(7), descriptor(8, [5000]), content(2)])
    assert replayed(device) == {5000: content(1)}


@pytest.mark.parametrize(
    ("where", "expected"),
    [("before", {5001: content(2)}), ("same", {5001: content(2)}), ("after", {5000: content(1), 5001: content(2)})],
)
def test_revoke(where: str, expected: dict[int, bytes]) -> None:
    """A revoke voids older content of a block and that of its own transaction, not what is logged later."""
    first = [descriptor(7, [5000, 5001]), content(1), content(2)]
    if where == "before":
        log = [*first, commit(7), revoke(8, [5000]), commit(8)]
    elif where == "same":
        log = [*first, revoke(7, [5000]), commit(7)]
    else:
        log = [revoke(7, [5000]), commit(7), descriptor(8, [5000, 5001]), content(1), content(2), commit(8)]
    assert replayed(dirty(log)) == expected


def test_revoke_across_the_numbers_end() -> None:
    top = 0xFFFFFFFF
    log = [descriptor(top, [5000]), content(1), commit(top), revoke(0, [5000]), commit(0)]
    assert replayed(dirty(log, sequence=top)) == {}
    log = [revoke(top, [5000]), commit(top), descriptor(0, [5000]), content(1), commit(0)]
    assert replayed(dirty(log, sequence=top)) == {5000: content(1)}


def test_escaped() -> None:
    device = dirty([descriptor(7, [5000], flags=TAG_ESCAPE), bytes(4) + content(9)[4:], commit(7)])
    assert replayed(device) == {5000: MAGIC + content(9)[4:]}


def test_wraps_around() -> None:
    _, journal = open_journal(sample())
    device = dirty([descriptor(7, [5000, 5001]), content(1), content(2), commit(7)], start=journal.maxlen - 2)
    assert replayed(device) == {5000: content(1), 5001: content(2)}


@pytest.mark.parametrize("block", [descriptor(7, []), revoke(7, [])])
def test_log_that_never_ends(block: bytes) -> None:
    """A log full of blocks that all look right, without one commit: one turn is enough."""
    _, journal = open_journal(sample())
    before = time.monotonic()
    assert replayed(dirty([block] * (journal.maxlen - 1))) == {}
    assert time.monotonic() - before < 60


@pytest.mark.parametrize(
    ("log", "field"),
    [
        ([descriptor(7, [8192]), content(1), commit(7)], "t_blocknr"),
        ([revoke(7, [])[:12] + b"\xff" * 4 + bytes(BLOCK - 16), commit(7)], "r_count"),
    ],
)
def test_damaged_log(log: list[bytes], field: str) -> None:
    """A damaged log is an error where it would be played back; looking inside works, and says what is wrong."""
    device = dirty(log)
    before = bytes(device.data)
    with pytest.raises(CorruptError) as caught:
        Session(device, clock=clock)
    assert caught.value.field == field
    assert bytes(device.data) == before
    with ext3.Filesystem.open(device) as fs:
        assert isinstance(fs.journal_problem, CorruptError)
        assert len(list(fs.scandir())) == 7


def test_target_inside_the_journal() -> None:
    _, journal = open_journal(sample())
    with pytest.raises(CorruptError, match="outside the journal"):
        replayed(dirty([descriptor(7, [journal.offset(9) // BLOCK]), content(1), commit(7)]))


@pytest.mark.parametrize(
    "fields",
    [
        {"h_magic": 1},
        {"h_blocktype": 2},
        {"s_blocksize": 4096},
        {"s_maxlen": 0},
        {"s_maxlen": 1 << 31},
        {"s_first": 0},
        {"s_first": 1 << 20},
        {"s_start": 1 << 31},
    ],
)
def test_damaged_journal_superblock(fields: dict[str, int]) -> None:
    device = sample()
    superblock = read_superblock(device)
    offset = open_journal(device)[1].offset(0)
    row = JOURNAL_SUPERBLOCK.view(device.data, 1, offset)
    for name, value in fields.items():
        row[name] = value
    with pytest.raises(CorruptError) as caught:
        read_journal(device, superblock, read_groups(device, superblock))
    assert caught.value.field == next(iter(fields))


@pytest.mark.parametrize(
    ("bits", "name"),
    [
        (2, "journal_64bit"),
        (4, "journal_async_commit"),
        (16, "journal_checksum_v3"),
        (32, "journal_fast_commit"),
        (1 << 20, "journal_incompat_20"),
    ],
)
def test_features_that_are_not_ours(bits: int, name: str) -> None:
    device = dirty([])
    journal_field(device, s_feature_incompat=bits)
    with pytest.raises(UnsupportedError, match=name):
        open_journal(device)
    with ext3.Filesystem.open(device) as fs:
        assert isinstance(fs.journal_problem, UnsupportedError)


def journal_inode(device: MemoryDevice) -> Any:
    superblock = read_superblock(device)
    table = int(read_groups(device, superblock)["bg_inode_table"][0]) * BLOCK
    return INODE_CORE.view(device.data, 1, table + 7 * superblock.inode_size)


@pytest.mark.parametrize(
    ("field", "value"), [("i_mode", 0o40755), ("i_links_count", 0), ("i_size", 0), ("i_size", 0xFFFFFFFF), ("i_flags", 0x80000)]
)
def test_damaged_journal_inode(field: str, value: int) -> None:
    device = sample()
    journal_inode(device)[field] = value
    with pytest.raises(CorruptError) as caught:
        open_journal(device)
    assert caught.value.field == field


def test_hole_and_block_twice_in_the_journal() -> None:
    for value in (0, None):
        device = sample()
        row = journal_inode(device)
        row["i_block"][0, 3] = row["i_block"][0, 4] if value is None else value
        with pytest.raises(CorruptError, match="block map"):
            open_journal(device)


def test_external_journal() -> None:
    device = sample()
    superblock_field(device, s_journal_inum=0)
    with pytest.raises(UnsupportedError, match="external_journal"):
        open_journal(device)


def test_seen_through_the_journal_as_after_recovery() -> None:
    device = dirty([descriptor(7, [6000, 6001]), content(1), content(2), commit(7)])
    superblock, journal = open_journal(device)
    view, problem = through_journal(device, superblock)
    assert problem is None
    expected = MemoryDevice(device.data)
    recover(expected, superblock, journal)
    for offset, size in [
        (6000 * BLOCK, BLOCK),
        (6000 * BLOCK + 100, 50),
        (5999 * BLOCK + 7, 4 * BLOCK),
        (6001 * BLOCK + 9, 3000),
    ]:
        assert view.read(offset, size) == expected.read(offset, size)
    again, after = open_journal(expected)
    assert not again.needs_recovery
    assert (after.start, after.sequence) == (0, 9)


def test_error_in_the_journal_marks_the_filesystem() -> None:
    device = dirty([descriptor(7, [6000]), content(1), commit(7)])
    journal_field(device, s_errno=5)
    recover(device, *open_journal(device))
    assert read_superblock(device).state & 2


def test_overlaid() -> None:
    under = MemoryDevice(bytes(range(256)) * 40)
    newer = {2: content(1), 3: content(2), 7: content(3)}
    view = BlockOverlay(under, BLOCK, newer, newer.__getitem__)
    expected = bytearray(under.data)
    for block, data in newer.items():
        expected[block * BLOCK : (block + 1) * BLOCK] = data
    for offset in (0, 1, 1023, 2048, 2049, 3071, 3072, 7167, 8000):
        for size in (0, 1, 1024, 1025, 2048, 2240):
            assert view.read(offset, size) == expected[offset : offset + size]
    assert view.read(0, view.size) == bytes(expected)
    with pytest.raises(DeviceError):
        view.read(view.size - 1, 2)
    for change in (lambda: view.write(0, b"x"), lambda: view.make_zero(0, 1)):
        with pytest.raises(DeviceError):
            change()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_any_damage_gives_a_typed_error_or_an_image(seed: int) -> None:
    """Bytes of the journal's superblock, its log and its inode changed at random: opened, or refused with a reason."""
    generator = random.Random(seed)
    first = [descriptor(7, [5000, 5001]), content(1), content(2), revoke(7, [5001]), commit(7)]
    log = [*first, descriptor(8, [1]), content(3), commit(8)]
    device = dirty(log)
    superblock, journal = open_journal(device)
    table = int(read_groups(device, superblock)["bg_inode_table"][0]) * BLOCK + 7 * superblock.inode_size
    for _ in range(25):
        damaged = CopyOnWriteDevice(device)
        for _ in range(generator.randrange(1, 6)):
            base, span = generator.choice([(table, 128), (journal.offset(0), 96), (journal.offset(1), 8 * BLOCK)])
            value = generator.choice([b"\0", b"\xff", bytes([generator.randrange(256)])])
            damaged.write(base + generator.randrange(span), value)
        with contextlib.suppress(Ext3Error), ext3.Filesystem.open(damaged) as fs:
            fs.lookup("f0")
        with contextlib.suppress(Ext3Error), Session(damaged, clock=clock) as edit:
            assert edit.log_space > 0
