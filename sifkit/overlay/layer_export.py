"""upper/ of an overlay as a container layer: a tar archive with marks for what was removed.

A whiteout becomes an empty file ``.wh.NAME``, an opaque directory holds ``.wh..wh..opq``; overlay filesystems' own attributes
are left out. ``layer_entries`` says what goes in, ``sifkit.tar.writer`` how it looks. Files are stored whole: a layer should
have no sparse files, which not every program reads. Whatever the image holds, the archive is bounded: no more data than the
image has blocks, and altogether at most 1 GiB and 8 times the filesystem's size. What is more are zeros of holes, or names that
a hostile image makes up. Source: OCI image specification, ``layer.md`` ("Whiteouts", "Sparse files").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import IO, NoReturn

import numpy as np

from ext3.constants import NAME_MAX, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK
from ext3.errors import CorruptError, Ext3Error
from ext3.format.inode_table import Columns, nanoseconds
from ext3.progress import Progress, Silent
from ext3.read.file import FileReader
from ext3.read.filesystem import Filesystem, Stat
from ext3.read.inode_scan import column_parts
from ext3.read.readahead import ReadAhead, straight_files
from sifkit.tar.writer import PATH_LIMIT, NewMember, TarWriter, sparse_member, xattr_records

from ..errors import SifkitError, human, show
from .layer_entries import LayerName, layer_names
from .view import View
from .whiteouts import METACOPY_XATTRS, OPAQUE_WHITEOUT, WHITEOUT_PREFIX, WHITEOUT_XATTRS, is_whiteout, without_overlay_xattrs

__all__ = ["Exported", "LayerTooLargeError", "export_layer"]

FREE_BYTES, TIMES_SIZE = 1 << 30, 8
"""How large an archive may get: so much, and so many times the filesystem."""
AT_ONCE = 2048
PIECE_BYTES = 1 << 20
"""Files of at most so many bytes are written together with others; also how much of others is read at once."""
PROBLEMS_KEPT = 100
_FLAGS = {S_IFREG: b"0", S_IFLNK: b"2", S_IFCHR: b"3", S_IFBLK: b"4", S_IFDIR: b"5", S_IFIFO: b"6", S_IFSOCK: b""}


class LayerTooLargeError(SifkitError):
    """The archive would be larger than an image of this size can reasonably need."""

    kind = "too-large"


@dataclass(slots=True)
class Exported:
    """``entries`` with the marks; ``left_out``: sockets, which no archive holds. ``content_bytes`` as files have them, holes
    included. ``problems``: (path, why), the first hundred of ``failed`` files that are not there."""

    entries: int = 0
    whiteouts: int = 0
    opaque: int = 0
    content_bytes: int = 0
    left_out: int = 0
    failed: int = 0
    problems: list[tuple[bytes, str]] = field(default_factory=list)

    def problem(self, path: bytes, why: str) -> None:
        self.failed += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append((path, why))


def export_layer(view: View, file: IO[bytes], *, sparse: bool = False, progress: Progress | None = None) -> Exported:
    """Write what ``view`` shows to ``file`` as a tar archive (pax), in byte order: the same image gives the same bytes.

    ``sparse``: files with holes are stored as GNU tar stores them (format 1.0), which bsdtar, Python and Apptainer read, too.
    Raises OSError of ``file``; LayerTooLargeError; CorruptError where files share blocks and hold more than the image has; and
    the image's errors for data that cannot be read once its entry has begun. Other trouble is in the result's ``problems``.
    """
    progress = progress or Silent()
    tar = TarWriter(file)
    export = _Export(view.filesystem, tar, sparse=sparse)
    progress.phase("export", None, "files")
    names = layer_names(view.filesystem, view.root, export.done.problem)
    while batch := list(islice(names, AT_ONCE)):
        for start, end, columns in column_parts(view.filesystem, [name.ino for name in batch]):
            if isinstance(columns, Ext3Error):
                export.done.problem(b"/" + batch[start].path, str(columns))
            else:
                export.add(batch[start:end], columns)
        progress.advance(len(batch))
    tar.finish()
    progress.done()
    return export.done


class _SharedBlocksError(CorruptError):
    """Ends the export; other damage concerns one file."""


class _Export:
    """Turns names and facts into entries."""

    def __init__(self, filesystem: Filesystem, tar: TarWriter, *, sparse: bool) -> None:
        self.filesystem = filesystem
        self.done = Exported()
        self._tar = tar
        self._sparse = sparse
        self._block_size = filesystem.superblock.block_size
        self._blocks_left = filesystem.superblock.blocks_count
        self._limit = FREE_BYTES + TIMES_SIZE * filesystem.superblock.blocks_count * self._block_size
        self._first: dict[int, bytes] = {}
        """The path of each file that has several names."""

    def add(self, names: Sequence[LayerName], columns: Columns) -> None:
        """Entries in this order; ``columns`` are those of their inodes."""
        straight, first = straight_files(self.filesystem, columns)
        sizes = columns.size.tolist()
        plain = straight & (columns.rows["i_links_count"] == 1) & ~columns.attributed
        ahead = ReadAhead(self.filesystem, first.tolist(), sizes, np.flatnonzero(plain).tolist())
        facts = zip(
            names,
            columns.mode.tolist(),
            columns.uid.tolist(),
            columns.gid.tolist(),
            sizes,
            nanoseconds(columns.mtime),
            plain.tolist(),
            strict=True,
        )
        for row, (name, mode, uid, gid, size, mtime, is_plain) in enumerate(facts):
            try:
                if name.mark:
                    self._mark(name.path, mtime)
                elif is_plain and not name.is_dir:
                    self._claim(-(-size // self._block_size))
                    self._tar.add(NewMember(name.path, b"0", mode & 0o7777, uid, gid, size, mtime), ahead.take(row, size))
                    self.done.entries += 1
                    self.done.content_bytes += size
                else:
                    self._other(name, attributed=bool(columns.attributed[row]))
            except _SharedBlocksError:
                raise
            except Ext3Error as error:
                if self._tar.unfinished:
                    raise
                self.done.problem(b"/" + name.path, str(error))
        if self._tar.size > self._limit:
            self._too_large("the names and attributes of the image", "sifkit ls -R shows what they are")

    def _other(self, name: LayerName, *, attributed: bool) -> None:
        """Anything but a small file with one name and no attributes; ``attributed``: it may have some."""
        path, ino = name.path, name.ino
        facts = self.filesystem.stat(ino)
        xattrs = self.filesystem.xattrs(ino) if attributed else {}
        form = facts.mode & S_IFMT
        if (form == S_IFDIR) != name.is_dir or form not in _FLAGS:
            raise CorruptError(f"inode {ino}", "i_mode", f"{facts.mode:#o}", "what its entry says")
        if is_whiteout(facts) or (form == S_IFREG and not facts.size and any(key in xattrs for key in WHITEOUT_XATTRS)):
            above, slash, last = path.rpartition(b"/")
            if len(WHITEOUT_PREFIX + last) > NAME_MAX or len(WHITEOUT_PREFIX + path) >= PATH_LIMIT:
                self.done.problem(b"/" + path, "the name is too long for a mark: where the layer is used, the file shows again")
                return
            self._mark(above + slash + WHITEOUT_PREFIX + last, facts.mtime)
            return
        if form == S_IFSOCK:
            self.done.left_out += 1
            return
        kept = [(key, value) for key, value in sorted(without_overlay_xattrs(xattrs).items()) if b"\0" not in key]
        head = NewMember(
            path, _FLAGS[form], facts.mode & 0o7777, facts.uid, facts.gid, 0, facts.mtime, records=xattr_records(kept)
        )
        if form == S_IFDIR:
            self._tar.add(head._replace(name=path + b"/" if path else b"./"))
        elif facts.links > 1 and ino in self._first:
            self._tar.add(head._replace(typeflag=b"1", target=self._first[ino], records=()))
        elif form == S_IFREG:
            if any(key in xattrs for key in METACOPY_XATTRS):
                self.done.problem(b"/" + path, "its content is in a lower layer (metacopy)")
                return
            self._regular(head, facts)
        elif form == S_IFLNK:
            self._tar.add(head._replace(target=self.filesystem.readlink(ino)))
        else:
            self._tar.add(head._replace(major=facts.major, minor=facts.minor))
        if facts.links > 1 and form != S_IFDIR:
            self._first.setdefault(ino, path)
        self.done.entries += 1

    def _mark(self, path: bytes, mtime: int) -> None:
        if path.rpartition(b"/")[2] == OPAQUE_WHITEOUT:
            self.done.opaque += 1
        else:
            self.done.whiteouts += 1
        self._tar.add(NewMember(path, b"0", 0o644, 0, 0, 0, mtime))
        self.done.entries += 1

    def _regular(self, head: NewMember, facts: Stat) -> None:
        block_size, size = self._block_size, facts.size
        reader = self.filesystem.open_file(facts.ino)
        extents = reader.extents
        mapped = sum(count for _, _, count in extents)
        self._claim(mapped)
        head = head._replace(size=size)
        if self._sparse and mapped < -(-size // block_size):
            pairs = [(start * block_size, min(size - start * block_size, count * block_size)) for start, _, count in extents]
            entry, table = sparse_member(head, pairs)
            self._tar.add_pieces(entry, chain([table], _pieces(reader, pairs)))
        elif size <= PIECE_BYTES:
            self._tar.add(head, reader.readall())
        else:
            if self._tar.size + size > self._limit:
                what = f"{show(b'/' + head.name)}, {human(size)} of which {human(mapped * block_size)} are data,"
                hint = "--sparse leaves holes out, which tar, bsdtar and apptainer understand; -o DIR/ keeps them"
                self._too_large(what, hint)
            self._tar.add_pieces(head, _pieces(reader, [(0, size)]))
        self.done.content_bytes += size

    def _too_large(self, what: str, hint: str) -> NoReturn:
        raise LayerTooLargeError(f"{what} would make the archive larger than {human(self._limit)}", hint=hint)

    def _claim(self, blocks: int) -> None:
        """Count blocks of data; files that hold more than there are share some, and could fill any disk."""
        self._blocks_left -= blocks
        if self._blocks_left < 0:
            limit = self.filesystem.superblock.blocks_count
            raise _SharedBlocksError("files", "blocks of their data", "more than there are", f"<= {limit}")


def _pieces(reader: FileReader, parts: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
    """These (offset, length) of a file, in pieces that are good until the next one."""
    buffer = memoryview(bytearray(PIECE_BYTES))
    for offset, length in parts:
        reader.seek(offset)
        for start in range(0, length, PIECE_BYTES):
            piece = buffer[: min(PIECE_BYTES, length - start)]
            reader.readinto(piece)
            yield piece
