"""The members of a tar archive, one for each entry, whatever dialect it is written in.

Read are ustar, pax (records as bytes: values need not be UTF-8), GNU (long names, sparse files, base-256 numbers), star's
prefix and old Unix archives. A member's name says what the archive says: nothing is resolved, and names of whiteouts are names.
A type that is not known is a regular file, as POSIX asks. Sources: POSIX.1-2017 ``pax``; GNU tar manual, "Basic Tar Format";
libarchive ``tar(5)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG

from ..errors import show
from .errors import CorruptHeaderError, SparseMapError
from .header import BLOCK, FIELDS, Header, HeaderError, check_header, parse_number, unpack_header
from .pax import Pairs, Records, is_xattr_key, parse_decimal, parse_records, parse_signed, parse_time
from .sparse import SIZE_LIMIT, read_sparse_map, stored_ranges
from .store import StoredRange
from .stream import Archive

__all__ = ["HARD_LINK", "SKIPPED", "VOLUME_LABEL", "Member", "MemberTimes", "read_members"]

HARD_LINK = 0
"""``kind`` of a member that is one more name for an earlier one."""
SKIPPED = -1
"""``kind`` of a member that is no file: a volume label or a vendor's metadata."""
VOLUME_LABEL = b"V"
"""Typeflag of a label that ``tar -V`` gives an archive."""

NAME_PAYLOAD_LIMIT = 1 << 16
PAX_PAYLOAD_LIMIT = 8 << 20
"""An xattr has at most 64 KiB; what is longer than this is hostile."""
GLOBAL_LIMIT = 32
"""Records for all members that follow: each of them pays for these."""
TIME_LIMIT = 1 << 60

_ZEROS = bytes(BLOCK)
_TYPEFLAG, _SIZE = FIELDS["typeflag"], FIELDS["size"]
_EXTENSIONS = b"xXgLK"
"""Typeflags of headers that say more about the next one: pax, Solaris' pax, global pax, GNU's long names and link targets."""
_WITH_DATA = b"0\x007SD"
_CONTINUED = b"M"
"""Typeflag of the rest of a file that begins on another volume: it is no file."""
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
    VOLUME_LABEL: SKIPPED,
    b"A": SKIPPED,
    b"I": SKIPPED,
    b"N": SKIPPED,
}

MemberTimes = tuple[int, int, int, int, int, int]
"""atime, mtime, ctime in whole seconds since 1970, then the nanoseconds of each."""


@dataclass(slots=True)
class Member:
    """Entry of an archive. ``kind``: format bits of the mode, HARD_LINK or SKIPPED; ``offset``: byte of its header.

    ``size`` is the file's length, ``data_offset`` where the store has its data, ``ranges`` its map if it is sparse. ``target``
    is a symlink's text or a hard link's path; ``device`` (major, minor) of any size; ``records`` the pax records with a value,
    and those of extended attributes also without one.
    """

    name: bytes
    kind: int
    offset: int
    mode: int
    uid: int
    gid: int
    size: int
    times: MemberTimes
    target: bytes
    device: tuple[int, int]
    records: Records
    typeflag: bytes
    data_offset: int = 0
    ranges: list[StoredRange] | None = None

    @property
    def has_known_type(self) -> bool:
        """False if the member is a regular file only because its typeflag is not known."""
        return self.typeflag in _KINDS


def read_members(archive: Archive) -> Iterator[Member]:
    """All entries in the archive's order. Data of regular files is in its store afterwards.

    A compressed archive may lack its end marker (see ``Archive.has_end_marker``): its stream shows that nothing is missing.
    Raises CorruptHeaderError and SparseMapError with the byte where the entry begins, and ArchiveError from reading.
    """
    shared: Records = {}
    while True:
        long: dict[bytes, bytes] = {}
        own: Records = {}
        repeated: Pairs = []
        offset = archive.position
        block = archive.read(BLOCK)
        if not block and archive.compression:
            archive.has_end_marker = False
            return
        try:
            _check_block(archive, block)
            while (flag := block[_TYPEFLAG]) in _EXTENSIONS and block != _ZEROS:
                check_header(block)
                payload = _read_payload(archive, block, flag)
                if flag in b"LK":
                    long[flag] = payload.partition(b"\0")[0]
                elif flag == b"g":
                    shared.update(parse_records(payload)[0])
                    if len(shared) > GLOBAL_LIMIT:
                        raise HeaderError(f"more than {GLOBAL_LIMIT} global records")
                else:
                    own, repeated = parse_records(payload)
                block = archive.read(BLOCK)
                _check_block(archive, block)
            if block == _ZEROS:
                if long or own:
                    raise HeaderError("the archive ends where the header of an entry should be")
                return
            check_header(block)
            header, records = unpack_header(block), own
            if shared or own:
                header, records = _apply_deletions(header, {**shared, **own})
            member = _parse_member(header, offset, records, long)
        except HeaderError as error:
            raise CorruptHeaderError(
                archive.path, str(error), member=error.member, offset=offset, compression=archive.compression
            ) from error
        _take_data(archive, member, block, repeated)
        yield member


def _check_block(archive: Archive, block: bytes) -> None:
    """Raises TruncatedArchiveError for a header that is not whole."""
    if not block:
        raise archive.truncated("it has no end marker")
    if len(block) < BLOCK:
        raise archive.ends_inside("a header")


