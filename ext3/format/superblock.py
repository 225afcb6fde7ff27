"""Superblock: found, recognised, decoded and judged.

``superblock_violations`` lists what contradicts the format in the numbers that reading depends on, ``limit_violations`` what
does in others; the readers raise the first of the former.

Sources: Linux ``fs/ext4/ext4.h`` and the checks of ``fs/ext4/super.c``; e2fsprogs ``lib/ext2fs/openfs.c``; feature names
as dumpe2fs prints them (``lib/e2p/feature.c``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ..constants import (
    EXT3_COMPAT,
    EXT3_INCOMPAT,
    EXT3_MAGIC,
    EXT3_RO_COMPAT,
    FEATURE_NAMES,
    FIRST_INO,
    MAX_BLOCK_SIZE,
    MIN_BLOCK_SIZE,
    MIN_INODE_SIZE,
    SECTOR,
    STATE_VALID,
    SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE,
    Compat,
    Incompat,
    RoCompat,
)
from ..device.base import BlockDevice
from ..errors import CorruptError, NotExt3Error, UnsupportedError
from .geometry import Geometry, first_data_block, group_count
from .layout import Record
from .other_formats import guess_backup, guess_format
from .schema import SUPERBLOCK
from .violation import Violation

if TYPE_CHECKING:
    from uuid import UUID

__all__ = [
    "Superblock",
    "feature_names",
    "limit_violations",
    "parse_superblock",
    "read_superblock",
    "set_needs_recovery",
    "superblock_violations",
    "write_superblock",
]

MAX_LOG_BLOCK_SIZE = 6
"""Largest s_log_block_size of the format, 64 KiB; this package reads up to MAX_BLOCK_SIZE."""
MAX_DESC_SIZE = 1024
"""Largest size of a group descriptor, with features that are not ext3's."""
MAX_GROUPS = 1 << 22
"""Most groups supported (128 MiB of descriptors), eight times those of the largest ext3 that mke2fs makes by default."""


class Superblock(NamedTuple):
    """Decoded superblock. Counts are in blocks or inodes, times in seconds since 1970 (0 = never), sizes in bytes.

    ``geometry``: the fixed layout.
    """

    geometry: Geometry
    free_blocks: int
    free_inodes: int
    first_ino: int
    revision: int
    state: int
    errors: int
    compat: int
    incompat: int
    ro_compat: int
    features: tuple[str, ...]
    label: bytes
    uuid_bytes: bytes
    last_mounted: bytes
    creator_os: int
    group_number: int
    mount_time: int
    write_time: int
    mkfs_time: int
    check_time: int
    check_interval: int
    mount_count: int
    max_mount_count: int
    reserved_uid: int
    reserved_gid: int
    journal_ino: int
    journal_dev: int
    journal_uuid_bytes: bytes
    journal_backup_type: int
    journal_backup: tuple[int, ...]
    last_orphan: int
    hash_seed: tuple[int, ...]
    hash_version: int
    flags: int
    default_mount_opts: int
    min_extra_isize: int
    want_extra_isize: int
    overhead_blocks: int

    @property
    def uuid(self) -> UUID:
        return _uuid(self.uuid_bytes)

    @property
    def journal_uuid(self) -> UUID:
        """That of the device of a journal outside; all zeros without one."""
        return _uuid(self.journal_uuid_bytes)

    @property
    def block_size(self) -> int:
        return self.geometry.block_size

    @property
    def blocks_count(self) -> int:
        return self.geometry.blocks

    @property
    def reserved_blocks(self) -> int:
        return self.geometry.reserved_blocks

    @property
    def inodes_count(self) -> int:
        return self.geometry.inodes

    @property
    def first_data_block(self) -> int:
        return self.geometry.first_data_block

    @property
    def blocks_per_group(self) -> int:
        return self.geometry.blocks_per_group

    @property
    def inodes_per_group(self) -> int:
        return self.geometry.inodes_per_group

    @property
    def groups_count(self) -> int:
        return self.geometry.groups

    @property
    def inode_size(self) -> int:
        return self.geometry.inode_size

    @property
    def reserved_gdt_blocks(self) -> int:
        return self.geometry.reserved_gdt_blocks

    @property
    def size_bytes(self) -> int:
        return self.geometry.size_bytes

    @property
    def has_journal(self) -> bool:
        return bool(self.compat & Compat.HAS_JOURNAL)

    @property
    def has_filetype(self) -> bool:
        return bool(self.incompat & Incompat.FILETYPE)

    @property
    def needs_recovery(self) -> bool:
        """The journal must be replayed first: what is read without it may be old or inconsistent."""
        return bool(self.incompat & Incompat.NEEDS_RECOVERY)

    @property
    def clean(self) -> bool:
        """True if it was unmounted cleanly and has no known errors."""
        return self.state == STATE_VALID and not self.needs_recovery

    @property
    def unsupported_features(self) -> tuple[str, ...]:
        """Names of the features that are not ext3. An image that can be opened has only such as do not affect reading."""
        return (
            *feature_names("compat", self.compat & ~EXT3_COMPAT.value),
            *feature_names("incompat", self.incompat & ~EXT3_INCOMPAT.value),
            *feature_names("ro_compat", self.ro_compat & ~EXT3_RO_COMPAT.value),
        )


