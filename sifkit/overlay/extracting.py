"""Files of an image put onto the host: with their holes, owners, times, attributes, ACLs, devices and hard links.

Nothing leaves the directory it is put into, whatever names and links the image holds, and no more data is written than the
image has blocks. What the caller may not do (owners, devices) is counted. A damaged file is told and left out.
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
from ext3.read.readahead import ReadAhead, straight_files
from ext3.workers import MOST_JOBS, parallel_map, workers_for

from .host_writer import FATAL, PROBLEMS_KEPT, Counts, Facts, HostTree, NewFiles, apply_facts, supported
from .selection import Survey, survey_paths

__all__ = ["Extracted", "extract"]

Extracted = Counts
"""What an extraction made and left out."""

JOB_FILES = 256
DEEP = 32
"""From so many levels on the way to a directory costs more than reading data in the order it lies saves."""
COPY_BYTES = 8 << 20
RANGE_BYTES = 256 << 10
"""From this length on the kernel copies from file to file."""
_SPECIAL = (S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK)


def extract(
    filesystem: Filesystem,
    target: str | bytes | os.PathLike[str],
    paths: Sequence[bytes | str] = (),
    *,
    top: int = 2,
    force: bool = False,
    owners: bool | None = None,
    keep: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Extracted:
    """Put ``paths`` (all there is if empty), which start at the directory inode ``top``, below the directory ``target``.

    A path keeps its directories: b"/upper/etc" becomes target/upper/etc. ``target`` is made where it is missing; one that
    holds something is refused without ``force``, with which files there are replaced, but for the file ``keep`` (its device and
    inode on the host: the image). ``owners`` None: as root only.

    Raises PathError for a path that is not there or leads through a symbolic link, OSError where the host takes no more,
    SourceError where this system lacks the calls, and the errors of reading the image. Trouble with one file is in the
    result's ``problems``.
    """
    if not supported():
        raise SourceError(os.fsencode(target), "this system cannot keep an extraction inside a directory")
    progress = progress or Silent()
    counts = Counts()
    survey = Survey()
    progress.phase("look", None, "files")
    wanted = [path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path for path in paths]
    survey_paths(filesystem, top, wanted, survey, counts, progress)
    progress.done()
    if owners is None:
        owners = os.geteuid() == 0
    fd = _open_target(os.fsencode(target), force)
    host = HostTree(fd, survey.names, survey.parents, force=force, keep=keep)
    try:
        _extract(_Work(filesystem, survey, host, owners, deep=survey.depth > DEEP), counts, progress)
    finally:
        host.close()
        os.close(fd)
    return counts


def _open_target(target: bytes, force: bool) -> int:
    try:
        os.mkdir(target, 0o700)
    except FileExistsError:
        if not force and (not os.path.isdir(target) or os.listdir(target)):
            raise
    return os.open(target, os.O_RDONLY | os.O_DIRECTORY | hostio.OPEN)


class _SharedBlocksError(CorruptError):
    """Ends the extraction; other damage concerns one file."""


@dataclass(slots=True)
class _Work:
    """What all processes share; each opens directories of its own."""

    filesystem: Filesystem
    survey: Survey
    host: HostTree
    owners: bool
    forked_from: int = field(default_factory=os.getpid)
    claimed: Numbers = field(default_factory=lambda: np.zeros(1, np.int64))
    """Blocks of data that each job came across."""
    deep: bool = False
    """Directories are nested so deep that the way to each is long: files are made in the order of directories."""

    told: int = 0
    """Problems whose paths are kept, in this process."""

    def claim(self, job: int, blocks: int) -> None:
        """Count blocks; CorruptError where the files have more than there are: they share some, and could fill any disk."""
        self.claimed[job] += blocks
        limit = self.filesystem.superblock.blocks_count
        if int(self.claimed.sum()) > limit:
            raise _SharedBlocksError("files", "blocks of their data", "more than there are", f"<= {limit}")

    def tree(self) -> HostTree:
        if os.getpid() != self.forked_from:
            self.forked_from = os.getpid()
            old = self.host
            self.host = HostTree(old.top, self.survey.names, self.survey.parents, force=old.force, keep=old.keep)
        return self.host


def _extract(work: _Work, counts: Counts, progress: Progress) -> None:
    survey, filesystem = work.survey, work.filesystem
    made = [True] * len(survey.names)
    for index in range(1, len(survey.names)):
        try:
            if made[survey.parents[index]]:
                work.host.make_directory(index)
                counts.directories += 1
            else:
                made[index] = False
        except OSError as error:
            if error.errno in FATAL:
                raise
            made[index] = False
            counts.problem(survey.path(index), error.strerror or str(error))
    work.host.close()
    inos = np.array(survey.entry_inos, np.int64)
    keep = np.array(made, np.bool_)[np.array(survey.entry_directories, np.int64)]
    first = _first_names(inos, keep)
    own = np.flatnonzero(keep & (first == np.arange(len(inos))))
    if not work.deep:
        own = own[np.argsort(inos[own], kind="stable")]  # neighbours in the inode table, and most often on the disk
    size = max(JOB_FILES, -(-len(own) // MOST_JOBS))
    jobs = [own[start : start + size] for start in range(0, len(own), size)]
    work.claimed = np.frombuffer(mmap.mmap(-1, 8 * max(1, len(jobs))), np.int64)  # seen by all processes
    plain = _plain_device(filesystem)
    progress.phase("extract", len(own), "files")
    results = parallel_map(
        len(jobs),
        lambda number, advance: _do_job(work, number, jobs[number].tolist(), advance),
        workers_for(len(jobs)) if plain is not None else 1,
        progress,
    )
    progress.done()
    gone: set[int] = set()
    for found, failed in results:
        counts.add(found)
        gone.update(failed)
    for at in np.flatnonzero(keep & (first != np.arange(len(inos)))).tolist():
        source = int(first[at])
        name = survey.entry_names[at]
        if source in gone:
            counts.problem(survey.path(survey.entry_directories[at], name), "the file it is a link to could not be made")
            continue
        old = (survey.entry_directories[source], survey.entry_names[source])
        try:
            work.host.link(old, (survey.entry_directories[at], name))
            counts.links += 1
        except OSError as error:
            if error.errno in FATAL:
                raise
            counts.problem(survey.path(survey.entry_directories[at], name), error.strerror or str(error))
    _finish_directories(work, made, counts)


def _plain_device(filesystem: Filesystem) -> FileDevice | None:
    """The device, if data can be taken from its file directly; else None: what is read may lie in the journal."""
    return filesystem.device if isinstance(filesystem.device, FileDevice) else None


def _first_names(inos: Numbers, keep: Flags) -> Numbers:
    """For each entry the first entry with the same inode, among those that are made."""
    kept = np.flatnonzero(keep)
    found = np.arange(len(inos))
    if len(kept):
        _, at, which = np.unique(inos[kept], return_index=True, return_inverse=True)
        found[kept] = kept[at[which]]
    return found


def _finish_directories(work: _Work, made: list[bool], counts: Counts) -> None:
    """Owners, attributes, modes and times of directories, those below first: what is made in one changes its time."""
    survey = work.survey
    all_facts: list[Facts | Ext3Error] = []
    for _, _, columns in column_parts(work.filesystem, survey.inos):
        all_facts += [columns] if isinstance(columns, Ext3Error) else _all_facts(work.filesystem, columns)
    for index in range(len(made) - 1, -1, -1):
        if not made[index]:
            continue
        try:
            facts = all_facts[index]
            if isinstance(facts, Ext3Error):
                raise facts
            apply_facts(work.host.directory(index), facts, counts, owners=work.owners)
        except (Ext3Error, OSError) as error:
            if isinstance(error, OSError) and error.errno in FATAL:
                raise
            counts.problem(survey.path(index), str(error))


def _all_facts(filesystem: Filesystem, columns: Columns) -> list[Facts | Ext3Error]:
    """What each row's file gets, or why it cannot be known."""
    found: list[Facts | Ext3Error] = [
        Facts(*facts)
        for facts in zip(
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


def _do_job(work: _Work, number: int, entries: list[int], advance: Callable[[int], None]) -> tuple[Counts, list[int]]:
    """Make these entries; what was made, and which could not be."""
    job = _Job(work, number)
    job.run(entries)
    advance(len(entries))
    return job.counts, job.failed


class _Job:
    """Makes some of the files; ``failed`` are the entries that could not be made."""

    def __init__(self, work: _Work, number: int) -> None:
        self.counts = Counts()
        self.failed: list[int] = []
        self._work = work
        self._number = number
        self._host = work.tree()
        self._new = NewFiles(owners=work.owners, alike=not self._host.force)

    def run(self, entries: list[int]) -> None:
        """Make the files of these entries."""
        survey = self._work.survey
        for start, end, columns in column_parts(self._work.filesystem, [survey.entry_inos[entry] for entry in entries]):
            if isinstance(columns, Ext3Error):
                self._fail(entries[start], columns)
            else:
                self._make_all(entries[start:end], columns)
        self._host.close()

    def _make_all(self, entries: list[int], columns: Columns) -> None:
        survey, filesystem = self._work.survey, self._work.filesystem
        straight, blocks = straight_files(filesystem, columns)
        block_size = filesystem.superblock.block_size
        self._work.claim(self._number, int((-(-columns.size // block_size))[straight].sum()))
        first, sizes, inos, simple = blocks.tolist(), columns.size.tolist(), columns.ino.tolist(), straight.tolist()
        order = range(len(entries)) if self._work.deep else np.argsort(blocks, kind="stable").tolist()
        data = ReadAhead(filesystem, first, sizes, order)
        all_facts = _all_facts(filesystem, columns)
        for row in order:
            entry, facts = entries[row], all_facts[row]
            place = (survey.entry_directories[entry], survey.entry_names[entry])
            try:
                if isinstance(facts, Ext3Error):
                    raise facts
                if simple[row]:
                    self._small(place, facts, data.take(row, sizes[row]))
                elif facts.mode & S_IFMT == S_IFREG:
                    self._large(place, facts, inos[row])
                else:
                    self._other(place, facts, inos[row])
            except _SharedBlocksError:
                raise
            except (Ext3Error, OSError) as error:
                self._fail(entry, error, facts)

    def _fail(self, entry: int, error: Ext3Error | OSError, facts: Facts | Ext3Error | None = None) -> None:
        if not isinstance(error, Ext3Error) and error.errno in FATAL:
            raise error
        self.failed.append(entry)
        if isinstance(error, PermissionError) and isinstance(facts, Facts) and facts.mode & S_IFMT in _SPECIAL:
            self.counts.specials_left += 1
            return
        if self._work.told >= PROBLEMS_KEPT:  # paths may be long, and problems many
            self.counts.failed += 1
            return
        self._work.told += 1
        survey = self._work.survey
        why = str(error) if isinstance(error, Ext3Error) else error.strerror or str(error)
        self.counts.problem(survey.path(survey.entry_directories[entry], survey.entry_names[entry]), why)

    def _small(self, place: tuple[int, bytes], facts: Facts, content: memoryview) -> None:
        """A regular file whose data is known. ``place``: a directory's number and a name."""
        fd = self._host.create(*place, self._new.first_mode(facts))
        try:
            if content:
                hostio.write_at(fd, 0, content)
                self.counts.written_bytes += len(content)
            self._new.finish(fd, facts, self.counts)
        finally:
            os.close(fd)
        self.counts.files += 1

    def _large(self, place: tuple[int, bytes], facts: Facts, ino: int) -> None:
        """A regular file whose data is in several places."""
        filesystem = self._work.filesystem
        inode = filesystem.inode(ino)
        size, block_size = inode.stat.size, filesystem.superblock.block_size
        if size > map_limit(block_size) * block_size:
            raise CorruptError(f"inode {ino}", "i_size", size, f"<= {map_limit(block_size) * block_size}")
        block_map = filesystem.block_map(inode)
        self._work.claim(self._number, block_map.mapped)
        fd = self._host.create(*place, self._new.first_mode(facts))
        try:
            self.counts.written_bytes += _copy(filesystem, block_map.extents.tolist(), size, fd)
            self._new.finish(fd, facts, self.counts)
        finally:
            os.close(fd)
        self.counts.files += 1

    def _other(self, place: tuple[int, bytes], facts: Facts, ino: int) -> None:
        """What is neither a regular file nor a directory."""
        filesystem, form = self._work.filesystem, facts.mode & S_IFMT
        if form == S_IFLNK:
            self._host.symlink(*place, filesystem.readlink(ino))
            self.counts.symlinks += 1
        elif form in _SPECIAL:
            found = filesystem.stat(ino)
            self._host.node(*place, facts.mode, found.major, found.minor)
            self.counts.specials += 1
        else:
            want = "what its entry says" if form == S_IFDIR else "a file type"
            raise CorruptError(f"inode {ino}", "i_mode", f"{facts.mode:#o}", want)
        apply_facts(place[1], facts, self.counts, owners=self._work.owners, directory=self._host.directory(place[0]))


def _copy(filesystem: Filesystem, extents: list[list[int]], size: int, fd: int) -> int:
    """The data where it is, and the length; what lies between stays a hole. Bytes that were written."""
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
