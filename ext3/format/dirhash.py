"""The directory hash half_md4, for many names at once.

Source: Linux ``fs/ext4/hash.c``, e2fsprogs ``lib/ext2fs/dirhash.c``. Names are cut into chunks of 32 bytes, each packed
into eight words and mixed into a 4-word state that starts as the filesystem's hash seed; the hash is the state's second
word with its lowest bit clear (that bit means "continued" in an index).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["half_md4"]

U32 = npt.NDArray[np.uint32]

MD4_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
"""State where the seed is all zero."""
CHUNK = 32
EOF_HASH = 0xFFFFFFFE
"""Reserved by the kernel for the end of a directory; a name that hashes to it gets the hash before."""

NAMES_AT_ONCE = 8192
"""Hashed in pieces whose columns stay in the processor's cache."""

_ROUNDS = (
    (0x00000000, (3, 7, 11, 19), (0, 1, 2, 3, 4, 5, 6, 7)),
    (0x5A827999, (3, 5, 9, 13), (1, 3, 5, 7, 0, 2, 4, 6)),
    (0x6ED9EBA1, (3, 9, 11, 15), (3, 7, 2, 6, 1, 5, 0, 4)),
)


def half_md4(names: Sequence[bytes], seed: Sequence[int], *, signed: bool = True) -> U32:
    """Hash of each name (1 to 255 bytes), shape (len(names),); ``seed`` is s_hash_seed as four numbers.

    ``signed``: bytes above 127 count as negative, as s_flags says (1 = signed).
    """
    lengths = np.fromiter(map(len, names), np.int64, len(names))
    hashes = np.zeros(len(names), np.uint32)
    chunks = (lengths + CHUNK - 1) // CHUNK
    start = seed if any(seed) else MD4_START
    for count in sorted(set(chunks.tolist())):
        alike = np.flatnonzero(chunks == count)
        for low in range(0, len(alike), NAMES_AT_ONCE):
            rows = alike[low : low + NAMES_AT_ONCE]
            text = b"".join(names[row].ljust(count * CHUNK, b"\0") for row in rows.tolist())
            state = [np.full(len(rows), word, np.uint32) for word in start]
            words = np.frombuffer(text, np.int8 if signed else np.uint8).reshape(len(rows), -1).astype(np.uint32)
            for begin in range(0, count * CHUNK, CHUNK):
                state = _mix(state, _pack(words[:, begin : begin + CHUNK], lengths[rows] - begin))
            hashes[rows] = state[1] & np.uint32(0xFFFFFFFE)
    hashes[hashes == EOF_HASH] = EOF_HASH - 2
    return hashes


def _pack(text: U32, left: npt.NDArray[np.int64]) -> list[U32]:
    """Eight words from a chunk: bytes come in from the right over a padding made of the remaining length."""
    pad = (left & 0xFF).astype(np.uint32) * np.uint32(0x01010101)
    words = []
    for first in range(0, CHUNK, 4):
        word = pad
        for position in range(first, first + 4):
            word = np.where(position < left, text[:, position] + (word << np.uint32(8)), word)
        words.append(word)
    return words


def _mix(state: list[U32], words: list[U32]) -> list[U32]:
    a, b, c, d = state
    for number, (constant, turns, order) in enumerate(_ROUNDS):
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
