"""Directories: their listings, and the index with which a name is found in a large one.

A listing is a list of runs: a header, then up to 256 entries whose inodes lie in the same block. Names are in byte order. The
index of an extended directory names the first entry of a run in each block of the listing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from ..errors import show
from .errors import CorruptSquashfsError
from .inode import Inode
from .metadata_blocks import METADATA_BYTES, MetadataCursor, MetadataTable
from .schema import DIR_ENTRY, DIR_HEADER, DIR_INDEX, EXTENDED_DIRECTORY_INODE

__all__ = ["DirectoryListing", "Entry", "find_entry", "check_index", "read_directory"]

SIZE_OF_DOTS = 3
"""Bytes by which the size of a directory exceeds its listing, for the entries ``.`` and ``..``, which are not stored."""
MAX_RUN = 256
MAX_NAME = 256
KINDS = frozenset(range(1, 8))
HEADER_BYTES, ENTRY_BYTES = DIR_HEADER.size, DIR_ENTRY.size
MAX_NAMES = 1 << 24
"""Most names read of a directory: they are in memory."""
FREE_NAMES, NAMES_PER_BYTE = 4096, 4
"""Most names for each stored byte, beyond the first ones. Names differ, so they do not compress to nothing: hard links of one
file with numbers as names are 1.4 to a byte, other names a tenth of that. Damaged listings may repeat themselves."""


class Entry(NamedTuple):
    """Entry of a directory. ``node``: reference of its inode, of kind ``kind`` (1 to 7) and number ``ino``."""

    name: bytes
    node: int
    kind: int
    ino: int


class DirectoryListing(NamedTuple):
    """Entries in byte order of names. ``problem``: the error that cut them short. ``stored_bytes``: what they take.

    ``in_order``: they are stored in this order, which other readers rely on.
    """

    entries: list[Entry]
    problem: OSError | None
    stored_bytes: int
    in_order: bool


_entry = partial(tuple.__new__, Entry)
"""Entry from a tuple, without checking its length: this runs once per file."""
_unpack_header, _unpack_entry = DIR_HEADER.packer.unpack_from, DIR_ENTRY.packer.unpack_from


def read_directory(table: MetadataTable, inode: Inode) -> DirectoryListing:
    """Read the listing of the directory ``inode`` in the table of directories. What is wrong is its ``problem``."""
    runs = _Runs(table, inode, inode.start_block << 16 | inode.offset, inode.size - SIZE_OF_DOTS)
    entries: list[Entry] = []
    problem: OSError | None = None
    try:
        for parsed in runs:
            entries += parsed
    except OSError as error:
        problem = error
    return _checked(runs, entries, problem)


def find_entry(table: MetadataTable, inodes: MetadataTable, node: int, inode: Inode, name: bytes) -> Entry | None:
    """Return the entry ``name`` of the directory ``inode``, whose reference is ``node``; None if there is none.

    A directory with an index is searched by that, as the kernel does. Raises what makes the listing unreadable before the name.
    """
    if not inode.index_count:
        listing = read_directory(table, inode)
        found = next((entry for entry in listing.entries if entry.name == name), None)
        if found is None and listing.problem is not None:
            raise listing.problem
        return found
    reference, skipped = _find_in_index(inodes, node, inode, name)
    runs = _Runs(table, inode, reference, inode.size - SIZE_OF_DOTS - skipped)
    for parsed in runs:
        for entry in parsed:
            if entry.name == name:
                checked = _checked(runs, [entry], None)
                if checked.problem is not None:
                    raise checked.problem
                return entry
        if parsed and parsed[-1].name > name:
            break
    return None


def check_index(table: MetadataTable, inodes: MetadataTable, node: int, inode: Inode) -> None:
    """Check that each entry in the index of the directory ``inode`` leads to the run that begins with its name.

    ``node``: reference of the inode. Raises CorruptSquashfsError and OSError.
    """
    reference, before = inode.start_block << 16 | inode.offset, -1
    for name, block, index in _index_entries(inodes, node, inode):
        where, place = f"index of directory inode {inode.ino}", inodes.place(node)
        if not before < index < inode.size:
            raise CorruptSquashfsError(where, "index", index, f"{before + 1} to {inode.size - 1}", offset=place)
        reference, before = table.skip(reference, index - max(0, before)), index
        if reference >> 16 != block:
            raise CorruptSquashfsError(where, "start_block", block, reference >> 16, offset=place)
        cursor = MetadataCursor(table, reference)
        cursor.read(HEADER_BYTES)
        _, _, _, length = DIR_ENTRY.packer.unpack(cursor.read(ENTRY_BYTES))
        if length >= MAX_NAME or (found := cursor.read(length + 1)) != name:
            want = "that of an entry" if length >= MAX_NAME else repr(show(found))
            raise CorruptSquashfsError(where, "name", repr(show(name)), want, offset=place)


def _find_in_index(inodes: MetadataTable, node: int, inode: Inode, name: bytes) -> tuple[int, int]:
    """Return the reference of the last run in the index that does not begin behind ``name``, and the bytes before it."""
    start, skipped = inode.start_block, 0
    for first, block, index in _index_entries(inodes, node, inode):
        if first > name:
            break
        start, skipped = block, index
    return start << 16 | (inode.offset + skipped) % METADATA_BYTES, skipped


def _index_entries(inodes: MetadataTable, node: int, inode: Inode) -> Iterator[tuple[bytes, int, int]]:
    """Iterate over an index: first name of a run, start of its block in the table, bytes of the listing before it."""
    cursor = MetadataCursor(inodes, node + EXTENDED_DIRECTORY_INODE.size)
    for _ in range(inode.index_count):
        index, block, size = DIR_INDEX.packer.unpack(cursor.read(DIR_INDEX.size))
        if size >= MAX_NAME:
            where = f"index of directory inode {inode.ino}"
            raise CorruptSquashfsError(where, "size of a name", size, f"below {MAX_NAME}", offset=inodes.place(node))
        yield cursor.read(size + 1), block, index


class _Runs:
    """Entries of a listing, or of the rest of it: ``size`` bytes from ``reference``. Iterates over them block by block.

    ``stored_bytes``: what the blocks read so far take in the image, as far as they are this directory's.
    """

    def __init__(self, table: MetadataTable, inode: Inode, reference: int, size: int) -> None:
        self._table = table
        self._ino = inode.ino
        self._reference = reference
        self._size = max(0, size)
        self.stored_bytes = 0

    def corrupt(self, field: str, got: object, want: object) -> CorruptSquashfsError:
        """Return the error of this listing."""
        place = self._table.place(self._reference)
        return CorruptSquashfsError(f"directory inode {self._ino}", field, got, want, offset=place)

    def __iter__(self) -> Iterator[list[Entry]]:
        unread = self._size
        if not unread:
            return
        if self._reference & 0xFFFF >= METADATA_BYTES:
            raise self.corrupt("offset", self._reference & 0xFFFF, f"below {METADATA_BYTES}")
        left = start = first_ino = names = 0
        rest = b""
        for piece, stored in self._table.pieces(self._reference):
            self.stored_bytes += max(1, stored * min(unread, len(piece)) // len(piece))
            data = rest + piece[:unread]
            unread -= len(data) - len(rest)
            entries: list[Entry] = []
            append = entries.append
            at, end = 0, len(data)
            while True:
                if not left:
                    if at + HEADER_BYTES > end:
                        break
                    count, start, first_ino = _unpack_header(data, at)
                    if count >= MAX_RUN:
                        yield entries
                        raise self.corrupt("count of a run", count, f"below {MAX_RUN}")
                    at += HEADER_BYTES
                    left = count + 1
                    start <<= 16
                while left and at + ENTRY_BYTES <= end:
                    offset, difference, kind, length = _unpack_entry(data, at)
                    stop = at + ENTRY_BYTES + 1 + length
                    if length >= MAX_NAME:
                        yield entries
                        raise self.corrupt("size of a name", length, f"below {MAX_NAME}")
                    if stop > end:
                        break
                    append(_entry((data[at + ENTRY_BYTES : stop], start | offset, kind, first_ino + difference)))
                    at = stop
                    left -= 1
                if left:
                    break
            yield entries
            names += len(entries)
            if names > min(MAX_NAMES, FREE_NAMES + NAMES_PER_BYTE * self.stored_bytes):
                raise self.corrupt("names in its listing", names, f"fewer in {self.stored_bytes} bytes")
            rest = data[at:]
            if not unread:
                break
        if left or rest or unread:
            raise self.corrupt("end", "in an entry" if left or rest else "in the next table", "behind an entry")


def _checked(runs: _Runs, entries: list[Entry], problem: OSError | None) -> DirectoryListing:
    """Return the listing of these entries in byte order of names, up to the first that cannot be."""
    names = [entry.name for entry in entries]
    joined = b"/".join(names)
    if (
        joined.count(b"/") >= max(1, len(names))
        or b"\0" in joined
        or b"." in names
        or b".." in names
        or not KINDS.issuperset(entry.kind for entry in entries)
    ):
        bad = next(position for position, entry in enumerate(entries) if not _is_possible(entry))
        name, _, kind, _ = entries[bad]
        problem = runs.corrupt(f"type of the entry {show(name)!r}", kind, "1 to 7") if kind not in KINDS else None
        problem = problem or runs.corrupt("name of an entry", repr(show(name)), "one without '/' and NUL, not '.' or '..'")
        entries, names = entries[:bad], names[:bad]
    if len(set(names)) != len(names):
        once: dict[bytes, Entry] = {}
        for entry in entries:
            if once.setdefault(entry.name, entry) is not entry:
                problem = problem or runs.corrupt("name of an entry", repr(show(entry.name)), "one that is there once")
        entries = list(once.values())
        names = list(once)
    in_order = sorted(names) == names
    if not in_order:
        entries = sorted(entries)
    return DirectoryListing(entries, problem, runs.stored_bytes, in_order)


def _is_possible(entry: Entry) -> bool:
    name = entry.name
    return b"/" not in name and b"\0" not in name and name not in (b".", b"..") and entry.kind in KINDS
