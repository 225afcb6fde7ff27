"""Inode tables of a planned image, built as whole arrays, a bounded number of inodes at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import (
    BAD_INO,
    DIND_SLOT,
    DIRECT_BLOCKS,
    EXTRA_ISIZE,
    FAST_SYMLINK_MAX,
    GOOD_INODE_SIZE,
    IND_SLOT,
    JOURNAL_INO,
    LOST_FOUND_INO,
    N_BLOCKS,
    RESIZE_INO,
    ROOT_INO,
    S_IFDIR,
    S_IFLNK,
    S_IFREG,
    SECTOR,
    TIND_SLOT,
    InodeFlag,
)
from ..format.layout import Table
from ..format.schema import INODE_CORE, INODE_EXTRA
from .plan import Plan

__all__ = ["InodeWriter"]

INODES_AT_ONCE = 2048
"""Few enough that the arrays they pass through stay in the processor's cache, and in memory the process has already."""
TIME_MIN = -(2**31)
TIME_MAX = 2**34 - 2**31 - 1
"""What 32 bits and two epoch bits hold: 1901 to 2446."""
TIME_MAX_CORE = 2**31 - 1
"""What an inode of 128 bytes holds: 2038."""


class InodeWriter:
    """The used inodes of a plan as bytes of the inode tables."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        demand, tree = plan.demand, plan.tree
        self.size = plan.geometry.inode_size
        names = ["core"]
        formats: list[object] = [INODE_CORE.dtype]
        offsets = [0]
        if self.size > GOOD_INODE_SIZE:
            names.append("extra")
            formats.append(INODE_EXTRA.dtype)
            offsets.append(GOOD_INODE_SIZE)
        self.dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": self.size})
        # Node of each inode from lost+found's on; the numbers are dense.
        self._node_of = np.empty(len(tree) - 1, np.int64)
        self._node_of[demand.inos[1:].astype(np.int64) - LOST_FOUND_INO] = np.arange(1, len(tree))
        self._subdirectories = np.zeros(len(tree), np.int64)
        directories = demand.directories.nodes
        inner = directories[directories != 0]
        np.add.at(self._subdirectories, tree.nodes["parent"][inner].astype(np.int64), 1)
        self._indexed = np.zeros(len(tree), bool)
        self._indexed[directories[demand.directories.indexed]] = True
        self._has_block = np.zeros(len(tree), np.int64)
        self._acl = np.zeros(len(tree), np.int64)
        if demand.attributes.block_of:
            nodes = np.fromiter(demand.attributes.block_of.keys(), np.int64)
            rows = np.fromiter(demand.attributes.block_of.values(), np.int64)
            self._has_block[nodes] = 1
            self._acl[nodes] = plan.space.blocks(plan.attributes_at + rows)

    def pieces(self) -> list[tuple[int, int]]:
        """(first inode, count) of pieces of the tables in use, cut at group boundaries."""
        geometry = self.plan.geometry
        last = self.plan.demand.inodes
        found = []
        ino = 1
        while ino <= last:
            count = min(last - ino + 1, geometry.inodes_per_group - geometry.group_of_inode(ino)[1], INODES_AT_ONCE)
            found.append((ino, count))
            ino += count
        return found

    def table(self, first: int, count: int) -> tuple[int, bytes]:
        """(byte offset in the image, bytes) of one piece."""
        geometry = self.plan.geometry
        group, index = geometry.group_of_inode(first)
        offset = int(geometry.inode_table[group]) * geometry.block_size + index * self.size
        return offset, self._rows(first, count).tobytes()

    def _rows(self, first: int, count: int) -> Table:
        rows = np.zeros(count, self.dtype)
        ends = first + count
        for ino in range(first, min(ends, LOST_FOUND_INO)):
            self._reserved(ino, rows[ino - first : ino - first + 1])
        low = max(first, LOST_FOUND_INO)
        if low < ends:
            self._fill(rows[low - first :], self._node_of[low - LOST_FOUND_INO : ends - LOST_FOUND_INO])
        return rows

    def _reserved(self, ino: int, row: Table) -> None:
        """Inodes 1 to 10, as mke2fs leaves them."""
        plan, geometry = self.plan, self.plan.geometry
        seconds = plan.stamp.seconds & 0xFFFFFFFF
        core = row["core"]
        if ino == ROOT_INO:
            self._fill(row, np.zeros(1, np.int64))
            return
        resize = ino == RESIZE_INO and plan.resize_map_at is not None
        journal = ino == JOURNAL_INO and plan.journal is not None
        if ino not in (BAD_INO, RESIZE_INO, JOURNAL_INO) or not (resize or journal or ino == BAD_INO):
            return
        for field in ("i_atime", "i_ctime", "i_mtime"):
            core[field] = seconds
        if ino == BAD_INO:
            return
        core["i_mode"] = S_IFREG | 0o600
        core["i_links_count"] = 1
        if self.size > GOOD_INODE_SIZE:
            row["extra"]["i_extra_isize"] = EXTRA_ISIZE
            row["extra"]["i_crtime"] = seconds
        sectors = geometry.block_size // SECTOR
        if resize:
            assert plan.resize_map_at is not None
            pointers = geometry.pointers_per_block
            size = (pointers * pointers + pointers + DIRECT_BLOCKS) * geometry.block_size
            core["i_block"][0, DIND_SLOT] = plan.space.block(plan.resize_map_at)
            blocks = 1 + geometry.reserved_gdt_blocks * (1 + len(geometry.backup_groups))
        else:
            assert plan.journal is not None
            size = plan.journal_blocks * geometry.block_size
            core["i_block"][0] = plan.journal.i_block(plan.space, plan.journal_at)
            blocks = plan.journal_blocks + plan.journal.indirect
        core["i_size"] = size & 0xFFFFFFFF
        core["i_size_high"] = size >> 32
        core["i_blocks"] = blocks * sectors

    def _fill(self, rows: Table, nodes: npt.NDArray[np.int64]) -> None:
        """Inodes of ``nodes``, row by row."""
        plan, demand = self.plan, self.plan.demand
        source = plan.tree.nodes[nodes]
        core = rows["core"]
        mode = source["mode"]
        is_dir = (mode & 0o170000) == S_IFDIR
        core["i_mode"] = mode
        core["i_uid"] = source["uid"] & 0xFFFF
        core["i_uid_high"] = source["uid"] >> 16
        core["i_gid"] = source["gid"] & 0xFFFF
        core["i_gid_high"] = source["gid"] >> 16
        size = np.where(is_dir, demand.data_blocks[nodes] * demand.block_size, source["size"])
        core["i_size"] = size & 0xFFFFFFFF
        core["i_size_high"] = size >> 32
        core["i_links_count"] = np.where(is_dir, 2 + self._subdirectories[nodes], source["links"])
        blocks = demand.data_blocks[nodes] + demand.indirect_blocks[nodes] + self._has_block[nodes]
        core["i_blocks"] = blocks * (demand.block_size // SECTOR)
        core["i_flags"] = np.where(self._indexed[nodes], int(InodeFlag.INDEX), 0)
        core["i_file_acl"] = self._acl[nodes]
        self._times(rows, source)
        self._dense_maps(core, nodes)
        self._singly(rows, nodes, mode)

    def _times(self, rows: Table, source: Table) -> None:
        core = rows["core"]
        large = self.size > GOOD_INODE_SIZE
        for name in ("atime", "ctime", "mtime"):
            seconds = np.clip(source[name], TIME_MIN, TIME_MAX if large else TIME_MAX_CORE)
            core["i_" + name] = seconds & 0xFFFFFFFF
            if large:
                # Epoch bits: how often 2^32 seconds must be added to the sign-extended low word.
                low = ((seconds & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
                rows["extra"][f"i_{name}_extra"] = ((seconds - low) >> 32) & 3 | source[name + "_ns"].astype(np.int64) << 2
        if large:
            rows["extra"]["i_extra_isize"] = EXTRA_ISIZE
            rows["extra"]["i_crtime"] = self.plan.stamp.seconds & 0xFFFFFFFF

    def _dense_maps(self, core: Table, nodes: npt.NDArray[np.int64]) -> None:
        """i_block of everything whose blocks lie one behind the other."""
        plan, demand = self.plan, self.plan.demand
        count = demand.data_blocks[nodes]
        first = plan.data_at[nodes]
        wanted = np.arange(DIRECT_BLOCKS) < count[:, None]
        positions = np.where(wanted, first[:, None] + np.arange(DIRECT_BLOCKS), 0)
        core["i_block"][:, :DIRECT_BLOCKS] = np.where(wanted, plan.space.blocks(positions), 0)
        pointers = demand.pointers
        at = plan.indirect_at[nodes]
        double_leaves = np.clip(-(-(count - DIRECT_BLOCKS - pointers) // pointers), 0, pointers)
        for slot, needed, position in (
            (IND_SLOT, count > DIRECT_BLOCKS, at),
            (DIND_SLOT, count > DIRECT_BLOCKS + pointers, at + 1),
            (TIND_SLOT, count > DIRECT_BLOCKS + pointers + pointers * pointers, at + 2 + double_leaves),
        ):
            core["i_block"][:, slot] = np.where(needed, plan.space.blocks(np.where(needed, position, 0)), 0)

    def _singly(self, rows: Table, nodes: npt.NDArray[np.int64], mode: npt.NDArray[np.uint32]) -> None:
        """What few nodes have: fast symlinks, devices, sparse maps, attributes in the inode."""
        plan, demand, tree = self.plan, self.plan.demand, self.plan.tree
        core = rows["core"]
        links = np.flatnonzero(((mode & 0o170000) == S_IFLNK) & (tree.nodes["size"][nodes] <= FAST_SYMLINK_MAX))
        if len(links):
            text = b"".join(tree.targets[node].ljust(4 * N_BLOCKS, b"\0") for node in nodes[links].tolist())
            core["i_block"][links] = np.frombuffer(text, "<u4").reshape(-1, N_BLOCKS)
        present = nodes.tolist()
        if demand.maps or tree.devices or demand.attributes.areas:
            for row, node in enumerate(present):
                if node in demand.maps:
                    core["i_block"][row] = plan.block_map(node).i_block(plan.space, int(plan.indirect_at[node]))
                elif node in tree.devices:
                    core["i_block"][row, :2] = encode_device(*tree.devices[node])
        if demand.attributes.areas:
            raw = rows.view(np.uint8).reshape(len(rows), self.size)
            for row, node in enumerate(present):
                area = demand.attributes.areas.get(node)
                if area:
                    begin = GOOD_INODE_SIZE + EXTRA_ISIZE
                    raw[row, begin : begin + len(area)] = np.frombuffer(area, np.uint8)


def encode_device(major: int, minor: int) -> tuple[int, int]:
    """The first two words of i_block of a device: the old encoding where both numbers fit a byte, else the new one."""
    if major < 256 and minor < 256:
        return major << 8 | minor, 0
    return 0, (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
