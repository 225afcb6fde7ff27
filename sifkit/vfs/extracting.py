"""Extraction of files to the host, with their holes, owners, times, xattrs, ACLs, devices and hard links.

Nothing is written outside the target directory, whatever names and links the image holds, and no more data than the image has
blocks. What the caller may not do (owners, devices) is counted. Damaged files are reported and skipped.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ext3 import hostio
from ext3.constants import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK
from ext3.device.base import FileDevice
from ext3.errors import CorruptError, Ext3Error, SourceError
from ext3.format.block_map import map_limit
from ext3.format.inode_fields import Flags, Numbers
from ext3.format.inode_table import Columns, nanoseconds
from ext3.progress import Progress, Silent
from ext3.read.filesystem import Filesystem
from ext3.read.inode_scan import column_parts
from ext3.read.readahead import ReadAhead, contiguous_files
from ext3.workers import MAX_JOBS, parallel_map, workers_for

from .data_limit import SharedBlocksError, check_data_limit
from .host_writer import (
    FATAL_ERRNOS,
    MAX_PROBLEMS,
    ExtractResult,
    FileAttributes,
    HostWriter,
    NewFileAttributes,
    set_attributes,
    supported,
)
from .selection import Selection, select_paths

__all__ = ["ExtractResult", "extract"]

BATCH_FILES = 256
DEEP_LEVELS = 32
"""Above this depth opening directories costs more than reading data in disk order saves."""
COPY_BYTES = 8 << 20
RANGE_BYTES = 256 << 10
"""Longer ranges are copied by the kernel."""
_SPECIAL = (S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK)


def extract(
    filesystem: Filesystem,
    target: str | bytes | os.PathLike[str],
    paths: Sequence[bytes | str] = (),
    *,
    top: int = 2,
    force: bool = False,
    owners: bool | None = None,
    image_id: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> ExtractResult:
    """Extract ``paths`` (everything if empty) below the directory inode ``top`` to the directory ``target``.

    A path keeps its directories: b"/upper/etc" becomes target/upper/etc. ``target`` is created if it does not exist; it must
    be empty unless ``force``, which replaces existing files except the image itself (``image_id``, its device and inode
    on the host). ``owners`` None: set owners only as root.

    Raises PathError for a path that does not exist or leads through a symlink, OSError if the host can take no more files,
    SourceError if this system lacks the calls, and errors of reading the image. Errors of single files are in the result's
    ``problems``.
    """
    if not supported():
        raise SourceError(os.fsencode(target), "this system lacks the calls that keep an extraction inside its directory")
    progress = progress or Silent()
    result = ExtractResult()
    progress.phase("look", None, "files")
    wanted = [path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path for path in paths]
    selection = select_paths(filesystem, top, wanted, result, progress)
    progress.done()
    if owners is None:
        owners = os.geteuid() == 0
    fd = _open_target(os.fsencode(target), force)
    writer = HostWriter(fd, selection.names, selection.parents, force=force, image_id=image_id)
    try:
        job = _Extraction(filesystem, selection, writer, owners, deep=selection.depth > DEEP_LEVELS)
        _extract(job, result, progress)
    finally:
        writer.close()
        os.close(fd)
    return result


def _open_target(target: bytes, force: bool) -> int:
    try:
        os.mkdir(target, 0o700)
    except FileExistsError:
        if not force and (not os.path.isdir(target) or os.listdir(target)):
            raise
    return os.open(target, os.O_RDONLY | os.O_DIRECTORY | hostio.OPEN)


@dataclass(slots=True)
class _Extraction:
    """State shared by all processes; each has its own writer."""

    filesystem: Filesystem
    selection: Selection
    writer: HostWriter
    owners: bool
    pid: int = field(default_factory=os.getpid)
    """Process that created ``writer``."""
    data_blocks: Numbers = field(default_factory=lambda: np.zeros(1, np.int64))
    """Blocks of data found by each batch."""
    deep: bool = False
    """Directories are nested so deep that files are created in directory order, not in disk order."""

    recorded_problems: int = 0
    """Problems recorded with their paths, in this process."""

    def add_data(self, batch: int, blocks: int) -> None:
        """Count blocks of data. Raises SharedBlocksError."""
        self.data_blocks[batch] += blocks
        check_data_limit(self.filesystem, int(self.data_blocks.sum()))

    def own_writer(self) -> HostWriter:
        """Return the writer of this process; its directories are not shared with the process that forked it."""
        if os.getpid() != self.pid:
            self.pid = os.getpid()
            old, selection = self.writer, self.selection
            self.writer = HostWriter(old.top, selection.names, selection.parents, force=old.force, image_id=old.image_id)
        return self.writer


def _extract(job: _Extraction, result: ExtractResult, progress: Progress) -> None:
    selection, filesystem = job.selection, job.filesystem
    created = [True] * len(selection.names)
    for index in range(1, len(selection.names)):
        try:
            if created[selection.parents[index]]:
                job.writer.make_directory(index)
                result.directories += 1
            else:
                created[index] = False
        except OSError as error:
            if error.errno in FATAL_ERRNOS:
                raise
            created[index] = False
            result.add_problem(selection.path(index), error.strerror or str(error))
    job.writer.close()
    inos = np.array(selection.entry_inos, np.int64)
    keep = np.array(created, np.bool_)[np.array(selection.entry_directories, np.int64)]
    first = _first_entries(inos, keep)
    own = np.flatnonzero(keep & (first == np.arange(len(inos))))
    if not job.deep:
        own = own[np.argsort(inos[own], kind="stable")]  # inode order is mostly disk order
    size = max(BATCH_FILES, -(-len(own) // MAX_JOBS))
    batches = [own[start : start + size] for start in range(0, len(own), size)]
    job.data_blocks = np.frombuffer(mmap.mmap(-1, 8 * max(1, len(batches))), np.int64)  # shared by all processes
    plain = _plain_device(filesystem)
    progress.phase("extract", len(own), "files")
    results = parallel_map(
        len(batches),
        lambda number, advance: _extract_batch(job, number, batches[number].tolist(), advance),
        workers_for(len(batches)) if plain is not None else 1,
        progress,
    )
    progress.done()
    all_failed: set[int] = set()
    for batch_result, failed in results:
        result.add(batch_result)
        all_failed.update(failed)
    for at in np.flatnonzero(keep & (first != np.arange(len(inos)))).tolist():
        source = int(first[at])
        if source in all_failed:
            result.add_problem(selection.entry_path(at), "the file it is a link to could not be created")
            continue
        try:
            job.writer.link(selection.location(source), selection.location(at))
            result.links += 1
        except OSError as error:
            if error.errno in FATAL_ERRNOS:
                raise
            result.add_problem(selection.entry_path(at), error.strerror or str(error))
    _set_directory_attributes(job, created, result)


def _plain_device(filesystem: Filesystem) -> FileDevice | None:
    """Return the device if its file holds the data, None if blocks may have to be read from the journal."""
    return filesystem.device if isinstance(filesystem.device, FileDevice) else None


def _first_entries(inos: Numbers, keep: Flags) -> Numbers:
    """Return for each entry the first one with the same inode, among those in ``keep``."""
    kept = np.flatnonzero(keep)
    found = np.arange(len(inos))
    if len(kept):
        _, at, which = np.unique(inos[kept], return_index=True, return_inverse=True)
        found[kept] = kept[at[which]]
    return found


def _set_directory_attributes(job: _Extraction, created: list[bool], result: ExtractResult) -> None:
    """Set the attributes of directories, children first, after everything in them: creating files changes their times."""
    selection = job.selection
    rows: list[FileAttributes | Ext3Error] = []
    for _, _, columns in column_parts(job.filesystem, selection.inos):
        rows += [columns] if isinstance(columns, Ext3Error) else _read_attributes(job.filesystem, columns)
    for index in range(len(created) - 1, -1, -1):
        if not created[index]:
            continue
        try:
            attributes = rows[index]
            if isinstance(attributes, Ext3Error):
                raise attributes
            set_attributes(job.writer.directory(index), attributes, result, owners=job.owners)
        except (Ext3Error, OSError) as error:
            if isinstance(error, OSError) and error.errno in FATAL_ERRNOS:
                raise
            result.add_problem(selection.path(index), str(error))


def _read_attributes(filesystem: Filesystem, columns: Columns) -> list[FileAttributes | Ext3Error]:
    """Return the attributes of each row, or the error of reading them."""
    found: list[FileAttributes | Ext3Error] = [
        FileAttributes(*row)
        for row in zip(
            columns.mode.tolist(),
            columns.uid.tolist(),
            columns.gid.tolist(),
            nanoseconds(columns.atime),
            nanoseconds(columns.mtime),
            strict=True,
        )
    ]
    for row in np.flatnonzero(columns.attributed | columns.bad).tolist():
        try:
            found[row] = found[row]._replace(xattrs=filesystem.xattrs(int(columns.ino[row])))  # type: ignore[union-attr]
        except Ext3Error as error:
            found[row] = error
    return found


def _extract_batch(
    job: _Extraction, number: int, entries: list[int], advance: Callable[[int], None]
) -> tuple[ExtractResult, list[int]]:
    """Create the files of these entries; return the result and the entries that failed."""
    batch = _Batch(job, number)
    batch.run(entries)
    advance(len(entries))
    return batch.result, batch.failed


class _Batch:
    """Batch of files to create; ``failed`` are the entries that could not be created."""

    def __init__(self, job: _Extraction, number: int) -> None:
        self.result = ExtractResult()
        self.failed: list[int] = []
        self._job = job
        self._number = number
        self._writer = job.own_writer()
        self._attributes = NewFileAttributes(owners=job.owners, uniform=not self._writer.force)

    def run(self, entries: list[int]) -> None:
        """Create the files of these entries."""
        selection = self._job.selection
        for start, end, columns in column_parts(self._job.filesystem, [selection.entry_inos[entry] for entry in entries]):
            if isinstance(columns, Ext3Error):
                self._fail(entries[start], columns)
            else:
                self._create_all(entries[start:end], columns)
        self._writer.close()

    def _create_all(self, entries: list[int], columns: Columns) -> None:
        selection, filesystem = self._job.selection, self._job.filesystem
        straight, blocks = contiguous_files(filesystem, columns)
        block_size = filesystem.superblock.block_size
        self._job.add_data(self._number, int((-(-columns.size // block_size))[straight].sum()))
        first, sizes, inos, simple = blocks.tolist(), columns.size.tolist(), columns.ino.tolist(), straight.tolist()
        order = range(len(entries)) if self._job.deep else np.argsort(blocks, kind="stable").tolist()
        data = ReadAhead(filesystem, first, sizes, order)
        rows = _read_attributes(filesystem, columns)
        for row in order:
            entry, attributes = entries[row], rows[row]
            location = selection.location(entry)
            try:
                if isinstance(attributes, Ext3Error):
                    raise attributes
                if simple[row]:
                    self._write_small(location, attributes, data.take(row, sizes[row]))
                elif attributes.mode & S_IFMT == S_IFREG:
                    self._write_large(location, attributes, inos[row])
                else:
                    self._create_other(location, attributes, inos[row])
            except SharedBlocksError:
                raise
            except (Ext3Error, OSError) as error:
                self._fail(entry, error, attributes)

    def _fail(self, entry: int, error: Ext3Error | OSError, attributes: FileAttributes | Ext3Error | None = None) -> None:
        if not isinstance(error, Ext3Error) and error.errno in FATAL_ERRNOS:
            raise error
        self.failed.append(entry)
        is_special = isinstance(attributes, FileAttributes) and attributes.mode & S_IFMT in _SPECIAL
        if isinstance(error, PermissionError) and is_special:
            self.result.specials_left += 1
            return
        if self._job.recorded_problems >= MAX_PROBLEMS:  # paths may be long and problems many
            self.result.failed += 1
            return
        self._job.recorded_problems += 1
        reason = str(error) if isinstance(error, Ext3Error) else error.strerror or str(error)
        self.result.add_problem(self._job.selection.entry_path(entry), reason)

    def _write_small(self, location: tuple[int, bytes], attributes: FileAttributes, content: memoryview) -> None:
        """Create a regular file whose data is at hand. ``location``: the number of a directory, and a name in it."""
        fd = self._writer.create(*location, self._attributes.create_mode(attributes))
        try:
            if content:
                hostio.write_at(fd, 0, content)
                self.result.written_bytes += len(content)
            self._attributes.set(fd, attributes, self.result)
        finally:
            os.close(fd)
        self.result.files += 1

    def _write_large(self, location: tuple[int, bytes], attributes: FileAttributes, ino: int) -> None:
        """Create a regular file from its extents."""
        filesystem = self._job.filesystem
        inode = filesystem.inode(ino)
        size, block_size = inode.stat.size, filesystem.superblock.block_size
        if size > map_limit(block_size) * block_size:
            raise CorruptError(f"inode {ino}", "i_size", size, f"<= {map_limit(block_size) * block_size}")
        block_map = filesystem.block_map(inode)
        self._job.add_data(self._number, block_map.mapped)
        fd = self._writer.create(*location, self._attributes.create_mode(attributes))
        try:
            self.result.written_bytes += _copy(filesystem, block_map.extents.tolist(), size, fd)
            self._attributes.set(fd, attributes, self.result)
        finally:
            os.close(fd)
        self.result.files += 1

    def _create_other(self, location: tuple[int, bytes], attributes: FileAttributes, ino: int) -> None:
        """Create a symlink, device, fifo or socket."""
        filesystem, form = self._job.filesystem, attributes.mode & S_IFMT
        if form == S_IFLNK:
            self._writer.symlink(*location, filesystem.readlink(ino))
            self.result.symlinks += 1
        elif form in _SPECIAL:
            found = filesystem.stat(ino)
            self._writer.mknod(*location, attributes.mode, found.major, found.minor)
            self.result.specials += 1
        else:
            want = "what its entry says" if form == S_IFDIR else "a file type"
            raise CorruptError(f"inode {ino}", "i_mode", f"{attributes.mode:#o}", want)
        directory, name = location
        fd = self._writer.directory(directory)
        set_attributes(name, attributes, self.result, owners=self._job.owners, directory=fd)


def _copy(filesystem: Filesystem, extents: list[list[int]], size: int, fd: int) -> int:
    """Copy the extents and set the size; what is between them stays a hole. Return the bytes written."""
    block_size = filesystem.superblock.block_size
    plain = _plain_device(filesystem)
    os.ftruncate(fd, size)
    written = 0
    for logical, physical, count in extents:
        start = logical * block_size
        end = min(size, start + count * block_size)
        place = physical * block_size
        while start < end:
            length = min(COPY_BYTES, end - start)
            done = 0
            if plain is not None and length >= RANGE_BYTES:
                done = hostio.kernel_copy(plain.fd, plain.offset + place, fd, start, length)
            if not done:
                hostio.write_at(fd, start, filesystem.device.read(place, length))
                done = length
            start += done
            place += done
            written += done
    return written
