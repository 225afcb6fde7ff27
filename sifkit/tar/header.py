"""The headers of a tar archive: one ``Member`` for each entry, whatever dialect it is written in.

Read are ustar, pax (records as bytes: values need not be UTF-8), GNU (long names, sparse files, base-256 numbers), star's
prefix and old Unix archives. The standard library's reader is not used: it takes times through floats, ends silently at
a damaged header, reads GNU's times as a path prefix, and sizes reads by numbers from the archive. Sources: POSIX.1-2017
``pax``; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files"; libarchive ``tar(5)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ext3.constants import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG
from ext3.errors import show
from ext3.newfs.builder import Segment, Times

from .stream import BLOCK, Archive

__all__ = ["HARD_LINK", "PATH_LIMIT", "SKIPPED", "Member", "is_header", "members"]

HARD_LINK = 0
"""``kind`` of a member that is one more name for an earlier one."""
SKIPPED = -1
"""``kind`` of a member that is no file: a volume label or a vendor's metadata."""

PATH_LIMIT = 4096
"""Linux takes no longer path, its end included."""
NAME_PAYLOAD_LIMIT = 1 << 16
PAX_PAYLOAD_LIMIT = 8 << 20
"""An xattr has at most 64 KiB and ext3 holds less; what is longer than this is hostile."""
GLOBAL_LIMIT = 32
"""Records for all members that follow: each of them pays for these."""
RECORD_LIMIT = 1 << 16
SEGMENT_LIMIT = 1 << 20
SIZE_LIMIT = 1 << 62
TIME_LIMIT = 1 << 60

_ZEROS = bytes(BLOCK)
_KINDS = {
    b"0": S_IFREG,
    b"\0": S_IFREG,
    b"7": S_IFREG,
    b"S": S_IFREG,
    b"1": HARD_LINK,
    b"2": S_IFLNK,
    b"3": S_IFCHR,
    b"4": S_IFBLK,
    b"5": S_IFDIR,
    b"6": S_IFIFO,
    b"D": S_IFDIR,
    b"V": SKIPPED,
    b"A": SKIPPED,
    b"I": SKIPPED,
    b"N": SKIPPED,
}
_TIME = re.compile(rb"(-?)(\d{1,19})(?:\.(\d*))?\Z")

Records = dict[bytes, bytes]
Pairs = list[tuple[int, int]]


@dataclass(slots=True)
class Member:
    """One entry. ``kind``: format bits of the mode, HARD_LINK or SKIPPED; ``at``: byte of its header in the archive.

    ``size`` is the file's length, ``offset`` where the store has its data, ``segments`` its map if it is sparse (offsets
    of the store). ``target`` is a symlink's text or a hard link's path; ``records`` the pax records with a value.
    """

    name: bytes
    kind: int
    at: int
    mode: int
    uid: int
    gid: int
    size: int
    times: Times
    target: bytes
    device: tuple[int, int]
    records: Records
    flag: bytes
    offset: int = 0
    segments: list[Segment] | None = field(default=None)


def is_header(block: bytes) -> bool:
    """Whether 512 bytes begin an archive: a header with the right checksum, or the zeros of an empty archive."""
    if block == _ZEROS:
        return True
    try:
        return _checksum_fits(block)
    except ValueError:
        return False


def members(archive: Archive) -> Iterator[Member]:
    """All entries in the archive's order; file data is kept in its store, unless the entry is SKIPPED.

    Raises SourceError with the byte concerned: truncated, no end marker, a damaged header, numbers that cannot be.
    """
    common: Records = {}
    while True:
        long: dict[bytes, bytes] = {}
        own: Records = {}
        sparse: Pairs = []
        at = archive.position
        block = _next_block(archive)
        try:
            while (flag := block[156:157]) in b"xXgLK" and block != _ZEROS:
                _check(block)
                payload = _payload(archive, block, flag)
                if flag in b"LK":
                    long[flag] = payload.partition(b"\0")[0]
                elif flag == b"g":
                    common.update(_records(payload, []))
                    if len(common) > GLOBAL_LIMIT:
                        raise ValueError(f"more than {GLOBAL_LIMIT} global records")
                else:
                    own = _records(payload, sparse)
                block = _next_block(archive)
            if block == _ZEROS:
                if long or own:
                    raise ValueError("the archive ends where the header of an entry should be")
                return
            _check(block)
            records = {key: value for key, value in {**common, **own}.items() if value} if common or own else {}
            member = _member(block, at, records, long)
        except ValueError as error:
            raise archive.trouble(str(error), at, hint="the archive is damaged, or not written by a tar program") from error
        _take_data(archive, member, block, sparse)
        yield member


