"""Maps of sparse files: which parts of a file an archive holds, in every format of GNU tar.

Formats: the old one of GNU tar (typeflag ``S``), and 0.0, 0.1 and 1.0 in pax records. Source: GNU tar manual, "Storing Sparse
Files".
"""

from __future__ import annotations

from .header import BLOCK, HeaderError, parse_number
from .pax import RANGE_LIMIT, Pairs, Records, parse_decimal
from .store import StoredRange
from .stream import Archive

__all__ = ["SIZE_LIMIT", "read_sparse_map", "stored_ranges"]

SIZE_LIMIT = 1 << 62
"""No file has so many bytes."""

_ENTRY, _NUMBER = 24, 12
_HEADER_ENTRIES, _HEADER_COUNT, _HEADER_EXTENDED = 386, 4, 482
_REAL_SIZE = slice(483, 495)
_EXTENSION_COUNT, _EXTENSION_EXTENDED = 21, 504
"""struct oldgnu_header and struct sparse_header of GNU tar: where the entries begin, how many there are, and the byte that says
that a block with more of them follows."""


def read_sparse_map(
    archive: Archive, block: bytes, *, typeflag: bytes, size: int, records: Records, repeated: Pairs
) -> tuple[int, Pairs | None, int]:
    """The size of a member, its map, None if it is not sparse, and how many of its ``size`` stored bytes were the map itself.

    ``block``: its header; ``repeated``: the map of format 0.0 that was among its records. Raises HeaderError and ArchiveError.
    """
    if typeflag == b"S":
        return parse_number(block[_REAL_SIZE], "a sparse file's size"), _read_old_map(archive, block), 0
    if b"SUN.holesdata" in records:
        raise HeaderError("Solaris sparse files are not supported")
    if records.get(b"GNU.sparse.major") == b"1":
        real = parse_decimal(records.get(b"GNU.sparse.realsize", b""), "a sparse file's size")
        return real, *_read_map_in_data(archive, size)
    if b"GNU.sparse.size" in records:
        real = parse_decimal(records[b"GNU.sparse.size"], "a sparse file's size")
        if b"GNU.sparse.map" in records:
            numbers = [parse_decimal(text, "a sparse map's entry") for text in records[b"GNU.sparse.map"].split(b",")]
            if len(numbers) % 2:
                raise HeaderError("the sparse map is malformed")
            return real, list(zip(numbers[::2], numbers[1::2], strict=True)), 0
        return real, repeated, 0
    return size, None, 0


def _read_old_map(archive: Archive, block: bytes) -> Pairs:
    pairs: Pairs = []
    start, count, extended = _HEADER_ENTRIES, _HEADER_COUNT, _HEADER_EXTENDED
    while True:
        for at in range(start, start + _ENTRY * count, _ENTRY):
            if not block[at + _NUMBER]:
                break
            offset, length = block[at : at + _NUMBER], block[at + _NUMBER : at + _ENTRY]
            pairs.append((parse_number(offset, "a sparse offset"), parse_number(length, "a sparse length")))
        if not block[extended]:
            return pairs
        if len(pairs) > RANGE_LIMIT:
            raise HeaderError("the sparse map is too long")
        block = archive.read(BLOCK)
        if len(block) < BLOCK:
            raise archive.ends_inside("a sparse map")
        start, count, extended = 0, _EXTENSION_COUNT, _EXTENSION_EXTENDED


def _read_map_in_data(archive: Archive, stored: int) -> tuple[Pairs, int]:
    """Format 1.0: decimal lines in front of the data, in whole blocks: a count, then offsets and lengths."""
    numbers: list[int] = []
    want, rest, used = 1, b"", 0
    while len(numbers) < want:
        if used + BLOCK > stored or len(rest) > BLOCK:
            raise HeaderError("the sparse map is malformed")
        data = archive.read(BLOCK)
        if len(data) < BLOCK:
            raise archive.ends_inside("a sparse map")
        used += BLOCK
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if len(numbers) == want:
                break
            numbers.append(parse_decimal(line, "a sparse map's entry"))
            if len(numbers) == 1:
                want = 1 + 2 * numbers[0]
                if numbers[0] > RANGE_LIMIT:
                    raise HeaderError("the sparse map is too long")
    return list(zip(numbers[1::2], numbers[2::2], strict=True)), used


def stored_ranges(pairs: Pairs, size: int, stored: int, data_offset: int) -> list[StoredRange]:
    """The parts of a file of ``size`` bytes as ranges of the store, where its ``stored`` bytes lie at ``data_offset``.

    Raises HeaderError unless they ascend, lie inside the file, and add up to what is stored.
    """
    if not 0 <= size < SIZE_LIMIT:
        raise HeaderError("the parts of a sparse file overlap or lie outside it")
    ranges: list[StoredRange] = []
    end = 0
    left = stored
    for logical, length in pairs:
        if logical < end or length < 0 or logical + length > size:
            raise HeaderError("the parts of a sparse file overlap or lie outside it")
        if length:
            ranges.append((logical, length, data_offset + stored - left))
        left -= length
        end = logical + length
    if left:
        raise HeaderError(f"the parts of a sparse file do not add up to the {stored} bytes stored")
    return ranges
