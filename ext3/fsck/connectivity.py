"""Pass 3: every directory is reached from the root, and its ``..`` is the directory that names it.

In: ``context.parent`` and ``dotdot`` of each directory from pass 2, ``census.names`` without what ``..`` adds. Out:
``census.names`` whole; ``parent`` and ``dotdot`` final; ``lost_and_found``, if the repairs are written. A directory without a
parent, and one of each loop, is linked in lost+found. Source: e2fsprogs ``e2fsck/pass3.c``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..check.name_counts import connected_directories
from ..constants import ROOT_INO, S_IFDIR
from ..errors import CorruptError
from .context import Context, GaveUp
from .directory_names import DirectoryNames
from .lost_and_found import LostAndFound, create_directory, set_parent
from .problem import Place
from .problems.structure import (
    DIRECTORY_LOOP,
    DIRECTORY_UNCONNECTED,
    DOTDOT_MISSING,
    DOTDOT_WRONG,
    LOST_FOUND_FAILED,
    ROOT_MISSING,
)

__all__ = ["check_connectivity"]

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


def check_connectivity(context: Context) -> None:
    """Run pass 3. Raises GaveUp if there is no root directory."""
    _check_root(context)
    census = context.census
    directories = census.directories
    above, count = np.unique(context.dotdot[directories], return_counts=True)
    there = (above > 0) & (above < len(census.names))
    census.names[above[there]] += count[there].astype(np.uint32)
    lost = LostAndFound(context)
    connected = connected_directories(directories, context.parent)
    if not connected.all():
        _connect(context, lost, directories, connected)
    wrong = directories[context.parent[directories] != context.dotdot[directories]]
    for ino in wrong.tolist():
        _check_dotdot(context, ino)
    if context.policy.writes:
        lost.ensure()


def _check_root(context: Context) -> None:
    census = context.census
    if not census.mode[ROOT_INO]:
        if not context.fix(ROOT_MISSING, Place(ino=ROOT_INO)):
            raise GaveUp("there is no root directory")
        context.note_inode(ROOT_INO, S_IFDIR | 0o755)
        create_directory(context, ROOT_INO, S_IFDIR | 0o755)
    if not census.is_dir(ROOT_INO):
        raise GaveUp("the root is no directory")
    context.parent[ROOT_INO] = ROOT_INO


def _connect(context: Context, lost: LostAndFound, directories: Numbers, connected: Flags) -> None:
    """Link the tops of what is not connected in lost+found, one for each loop."""
    census, parent = context.census, context.parent
    done = np.zeros(len(census.mode), np.bool_)
    done[directories[connected]] = True
    for ino in directories[~connected].tolist():
        way: dict[int, None] = {}
        at = ino
        while not done[at]:
            way[at] = None
            above = int(parent[at])
            if above in way:
                _leave_loop(context, lost, at, above)
                break
            if not 0 < above < len(done) or not census.is_dir(above):
                if context.fix(DIRECTORY_UNCONNECTED, Place(ino=at), got=int(context.dotdot[at])):
                    lost.link(at)
                break
            at = above
        done[list(way)] = True


def _leave_loop(context: Context, lost: LostAndFound, ino: int, above: int) -> None:
    """Move a directory of a loop from ``above``, a directory below it, to lost+found."""
    if not context.fix(DIRECTORY_LOOP, Place(ino=ino, parent=above)):
        return
    try:
        names = DirectoryNames(context, above)
    except CorruptError as error:  # its faults were not to be repaired
        context.leave(LOST_FOUND_FAILED, Place(ino=ino), got=error.message)
        return
    found = names.find_inode(ino)
    if lost.link(ino) and found is not None:
        names.remove(found)
        context.census.names[ino] -= 1


def _check_dotdot(context: Context, ino: int) -> None:
    """Make ``..`` of a connected directory its parent."""
    want, got = int(context.parent[ino]), int(context.dotdot[ino])
    if not want or want == got:
        return
    if context.fix(DOTDOT_WRONG, Place(ino=ino), got=got, want=want) and not set_parent(context, ino, want):
        context.leave(DOTDOT_MISSING, Place(ino=ino), want=want)
