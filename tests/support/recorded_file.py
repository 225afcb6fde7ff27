"""Recording of everything that is done to one file of the host, whichever part of the program does it, and what an
interruption could leave of it.

A crash keeps what was synced. Of what was written since, anything may be there, in any order; the last write may be there in
part: whole sectors. Changes of the file's length keep their order.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ext3 import hostio

from .sif_recorder import Op, apply

__all__ = ["interruptions", "recorded_file"]

SECTOR = 512


@contextmanager
def recorded_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Op]]:
    """Record what the block does to the file at ``path``."""
    ops: list[Op] = []
    ino = path.stat().st_ino

    def is_it(fd: int) -> bool:
        return os.fstat(fd).st_ino == ino

    def wrapped(module: Any, name: str, note: Callable[..., None]) -> None:
        real = getattr(module, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            result = real(*arguments, **keywords)
            note(result, *arguments)
            return result

        patch.setattr(module, name, call)

    def write(_: object, fd: int, offset: int, data: bytes) -> None:
        if is_it(fd):
            ops.append(Op("write", offset, bytes(data)))

    def punch(done: bool, fd: int, offset: int, size: int) -> None:
        if done and is_it(fd):
            ops.append(Op("zero", offset, size=size))

    def cut(_: object, fd: int, size: int) -> None:
        if is_it(fd):
            ops.append(Op("size", size))

    def copied(done: int, source: int, place: int, fd: int, offset: int, *_: object) -> None:
        if done and is_it(fd):
            ops.append(Op("write", offset, hostio.read_at(fd, offset, done)))

    def sync(_: object, fd: int) -> None:
        if is_it(fd):
            ops.append(Op("sync"))

    with monkeypatch.context() as patch:
        wrapped(hostio, "write_at", write)
        wrapped(hostio, "punch_hole", punch)
        wrapped(os, "ftruncate", cut)
        wrapped(hostio, "sync", sync)
        wrapped(hostio, "copy_range", copied)
        wrapped(hostio, "send_range", copied)
        yield ops


def interruptions(before: bytes, ops: list[Op], seed: int) -> Iterator[tuple[str, bytearray]]:
    """Yield (description, the file) after each operation, with the last write torn, and with some of the loose ones lost."""
    generator = random.Random(seed)
    synced, done = bytearray(before), bytearray(before)
    loose: list[Op] = []
    for number, op in enumerate(ops):
        if op.kind == "sync":
            synced, loose = bytearray(done), []
            continue
        if op.kind == "write" and len(op.data) > SECTOR:
            torn = bytearray(done)
            keep = generator.randrange(1, -(-len(op.data) // SECTOR)) * SECTOR
            part = Op("write", op.offset, op.data[:keep])
            if generator.random() < 0.5:
                part = Op("write", op.offset + keep, op.data[keep:])
            apply(torn, part)
            yield f"{number}: {op.kind} torn", torn
        apply(done, op)
        loose.append(op)
        yield f"{number}: {op.kind}", bytearray(done)
        if len(loose) > 1:
            left = bytearray(synced)
            kept = [some for some in loose if some.kind == "size" or generator.random() < 0.5]
            for some in kept:
                apply(left, some)
            yield f"{number}: {op.kind} reordered", left
