"""Transactions: changed blocks go through the journal, so that all of them take effect or none.

The order, each step synced before the next: file data (written by the caller) with descriptor, payload and revoke blocks and
the journal superblock; the commit block; the checkpoint; the journal superblock again, empty and with the next sequence
number. Source of the format: Linux ``fs/jbd2/commit.c``, ``fs/jbd2/revoke.c``, ``include/linux/jbd2.h``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

import numpy as np

from ..constants import JBD_MAGIC
from ..device.base import BlockDevice
from ..errors import CheckpointError, DeviceError, JournalFullError
from ..format.jbd_schema import JOURNAL_COMMIT, JOURNAL_HEADER, JOURNAL_REVOKE, JOURNAL_SUPERBLOCK, JOURNAL_TAG
from .log import (
    COMMIT,
    DESCRIPTOR,
    FEATURE_REVOKE,
    REVOKE,
    TAG_ESCAPE,
    TAG_LAST,
    TAG_SAME_UUID,
    UUID_SIZE,
    Journal,
    sequence_after,
)
from .replay import write_journal_superblock

__all__ = ["LogWriter", "log_blocks", "merged_runs", "write_blocks"]

_MAGIC = JBD_MAGIC.to_bytes(4, "big")
WRITE_BYTES = 4 << 20
"""Adjacent blocks are joined into writes of at most this size."""


def _tags_per_block(block_size: int) -> int:
    return (block_size - JOURNAL_HEADER.size - UUID_SIZE) // JOURNAL_TAG.size


def _revokes_per_block(block_size: int) -> int:
    return (block_size - JOURNAL_REVOKE.size) // 4


def log_blocks(blocks: int, revokes: int, block_size: int) -> int:
    """Return how many log blocks a transaction of ``blocks`` changed blocks and ``revokes`` revoked ones takes."""
    return blocks + -(-blocks // _tags_per_block(block_size)) + -(-revokes // _revokes_per_block(block_size)) + 1


def merged_runs(numbers: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield (first, count) for each run of consecutive numbers in an ascending sequence, at most ``most`` long."""
    first = count = 0
    for number in numbers:
        if count and number == first + count and count < most:
            count += 1
            continue
        if count:
            yield first, count
        first, count = number, 1
    if count:
        yield first, count


def write_blocks(device: BlockDevice, blocks: Mapping[int, bytes | bytearray], block_size: int) -> None:
    """Write blocks to their places, adjacent ones in one write."""
    for first, count in merged_runs(sorted(blocks), WRITE_BYTES // block_size):
        if count == 1:
            device.write(first * block_size, blocks[first])
        else:
            device.write(first * block_size, b"".join([blocks[block] for block in range(first, first + count)]))


class LogWriter:
    """Writer of an empty log. ``sequence`` is the number of the next transaction."""

    def __init__(self, device: BlockDevice, journal: Journal, sequence: int) -> None:
        self.device = device
        self.journal = journal
        self.sequence = sequence
        self.uuid = JOURNAL_SUPERBLOCK.record(journal.raw)["s_uuid"] if journal.version > 1 else bytes(UUID_SIZE)
        self._features = 0

    @property
    def capacity(self) -> int:
        """Log blocks that a single transaction may take."""
        return self.journal.maxlen - self.journal.first

    def commit(self, blocks: Mapping[int, bytes | bytearray], revokes: Iterable[int], *, nanoseconds: int) -> None:
        """Commit ``blocks`` (number -> whole block) and ``revokes``. Raises JournalFullError, with nothing written, if they do
        not fit.

        Everything the caller wrote to the device before is on stable storage before the commit block is written. A write that
        fails after it raises CheckpointError.
        """
        journal, device = self.journal, self.device
        size = journal.block_size
        revoked = sorted(revokes)
        needed = log_blocks(len(blocks), len(revoked), size)
        if needed > self.capacity:
            raise JournalFullError(needed, self.capacity)
        if revoked:
            self._features |= FEATURE_REVOKE
        log = [*self._revoke_blocks(revoked), *self._payload(blocks)]
        last = journal.first + len(log)
        self._write_log(journal.first, log)
        features = self._features or None
        write_journal_superblock(device, journal, start=journal.first, sequence=self.sequence, incompat=features)
        device.sync()
        seconds, nano = divmod(nanoseconds, 1_000_000_000)
        commit = JOURNAL_COMMIT.packer.pack(JBD_MAGIC, COMMIT, self.sequence, 0, 0, b"\0\0", *[0] * 8, max(0, seconds), nano)
        device.write(journal.offset(last), commit.ljust(size, b"\0"))
        device.sync()
        try:
            write_blocks(device, blocks, size)
            device.sync()
            self.sequence = sequence_after(self.sequence)
            write_journal_superblock(device, journal, start=0, sequence=self.sequence, incompat=features)
            device.sync()
        except DeviceError as error:
            raise CheckpointError(error) from error

    def _write_log(self, position: int, log: list[bytes | bytearray]) -> None:
        size = self.journal.block_size
        places = self.journal.blocks[position : position + len(log)]
        # The journal's own blocks have gaps where its indirect blocks are.
        cuts = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(log)]
        for start, end in pairwise(cuts):
            for at in range(start, end, WRITE_BYTES // size):
                stop = min(end, at + WRITE_BYTES // size)
                self.device.write(int(places[at]) * size, b"".join(log[at:stop]))

    def _revoke_blocks(self, revoked: list[int]) -> Iterator[bytes]:
        size = self.journal.block_size
        step = _revokes_per_block(size)
        for start in range(0, len(revoked), step):
            numbers = np.array(revoked[start : start + step], ">u4").tobytes()
            head = JOURNAL_REVOKE.packer.pack(JBD_MAGIC, REVOKE, self.sequence, JOURNAL_REVOKE.size + len(numbers))
            yield (head + numbers).ljust(size, b"\0")

    def _payload(self, blocks: Mapping[int, bytes | bytearray]) -> Iterator[bytes | bytearray]:
        """Yield descriptor blocks, each followed by the content of the blocks it names."""
        size = self.journal.block_size
        step = _tags_per_block(size)
        numbers = sorted(blocks)
        for start in range(0, len(numbers), step):
            part = numbers[start : start + step]
            tags = [JOURNAL_HEADER.packer.pack(JBD_MAGIC, DESCRIPTOR, self.sequence)]
            contents: list[bytes | bytearray] = []
            for number in part:
                content = blocks[number]
                flags = TAG_SAME_UUID if number != part[0] else 0
                if content[:4] == _MAGIC:
                    flags |= TAG_ESCAPE
                    content = bytes(4) + content[4:]
                if number == part[-1]:
                    flags |= TAG_LAST
                tags.append(JOURNAL_TAG.packer.pack(number, 0, flags))
                if number == part[0]:
                    tags.append(self.uuid)
                contents.append(content)
            yield b"".join(tags).ljust(size, b"\0")
            yield from contents