def feature_names(word: str, bits: int) -> tuple[str, ...]:
    """Return the names of the bits set in a feature word (``compat``, ``incompat``, ``ro_compat``), as dumpe2fs has them."""
    letter = {"compat": "C", "incompat": "I", "ro_compat": "R"}[word]
    return tuple(FEATURE_NAMES.get((word, 1 << bit), f"FEATURE_{letter}{bit}") for bit in range(32) if bits >> bit & 1)


def read_superblock(device: BlockDevice, *, block: int = 0, block_size: int = 0) -> Superblock:
    """Return the primary superblock of ``device``, or the copy that is said to lie in ``block``, in blocks of ``block_size``.

    Raises NotExt3Error, UnsupportedError, CorruptError, DeviceError.
    """
    offset = block * block_size if block else SUPERBLOCK_OFFSET
    if device.size < offset + SUPERBLOCK_SIZE:
        count = "1 byte is" if device.size == 1 else f"{device.size} bytes are"
        raise NotExt3Error(f"no ext3 filesystem: {count} too few for one", hint=guess_format(device))
    raw = device.read(offset, SUPERBLOCK_SIZE)
    if SUPERBLOCK.record(raw)["s_magic"] != EXT3_MAGIC:
        what = guess_format(device)
        backup = guess_backup(device)
        raise NotExt3Error(f"no ext3 filesystem: there is no superblock at byte {offset}", hint=what, backup=backup)
    superblock = parse_superblock(raw, device_size=device.size)
    if block and superblock.block_size != block_size:
        raise CorruptError(f"superblock at byte {offset}", "block size", superblock.block_size, block_size)
    return superblock


def write_superblock(device: BlockDevice, raw: bytes | bytearray) -> None:
    """Write the first sector of the primary superblock, which holds all fields that change."""
    device.write(SUPERBLOCK_OFFSET, bytes(raw[:SECTOR]))


def set_needs_recovery(row: Record, needed: bool) -> None:
    """Set or clear needs_recovery in a superblock."""
    others = row["s_feature_incompat"] & ~Incompat.NEEDS_RECOVERY.value
    row["s_feature_incompat"] = others | (Incompat.NEEDS_RECOVERY.value if needed else 0)


