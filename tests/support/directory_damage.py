"""Recipes for directory blocks and indexes that contradict the format, and images to try them on."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import ext3
from ext3.constants import SUPERBLOCK_OFFSET, Compat
from ext3.device.base import MemoryDevice
from ext3.format.schema import SUPERBLOCK

from .sessions import clock, empty_image
from .tiny_image import dirents

__all__ = [
    "BLOCK_SIZE",
    "DAMAGE",
    "DIRECTORY",
    "INDEX_DAMAGE",
    "NAMES",
    "SOUND",
    "IndexRecipe",
    "Recipe",
    "damaged_image",
    "damaged_index",
    "directory_block",
    "directory_blocks",
    "indexed_image",
    "sample_image",
]

BLOCK_SIZE = 1024
INODES = 1024
DIRECTORY = b"/d"
FIRST = (b".", b"..", b"aa", b"bbbb", b"cccc", b"dd")
"""What block 0 of the directory begins with: records of 12 bytes."""
NAMES = (b"dd", b"n29-" + b"x" * 46)
"""A name in each of the two blocks of the directory: behind what the recipes change, or at the end."""
BBBB, CCCC, DD = 36, 48, 60
"""Where these records are."""


class Recipe(NamedTuple):
    """A change to block ``logical`` of the directory, and what is to be said: the field and its byte in the block."""

    change: Callable[[bytearray], None]
    field: str
    at: int
    logical: int = 0


@cache
def sample_image() -> bytes:
    """An image without an index, and in it a directory of two blocks."""
    device = empty_image(4 << 20, block_size=BLOCK_SIZE, inodes=INODES)
    SUPERBLOCK.view(device.data, 1, SUPERBLOCK_OFFSET)["s_feature_compat"] ^= int(Compat.DIR_INDEX)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir(DIRECTORY)
        for name in (*FIRST[2:], *(b"n%d-" % number + b"x" * 46 for number in range(10, 30))):
            fs.create(DIRECTORY + b"/" + name)
        fs.mkdir(DIRECTORY + b"/sub")
        assert fs.stat(DIRECTORY).size == 2 * BLOCK_SIZE
    return bytes(device.data)


def damaged_image(recipe: Recipe) -> bytearray:
    """The sample with the directory changed."""
    image = bytearray(sample_image())
    change_block(image, recipe.logical, recipe.change)
    return image


def directory_blocks(image: bytearray) -> list[int]:
    """The bytes where the blocks of the directory begin."""
    with ext3.Filesystem.open(MemoryDevice(image)) as fs:
        return [(block + step) * BLOCK_SIZE for _, block, count in fs.data_extents(DIRECTORY) for step in range(count)]


def directory_block(image: bytearray, logical: int) -> int:
    """The byte where a block of the directory begins."""
    return directory_blocks(image)[logical]


def change_block(image: bytearray, logical: int, change: Callable[[bytearray], None]) -> None:
    start = directory_block(image, logical)
    block = image[start : start + BLOCK_SIZE]
    change(block)
    assert len(block) == BLOCK_SIZE
    image[start : start + BLOCK_SIZE] = block


def put(offset: int, code: str, *values: object) -> Callable[[bytearray], None]:
    def change(block: bytearray) -> None:
        struct.pack_into("<" + code, block, offset, *values)

    return change


def both(*changes: Callable[[bytearray], None]) -> Callable[[bytearray], None]:
    def change(block: bytearray) -> None:
        for one in changes:
            one(block)

    return change


def swap_dots(block: bytearray) -> None:
    block[:24] = block[12:24] + block[:12]


def renewed(block: bytearray, gap: bytes) -> None:
    """Block 0 with ``gap`` between ``.`` and ``..``, part of the former unless it has a head, and no other names."""
    block[12:] = gap + dirents([(b"..", 2, 2), (b"bbbb", 14, 1), (b"dd", 16, 1)], BLOCK_SIZE - 12 - len(gap))


def long_dot(length: int) -> Callable[[bytearray], None]:
    def change(block: bytearray) -> None:
        renewed(block, bytes(length - 12))
        struct.pack_into("<H", block, 4, length)

    return change


def unused_between_dots(block: bytearray) -> None:
    renewed(block, struct.pack("<IHBB", 0, 12, 0, 0) + bytes(4))


def last_record_short(by: int) -> Callable[[bytearray], None]:
    def change(block: bytearray) -> None:
        offset = 0
        while offset + struct.unpack_from("<H", block, offset + 4)[0] < BLOCK_SIZE:
            offset += struct.unpack_from("<H", block, offset + 4)[0]
        struct.pack_into("<H", block, offset + 4, BLOCK_SIZE - offset - by)

    return change


DAMAGE = {
    "rec_len zero": Recipe(put(BBBB + 4, "H", 0), "rec_len", BBBB),
    "rec_len too small": Recipe(put(BBBB + 4, "H", 8), "rec_len", BBBB),
    "rec_len odd": Recipe(put(BBBB + 4, "H", 13), "rec_len", BBBB),
    "rec_len not a multiple of 4": Recipe(put(BBBB + 4, "H", 14), "rec_len", BBBB),
    "rec_len crosses the block": Recipe(put(BBBB + 4, "H", BLOCK_SIZE - BBBB + 4), "rec_len", BBBB),
    "rec_len of 64 KiB": Recipe(put(BBBB + 4, "H", 0xFFFF), "rec_len", BBBB),
    "rec_len of an unused record": Recipe(both(put(BBBB, "I", 0), put(BBBB + 4, "H", 0)), "rec_len", BBBB),
    "4 bytes left": Recipe(last_record_short(4), "record", BLOCK_SIZE - 4),
    "8 bytes left": Recipe(last_record_short(8), "record", BLOCK_SIZE - 8),
    "name leaves its record": Recipe(put(BBBB + 6, "B", 5), "name_len", BBBB),
    "name_len 255": Recipe(put(BBBB + 6, "B", 255), "name_len", BBBB),
    "name of an unused record leaves it": Recipe(both(put(BBBB, "I", 0), put(BBBB + 6, "B", 5)), "name_len", BBBB),
    "empty name": Recipe(put(BBBB + 6, "B", 0), "name_len", BBBB),
    "slash in a name": Recipe(put(BBBB + 8, "4s", b"a/bb"), "name", BBBB),
    "slash as a name": Recipe(both(put(BBBB + 6, "B", 1), put(BBBB + 8, "4s", b"/")), "name", BBBB),
    "NUL in a name": Recipe(put(BBBB + 8, "4s", b"a\0bb"), "name", BBBB),
    "NUL at the end of a name": Recipe(put(BBBB + 8, "4s", b"abb\0"), "name", BBBB),
    "inode above all": Recipe(put(BBBB, "I", 0xFFFFFFFF), "inode", BBBB),
    "inode one too high": Recipe(put(BBBB, "I", INODES + 1), "inode", BBBB),
    "dot unused": Recipe(put(0, "I", 0), "inode", 0),
    "dot inode above all": Recipe(put(0, "I", INODES + 1), "inode", 0),
    "dot renamed": Recipe(put(8, "c", b"x"), "name", 0),
    "dot with two bytes": Recipe(put(6, "B", 2), "name", 0),
    "dot without a NUL": Recipe(put(9, "c", b"x"), "name", 0),
    "dot is long": Recipe(long_dot(28), "rec_len", 0),
    "dot is very long": Recipe(long_dot(60), "rec_len", 0),
    "dot takes the block": Recipe(put(4, "H", BLOCK_SIZE), "rec_len", 0),
    "dot with rec_len zero": Recipe(put(4, "H", 0), "rec_len", 0),
    "dot-dot unused": Recipe(put(12, "I", 0), "inode", 12),
    "dot-dot inode above all": Recipe(put(12, "I", INODES + 1), "inode", 12),
    "dot-dot renamed": Recipe(put(20, "2s", b"xx"), "name", 12),
    "dot-dot with three bytes": Recipe(put(18, "B", 3), "name", 12),
    "dot-dot without a NUL": Recipe(put(22, "c", b"x"), "name", 12),
    "dot-dot crosses the block": Recipe(put(16, "H", BLOCK_SIZE), "rec_len", 12),
    "dots swapped": Recipe(swap_dots, "name", 0),
    "unused record between the dots": Recipe(unused_between_dots, "inode", 12),
    "one unused record": Recipe(put(0, "IHBB", 0, BLOCK_SIZE, 0, 0), "inode", 0),
    "all zero": Recipe(put(0, f"{BLOCK_SIZE}x"), "rec_len", 0),
    "second dot": Recipe(both(put(CCCC + 6, "B", 1), put(CCCC + 8, "4s", b".")), "name", CCCC),
    "second dot-dot": Recipe(both(put(CCCC + 6, "B", 2), put(CCCC + 8, "4s", b"..")), "name", CCCC),
    "dot in another block": Recipe(both(put(6, "B", 1), put(8, "4s", b".")), "name", 0, logical=1),
    "dot-dot in another block": Recipe(both(put(6, "B", 2), put(8, "4s", b"..")), "name", 0, logical=1),
    "rec_len in another block": Recipe(put(4, "H", 8), "rec_len", 0, logical=1),
    "name_len in another block": Recipe(put(6, "B", 255), "name_len", 0, logical=1),
    "slash in another block": Recipe(put(8, "c", b"/"), "name", 0, logical=1),
    "another block all zero": Recipe(put(0, f"{BLOCK_SIZE}x"), "rec_len", 0, logical=1),
}
"""What every judge refuses, by what is wrong."""

SOUND = {
    "nothing changed": Recipe(put(0, ""), "", 0),
    "dot of 16 bytes": Recipe(long_dot(16), "", 0),
    "dot of 24 bytes": Recipe(long_dot(24), "", 0),
    "bytes behind the dots": Recipe(both(put(10, "2s", b"xx"), put(23, "c", b"x")), "", 0),
    "bytes behind a name": Recipe(put(DD + 10, "2s", b"xx"), "", 0),
    "unused record with a name": Recipe(both(put(BBBB, "I", 0), put(BBBB + 8, "4s", b"a/b\0")), "", 0),
}
"""What no judge minds, though it looks odd."""


# -- indexes -------------------------------------------------------------------------------------------------------

ENTRIES = 32
"""Byte of the root where limit, count and the entries are."""


class IndexRecipe(NamedTuple):
    """A change to an index with so many levels of nodes: to its root, or with ``node`` to what the first entry leads to."""

    change: Callable[[bytearray], None]
    levels: int = 0
    node: bool = False


@cache
def indexed_image(levels: int) -> bytes:
    """An image in which the directory has an index with so many levels of nodes."""
    device = empty_image(4 << 20, block_size=BLOCK_SIZE, inodes=INODES)
    with ext3.Filesystem.open(device, "r+", clock=clock) as fs:
        fs.mkdir(DIRECTORY)
        for number in range(900 if levels else 150):
            fs.create(DIRECTORY + b"/name-%d" % number + b"y" * (200 if levels else 20))
    image = bytes(device.data)
    root = directory_block(bytearray(image), 0)
    assert image[root + 30] == levels
    return image


def damaged_index(recipe: IndexRecipe) -> bytearray:
    """The sample with its index changed."""
    image = bytearray(indexed_image(recipe.levels))
    block = 0
    if recipe.node:
        block = int(struct.unpack_from("<I", image, directory_block(image, 0) + ENTRIES + 4)[0])
    change_block(image, block, recipe.change)
    return image


def swap(one: int, other: int, size: int) -> Callable[[bytearray], None]:
    def change(block: bytearray) -> None:
        block[one : one + size], block[other : other + size] = block[other : other + size], block[one : one + size]

    return change


INDEX_DAMAGE = {
    "reserved field": IndexRecipe(put(24, "I", 1)),
    "unknown hash version": IndexRecipe(put(28, "B", 3)),
    "other hash version": IndexRecipe(put(28, "B", 2)),
    "length of the information": IndexRecipe(put(29, "B", 4)),
    "a level more": IndexRecipe(put(30, "B", 1)),
    "two levels": IndexRecipe(put(30, "B", 2)),
    "incompatible flag": IndexRecipe(put(31, "B", 1)),
    "limit": IndexRecipe(put(ENTRIES, "H", 123)),
    "no entries": IndexRecipe(put(ENTRIES + 2, "H", 0)),
    "more entries than fit": IndexRecipe(put(ENTRIES + 2, "H", 125)),
    "an entry more": IndexRecipe(lambda block: put(ENTRIES + 2, "H", block[ENTRIES + 2] + 1)(block)),
    "leads to the root": IndexRecipe(put(ENTRIES + 12, "I", 0)),
    "leads outside": IndexRecipe(put(ENTRIES + 12, "I", 900)),
    "not ascending": IndexRecipe(swap(ENTRIES + 8, ENTRIES + 16, 8)),
    "leaves swapped": IndexRecipe(swap(ENTRIES + 12, ENTRIES + 20, 4)),
    "all zero": IndexRecipe(put(24, f"{BLOCK_SIZE - 24}x")),
    "a level less": IndexRecipe(put(30, "B", 0), levels=1),
    "nodes swapped": IndexRecipe(swap(ENTRIES + 4, ENTRIES + 12, 4), levels=1),
    "node: limit": IndexRecipe(put(8, "H", 124), levels=1, node=True),
    "node: no entries": IndexRecipe(put(10, "H", 0), levels=1, node=True),
    "node: leads outside": IndexRecipe(put(20, "I", 5000), levels=1, node=True),
    "node: not ascending": IndexRecipe(swap(16, 24, 8), levels=1, node=True),
    "node: leaves swapped": IndexRecipe(swap(20, 28, 4), levels=1, node=True),
}
"""What e2fsck complains of: by its index a directory does not give all of its names."""
