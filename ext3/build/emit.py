"""Emit: write a plan to a device, in few large writes. Nothing is decided here.

Order: file data first (a file that changed is noticed while the inodes can still follow it), then what points at it,
the primary superblock last: before it is there, nobody takes the region for a filesystem.
"""

from __future__ import annotations

from ..constants import SUPERBLOCK_OFFSET
from ..device import BlockDevice, FileDevice
from .copy import DataWriter
from .inodes import InodeWriter
from .line import LineWriter
from .mapping import indirect_counts
from .metadata import Metadata
from .plan import Plan
from .progress import Progress

__all__ = ["emit"]


def emit(plan: Plan, device: BlockDevice, progress: Progress, *, allow_changed: bool = False) -> None:
    """Write the whole image. Every block the filesystem will read is written, or known to read as zero, afterwards;
    the device is synced. Raises DeviceError, SourceError, ContentChangedError."""
    fresh = isinstance(device, FileDevice) and device.discard()
    line = LineWriter(plan.space, device, plan.geometry.block_size)
    _write_content_metadata(plan, line)
    DataWriter(plan, device, line, progress, allow_changed=allow_changed).run()
    progress.phase("write inodes", None, "files")
    _write_journal(plan, line, 1 if fresh else plan.stamp.journal_sequence)
    _write_inode_tables(plan, device)
    _write_group_metadata(plan, device)
    device.write(SUPERBLOCK_OFFSET, Metadata(plan).superblock())
    device.sync()


def _write_content_metadata(plan: Plan, line: LineWriter) -> None:
    """Directories, symlink targets, attribute blocks and indirect blocks."""
    demand, block_size = plan.demand, plan.geometry.block_size
    directories = demand.directories
    first_of = dict(zip(directories.nodes.tolist(), directories.first.tolist(), strict=True))
    for node in (0, plan.tree.lost_found):
        begin = first_of[node] * block_size
        line.write(int(plan.data_at[node]), directories.data[begin : begin + int(demand.data_blocks[node]) * block_size].data)
    # The other directories lie on the line as they lie in data; root and lost+found interrupt them there.
    begin, end = 0, len(directories.data) // block_size
    at = plan.directories_at
    for node in sorted((0, plan.tree.lost_found), key=first_of.__getitem__):
        at += line.write_blocks(at, directories.data, begin, first_of[node])
        begin = first_of[node] + int(demand.data_blocks[node])
    line.write_blocks(at, directories.data, begin, end)
    targets = b"".join(plan.tree.targets[node].ljust(block_size, b"\0") for node in demand.slow_symlinks.tolist())
    if targets:
        line.write(int(plan.data_at[demand.slow_symlinks[0]]), targets)
    line.write(plan.attributes_at, b"".join(demand.attributes.blocks))
    _write_indirect_blocks(plan, line)


def _write_indirect_blocks(plan: Plan, line: LineWriter) -> None:
    demand = plan.demand
    single = (demand.indirect_blocks == 1) & (indirect_counts(demand.data_blocks, demand.pointers) == 1)
    if demand.maps:
        single[list(demand.maps)] = False
    line.write_single_indirect(plan, single.nonzero()[0])
    others = ((demand.indirect_blocks > 0) & ~single).nonzero()[0]
    for node in others.tolist():
        for position, rows in plan.block_map(node).blocks(plan.space, int(plan.indirect_at[node])):
            line.write(position, rows.tobytes())


def _write_journal(plan: Plan, line: LineWriter, sequence: int) -> None:
    if plan.journal is None:
        return
    for position, rows in plan.journal.blocks(plan.space, plan.journal_at):
        line.write(position, rows.tobytes())
    first = plan.journal_at + plan.journal.indirect
    line.make_zero(first, plan.journal_blocks)
    line.write(first, Metadata(plan).journal_superblock(sequence).ljust(plan.geometry.block_size, b"\0"))


def _write_inode_tables(plan: Plan, device: BlockDevice) -> None:
    geometry = plan.geometry
    tables = geometry.inode_table.tolist()
    size = geometry.inode_table_blocks * geometry.block_size
    for table in tables:
        device.make_zero(table * geometry.block_size, size)
    for offset, data in InodeWriter(plan).tables():
        device.write(offset, data)


def _write_group_metadata(plan: Plan, device: BlockDevice) -> None:
    geometry = plan.geometry
    metadata = Metadata(plan)
    size = geometry.block_size
    if geometry.first_data_block:
        device.make_zero(0, size)  # the boot block
    else:
        device.make_zero(0, SUPERBLOCK_OFFSET)
    for block, rows in metadata.resize_blocks():
        device.write(block * size, rows.tobytes())
    for block, bits in metadata.bitmaps():
        device.write(block * size, bits)
    descriptors = metadata.descriptors().ljust(geometry.descriptor_blocks * size, b"\0")
    first = geometry.group_first
    for group in geometry.backup_groups:
        begin = int(first[group]) * size
        device.write(begin, metadata.superblock(group).ljust(size, b"\0") + descriptors)
        device.make_zero(begin + size + len(descriptors), geometry.reserved_gdt_blocks * size)
    begin = (geometry.first_data_block + 1) * size
    device.write(begin, descriptors)
    if not geometry.first_data_block:
        device.make_zero(2 * SUPERBLOCK_OFFSET, size - 2 * SUPERBLOCK_OFFSET)
    if not geometry.backup_groups:
        device.make_zero(begin + len(descriptors), geometry.reserved_gdt_blocks * size)
