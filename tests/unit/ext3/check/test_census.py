"""Census of a whole filesystem: what is counted, and what disagrees with it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import ext3
from ext3.check.census_taking import take_census
from ext3.constants import JOURNAL_INO, RESIZE_INO, ROOT_INO
from tests.support.fsck_images import Image, image_volume


@pytest.fixture(scope="module", params=[(1024, 256), (4096, 128)])
def pristine(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> bytes:
    """Files of all kinds; with maps of three levels; attribute blocks, one of them shared; an indexed directory."""
    block_size, inode_size = request.param
    path = tmp_path_factory.mktemp("census") / "image"
    ext3.mkfs(path, 24 << 20, block_size=block_size, inode_size=inode_size)
    with ext3.Filesystem.open(path, "r+") as fs:
        fs.mkdir("/d")
        fs.mkdir("/d/e")
        for number in range(250):
            fs.write_bytes(f"/d/name-{number}-" + "n" * 30, b"x" * (number * 40))
        fs.link(f"/d/name-7-{'n' * 30}", "/twin")
        fs.write_bytes("/large", b"L" * 500_000)
        with fs.open_file("/large", "r+") as file:
            file.write_at(30 << 20, b"far")
            file.write_at(200 << 20, b"farther")
        fs.symlink("short", "/short")
        fs.symlink("l" * 200, "/long")
        fs.mknod("/fifo", 0o010600)
        for name in ("/large", "/twin", "/d"):
            fs.set_xattr(name, b"user.a", b"v" * 300)
            fs.set_xattr(name, b"user.b", b"w" * 300)
    return path.read_bytes()


@pytest.fixture
def image(pristine: bytes) -> Image:
    return Image(pristine)


def texts(image: Image) -> list[str]:
    return [str(violation) for violation in take_census(image_volume(image)).violations]


def test_a_sound_filesystem_agrees(image: Image) -> None:
    found = take_census(image_volume(image), owners=True)
    assert not found.violations
    census = found.census
    with ext3.Filesystem.open(image.device) as fs:
        superblock = fs.superblock
        assert int(census.used.sum()) == superblock.blocks_count - superblock.free_blocks
        used = np.flatnonzero(census.mode)
        walked = {entry.ino for _, entry in fs.walk("/")} | {ROOT_INO, JOURNAL_INO}
        assert set(used.tolist()) == walked
        owner = census.owner
        assert owner is not None
        for _, entry in fs.walk("/"):
            inode = fs.inode(entry.ino)
            assert census.names[entry.ino] == inode.stat.links
            if inode.stat.is_file or inode.stat.is_dir:
                mapped = fs.block_map(inode)
                for _, start, count in mapped.extents:
                    assert (owner[start : start + count] == entry.ino).all()
                assert all(owner[block] == entry.ino for block in mapped.indirect)
        assert int((owner == RESIZE_INO).sum()) == 1
        assert int((owner == 0).sum()) == int((census.system | ~census.used).sum())


def drop_a_name(image: Image) -> None:
    image.drop_name(image.ino("/d"), b"e")


def wrong_parent(image: Image) -> None:
    image.lead_name(image.ino("/d/e"), b"..", ROOT_INO)


def name_of_a_free_inode(image: Image) -> None:
    image.lead_name(ROOT_INO, b"fifo", image.superblock.inodes_count, 5)


def shared_block(image: Image) -> None:
    with ext3.Filesystem.open(image.device) as fs:
        words = list(fs.inode(fs.lookup("/large")).i_block)
        words[0] = fs.inode(fs.lookup("/twin")).i_block[0] or fs.inode(fs.lookup("/d")).i_block[0]
        ino = fs.lookup("/large")
    image.set_inode(ino, i_block=np.array(words, "<u4"))


def system_block(image: Image) -> None:
    with ext3.Filesystem.open(image.device) as fs:
        words = list(fs.inode(fs.lookup("/large")).i_block)
        ino = fs.lookup("/large")
    words[3] = int(image.groups["bg_inode_table"][0])
    image.set_inode(ino, i_block=np.array(words, "<u4"))


def free_blocks(image: Image) -> None:
    at = int(image.groups["bg_block_bitmap"][0]) * image.superblock.block_size
    raw = bytearray(image.device.read(at, 8))
    raw[1] ^= 0x18
    image.device.write(at, raw)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop_a_name, "parents"),
        (wrong_parent, "inode of '..'"),
        (name_of_a_free_inode, "entry"),
        (shared_block, "owners"),
        (system_block, "system"),
        (free_blocks, "bg_block_bitmap"),
        (lambda image: image.set_inode(image.ino("/large"), i_blocks=2), "i_blocks"),
        (lambda image: image.set_inode(image.ino("/large"), i_size_high=0, i_size=100), "i_size"),
        (lambda image: image.set_inode(image.ino("/fifo"), i_links_count=2), "i_links_count"),
        (lambda image: image.set_inode(image.ino("/fifo"), i_links_count=0), "i_links_count"),
        (lambda image: image.set_inode(5, i_mode=0o100600), "i_mode"),
        (lambda image: image.set_inode(image.ino("/twin"), i_file_acl=0, i_blocks=0), "h_refcount"),
    ],
)
def test_damage_is_listed(image: Image, damage: Callable[[Image], None], words: str) -> None:
    damage(image)
    found = texts(image)
    assert any(words in text for text in found), found
