"""Copy an overlay image: one for each job. Blocks are shared where the filesystem can, else holes stay holes."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import UUID, uuid4

from ext3.constants import SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ext3.device.base import FileDevice
from ext3.errors import CorruptError
from ext3.format.schema import SUPERBLOCK
from ext3.format.superblock import Superblock, read_superblock

from ..atomic import lock_range
from ..errors import FormatError, SifkitError, UsageError, show
from .destination import check_destination, new_file
from .in_use import check_image, check_unused
from .opening import check_whole

if TYPE_CHECKING:
    from .options import Progress

__all__ = ["CloneResult", "clone", "copy_data", "share_blocks"]

HostPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

FICLONE = 0x40049409
"""ioctl of Linux (linux/fs.h): share all blocks of another file."""
COPY_BYTES = 16 << 20
CANNOT_SHARE = {
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
    errno.EBADF,
    errno.ETXTBSY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneResult:
    """One copy that was made. ``method``: "reflink" shares all blocks, "copy" wrote ``copied_bytes`` of data.

    ``locked`` False: the filesystem of the original has no locks, nothing kept others from writing meanwhile.
    ``journal_dirty``: the journal of both holds changes that are not in place yet.
    """

    path: str
    source: str
    size_bytes: int
    copied_bytes: int
    method: Literal["reflink", "copy"]
    uuid: UUID
    new_uuid: bool
    journal_dirty: bool
    locked: bool
    seconds: float


def clone(
    source: HostPath, target: HostPath, *, new_uuid: bool | UUID = False, force: bool = False, progress: Progress | None = None
) -> CloneResult:
    """Copy the ext3 image ``source`` to the new file ``target``, with the same permissions.

    ``new_uuid`` gives the copy a UUID of its own (or the one given), in every superblock. ``force`` replaces a target that
    is itself an ext3 image in no use, or empty. The original is read-locked meanwhile. Raises ImageInUseError where
    somebody may write to the original, UsageError where both are one file, TargetError, NotReplaceableError, FormatError,
    Ext3Error, OSError.
    """
    started = time.monotonic()
    name, new_name = os.fsdecode(source), os.fsdecode(target)
    check_image(name)
    if os.path.exists(new_name) and os.path.samefile(name, new_name):
        raise UsageError(f"{show(name)} cannot be copied onto itself", hint="give the copy another name")
    check_destination(new_name, force=force)
    check_whole(name)
    fd = os.open(name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(f"{show(name)} is not a regular file", path=name, hint="give an image file")
        check_unused(name, writers_only=True)
        locked = lock_range(fd, write=False, path=name)
        check_unused(name, writers_only=True, ours=True)  # a loop device may have come between
        device = FileDevice(fd)
        superblock = read_superblock(device)
        if new_uuid is not False and superblock.needs_recovery:
            raise SifkitError(
                f"{show(name)}: its journal is not empty, and playing it back could bring the old UUID back",
                path=name,
                hint="use the image writable once, which empties the journal, or clone it without --new-uuid",
            )
        chosen = superblock.uuid if new_uuid is False else new_uuid if isinstance(new_uuid, UUID) else uuid4()
        with new_file(new_name, stat.S_IMODE(found.st_mode) & 0o777) as file:
            shared = share_blocks(fd, file.fd)
            copied = 0 if shared else copy_data(fd, file.fd, found.st_size, progress)
            if os.fstat(fd).st_mtime_ns != found.st_mtime_ns or os.fstat(fd).st_size != found.st_size:
                raise SifkitError(
                    f"{show(name)} was written to while it was copied", path=name, hint="stop what uses it, then try again"
                )
            if new_uuid is not False:
                _write_uuid(FileDevice(file.fd), superblock, chosen)
            file.commit(replace=force)
    finally:
        os.close(fd)
    return CloneResult(
        path=new_name,
        source=name,
        size_bytes=found.st_size,
        copied_bytes=copied,
        method="reflink" if shared else "copy",
        uuid=chosen,
        new_uuid=new_uuid is not False,
        journal_dirty=superblock.needs_recovery,
        locked=locked,
        seconds=time.monotonic() - started,
    )


def share_blocks(source: int, target: int) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in CANNOT_SHARE:
            return False
        raise
    return True


def _data_runs(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what may hold data; the whole file where holes cannot be asked for."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except AttributeError:
            start, end = offset, size
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole to the end
                return
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            start, end = offset, size
        end = min(max(end, start + 1), size)
        yield start, end - start
        offset = end


def copy_data(source: int, target: int, size: int, progress: Progress | None) -> int:
    """Copy the data, leave the holes; bytes copied."""
    os.ftruncate(target, size)
    runs = list(_data_runs(source, size))
    total = sum(length for _, length in runs)
    if progress:
        progress.phase("copy", total, "bytes")
    in_kernel = hasattr(os, "copy_file_range")
    for start, length in runs:
        offset, end = start, start + length
        while offset < end:
            count = min(COPY_BYTES, end - offset)
            if in_kernel:
                try:
                    done = os.copy_file_range(source, target, count, offset, offset)
                except OSError as error:
                    if error.errno not in CANNOT_SHARE:
                        raise
                    in_kernel = False
                    continue
                if not done:  # some filesystems answer 0 where they cannot
                    in_kernel = False
                    continue
            else:
                done = _copy_piece(source, target, count, offset)
            offset += done
            if progress:
                progress.advance(done)
    if progress:
        progress.done()
    return total


def _copy_piece(source: int, target: int, count: int, offset: int) -> int:
    os.lseek(source, offset, os.SEEK_SET)
    data = os.read(source, min(count, 1 << 20))
    if not data:
        raise SifkitError("the image became shorter while it was copied", hint="stop what uses it, then try again")
    os.lseek(target, offset, os.SEEK_SET)
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
    return len(data)


def _write_uuid(device: FileDevice, superblock: Superblock, uuid: UUID) -> None:
    """Put ``uuid`` into the primary superblock and every backup, nothing else. Raises CorruptError without a backup's magic."""
    geometry = superblock.geometry
    for group in (0, *geometry.backup_groups):
        offset = int(geometry.group_first[group]) * geometry.block_size if group else SUPERBLOCK_OFFSET
        data = bytearray(device.read(offset, SUPERBLOCK_SIZE))
        row = SUPERBLOCK.view(data)
        if bytes(row[0]["s_uuid"]) != superblock.uuid.bytes:
            raise CorruptError(f"backup superblock in group {group}", "s_uuid", "another", superblock.uuid)
        row["s_uuid"] = uuid.bytes
        device.write(offset, data)
