"""Undo file: its records, appended while an image is changed and read to put the image back.

The file is a header and records, the first of them a STATE. Of each block the old content is recorded once, before the block is
first overwritten; then what is about to be written, as hashes. Records that were cut short, or that do not have their hash, end
the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import NamedTuple, Protocol
from uuid import UUID

from ..constants import EXT3_MAGIC, MIN_BLOCK_SIZE, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ..device.base import BlockDevice
from ..errors import UndoError
from ..format.schema import SUPERBLOCK
from ..format.superblock import MAX_LOG_BLOCK_SIZE
from .undo_schema import UNDO_HEADER, UNDO_RECORD, UNDO_STATE

__all__ = [
    "HASH_BYTES",
    "ImageState",
    "Kind",
    "Record",
    "UndoHeader",
    "UndoSink",
    "hash_of",
    "pack_header",
    "pack_record",
    "read_header",
    "read_records",
    "undo_block_size",
]

MAGIC = b"EXT3UNDO"
VERSION = 1
HASH_BYTES = 16
PAYLOAD_LIMIT = 16 << 20
"""Most bytes of a record's payload; larger ones are damage."""


class UndoSink(Protocol):
    """Target that an undo file is written to."""

    def append(self, data: bytes) -> None:
        """Write ``data`` behind what was written before."""
        ...

    def sync(self) -> None:
        """Flush everything appended to stable storage."""
        ...


class Kind(IntEnum):
    """Kind of a record."""

    STATE = 1
    """Identity of the image as it is, or as it is about to be."""
    OLD = 2
    """Old content of blocks."""
    OLD_ZERO = 3
    """Blocks whose old content is zero."""
    NEW = 4
    """Blocks about to be written: the hash of each."""
    SYNC = 5
    """Everything written so far is on stable storage."""
    END = 6
    """The change is complete."""


class ImageState(NamedTuple):
    """Fields of a superblock that tell images apart, and whether one was mounted or changed."""

    uuid: UUID
    mtime: int
    wtime: int
    lastcheck: int
    mount_count: int
    magic: int

    @classmethod
    def of(cls, device: BlockDevice) -> ImageState:
        """Return the state of an image. Raises DeviceError."""
        return cls.of_superblock(device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE))

    @classmethod
    def of_superblock(cls, raw: bytes) -> ImageState:
        """Return the state in the bytes of a superblock, which need not be a sound one."""
        row = SUPERBLOCK.record(raw)
        names = ("s_mtime", "s_wtime", "s_lastcheck", "s_mnt_count", "s_magic")
        return cls(UUID(bytes=row["s_uuid"]), *(row[name] for name in names))

    def pack(self) -> bytes:
        return UNDO_STATE.packer.pack(
            self.uuid.bytes, self.mtime, self.wtime, self.lastcheck, self.mount_count & 0xFFFF, self.magic
        )

    @classmethod
    def unpack(cls, raw: bytes) -> ImageState:
        uuid, *rest = UNDO_STATE.packer.unpack(raw)
        return cls(UUID(bytes=uuid), *rest)


class Record(NamedTuple):
    """Record about ``length`` blocks; ``at``: the byte of the undo file where its payload lies."""

    kind: Kind
    first: int
    length: int
    payload: bytes
    at: int


@dataclass(frozen=True, slots=True)
class UndoHeader:
    """Header of an undo file. ``made``: seconds since 1970. ``begun``: putting the image back began, and did not end."""

    block_size: int
    image_size: int
    made: int
    begun: bool = False


def hash_of(*parts: bytes | memoryview) -> bytes:
    """Return the hash of bytes."""
    found = blake2b(digest_size=HASH_BYTES)
    for part in parts:
        found.update(part)
    return found.digest()


def undo_block_size(device: BlockDevice) -> int:
    """Return the unit in which an image is saved: its block size, or the smallest one if it does not say."""
    row = SUPERBLOCK.record(device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE))
    sound = row["s_magic"] == EXT3_MAGIC and row["s_log_block_size"] <= MAX_LOG_BLOCK_SIZE
    return MIN_BLOCK_SIZE << row["s_log_block_size"] if sound else MIN_BLOCK_SIZE


def pack_header(header: UndoHeader) -> bytes:
    """Return the bytes of a header."""
    fields = (MAGIC, VERSION, int(header.begun), header.block_size, header.made & 0xFFFFFFFF, header.image_size)
    unhashed = UNDO_HEADER.packer.pack(*fields, bytes(HASH_BYTES), bytes(464))
    return UNDO_HEADER.packer.pack(*fields, hash_of(unhashed), bytes(464))


def pack_record(kind: Kind, payload: bytes = b"", *, first: int = 0, count: int = 0) -> bytes:
    """Return the bytes of a record."""
    fields = (int(kind), len(payload), first, count)
    unhashed = UNDO_RECORD.packer.pack(*fields, bytes(HASH_BYTES), bytes(24))
    return UNDO_RECORD.packer.pack(*fields, hash_of(unhashed, payload), bytes(24)) + payload


def read_header(log: BlockDevice) -> UndoHeader:
    """Return the header of an undo file. Raises UndoError, DeviceError."""
    raw = log.read(0, min(UNDO_HEADER.size, log.size))
    if len(raw) < UNDO_HEADER.size or raw[: len(MAGIC)] != MAGIC:
        raise UndoError("it is not an undo file")
    _, version, state, block_size, made, image_size, found, reserved = UNDO_HEADER.packer.unpack(raw)
    if version != VERSION:
        raise UndoError(f"it is an undo file of version {version}, and only version {VERSION} is known")
    unhashed = UNDO_HEADER.packer.pack(MAGIC, version, state, block_size, made, image_size, bytes(HASH_BYTES), reserved)
    powers = MIN_BLOCK_SIZE <= block_size <= MIN_BLOCK_SIZE << MAX_LOG_BLOCK_SIZE and not block_size & (block_size - 1)
    if found != hash_of(unhashed) or not powers:
        raise UndoError("its header is damaged")
    return UndoHeader(block_size, image_size, made, bool(state))


def read_records(log: BlockDevice, header: UndoHeader) -> Iterator[Record]:
    """Yield the records up to the end, or to one that was cut short or is damaged. Raises DeviceError."""
    at = UNDO_HEADER.size
    blocks = -(-header.image_size // header.block_size)
    while at + UNDO_RECORD.size <= log.size:
        kind, size, first, count, found, reserved = UNDO_RECORD.packer.unpack(log.read(at, UNDO_RECORD.size))
        at += UNDO_RECORD.size
        if kind not in set(Kind) or size > PAYLOAD_LIMIT or at + size > log.size or first + count > blocks:
            return
        payload = log.read(at, size)
        unhashed = UNDO_RECORD.packer.pack(kind, size, first, count, bytes(HASH_BYTES), reserved)
        if found != hash_of(unhashed, payload) or size != _payload_size(Kind(kind), first, count, header):
            return
        yield Record(Kind(kind), first, count, payload, at)
        at += size


def _payload_size(kind: Kind, first: int, count: int, header: UndoHeader) -> int:
    """Return how many bytes of payload a record has. The last block of an image may be cut short."""
    if kind is Kind.STATE:
        return UNDO_STATE.size
    if kind is Kind.OLD:
        return min((first + count) * header.block_size, header.image_size) - first * header.block_size
    return count * HASH_BYTES if kind is Kind.NEW else 0
