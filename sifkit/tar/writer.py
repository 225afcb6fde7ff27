"""Tar archives written member by member: ustar headers, with pax records for what their fields do not hold.

``members`` reads what is written here. Records are written for times with a fraction, names that are long or not ASCII, large
numbers and extended attributes; nothing depends on the clock or the locale. Sources: POSIX.1-2017 ``pax``, "ustar Interchange
Format" and "pax Extended Header"; GNU tar manual, "Storing Sparse Files" (format 1.0), and its escapes in attributes' keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from .header import BLOCK, FIELDS, PATH_LIMIT

__all__ = ["PATH_LIMIT", "NewMember", "TarWriter", "pack_headers", "sparse_member", "xattr_records"]

BATCH_MEMBERS, BATCH_BYTES = 2048, 4 << 20
SECOND = 1_000_000_000
NAME_BYTES = 100
OWNER_LIMIT = 1 << 21
LENGTH_LIMIT = 1 << 33
"""Numbers from here on do not fit an octal field."""
TEN_DIGITS = 10**9 * SECOND
PAX_NAME = b"./PaxHeaders"
SPARSE_PREFIX = b"GNUSparseFile.0/"
_ZEROS = bytes(BLOCK)
_MAGIC = b"ustar\x0000"

Records = tuple[tuple[bytes, bytes], ...]


class NewMember(NamedTuple):
    """Entry to write. ``typeflag``: as in a header; ``mode``: the permission bits; ``mtime``: nanoseconds since 1970.

    A directory's ``name`` ends in a slash. ``target``: of a link. ``records``: further pax records, written in this order.
    """

    name: bytes
    typeflag: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: bytes = b""
    major: int = 0
    minor: int = 0
    records: Records = ()


class TarWriter:
    """Writer of an archive to ``file``, which need not be seekable. Raises OSError of ``file``.

    Members are written in batches, whose headers are packed together.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.size = 0
        """Bytes written, and data of the batch."""
        self.unfinished = False
        """True if an entry's data is incomplete, so that nothing else can be added."""
        self._file = file
        self._members: list[NewMember] = []
        self._data: list[bytes | memoryview] = []
        self._batch_bytes = 0

    def add(self, member: NewMember, data: bytes | memoryview = b"") -> None:
        """One entry with all its data: ``member.size`` bytes."""
        self._members.append(member)
        self._data.append(data)
        self._batch_bytes += len(data)
        self.size += len(data)
        if len(self._members) >= BATCH_MEMBERS or self._batch_bytes >= BATCH_BYTES:
            self._flush()

    def add_pieces(self, member: NewMember, pieces: Iterable[bytes | memoryview]) -> None:
        """One entry whose data comes in pieces: together ``member.size`` bytes."""
        self.add(member)
        self._flush()
        self.unfinished = True
        for piece in pieces:
            self._write(piece)
            self.size += len(piece)
        self._write(_padding(member.size))
        self.unfinished = False

    def finish(self) -> None:
        """Writes the rest and the end marker. The file stays open."""
        self._flush()
        self._write(_ZEROS * 2)

    def _flush(self) -> None:
        """Writes the batch."""
        pieces: list[bytes | memoryview] = []
        for packed, data in zip(pack_headers(self._members), self._data, strict=True):
            pieces.append(packed)
            self.size += len(packed)
            if data:
                pieces += (data, _padding(len(data)))
        self._members, self._data, self._batch_bytes = [], [], 0
        self._write(b"".join(pieces))

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:  # a pipe without a buffer may take less
            view = view[self._file.write(view) :]


def pack_headers(members: Sequence[NewMember]) -> list[bytes]:
    """The header blocks of each member, extended ones in front. Names hold no NUL; only times may be negative."""
    payloads = [_payload(member) for member in members]
    plain = _blocks(members)
    extended = _blocks([NewMember(PAX_NAME, b"x", 0o644, 0, 0, len(payload), 0) for payload in payloads if payload])
    packed: list[bytes] = []
    at = 0
    for start, payload in zip(range(0, len(plain), BLOCK), payloads, strict=True):
        if payload:
            size = len(payload)
            blocks = payload.ljust(size + -size % BLOCK, b"\0")
            packed.append(extended[at : at + BLOCK] + blocks + plain[start : start + BLOCK])
            at += BLOCK
        else:
            packed.append(plain[start : start + BLOCK])
    return packed


def sparse_member(member: NewMember, pairs: Sequence[tuple[int, int]]) -> tuple[NewMember, bytes]:
    """The entry of a file with holes, and the map that goes in front of its data (GNU tar's format 1.0).

    ``pairs``: (offset, length) of its data, ascending, in bytes; ``member.size``: its length. Behind the map all of that data
    follows without gaps, then padding for ``size`` of the new entry.
    """
    ends = pairs[-1][0] + pairs[-1][1] if pairs else 0
    whole = [*pairs, (member.size, 0)] if ends < member.size else pairs  # an empty part at the end tells readers the length
    numbers = [len(whole), *(number for pair in whole for number in pair)]
    table = b"".join(b"%d\n" % number for number in numbers)
    table += _padding(len(table))
    records = (
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", member.name),
        (b"GNU.sparse.realsize", b"%d" % member.size),
    )
    name = SPARSE_PREFIX + member.name.rpartition(b"/")[2][: NAME_BYTES - len(SPARSE_PREFIX)]
    size = len(table) + sum(length for _, length in pairs)
    return member._replace(name=name, size=size, records=member.records + records), table


