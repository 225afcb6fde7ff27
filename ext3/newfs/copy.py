"""File data of a new image: small files through one buffer, large ones in the kernel if possible.

Small files are at consecutive positions, so a buffer full of them is one write (split at group metadata). Large files and
files with holes are copied in pieces with copy_file_range, which shares blocks on filesystems with reflinks (btrfs, XFS),
and otherwise through the buffer.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

from .. import hostio
from ..device.base import BlockDevice
from ..device.writeback import WriteBehind
from ..errors import ContentChangedError
from ..workers import MAX_JOBS, Advance, Job, Threads, WaitMeter, cut
from .content import ContentFile
from .free_space_writer import FreeSpaceWriter
from .node import Segment
from .plan import Plan

__all__ = ["DataWriter"]

BUFFER_BYTES = 1 << 20
SMALL_COST = 16 << 10
"""Cost of opening and closing a small file, in bytes copied in the same time."""

Array64 = npt.NDArray[np.int64]


class DataWriter:
    """Copier of the data of a plan's regular files; a context manager that ends the threads it reads with if reads wait."""

    def __init__(self, plan: Plan, device: BlockDevice, writer: FreeSpaceWriter, *, allow_changed: bool) -> None:
        self.plan = plan
        self.device = device
        self.writer = writer
        self.allow_changed = allow_changed
        self._advance: Advance = lambda count: None
        self._buffer = bytearray(BUFFER_BYTES)
        self._meter = WaitMeter()
        self._threads: Threads[tuple[int, memoryview], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads is not None:
            self._threads.close()

    @property
    def total(self) -> int:
        """Bytes to copy, the approximate total of the progress (small files count in whole blocks)."""
        demand = self.plan.demand
        return int(self.plan.tree.nodes["size"][demand.small].sum()) + sum(map(self._data_bytes, demand.large.tolist()))

    def jobs(self) -> tuple[list[Job], list[Job]]:
        """Return independent jobs for large files and for small ones. They raise DeviceError, SourceError,
        ContentChangedError."""
        demand = self.plan.demand
        bounds = self._cut_small(self.plan.tree.nodes["size"][demand.small], MAX_JOBS // 4)
        return (
            [partial(self._copy_all_large, demand.large[piece]) for piece in cut(len(demand.large), MAX_JOBS // 4)],
            [partial(self._copy_small, demand.small[low:high]) for low, high in pairwise(bounds)],
        )

    def _copy_all_large(self, nodes: Array64, advance: Advance) -> None:
        self._advance = advance
        for node in nodes.tolist():
            self._copy_large(node)

    def _cut_small(self, sizes: Array64, most: int) -> list[int]:
        """Return the bounds of at most ``most`` jobs of about equal work among the small files."""
        if not len(sizes):
            return [0]
        cost = np.cumsum(sizes + SMALL_COST)
        count = int(min(most, max(1, cost[-1] // BUFFER_BYTES)))
        inner = np.searchsorted(cost, cost[-1] * np.arange(1, count) // count)
        return [0, *sorted(set(inner.tolist()) - {0}), len(cost)]

    def _data_bytes(self, node: int) -> int:
        segments = self.plan.tree.segments.get(node)
        return int(self.plan.tree.nodes["size"][node]) if segments is None else sum(length for _, length, _ in segments)

    def _copy_small(self, small: Array64, advance: Advance) -> None:
        """Copy files of consecutive blocks through the buffer."""
        self._advance = advance
        plan, block_size = self.plan, self.plan.geometry.block_size
        sizes = plan.tree.nodes["size"][small].tolist()
        read_whole = plan.tree.content.read_whole
        view = memoryview(self._buffer)
        position = int(plan.data_at[small[0]])
        zeros = bytes(block_size)
        fill = files = 0
        self._meter.start()
        for node, size in zip(small.tolist(), sizes, strict=True):
            end = fill + size
            padded = -(-end // block_size) * block_size
            if padded > BUFFER_BYTES:
                self._flush(position, view[:fill], files)
                position += fill // block_size
                end, padded = size, -(-size // block_size) * block_size
                fill = files = 0
            if self._threads is None:
                read_whole(node, view[fill:end])
            else:
                self._threads.put((node, view[fill:end]))
            view[end:padded] = zeros[: padded - end]
            fill = padded
            files += 1
        if fill:
            self._flush(position, view[:fill], files)

    def _flush(self, position: int, data: memoryview, files: int) -> None:
        """Write ``data``, that of ``files`` small files, at ``position`` once it is read."""
        if self._threads is not None:
            for _ in range(files):
                self._threads.get()
        else:
            self._meter.count(files)
            if self._meter.waits:
                read_whole = self.plan.tree.content.read_whole
                self._threads = Threads(lambda part: read_whole(*part))
        self.writer.write(position, data)
        self._meter.start()
        self._advance(len(data))

    def _copy_large(self, node: int) -> None:
        tree = self.plan.tree
        size = int(tree.nodes["size"][node])
        segments = tree.segments.get(node, ((0, size, 0),))
        with tree.content.open(node) as file:
            for _ in range(2):
                self._zero_edges(node)
                whole = [self._copy_segment(node, file, segment) for segment in segments]
                if not file.changed() and all(whole):
                    return
                if self.allow_changed:
                    return
                if node in tree.segments:
                    break  # its holes may have changed, but its blocks are planned
        raise ContentChangedError(
            tree.path(node),
            "changed while it was read" + ("" if node in tree.segments else ", twice"),
        )

    def _runs(self, node: int, offset: int, length: int) -> list[tuple[int, int, int]]:
        """Return (offset in the image, offset in the file, length) of each contiguous piece of a byte range of a file."""
        block_size = self.plan.geometry.block_size
        relative = self.plan.demand.maps.get(node)
        at = int(self.plan.data_at[node])
        logical, skipped, _ = (0, 0, 0) if relative is None else _containing(relative, offset // block_size)
        first = offset // block_size
        pieces = []
        end = offset + length
        for position, block, count in self.plan.space.runs(at + skipped + first - logical, -(-end // block_size) - first):
            begin = (first + position - (at + skipped + first - logical)) * block_size
            low, high = max(begin, offset), min(begin + count * block_size, end)
            pieces.append((block * block_size + low - begin, low, high - low))
        return pieces

    def _zero_edges(self, node: int) -> None:
        """Zero the rest of each segment's first and last block."""
        block_size = self.plan.geometry.block_size
        for offset, length, _ in self.plan.tree.segments.get(node, ((0, int(self.plan.tree.nodes["size"][node]), 0),)):
            for edge in {offset, offset + length}:
                if edge % block_size:
                    (begin, _, _), *_rest = self._runs(node, edge // block_size * block_size, block_size)
                    self.device.make_zero(begin, block_size)

    def _copy_segment(self, node: int, file: ContentFile, segment: Segment) -> bool:
        """Copy one segment. Return False if the source ended early (the rest is then zero)."""
        offset, length, source = segment
        for image_at, file_at, size in self._runs(node, offset, length):
            if not self._copy_piece(file, source + file_at - offset, image_at, size):
                return False
        return True

    def _copy_piece(self, file: ContentFile, source: int, target: int, size: int) -> bool:
        device = self.device
        in_kernel = True
        while size:
            done = 0
            if in_kernel and file.fd is not None and isinstance(device, WriteBehind):
                done = self._in_kernel(file.fd, source, device, target, size)
            if not done:
                in_kernel = False
                view = memoryview(self._buffer)[: min(size, BUFFER_BYTES)]
                done = file.read_into(view, source)
                device.write(target, view[:done])
            if not done:
                device.make_zero(target, size)
                return False
            self._advance(done)
            source, target, size = source + done, target + done, size - done
        return True

    def _in_kernel(self, fd: int, source: int, device: WriteBehind, target: int, size: int) -> int:
        """Copy in the kernel. Return the bytes copied, 0 if it cannot. Does not use sendfile: the copying processes share the
        image's position."""
        file = device.device
        try:
            done = hostio.copy_range(fd, source, file.fd, file.offset + target, size)
        except OSError as error:
            raise file.write_failed(target, error) from error
        if done:
            device.wrote(target, done)
        return done


def _containing(extents: list[tuple[int, int, int]], block: int) -> tuple[int, int, int]:
    """Return the extent (sorted by logical block) that contains logical block ``block``."""
    low, high = 0, len(extents)
    while high - low > 1:
        middle = (low + high) // 2
        if extents[middle][0] <= block:
            low = middle
        else:
            high = middle
    return extents[low]