def parse_superblock(raw: bytes, *, device_size: int) -> Superblock:
    """Decode ``raw``, the 1024 bytes of a superblock with a valid magic, on a device of ``device_size`` bytes.

    Raise UnsupportedError if features forbid reading (an incompat bit, or cluster allocation), CorruptError if the numbers
    contradict each other or the device. The result has at most MAX_GROUPS groups, all inside the device.
    """
    fields = SUPERBLOCK.record(raw)
    compat, incompat, ro_compat = (fields[f"s_feature_{word}"] for word in ("compat", "incompat", "ro_compat"))
    _check_features(incompat, ro_compat)
    block_size = MIN_BLOCK_SIZE << min(fields["s_log_block_size"], MAX_LOG_BLOCK_SIZE + 1)
    if MAX_BLOCK_SIZE < block_size <= MIN_BLOCK_SIZE << MAX_LOG_BLOCK_SIZE:
        raise UnsupportedError([f"blocks of {block_size} bytes"], hint=f"blocks of up to {MAX_BLOCK_SIZE} bytes are read")
    for violation in _layout_violations(fields, device_size):
        raise violation.error
    revision = fields["s_rev_level"]
    inode_size = fields["s_inode_size"] if revision else MIN_INODE_SIZE
    geometry = Geometry(
        block_size=block_size,
        blocks=fields["s_blocks_count"],
        first_data_block=fields["s_first_data_block"],
        blocks_per_group=fields["s_blocks_per_group"],
        inodes_per_group=fields["s_inodes_per_group"],
        inode_size=inode_size,
        reserved_gdt_blocks=fields["s_reserved_gdt_blocks"],
        reserved_blocks=fields["s_r_blocks_count"],
        resize_inode=bool(compat & Compat.RESIZE_INODE),
        sparse_super=bool(ro_compat & RoCompat.SPARSE_SUPER),
        first_meta_bg=fields["s_first_meta_bg"] if incompat & Incompat.META_BG else None,
    )
    if geometry.groups > MAX_GROUPS:
        raise UnsupportedError([f"{geometry.groups} block groups"], hint=f"up to {MAX_GROUPS} are read")
    if fields["s_inodes_count"] != geometry.inodes:
        raise CorruptError("superblock", "s_inodes_count", fields["s_inodes_count"], geometry.inodes)
    return Superblock(
        geometry=geometry,
        free_blocks=fields["s_free_blocks_count"],
        free_inodes=fields["s_free_inodes_count"],
        first_ino=fields["s_first_ino"] if revision else FIRST_INO,
        revision=revision,
        state=fields["s_state"],
        errors=fields["s_errors"],
        compat=compat,
        incompat=incompat,
        ro_compat=ro_compat,
        features=(
            *feature_names("compat", compat),
            *feature_names("incompat", incompat),
            *feature_names("ro_compat", ro_compat),
        ),
        label=_text(fields["s_volume_name"]),
        uuid_bytes=fields["s_uuid"],
        last_mounted=_text(fields["s_last_mounted"]),
        creator_os=fields["s_creator_os"],
        group_number=fields["s_block_group_nr"],
        mount_time=fields["s_mtime"],
        write_time=fields["s_wtime"],
        mkfs_time=fields["s_mkfs_time"],
        check_time=fields["s_lastcheck"],
        check_interval=fields["s_checkinterval"],
        mount_count=fields["s_mnt_count"],
        max_mount_count=fields["s_max_mnt_count"],
        reserved_uid=fields["s_def_resuid"],
        reserved_gid=fields["s_def_resgid"],
        journal_ino=fields["s_journal_inum"],
        journal_dev=fields["s_journal_dev"],
        journal_uuid_bytes=fields["s_journal_uuid"],
        journal_backup_type=fields["s_jnl_backup_type"],
        journal_backup=tuple(fields["s_jnl_blocks"]),
        last_orphan=fields["s_last_orphan"],
        hash_seed=tuple(fields["s_hash_seed"]),
        hash_version=fields["s_def_hash_version"],
        flags=fields["s_flags"],
        default_mount_opts=fields["s_default_mount_opts"],
        min_extra_isize=fields["s_min_extra_isize"],
        want_extra_isize=fields["s_want_extra_isize"],
        overhead_blocks=fields["s_overhead_clusters"],
    )


def _uuid(value: bytes) -> UUID:
    from uuid import UUID  # loading it opens four more files, and few ask for one

    return UUID(bytes=value)


def _text(value: bytes) -> bytes:
    return value.partition(b"\0")[0]


def superblock_violations(raw: bytes | bytearray, *, device_size: int) -> Iterator[Violation]:
    """Yield the violations for which ``parse_superblock`` raises CorruptError, up to one that voids the rest."""
    fields = SUPERBLOCK.record(raw)
    sound = True
    for violation in _layout_violations(fields, device_size):
        sound = False
        yield violation
    if sound:
        per_group = fields["s_inodes_per_group"]
        groups = group_count(fields["s_blocks_count"], fields["s_first_data_block"], fields["s_blocks_per_group"])
        inodes = fields["s_inodes_count"]
        if inodes != per_group * groups:
            yield Violation("superblock", "s_inodes_count", inodes, per_group * groups)


