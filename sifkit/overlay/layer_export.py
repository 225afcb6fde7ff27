"""Export of upper/ as an OCI layer: a tar archive with whiteouts for removed files.

A whiteout becomes an empty file ``.wh.NAME``, an opaque directory holds ``.wh..wh..opq``; overlay xattrs are left out.
``layer_entries`` lists what goes in, ``sifkit.tar.writer`` writes it. Files are stored in full, because not every program reads
sparse files in a layer. The archive of a hostile image is limited, too: no more data than the image has blocks, and at most
1 GiB plus 8 times the size of the filesystem in all; the rest could only be holes or invented names. Source: OCI image
specification, ``layer.md`` ("Whiteouts", "Sparse files").
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
from ext3.read.readahead import ReadAhead, contiguous_files

from ..errors import SifkitError, human, show
from ..tar.writer import PATH_LIMIT, NewMember, TarWriter, sparse_member, xattr_records
from .data_limit import SharedBlocksError, check_data_limit
from .layer_entries import LayerEntry, walk_layer
from .view import View
from .whiteouts import METACOPY_XATTRS, OPAQUE_WHITEOUT, WHITEOUT_PREFIX, WHITEOUT_XATTRS, is_whiteout, without_overlay_xattrs

__all__ = ["ExportResult", "LayerTooLargeError", "export_layer"]

EXTRA_BYTES, SIZE_FACTOR = 1 << 30, 8
"""Limit of the archive's size: EXTRA_BYTES plus SIZE_FACTOR times the filesystem's."""
BATCH_ENTRIES = 2048
CHUNK_BYTES = 1 << 20
"""Larger files are read and written in chunks."""
MAX_PROBLEMS = 100
_FLAGS = {S_IFREG: b"0", S_IFLNK: b"2", S_IFCHR: b"3", S_IFBLK: b"4", S_IFDIR: b"5", S_IFIFO: b"6", S_IFSOCK: b""}


class LayerTooLargeError(SifkitError):
    """Archive that would exceed its size limit."""

    kind = "too-large"


@dataclass(slots=True)
class ExportResult:
    """Result of an export.

    ``entries``: of the archive, whiteouts included. ``content_bytes``: sizes of files, holes included. ``left_out``: sockets,
    which no archive holds. ``problems``: (path, reason), the first hundred of ``failed``.
    """

    entries: int = 0
    whiteouts: int = 0
    opaque: int = 0
    content_bytes: int = 0
    left_out: int = 0
    failed: int = 0
    problems: list[tuple[bytes, str]] = field(default_factory=list)

    def add_problem(self, path: bytes, reason: str) -> None:
        self.failed += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append((path, reason))


def export_layer(view: View, file: IO[bytes], *, sparse: bool = False, progress: Progress | None = None) -> ExportResult:
    """Write the files of ``view`` to ``file`` as a tar archive (pax) in byte order: the same image gives the same bytes.

    ``sparse``: store files with holes as GNU tar does (format 1.0), which bsdtar, Python and Apptainer read too. Raises OSError
    of ``file``, LayerTooLargeError, SharedBlocksError, and the image's errors for data that cannot be read once its entry has
    begun. Errors of single files are in the result's ``problems``.
    """
    progress = progress or Silent()
    tar = TarWriter(file)
    writer = _LayerWriter(view.filesystem, tar, sparse=sparse)
    progress.phase("export", None, "files")
    entries = walk_layer(view.filesystem, view.root, writer.result.add_problem)
    while batch := list(islice(entries, BATCH_ENTRIES)):
        for start, end, columns in column_parts(view.filesystem, [entry.ino for entry in batch]):
            if isinstance(columns, Ext3Error):
                writer.result.add_problem(b"/" + batch[start].path, str(columns))
            else:
                writer.add(batch[start:end], columns)
        progress.advance(len(batch))
    tar.finish()
    progress.done()
    return writer.result


class _LayerWriter:
    """Writer of layer entries to an archive."""

    def __init__(self, filesystem: Filesystem, tar: TarWriter, *, sparse: bool) -> None:
        self.filesystem = filesystem
        self.result = ExportResult()
        self._tar = tar
        self._sparse = sparse
        self._block_size = filesystem.superblock.block_size
        self._data_blocks = 0
        self._limit = EXTRA_BYTES + SIZE_FACTOR * filesystem.superblock.blocks_count * self._block_size
        self._first: dict[int, bytes] = {}
        """First paths of files with several names."""

    def add(self, entries: Sequence[LayerEntry], columns: Columns) -> None:
        """Write entries in this order; ``columns`` are those of their inodes."""
        straight, first = contiguous_files(self.filesystem, columns)
        sizes = columns.size.tolist()
        plain = straight & (columns.rows["i_links_count"] == 1) & ~columns.attributed
        ahead = ReadAhead(self.filesystem, first.tolist(), sizes, np.flatnonzero(plain).tolist())
        rows = zip(
            entries,
            columns.mode.tolist(),
            columns.uid.tolist(),
            columns.gid.tolist(),
            sizes,
            nanoseconds(columns.mtime),
            plain.tolist(),
            strict=True,
        )
        for row, (entry, mode, uid, gid, size, mtime, is_plain) in enumerate(rows):
            try:
                if entry.is_whiteout:
                    self._add_whiteout(entry.path, mtime)
                elif is_plain and not entry.is_dir:
                    self._count_data(-(-size // self._block_size))
                    self._tar.add(NewMember(entry.path, b"0", mode & 0o7777, uid, gid, size, mtime), ahead.take(row, size))
                    self.result.entries += 1
                    self.result.content_bytes += size
                else:
                    self._add_other(entry, may_have_xattrs=bool(columns.attributed[row]))
            except SharedBlocksError:
                raise
            except Ext3Error as error:
                if self._tar.unfinished:
                    raise
                self.result.add_problem(b"/" + entry.path, str(error))
        if self._tar.size > self._limit:
            self._too_large("the names and attributes of the image", "list them with: sifkit ls -R")

    def _add_other(self, entry: LayerEntry, *, may_have_xattrs: bool) -> None:
        """Write anything but a small file with one name and no xattrs."""
        path, ino = entry.path, entry.ino
        stat = self.filesystem.stat(ino)
        xattrs = self.filesystem.xattrs(ino) if may_have_xattrs else {}
        form = stat.mode & S_IFMT
        if (form == S_IFDIR) != entry.is_dir or form not in _FLAGS:
            raise CorruptError(f"inode {ino}", "i_mode", f"{stat.mode:#o}", "what its entry says")
        if is_whiteout(stat) or (form == S_IFREG and not stat.size and any(key in xattrs for key in WHITEOUT_XATTRS)):
            above, slash, last = path.rpartition(b"/")
            if len(WHITEOUT_PREFIX + last) > NAME_MAX or len(WHITEOUT_PREFIX + path) >= PATH_LIMIT:
                reason = "the name is too long for a whiteout: the file will reappear where the layer is used"
                self.result.add_problem(b"/" + path, reason)
                return
            self._add_whiteout(above + slash + WHITEOUT_PREFIX + last, stat.mtime)
            return
        if form == S_IFSOCK:
            self.result.left_out += 1
            return
        kept = [(key, value) for key, value in sorted(without_overlay_xattrs(xattrs).items()) if b"\0" not in key]
        head = NewMember(path, _FLAGS[form], stat.mode & 0o7777, stat.uid, stat.gid, 0, stat.mtime, records=xattr_records(kept))
        if form == S_IFDIR:
            self._tar.add(head._replace(name=path + b"/" if path else b"./"))
        elif stat.links > 1 and ino in self._first:
            self._tar.add(head._replace(typeflag=b"1", target=self._first[ino], records=()))
        elif form == S_IFREG:
            if any(key in xattrs for key in METACOPY_XATTRS):
                self.result.add_problem(b"/" + path, "its content is in a lower layer (metacopy)")
                return
            self._add_regular(head, stat)
        elif form == S_IFLNK:
            self._tar.add(head._replace(target=self.filesystem.readlink(ino)))
        else:
            self._tar.add(head._replace(major=stat.major, minor=stat.minor))
        if stat.links > 1 and form != S_IFDIR:
            self._first.setdefault(ino, path)
        self.result.entries += 1

    def _add_whiteout(self, path: bytes, mtime: int) -> None:
        if path.rpartition(b"/")[2] == OPAQUE_WHITEOUT:
            self.result.opaque += 1
        else:
            self.result.whiteouts += 1
        self._tar.add(NewMember(path, b"0", 0o644, 0, 0, 0, mtime))
        self.result.entries += 1

    def _add_regular(self, head: NewMember, stat: Stat) -> None:
        block_size, size = self._block_size, stat.size
        reader = self.filesystem.open_file(stat.ino)
        extents = reader.extents
        mapped = sum(count for _, _, count in extents)
        self._count_data(mapped)
        head = head._replace(size=size)
        if self._sparse and mapped < -(-size // block_size):
            ranges = [(start * block_size, min(size - start * block_size, count * block_size)) for start, _, count in extents]
            entry, table = sparse_member(head, ranges)
            self._tar.add_pieces(entry, chain([table], _chunks(reader, ranges)))
        elif size <= CHUNK_BYTES:
            self._tar.add(head, reader.readall())
        else:
            if self._tar.size + size > self._limit:
                what = f"{show(b'/' + head.name)}, {human(size)} of which {human(mapped * block_size)} are data,"
                hint = "--sparse stores holes as holes, which tar, bsdtar and apptainer read; -o DIR/ keeps them"
                self._too_large(what, hint)
            self._tar.add_pieces(head, _chunks(reader, [(0, size)]))
        self.result.content_bytes += size

    def _too_large(self, what: str, hint: str) -> NoReturn:
        raise LayerTooLargeError(f"{what} would make the archive larger than {human(self._limit)}", hint=hint)

    def _count_data(self, blocks: int) -> None:
        """Count blocks of data. Raises SharedBlocksError."""
        self._data_blocks += blocks
        check_data_limit(self.filesystem, self._data_blocks)


def _chunks(reader: FileReader, ranges: Iterable[tuple[int, int]]) -> Iterator[memoryview]:
    """Iterate over (offset, length) ranges of a file in chunks, each valid until the next one."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    for offset, length in ranges:
        reader.seek(offset)
        for start in range(0, length, CHUNK_BYTES):
            chunk = buffer[: min(CHUNK_BYTES, length - start)]
            reader.readinto(chunk)
            yield chunk
