"""Export of upper/ as an OCI layer: a tar archive with whiteouts for removed files.

A whiteout becomes an empty file ``.wh.NAME``, an opaque directory holds ``.wh..wh..opq``; overlay xattrs are left out.
``layer_entries`` lists what goes in, ``sifkit.tar.writer`` writes it. Files are stored in full, because not every program reads
sparse files in a layer. The archive of a hostile image is limited, too: no more data than the image has room for, and at most
1 GiB plus 8 times the size of the filesystem in all; the rest could only be holes or invented names. Source: OCI image
specification, ``layer.md`` ("Whiteouts", "Sparse files").
"""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK
from typing import IO, Generic, NoReturn, TypeVar

from ext3.progress import Progress, Silent

from ...errors import SifkitError, human, show
from ...tar.writer import PATH_LIMIT, NewMember, TarWriter, sparse_member, xattr_records
from ...vfs.data_limit import check_data_limit
from ...vfs.errors import LOWER_CONTENT, TreePathError, path_error, reason_of
from ...vfs.file_tree import FileTree, Loaded, OpenFile
from ...vfs.whiteouts import (
    OPAQUE_WHITEOUT,
    WHITEOUT_XATTRS,
    is_metacopy,
    is_whiteout,
    whiteout_name,
    without_overlay_xattrs,
)
from .layer_entries import LayerEntry, walk_layer

__all__ = ["ExportResult", "LayerTooLargeError", "export_layer"]

N = TypeVar("N", bound=Hashable)

EXTRA_BYTES, SIZE_FACTOR = 1 << 30, 8
"""Limit of the archive's size: EXTRA_BYTES plus SIZE_FACTOR times the filesystem's."""
BATCH_ENTRIES = 4096
CHUNK_BYTES = 1 << 20
"""Larger files are read and written in chunks."""
MAX_PROBLEMS = 100
OPAQUE_TOP = (
    "the top of upper/ is opaque, which the kernel ignores and fuse-overlayfs does not; where the layer is used, its"
    " .wh..wh..opq hides all lower layers"
)
_FLAGS = {S_IFREG: b"0", S_IFLNK: b"2", S_IFCHR: b"3", S_IFBLK: b"4", S_IFDIR: b"5", S_IFIFO: b"6", S_IFSOCK: b""}


class LayerTooLargeError(SifkitError):
    """Archive that would exceed its size limit."""

    kind = "too-large"


