"""Files of an image put onto the host: with their holes, owners, times, attributes, ACLs, devices and hard links.

Nothing leaves the directory it is put into, whatever names and links the image holds, and no more data is written than the
image has blocks. What the caller may not do (owners, devices) is counted. A damaged file is told and left out.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .build.crew import MOST_JOBS, share_out, workers_for
from .build.progress import Progress, Silent
from .bulk import Columns, Flags, Numbers, nanoseconds, read_columns
from .constants import (
    DIRECT_BLOCKS,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    InodeFlag,
)
from .device import FileDevice
from .errors import CorruptError, Ext3Error, SourceError
from .filesystem import Filesystem
from .hosttree import FATAL, Counts, Facts, HostTree, apply_facts, supported
from .inode import Inode
from .survey import Survey, survey_paths

__all__ = ["Extracted", "extract"]

Extracted = Counts
"""What an extraction made and left out."""

JOB_FILES = 256
RUN_BYTES = 4 << 20
GAP_BLOCKS = 8
COPY_BYTES = 8 << 20
RANGE_BYTES = 256 << 10
"""From this length on the kernel copies from file to file."""
SECOND = 1_000_000_000
_NO_MAP = (InodeFlag.EXTENTS | InodeFlag.INLINE_DATA).value
_SPECIAL = (S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK)


def extract(
    filesystem: Filesystem,
    target: str | bytes | os.PathLike[str],
    paths: Sequence[bytes] = (),
    *,
    top: int = 2,
    force: bool = False,
    owners: bool | None = None,
    progress: Progress | None = None,
) -> Extracted:
    """Put ``paths`` (all there is if empty), which start at the directory inode ``top``, below the directory ``target``.

    A path keeps its directories: b"/upper/etc" becomes target/upper/etc. ``target`` is made where it is missing; one that
    holds something is refused without ``force``, with which files there are replaced. ``owners`` None: as root only.

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
    survey_paths(filesystem, top, paths, survey, counts, progress)
    progress.done()
    if owners is None:
        owners = os.geteuid() == 0
    fd = _open_target(os.fsencode(target), force)
    host = HostTree(fd, survey.names, survey.parents, force=force)
    try:
        _extract(_Work(filesystem, survey, host, owners), counts, progress)
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
    return os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


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

    def claim(self, job: int, blocks: int) -> None:
        """Count blocks; CorruptError where the files have more than there are: they share some, and could fill any disk."""
        self.claimed[job] += blocks
        limit = self.filesystem.superblock.blocks_count
        if int(self.claimed.sum()) > limit:
            raise _SharedBlocksError("files", "blocks of their data", "more than there are", f"<= {limit}")

    def tree(self) -> HostTree:
        if os.getpid() != self.forked_from:
            self.forked_from = os.getpid()
            self.host = HostTree(self.host.top, self.survey.names, self.survey.parents, force=self.host.force)
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
    keep = np.array(made, np.bool_)[np.array(survey.entry_directories, np.int64)] if len(inos) else np.zeros(0, np.bool_)
    first = _first_names(filesystem, inos, keep)
    own = np.flatnonzero(keep & (first == np.arange(len(inos))))
    size = max(JOB_FILES, -(-len(own) // MOST_JOBS))
    jobs = [own[start : start + size] for start in range(0, len(own), size)]
    work.claimed = np.frombuffer(mmap.mmap(-1, 8 * max(1, len(jobs))), np.int64)  # seen by all processes
    plain = _plain_device(filesystem)
    progress.phase("extract", len(own), "files")
    results = share_out(
        len(jobs),
        lambda number, advance: _do_job(work, number, jobs[number], advance),
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


def _first_names(filesystem: Filesystem, inos: Numbers, keep: Flags) -> Numbers:
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
    all_facts = _all_facts(work.filesystem, read_columns(work.filesystem, survey.inos))
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
            found[row] = replace(found[row], xattrs=filesystem.xattrs(int(columns.ino[row])))  # type: ignore[type-var]
        except Ext3Error as error:
            found[row] = error
    return found


def _do_job(work: _Work, number: int, entries: Numbers, advance: Callable[[int], None]) -> tuple[Counts, list[int]]:
    """Make these entries; what was made, and which could not be."""
    survey, filesystem = work.survey, work.filesystem
    host = work.tree()
    counts = Counts()
    failed: list[int] = []
    chosen = entries.tolist()
    columns = read_columns(filesystem, [survey.entry_inos[entry] for entry in chosen])
    block_size = filesystem.superblock.block_size
    simple, first = _simple_files(columns, block_size, filesystem)
    work.claim(number, int((-(-columns.size // block_size))[np.array(simple, np.bool_)].sum()))
    data = _read_ahead(filesystem, first, columns.size, simple)
    sizes, inos = columns.size.tolist(), columns.ino.tolist()
    all_facts = _all_facts(filesystem, columns)
    for row in data.order:
        entry = chosen[row]
        directory, name = survey.entry_directories[entry], survey.entry_names[entry]
        facts = all_facts[row]
        try:
            if isinstance(facts, Ext3Error):
                raise facts
            content = data.take(row, sizes[row]) if simple[row] else None
            _make(work, (directory, name), inos[row], facts, content, counts, number)
        except _SharedBlocksError:
            raise
        except (Ext3Error, OSError) as error:
            if isinstance(error, OSError) and error.errno in FATAL and not isinstance(error, Ext3Error):
                raise
            failed.append(entry)
            if not (isinstance(error, PermissionError) and isinstance(facts, Facts) and facts.mode & S_IFMT in _SPECIAL):
                text = str(error) if isinstance(error, Ext3Error) else error.strerror or str(error)
                counts.problem(survey.path(directory, name), text)
            else:
                counts.specials_left += 1
    advance(len(chosen))
    host.close()
    return counts, failed


def _simple_files(columns: Columns, block_size: int, filesystem: Filesystem) -> tuple[list[bool], list[int]]:
    """Which are regular files whose data lies in one run of direct blocks, and where that begins."""
    superblock = filesystem.superblock
    need = -(-columns.size // block_size)
    pointers = columns.rows["i_block"][:, :DIRECT_BLOCKS].astype(np.int64)
    first = pointers[:, 0]
    steps = np.arange(DIRECT_BLOCKS)
    straight = ((pointers == first[:, None] + steps) | (steps >= need[:, None])).all(axis=1)
    inside = (first >= superblock.first_data_block) & (first + need <= superblock.blocks_count) & (first > 0)
    regular = ((columns.mode & S_IFMT) == S_IFREG) & ((columns.rows["i_flags"] & _NO_MAP) == 0) & ~columns.bad
    simple = regular & (need <= DIRECT_BLOCKS) & ((need == 0) | (straight & inside))
    return simple.tolist(), np.where(simple & (need > 0), first, 0).tolist()


class _ReadAhead:
    """The data of simple files, read in runs in the order it lies; ``order``: the rows, in the order to take them."""

    def __init__(self, filesystem: Filesystem, order: list[int], runs: dict[int, tuple[int, int]], first: list[int]) -> None:
        self.order = order
        self._filesystem = filesystem
        self._runs = runs
        self._first = first
        self._start = 0
        self._data = memoryview(b"")

    def take(self, row: int, size: int) -> memoryview:
        if not size:
            return memoryview(b"")
        block_size = self._filesystem.superblock.block_size
        if row in self._runs:
            self._start, blocks = self._runs[row]
            self._data = memoryview(self._filesystem.device.read(self._start * block_size, blocks * block_size))
        at = (self._first[row] - self._start) * block_size
        return self._data[at : at + size]


def _read_ahead(filesystem: Filesystem, first: list[int], sizes: Numbers, simple: list[bool]) -> _ReadAhead:
    block_size = filesystem.superblock.block_size
    need = (-(-sizes // block_size)).tolist()
    rows = sorted((row for row in range(len(first)) if first[row]), key=first.__getitem__)
    runs: dict[int, tuple[int, int]] = {}
    head, end = -1, 0
    for row in rows:
        start, stop = first[row], first[row] + need[row]
        if head < 0 or start > end + GAP_BLOCKS or (stop - runs[head][0]) * block_size > RUN_BYTES:
            head, end = row, stop
            runs[head] = (start, stop - start)
        else:
            end = max(end, stop)
            runs[head] = (runs[head][0], end - runs[head][0])
    rest = [row for row in range(len(first)) if not first[row]]
    return _ReadAhead(filesystem, rows + rest, runs, first)


def _make(
    work: _Work,
    place: tuple[int, bytes],
    ino: int,
    facts: Facts,
    content: memoryview | None,
    counts: Counts,
    job: int,
) -> None:
    """Make one file of whatever kind at ``place``, a directory's number and a name. ``content``: the data, if it is known."""
    filesystem, host = work.filesystem, work.host
    directory, name = place
    form = facts.mode & S_IFMT
    if form == S_IFREG:
        extents = None
        inode: Inode | None = None
        if content is None:
            inode = filesystem.inode(ino)
            block_map = filesystem.block_map(inode)
            work.claim(job, block_map.mapped)
            extents = block_map.extents.tolist()
        fd = host.create(directory, name)
        try:
            if content is not None:
                counts.written_bytes += _write_all(fd, content, 0) if len(content) else 0
            else:
                assert inode is not None and extents is not None
                counts.written_bytes += _copy(filesystem, extents, inode.stat.size, fd)
            apply_facts(fd, facts, counts, owners=work.owners)
        finally:
            os.close(fd)
        counts.files += 1
        return
    if form == S_IFLNK:
        host.symlink(directory, name, filesystem.readlink(ino))
        counts.symlinks += 1
    elif form in _SPECIAL:
        found = filesystem.stat(ino)
        host.node(directory, name, facts.mode, found.major, found.minor)
        counts.specials += 1
    else:
        want = "what its entry says" if form == S_IFDIR else "a file type"
        raise CorruptError(f"inode {ino}", "i_mode", f"{facts.mode:#o}", want)
    apply_facts(name, facts, counts, owners=work.owners, directory=host.directory(directory))


def _write_all(fd: int, data: memoryview | bytes, offset: int) -> int:
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], offset + done)
    return done


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
                done = _copy_range(plain, place, length, fd, start)
            if not done:
                done = _write_all(fd, filesystem.device.read(place, length), start)
            start += done
            place += done
            written += done
    return written


def _copy_range(device: FileDevice, source: int, length: int, fd: int, target: int) -> int:
    """Bytes the kernel copied; 0 where it cannot between these files."""
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(device.fd, fd, length, device.offset + source, target)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise
