"""Screen of inodes and maps of many inodes, against the readers of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ext3
from ext3.check.block_maps import map_many, read_blocks
from ext3.check.census import Census
from ext3.check.inode_rules import Screen, screen_inodes
from ext3.check.inode_tables import read_tables
from ext3.constants import S_IFDIR, S_IFLNK, S_IFREG, InodeFlag
from ext3.device.base import MemoryDevice, open_device
from ext3.format.block_map import read_inode_map
from ext3.format.group_desc_columns import read_group_columns
from ext3.format.inode import has_block_map, patch_inode
from ext3.format.inode_table_columns import core_rows
from ext3.format.superblock import read_superblock

MIB = 1 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all sizes and kinds: empty, sparse, with one, two and three levels of pointer blocks."""
    path = tmp_path_factory.mktemp("rules") / "image"
    ext3.mkfs(path, 32 << 20)
    with ext3.Filesystem.open(path, "r+") as fs:
        root = fs.path("/")
        (root / "dir").mkdir()
        for size in (0, 1, 1024, 12 * 1024, 12 * 1024 + 1, 268 * 1024 + 5, 400 * 1024):
            (root / f"file{size}").write_bytes(b"x" * size)
        for at in (20 * MIB, 70 * MIB, 300 * MIB):
            (root / f"sparse{at}").write_bytes(b"")
            with fs.open_file(f"/sparse{at}", "r+") as file:
                file.write_at(at, b"end")
        (root / "short").symlink_to("target")
        (root / "long").symlink_to("t" * 200)
        fs.set_xattr("/file1", b"user.a", b"v" * 50)
        fs.set_xattr("/file1024", b"user.b", b"v" * 500)
        for number in range(300):
            (root / "dir" / f"name-{number:03}-{'n' * 40}").write_bytes(b"")
    return path


def screen(
    path: Path,
    change: Callable[[bytes], bytes] | None = None,
    ino: int = 0,
    area_sound: Callable[[bytes], bool] = lambda area: True,
) -> tuple[Screen, Census, int]:
    """Screen of the part of the tables that holds ``ino``, with its record changed."""
    device = MemoryDevice(path.read_bytes())
    superblock = read_superblock(device)
    groups = read_group_columns(device, superblock)
    census = Census(superblock)
    census.mark_system(superblock, groups)
    for part in read_tables(device, superblock, groups):
        if not part.first <= max(ino, 1) < part.first + len(part.records):
            continue
        row = max(ino, 1) - part.first
        if change is not None:
            part.records[row] = np.frombuffer(change(part.records[row].tobytes()), np.uint8)
        found = screen_inodes(
            part.records,
            part.first,
            first_ino=superblock.first_ino,
            inodes_count=superblock.inodes_count,
            low_dtime=True,
            block_size=superblock.block_size,
            first_data_block=superblock.first_data_block,
            system=census.system,
            read=device.read,
            area_sound=area_sound,
            attribute_block_sound=lambda block: True,
        )
        return found, census, row
    raise AssertionError(ino)


def test_maps_agree_with_the_reader_of_one(image: Path) -> None:
    with ext3.Filesystem.open(image) as fs, open_device(image) as device:
        superblock = fs.superblock
        groups = read_group_columns(device, superblock)
        census = Census(superblock)
        census.mark_system(superblock, groups)
        entries = [entry.ino for _, entry in fs.walk("/")]
        inodes = [inode for inode in map(fs.inode, entries) if has_block_map(inode, 1024)]
        words = np.array([inode.i_block for inode in inodes], np.uint32)
        maps = map_many(device.read, words, block_size=1024, first=1, system=census.system)
        assert maps.sound.all()
        for row, inode in enumerate(inodes):
            want = read_inode_map(device, superblock, inode, 1 << 24)
            mine = maps.row == row
            blocks = [(at + n, to + n) for at, to, count in want.extents for n in range(count)]
            assert sorted(zip(maps.logical[mine].tolist(), maps.block[mine].tolist(), strict=True)) == blocks
            assert sorted(maps.pointer_block[maps.pointer_row == row].tolist()) == sorted(want.indirect)
            assert maps.blocks[row] == len(blocks) + len(want.indirect)
            assert maps.last[row] == (blocks[-1][0] if blocks else -1)


def test_all_inodes_of_a_sound_image_pass_but_reserved_ones_and_targets_in_blocks(image: Path) -> None:
    found, _, _ = screen(image)
    doubtful = (np.flatnonzero(found.doubtful) + 1).tolist()
    with ext3.Filesystem.open(image) as fs:
        assert doubtful == [*range(1, 11), fs.stat("/long", follow=False).ino]
        assert sorted(found.attribute_blocks.tolist()) == [fs.stat("/file1024").file_acl]


