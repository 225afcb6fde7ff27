"""Directory hash columns: the hashes of many names together, chunk by chunk. One name: see ``dirhash``.

Source: see ``dirhash``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..constants import HashVersion
from .dirhash import EOF_HASH, LEGACY_FACTOR, MASK, MD4_CHUNK, ROUND_2, ROUND_3, TEA_CHUNK, TEA_DELTA, DirHash

__all__ = ["hash_columns"]

U32 = npt.NDArray[np.uint32]
Array64 = npt.NDArray[np.int64]

MIN_COLUMN_NAMES = 32
"""Number of names from which columns are faster than a loop."""
NAMES_AT_ONCE = 8192
"""Names hashed together, so that their columns stay in the processor's cache."""

_MD4_ROUNDS = (
    (0x00000000, (3, 7, 11, 19), (0, 1, 2, 3, 4, 5, 6, 7)),
    (ROUND_2, (3, 5, 9, 13), (1, 3, 5, 7, 0, 2, 4, 6)),
    (ROUND_3, (3, 9, 11, 15), (3, 7, 2, 6, 1, 5, 0, 4)),
)


def hash_columns(hashed: DirHash, names: Sequence[bytes]) -> U32:
    """Return ``hashed`` of each name, shape (len(names),)."""
    if len(names) < MIN_COLUMN_NAMES:
        return np.fromiter(map(hashed, names), np.uint32, len(names))
    chunk, mix, result = _FUNCTIONS[hashed.version]
    lengths = np.fromiter(map(len, names), np.int64, len(names))
    hashes = np.zeros(len(names), np.uint32)
    chunks = (lengths + chunk - 1) // chunk
    for count in sorted(set(chunks.tolist())):
        alike = np.flatnonzero(chunks == count)
        for low in range(0, len(alike), NAMES_AT_ONCE):
            rows = alike[low : low + NAMES_AT_ONCE]
            text = np.array([names[row] for row in rows.tolist()], f"S{count * chunk}")  # padded with NULs
            raw = text.view(np.int8 if hashed.signed else np.uint8)
            characters = raw.reshape(len(rows), -1).astype(np.uint32)
            state = [np.full(len(rows), word, np.uint32) for word in hashed.start]
            for begin in range(0, count * chunk, chunk):
                state = mix(state, characters[:, begin : begin + chunk], lengths[rows] - begin)
            hashes[rows] = state[result]
    if hashed.version is HashVersion.LEGACY:
        hashes <<= np.uint32(1)
    hashes &= np.uint32(0xFFFFFFFE)
    hashes[hashes == EOF_HASH] = EOF_HASH - 2
    return hashes


def _pack(characters: U32, left: Array64) -> list[U32]:
    """Return the words of a chunk: characters are shifted in over a padding made of the remaining length."""
    pad = (left & 0xFF).astype(np.uint32) * np.uint32(0x01010101)
    words = []
    for first in range(0, characters.shape[1], 4):
        word = pad
        for position in range(first, first + 4):
            word = np.where(position < left, characters[:, position] + (word << np.uint32(8)), word)
        words.append(word)
    return words


def _half_md4_columns(state: list[U32], characters: U32, left: Array64) -> list[U32]:
    words = _pack(characters, left)
    a, b, c, d = state
    for number, (constant, turns, order) in enumerate(_MD4_ROUNDS):
        for step, word in enumerate(order):
            if number == 0:
                mixed = d ^ (b & (c ^ d))
            elif number == 1:
                mixed = (b & c) + ((b ^ c) & d)
            else:
                mixed = b ^ c ^ d
            a = a + mixed + words[word] + np.uint32(constant)
            turn = turns[step % 4]
            a = (a << np.uint32(turn)) | (a >> np.uint32(32 - turn))
            a, b, c, d = d, a, b, c
    return [state[0] + a, state[1] + b, state[2] + c, state[3] + d]


def _tea_columns(state: list[U32], characters: U32, left: Array64) -> list[U32]:
    k0, k1, k2, k3 = _pack(characters, left)
    x, y = state[:2]
    four, five, total = np.uint32(4), np.uint32(5), 0
    for _ in range(16):
        total = (total + TEA_DELTA) & MASK
        step = np.uint32(total)
        x = x + (((y << four) + k0) ^ (y + step) ^ ((y >> five) + k1))
        y = y + (((x << four) + k2) ^ (x + step) ^ ((x >> five) + k3))
    return [state[0] + x, state[1] + y]


def _legacy_columns(state: list[U32], characters: U32, left: Array64) -> list[U32]:
    newer, older = state
    factor, sign, range_ = np.uint32(LEGACY_FACTOR), np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
    for position in range(characters.shape[1]):
        number = older + (newer ^ characters[:, position] * factor)
        number = np.where(number & sign, number - range_, number)
        there = position < left
        newer, older = np.where(there, number, newer), np.where(there, newer, older)
    return [newer, older]


class _Function(NamedTuple):
    """One hash version: the bytes of a chunk, the function that mixes one into the state, and the state word of the hash."""

    chunk: int
    mix: Callable[[list[U32], U32, Array64], list[U32]]
    result: int


_FUNCTIONS = {
    HashVersion.LEGACY: _Function(MD4_CHUNK, _legacy_columns, 0),
    HashVersion.HALF_MD4: _Function(MD4_CHUNK, _half_md4_columns, 1),
    HashVersion.TEA: _Function(TEA_CHUNK, _tea_columns, 0),
}
