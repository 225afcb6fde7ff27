"""Clone of an overlay image, for example one per job: a reflink if the filesystem can, else a copy that keeps holes."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from uuid import UUID, uuid4

from ext3 import hostio
from ext3.constants import SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE
from ext3.device.base import FileDevice
from ext3.errors import CorruptError
from ext3.format.schema import SUPERBLOCK
from ext3.format.superblock import Superblock, read_superblock
from ext3.hostio import HostPath

from ..errors import SifkitError, UsageError, show
from ..host_space import filled_holes_notes, full_host_errors
from .destination import EXT_IMAGES, check_destination, new_file
from .images.image_format import check_standalone
from .images.locked_file import check_unchanged, copy_data, open_for_copy
from .images.opening import check_whole, named_errors
from .images.window import file_window

if TYPE_CHECKING:
    from .options import Progress

__all__ = ["CloneResult", "clone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneResult:
    """Result of a clone. ``method``: "reflink" shares all blocks, "copy" wrote ``copied_bytes`` of data.

    ``locked`` False: file locking is unavailable, so others could write during the copy. ``journal_dirty``: the journal of both
    images needs recovery. ``notes``: for the user.
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
    notes: tuple[str, ...] = ()


def clone(
    source: HostPath,
    target: HostPath,
    *,
    offset: int | None = None,
    new_uuid: bool | UUID = False,
    force: bool = False,
    progress: Progress | None = None,
) -> CloneResult:
    """Copy the ext3 image ``source`` to the new file ``target``, with the same permissions.

    ``offset``: byte of a larger file where the filesystem begins, which is all that is copied.
    ``new_uuid`` sets a new UUID (or the one given) in every superblock of the copy. ``force`` replaces a target that is an
    unused ext3 image or empty. The original is read-locked during the copy. Raises ImageInUseError if another process may write
    to the original, UsageError if both are the same file, TargetError, NotReplaceableError, FormatError, Ext3Error, OSError.
    """
    started = time.monotonic()
    name, new_name = os.fsdecode(source), os.fsdecode(target)
    check_standalone(name, offset=offset)
    if hostio.same_file(name, new_name):
        raise UsageError(f"{show(name)} cannot be copied onto itself", hint="give the copy another name")
    check_destination(new_name, force=force)
    check_whole(name, offset=offset)
    fd, locked = open_for_copy(name)
    try:
        found = os.fstat(fd)
        window = file_window(name, fd, offset)
        with named_errors(name, offset):
            superblock = read_superblock(window.device())
        size = window.size if offset is None else superblock.size_bytes
        if new_uuid is not False and superblock.needs_recovery:
            raise SifkitError(
                f"{show(name)}: its journal is not empty, and replaying it could restore the old UUID",
                path=name,
                hint="empty the journal by using the image writable once, or clone it without --new-uuid",
            )
        chosen = superblock.uuid if new_uuid is False else new_uuid if isinstance(new_uuid, UUID) else uuid4()
        with (
            full_host_errors(new_name, min(size, hostio.allocated_bytes(found))),
            new_file(new_name, stat.S_IMODE(found.st_mode) & 0o777) as file,
        ):
            shared = offset is None and hostio.clone_file(fd, file.fd)
            copied = 0 if shared else copy_data(name, fd, file.fd, size, progress, window.offset)
            check_unchanged(fd, found, name)
            if new_uuid is not False:
                _write_uuid(FileDevice(file.fd), superblock, chosen)
            file.commit(EXT_IMAGES if force else None)
            taken = 0 if shared else hostio.allocated_bytes(os.stat(file.target))
    finally:
        os.close(fd)
    return CloneResult(
        path=new_name,
        source=name,
        size_bytes=size,
        copied_bytes=copied,
        method="reflink" if shared else "copy",
        uuid=chosen,
        new_uuid=new_uuid is not False,
        journal_dirty=superblock.needs_recovery,
        locked=locked,
        seconds=time.monotonic() - started,
        notes=filled_holes_notes(new_name, hostio.allocated_bytes(found), taken),
    )


def _write_uuid(device: FileDevice, superblock: Superblock, uuid: UUID) -> None:
    """Write ``uuid`` to the primary superblock and every backup. Raises CorruptError for a backup with another UUID."""
    geometry = superblock.geometry
    for group in (0, *geometry.backup_groups):
        offset = geometry.first_block(group) * geometry.block_size if group else SUPERBLOCK_OFFSET
        data = bytearray(device.read(offset, SUPERBLOCK_SIZE))
        row = SUPERBLOCK.at(data)
        if row["s_uuid"] != superblock.uuid.bytes:
            raise CorruptError(f"backup superblock in group {group}", "s_uuid", "another", superblock.uuid)
        row["s_uuid"] = uuid.bytes
        device.write(offset, data)
