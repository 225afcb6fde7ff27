"""Names of a filesystem, counted from all directory blocks at once; and which directories they connect with the root.

For sound directories: a block that is damaged, or a name that leads nowhere, is reported and not repaired. Source: e2fsprogs
``e2fsck/pass2.c``, ``e2fsck/pass3.c``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..constants import ROOT_INO, S_IFDIR, S_IFMT
from ..errors import DeviceError
from ..format.dirent import MIN_REC_LEN
from ..format.dirent_columns import read_dirent_columns
from ..format.schema import DIRENT
from ..format.violation import Violation
from .block_maps import read_blocks

if TYPE_CHECKING:
    from .census import Census

__all__ = ["connected_directories", "count_names"]

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

BATCH_BYTES = 8 << 20
NAMED_ROWS = 20
"""Most violations of one kind that are named for one batch of blocks."""


def count_names(
    census: Census,
    directory: Numbers,
    logical: Numbers,
    block: Numbers,
    *,
    read: Callable[[int, int], bytes],
    block_size: int,
    first_ino: int,
) -> list[Violation]:
    """Count the names in directory blocks (columns of equal length) into ``census.names``. Return what is wrong.

    Wrong are damaged blocks, names of inodes that are not in use or reserved, and directories whose parents are not the ones
    that name them, or that the root does not lead to.
    """
    found: list[Violation] = []
    inodes = len(census.mode) - 1
    parent = np.zeros(inodes + 1, np.uint32)
    dotdot = np.zeros(inodes + 1, np.uint32)
    at_once = max(1, BATCH_BYTES // block_size)
    order = np.argsort(block, kind="stable")
    for low in range(0, len(order), at_once):
        rows = order[low : low + at_once]
        owner, first = directory[rows], logical[rows] == 0
        try:
            data = read_blocks(read, block[rows], block_size)
        except DeviceError as error:
            found.append(Violation("directories", "blocks", error.message, "readable ones"))
            continue
        raw = data.tobytes() + bytes(MIN_REC_LEN)
        columns = read_dirent_columns(raw, first, block_size=block_size, inodes=inodes)
        # np.unique and np.setdiff1d would load numpy.ma, for nothing.
        for row in sorted(set(columns.damaged.tolist()))[:NAMED_ROWS]:
            found.append(Violation(f"directory inode {owner[row]}, block {logical[rows][row]}", "records", "damaged", "sound"))
        inos = columns.inodes.astype(np.int64)
        of = owner[columns.at // block_size]
        reserved = (inos < first_ino) & (inos != ROOT_INO)
        wrong = (census.mode[inos] == 0) | reserved | (inos == ROOT_INO)
        for row in np.flatnonzero(wrong)[:NAMED_ROWS].tolist():
            found.append(Violation(f"directory inode {of[row]}", "entry", f"inode {inos[row]}", "one in use"))
        census.add_names(inos)
        child = (census.mode[inos] & S_IFMT) == S_IFDIR
        parent[inos[child]] = of[child]
        heads = np.flatnonzero(first)
        heads = heads[~np.isin(heads, columns.damaged)]
        own, above = _dots(data, heads)
        for row in np.flatnonzero(own != owner[heads])[:NAMED_ROWS].tolist():
            number = owner[heads][row]
            found.append(Violation(f"directory inode {number}", "inode of '.'", int(own[row]), int(number)))
        dotdot[owner[heads]] = above
        census.names[owner[heads]] += 1
    directories = census.directories
    above = dotdot[directories].astype(np.int64)
    census.add_names(above[above <= inodes])
    census.names[0] = 0
    parent[ROOT_INO] = ROOT_INO
    for ino in directories[parent[directories] != above][:NAMED_ROWS].tolist():
        found.append(Violation(f"directory inode {ino}", "inode of '..'", int(dotdot[ino]), int(parent[ino])))
    if census.is_dir(ROOT_INO):
        for ino in directories[~connected_directories(directories, parent)][:NAMED_ROWS].tolist():
            found.append(Violation(f"directory inode {ino}", "parents", "not the root", "the root"))
    else:
        found.append(Violation("root directory", "i_mode", int(census.mode[ROOT_INO]), "that of a directory"))
    return found


def connected_directories(directories: Numbers, parent: npt.NDArray[np.uint32]) -> Flags:
    """Return which of the ``directories`` (ascending, the root among them) lead to the root by their parents.

    Each step doubles the way up that was looked at.
    """
    count = len(directories)
    above = parent[directories].astype(np.int64)
    index = np.searchsorted(directories, above)
    found = index < count
    found[found] = directories[index[found]] == above[found]
    up = np.where(found, index, count)
    up = np.append(up, count)
    root = int(np.searchsorted(directories, ROOT_INO))
    up[root] = root
    for _ in range(count.bit_length() + 1):
        further = up[up]
        if np.array_equal(further, up):
            break
        up = further
    connected: Flags = up[:-1] == root
    return connected


def _dots(data: npt.NDArray[np.uint8], rows: Numbers) -> tuple[Numbers, Numbers]:
    """Return the inodes of ``.`` and ``..`` in the sound blocks ``rows``."""
    head = np.arange(DIRENT.size)
    dot = data[rows[:, None], head].view(DIRENT.dtype)[:, 0]
    dotdot = data[rows[:, None], dot["rec_len"].astype(np.int64)[:, None] + head].view(DIRENT.dtype)[:, 0]
    return dot["inode"].astype(np.int64), dotdot["inode"].astype(np.int64)
