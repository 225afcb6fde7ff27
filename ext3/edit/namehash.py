"""The hash of a name in an indexed directory, in the three versions an index may use, one name at a time or many.

Source: Linux ``fs/ext4/hash.c``. One name costs a few microseconds here; a leaf full of names goes through numpy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial

from ..constants import HashVersion
from ..format.dirhash import CHUNK, EOF_HASH, MD4_START, half_md4

__all__ = ["NameHash"]

MASK = 0xFFFFFFFF
ROOT_2 = 0x5A827999
ROOT_3 = 0x6ED9EBA1
"""Constants of the second and third round of MD4."""
TEA_CHUNK = 16
TEA_DELTA = 0x9E3779B9
MANY = 32
"""From so many names on numpy is faster."""

_WORDS8 = struct.Struct(">8I")
_WORDS4 = struct.Struct(">4I")


class NameHash:
    """The hash an index uses: its version, the filesystem's seed (four words), and whether bytes above 127 are negative.

    ValueError for a version nobody defined.
    """

    def __init__(self, version: int, seed: Sequence[int], *, signed: bool) -> None:
        self.version = HashVersion(version)
        self._seed = tuple(seed)
        self._signed = signed
        start = (seed[0], seed[1], seed[2], seed[3]) if any(seed) else MD4_START
        functions: dict[HashVersion, Callable[[bytes], int]] = {
            HashVersion.LEGACY: partial(_legacy, signed=signed),
            HashVersion.HALF_MD4: partial(_half_md4, start=start, signed=signed),
            HashVersion.TEA: partial(_tea, start=start, signed=signed),
        }
        self._function = functions[self.version]

    def __call__(self, name: bytes) -> int:
        """The hash of one name: 32 bits, the lowest clear."""
        number = self._function(name) & 0xFFFFFFFE
        return EOF_HASH - 2 if number == EOF_HASH else number

    def many(self, names: Sequence[bytes]) -> list[int]:
        """The hash of each name, in order."""
        if self.version == HashVersion.HALF_MD4 and len(names) >= MANY:
            found: list[int] = half_md4(names, self._seed, signed=self._signed).tolist()
            return found
        return [self(name) for name in names]


def _padded_words(text: bytes, left: int, words: int) -> bytes:
    """Big-endian words of one chunk, of which ``left`` bytes of name are still to come; the padding says how many.

    The bytes of an unfinished word come last in it, the padding first.
    """
    size = words * 4
    if len(text) >= size:
        return text
    pad = (left & 0xFF).to_bytes(1, "little")
    rest = len(text) & 3
    if rest:
        whole = len(text) - rest
        text = text[:whole] + pad * (4 - rest) + text[whole:]
    return text.ljust(size, pad)


def _signed_words(text: bytes, left: int, words: int) -> list[int]:
    """As _padded_words, for a chunk with bytes above 127 that count as negative: borrows run into the bytes before."""
    pad = (left & 0xFF) * 0x01010101
    found = []
    for first in range(0, words * 4, 4):
        value = pad
        for byte in text[first : first + 4]:
            value = (value << 8) + (byte - 256 if byte > 127 else byte)
        found.append(value & MASK)
    return found


def _half_md4(name: bytes, *, start: tuple[int, int, int, int], signed: bool) -> int:
    a0, b0, c0, d0 = start
    slow = signed and not name.isascii()
    for first in range(0, len(name), CHUNK):
        text = name[first : first + CHUNK]
        left = len(name) - first
        words = _signed_words(text, left, 8) if slow else _WORDS8.unpack(_padded_words(text, left, 8))
        a, b, c, d = _rounds(a0, b0, c0, d0, *words)
        a0, b0, c0, d0 = (a0 + a) & MASK, (b0 + b) & MASK, (c0 + c) & MASK, (d0 + d) & MASK
    return b0


def _rounds(
    a: int, b: int, c: int, d: int, w0: int, w1: int, w2: int, w3: int, w4: int, w5: int, w6: int, w7: int
) -> tuple[int, int, int, int]:
    """The 24 steps of one chunk, written out for speed. Bits above 31 are rubbish that no later step lets down."""
    t = (a + (d ^ (b & (c ^ d))) + w0) & MASK
    a = t << 3 | t >> 29
    t = (d + (c ^ (a & (b ^ c))) + w1) & MASK
    d = t << 7 | t >> 25
    t = (c + (b ^ (d & (a ^ b))) + w2) & MASK
    c = t << 11 | t >> 21
    t = (b + (a ^ (c & (d ^ a))) + w3) & MASK
    b = t << 19 | t >> 13
    t = (a + (d ^ (b & (c ^ d))) + w4) & MASK
    a = t << 3 | t >> 29
    t = (d + (c ^ (a & (b ^ c))) + w5) & MASK
    d = t << 7 | t >> 25
    t = (c + (b ^ (d & (a ^ b))) + w6) & MASK
    c = t << 11 | t >> 21
    t = (b + (a ^ (c & (d ^ a))) + w7) & MASK
    b = t << 19 | t >> 13
    t = (a + ((b & c) | ((b ^ c) & d)) + w1 + ROOT_2) & MASK
    a = t << 3 | t >> 29
    t = (d + ((a & b) | ((a ^ b) & c)) + w3 + ROOT_2) & MASK
    d = t << 5 | t >> 27
    t = (c + ((d & a) | ((d ^ a) & b)) + w5 + ROOT_2) & MASK
    c = t << 9 | t >> 23
    t = (b + ((c & d) | ((c ^ d) & a)) + w7 + ROOT_2) & MASK
    b = t << 13 | t >> 19
    t = (a + ((b & c) | ((b ^ c) & d)) + w0 + ROOT_2) & MASK
    a = t << 3 | t >> 29
    t = (d + ((a & b) | ((a ^ b) & c)) + w2 + ROOT_2) & MASK
    d = t << 5 | t >> 27
    t = (c + ((d & a) | ((d ^ a) & b)) + w4 + ROOT_2) & MASK
    c = t << 9 | t >> 23
    t = (b + ((c & d) | ((c ^ d) & a)) + w6 + ROOT_2) & MASK
    b = t << 13 | t >> 19
    t = (a + (b ^ c ^ d) + w3 + ROOT_3) & MASK
    a = t << 3 | t >> 29
    t = (d + (a ^ b ^ c) + w7 + ROOT_3) & MASK
    d = t << 9 | t >> 23
    t = (c + (d ^ a ^ b) + w2 + ROOT_3) & MASK
    c = t << 11 | t >> 21
    t = (b + (c ^ d ^ a) + w6 + ROOT_3) & MASK
    b = t << 15 | t >> 17
    t = (a + (b ^ c ^ d) + w1 + ROOT_3) & MASK
    a = t << 3 | t >> 29
    t = (d + (a ^ b ^ c) + w5 + ROOT_3) & MASK
    d = t << 9 | t >> 23
    t = (c + (d ^ a ^ b) + w0 + ROOT_3) & MASK
    c = t << 11 | t >> 21
    t = (b + (c ^ d ^ a) + w4 + ROOT_3) & MASK
    b = t << 15 | t >> 17
    return a, b, c, d


def _tea(name: bytes, *, start: tuple[int, int, int, int], signed: bool) -> int:
    x, y = start[:2]
    slow = signed and not name.isascii()
    for first in range(0, len(name), TEA_CHUNK):
        text = name[first : first + TEA_CHUNK]
        left = len(name) - first
        k0, k1, k2, k3 = _signed_words(text, left, 4) if slow else _WORDS4.unpack(_padded_words(text, left, 4))
        b0, b1, total = x, y, 0
        for _ in range(16):
            total = (total + TEA_DELTA) & MASK
            b0 = (b0 + (((b1 << 4) + k0) ^ (b1 + total) ^ ((b1 >> 5) + k1))) & MASK
            b1 = (b1 + (((b0 << 4) + k2) ^ (b0 + total) ^ ((b0 >> 5) + k3))) & MASK
        x, y = (x + b0) & MASK, (y + b1) & MASK
    return x


def _legacy(name: bytes, *, signed: bool) -> int:
    newer, older = 0x12A3FE2D, 0x37ABE8F9
    for byte in name:
        value = byte - 256 if signed and byte > 127 else byte
        number = (older + (newer ^ (value * 7152373 & MASK))) & MASK
        if number & 0x80000000:
            number = (number - 0x7FFFFFFF) & MASK
        newer, older = number, newer
    return newer << 1 & MASK