def _next_block(archive: Archive) -> bytes:
    block = archive.read(BLOCK)
    if not block:
        raise archive.truncated("it has no end marker")
    if len(block) < BLOCK:
        raise archive.cut_off("a header")
    return block


def _check(block: bytes) -> None:
    if not _checksum_fits(block):
        raise ValueError("a header's checksum is wrong")


def _checksum_fits(block: bytes) -> bool:
    want = _number(block[148:156], "the checksum")
    rest = block[:148] + block[156:]
    got = sum(rest) + 8 * 0x20
    # some old programs summed signed characters
    return got == want or got - 256 * sum(byte > 127 for byte in rest) == want


def _number(octets: bytes, what: str) -> int:
    """A field of a header: octal text, or base-256 (two's complement) where the first bit is set."""
    if octets[0] & 0x80:
        bits = len(octets) * 8 - 1
        number = int.from_bytes(octets, "big") & ((1 << bits) - 1)
        return number - (1 << bits) if number >> (bits - 1) else number
    text = octets.partition(b"\0")[0].strip()
    if not text:
        return 0
    try:
        return int(text, 8) if text.isdigit() else _refuse(what, text)
    except ValueError:
        return _refuse(what, text)


def _decimal(text: bytes, what: str) -> int:
    return int(text) if text.isdigit() and len(text) <= 20 else _refuse(what, text)


def _refuse(what: str, text: bytes) -> int:
    raise ValueError(f"{what} is not a number: {show(text[:24])}")


def _payload(archive: Archive, block: bytes, flag: bytes) -> bytes:
    size = _number(block[124:136], "the size of an extended header")
    limit = NAME_PAYLOAD_LIMIT if flag in b"LK" else PAX_PAYLOAD_LIMIT
    if not 0 <= size <= limit:
        raise ValueError(f"an extended header of {size} bytes; at most {limit} are taken")
    data = archive.read(size + -size % BLOCK)
    if len(data) < size + -size % BLOCK:
        raise archive.cut_off("an extended header")
    return data[:size]


def _records(data: bytes, sparse: Pairs) -> Records:
    """Pax records ``LENGTH KEY=VALUE\\n``. The map of sparse format 0.0, where keys repeat, is appended to ``sparse``."""
    records: Records = {}
    start = 0
    while start < len(data) and data[start]:
        space = data.find(b" ", start, start + 10)
        digits = data[start:space]
        end = start + int(digits) if space > 0 and digits.isdigit() else -1
        equals = data.find(b"=", space, end) if space < end <= len(data) else -1
        if equals < 0 or data[end - 1] != 0x0A:
            raise ValueError(f"an extended header's record at its byte {start} is malformed")
        key, value = data[space + 1 : equals], data[equals + 1 : end - 1]
        if key == b"GNU.sparse.offset":
            sparse.append((_decimal(value, "a sparse offset"), 0))
        elif key == b"GNU.sparse.numbytes" and sparse:
            sparse[-1] = (sparse[-1][0], _decimal(value, "a sparse length"))
        else:
            records[key] = value
        if len(records) > RECORD_LIMIT or len(sparse) > SEGMENT_LIMIT:
            raise ValueError("an extended header has too many records")
        start = end
    return records


