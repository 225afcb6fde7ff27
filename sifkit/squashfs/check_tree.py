"""Check of inodes and directories: every inode reachable from the root, once, and as its directory entries say."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import counted
from .check_report import CheckReport, SquashfsProblem, SquashfsProblemCode
from .check_tables import CheckedTables
from .directory import Entry, check_index
from .errors import CorruptSquashfsError
from .file_data import WORD_BYTES
from .inode import DIRECTORY_KIND, REGULAR_KIND, SYMLINK_KIND, Inode
from .reader import Reader
from .schema import IPC_INODE

__all__ = ["CheckedTree", "check_tree"]

MAX_PATH_BYTES = 4096
MAX_NAMES_READ = 4_000_000
"""Most names read again to tell the paths of problems."""
MAX_KNOWN_NAMES = 10_000


@dataclass(slots=True)
class CheckedTree:
    """Inodes found, by number (0 is unused). Arrays of numbers: an image may have millions."""

    reader: Reader
    references: array[int]
    """Reference of each inode plus 1; 0: not found."""
    parents: array[int]
    """Number of a directory with an entry of the inode; 0: none."""
    fragment_ends: array[int]
    """Bytes that the files of each fragment need of it."""
    file_starts: array[int] = field(default_factory=lambda: array("Q"))
    """First byte of the blocks of each regular file that has some, with its number in ``file_inos``."""
    file_inos: array[int] = field(default_factory=lambda: array("I"))
    directories: int = 0
    files: int = 0
    """Inodes of regular files."""
    inodes: int = 0
    """All inodes."""
    names_left: int = MAX_NAMES_READ
    _known_names: dict[int, bytes] = field(default_factory=dict)
    """Names found before, by inode number: most paths have their directories in common."""
    _names: tuple[int, dict[int, bytes]] = (0, {})
    """Names in one directory by inode number, the last one read for a path, with its own number."""

    def node(self, ino: int) -> int:
        """Return the reference of an inode that was found."""
        return self.references[ino] - 1

    def path(self, ino: int) -> bytes | None:
        """Return a path of an inode that was found, its end if it is long; None if none is known. Thread-safe."""
        if not 0 < ino < len(self.references) or not self.references[ino]:
            return None
        parts: list[bytes] = []
        size = 0
        while size < MAX_PATH_BYTES:
            parent = self.parents[ino]
            if not parent:
                return b"/" + b"/".join(reversed(parts))
            name = self._name(parent, ino)
            if name is None:
                return None
            parts.append(name)
            size += len(name) + 1
            ino = parent
        return b".../" + b"/".join(reversed(parts))

    def _name(self, directory: int, ino: int) -> bytes | None:
        """Return the name of an inode in a directory, None if there is none, or too many were read for that."""
        known = self._known_names.get(ino)
        if known is None:
            names = self._names
            if names[0] != directory:
                if self.names_left <= 0:
                    return None
                try:
                    entries = self.reader.listing(self.node(directory)).entries
                except OSError:
                    entries = []
                self.names_left -= len(entries) + 1
                names = self._names = directory, {entry.ino: entry.name for entry in reversed(entries)}
            known = names[1].get(ino)
            if known is not None and len(self._known_names) < MAX_KNOWN_NAMES:
                self._known_names[ino] = known
        return known


def check_tree(reader: Reader, tables: CheckedTables, report: CheckReport) -> CheckedTree:
    """Check every inode and directory that can be reached from the root."""
    claimed = reader.superblock.inodes
    most = tables.inodes // IPC_INODE.size  # the shortest
    if claimed > most:
        error = CorruptSquashfsError("superblock", "inodes", claimed, f"at most {most}, as the table holds", offset=0)
        report.add_error(SquashfsProblemCode.TABLE, error)
    inodes = min(claimed, most)
    fragments, data_end = reader.superblock.fragments, reader.superblock.inode_table_start
    if fragments > data_end:
        error = CorruptSquashfsError("superblock", "fragments", fragments, f"at most {data_end}, the bytes of data", offset=0)
        report.add_error(SquashfsProblemCode.TABLE, error)
    tree = CheckedTree(
        reader,
        array("Q", bytes(8 * (inodes + 1))),
        array("I", bytes(4 * (inodes + 1))),
        array("I", bytes(4 * min(fragments, data_end))),
    )
    _TreeCheck(reader, tree, tables, report).run(complete=inodes == claimed)
    return tree


class _TreeCheck:
    """Check that goes from the root to every inode, each of which is decoded once."""

    def __init__(self, reader: Reader, tree: CheckedTree, tables: CheckedTables, report: CheckReport) -> None:
        self._reader = reader
        self._tree = tree
        self._report = report
        self._user_sets = tables.user_sets
        self._listing_bytes_left = tables.directories
        self._inode_bytes_left = tables.inodes
        """Bytes of the tables not read yet. Each is read once, whatever the image says."""
        self._links_found = array("I", bytes(4 * len(tree.references)))
        self._links_stored = array("I", bytes(4 * len(tree.references)))
        self._pending: list[tuple[int, int, Inode]] = []
        """Directories to enter: reference, number of the parent, inode."""

    def run(self, *, complete: bool) -> None:
        """``complete``: the number of inodes is believable."""
        root = self._reader.root
        try:
            inode = self._reader.inode(root)
            if inode.kind != DIRECTORY_KIND:
                raise CorruptSquashfsError("superblock", "root_inode", "no directory", "a directory", offset=0)
            self._check_number(inode.ino)
        except OSError as error:
            self._report.add_error(SquashfsProblemCode.INODE, error, path=b"/")
            return
        self._add(root, inode, 0)
        while self._pending:
            self._enter(*self._pending.pop())
        self._check_links()
        missing = self._reader.superblock.inodes - self._tree.inodes
        if complete and missing:
            text = f"{counted(missing, 'inode')} of {self._reader.superblock.inodes:,} cannot be reached from the root"
            self._report.add(SquashfsProblem(SquashfsProblemCode.UNREACHABLE, text))

    def _check_number(self, ino: int) -> None:
        if not 0 < ino < len(self._tree.references):
            raise CorruptSquashfsError("inode", "inode_number", ino, f"1 to {len(self._tree.references) - 1}")

    def _add(self, node: int, inode: Inode, parent: int) -> None:
        """Add an inode that is met for the first time."""
        tree, ino = self._tree, inode.ino
        tree.references[ino] = node + 1
        tree.parents[ino] = parent
        tree.inodes += 1
        self._links_stored[ino] = inode.links
        if inode.kind == DIRECTORY_KIND:
            tree.directories += 1
            self._pending.append((node, parent, inode))
            return
        try:
            if inode.kind == REGULAR_KIND:
                tree.files += 1
                self._add_file(node, inode)
            elif inode.kind == SYMLINK_KIND:
                self._reader.readlink(node)
        except OSError as error:
            self._report.add_error(SquashfsProblemCode.INODE, error, path=tree.path(ino))
        self._check_xattrs(node, inode)

    def _add_file(self, node: int, inode: Inode) -> None:
        """Check where a file's data is. Raises CorruptSquashfsError and OSError."""
        tree, index = self._tree, inode.fragment_index
        if index is not None:
            unit = self._reader.superblock.block_size
            end = inode.fragment_offset + inode.size - inode.block_count * unit
            if index >= len(tree.fragment_ends):
                raise self._reader.inodes.corrupt(node, "fragment", index, f"below {len(tree.fragment_ends)}")
            if end > unit:
                raise self._reader.inodes.corrupt(node, "end of its data in a fragment", end, f"at most {unit}")
            tree.fragment_ends[index] = max(tree.fragment_ends[index], end)
        self._inode_bytes_left -= inode.block_count * WORD_BYTES
        if self._inode_bytes_left < 0:
            raise self._reader.inodes.corrupt(
                node, "blocks", inode.block_count, "fewer: lists of blocks do not fit their table"
            )
        if inode.block_count:
            tree.file_starts.append(inode.start_block)
            tree.file_inos.append(inode.ino)

    def _check_xattrs(self, node: int, inode: Inode) -> None:
        """Check the attributes of an inode; those of the user are for files and directories alone."""
        index, table = inode.xattr_index, self._reader.xattr_table
        if index is None:
            return
        count = 0 if table is None else table.count
        error: CorruptSquashfsError
        if index >= count:
            error = self._reader.inodes.corrupt(node, "xattr", index, f"below {count}")
        elif index in self._user_sets and inode.kind not in (REGULAR_KIND, DIRECTORY_KIND):
            want = "one without attributes of the user: this is no file or directory"
            error = self._reader.inodes.corrupt(node, "xattr", index, want)
        else:
            return
        self._report.add_error(SquashfsProblemCode.XATTRS, error, path=self._tree.path(inode.ino))

    def _enter(self, node: int, parent: int, inode: Inode) -> None:
        """Check a directory and what is in it."""
        report, ino = self._report, inode.ino
        self._check_xattrs(node, inode)
        if parent and inode.parent != parent:
            error = self._reader.inodes.corrupt(node, "parent_inode", inode.parent, parent)
            report.add_error(SquashfsProblemCode.DIRECTORY, error, path=self._tree.path(ino))
        self._listing_bytes_left -= max(0, inode.size - 3)
        if self._listing_bytes_left < 0:
            error = self._reader.inodes.corrupt(node, "file_size", inode.size, "less: listings are longer than their table")
            report.add_error(SquashfsProblemCode.DIRECTORY, error, path=self._tree.path(ino))
            return
        listing = self._reader.listing(node)
        problem = listing.problem
        if problem is None and not listing.in_order:
            problem = self._reader.inodes.corrupt(node, "order of names", "another one", "byte order")
        if problem is not None:
            report.add_error(SquashfsProblemCode.DIRECTORY, problem, path=self._tree.path(ino))
        subdirectories = 0
        for entry in listing.entries:
            subdirectories += entry.kind == DIRECTORY_KIND
            try:
                self._check_entry(ino, entry)
            except OSError as error:
                above = self._tree.path(ino) or b""
                path = above.rstrip(b"/") + b"/" + entry.name
                report.add_error(SquashfsProblemCode.DIRECTORY, error, path=path)
        self._links_found[ino] = 2 + subdirectories
        if self._links_stored[ino] == 2 + len(listing.entries):  # as squashfs-tools-ng count them
            self._links_found[ino] = self._links_stored[ino]
        if inode.index_count and problem is None:
            try:
                check_index(self._reader.directories, self._reader.inodes.table, node, inode)
            except OSError as error:
                report.add_error(SquashfsProblemCode.DIRECTORY, error, path=self._tree.path(ino))

    def _check_entry(self, directory: int, entry: Entry) -> None:
        """Check an entry against its inode. Raises CorruptSquashfsError and OSError."""
        tree, ino = self._tree, entry.ino
        self._check_number(ino)
        known = tree.references[ino]
        if not known:
            inode = self._reader.inode(entry.node)
            if inode.ino != ino:
                raise self._reader.inodes.corrupt(entry.node, "inode_number", inode.ino, f"{ino}, as its entry says")
            if inode.kind != entry.kind:
                raise self._reader.inodes.corrupt(entry.node, "inode_type", inode.kind, f"{entry.kind}, as its entry says")
            self._add(entry.node, inode, directory)
        elif known != entry.node + 1:
            raise self._reader.inodes.corrupt(entry.node, "inode_number", ino, "one that no other inode has")
        elif entry.kind == DIRECTORY_KIND:
            raise self._reader.inodes.corrupt(entry.node, "directory", "in two places", "in one")
        if entry.kind != DIRECTORY_KIND:
            self._links_found[ino] += 1

    def _check_links(self) -> None:
        """Compare the link counts of inodes with the entries found."""
        for ino in self._wrong_links():
            stored, found = self._links_stored[ino], self._links_found[ino]
            path = self._tree.path(ino)
            text = f"inode {ino}: nlink is {stored}, want {found}"
            self._report.add(SquashfsProblem(SquashfsProblemCode.LINKS, text, path, severity="warning"))

    def _wrong_links(self) -> Iterator[int]:
        pairs = zip(self._links_stored, self._links_found, strict=True)
        return (ino for ino, (stored, found) in enumerate(pairs) if stored != found)