def _apply_deletions(header: Header, records: Records) -> tuple[Header, Records]:
    """Header and records of an entry without what its records delete.

    An empty value deletes the header's field and global records of its key (POSIX), which leaves 0 for owners and times, as
    bsdtar and Python have it. Names and sizes of the header stay, as in bsdtar and Go: without one there is no entry. An
    extended attribute may have an empty value.
    """
    deleted = {key: b"\0" for key in ("uid", "gid", "mtime") if records.get(key.encode()) == b""}
    kept = {key: value for key, value in records.items() if value or is_xattr_key(key)}
    return header._replace(**deleted) if deleted else header, kept


def _read_payload(archive: Archive, block: bytes, flag: bytes) -> bytes:
    size = parse_number(block[_SIZE], "the size of an extended header")
    limit = NAME_PAYLOAD_LIMIT if flag in b"LK" else PAX_PAYLOAD_LIMIT
    if not 0 <= size <= limit:
        raise HeaderError(f"an extended header of {size} bytes; at most {limit} are taken")
    data = archive.read(size + -size % BLOCK)
    if len(data) < size + -size % BLOCK:
        raise archive.ends_inside("an extended header")
    return data[:size]


def _parse_member(header: Header, offset: int, records: Records, long: dict[bytes, bytes]) -> Member:
    flag = header.typeflag
    kind = _KINDS.get(flag)
    name = records.get(b"GNU.sparse.name") or records.get(b"path") or long.get(b"L")
    if name is None:
        name = header.path()
    if flag == _CONTINUED:
        raise HeaderError(f"members of type {show(flag)} are not known", name)
    if kind is None:
        kind = S_IFREG
    if flag in b"0\0" and name.endswith(b"/"):
        kind = S_IFDIR  # as archives older than POSIX name a directory
    target = records.get(b"linkpath") or long.get(b"K", header.linkname.partition(b"\0")[0])
    size = parse_decimal(records[b"size"], "a size") if b"size" in records else parse_number(header.size, "a size")
    if not 0 <= size < SIZE_LIMIT:
        raise HeaderError(f"a size of {size} bytes cannot be", name)
    device = (0, 0)
    if kind in (S_IFCHR, S_IFBLK):
        device = (parse_number(header.devmajor, "a device number"), parse_number(header.devminor, "a device number"))
        if b"SCHILY.devmajor" in records and b"SCHILY.devminor" in records:
            device = (
                parse_decimal(records[b"SCHILY.devmajor"], "a device"),
                parse_decimal(records[b"SCHILY.devminor"], "a device"),
            )
    return Member(
        name,
        kind,
        offset,
        parse_number(header.mode, "a mode") & 0o7777,
        _parse_owner(records.get(b"uid"), header.uid),
        _parse_owner(records.get(b"gid"), header.gid),
        size,
        _parse_times(header, records),
        target,
        device,
        records,
        flag,
    )


def _parse_owner(record: bytes | None, octets: bytes) -> int:
    number = parse_number(octets, "an owner") if record is None else parse_signed(record, "an owner")
    if not -(1 << 31) <= number < 1 << 32:
        raise HeaderError(f"owner {number} does not fit 32 bits")
    return number & 0xFFFFFFFF


def _parse_times(header: Header, records: Records) -> MemberTimes:
    mtime = parse_time(records[b"mtime"]) if b"mtime" in records else (parse_number(header.mtime, "a time"), 0)
    atime = ctime = mtime
    gnu = header.gnu_times()
    if gnu is not None:
        atime, ctime = (gnu[0], 0), (gnu[1], 0)
    if records:
        atime = parse_time(records[b"atime"]) if b"atime" in records else atime
        ctime = parse_time(records[b"ctime"]) if b"ctime" in records else ctime
    times = atime[0], mtime[0], ctime[0], atime[1], mtime[1], ctime[1]
    if min(times) <= -TIME_LIMIT or max(times) >= TIME_LIMIT:  # nanoseconds are always in between
        raise HeaderError("a time is out of range")
    return times


def _take_data(archive: Archive, member: Member, block: bytes, repeated: Pairs) -> None:
    """Moves to the next header; the data of a regular file goes to the store."""
    if not (member.kind == SKIPPED or member.typeflag in _WITH_DATA or not member.has_known_type):
        member.size = 0  # links, devices and directories have no data, whatever their size says
        return
    stored = member.size
    if member.kind != S_IFREG:
        archive.skip(stored, member.name)
        member.size = 0
    elif member.records or member.typeflag == b"S":
        _take_sparse_data(archive, member, block, repeated)
    else:
        member.data_offset = archive.store_data(stored, member.name)
    archive.skip(-stored % BLOCK, member.name)


def _take_sparse_data(archive: Archive, member: Member, block: bytes, repeated: Pairs) -> None:
    """The same for a file that may have a map in its header, its records or its data."""
    stored = member.size
    try:
        member.size, pairs, used = read_sparse_map(
            archive, block, typeflag=member.typeflag, size=stored, records=member.records, repeated=repeated
        )
        member.data_offset = archive.store_data(stored - used, member.name)
        if pairs is not None:
            member.ranges = stored_ranges(pairs, member.size, stored - used, member.data_offset)
    except HeaderError as error:
        raise SparseMapError(
            archive.path, str(error), member=member.name, offset=member.offset, compression=archive.compression
        ) from error
