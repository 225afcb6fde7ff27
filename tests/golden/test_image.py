"""Golden bytes: a fixed tree under a fixed stamp gives these very bytes, on every host and with every number of processes.

A change here is a change of what is written: it must be meant, and checked with e2fsck and the kernel first.
"""

from __future__ import annotations

import hashlib
import uuid

import pytest

import ext3
from ext3.device.base import MemoryDevice

STAMP = ext3.Stamp(1_700_000_000, uuid.UUID(int=0x0123456789ABCDEF).bytes, uuid.UUID(int=0xFEDCBA9876543210).bytes)
TIMES = (1_600_000_000, 1_600_000_000, 1_600_000_000, 1, 2, 3)
MIB = 1 << 20

GOLDEN = {
    1024: "d58b4206e3ceb36976d1b0fec4567f2e3cf768ec113a020d1a746bf15f62f991",
    2048: "0d4ad54f97b53c1b5c6cb2a55725155e2111b66b745854d34761d5eac8225eb0",
    4096: "cb7bc0c59012aeb145ce6c7bfd6e98beb521a99fd0f9187c4f44cfb590698f9c",
}


def _tree() -> ext3.Tree:
    builder = ext3.TreeBuilder()
    builder.add(0, b"", 0o40755, 1000, 1000, 0, TIMES)
    data = {}
    upper = builder.add(0, b"upper", 0o40755, 1000, 1000, 0, TIMES)
    wide = builder.add(upper, b"wide", 0o40755, 70000, 1000, 0, TIMES)
    for number in range(300):
        node = builder.add(wide, b"file_%06d" % number, 0o100644, 0, 0, 37 * number, TIMES)
        data[node] = bytes([number % 251]) * (37 * number)
    builder.link(upper, b"link", node)
    builder.xattrs[node] = {b"user.a": b"1", b"user.large": b"x" * 300}
    sparse = builder.add(upper, b"sparse", 0o100600, 0, 0, 3_000_000, TIMES)
    builder.segments[sparse] = [(500_000, 1000, 0), (2_500_000, 5000, 1000)]
    data[sparse] = b"s" * 6000
    slow = builder.add(upper, b"slow", 0o120777, 0, 0, 100, TIMES)
    builder.targets[slow] = b"t" * 100
    device = builder.add(upper, b"null", 0o020666, 0, 0, 0, TIMES)
    builder.devices[device] = (1, 3)
    return builder.finish(ext3.MemoryContent(data))


@pytest.mark.parametrize("block_size", sorted(GOLDEN))
def test_golden_bytes(block_size: int) -> None:
    device = MemoryDevice(24 * MIB)
    options = ext3.ImageOptions(size=24 * MIB, block_size=block_size, label=b"golden")
    ext3.build_image(_tree(), device, options=options, stamp=STAMP)
    assert hashlib.sha256(device.data).hexdigest() == GOLDEN[block_size]
