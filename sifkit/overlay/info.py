"""Description of an overlay image: size, state, who uses it, and whether Apptainer accepts it.

Apptainer's check of an ext3 image before any mount: magic 0xEF53; has_journal; incompat features within
filetype, needs_recovery, meta_bg; ro_compat features within sparse_super, large_file, btree_dir.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from ext3 import hostio
from ext3.constants import (
    EXT3_MAGIC,
    STATE_ERROR,
    STATE_VALID,
    SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE,
    Compat,
    Incompat,
    RoCompat,
)
from ext3.device.base import BlockDevice
from ext3.errors import Ext3Error
from ext3.format.schema import SUPERBLOCK
from ext3.format.superblock import MAX_LOG_BLOCK_SIZE, feature_names, read_superblock
from ext3.fsck.preparation import QuickLook, quick_look
from ext3.hostio import HostPath

from ..errors import FormatError, human
from ..in_use import ImageUse, image_use
from ..vfs.file_tree import FileTree, StatFS
from ..vfs.resolve import is_dir
from .images.opening import named_errors, open_ext3, open_window
from .images.window import Window, check_window
from .reserve import user_bytes

if TYPE_CHECKING:
    from ..sif import Descriptor

__all__ = ["DirectoryOwner", "ImageInfo", "JournalState", "image_info"]

LEAST_SPARE = 16 << 20
"""Bytes of free blocks that take space of the host, below which nothing is said."""
ACCEPTED_INCOMPAT = Incompat.FILETYPE | Incompat.NEEDS_RECOVERY | Incompat.META_BG
ACCEPTED_RO_COMPAT = RoCompat.SPARSE_SUPER | RoCompat.LARGE_FILE | RoCompat.BTREE_DIR


@dataclass(frozen=True, slots=True)
class DirectoryOwner:
    """Permission bits and owner of upper/ or work/."""

    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class JournalState:
    """State of the journal. ``dirty``: it holds transactions to replay. ``size_bytes`` is 0 if it cannot be read."""

    size_bytes: int
    dirty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """Description of an image. Sizes are in bytes, times in seconds since 1970 (0: never).

    ``used_bytes`` includes ``metadata_bytes`` (0 if they cannot be read) and the journal; ``available_bytes`` is what a
    container can write without root. ``state`` is "clean", "dirty" (the journal needs recovery), "not clean" (ext2 that was not
    unmounted) or "errors". ``check`` says why a check is needed, "" that none is; None: unknown, as while the image is in use.
    ``orphans``: removed files that still take space. ``readable`` False: ``problem`` says why not all can be read, and
    ``upper`` and ``work`` are unknown if they are None. ``reasons``: why Apptainer refuses the image; ``notes``: for the user.
    ``partition``: of a SIF image; ``file_bytes``, ``allocated_bytes`` and ``use`` are then those of the partition.
    """

    path: str
    file_bytes: int
    allocated_bytes: int
    features: tuple[str, ...]
    label: bytes
    uuid: UUID
    block_size: int
    inode_size: int
    groups: int
    size_bytes: int
    used_bytes: int
    metadata_bytes: int
    free_bytes: int
    reserved_bytes: int
    available_bytes: int
    inodes: int
    inodes_used: int
    inodes_free: int
    state: str
    journal: JournalState | None
    created: int
    written: int
    mounted: int
    mount_count: int
    check: str | None = None
    orphans: int = 0
    upper: DirectoryOwner | None = None
    work: DirectoryOwner | None = None
    readable: bool = True
    problem: str = ""
    use: ImageUse = field(default_factory=lambda: ImageUse("none"))
    accepted: bool = True
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    partition: Descriptor | None = None


def image_info(path: HostPath, partition: str | None = None, *, offset: int | None = None) -> ImageInfo:
    """Describe the image at ``path``, or a ``partition`` of the SIF there, without changing or locking it.

    ``partition``: "overlay" (the default for a SIF), "root" or an ID. ``offset``: byte where the filesystem begins. Images
    with other features than ext3's (ext4) are described from their superblock. Raises what ``open_window`` does, and
    NotExt3Error without a superblock.
    """
    name = os.fsdecode(path)
    with open_window(name, partition, offset=offset) as window, named_errors(name, offset):
        device = window.device()
        fields = _superblock_fields(device)
        look = _quick_look(device)
        content = _read_content(window, device)
        allocated_bytes = _allocated(window)
    use = image_use(name, span=window.span)
    counts = _counts(fields, content)
    check = None if look is None or use.busy else look.reason
    if check == "" and content.free not in (None, (counts.free_blocks, counts.free_inodes)):
        check = "the free counts are not those of the bitmaps"
    if content.free is not None:
        counts = counts._replace(free_blocks=content.free[0], free_inodes=content.free[1])
    return _description(
        fields,
        content,
        counts,
        path=name,
        window=window,
        allocated_bytes=allocated_bytes,
        use=use,
        check=check,
        orphans=0 if look is None else look.orphans,
    )


@dataclass(slots=True)
class _Content:
    """Content of a filesystem, as far as it can be read. ``free``: blocks and inodes as the bitmaps have them. ``problem``: why
    the rest is not known."""

    problem: str = ""
    totals: StatFS | None = None
    upper: DirectoryOwner | None = None
    work: DirectoryOwner | None = None
    journal_blocks: int = 0
    free: tuple[int, int] | None = None


class _Counts(NamedTuple):
    """Blocks and inodes: all, and the free ones; ``reserved``: blocks for root."""

    blocks: int
    free_blocks: int
    reserved: int
    inodes: int
    free_inodes: int


def _superblock_fields(device: BlockDevice) -> dict[str, Any]:
    """Return the fields of the superblock. Raises NotExt3Error and others that say what the file is."""
    is_whole = device.size >= SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE
    fields = SUPERBLOCK.record(device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE)) if is_whole else {}
    if fields.get("s_magic") != EXT3_MAGIC:
        read_superblock(device)
    return fields


def _read_content(window: Window, device: BlockDevice) -> _Content:
    content = _Content()
    try:
        check_window(window)
        with open_ext3(device) as image:
            content.totals = image.tree.statfs()
            content.upper = _directory(image.tree, b"upper")
            content.work = _directory(image.tree, b"work")
            content.journal_blocks = image.journal_blocks()
            content.free = image.count_free()
    except (Ext3Error, FormatError) as error:
        content.problem = str(error)
    return content


def _counts(fields: dict[str, Any], content: _Content) -> _Counts:
    """Return the counts of the group descriptors; those of the superblock if the filesystem cannot be read."""
    blocks, inodes, totals = fields["s_blocks_count"], fields["s_inodes_count"], content.totals
    reserved = min(fields["s_r_blocks_count"], blocks)
    if totals is None:
        free = min(fields["s_free_blocks_count"], blocks), min(fields["s_free_inodes_count"], inodes)
    else:
        free = totals.free_bytes // _block_size(fields), totals.free_inodes
    return _Counts(blocks, free[0], reserved, inodes, free[1])


def _block_size(fields: dict[str, Any]) -> int:
    return 1024 << min(int(fields["s_log_block_size"]), MAX_LOG_BLOCK_SIZE)


def _quick_look(device: BlockDevice) -> QuickLook | None:
    try:
        return quick_look(device)
    except Ext3Error:
        return None


def _allocated(window: Window) -> int:
    """Bytes on disk: of a file as the filesystem counts them, of a partition what is no hole."""
    found = os.fstat(window.fd)
    if not stat.S_ISREG(found.st_mode):
        return window.size
    if window.size == found.st_size:
        blocks: int = getattr(found, "st_blocks", -(-window.size // 512))
        return blocks * 512
    data = sum(size for _, size in hostio.data_ranges(window.fd, window.offset, window.size))
    return min(data, hostio.allocated_bytes(found))  # some network filesystems do not tell where the holes are


def _description(
    fields: dict[str, Any],
    content: _Content,
    counts: _Counts,
    *,
    path: str,
    window: Window,
    allocated_bytes: int,
    use: ImageUse,
    check: str | None,
    orphans: int,
) -> ImageInfo:
    blocks, per_group, block_size = counts.blocks, fields["s_blocks_per_group"], _block_size(fields)
    compat, incompat, ro_compat = (fields[f"s_feature_{word}"] for word in ("compat", "incompat", "ro_compat"))
    state = _state(fields)
    journal_bytes = min(content.journal_blocks, blocks) * block_size
    used_bytes = (blocks - counts.free_blocks) * block_size
    reasons = _reasons(compat, incompat, ro_compat)
    if blocks * block_size > window.size:
        reasons.append(f"the {'file' if window.partition is None else 'partition'} is shorter than its filesystem")
    reasons += window.reasons
    notes = _notes(content, use, state, counts.reserved, check)
    if not content.problem:
        notes += _trim_note(allocated_bytes - used_bytes, used_bytes)
    return ImageInfo(
        path=path,
        file_bytes=window.size,
        allocated_bytes=allocated_bytes,
        features=(
            *feature_names("compat", compat),
            *feature_names("incompat", incompat),
            *feature_names("ro_compat", ro_compat),
        ),
        label=fields["s_volume_name"].partition(b"\0")[0],
        uuid=UUID(bytes=fields["s_uuid"]),
        block_size=block_size,
        inode_size=fields["s_inode_size"] if fields["s_rev_level"] else 128,
        groups=-(-(blocks - fields["s_first_data_block"]) // per_group) if per_group and blocks else 0,
        size_bytes=blocks * block_size,
        used_bytes=used_bytes,
        metadata_bytes=0 if content.totals is None else content.totals.metadata_bytes,
        free_bytes=counts.free_blocks * block_size,
        reserved_bytes=counts.reserved * block_size,
        available_bytes=user_bytes(blocks=blocks, free=counts.free_blocks, reserved=counts.reserved, block_size=block_size),
        inodes=counts.inodes,
        inodes_used=counts.inodes - counts.free_inodes,
        inodes_free=counts.free_inodes,
        state=state,
        journal=JournalState(journal_bytes, bool(incompat & Incompat.NEEDS_RECOVERY)) if compat & Compat.HAS_JOURNAL else None,
        created=fields["s_mkfs_time"],
        written=fields["s_wtime"],
        mounted=fields["s_mtime"],
        mount_count=fields["s_mnt_count"],
        check=check,
        orphans=orphans,
        upper=content.upper,
        work=content.work,
        readable=not content.problem,
        problem=content.problem,
        use=use,
        accepted=not reasons,
        reasons=tuple(reasons),
        notes=tuple(notes),
        partition=window.partition,
    )


def _state(fields: dict[str, Any]) -> str:
    """Return the state of a filesystem, as of ImageInfo."""
    if fields["s_state"] & STATE_ERROR:
        return "errors"
    if fields["s_feature_incompat"] & Incompat.NEEDS_RECOVERY:
        return "dirty"
    return "clean" if fields["s_state"] & STATE_VALID else "not clean"


def _reasons(compat: int, incompat: int, ro_compat: int) -> list[str]:
    """Return the reasons for which Apptainer refuses these features, none if it accepts them."""
    reasons = []
    if not compat & Compat.HAS_JOURNAL:
        reasons.append("it has no journal (has_journal)")
    unknown = (
        *feature_names("incompat", incompat & ~ACCEPTED_INCOMPAT.value),
        *feature_names("ro_compat", ro_compat & ~ACCEPTED_RO_COMPAT.value),
    )
    if unknown:
        reasons.append(f"it has features that are not ext3: {', '.join(unknown)}")
    return reasons


def _notes(content: _Content, use: ImageUse, state: str, reserved_blocks: int, check: str | None) -> list[str]:
    notes = []
    if not content.problem and content.upper is None:
        notes.append("there is no upper/: read-only use (:ro) fails, writable use must create it")
    if not reserved_blocks:
        notes.append(
            "no block is reserved for root: Apptainer without root keeps 10 % of the image free then;"
            " to use it: sifkit overlay tune --reserved-blocks 1"
        )
    if state == "dirty" and use.written:
        notes.append("the journal is in use: recent writes of the container may not be visible yet")
    elif state == "dirty":
        notes.append(
            "the journal is not empty: before sharing it :ro, use the image writable once, or replay it with: sifkit overlay"
            " fsck -p"
        )
    elif state == "not clean" and use.busy:
        notes.append(f"in use: {use.describe()}; not clean is normal while it is mounted")
    elif check:
        notes.append("the filesystem needs a check before use: sifkit overlay fsck -p")
    return notes


def _trim_note(spare: int, used_bytes: int) -> list[str]:
    """Return a note if an image takes much more of the host than its blocks in use: ``spare`` bytes."""
    if spare < max(LEAST_SPARE, used_bytes // 8):
        return []
    return [f"{human(spare)} on disk are of free blocks: to give them back to the host: sifkit overlay trim"]


def _directory(tree: FileTree[int], name: bytes) -> DirectoryOwner | None:
    node = tree.find_name(tree.root, name)
    found = None if node is None else tree.stat(node)
    return DirectoryOwner(found.mode & 0o7777, found.uid, found.gid) if found is not None and is_dir(found) else None
