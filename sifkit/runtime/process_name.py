"""Name and command line of this process as ps and top show them, for processes of a run that are no program of their own.

A forked process has those of the program that it was forked from, here python's, and the variables. The kernel shows both out
of the memory in which the program got them.
Source: proc(5), /proc/PID/cmdline, environ and stat.
"""

from __future__ import annotations

from typing import NamedTuple

from . import sys

__all__ = ["StartMemory", "name_process", "start_memory"]

FIELDS = slice(45, 49)
"""Fields arg_start, arg_end, env_start and env_end of /proc/PID/stat, counted from the one after the command's name."""


class StartMemory(NamedTuple):
    """Memory with the words and the variables that this process was started with: address and size in bytes."""

    words: tuple[int, int]
    variables: tuple[int, int]


def start_memory() -> StartMemory:
    """Return where words and variables are. Raises OSError without /proc."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()[FIELDS]
    words, words_end, variables, variables_end = (int(field) for field in fields)
    return StartMemory((words, words_end - words), (variables, variables_end - variables))


def name_process(name: str, place: tuple[int, int], words: bytes = b"") -> None:
    """Show this process as ``name``, of at most 15 bytes, with ``words`` after it, each ended by NUL, as far as there is room.

    ``place``: where the words are that it was started with.
    """
    sys.set_process_name(name)
    address, size = place
    if size:
        shown = (name.encode() + b"\0" + words)[: size - 1]  # without a NUL at the end the kernel would show variables, too
        sys.write_memory(address, shown.ljust(size, b"\0"))
