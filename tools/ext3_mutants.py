"""Small ext3 images that have everything, and damaged copies of them: what fuzz_ext3.py tries."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import ext3
from ext3.constants import S_IFDIR, S_IFIFO, InodeFlag
from ext3.device.base import MemoryDevice
from ext3.device.copy_on_write import RecordingDevice, play
from ext3.edit.filesystem import WritableFilesystem
from ext3.errors import Ext3Error
from ext3.format.inode import Inode
from ext3.format.jbd_schema import JOURNAL_HEADER, JOURNAL_REVOKE, JOURNAL_SUPERBLOCK, JOURNAL_TAG
from ext3.format.layout import Layout
from ext3.format.schema import (
    DIRENT,
    DX_ENTRY,
    GROUP_DESC,
    INODE_CORE,
    INODE_EXTRA,
    SUPERBLOCK,
    XATTR_ENTRY,
    XATTR_HEADER,
)
from ext3.journal.log import read_journal
from ext3.newfs.builder import TreeBuilder
from ext3.newfs.content import MemoryContent
from ext3.newfs.plan import ImageOptions
from ext3.newfs.stamp import Stamp

__all__ = ["Sample", "mutate", "sample_of", "samples"]

SECONDS = 1_700_000_000
COMMIT_START = bytes.fromhex("c03b399800000002")
"""The first bytes of a commit block."""
SUPER, INODES = "superblock", "inode"
Spot = tuple[str, int, Layout | int]
"""(kind, byte of the image, what is there: a structure, or so many bytes of no particular form)."""


def clock() -> int:
    """A time that stands still, in nanoseconds."""
    return SECONDS * 10**9


@dataclass(frozen=True, slots=True)
class Sample:
    """A good image, where its structures lie (by kind), and numbers that mean something in it: blocks and inodes in use."""

    data: bytes
    spots: dict[str, list[Spot]]
    numbers: list[int]


def samples() -> list[Sample]:
    """Images of several shapes: with a log to be played back, with an orphan list, without a journal."""
    made = [
        _image(3 << 20, 1024, 256, True, dirty=True),
        _image(3 << 20, 1024, 128, True, dirty=False),
        _image(2 << 20, 4096, 256, False, dirty=False),
        _image(4 << 20, 2048, 256, True, dirty=True),
        _image(2 << 20, 1024, 128, False, dirty=False),
    ]
    return [sample_of(data) for data in made]


def _image(size: int, block_size: int, inode_size: int, journal: bool, *, dirty: bool) -> bytes:
    builder = TreeBuilder()
    builder.add(0, b"", S_IFDIR | 0o755, 0, 0, 0, (SECONDS,) * 3 + (0,) * 3)
    device = MemoryDevice(size)
    options = ImageOptions(size=size, block_size=block_size, inode_size=inode_size, inodes=160, journal=journal)
    ext3.build_image(builder.finish(MemoryContent({})), device, options=options, stamp=Stamp(SECONDS, b"u" * 16, b"h" * 16))
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        _fill(fs, block_size)
    if not dirty:
        return bytes(device.data)
    before = MemoryDevice(bytes(device.data))
    recorded = RecordingDevice(device)
    fs = ext3.Filesystem.open(recorded, "r+", clock=clock)
    for name in ("one", "two", "three"):
        fs.hold(fs.lookup(f"/gone/{name}"))  # they become orphans
    fs.remove_tree("/gone")
    fs.write_bytes("/new", b"\xc0\x3b\x39\x98" * 700)
    fs.symlink("\u00c0" * 200, "/new-link")
    fs.sync()
    commits = [number for number, event in enumerate(recorded.events) if event.data[:8] == COMMIT_START]
    fs.abandon()
    return play(before, recorded.events[: commits[-1] + 1]).read(0, size)


def _fill(fs: WritableFilesystem, block_size: int) -> None:
    acl = bytes.fromhex("02000000 01000600ffffffff 02000700e8030000 04000400ffffffff 10000700ffffffff 20000400ffffffff")
    fs.mkdir("/d")
    fs.set_xattr("/d", b"system.posix_acl_default", acl)
    for number in range(18):
        fs.write_bytes(f"/d/{number}-" + "n" * (block_size // 12 % 230), bytes((number,)) * (number * 300))
    fs.mkdir("/d/e")
    fs.mkdir("/d/e/f")
    fs.mkdir("/gone")
    for name, length in (("one", 3 * block_size), ("two", 20 * block_size), ("three", 0)):
        fs.write_bytes(f"/gone/{name}", b"g" * length)
    pointers = block_size // 4
    fs.write_bytes("/large", b"L" * (40 * block_size))
    with fs.open_file("/large", "r+") as file:
        file.write_at((12 + pointers + 3) * block_size, b"double")
        file.write_at((12 + pointers + pointers**2 + 3) * block_size, b"triple")
    fs.symlink("large", "/short")
    fs.symlink("d/e/" + "x/" * 60, "/long")
    fs.mknod("/chr", 0o020600, (300, 70_000))
    fs.mknod("/fifo", S_IFIFO | 0o600)
    fs.link("/large", "/d/twin")
    for path in ("/large", "/d", "/short"):
        fs.set_xattr(path, b"trusted.t", b"same value" * 20, follow=False)
        fs.set_xattr(path, b"security.s", b"v" * (block_size // 3), follow=False)


# -- where everything is -------------------------------------------------------------------------------------------


def sample_of(data: bytes) -> Sample:
    """An image with its structures looked up. Raises Ext3Error where it is no image that can be opened."""
    raw = ext3.Filesystem(MemoryDevice(data))
    raw.device = MemoryDevice(data)  # as it lies, not as its journal will leave it
    spots: dict[str, list[Spot]] = {}
    numbers = {0}
    for spot in _spots(raw, numbers):
        spots.setdefault(spot[0], []).append(spot)
    return Sample(data, spots, sorted(numbers))


def _spots(fs: ext3.Filesystem, numbers: set[int]) -> Iterator[Spot]:
    superblock, size = fs.superblock, fs.superblock.block_size
    yield SUPER, 1024, SUPERBLOCK
    geometry = superblock.geometry
    per_block = geometry.descriptors_per_block
    for group, row in enumerate(fs.groups):
        yield "group", geometry.descriptor_block(group // per_block) * size + group % per_block * GROUP_DESC.size, GROUP_DESC
        for name in ("bg_block_bitmap", "bg_inode_bitmap"):
            numbers.add(int(row[name]))
            yield "bitmap", int(row[name]) * size, size // 4
    used = [entry.ino for _, entry in fs.walk(onerror=lambda error: None)]
    for ino in {2, 7, 8, superblock.last_orphan or 2, *used[:400]}:
        numbers.add(ino)
        group, index = divmod(ino - 1, superblock.inodes_per_group)
        offset = int(fs.groups["bg_inode_table"][group]) * size + index * superblock.inode_size
        yield INODES, offset, INODE_CORE
        if superblock.inode_size > INODE_CORE.size:
            yield "inode extra", offset + INODE_CORE.size, INODE_EXTRA
            yield "inode attributes", offset + INODE_CORE.size + INODE_EXTRA.size, 64
        try:
            yield from _spots_of_file(fs, fs.inode(ino), numbers)
        except Ext3Error:
            continue
    if superblock.has_journal and superblock.journal_ino:
        yield from _spots_of_journal(fs, numbers)


def _spots_of_file(fs: ext3.Filesystem, inode: Inode, numbers: set[int]) -> Iterator[Spot]:
    size = fs.superblock.block_size
    facts = inode.stat
    if facts.file_acl:
        numbers.add(facts.file_acl)
        yield "attributes", facts.file_acl * size, XATTR_HEADER
        yield "attributes", facts.file_acl * size + XATTR_HEADER.size, XATTR_ENTRY
        yield "attributes", facts.file_acl * size, 128
    if facts.ino == fs.superblock.journal_ino:
        return
    found = fs.block_map(inode)
    for block in found.indirect:
        numbers.add(block)
        yield "pointers", block * size, 64
    numbers.update(row[1] for row in found.extents)
    if not facts.is_dir:
        return
    for _, physical, count in found.extents:
        for block in range(physical, physical + count):
            yield "directory", block * size, size
            at = 0
            while at + DIRENT.size <= size:
                yield "directory", block * size + at, DIRENT
                length = DIRENT.packer.unpack(fs.device.read(block * size + at, DIRENT.size))[1]
                at += max(12, length)
    if facts.flags & InodeFlag.INDEX and len(found.extents):
        yield "index", found.extents[0][1] * size + 24, 64
        yield "index", found.extents[0][1] * size + 32, DX_ENTRY


def _spots_of_journal(fs: ext3.Filesystem, numbers: set[int]) -> Iterator[Spot]:
    journal = read_journal(fs.device, fs.superblock, fs.groups)
    numbers.update(journal.offset(position) // journal.block_size for position in range(3))
    yield "journal superblock", journal.offset(0), JOURNAL_SUPERBLOCK
    for position in range(journal.first, min(journal.maxlen, journal.first + 40)):
        offset = journal.offset(position)
        if not any(fs.device.read(offset, JOURNAL_HEADER.size)):
            continue
        yield "log", offset, JOURNAL_HEADER
        yield "log", offset, JOURNAL_REVOKE
        yield "log", offset + JOURNAL_HEADER.size, JOURNAL_TAG
        yield "log", offset, 256


# -- damage --------------------------------------------------------------------------------------------------------


def mutate(sample: Sample, chance: random.Random) -> bytes:
    """One to six changes: fields of structures, bytes, structures copied over others of their kind, rarely the end cut off."""
    data = bytearray(sample.data)
    kinds = sorted(sample.spots)
    if chance.random() < 0.5:
        kinds = [chance.choice(kinds)]  # damage of one kind reaches deeper
    for _ in range(chance.choice([1, 1, 2, 3, 6])):
        spots = sample.spots[chance.choice(kinds)]
        kind, offset, what = chance.choice(spots)
        if kind == SUPER and chance.random() < 0.5:
            kind, offset, what = chance.choice(sample.spots[INODES])
        if isinstance(what, int):
            place = offset + chance.randrange(what)
            width = chance.choice([1, 1, 2, 4])
            value = chance.choice([chance.randrange(256), _number(sample, chance)])
            data[place : place + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        elif chance.random() < 0.1:
            _, other, layout = chance.choice(spots)
            length = min(what.size, layout.size if isinstance(layout, Layout) else layout)
            data[offset : offset + length] = data[other : other + length]
        else:
            _set_field(data, sample, what, offset, chance)
    if chance.random() < 0.01:
        del data[chance.randrange(1024, len(data)) :]
    return bytes(data[: len(sample.data)])


def _set_field(data: bytearray, sample: Sample, layout: Layout, offset: int, chance: random.Random) -> None:
    row = layout.view(data, 1, offset)
    name = chance.choice(layout.dtype.names or ())
    column = row[name]
    if column.dtype.kind not in "ui":
        return
    flat = column.reshape(-1)
    at = chance.randrange(len(flat))
    old = int(flat[at])
    value = chance.choice(
        [old ^ 1 << chance.randrange(8 * flat.itemsize), old + chance.randint(-3, 3), _number(sample, chance)]
    )
    flat[at : at + 1].view(f"V{flat.itemsize}")[0] = (value & (1 << 8 * flat.itemsize) - 1).to_bytes(
        flat.itemsize, "big" if flat.dtype.byteorder == ">" else "little"
    )


def _number(sample: Sample, chance: random.Random) -> int:
    return chance.choice(
        [0, 1, 2, 8, 11, 12, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << chance.randrange(32), chance.choice(sample.numbers),
         chance.choice(sample.numbers), chance.choice(sample.numbers) + 1, chance.getrandbits(32), chance.getrandbits(12)]
    )  # fmt: skip