def with_fields(**fields: object) -> Callable[[bytes], bytes]:
    return lambda raw: patch_inode(raw, **fields)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/file1", with_fields(i_mode=0o644)),
        ("/file1", with_fields(i_mode=0o170644)),
        ("/file1", with_fields(i_links_count=0)),
        ("/file1", with_fields(i_dtime=5)),
        ("/file1", with_fields(i_faddr=1)),
        ("/file1", with_fields(i_blocks_high=1)),
        ("/file1", with_fields(i_file_acl_high=1)),
        ("/file1", with_fields(i_file_acl=1)),
        ("/file1", with_fields(i_file_acl=1 << 30)),
        ("/file1", with_fields(i_flags=int(InodeFlag.EXTENTS))),
        ("/file1", with_fields(i_flags=int(InodeFlag.INDEX))),
        ("/file1", with_fields(i_flags=int(InodeFlag.INLINE_DATA))),
        ("/file1", with_fields(i_blocks=4)),
        ("/file1", with_fields(i_size_high=1 << 31)),
        ("/file12289", with_fields(i_size=1024)),
        ("/file268", None),
        ("/dir", with_fields(i_size=1024)),
        ("/dir", with_fields(i_size_high=1)),
        ("/short", with_fields(i_size=7)),
        ("/short", with_fields(i_size=0)),
        ("/short", with_fields(i_blocks=2)),
        ("/short", with_fields(i_mode=S_IFREG | 0o644)),
        ("/file1", with_fields(i_mode=S_IFDIR | 0o755)),
        ("/file1024", with_fields(i_mode=S_IFLNK | 0o777)),
    ],
)
def test_damage_is_doubtful(image: Path, path: str, change: Callable[[bytes], bytes] | None) -> None:
    if change is None:  # a pointer beyond the image, in a pointer block's place
        path, change = "/file12289", lambda raw: _pointer(raw, 12, 1 << 30)
    with ext3.Filesystem.open(image) as fs:
        ino = fs.stat(path, follow=False).ino
    sound, _, row = screen(image, None, ino)
    assert sound.sound[row]
    found, _, row = screen(image, change, ino)
    assert found.doubtful[row]
    assert not (found.sound[row] or found.free[row])
    at = np.flatnonzero(found.mapped == row)
    assert not np.isin(found.maps.row, at).any()


def _pointer(raw: bytes, slot: int, block: int) -> bytes:
    words = core_rows(np.frombuffer(raw, np.uint8).reshape(1, -1))["i_block"][0].copy()
    words[slot] = block
    return patch_inode(raw, i_block=words)


@pytest.mark.parametrize("block", [1, 2, 0xFFFFFFFF])
def test_a_map_that_leads_to_system_blocks_or_outside_is_doubtful(image: Path, block: int) -> None:
    with ext3.Filesystem.open(image) as fs:
        ino = fs.stat("/file12288").ino
    for slot in (0, 11, 12, 13, 14):
        found, _, row = screen(image, lambda raw, slot=slot: _pointer(raw, slot, block), ino)  # type: ignore[misc]
        assert found.doubtful[row], slot


def test_a_pointer_block_that_is_reached_twice_is_read_once_and_doubtful(image: Path) -> None:
    with ext3.Filesystem.open(image) as fs:
        inode = fs.inode(fs.stat(f"/file{400 * 1024}").ino)
        ino, dind = inode.stat.ino, inode.i_block[13]
    for slot in (12, 14):
        found, _, row = screen(image, lambda raw, slot=slot: _pointer(raw, slot, dind), ino)  # type: ignore[misc]
        assert found.doubtful[row], slot


def test_attribute_areas_are_judged_once_each(image: Path) -> None:
    asked: list[bytes] = []

    def judge(area: bytes) -> bool:
        asked.append(area)
        return False

    with ext3.Filesystem.open(image) as fs:
        ino = fs.stat("/file1").ino
    found, _, row = screen(image, None, ino, judge)
    assert found.doubtful[row]
    assert len(asked) == len(set(asked)) == 1


def test_shared_blocks_are_found_in_one_claim_and_over_several(image: Path) -> None:
    with open_device(image) as device:
        superblock = read_superblock(device)
        census = Census(superblock)
        census.claim(np.array([900, 901]))
        assert not census.any_shared
        census.claim(np.array([902, 901, 903, 903]))
        assert np.flatnonzero(census.shared).tolist() == [901, 903]
        census.claim(np.array([899, 900]))
        assert np.flatnonzero(census.shared).tolist() == [900, 901, 903]


def test_blocks_are_read_in_the_order_asked_for() -> None:
    device = MemoryDevice(b"".join(bytes([number]) * 1024 for number in range(200)))
    calls: list[int] = []

    def read(offset: int, size: int) -> bytes:
        calls.append(size)
        return device.read(offset, size)

    wanted = np.array([150, 3, 4, 9, 4, 151])
    assert read_blocks(read, wanted, 1024)[:, 0].tolist() == wanted.tolist()
    assert calls == [2 * 1024, 1024, 2 * 1024] or len(calls) <= 3