def _member(block: bytes, at: int, records: Records, long: dict[bytes, bytes]) -> Member:
    flag = block[156:157]
    kind = _KINDS.get(flag)
    magic = block[257:265]
    name = block[:100].partition(b"\0")[0]
    if magic[:6] == b"ustar\0":
        # star ends its shorter prefix before its times
        prefix = block[345 : 476 if block[508:512] == b"tar\0" else 500].partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    name = records.get(b"GNU.sparse.name") or records.get(b"path") or long.get(b"L", name)
    if kind is None:
        raise ValueError(f"{show(name)}: members of type {show(flag)} are not known")
    if flag in b"0\0" and name.endswith(b"/"):
        kind = S_IFDIR  # as archives older than POSIX name a directory
    target = records.get(b"linkpath") or long.get(b"K", block[157:257].partition(b"\0")[0])
    size = _decimal(records[b"size"], "a size") if b"size" in records else _number(block[124:136], "a size")
    if not 0 <= size < SIZE_LIMIT:
        raise ValueError(f"{show(name[:PATH_LIMIT])}: a size of {size} bytes cannot be")
    device = (0, 0)
    if kind in (S_IFCHR, S_IFBLK):
        device = (_number(block[329:337], "a device number"), _number(block[337:345], "a device number"))
        if b"SCHILY.devmajor" in records and b"SCHILY.devminor" in records:
            device = (_decimal(records[b"SCHILY.devmajor"], "a device"), _decimal(records[b"SCHILY.devminor"], "a device"))
        if not (0 <= device[0] < 1 << 12 and 0 <= device[1] < 1 << 20):
            raise ValueError(f"{show(name[:PATH_LIMIT])}: device numbers {device[0]}, {device[1]} do not fit ext3")
    return Member(
        name,
        kind,
        at,
        _number(block[100:108], "a mode") & 0o7777,
        _owner(records.get(b"uid"), block[108:116]),
        _owner(records.get(b"gid"), block[116:124]),
        size,
        _times(block, records, magic),
        target,
        device,
        records,
        flag,
    )


def _owner(record: bytes | None, octets: bytes) -> int:
    number = _number(octets, "an owner") if record is None else _decimal(record, "an owner")
    if not -(1 << 31) <= number < 1 << 32:
        raise ValueError(f"owner {number} does not fit 32 bits")
    return number & 0xFFFFFFFF


def _times(block: bytes, records: Records, magic: bytes) -> Times:
    mtime = _time(records[b"mtime"]) if b"mtime" in records else (_number(block[136:148], "a time"), 0)
    atime = ctime = mtime
    if magic == b"ustar  \0" and block[345] and block[357]:
        # GNU puts them where ustar has the prefix
        atime, ctime = (_number(block[345:357], "a time"), 0), (_number(block[357:369], "a time"), 0)
    if records:
        atime = _time(records[b"atime"]) if b"atime" in records else atime
        ctime = _time(records[b"ctime"]) if b"ctime" in records else ctime
    if not all(-TIME_LIMIT < seconds < TIME_LIMIT for seconds in (atime[0], mtime[0], ctime[0])):
        raise ValueError("a time is out of range")
    return atime[0], mtime[0], ctime[0], atime[1], mtime[1], ctime[1]


def _time(text: bytes) -> tuple[int, int]:
    """Seconds and nanoseconds of decimal text; digits behind the ninth are dropped."""
    match = _TIME.match(text)
    if not match:
        raise ValueError(f"a time is not a number: {show(text[:32])}")
    seconds, nanoseconds = int(match[2]), int(((match[3] or b"") + bytes(b"0" * 9))[:9])
    if match[1]:
        return (-seconds - 1, 1_000_000_000 - nanoseconds) if nanoseconds else (-seconds, 0)
    return seconds, nanoseconds


