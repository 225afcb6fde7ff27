"""Recording what an edit does to a file, and making every file a crash could leave from the record.

A crash keeps what was synced. Of what was written after the last sync anything may be there or not, in any order, and the last
write may be there in part: whole sectors of 512 bytes, from its start or up to its end.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from sifkit.sif.store import FileStore

__all__ = ["Op", "RecordingStore", "apply", "crashes"]

SECTOR = 512
ALL_SUBSETS = 6
SAMPLED_SUBSETS = 40


@dataclass(frozen=True)
class Op:
    """write: ``data`` at ``offset``; size: ``offset`` is the file's length; zero: ``size`` zeros at ``offset``; sync."""

    kind: str
    offset: int = 0
    data: bytes = b""
    size: int = 0


class RecordingStore(FileStore):
    """A file that is written as ever, and a list of what was done to it."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.ops: list[Op] = []

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self.ops.append(Op("write", offset, bytes(data)))
        super().write(offset, data)

    def copy_from(self, source: int, source_offset: int, offset: int, size: int) -> int:
        done = super().copy_from(source, source_offset, offset, size)
        if done:
            self.ops.append(Op("write", offset, self.read(offset, done)))
        return done

    def set_size(self, size: int) -> None:
        self.ops.append(Op("size", size))
        super().set_size(size)

    def release(self, offset: int, size: int) -> bool:
        released = super().release(offset, size)
        if released:
            self.ops.append(Op("zero", offset, size=size))
        return released

    def sync(self) -> None:
        self.ops.append(Op("sync"))
        super().sync()


def apply(image: bytearray, op: Op) -> None:
    if op.kind == "write":
        if len(image) < op.offset + len(op.data):
            image.extend(bytes(op.offset + len(op.data) - len(image)))
        image[op.offset : op.offset + len(op.data)] = op.data
    elif op.kind == "size":
        image.extend(bytes(max(0, op.offset - len(image))))
        del image[op.offset :]
    elif op.kind == "zero":
        end = min(op.offset + op.size, len(image))
        image[op.offset : end] = bytes(max(0, end - op.offset))


def crashes(before: bytes, ops: list[Op]) -> Iterator[tuple[str, bytes]]:
    """(what happened, the file) for every crash while ``ops`` were done, each file once."""
    durable = bytearray(before)
    seen = {bytes(durable)}
    for number, epoch in enumerate(_epochs(ops)):
        for chosen in _subsets(epoch):
            for tear, torn in _tears(chosen):
                image = bytearray(durable)
                for op in torn:
                    apply(image, op)
                if bytes(image) not in seen:
                    seen.add(bytes(image))
                    yield f"epoch {number}, {len(chosen)} of {len(epoch)} writes, {tear}", bytes(image)
        for op in epoch:
            apply(durable, op)


def _epochs(ops: list[Op]) -> list[list[Op]]:
    epochs: list[list[Op]] = [[]]
    for op in ops:
        if op.kind == "sync":
            epochs.append([])
        else:
            epochs[-1].append(op)
    return epochs


def _subsets(epoch: list[Op]) -> Iterator[list[Op]]:
    if len(epoch) <= ALL_SUBSETS:
        for size in range(len(epoch) + 1):
            yield from (list(chosen) for chosen in itertools.combinations(epoch, size))
        return
    for size in range(len(epoch) + 1):
        yield epoch[:size]
        yield epoch[:size] + epoch[size + 1 :]
    chance = random.Random(1)
    for _ in range(SAMPLED_SUBSETS):
        yield [op for op in epoch if chance.random() < 0.5]


def _tears(chosen: list[Op]) -> Iterator[tuple[str, list[Op]]]:
    yield "whole", chosen
    if not chosen or chosen[-1].kind != "write":
        return
    last = chosen[-1]
    first = -(-(last.offset + 1) // SECTOR) * SECTOR
    for cut in range(first - last.offset, len(last.data), SECTOR):
        yield f"the last to byte {last.offset + cut}", [*chosen[:-1], Op("write", last.offset, last.data[:cut])]
        yield f"the last from byte {last.offset + cut}", [*chosen[:-1], Op("write", last.offset + cut, last.data[cut:])]
