"""A directory listed and a file loaded alone: the same as among many, damage included."""

from __future__ import annotations

import io
import random

import ext3
from ext3.constants import S_IFDIR, S_IFREG
from ext3.device.base import MemoryDevice
from ext3.read import tree_scan
from ext3.read.listing import BlockOwners, Listing, Loaded, are_small, list_directory, load_one

STAMP = ext3.Stamp(1_700_000_000, b"u" * 16, b"s" * 16)
FACTS = (5, 6, 1_700_000_000, 1, 1_700_000_001, 2)


def image() -> bytes:
    """An image of two small directories and one with indirect blocks; some of the files have attributes."""
    builder = ext3.TreeBuilder()
    builder.add(0, b"", S_IFDIR | 0o755, 0, 0, 0, FACTS)
    content = ext3.MemoryContent()
    for name, count in ((b"few", 30), (b"many", 900)):
        directory = builder.add(0, name, S_IFDIR | 0o755, 0, 0, 0, FACTS)
        for number in range(count):
            node = builder.add(directory, b"name %d" % number, S_IFREG | 0o644, number, 0, number % 3, FACTS)
            content.data[node] = b"abc"[: number % 3]
            if not number % 7:
                builder.xattrs[node] = {b"user.x": b"x" * (200 if number % 2 else 10)}
    device = MemoryDevice(8 << 20)
    options = ext3.ImageOptions(size=8 << 20, block_size=1024, inodes=2048)
    ext3.build_image(builder.finish(content), device, options=options, stamp=STAMP)
    return bytes(device.read(0, device.size))


def shown(listing: Listing) -> tuple[object, ...]:
    """A listing with its errors as text, to compare."""
    rows = [row._replace(stat=str(row.stat) if isinstance(row.stat, OSError) else row.stat) for row in listing.rows]
    return listing.node, rows, str(listing.problem), listing.directory_bytes


def compare(data: bytes) -> int:
    """Compare the two ways to list and load all that can be reached; return how many errors were met."""
    errors = 0
    with ext3.Filesystem.open(io.BytesIO(data)) as fs:
        level = [fs.root]
        while level:
            below: list[int] = []
            for ino in level:
                for stats in (True, False):
                    alone = list_directory(fs, ino, BlockOwners(), stats=stats)
                    (among,) = tree_scan.scan_many(fs, [ino], BlockOwners(), stats=stats)
                    assert shown(alone) == shown(among)
                    errors += alone.problem is not None
                    errors += sum(isinstance(row.stat, OSError) for row in alone.rows)
                for row in alone.rows:
                    below += [row.node] if row.file_type == 2 and row.name != b"lost+found" else []
                    if len(alone.rows) > 100:
                        continue
                    found = load_one(fs, row.node)
                    (many,) = tree_scan.load_many(fs, [row.node], keep_order=True, limit=0)
                    assert as_text(found) == as_text(many)
            level = below
    return errors


def as_text(loaded: Loaded) -> str:
    return str((loaded.position, loaded.node, loaded.stat, loaded.xattrs))


def test_the_same_as_among_many() -> None:
    data = image()
    assert compare(data) == 0
    with ext3.Filesystem.open(io.BytesIO(data)) as fs:
        many = fs.lookup("/many")
        assert fs.stat(many).size == 19 << 10
        assert are_small(fs, [many, many])
        assert not are_small(fs, [many, many, many])
        assert are_small(fs, [2] * 48)
        assert not are_small(fs, [2] * 49)
        (listing,) = fs.scan_many([fs.lookup("/few")])
        assert len(listing.rows) == 30
        again = fs.scan_many([fs.lookup("/few")])
        assert next(again).problem is None
        assert are_small(fs, [1 << 30])
        (missing,) = fs.scan_many([1 << 30])
        assert missing.problem is not None


def test_changes_are_seen_before_they_are_committed() -> None:
    with ext3.Filesystem.open(io.BytesIO(image()), "r+") as fs:
        few = fs.lookup("/few")
        fs.unlink("/few/name 3")
        fs.create("/few/new")
        fs.chmod("/few/name 4", 0o600)
        fs.set_xattr("/few/name 5", b"user.y", b"z" * 300)
        alone, among = list_directory(fs, few, None, stats=True), next(tree_scan.scan_many(fs, [few], None, stats=True))
        assert shown(alone) == shown(among) == shown(next(fs.scan_many([few])))
        assert len(alone.rows) == 30


def test_damage_is_told_as_among_many() -> None:
    chance = random.Random(7)
    data = image()
    with ext3.Filesystem.open(io.BytesIO(data)) as fs:
        table = int(fs.groups["bg_inode_table"][0]) * 1024
        blocks = [start for name in ("/", "/few") for _, start, _ in fs.data_extents(name)]
    met = 0
    for _ in range(12):
        damaged = bytearray(data)
        for _ in range(4):
            damaged[chance.choice(blocks) * 1024 + chance.randrange(1024)] = chance.randrange(256)
            at = table + chance.randrange(11, 40) * 256 + chance.choice((0, 3, 4, 40, 128, 129, 161))
            damaged[at] = chance.randrange(256)
        met += compare(bytes(damaged))
    assert met > 5


def test_blocks_that_another_directory_has() -> None:
    """They are not counted a second time."""
    with ext3.Filesystem.open(io.BytesIO(image())) as fs:
        few = fs.lookup("/few")
        owners = BlockOwners()
        owners.claim(fs.root, [start for _, start, _ in fs.data_extents(few)])
        alone, among = list_directory(fs, few, owners, stats=True), next(tree_scan.scan_many(fs, [few], owners, stats=True))
        assert shown(alone) == shown(among)
        assert isinstance(alone.problem, ext3.CorruptError)
        assert (alone.rows, alone.directory_bytes) == ([], 0)