def xattr_records(xattrs: Iterable[tuple[bytes, bytes]]) -> Records:
    """Extended attributes as records, in the order given."""
    return tuple((b"SCHILY.xattr." + name.replace(b"%", b"%25").replace(b"=", b"%3D"), value) for name, value in xattrs)


def _payload(member: NewMember) -> bytes:
    """The pax records an entry needs; empty if none."""
    name, _, _, uid, gid, size, mtime, target, _, _, more = member
    if (
        len(name) <= NAME_BYTES
        and name.isascii()
        and uid < OWNER_LIMIT
        and gid < OWNER_LIMIT
        and size < LENGTH_LIMIT
        and not more
        and not target
        and TEN_DIGITS <= mtime < LENGTH_LIMIT * SECOND
    ):  # most entries need none, or one
        return b"30 mtime=%d.%09d\n" % divmod(mtime, SECOND) if mtime % SECOND else b""
    records: list[bytes] = []
    if not _fits(name):
        records.append(_record(b"path", name))
    if target and not _fits(target):
        records.append(_record(b"linkpath", target))
    if records and not (_is_utf8(name) and _is_utf8(target)):
        records.insert(0, _record(b"hdrcharset", b"BINARY"))
    if uid >= OWNER_LIMIT:
        records.append(_record(b"uid", b"%d" % uid))
    if gid >= OWNER_LIMIT:
        records.append(_record(b"gid", b"%d" % gid))
    if size >= LENGTH_LIMIT:
        records.append(_record(b"size", b"%d" % size))
    if mtime % SECOND or not 0 <= mtime < LENGTH_LIMIT * SECOND:
        records.append(_record(b"mtime", b"%s%d.%09d" % (b"-" if mtime < 0 else b"", *divmod(abs(mtime), SECOND))))
    records += [_record(key, value) for key, value in more]
    return b"".join(records)


def _padding(size: int) -> bytes:
    """Zeros between ``size`` bytes of data and the next header."""
    return _ZEROS[: -size % BLOCK]


def _fits(name: bytes) -> bool:
    return len(name) <= NAME_BYTES and name.isascii()


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE\\n``, where the length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _blocks(members: Sequence[NewMember]) -> bytes:
    """One ustar header for each entry. Numbers that do not fit are 0: records have them."""
    count = len(members)
    rows = np.zeros((count, BLOCK), np.uint8)
    if not count:
        return b""
    fields = {name: rows[:, place] for name, place in FIELDS.items()}
    names, flags, modes, uids, gids, sizes, times, targets, majors, minors, _ = zip(*members, strict=True)
    fields["name"][:] = _text([name if len(name) <= NAME_BYTES else name[:NAME_BYTES].rstrip(b"/") for name in names])
    _octal(fields["mode"], modes)
    _octal(fields["uid"], [uid if uid < OWNER_LIMIT else 0 for uid in uids])
    _octal(fields["gid"], [gid if gid < OWNER_LIMIT else 0 for gid in gids])
    _octal(fields["size"], [size if size < LENGTH_LIMIT else 0 for size in sizes])
    _octal(fields["mtime"], [time // SECOND if 0 <= time < LENGTH_LIMIT * SECOND else 0 for time in times])
    fields["chksum"][:] = 0x20  # the sum counts its own field as spaces
    fields["typeflag"][:, 0] = np.frombuffer(b"".join(flags), np.uint8)
    fields["linkname"][:] = _text([target[:NAME_BYTES] for target in targets])
    fields["magic"][:] = np.frombuffer(_MAGIC, np.uint8)
    _octal(fields["devmajor"], majors)
    _octal(fields["devminor"], minors)
    _octal(fields["chksum"][:, :-1], rows.sum(axis=1, dtype=np.int64))  # six digits, NUL, space
    return rows.tobytes()


def _text(names: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """Names of at most 100 bytes, each in its row."""
    return np.array(names, f"S{NAME_BYTES}").view(np.uint8).reshape(-1, NAME_BYTES)


def _octal(field: npt.NDArray[np.uint8], numbers: Sequence[int] | npt.NDArray[np.int64]) -> None:
    """Fills a field with digits and a NUL."""
    width = field.shape[1] - 1
    shifts = 3 * np.arange(width - 1, -1, -1)
    field[:, :width] = (np.asarray(numbers, np.int64)[:, None] >> shifts & 7) + 0x30
    field[:, width] = 0
