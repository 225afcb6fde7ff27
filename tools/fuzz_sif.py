"""Change bytes of header and table of SIF images at random, and see that reading them gives an image or a clear error.

    python tools/fuzz_sif.py [--count N] [--seed N] [--first N] [IMAGE...]

Every mutant is opened for reading, checked, and opened for writing (in memory), as is what that makes of it. Anything but
one of this project's errors, more than 64 MiB of memory, or more than five seconds of the processor for one mutant is a
failure: the mutant is written to a file and the exit code is 1. Without images, one is made that has objects of every kind.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
from pathlib import Path

from sifkit.errors import SifkitError
from sifkit.packed_struct import PackedStruct
from sifkit.sif import (
    SIF,
    Arch,
    DataType,
    FSType,
    HashType,
    PartitionMeta,
    PartType,
    SBOMFormat,
    SBOMMeta,
    SignatureMeta,
    Stamp,
)
from sifkit.sif.checking import check_state
from sifkit.sif.format.schema import DESCRIPTOR, GLOBAL_HEADER
from sifkit.sif.state import load
from sifkit.sif.store import ObjectStore

__all__ = ["main", "mutate", "sample", "try_image"]

MEMORY_BYTES = 64 << 20
SECONDS = 5
TABLE = 4096
NUMBERS = (0, 1, -1, 2, 47, 48, 127, 128, 4095, 4096, 32176, 1 << 31, 1 << 32, 1 << 40, 10**12, (1 << 63) - 1, -(1 << 63))


def sample() -> bytes:
    """An image with objects of many kinds, small enough to be changed often."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "sample.sif")
        root = PartitionMeta(FSType.SQUASHFS, PartType.PRIMARY_SYSTEM, Arch.AMD64)
        overlay = PartitionMeta(FSType.EXT3, PartType.OVERLAY, Arch.AMD64)
        with SIF.create(path, launch=b"#!/bin/sh\n", capacity=12, stamp=Stamp.at(1_700_000_000)) as sif:
            sif.add(b"Bootstrap: x\n", DataType.DEFFILE, group=1)
            sif.add(b"root" * 600, DataType.PARTITION, group=1, metadata=root)
            sif.add(b"over" * 600, DataType.PARTITION, group=1, metadata=overlay, link=2)
            sif.add(b"{}", DataType.GENERIC_JSON, name=b"labels.json", group=1)
            sif.add(b"sign", DataType.SIGNATURE, metadata=SignatureMeta(HashType.SHA256), link_group=1)
            sif.add(b"blob", DataType.OCI_BLOB)
            sif.add(b"{}", DataType.SBOM, metadata=SBOMMeta(SBOMFormat.SPDX_JSON))
            sif.add(b"", DataType.GENERIC, alignment=4096)
        return path.read_bytes()


def mutate(image: bytes, chance: random.Random) -> bytes:
    """One to four changes: bits, bytes, whole fields, descriptors copied over others, the end of the file cut."""
    raw = bytearray(image)
    end = min(len(raw), TABLE + 12 * DESCRIPTOR.size)
    for _ in range(chance.randint(1, 4)):
        kind = chance.randrange(6)
        header = chance.random() < 0.3
        place = chance.randrange(32, GLOBAL_HEADER.size) if header else chance.randrange(TABLE, end)
        if kind == 0:
            raw[min(place, len(raw) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            raw[min(place, len(raw) - 1)] = chance.randrange(256)
        elif kind in (2, 3):
            layout, start = (GLOBAL_HEADER, 0) if header else (DESCRIPTOR, TABLE + chance.randrange(8) * DESCRIPTOR.size)
            _set_field(raw, layout, start, chance)
        elif kind == 4:
            one, other = (TABLE + chance.randrange(12) * DESCRIPTOR.size for _ in range(2))
            raw[one : one + DESCRIPTOR.size] = raw[other : other + DESCRIPTOR.size]
        elif chance.random() < 0.1:
            del raw[chance.randrange(128, len(raw)) :]
        if len(raw) < end:
            break
    return bytes(raw)


def _set_field(raw: bytearray, layout: PackedStruct, start: int, chance: random.Random) -> None:
    if start + layout.size > len(raw):
        return
    fields = layout.read(raw, start)
    numbers = [name for name, value in fields.items() if isinstance(value, int)]
    name = chance.choice(numbers)
    width = (layout.offset_of(layout.names[layout.names.index(name) + 1]) if name != layout.names[-1] else layout.size) - (
        layout.offset_of(name)
    )
    value = chance.choice([*NUMBERS, fields[name] + chance.randint(-600, 600), *(fields[other] for other in numbers)])
    offset = start + layout.offset_of(name)
    raw[offset : offset + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")


def try_image(raw: bytes) -> str:
    """Read an image in every way; how that went. Whatever is raised but SifkitError is a failure."""
    found = 0
    outcome = "opened"
    try:
        store = ObjectStore(io.BytesIO(raw))
        found = sum(1 for _ in check_state(store, load(store), digests=True))
        with SIF.open(io.BytesIO(raw)) as sif:
            for descriptor in sif:
                _ = descriptor.type_text, descriptor.metadata
            _ = sif.warnings, sif.primary
    except SifkitError as error:
        if "\n" in str(error):
            raise AssertionError("a message of several lines") from error
        outcome = type(error).__name__
    file = io.BytesIO(raw)
    try:
        with SIF.open(file, "r+"):
            pass
    except SifkitError as error:
        return f"{outcome}, {found and 'findings'} / {type(error).__name__}"
    once = file.getvalue()
    with SIF.open(file, "r+"):
        pass
    if file.getvalue() != once:
        raise AssertionError("opening for writing twice does not give the same as once")
    return outcome + (", findings" if found else ", clean")


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit code."""
    from .fuzzing import fuzz, options_of

    options = options_of("Mutate SIF images and read them.", arguments)
    images = [path.read_bytes() for path in options.images] or [sample()]
    for image in images:
        try_image(image)
    return fuzz(
        "fuzz-sif", images, mutate, lambda mutant, _: try_image(mutant), options, memory_bytes=MEMORY_BYTES, seconds=SECONDS
    )


if __name__ == "__main__":
    # Run as a script: the same modules as for an import.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tools.fuzz_sif import main as run

    sys.exit(run())
