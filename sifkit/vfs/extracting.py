"""Extraction of files to the host, with their holes, owners, times, xattrs, ACLs, devices and hard links.

Nothing is written outside the target directory, whatever names and links the tree holds, and no more data than its filesystem
has bytes. What the caller may not do (owners, devices) is counted. Damaged files are reported and skipped.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from ext3 import hostio
from ext3.progress import Progress, Silent
from ext3.workers import MAX_JOBS, parallel_map, workers_for

from ..errors import TargetError, show
from ..host_space import full_host_errors
from ..output_path import check_output_directory
from .data_limit import SharedBlocksError, SharedDataCount
from .errors import DamagedTreeError, bad_mode_error, reason_of, unreadable_attributes
from .file_copy import UnreadableError, copy_ranges, ranges_of, reading
from .file_tree import FileTree, Stat
from .host_attributes import NewFileAttributes, owner_only, set_attributes, set_unopened_attributes
from .host_writer import (
    FATAL_ERRNOS,
    MAX_PROBLEMS,
    ExtractResult,
    HostWriter,
    supported,
)
from .needed_space import needed_bytes
from .resolve import is_dir
from .selection import Selection, select_paths

__all__ = ["ExtractResult", "extract"]

N = TypeVar("N", bound=Hashable)

BATCH_FILES = 256
BATCH_DIRECTORIES = 1024
DEEP_LEVELS = 32
"""Above this depth opening directories costs more than reading data in disk order saves."""
UNCOUNTED_BYTES = 1 << 20
"""Data of small files that one process may create before it adds them to the count of all."""
MAX_OFFSET = (1 << 63) - 1
LOST_FOUND = b"lost+found"
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_SPECIAL = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)

Failures = dict[int, Literal["problem", "left out"]]
"""Entries that could not be created: for a reason that is reported, or for lack of permission, with all their names."""


def extract(
    tree: FileTree[N],
    target: str | bytes | os.PathLike[str],
    paths: Sequence[bytes | str] = (),
    *,
    force: bool = False,
    owners: bool | None = None,
    devices: bool = True,
    image_ids: Collection[tuple[int, int]] = (),
    progress: Progress | None = None,
) -> ExtractResult:
    """Extract ``paths`` (everything if empty) of a tree to the directory ``target``.

    A path keeps its directories: b"/upper/etc" becomes target/upper/etc. ``target`` is created if it does not exist; it must
    be empty unless ``force``, which replaces existing files except the images of the tree (``image_ids``, their devices and
    inodes on the host). ``owners`` None: set owners only as root. Without ``devices`` they are left out. Forked processes share
    the work; any tree can be read by them (see ``FileTree``).

    Raises MissingPathError, and NotDirectoryPathError for a path that leads through a symlink; OSError if the host can take no
    more files or the tree cannot look up a path; TargetError if this system lacks the calls, or the host is full;
    SharedBlocksError. Errors of single files and directories are in the result's ``problems``.
    """
    path = os.fsencode(target)
    if not supported():
        reason = "this system lacks the calls that keep an extraction inside its directory"
        raise TargetError(f"{show(path)}: {reason}", path=path, error=OSError(errno.ENOSYS, reason))
    progress = progress or Silent()
    result = ExtractResult()
    wanted = [one.encode("utf-8", "surrogateescape") if isinstance(one, str) else one for one in paths]
    progress.phase("look", None, "files")
    selection = select_paths(tree, wanted, result, progress)
    progress.done()
    if owners is None:
        owners = os.geteuid() == 0
    fd = _open_target(path, force)
    writer = HostWriter(fd, selection.names, selection.parents, force=force, image_ids=image_ids)
    name = os.fsdecode(path)
    needed = partial(needed_bytes, tree, selection.entry_nodes, selection.nodes)
    try:
        with full_host_errors(name, needed, directory=name):
            _extract(_Extraction(tree, selection, writer, owners, devices), result, progress)
    finally:
        writer.close()
        os.close(fd)
    return result


def _open_target(target: bytes, force: bool) -> int:
    check_output_directory(target)
    try:
        os.mkdir(target, 0o700)
    except FileExistsError:
        if not force and (not os.path.isdir(target) or os.listdir(target)):
            raise
    return os.open(target, os.O_RDONLY | os.O_DIRECTORY | hostio.OPEN)


@dataclass(slots=True)
class _Extraction(Generic[N]):
    """State shared by all processes; each has its own writer."""

    tree: FileTree[N]
    selection: Selection[N]
    writer: HostWriter
    owners: bool
    devices: bool
    pid: int = field(default_factory=os.getpid)
    """Process that created ``writer``."""
    data: SharedDataCount = field(default_factory=lambda: SharedDataCount(None, 0))
    """Count of the data read; a batch has the slot of its number."""
    further_names: Counter[int] = field(default_factory=Counter)
    """Number of other entries with the same node."""
    defer_links: bool = True
    """Files with more names than have this node are left for later, when their other nodes are known."""
    recorded_problems: int = 0
    """Problems recorded with their paths, in this process."""

    @property
    def deep(self) -> bool:
        """True if directories are nested so deep that files are created in directory order, not in disk order."""
        return self.selection.depth > DEEP_LEVELS

    def own_writer(self) -> HostWriter:
        """Return the writer of this process; its directories are not shared with the process that forked it."""
        if os.getpid() != self.pid:
            self.pid = os.getpid()
            self.writer = self.writer.for_process()
        return self.writer


def _extract(job: _Extraction[N], result: ExtractResult, progress: Progress) -> None:
    selection = job.selection
    created = _make_directories(job, result)
    entries = [entry for entry, directory in enumerate(selection.entry_directories) if created[directory]]
    progress.phase("extract", len(entries), "files")
    own, first_names = _split_names(selection, entries)
    job.further_names = Counter(first_names.values())
    job.data = SharedDataCount(job.tree.statfs().data_limit, len(_batches(own)))
    failed, linked = _create_files(job, own, result, progress)
    first: dict[tuple[int, int], int] = {}
    for entry in sorted(linked):
        source = first.setdefault(linked[entry], entry)
        if source != entry:
            first_names[entry] = source
    job.defer_links = False
    failed |= _create_files(job, list(first.values()), result, progress)[0]
    for entry in sorted(first_names):
        source = first_names[entry]
        _link(job, entry, first_names.get(source, source), failed, result)
    progress.advance(len(first_names))
    progress.done()
    _set_directory_attributes(job, created, result)


def _split_names(selection: Selection[N], entries: list[int]) -> tuple[list[int], dict[int, int]]:
    """Return the entries with different nodes, in the order of these, and the others, with the first one of the same node.

    Nodes without an order are not compared.
    """
    nodes = selection.entry_nodes
    key: Callable[[int], Any] = nodes.__getitem__
    try:
        entries = sorted(entries, key=key)
    except TypeError:
        return entries, {}
    own = entries[:1]
    first_names: dict[int, int] = {}
    for entry in entries[1:]:
        if nodes[entry] == nodes[own[-1]]:
            first_names[entry] = own[-1]
        else:
            own.append(entry)
    return own, first_names


def _batches(entries: list[int]) -> list[list[int]]:
    size = max(BATCH_FILES, -(-len(entries) // MAX_JOBS))
    return [entries[start : start + size] for start in range(0, len(entries), size)]


def _create_files(
    job: _Extraction[N], entries: list[int], result: ExtractResult, progress: Progress
) -> tuple[Failures, dict[int, tuple[int, int]]]:
    """Create files; return the entries that failed, and (dev, ino) of those that were left because they may be hard links."""
    batches = _batches(sorted(entries) if job.deep else entries)
    results = parallel_map(
        len(batches),
        lambda number, advance: _extract_batch(job, number, batches[number], advance),
        workers_for(len(batches)),
        progress,
    )
    all_failed: Failures = {}
    all_linked: dict[int, tuple[int, int]] = {}
    for batch_result, failed, linked in results:
        result.add(batch_result)
        all_failed.update(failed)
        all_linked.update(linked)
    return all_failed, all_linked


def _link(job: _Extraction[N], entry: int, source: int, failed: Failures, result: ExtractResult) -> None:
    """Create a further name of a file."""
    path = job.selection.entry_path(entry)
    if source in failed:
        if failed[source] == "left out":
            result.specials_left += 1
        else:
            result.add_problem(path, "the file it is a link to could not be created")
        return
    try:
        job.writer.link(job.selection.location(source), job.selection.location(entry))
        result.links += 1
    except OSError as error:
        _record(path, error, result)


def _record(path: bytes, error: OSError, result: ExtractResult) -> None:
    """Record an error of the host; raise it if every other file would fail the same way."""
    if error.errno in FATAL_ERRNOS:
        raise error
    result.add_problem(path, reason_of(error))


def _make_directories(job: _Extraction[N], result: ExtractResult) -> list[bool]:
    """Create all directories but the top; return which of them exist now."""
    selection = job.selection
    created = [True] * len(selection.names)
    for index in range(1, len(selection.names)):
        created[index] = created[selection.parents[index]]
        if not created[index]:
            continue
        try:
            job.writer.make_directory(index)
            result.directories += 1
        except OSError as error:
            created[index] = False
            _record(selection.path(index), error, result)
    job.writer.close()
    return created


def _set_directory_attributes(job: _Extraction[N], created: list[bool], result: ExtractResult) -> None:
    """Set the attributes of directories, children first, after everything in them: creating files changes their times."""
    indices = [index for index in range(len(created)) if created[index]]
    lost_found = _empty_lost_found(job.selection)
    while indices:
        batch = indices[-BATCH_DIRECTORIES:]
        del indices[-BATCH_DIRECTORIES:]
        loaded = list(job.tree.load_many([job.selection.nodes[index] for index in batch]))
        for index, directory in zip(reversed(batch), reversed(loaded), strict=True):
            found, xattrs = directory.stat, directory.xattrs
            if isinstance(found, OSError):
                result.add_problem(job.selection.path(index), reason_of(found))
            elif is_dir(found):  # else it could not be read, which is reported
                if isinstance(xattrs, OSError):
                    result.add_problem(job.selection.path(index), unreadable_attributes(xattrs))
                    found, xattrs = owner_only(found), {}
                try:
                    counted = ExtractResult() if index == lost_found else result  # nobody misses the owner of that one
                    set_attributes(job.writer.directory(index), found, xattrs, counted, owners=job.owners)
                except OSError as error:
                    _record(job.selection.path(index), error, result)


def _empty_lost_found(selection: Selection[N]) -> int | None:
    """Return the directory lost+found at the top, which every ext3 filesystem has and root owns; None if it is not empty."""
    for index in range(1, len(selection.names)):
        if selection.names[index] == LOST_FOUND and selection.parents[index] == 0:
            return None if index in selection.parents or index in selection.entry_directories else index
    return None


def _extract_batch(
    job: _Extraction[N], number: int, entries: list[int], advance: Callable[[int], None]
) -> tuple[ExtractResult, Failures, dict[int, tuple[int, int]]]:
    """Create the files of these entries; return the result, the entries that failed, and those left for later."""
    batch = _Batch(job, number)
    batch.run(entries)
    advance(len(entries) - len(batch.linked))
    return batch.result, batch.failed, batch.linked


class _Batch(Generic[N]):
    """Batch of files to create.

    ``failed``: the entries that could not be created; ``linked``: (dev, ino) of those left for later.
    """

    def __init__(self, job: _Extraction[N], number: int) -> None:
        self.result = ExtractResult()
        self.failed: Failures = {}
        self.linked: dict[int, tuple[int, int]] = {}
        self._job = job
        self._selection = job.selection
        self._number = number
        self._writer = job.own_writer()
        self._attributes = NewFileAttributes(owners=job.owners, uniform=not self._writer.force)
        self._uncounted = 0

    def run(self, entries: list[int]) -> None:
        """Create the files of these entries. Raises SharedBlocksError, and OSError if all other files would fail as well."""
        nodes = [self._selection.entry_nodes[entry] for entry in entries]
        for loaded in self._job.tree.load_many(nodes, keep_order=self._job.deep):
            entry, found, xattrs, content = entries[loaded.position], loaded.stat, loaded.xattrs, loaded.content
            if isinstance(found, OSError):
                self._fail(entry, found)
            elif found.links > 1 and self._may_have_other_nodes(entry, found):
                self.linked[entry] = (found.dev, found.ino)
            elif isinstance(content, OSError):
                self._fail(entry, content)
            else:
                try:
                    if isinstance(xattrs, OSError):  # the data is not lost with them
                        self._add_problem(entry, unreadable_attributes(xattrs))
                        found, xattrs = owner_only(found), {}
                    if content is not None:
                        self._write_small(entry, found, xattrs, content)
                    elif found.mode & 0o170000 == stat.S_IFREG:
                        self._write_large(entry, loaded.node, found, xattrs)
                    else:
                        self._create_other(entry, loaded.node, found, xattrs)
                except UnreadableError as unreadable:
                    self._fail(entry, unreadable.error)
                except SharedBlocksError:
                    raise
                except OSError as error:
                    self._fail_on_host(entry, found, error)
        self._count_data(0)
        self._writer.close()

    def _may_have_other_nodes(self, entry: int, found: Stat) -> bool:
        """Return True if a file must be left for later, because it may have names with other nodes."""
        return self._job.defer_links and found.links > 1 + self._job.further_names[entry]

    def _fail_on_host(self, entry: int, found: Stat, error: OSError) -> None:
        """Record a file that the host refuses; raise the error if it would refuse every other one as well."""
        if error.errno in FATAL_ERRNOS:
            raise error
        if isinstance(error, PermissionError) and found.mode & 0o170000 in _SPECIAL:
            self.failed[entry] = "left out"
            self.result.specials_left += 1
        else:
            self._fail(entry, error)

    def _fail(self, entry: int, error: OSError) -> None:
        """Record a file that could not be created."""
        self.failed[entry] = "problem"
        self._add_problem(entry, reason_of(error))

    def _add_problem(self, entry: int, reason: str) -> None:
        if self._job.recorded_problems >= MAX_PROBLEMS:  # paths may be long and problems many
            self.result.failed += 1
            return
        self._job.recorded_problems += 1
        self.result.add_problem(self._selection.entry_path(entry), reason)

    def _count_data(self, size: int) -> None:
        """Count bytes of data, and those not counted yet. Raises SharedBlocksError."""
        self._job.data.add(self._number, self._uncounted + size)
        self._uncounted = 0

    def _create(self, entry: int, found: Stat, xattrs: Mapping[bytes, bytes]) -> int:
        """Create a regular file; return its descriptor."""
        selection = self._selection
        mode = self._attributes.create_mode(found, xattrs)
        return self._writer.create(selection.entry_directories[entry], selection.entry_names[entry], mode)

    def _write_small(self, entry: int, found: Stat, xattrs: Mapping[bytes, bytes], content: bytes | memoryview) -> None:
        """Create a regular file whose data is at hand."""
        size = len(content)
        self._uncounted += size
        if self._uncounted >= UNCOUNTED_BYTES:
            self._count_data(0)
        fd = self._create(entry, found, xattrs)
        try:
            if size:
                done = os.write(fd, content)
                if done < size:
                    hostio.write_at(fd, done, content[done:])
                self.result.written_bytes += size
            self._attributes.set(fd, found, xattrs, self.result)
        finally:
            os.close(fd)
        self.result.files += 1

    def _write_large(self, entry: int, node: N, found: Stat, xattrs: Mapping[bytes, bytes]) -> None:
        """Create a regular file from its data ranges; what is between them stays a hole."""
        with reading():
            source = self._job.tree.open_file(node)
        with source:
            ranges = ranges_of(source)
            self._count_data(sum(one.length for one in ranges))
            if source.size > MAX_OFFSET:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            fd = self._create(entry, found, xattrs)
            try:
                os.ftruncate(fd, source.size)
                self.result.written_bytes += copy_ranges(source, ranges, fd)
                self._attributes.set(fd, found, xattrs, self.result)
            finally:
                os.close(fd)
        self.result.files += 1

    def _create_other(self, entry: int, node: N, found: Stat, xattrs: Mapping[bytes, bytes]) -> None:
        """Create a symlink, device, fifo or socket."""
        location = self._selection.location(entry)
        form = found.mode & 0o170000
        if form == stat.S_IFLNK:
            with reading():
                link = self._job.tree.readlink(node)
            if b"\0" in link:
                raise UnreadableError(DamagedTreeError(None, "the image is damaged: the target of the link has a NUL"))
            self._writer.symlink(*location, link)
            self.result.symlinks += 1
        elif form in _DEVICES and not self._job.devices:
            self.failed[entry] = "left out"
            self.result.specials_left += 1
            return
        elif form in _SPECIAL:
            created = self._writer.mknod(*location, found.mode, found.major, found.minor)
            self.result.specials += 1
            if not created:
                return
        else:
            raise UnreadableError(bad_mode_error(found.mode))
        directory, name = location
        fd = self._writer.directory(directory)
        set_unopened_attributes(name, found, xattrs, self.result, owners=self._job.owners, directory=fd)
