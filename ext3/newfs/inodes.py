"""Inode tables of a planned image, packed from columns, a bounded number of inodes at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import (
    BAD_INO,
    DIRECT_BLOCKS,
    FAST_SYMLINK_MAX,
    GOOD_INODE_SIZE,
    JOURNAL_INO,
    LOST_FOUND_INO,
    N_BLOCKS,
    RESIZE_INO,
    ROOT_INO,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    SECTOR,
    USER_FLAGS,
    InodeFlag,
)
from ..format.indirect_blocks_columns import dense_roots
from ..format.inode import InodeRecord
from ..format.inode_fields import SECOND, encode_device
from ..format.inode_table_columns import Records, pack_table
from ..format.resize_inode import resize_record
from .plan import Plan

__all__ = ["InodeWriter"]

INODES_AT_ONCE = 2048
"""Inodes built together: few enough that their arrays stay in the processor's cache, and in memory already allocated."""


class InodeWriter:
    """Packer of the inodes of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        demand, tree = plan.demand, plan.tree
        self.size = plan.geometry.inode_size
        # Node of each inode from lost+found's on; inode numbers have no gaps.
        self._node_of = np.empty(len(tree) - 1, np.int64)
        self._node_of[demand.inos[1:].astype(np.int64) - LOST_FOUND_INO] = np.arange(1, len(tree))
        self._subdirectories = np.zeros(len(tree), np.int64)
        directories = demand.directories.nodes
        inner = directories[directories != 0]
        np.add.at(self._subdirectories, tree.nodes["parent"][inner].astype(np.int64), 1)
        self._flags = np.zeros(len(tree), np.int64)
        for node, flags in tree.flags.items():
            self._flags[node] = flags & USER_FLAGS
        self._flags[directories[demand.directories.indexed]] |= int(InodeFlag.INDEX)
        self._created, self._created_ns = np.zeros(len(tree), np.int64), np.zeros(len(tree), np.int64)
        for column, known in zip((self._created, self._created_ns), tree.created, strict=True):
            column[: len(known)] = known
        self._created[(self._created == 0) & (self._created_ns == 0)] = plan.stamp.seconds
        self._has_block = np.zeros(len(tree), np.int64)
        self._acl = np.zeros(len(tree), np.int64)
        if demand.attributes.block_of:
            nodes = np.fromiter(demand.attributes.block_of.keys(), np.int64)
            rows = np.fromiter(demand.attributes.block_of.values(), np.int64)
            self._has_block[nodes] = 1
            self._acl[nodes] = plan.space.blocks(plan.attributes_at + rows)

    def pieces(self) -> list[tuple[int, int]]:
        """Return (first inode, count) of pieces of the tables in use, cut at group boundaries."""
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
        """Return (byte offset in the image, bytes) of one piece."""
        geometry = self.plan.geometry
        group, index = geometry.group_of_inode(first)
        offset = int(geometry.columns.inode_table[group]) * geometry.block_size + index * self.size
        return offset, self._records(first, count).tobytes()

    def _records(self, first: int, count: int) -> Records:
        ends = first + count
        if first >= LOST_FOUND_INO:
            return self._packed(self._node_of[first - LOST_FOUND_INO : ends - LOST_FOUND_INO])
        records = np.zeros((count, self.size), np.uint8)
        for ino in range(first, min(ends, LOST_FOUND_INO)):
            if ino == ROOT_INO:
                records[ino - first] = self._packed(np.zeros(1, np.int64))[0]
            elif (record := self._reserved(ino)) is not None:
                packed = record.pack()
                records[ino - first, : len(packed)] = np.frombuffer(packed, np.uint8)
        if ends > LOST_FOUND_INO:
            records[LOST_FOUND_INO - first :] = self._packed(self._node_of[: ends - LOST_FOUND_INO])
        return records

    def _reserved(self, ino: int) -> InodeRecord | None:
        """Return one of inodes 1 to 10 except the root, as mke2fs leaves it; None: all zeros."""
        plan, geometry = self.plan, self.plan.geometry
        now = plan.stamp.seconds * SECOND
        if ino == BAD_INO:  # has no extra area
            return InodeRecord.new(GOOD_INODE_SIZE, mode=0, uid=0, gid=0, now=now, generation=0)
        if ino == RESIZE_INO and plan.resize_map_at is not None:
            return resize_record(geometry, plan.space.block(plan.resize_map_at), now=now)
        if ino == JOURNAL_INO and plan.journal is not None:
            record = InodeRecord.new(self.size, mode=S_IFREG | 0o600, uid=0, gid=0, now=now, generation=0)
            record.links = 1
            record.i_block = tuple(plan.journal.pack_inode().tolist())
            record.size = plan.journal_blocks * geometry.block_size
            record.sectors = (plan.journal_blocks + plan.journal.indirect) * (geometry.block_size // SECTOR)
            return record
        return None

    def _packed(self, nodes: npt.NDArray[np.int64]) -> Records:
        """Pack the inodes of ``nodes``, row by row."""
        plan, demand = self.plan, self.plan.demand
        source = plan.tree.nodes[nodes]
        is_dir = (source["mode"] & S_IFMT) == S_IFDIR
        blocks = demand.data_blocks[nodes] + demand.indirect_blocks[nodes] + self._has_block[nodes]
        atime, mtime, ctime = (
            (source[name], source[name + "_ns"].astype(np.int64)) for name in ("atime", "mtime", "ctime")
        )  # fmt: skip
        return pack_table(
            self.size,
            mode=source["mode"],
            uid=source["uid"],
            gid=source["gid"],
            size=np.where(is_dir, demand.data_blocks[nodes] * demand.block_size, source["size"]),
            links=np.where(is_dir, 2 + self._subdirectories[nodes], source["links"]),
            sectors=blocks * (demand.block_size // SECTOR),
            flags=self._flags[nodes],
            file_acl=self._acl[nodes],
            atime=atime,
            mtime=mtime,
            ctime=ctime,
            crtime=(self._created[nodes], self._created_ns[nodes]),
            i_block=self._i_block(nodes, source["mode"]),
            areas=self._areas(nodes),
        )

    def _dense_maps(self, nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """Return the block maps of nodes whose blocks are consecutive positions."""
        plan, demand = self.plan, self.plan.demand
        count = demand.data_blocks[nodes]
        first = plan.data_at[nodes]
        wanted = np.arange(DIRECT_BLOCKS) < count[:, None]
        positions = np.where(wanted, first[:, None] + np.arange(DIRECT_BLOCKS), 0)
        i_block = np.zeros((len(nodes), N_BLOCKS), np.uint32)
        i_block[:, :DIRECT_BLOCKS] = np.where(wanted, plan.space.blocks(positions), 0)
        at = plan.indirect_at[nodes]
        for slot, needed, number in dense_roots(count, demand.pointers):
            if needed.any():
                i_block[needed, slot] = plan.space.blocks((at + number)[needed])
        return i_block

    def _i_block(self, nodes: npt.NDArray[np.int64], mode: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """Return the 15 words of each: a block map, the target of a fast symlink, or device numbers."""
        plan, demand, tree = self.plan, self.plan.demand, self.plan.tree
        i_block = self._dense_maps(nodes)
        links = np.flatnonzero(((mode & S_IFMT) == S_IFLNK) & (tree.nodes["size"][nodes] <= FAST_SYMLINK_MAX))
        if len(links):
            text = b"".join(tree.targets[node].ljust(4 * N_BLOCKS, b"\0") for node in nodes[links].tolist())
            i_block[links] = np.frombuffer(text, "<u4").reshape(-1, N_BLOCKS)
        if demand.maps or tree.devices:
            for row, node in enumerate(nodes.tolist()):
                if node in demand.maps:
                    i_block[row] = plan.block_map(node).pack_inode()
                elif node in tree.devices:
                    i_block[row, :2] = encode_device(*tree.devices[node])
        return i_block

    def _areas(self, nodes: npt.NDArray[np.int64]) -> dict[int, bytes]:
        """Return the attributes that lie in the inode, by row."""
        areas = self.plan.demand.attributes.areas
        return {row: areas[node] for row, node in enumerate(nodes.tolist()) if node in areas} if areas else {}
