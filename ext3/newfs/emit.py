"""Emit: writes a plan to a device in few large writes. Makes no decisions.

File data, indirect blocks, directories and inodes do not depend on each other, so a few processes share the work. The primary
superblock is written last: without it nothing takes the region for a filesystem.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from ..constants import SUPERBLOCK_OFFSET
from ..device.base import BlockDevice, FileDevice
from ..device.writeback import WriteBehind
from ..format.block_map import pack_pointers
from ..format.indirect_blocks_columns import dense_counts
from ..progress import Progress
from ..workers import MAX_JOBS, Advance, cut, parallel_map, workers_for
from .copy import DataWriter
from .free_space_writer import FreeSpaceWriter
from .inodes import InodeWriter
from .metadata import Metadata
from .plan import Plan
from .verify import Written

__all__ = ["emit"]

CACHED_BYTES = 2 << 30
"""Images of at most this much data stay in the page cache for the next reader; of larger ones only the last part does."""
WORTH_SHARING = 2000
"""Fewer small files than this are copied before a second process has started."""
READ_BACK = 1000
"""About this many directories are read back and compared."""
INDIRECT_AT_ONCE = 1024
"""Smallest number of indirect blocks in one job."""

EmitJob = Callable[[Advance], list[Written] | None]
"""Part of the work: advances by the bytes of file data it writes, and returns what to read back."""


def emit(plan: Plan, device: BlockDevice, progress: Progress, *, allow_changed: bool = False) -> list[Written]:
    """Write the whole image. Return what to read back.

    Afterwards every block the filesystem will read is written, or known to read as zero. Write-back to storage has begun; the
    caller syncs. Raises DeviceError, SourceError, ContentChangedError.
    """
    fresh = isinstance(device, FileDevice) and device.discard()
    if isinstance(device, FileDevice):
        device = WriteBehind(device, release=plan.used * plan.geometry.block_size > CACHED_BYTES)
    writer = FreeSpaceWriter(plan.space, device, plan.geometry.block_size)
    with DataWriter(plan, device, writer, allow_changed=allow_changed) as data:
        progress.phase("copy", data.total, "bytes")
        _write_journal(plan, writer, 1 if fresh else plan.stamp.journal_sequence)
        _write_group_metadata(plan, device)
        _zero_inode_tables(plan, device)
        large, small = data.jobs()
        jobs: list[EmitJob] = [*large, *_metadata_jobs(plan, device, writer), *small]  # long jobs first, short ones last
        shared = isinstance(device, WriteBehind) and len(plan.demand.small) >= WORTH_SHARING
        workers = workers_for(len(jobs)) if shared else 1
        written = parallel_map(len(jobs), lambda number, advance: jobs[number](advance), workers, progress)
    device.write(SUPERBLOCK_OFFSET, Metadata(plan).superblock())
    if isinstance(device, WriteBehind):
        device.flush()
    return [piece for pieces in written for piece in pieces or ()]


def _metadata_jobs(plan: Plan, device: BlockDevice, writer: FreeSpaceWriter) -> list[EmitJob]:
    """Return jobs that write directories, inode tables and indirect blocks, independent of each other."""
    demand = plan.demand
    single = (demand.indirect_blocks == 1) & (dense_counts(demand.data_blocks, demand.pointers) == 1)
    if demand.maps:
        single[list(demand.maps)] = False
    alone = single.nonzero()[0]
    others = ((demand.indirect_blocks > 0) & ~single).nonzero()[0]
    inodes = InodeWriter(plan)
    pieces = inodes.pieces()

    def write_inodes(some: slice, advance: Advance) -> list[Written]:
        written = []
        for first, count in pieces[some]:
            offset, rows = inodes.table(first, count)
            device.write(offset, rows)
            written.append(Written.of("inode table", offset, rows))
        return written

    def write_alone(some: slice, advance: Advance) -> None:
        writer.write_single_indirect(plan, alone[some])

    return [
        lambda advance: _write_directories(plan, writer),
        *[partial(write_inodes, some) for some in cut(len(pieces), MAX_JOBS // 8)],
        *[partial(write_alone, some) for some in cut(len(alone), MAX_JOBS // 8, least=INDIRECT_AT_ONCE)],
        lambda advance: _write_indirect_blocks(plan, writer, others),
    ]


def _write_directories(plan: Plan, writer: FreeSpaceWriter) -> list[Written]:
    """Write directories, symlink targets and attribute blocks. Return some of the directories to read back."""
    demand, block_size = plan.demand, plan.geometry.block_size
    directories = demand.directories
    data = directories.pack()
    first_of = dict(zip(directories.nodes.tolist(), directories.first.tolist(), strict=True))
    for node in (0, plan.tree.lost_found):
        begin = first_of[node] * block_size
        writer.write(int(plan.data_at[node]), data[begin : begin + int(demand.data_blocks[node]) * block_size].data)
    # The other directories have positions in the order of data, in which root and lost+found stand between them.
    begin, end = 0, directories.total
    at = plan.directories_at
    for node in sorted((0, plan.tree.lost_found), key=first_of.__getitem__):
        at += writer.write_blocks(at, data, begin, first_of[node])
        begin = first_of[node] + int(demand.data_blocks[node])
    writer.write_blocks(at, data, begin, end)
    targets = b"".join(plan.tree.targets[node].ljust(block_size, b"\0") for node in demand.slow_symlinks.tolist())
    if targets:
        writer.write(int(plan.data_at[demand.slow_symlinks[0]]), targets)
    writer.write(plan.attributes_at, b"".join(demand.attributes.blocks))
    written = []
    for row in range(0, len(directories.nodes), max(1, len(directories.nodes) // READ_BACK)):
        begin = int(directories.first[row]) * block_size
        block = plan.space.block(int(plan.data_at[directories.nodes[row]]))
        written.append(Written.of("directory block", block * block_size, data[begin : begin + block_size].tobytes()))
    return written


def _write_indirect_blocks(plan: Plan, writer: FreeSpaceWriter, nodes: npt.NDArray[np.int64]) -> None:
    for node in nodes.tolist():
        for position, rows in plan.block_map(node).pack():
            writer.write(position, rows.tobytes())


def _write_journal(plan: Plan, writer: FreeSpaceWriter, sequence: int) -> None:
    if plan.journal is None:
        return
    for position, rows in plan.journal.pack():
        writer.write(position, rows.tobytes())
    first = plan.journal_at + plan.journal.indirect
    writer.make_zero(first, plan.journal_blocks)
    writer.write(first, Metadata(plan).journal_superblock(sequence).ljust(plan.geometry.block_size, b"\0"))


def _zero_inode_tables(plan: Plan, device: BlockDevice) -> None:
    geometry = plan.geometry
    for table in geometry.columns.inode_table.tolist():
        device.make_zero(table * geometry.block_size, geometry.inode_table_blocks * geometry.block_size)


def _write_group_metadata(plan: Plan, device: BlockDevice) -> None:
    geometry = plan.geometry
    metadata = Metadata(plan)
    size = geometry.block_size
    if geometry.first_data_block:
        device.make_zero(0, size)  # the boot block
    else:
        device.make_zero(0, SUPERBLOCK_OFFSET)
    for block, rows in metadata.resize_blocks():
        device.write(block * size, b"".join(map(pack_pointers, rows)))
    for block, bits in metadata.bitmaps():
        device.write(block * size, bits)
    descriptors = metadata.descriptors().ljust(geometry.descriptor_blocks * size, b"\0")
    first = geometry.columns.group_first
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