def _layout_violations(fields: dict[str, Any], device_size: int) -> Iterator[Violation]:
    """Yield what is wrong with the numbers that the geometry is made of."""

    def wrong(field: str, want: object) -> Violation:
        return Violation("superblock", field, fields[field], want)

    if fields["s_log_block_size"] > MAX_LOG_BLOCK_SIZE:
        yield wrong("s_log_block_size", f"<= {MAX_LOG_BLOCK_SIZE}")
        return
    block_size = MIN_BLOCK_SIZE << fields["s_log_block_size"]
    inode_size = fields["s_inode_size"] if fields["s_rev_level"] else MIN_INODE_SIZE
    if inode_size & (inode_size - 1) or not MIN_INODE_SIZE <= inode_size <= block_size:
        yield wrong("s_inode_size", f"a power of two from {MIN_INODE_SIZE} to {block_size}")
    first, blocks = first_data_block(block_size), fields["s_blocks_count"]
    if fields["s_first_data_block"] != first:
        yield wrong("s_first_data_block", first)
    if blocks <= first:
        yield wrong("s_blocks_count", f"> {first}")
    if blocks > (held := device_size // block_size):
        yield wrong("s_blocks_count", f"<= {held}, what the image holds (is it cut short?)")
    if not 8 <= fields["s_blocks_per_group"] <= 8 * block_size:
        yield wrong("s_blocks_per_group", f"from 8 to {8 * block_size}")
    if not 0 < fields["s_inodes_per_group"] <= 8 * block_size:
        yield wrong("s_inodes_per_group", f"from 1 to {8 * block_size}")


def limit_violations(raw: bytes | bytearray) -> Iterator[Violation]:
    """Yield the values beyond their limits in a superblock that can be parsed. Source: e2fsprogs ``e2fsck/super.c``."""
    fields = SUPERBLOCK.record(raw)
    block_size = MIN_BLOCK_SIZE << fields["s_log_block_size"]
    blocks, inodes = fields["s_blocks_count"], fields["s_inodes_count"]
    for field, low, high in (
        ("s_r_blocks_count", 0, blocks // 2),
        ("s_reserved_gdt_blocks", 0, block_size // 4),
        ("s_rev_level", 0, 1),
        ("s_log_groups_per_flex", 0, 31),
        ("s_first_ino", FIRST_INO if fields["s_rev_level"] else 0, inodes if fields["s_rev_level"] else (1 << 32) - 1),
    ):
        if not low <= fields[field] <= high:
            yield Violation("superblock", field, fields[field], f"from {low} to {high}")
    if fields["s_desc_size"] & (fields["s_desc_size"] - 1) or fields["s_desc_size"] > MAX_DESC_SIZE:
        yield Violation("superblock", "s_desc_size", fields["s_desc_size"], 0)
    # Fragments, which nothing ever had, are as large as blocks.
    for field, same in (("s_log_frag_size", "s_log_block_size"), ("s_frags_per_group", "s_blocks_per_group")):
        if fields[field] != fields[same]:
            yield Violation("superblock", field, fields[field], fields[same])


def _check_features(incompat: int, ro_compat: int) -> None:
    """Raise UnsupportedError for features that forbid reading.

    Unknown ro_compat bits do not, but clusters change what a bit of a bitmap means.
    """
    unread = incompat & ~EXT3_INCOMPAT.value
    strange = ro_compat & ~EXT3_RO_COMPAT.value
    if not unread and not strange & RoCompat.BIGALLOC:
        return
    hint = ""
    if unread & Incompat.JOURNAL_DEV:
        hint = "this is the journal of another filesystem"
    elif unread & (Incompat.EXTENTS | Incompat.BIT64 | Incompat.FLEX_BG):
        hint = "this is an ext4 filesystem; only ext2 and ext3 are read (mke2fs -t ext3 makes one)"
    raise UnsupportedError([*feature_names("incompat", unread), *feature_names("ro_compat", strange)], hint=hint)
