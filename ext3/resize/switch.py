"""Switch from the old geometry to the new one, the steps that have to come before it, and those that follow.

The resize inode maps blocks of the old geometry until the switch and others after it, and neither it nor the switch may be
changed by a transaction over the other. So it is dropped before, and made again afterwards; in between its blocks stay marked
as used, and belong to nobody. An interruption leaves that, and the padding of an old last group, which is safe: a check
frees them, and ``finish`` does the rest. Source: Linux ``fs/ext4/resize.c``; e2fsprogs ``resize/resize2fs.c``.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..constants import RESIZE_INO, Compat, Incompat
from ..format.block_map import pack_pointers
from ..format.geometry import Geometry
from ..format.group_desc import Groups
from ..format.resize_inode import reserved_blocks, resize_blocks, resize_record
from .transactions import Transactions

__all__ = [
    "drop_resize_inode",
    "finish_groups",
    "free_in_steps",
    "overhead_blocks",
    "reserve_places",
    "restore_resize_inode",
    "switch_geometry",
]


def drop_resize_inode(changes: Transactions, map_at: int, *, free: bool) -> None:
    """Drop the resize inode, whose map is in block ``map_at``. ``free``: free all of its blocks, for good, in the same
    transaction as far as the journal holds them."""
    old = changes.superblock.geometry
    parts = [range(map_at, map_at + 1), *reserve_places(old)]
    changes.write_inode(RESIZE_INO, bytes(old.inode_size))
    changes.set_fields(s_feature_compat=changes.superblock.compat & ~Compat.RESIZE_INODE.value, s_reserved_gdt_blocks=0)
    free_in_steps(changes, parts if free else [])


def free_in_steps(changes: Transactions, parts: Iterable[range]) -> None:
    """Free runs of blocks, each in one group, in transactions that fit the journal."""
    for part in parts:
        changes.free_run(part)
        if 2 * changes.needed > changes.batch_capacity:
            changes.commit()
    changes.commit()


def switch_geometry(changes: Transactions, old: Geometry, new: Geometry, groups: Groups) -> None:
    """Write the fields of the new geometry in one sector. ``groups``: the descriptors of all groups of ``new``.

    The padding of the old last group is nobody's until ``finish_groups``.
    """
    incompat = changes.superblock.incompat & ~Incompat.NEEDS_RECOVERY.value
    if new.first_meta_bg is not None:
        incompat |= Incompat.META_BG.value
    changes.switch(
        groups,
        leaked=len(_old_padding(old, new)),
        s_blocks_count=new.blocks,
        s_inodes_count=new.inodes,
        s_r_blocks_count=new.reserved_blocks,
        s_first_meta_bg=new.first_meta_bg or 0,
        s_feature_incompat=incompat,
    )


def finish_groups(changes: Transactions, old: Geometry, new: Geometry) -> None:
    """Free what the new geometry does not use any more: the padding of the old last group, and heads that got shorter.

    Comes after the switch, and after ``restore_resize_inode``.
    """
    parts = [_old_padding(old, new)]
    changes.leaked = 0
    for group in range(min(old.groups, new.groups)):
        first, before, after = new.first_block(group), old.head_count(group), new.head_count(group)
        if before > after:
            parts.append(range(first + after, first + before))
    free_in_steps(changes, parts)


def reserve_places(geometry: Geometry) -> list[range]:
    """Return the reserved descriptor blocks of group 0, and their places in the backup groups."""
    reserve = reserved_blocks(geometry)
    starts = [group * geometry.blocks_per_group for group in (0, *geometry.backup_groups)]
    return [range(reserve.start + start, reserve.stop + start) for start in starts]


def _old_padding(old: Geometry, new: Geometry) -> range:
    """Return the blocks that a growth adds to the old last group."""
    end = min(new.blocks, old.first_block(old.groups - 1) + old.blocks_per_group)
    return range(old.blocks, max(end, old.blocks))


def restore_resize_inode(changes: Transactions, new: Geometry, map_at: int | None) -> None:
    """Make the resize inode of ``new``, with its map in block ``map_at``, which is marked as used, as are the reserved blocks.

    Without one, only the overhead in the superblock is set.
    """
    fields: dict[str, int] = {"s_overhead_clusters": overhead_blocks(changes, new)}
    if map_at is not None:
        size = new.block_size
        # Nobody's blocks until the transaction: they are written in place before it.
        reserve = reserved_blocks(new)
        if reserve and not new.backup_groups:  # they list nothing
            changes.device.write(reserve[0] * size, bytes(len(reserve) * size))
        for first, tables in resize_blocks(new, map_at):
            changes.device.write(first * size, b"".join(map(pack_pointers, tables)))
        changes.device.sync()
        changes.write_inode(RESIZE_INO, resize_record(new, map_at, now=changes.clock()).pack())
        fields["s_feature_compat"] = changes.superblock.compat | Compat.RESIZE_INODE.value
        fields["s_reserved_gdt_blocks"] = new.reserved_gdt_blocks
    changes.set_fields(**fields)


def overhead_blocks(changes: Transactions, geometry: Geometry) -> int:
    """Return the blocks of metadata and of the journal, as mke2fs counts them."""
    journal = 0 if changes.journal is None else changes.journal.maxlen
    return geometry.blocks - geometry.free_blocks + journal
