"""Edits of the sample SIF image by name, done and recorded write by write."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

from sifkit.sif import SIF, Arch, DataType, FSType, PartType
from sifkit.sif.plan import Change

from .sif_images import LATER, content, partition
from .sif_recorder import Op, RecordingStore

__all__ = ["EDITS", "PREPARE", "Edit", "content_of", "record", "recovered"]

Edit = Callable[[SIF], object]


def reserve(sif: SIF) -> None:
    metadata = partition(PartType.DATA, FSType.EXT3)
    with sif.reserve(6000, metadata, name=b"reserved", group=1) as room:
        sif._open_store.write(room.offset + 1000, b"in place" * 100)


def reserve_and_drop(sif: SIF) -> None:
    with sif.reserve(6000, partition(PartType.DATA, FSType.EXT3), group=1, drop=[1]) as room:
        sif._open_store.write(room.offset + 1000, b"in place" * 100)


def reserve_again(sif: SIF) -> None:
    with sif.reserve_again(5, 6000) as room:
        sif._open_store.write(room.offset + 1000, b"in place" * 100)


def without_primary(sif: SIF) -> None:
    sif.delete(2)


def without_last(sif: SIF) -> None:
    sif.delete(6)


PREPARE: dict[str, Edit] = {
    "add the primary partition": without_primary,
    "grow a partition": without_last,
    "shrink a partition": without_last,
}
"""What some of the edits want to be done before."""
EDITS: dict[str, Edit] = {
    "add": lambda sif: sif.add(b"new" * 600, DataType.GENERIC_JSON, name=b"new"),
    "add a partition": lambda sif: sif.add(b"new" * 600, DataType.PARTITION, group=1, metadata=partition(PartType.DATA)),
    "add nothing": lambda sif: sif.add(b"", DataType.GENERIC, alignment=4096),
    "add from a stream": lambda sif: sif.add(io.BytesIO(b"stream" * 700), DataType.OCI_BLOB),
    "add the primary partition": lambda sif: sif.add(
        b"new", DataType.PARTITION, metadata=partition(PartType.PRIMARY_SYSTEM, arch=Arch.S390X)
    ),
    "reserve": reserve,
    "reserve again": reserve_again,
    "delete the last": lambda sif: sif.delete(6),
    "delete one in the middle": lambda sif: sif.delete(4),
    "delete the primary": lambda sif: sif.delete(2, zero=True),
    "delete several": lambda sif: sif.delete([1, 2, 5, 6]),
    "delete all": lambda sif: sif.delete([1, 2, 3, 4, 5, 6]),
    "set primary": lambda sif: sif.set_primary(4),
    "update": lambda sif: sif.update(3, name=b"other", group=2, link_group=1),
    "update several": lambda sif: sif.update_all({1: Change(name=b"a"), 6: Change(name=b"b"), 2: Change(group=3)}),
    "replace the last": lambda sif: sif.replace(6, b"replaced" * 300),
    "add and drop others": lambda sif: sif.add(b"new" * 600, DataType.GENERIC, drop=[3, 6]),
    "replace and drop another": lambda sif: sif.replace(5, b"replaced" * 300, drop=[6]),
    "update and drop another": lambda sif: sif.update_all({1: Change(name=b"a")}, drop=[3]),
    "set primary and drop another": lambda sif: sif.set_primary(4, drop=[6]),
    "reserve and drop another": reserve_and_drop,
    "grow the last": lambda sif: sif.resize_object(6, 9000),
    "grow the last a little": lambda sif: sif.resize_object(6, 801),
    "shrink the last": lambda sif: sif.resize_object(6, 1),
    "grow a partition": lambda sif: sif.resize_object(5, 20_000),
    "shrink a partition": lambda sif: sif.resize_object(5, 700),
    "replace one in the middle": lambda sif: sif.replace(2, b"replaced" * 300, metadata=partition(PartType.PRIMARY_SYSTEM)),
}


def record(path: Path, edit: Edit) -> tuple[list[Op], bytes]:
    """What the edit does to the file from opening to closing, and the file it makes."""
    fd = os.open(path, os.O_RDWR)
    try:
        store = RecordingStore(fd)
        with SIF(store, mode="r+", stamp=LATER) as sif:
            edit(sif)
        return store.ops, path.read_bytes()
    finally:
        os.close(fd)


def content_of(raw: bytes) -> object:
    """What an image holds, as ``sif_images.content``."""
    with SIF.open(io.BytesIO(raw)) as sif:
        return content(sif)


def recovered(raw: bytes) -> bytes:
    """The image after it was opened for writing."""
    file = io.BytesIO(raw)
    with SIF.open(file, "r+"):
        pass
    return file.getvalue()
