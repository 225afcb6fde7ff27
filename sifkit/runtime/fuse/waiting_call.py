"""System calls that wait for a FUSE server: the names that their programs gave.

The kernel tells a server the thread that waits for an answer, but not what its program has called. Where ``/proc`` shows it,
as for all programs of a container to those who made its user namespace, the server can see which name was meant.

The memory of a program may be in a file that the server serves, or locked by a thread that waits for the server. So another
thread reads it, for which the server waits a short time only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread

__all__ = ["called_names"]

PAGE = 4096
PATH_MAX = 4096
PATIENCE = 0.2
"""Seconds to wait for what a program's memory says."""
_X86_64 = {
    (0,): (2, 4, 6, 21, 59, 76, 80, 83, 84, 85, 87, 89, 90, 92, 94, 132, 133, 137, 188, 189, 191, 192, 194, 195, 197, 198, 235),
    (1,): (88, 254, 257, 258, 259, 260, 261, 262, 263, 267, 268, 269, 280, 322, 332, 437, 439, 452),
    (2,): (266,),
    (0, 1): (82, 86),
    (1, 3): (264, 265, 316),
}
_GENERIC = {
    (0,): (5, 6, 8, 9, 11, 12, 14, 15, 43, 45, 49, 221),
    (1,): (27, 33, 34, 35, 48, 53, 54, 56, 78, 79, 88, 281, 291, 437, 439, 452),
    (2,): (36,),
    (1, 3): (37, 38, 276),
}
_MACHINES = {"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC}
"""Numbers of the system calls that take paths, by the places of these among the arguments."""
_PLACES = {number: places for places, numbers in _MACHINES.get(os.uname().machine, {}).items() for number in numbers}


def called_names(thread: int) -> tuple[bytes, ...]:
    """Return the last components of the paths that a thread has called the kernel with; none if that cannot be known."""
    try:
        words = _read(f"/proc/{thread}/syscall", 0, PAGE).split()
        addresses = [int(words[1 + place], 16) for place in _PLACES[int(words[0])]]
    except (OSError, ValueError, LookupError):
        return ()
    found: list[tuple[bytes, ...]] = []
    reader = Thread(target=_find, args=(thread, addresses, found), daemon=True)
    try:
        reader.start()
    except RuntimeError:  # there may be no more threads
        return ()
    reader.join(PATIENCE)
    return found[0] if found else ()


def _find(thread: int, addresses: Sequence[int], found: list[tuple[bytes, ...]]) -> None:
    """Put the last components of the paths at these addresses into ``found``."""
    with suppress(OSError, OverflowError):
        found.append(tuple(_text(thread, address).rstrip(b"/").rpartition(b"/")[2] for address in addresses))


def _read(path: str, offset: int, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def _text(thread: int, address: int) -> bytes:
    """Return the text at an address of the thread's memory. What follows its page may not be there."""
    memory = f"/proc/{thread}/mem"
    found = _read(memory, address, PAGE - address % PAGE)
    if b"\0" not in found:
        found += _read(memory, address + len(found), PATH_MAX)
    return found.partition(b"\0")[0]
