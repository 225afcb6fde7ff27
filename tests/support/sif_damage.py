"""Recipes that break one thing of a sound SIF image each, and what a check says of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sifkit.packed_struct import PackedStruct
from sifkit.sif import SIF, DataType, FSType, PartType
from sifkit.sif.finding import Problem
from sifkit.sif.format.descriptor import DESCRIPTOR_BYTES
from sifkit.sif.format.schema import DESCRIPTOR, GLOBAL_HEADER, PARTITION
from sifkit.sif.sniff import HEAD_BYTES

from .sif_images import STAMP, partition

__all__ = [
    "DATA",
    "HOPELESS",
    "REPAIRABLE",
    "SQUASHFS",
    "TABLE",
    "Recipe",
    "append",
    "broken",
    "cut",
    "ext",
    "extra",
    "header",
    "put",
    "set_field",
    "slot",
    "sound_image",
]

SQUASHFS = b"hsqs" + bytes(24) + b"\x04\0"
TABLE = 4096
EXTRA = DESCRIPTOR.offset_of("Extra")
Recipe = Callable[[bytearray], None]


def ext(compat: int = 4, incompat: int = 2, ro_compat: int = 1) -> bytes:
    """The first 2 KiB of an ext image with these features."""
    head = bytearray(HEAD_BYTES)
    head[1080:1082] = b"\x53\xef"
    for offset, value in ((1116, compat), (1120, incompat), (1124, ro_compat)):
        head[offset : offset + 4] = value.to_bytes(4, "little")
    return bytes(head)


def sound_image(path: Path) -> None:
    """1 deffile, 2 squashfs root, 3 ext3 overlay, 4 JSON linked to 2, 5 OCI blob; room for 8."""
    with SIF.create(path, capacity=8, stamp=STAMP, force=True) as sif:
        sif.add(b"Bootstrap: docker\n", DataType.DEFFILE, group=1)
        sif.add(SQUASHFS.ljust(5000, b"x"), DataType.PARTITION, group=1, metadata=partition(PartType.PRIMARY_SYSTEM))
        overlay = partition(PartType.OVERLAY, FSType.EXT3)
        sif.add(ext().ljust(HEAD_BYTES, b"\0"), DataType.PARTITION, group=1, metadata=overlay)
        sif.add(b"{}", DataType.GENERIC_JSON, name=b"x.json", link=2)
        sif.add(b"blob", DataType.OCI_BLOB)


def set_field(layout: PackedStruct, start: int, **values: object) -> Recipe:
    def change(raw: bytearray) -> None:
        raw[start : start + layout.size] = layout.build({**layout.read(raw, start), **values})

    return change


def header(**values: object) -> Recipe:
    return set_field(GLOBAL_HEADER, 0, **values)


def slot(number: int, **values: object) -> Recipe:
    return set_field(DESCRIPTOR, TABLE + number * DESCRIPTOR_BYTES, **values)


def put(offset: int, data: bytes) -> Recipe:
    def change(raw: bytearray) -> None:
        raw[offset : offset + len(data)] = data

    return change


def append(data: bytes) -> Recipe:
    return lambda raw: raw.extend(data)


def cut(size: int) -> Recipe:
    def change(raw: bytearray) -> None:
        del raw[-size:]

    return change


def extra(number: int, layout: PackedStruct, **values: object) -> Recipe:
    return set_field(layout, TABLE + number * DESCRIPTOR_BYTES + EXTRA, **values)


DATA = TABLE + 8 * DESCRIPTOR_BYTES
REPAIRABLE: dict[str, tuple[Recipe, Problem]] = {
    "free descriptors": (header(DescriptorsFree=8), Problem.FREE_COUNT),
    "data size too small": (header(DataSize=10), Problem.DATA_SIZE),
    "data size too large": (header(DataSize=1 << 40), Problem.DATA_SIZE),
    "architecture": (header(Arch=b"04\0"), Problem.HEADER_ARCH),
    "start of an architecture's name": (extra(2, PARTITION, Arch=b"amd"), Problem.PARTITION_ARCH),
    "table size": (header(DescriptorsSize=8 * DESCRIPTOR_BYTES + 1), Problem.TABLE_SIZE),
    "unused descriptor": (slot(6, ID=7), Problem.UNUSED_SLOT),
    "bytes behind the header": (put(200, b"stale"), Problem.STALE_BYTES),
    "bytes before a partition": (put(12287, b"s"), Problem.STALE_BYTES),
    "bytes behind the image": (append(b"stale"), Problem.TRAILING_BYTES),
    "group without mask": (slot(0, GroupID=1), Problem.GROUP),
    "padding": (slot(1, SizeWithPadding=0), Problem.PADDING),
}
HOPELESS: dict[str, tuple[Recipe, Problem]] = {
    "magic": (header(Magic=b"SIF_MAGIX\0"), Problem.NOT_SIF),
    "version": (header(Version=b"02\0"), Problem.NOT_SIF),
    "count": (header(DescriptorsTotal=10**12), Problem.UNREADABLE),
    "negative count": (header(DescriptorsTotal=-1), Problem.UNREADABLE),
    "table behind the end": (header(DescriptorsOffset=1 << 40), Problem.TRUNCATED),
    "hidden descriptors": (header(DescriptorsTotal=4), Problem.TABLE_SIZE),
    "cut short": (cut(3), Problem.TRUNCATED),
    "negative offset": (slot(3, Offset=-5), Problem.BAD_PLACE),
    "negative size": (slot(3, Size=-5), Problem.BAD_PLACE),
    "overlap": (slot(3, Offset=DATA), Problem.OVERLAP),
    "over the table": (slot(3, Offset=5000), Problem.OVERLAP),
    "over the header": (slot(3, Offset=3), Problem.OVERLAP),
    "before the data": (slot(3, Offset=1000), Problem.OUTSIDE_DATA),
    "one id twice": (slot(3, ID=1), Problem.DUPLICATE_ID),
    "id 0": (slot(3, ID=0), Problem.ID_ZERO),
    "type": (slot(3, DataType=77), Problem.UNKNOWN_CODE),
    "partition type": (extra(1, PARTITION, FSType=1, PartType=9, Arch=b"02\0"), Problem.UNKNOWN_CODE),
    "partition architecture": (extra(2, PARTITION, FSType=2, PartType=4, Arch=b"99\0"), Problem.UNKNOWN_CODE),
    "two primaries": (extra(2, PARTITION, PartType=2), Problem.SEVERAL_PRIMARIES),
    "filesystem": (extra(1, PARTITION, FSType=2), Problem.FILESYSTEM),
    "ext4": (put(20480 + 1120, b"\x42"), Problem.FILESYSTEM),
    "no journal": (put(20480 + 1116, b"\0"), Problem.FILESYSTEM),
    "overlay group": (slot(2, GroupID=0xF0000002), Problem.OVERLAY_GROUP),
    "dangling link": (slot(3, LinkedID=9), Problem.LINK),
    "empty group": (slot(3, LinkedID=0xF0000009), Problem.LINK),
    "odd link": (slot(3, LinkedID=0x80000002), Problem.LINK),
    "no digest": (slot(4, Extra=b"md5:1"), Problem.NO_DIGEST),
    "wrong digest": (slot(4, Extra=b"sha256:" + b"0" * 64), Problem.DIGEST_MISMATCH),
    "used byte": (slot(3, Used=2), Problem.USED_BYTE),
    "launch script": (header(LaunchScript=b"x" * 32), Problem.LAUNCH_SCRIPT),
}


def broken(path: Path, recipe: Recipe) -> bytes:
    sound_image(path)
    raw = bytearray(path.read_bytes())
    recipe(raw)
    path.write_bytes(raw)
    return bytes(raw)
