"""Transactions: changed blocks go through the journal, so that all of them take effect or none.

The order of a commit, each step synced before the next: file data (written by the caller) with descriptor, payload and revoke
blocks; the commit block. The order of a checkpoint: the blocks in their places; the journal superblock, which names the oldest
transaction left. A commit writes the journal superblock, with its first step, only if the log was empty or has its first
revoke. Source of the format: Linux ``fs/jbd2/commit.c``, ``fs/jbd2/checkpoint.c``, ``fs/jbd2/revoke.c``,
``include/linux/jbd2.h``.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

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

Content = bytes | bytearray
_MAGIC = JBD_MAGIC.to_bytes(4, "big")
WRITE_BYTES = 4 << 20
"""Adjacent blocks are joined into writes of at most this size."""
LOG_BYTES = 32 << 20
"""Most bytes of the log in use by several transactions: what is not checkpointed stays in memory, too."""


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


def write_blocks(device: BlockDevice, blocks: Mapping[int, Content], block_size: int) -> None:
    """Write blocks to their places, adjacent ones in one write."""
    for first, count in merged_runs(sorted(blocks), WRITE_BYTES // block_size):
        if count == 1:
            device.write(first * block_size, blocks[first])
        else:
            device.write(first * block_size, b"".join([blocks[block] for block in range(first, first + count)]))


class _Logged(NamedTuple):
    """Committed transaction in the log: number ``sequence``, in ``length`` journal blocks from ``position`` on."""

    sequence: int
    position: int
    length: int


class LogWriter:
    """Writer of a log, which is empty at first. ``sequence`` is the number of the next transaction.

    ``blocks``: those of committed transactions that are not in their places yet (number -> content, by ``read``). Until a
    checkpoint the filesystem is read through them, and data may not be written to them in place: a replay would
    overwrite it. A block that is freed must be revoked; the checkpoint then leaves it out, too.
    """

    def __init__(self, device: BlockDevice, journal: Journal, sequence: int) -> None:
        self.device = device
        self.journal = journal
        self.sequence = sequence
        self.uuid = JOURNAL_SUPERBLOCK.record(journal.raw)["s_uuid"] if journal.version > 1 else bytes(UUID_SIZE)
        self.blocks: dict[int, tuple[int, Content]] = {}
        """With the number of the commit that has the present content, counted from 0."""
        self._logged: deque[_Logged] = deque()
        self._dropped = 0
        """Transactions that were in the log before those of ``_logged``."""
        self._used = 0
        self._features = 0

    @property
    def capacity(self) -> int:
        """Log blocks that a single transaction may take."""
        return self.journal.maxlen - self.journal.first

    def read(self, block: int) -> bytes:
        """Return the content of one of ``blocks``."""
        return bytes(self.blocks[block][1])

    def commit(self, blocks: Mapping[int, Content], revokes: Iterable[int], *, nanoseconds: int) -> None:
        """Commit ``blocks`` (number -> whole block, which the caller does not change any more) and ``revokes``.

        Everything the caller wrote to the device before is on stable storage before the commit block is written. If the log is
        short, its oldest transactions are checkpointed first. Raise JournalFullError, with nothing written, if they do not fit
        an empty log; DeviceError: earlier commits are safe.
        """
        journal, device = self.journal, self.device
        size = journal.block_size
        revoked = sorted(revokes)
        needed = log_blocks(len(blocks), len(revoked), size)
        if needed > self.capacity:
            raise JournalFullError(needed, self.capacity)
        self._make_space(needed)
        log = [*self._revoke_blocks(revoked), *self._payload(blocks)]
        position = self._head
        self._write_log(position, log)
        oldest = self._logged[0] if self._logged else _Logged(self.sequence, position, needed)
        if not self._logged or (revoked and not self._features):
            self._features |= FEATURE_REVOKE if revoked else 0
            self._write_start(oldest.position, oldest.sequence)
        device.sync()
        seconds, nano = divmod(nanoseconds, 1_000_000_000)
        commit = JOURNAL_COMMIT.packer.pack(JBD_MAGIC, COMMIT, self.sequence, 0, 0, b"\0\0", *[0] * 8, max(0, seconds), nano)
        device.write(journal.offset(journal.wrapped(position + len(log))), commit.ljust(size, b"\0"))
        device.sync()
        number = self._dropped + len(self._logged)
        self._logged.append(_Logged(self.sequence, position, needed))
        self._used += needed
        self.sequence = sequence_after(self.sequence)
        for block in revoked:
            self.blocks.pop(block, None)
        self.blocks.update({block: (number, content) for block, content in blocks.items()})

    def checkpoint(self) -> None:
        """Write the blocks of all transactions to their places, and empty the log. Raise CheckpointError."""
        try:
            self._checkpoint(len(self._logged))
        except DeviceError as error:
            raise CheckpointError(error) from error

    def _make_space(self, needed: int) -> None:
        """Checkpoint the oldest transactions if there is no space for ``needed`` log blocks: so many that half is free."""
        limit = min(self.capacity, LOG_BYTES // self.journal.block_size)
        if self._used + needed <= limit:
            return
        allowed = max(0, min(limit // 2, limit - needed))
        count, left = 0, self._used
        for transaction in self._logged:
            if left <= allowed:
                break
            count += 1
            left -= transaction.length
        self._checkpoint(count)

    def _checkpoint(self, count: int) -> None:
        """Write what the ``count`` oldest transactions hold to its place, unless a later one has it, and drop them."""
        if not count:
            return
        end = self._dropped + count
        done = {block: content for block, (number, content) in self.blocks.items() if number < end}
        write_blocks(self.device, done, self.journal.block_size)
        self.device.sync()
        if count < len(self._logged):
            oldest = self._logged[count]
            self._write_start(oldest.position, oldest.sequence)
        else:
            self._write_start(0, self.sequence)
        self.device.sync()
        for _ in range(count):
            self._used -= self._logged.popleft().length
        self._dropped = end
        for block in done:
            del self.blocks[block]

    @property
    def _head(self) -> int:
        """Journal block at which the next transaction begins."""
        if not self._logged:
            return self.journal.first
        newest = self._logged[-1]
        return self.journal.wrapped(newest.position + newest.length)

    def _write_start(self, start: int, sequence: int) -> None:
        write_journal_superblock(
            self.device, self.journal, start=start, sequence=sequence, incompat=self._features or None
        )  # fmt: skip

    def _write_log(self, position: int, log: Sequence[Content]) -> None:
        size = self.journal.block_size
        at = 0
        for first, count in self.journal.log_runs(position, len(log)):
            for start in range(first, first + count, WRITE_BYTES // size):
                part = log[at : at + min(WRITE_BYTES // size, first + count - start)]
                self.device.write(start * size, b"".join(part))
                at += len(part)

    def _revoke_blocks(self, revoked: list[int]) -> Iterator[bytes]:
        size = self.journal.block_size
        step = _revokes_per_block(size)
        for start in range(0, len(revoked), step):
            part = revoked[start : start + step]
            numbers = struct.pack(f">{len(part)}I", *part)
            head = JOURNAL_REVOKE.packer.pack(JBD_MAGIC, REVOKE, self.sequence, JOURNAL_REVOKE.size + len(numbers))
            yield (head + numbers).ljust(size, b"\0")

    def _payload(self, blocks: Mapping[int, Content]) -> Iterator[Content]:
        """Yield descriptor blocks, each followed by the content of the blocks it names."""
        size = self.journal.block_size
        step = _tags_per_block(size)
        numbers = sorted(blocks)
        for start in range(0, len(numbers), step):
            part = numbers[start : start + step]
            tags = [JOURNAL_HEADER.packer.pack(JBD_MAGIC, DESCRIPTOR, self.sequence)]
            contents: list[Content] = []
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
