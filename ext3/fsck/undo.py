"""Undo of a repair: a device that saves what is overwritten, and putting an image back from that.

Writes are held back until the next sync: then the old content of all their blocks is saved and synced, and only then are they
made. So there is one sync of the undo file for each of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..constants import EXT3_MAGIC, SECTOR, STATE_VALID, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ..device.base import BlockDevice, data_ranges
from ..device.block_overlay import BlockOverlay
from ..errors import DeviceError, UndoError
from ..format.schema import SUPERBLOCK
from ..journal.transaction import merged_runs, write_blocks
from .undo_log import (
    HASH_BYTES,
    ImageState,
    Kind,
    UndoHeader,
    UndoSink,
    hash_of,
    pack_header,
    pack_record,
    read_header,
    read_records,
    undo_block_size,
)

__all__ = ["UndoRecorder", "UndoResult", "put_back"]

HELD_BYTES = 32 << 20
"""Writes in memory above which they are made without waiting for a sync."""
RUN_BYTES = 1 << 20
"""Most bytes of blocks in one record, and in one read or write."""


class UndoRecorder:
    """BlockDevice that passes writes on to ``base``, after what they overwrite was saved in an undo file.

    Nothing is appended to the undo file before the first write. ``finish`` ends it.
    """

    def __init__(self, base: BlockDevice, sink: UndoSink, *, made: int) -> None:
        """``made``: the time of the change, in seconds since 1970."""
        self.base = base
        self.block_size = undo_block_size(base)
        self._sink = sink
        self._made = made
        self._held: dict[int, bytes] = {}
        self._overlay = BlockOverlay(base, self.block_size, self._held, self._held.__getitem__)
        self._saved: set[int] = set()
        self._failed = False
        self.saved_bytes = 0
        """Bytes of the image whose old content was saved."""

    @property
    def size(self) -> int:
        return self.base.size

    def read(self, offset: int, size: int) -> bytes:
        return self._overlay.read(offset, size)

    def data_ranges(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, size) of the parts of a range that hold data, ascending; gaps read as zero."""
        if self._held:
            yield offset, size
        else:
            yield from data_ranges(self.base, offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if offset < 0 or offset + len(data) > self.size:
            raise DeviceError(f"write of {len(data)} bytes at byte {offset} leaves the {self.size} bytes of the image")
        view = memoryview(data)
        while view:
            block, start = divmod(offset, self.block_size)
            length = min(self.block_size, self.size - block * self.block_size)
            count = min(len(view), length - start)
            if count == length:
                self._held[block] = bytes(view[:count])
            else:
                whole = bytearray(self.read(block * self.block_size, length))
                whole[start : start + count] = view[:count]
                self._held[block] = bytes(whole)
            offset += count
            view = view[count:]
        if len(self._held) * self.block_size > HELD_BYTES:
            self._make_writes()

    def make_zero(self, offset: int, size: int) -> None:
        first, end = -(-offset // self.block_size), (offset + size) // self.block_size
        if end <= first:
            self.write(offset, bytes(size))
            return
        self.write(offset, bytes(first * self.block_size - offset))
        self.write(end * self.block_size, bytes(offset + size - end * self.block_size))
        self._make_writes()
        self._save(range(first, end))
        zero = hash_of(bytes(self.block_size))
        step = RUN_BYTES // HASH_BYTES
        for start in range(first, end, step):
            count = min(step, end - start)
            self._append(pack_record(Kind.NEW, zero * count, first=start, count=count))
        self._sync_undo()
        self.base.make_zero(first * self.block_size, (end - first) * self.block_size)

    def sync(self) -> None:
        self._make_writes()
        self.base.sync()
        if self._saved:
            self._append(pack_record(Kind.SYNC))

    def finish(self) -> None:
        """Make what was held back, and mark the undo file as complete."""
        self.sync()
        if self._saved:
            self._append(pack_record(Kind.END))
            self._sync_undo()

    def _append(self, data: bytes) -> None:
        if self._failed:
            raise DeviceError("the undo file could not be written")
        try:
            self._sink.append(data)
        except BaseException:
            self._failed = True
            raise

    def _sync_undo(self) -> None:
        try:
            self._sink.sync()
        except BaseException:
            self._failed = True
            raise

    def _make_writes(self) -> None:
        """Save what the writes overwrite, then make them."""
        if not self._held:
            return
        blocks = sorted(self._held)
        self._save(blocks)
        for first, count in merged_runs(blocks, RUN_BYTES // self.block_size):
            hashes = b"".join(hash_of(self._held[block]) for block in range(first, first + count))
            self._append(pack_record(Kind.NEW, hashes, first=first, count=count))
        if SUPERBLOCK_OFFSET // self.block_size in self._held:
            self._append(pack_record(Kind.STATE, ImageState.of(self).pack()))
        self._sync_undo()
        write_blocks(self.base, self._held, self.block_size)
        self._held.clear()

    def _save(self, blocks: Sequence[int]) -> None:
        """Append the old content of blocks that was not saved yet."""
        fresh = [block for block in blocks if block not in self._saved]
        if fresh and not self._saved:
            header = UndoHeader(self.block_size, self.base.size, self._made)
            self._append(pack_header(header) + pack_record(Kind.STATE, ImageState.of(self.base).pack()))
        for first, count in merged_runs(fresh, RUN_BYTES // self.block_size):
            self._save_run(first, count)
        self._saved.update(fresh)

    def _save_run(self, first: int, count: int) -> None:
        """Append the old content of a run, blocks of zeros apart."""
        size = self.block_size
        start = first * size
        data = self.base.read(start, min(count * size, self.base.size - start))
        self.saved_bytes += len(data)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        begin = 0
        for end in range(1, len(pieces) + 1):
            zero = not any(pieces[begin])
            if end < len(pieces) and (not any(pieces[end])) == zero:
                continue
            kind, payload = (Kind.OLD_ZERO, b"") if zero else (Kind.OLD, b"".join(pieces[begin:end]))
            self._append(pack_record(kind, payload, first=first + begin, count=end - begin))
            begin = end


@dataclass(frozen=True, slots=True)
class UndoResult:
    """Result of putting an image back: how many ``blocks`` and ``bytes`` were not as they had been.

    ``complete``: the change that was undone had ended. ``made``: when it was made, in seconds since 1970.
    """

    blocks: int
    bytes: int
    complete: bool
    made: int


@dataclass(slots=True)
class _Block:
    """Block in an undo file. ``at``: the byte of the file where its old content lies, -1 for zeros. ``new``: the hash of what
    was written last. ``loose``: that may be on storage in part."""

    at: int
    new: bytes | None = None
    loose: bool = True


@dataclass(slots=True)
class _Contents:
    blocks: dict[int, _Block]
    states: list[ImageState]
    complete: bool


def put_back(log: BlockDevice, device: BlockDevice) -> UndoResult:
    """Put the image on ``device`` back as it was before the change that the undo file on ``log`` is of, byte for byte.

    A change that was killed can be undone, and so can an undo that was. Raises UndoError, with nothing written, if the file is
    damaged, if it is of another image, or if the image was changed since; DeviceError.
    """
    header = read_header(log)
    if header.image_size != device.size:
        raise UndoError(f"it is of an image of {header.image_size} bytes, and this one has {device.size}")
    contents = _read(log, header)
    _check_state(contents, ImageState.of(device), begun=header.begun)
    different = _differing(log, device, header, contents)
    if different or header.begun:
        _write_back(log, device, header, contents, different)
    size = sum(min(header.block_size, device.size - block * header.block_size) for block in different)
    return UndoResult(len(different), size, contents.complete, header.made)


def _read(log: BlockDevice, header: UndoHeader) -> _Contents:
    contents = _Contents({}, [], False)
    blocks = contents.blocks
    unsynced: set[int] = set()
    for kind, first, count, payload, at in read_records(log, header):
        match kind:
            case Kind.STATE:
                contents.states.append(ImageState.unpack(payload))
            case Kind.OLD | Kind.OLD_ZERO:
                for index in range(count):
                    blocks.setdefault(first + index, _Block(at + index * header.block_size if kind is Kind.OLD else -1))
            case Kind.NEW:
                for index in range(count):
                    found = blocks.get(first + index)
                    if found is None:
                        raise UndoError(f"it is damaged: block {first + index} was written and not saved")
                    found.new = payload[index * HASH_BYTES : (index + 1) * HASH_BYTES]
                unsynced.update(range(first, first + count))
            case Kind.SYNC:
                for block in unsynced:
                    blocks[block].loose = False
                unsynced.clear()
            case Kind.END:
                contents.complete = True
    if not contents.states:
        raise UndoError("it is damaged: it does not say which image it is of")
    for block in unsynced:
        blocks[block].loose = True
    return contents


def _check_state(contents: _Contents, found: ImageState, *, begun: bool) -> None:
    """Raise UndoError if the superblock is of another image, or was changed by others."""
    known = contents.states if begun or not contents.complete else [contents.states[0], contents.states[-1]]
    if found in known:
        return
    if all(found.uuid != state.uuid for state in known):
        raise UndoError(f"it is of the image with UUID {known[-1].uuid}, and this one has {found.uuid}")
    raise UndoError("the image was mounted, checked or changed since")


def _differing(log: BlockDevice, device: BlockDevice, header: UndoHeader, contents: _Contents) -> list[int]:
    """Return the blocks that are not as they were before. Raises UndoError for one that was written to since."""
    size = header.block_size
    different = []
    for first, count in merged_runs(sorted(contents.blocks), max(1, RUN_BYTES // size)):
        start = first * size
        data = memoryview(device.read(start, min(count * size, device.size - start)))
        for index in range(count):
            block = contents.blocks[first + index]
            piece = data[index * size : (index + 1) * size]
            if piece == _old(log, block, len(piece)):
                continue
            loose = header.begun or (block.loose and not contents.complete)
            if not loose and hash_of(piece) != block.new:
                raise UndoError(f"the image was changed since: block {first + index} is not as the check left it")
            different.append(first + index)
    return different


def _old(log: BlockDevice, block: _Block, size: int) -> bytes:
    return bytes(size) if block.at < 0 else log.read(block.at, size)


def _write_back(
    log: BlockDevice, device: BlockDevice, header: UndoHeader, contents: _Contents, different: Sequence[int]
) -> None:
    """Write the old content of these blocks, the superblock last; until then it does not say that the image is clean."""
    size = header.block_size
    log.write(0, pack_header(replace(header, begun=True)))
    log.sync()
    own = SUPERBLOCK_OFFSET // size
    if own in contents.blocks:
        _clear_valid(device)
    for first, count in merged_runs((block for block in different if block != own), max(1, RUN_BYTES // size)):
        blocks = range(first, first + count)
        pieces = [_old(log, contents.blocks[block], min(size, device.size - block * size)) for block in blocks]
        data = b"".join(pieces)
        if any(data):
            device.write(first * size, data)
        else:
            device.make_zero(first * size, len(data))
    device.sync()
    if own in contents.blocks:
        device.write(own * size, _old(log, contents.blocks[own], min(size, device.size - own * size)))
        device.sync()
    log.write(0, pack_header(replace(header, begun=False)))
    log.sync()


def _clear_valid(device: BlockDevice) -> None:
    raw = bytearray(device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE))
    row = SUPERBLOCK.view(raw)[0]
    if row["s_magic"] == EXT3_MAGIC and row["s_state"] & STATE_VALID:
        row["s_state"] &= ~STATE_VALID & 0xFFFF
        device.write(SUPERBLOCK_OFFSET, bytes(raw[:SECTOR]))
        device.sync()
