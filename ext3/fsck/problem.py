"""Problem: a kind of fault that a check finds, with its message and its repair. Pure.

The tables are in ``problems``, one module for each part of a check. Source: e2fsprogs ``e2fsck/problem.h`` (flags), and
``e2fsck/problem.c`` for which faults preening repairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

__all__ = ["Place", "PreenAnswer", "Problem"]


class PreenAnswer(Enum):
    """Answer of ``-p`` to a problem: it repairs, goes on without a repair, or stops the check for a decision."""

    REPAIR = "repair"
    SKIP = "skip"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Problem:
    """Kind of fault. ``code`` is stable, for programs.

    ``message`` says what is wrong, ``question`` what the repair would do (empty: there is none); both may name ``{got}``,
    ``{want}`` and the fields of the Place. ``preen``: what ``-p`` does. ``default``: the answer that Enter gives. ``excused``:
    not repairing it leaves no error. ``uncounted``: repairing it is no correction, as far as the exit code goes. ``note``:
    there is nothing to decide; it is reported and the check goes on.
    """

    code: str
    message: str
    question: str = ""
    preen: PreenAnswer = PreenAnswer.STOP
    default: bool = True
    excused: bool = False
    uncounted: bool = False
    note: bool = False


class Place(NamedTuple):
    """Place of a problem, as far as it has one. ``block`` is a block of the filesystem, ``logical`` one of the file.

    ``offset``: byte in the block. ``name``: the directory entry; ``parent``: the directory's inode if ``ino`` is another one.
    """

    group: int | None = None
    ino: int | None = None
    block: int | None = None
    logical: int | None = None
    offset: int | None = None
    name: bytes | None = None
    parent: int | None = None