@dataclass(slots=True)
class ExportResult:
    """Result of an export.

    ``entries``: of the archive, whiteouts included. ``content_bytes``: sizes of files, holes included. ``left_out``: sockets,
    which no archive holds. ``problems``: (path, reason), the first hundred of ``failed``. ``notes``: for the user.
    """

    entries: int = 0
    whiteouts: int = 0
    opaque: int = 0
    content_bytes: int = 0
    left_out: int = 0
    failed: int = 0
    problems: list[tuple[bytes, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_problem(self, path: bytes, reason: str) -> None:
        self.failed += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append((path, reason))


def export_layer(tree: FileTree[N], file: IO[bytes], *, sparse: bool = False, progress: Progress | None = None) -> ExportResult:
    """Write the files of ``tree``, an upper/ with its whiteouts, to ``file`` as a tar archive (pax) in byte order.

    The same files give the same bytes. ``sparse``: store files with holes as GNU tar does (format 1.0), which bsdtar, Python
    and Apptainer read too. Raises OSError of ``file``, LayerTooLargeError, SharedBlocksError, and OSErrors of the tree for data
    that cannot be read once its entry has begun. Errors of single files are in the result's ``problems``.
    """
    progress = progress or Silent()
    tar = TarWriter(file)
    writer = _LayerWriter(tree, tar, sparse=sparse)
    progress.phase("export", None, "files")
    entries = walk_layer(tree, writer.result.add_problem)
    while batch := list(islice(entries, BATCH_ENTRIES)):
        writer.add(batch)
        progress.advance(len(batch))
    tar.finish()
    progress.done()
    return writer.result


class _LayerWriter(Generic[N]):
    """Writer of layer entries to an archive."""

    def __init__(self, tree: FileTree[N], tar: TarWriter, *, sparse: bool) -> None:
        self.tree = tree
        self.result = ExportResult()
        self._tar = tar
        self._sparse = sparse
        totals = tree.statfs()
        self._data_bytes = 0
        self._data_limit = totals.data_limit
        self._limit = EXTRA_BYTES + SIZE_FACTOR * totals.total_bytes
        self._first: dict[tuple[int, int], bytes] = {}
        """First paths of files with several names, by (dev, ino)."""

    def add(self, entries: Sequence[LayerEntry[N]]) -> None:
        """Write entries in this order. Errors of reading are values up to here; those raised are of the archive."""
        loaded = self.tree.load_many([entry.node for entry in entries], keep_order=True)
        for entry, found in zip(entries, loaded, strict=True):
            stat, content = found.stat, found.content
            if isinstance(stat, OSError):
                self._add_problem(entry.path, stat)
            elif entry.is_whiteout:
                self._add_whiteout(entry.path, stat.mtime)
            elif content is None or isinstance(content, OSError) or entry.is_dir or stat.links > 1 or found.xattrs:
                self._add_other(entry, found)
            else:
                size = len(content)
                self._count_data(size)
                member = NewMember(entry.path, b"0", stat.mode & 0o7777, stat.uid, stat.gid, size, stat.mtime)
                self._tar.add(member, bytes(content))  # the archive is written later, the content valid until the next file
                self.result.entries += 1
                self.result.content_bytes += size
        if self._tar.size > self._limit:
            self._too_large("the names and attributes of the image", "list them with: sifkit ls -R")

    def _add_other(self, entry: LayerEntry[N], found: Loaded[N]) -> None:
        """Write anything but a small file with one name and no xattrs."""
        path, stat, xattrs = entry.path, found.stat, found.xattrs
        assert not isinstance(stat, OSError)
        if isinstance(xattrs, OSError):  # what it means in a layer is not known
            self._add_problem(path, xattrs)
            return
        form = S_IFMT(stat.mode)
        if (form == S_IFDIR) != entry.is_dir or form not in _FLAGS:
            reason = f"the image is damaged: its mode is {stat.mode:#o}, want what its entry says"
            self.result.add_problem(b"/" + path, reason)
            return
        if is_whiteout(stat) or (form == S_IFREG and not stat.size and any(key in xattrs for key in WHITEOUT_XATTRS)):
            if entry.is_cut_off:
                return
            above, slash, last = path.rpartition(b"/")
            name = whiteout_name(last)
            if name is None or len(above + slash + name) >= PATH_LIMIT:
                reason = "the name is too long for a whiteout: the file will reappear where the layer is used"
                self.result.add_problem(b"/" + path, reason)
                return
            self._add_whiteout(above + slash + name, stat.mtime)
            return
        if form == S_IFSOCK:
            self.result.left_out += 1
            return
        kept = [(key, value) for key, value in sorted(without_overlay_xattrs(xattrs).items()) if b"\0" not in key]
        head = NewMember(path, _FLAGS[form], stat.mode & 0o7777, stat.uid, stat.gid, 0, stat.mtime, records=xattr_records(kept))
        first = self._first.get((stat.dev, stat.ino)) if stat.links > 1 else None
        if form == S_IFDIR:
            self._tar.add(head._replace(name=path + b"/" if path else b"./"))
        elif first is not None:
            self._tar.add(head._replace(typeflag=b"1", target=first, records=()))
        elif form == S_IFREG:
            if is_metacopy(xattrs):
                self.result.add_problem(b"/" + path, f"{LOWER_CONTENT} (metacopy)")
                return
            if not self._add_regular(head, found):
                return
        elif form == S_IFLNK:
            try:
                target = self.tree.readlink(entry.node)
            except OSError as error:
                self._add_problem(path, error)
                return
            self._tar.add(head._replace(target=target))
        else:
            self._tar.add(head._replace(major=stat.major, minor=stat.minor))
        if stat.links > 1 and form != S_IFDIR:
            self._first.setdefault((stat.dev, stat.ino), path)
        self.result.entries += 1

    def _add_whiteout(self, path: bytes, mtime: int) -> None:
        if path.rpartition(b"/")[2] == OPAQUE_WHITEOUT:
            self.result.opaque += 1
            if path == OPAQUE_WHITEOUT:
                self.result.notes.append(OPAQUE_TOP)
        else:
            self.result.whiteouts += 1
        self._tar.add(NewMember(path, b"0", 0o644, 0, 0, 0, mtime))
        self.result.entries += 1

    def _add_regular(self, head: NewMember, found: Loaded[N]) -> bool:
        """Write a regular file. Return False if it cannot be read."""
        content = found.content
        if isinstance(content, OSError):
            self._add_problem(head.name, content)
            return False
        if content is not None:
            self._count_data(len(content))
            self._tar.add(head._replace(size=len(content)), bytes(content))
            self.result.content_bytes += len(content)
            return True
        try:
            opened = self.tree.open_file(found.node)
        except OSError as error:
            self._add_problem(head.name, error)
            return False
        with opened as file:
            return self._add_opened(head, file)

    def _add_opened(self, head: NewMember, file: OpenFile) -> bool:
        """Write an open file, a large one or one with holes in chunks. Return False if it cannot be read."""
        size = file.size
        content: bytes | None = None
        try:
            ranges = file.data_ranges()
            data_bytes = sum(length for _, length in ranges)
            has_holes = self._sparse and data_bytes < size
            if size <= CHUNK_BYTES and not has_holes:
                content = file.read_at(0, size)
        except OSError as error:
            self._add_problem(head.name, error)
            return False
        self._count_data(data_bytes)
        head = head._replace(size=size)
        if has_holes:
            entry, table = sparse_member(head, ranges)
            self._tar.add_pieces(entry, chain([table], _chunks(file, head.name, ranges)))
        elif content is not None:
            size = len(content)
            self._tar.add(head._replace(size=size), content)
        else:
            if self._tar.size + size > self._limit:
                what = f"{show(b'/' + head.name)}, {human(size)} of which {human(data_bytes)} are data,"
                hint = "--sparse stores holes as holes, which tar, bsdtar and apptainer read; -o DIR/ keeps them"
                self._too_large(what, hint)
            self._tar.add_pieces(head, _chunks(file, head.name, [(0, size)]))
        self.result.content_bytes += size
        return True

    def _add_problem(self, path: bytes, error: OSError) -> None:
        self.result.add_problem(b"/" + path, reason_of(error))

    def _too_large(self, what: str, hint: str) -> NoReturn:
        raise LayerTooLargeError(f"{what} would make the archive larger than {human(self._limit)}", hint=hint)

    def _count_data(self, size: int) -> None:
        """Count bytes of data. Raises SharedBlocksError."""
        self._data_bytes += size
        check_data_limit(self._data_limit, self._data_bytes)


def _chunks(file: OpenFile, path: bytes, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    """Iterate over (offset, length) ranges of a file in chunks. Raises the errors of the tree; those in the system's words,
    which could be the archive's, as TreePathError, and so if the file is shorter."""
    for offset, length in ranges:
        for start in range(0, length, CHUNK_BYTES):
            size = min(CHUNK_BYTES, length - start)
            try:
                chunk = file.read_at(offset + start, size)
            except OSError as error:
                if error.strerror is None:
                    raise
                raise path_error(b"/" + path, error.errno or errno.EIO) from error
            if len(chunk) < size:
                raise TreePathError(b"/" + path, errno.EIO, "the file became shorter while it was read")
            yield chunk
