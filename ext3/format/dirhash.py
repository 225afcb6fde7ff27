"""Directory hashes: half_md4, TEA and legacy, with signed or unsigned characters. Many names at once: ``dirhash_columns``.

A name is cut into chunks, packed into words and mixed into a state that starts as the filesystem's hash seed. The lowest
bit of a hash is clear: in an index it marks a leaf that continues the hash of the leaf before. Source: Linux
``fs/ext4/hash.c``, e2fsprogs ``lib/ext2fs/dirhash.c``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from ..constants import HashVersion

__all__ = ["DirHash"]

MASK = 0xFFFFFFFF
MD4_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
"""Initial state if the seed is all zero."""
ROUND_2 = 0x5A827999
ROUND_3 = 0x6ED9EBA1
"""Constants of the second and third round of MD4."""
TEA_DELTA = 0x9E3779B9
LEGACY_START = (0x12A3FE2D, 0x37ABE8F9)
LEGACY_FACTOR = 7152373
MD4_CHUNK = 32
TEA_CHUNK = 16
EOF_HASH = 0xFFFFFFFE
"""Reserved by the kernel for the end of a directory; a name that hashes to it gets the hash before."""

_WORDS8 = struct.Struct(">8I")
_WORDS4 = struct.Struct(">4I")


class DirHash:
    """Hash function of an index: its version, and the filesystem's seed (s_hash_seed, four words) and signedness.

    ``signed``: bytes above 127 are negative (1 in s_flags). Raise ValueError for an unknown version.
    """

    def __init__(self, version: int, seed: Sequence[int], *, signed: bool) -> None:
        self.version = HashVersion(version)
        self.signed = signed
        start = tuple(seed) if any(seed) else MD4_START
        self.start = LEGACY_START if self.version is HashVersion.LEGACY else start
        """State before the first chunk."""
        self._one = _FUNCTIONS[self.version]

    def __call__(self, name: bytes) -> int:
        """Return the hash of one name (1 to 255 bytes)."""
        number = self._one(name, self.start, self.signed) & 0xFFFFFFFE
        return EOF_HASH - 2 if number == EOF_HASH else number


def _padded_words(text: bytes, left: int, words: int) -> bytes:
    """Return the big-endian words of one chunk with ``left`` remaining bytes of name, of which the padding is made.

    In an unfinished word the padding comes first.
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
    """Return the words as ``_padded_words`` does, with bytes above 127 negative: borrows run into the bytes before."""
    pad = (left & 0xFF) * 0x01010101
    found = []
    for first in range(0, words * 4, 4):
        value = pad
        for byte in text[first : first + 4]:
            value = (value << 8) + (byte - 256 if byte > 127 else byte)
        found.append(value & MASK)
    return found


def _half_md4(name: bytes, start: Sequence[int], signed: bool) -> int:
    a0, b0, c0, d0 = start
    slow = signed and not name.isascii()
    for first in range(0, len(name), MD4_CHUNK):
        text = name[first : first + MD4_CHUNK]
        left = len(name) - first
        words = _signed_words(text, left, 8) if slow else _WORDS8.unpack(_padded_words(text, left, 8))
        a, b, c, d = _rounds(a0, b0, c0, d0, *words)
        a0, b0, c0, d0 = (a0 + a) & MASK, (b0 + b) & MASK, (c0 + c) & MASK, (d0 + d) & MASK
    return b0


def _rounds(
    a: int, b: int, c: int, d: int, w0: int, w1: int, w2: int, w3: int, w4: int, w5: int, w6: int, w7: int
) -> tuple[int, int, int, int]:
    """Mix one chunk: 24 steps, unrolled for speed. Bits above 31 do not affect the lower ones."""
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
    t = (a + ((b & c) | ((b ^ c) & d)) + w1 + ROUND_2) & MASK
    a = t << 3 | t >> 29
    t = (d + ((a & b) | ((a ^ b) & c)) + w3 + ROUND_2) & MASK
    d = t << 5 | t >> 27
    t = (c + ((d & a) | ((d ^ a) & b)) + w5 + ROUND_2) & MASK
    c = t << 9 | t >> 23
    t = (b + ((c & d) | ((c ^ d) & a)) + w7 + ROUND_2) & MASK
    b = t << 13 | t >> 19
    t = (a + ((b & c) | ((b ^ c) & d)) + w0 + ROUND_2) & MASK
    a = t << 3 | t >> 29
    t = (d + ((a & b) | ((a ^ b) & c)) + w2 + ROUND_2) & MASK
    d = t << 5 | t >> 27
    t = (c + ((d & a) | ((d ^ a) & b)) + w4 + ROUND_2) & MASK
    c = t << 9 | t >> 23
    t = (b + ((c & d) | ((c ^ d) & a)) + w6 + ROUND_2) & MASK
    b = t << 13 | t >> 19
    t = (a + (b ^ c ^ d) + w3 + ROUND_3) & MASK
    a = t << 3 | t >> 29
    t = (d + (a ^ b ^ c) + w7 + ROUND_3) & MASK
    d = t << 9 | t >> 23
    t = (c + (d ^ a ^ b) + w2 + ROUND_3) & MASK
    c = t << 11 | t >> 21
    t = (b + (c ^ d ^ a) + w6 + ROUND_3) & MASK
    b = t << 15 | t >> 17
    t = (a + (b ^ c ^ d) + w1 + ROUND_3) & MASK
    a = t << 3 | t >> 29
    t = (d + (a ^ b ^ c) + w5 + ROUND_3) & MASK
    d = t << 9 | t >> 23
    t = (c + (d ^ a ^ b) + w0 + ROUND_3) & MASK
    c = t << 11 | t >> 21
    t = (b + (c ^ d ^ a) + w4 + ROUND_3) & MASK
    b = t << 15 | t >> 17
    return a, b, c, d


def _tea(name: bytes, start: Sequence[int], signed: bool) -> int:
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


def _legacy(name: bytes, start: Sequence[int], signed: bool) -> int:
    newer, older = start
    for byte in name:
        value = byte - 256 if signed and byte > 127 else byte
        number = (older + (newer ^ (value * LEGACY_FACTOR & MASK))) & MASK
        if number & 0x80000000:
            number = (number - 0x7FFFFFFF) & MASK
        newer, older = number, newer
    return newer << 1 & MASK


_FUNCTIONS: dict[HashVersion, Callable[[bytes, Sequence[int], bool], int]] = {
    HashVersion.LEGACY: _legacy,
    HashVersion.HALF_MD4: _half_md4,
    HashVersion.TEA: _tea,
}