def _take_data(archive: Archive, member: Member, block: bytes, sparse: Pairs) -> None:
    """Moves to the next header; what is a file's data goes to the store."""
    if not (member.kind == SKIPPED or member.flag in b"0\x007SD"):
        member.size = 0  # links, devices and directories have no data, whatever their size says
        return
    stored = member.size
    what = member.name
    padding = -stored % BLOCK
    try:
        if member.kind != S_IFREG:
            archive.skip(stored, what)
            member.size = 0
        else:
            pairs, used = _sparse_map(archive, member, block, sparse)
            member.offset = archive.keep(stored - used, what)
            if pairs is not None:
                member.segments = _segments(pairs, member.size, stored - used, member.offset)
    except ValueError as error:
        raise archive.trouble(f"{show(what[:PATH_LIMIT])}: {error}", member.at, hint="the archive is damaged") from error
    archive.skip(padding, what)


def _sparse_map(archive: Archive, member: Member, block: bytes, sparse: Pairs) -> tuple[Pairs | None, int]:
    """(offset, length) of the parts of a sparse member, or None; and how many of its stored bytes were the map itself.

    Sets the member's true size.
    """
    records = member.records
    if member.flag == b"S":
        member.size = _number(block[483:495], "a sparse file's size")
        return _old_gnu_map(archive, block), 0
    if b"SUN.holesdata" in records:
        raise ValueError("Solaris sparse files are not supported")
    if records.get(b"GNU.sparse.major") == b"1":
        stored = member.size
        member.size = _decimal(records.get(b"GNU.sparse.realsize", b""), "a sparse file's size")
        return _map_in_data(archive, stored)
    if b"GNU.sparse.size" in records:
        member.size = _decimal(records[b"GNU.sparse.size"], "a sparse file's size")
        if b"GNU.sparse.map" in records:
            numbers = [_decimal(text, "a sparse map's entry") for text in records[b"GNU.sparse.map"].split(b",")]
            return list(zip(numbers[::2], numbers[1::2], strict=True)), 0
        return sparse, 0
    return None, 0


def _old_gnu_map(archive: Archive, block: bytes) -> Pairs:
    pairs: Pairs = []
    start, count, more = 386, 4, 482
    while True:
        for at in range(start, start + 24 * count, 24):
            if not block[at + 12]:
                break
            pairs.append(
                (_number(block[at : at + 12], "a sparse offset"), _number(block[at + 12 : at + 24], "a sparse length"))
            )
        if not block[more]:
            return pairs
        if len(pairs) > SEGMENT_LIMIT:
            raise ValueError("the sparse map is too long")
        block = archive.read(BLOCK)
        if len(block) < BLOCK:
            raise archive.cut_off("a sparse map")
        start, count, more = 0, 21, 504


def _map_in_data(archive: Archive, stored: int) -> tuple[Pairs, int]:
    """Sparse format 1.0: decimal lines in front of the data, in whole blocks: a count, then offsets and lengths."""
    numbers: list[int] = []
    want, rest, used = 1, b"", 0
    while len(numbers) < want:
        if used + BLOCK > stored or len(rest) > BLOCK:
            raise ValueError("the sparse map is malformed")
        data = archive.read(BLOCK)
        if len(data) < BLOCK:
            raise archive.cut_off("a sparse map")
        used += BLOCK
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        for line in lines[: want - len(numbers) if numbers else None]:
            if numbers and len(numbers) == want:
                break
            numbers.append(_decimal(line, "a sparse map's entry"))
            if len(numbers) == 1:
                want = 1 + 2 * numbers[0]
                if numbers[0] > SEGMENT_LIMIT:
                    raise ValueError("the sparse map is too long")
    return list(zip(numbers[1::2], numbers[2::2], strict=True)), used


def _segments(pairs: Pairs, size: int, stored: int, offset: int) -> list[Segment]:
    """The parts as segments of the store, checked: ascending, inside the file, and together all that is stored."""
    segments: list[Segment] = []
    end = 0
    left = stored
    for logical, length in pairs:
        if logical < end or length < 0 or logical + length > size or size >= SIZE_LIMIT:
            raise ValueError("the parts of a sparse file overlap or lie outside it")
        if length:
            segments.append((logical, length, offset + stored - left))
        left -= length
        end = logical + length
    if left or size >= SIZE_LIMIT:
        raise ValueError(f"the parts of a sparse file do not add up to the {stored} bytes stored")
    return segments
