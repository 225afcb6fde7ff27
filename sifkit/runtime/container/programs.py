"""Programs of a container: found in its PATH, and why one cannot be executed.

This works in the root of a container, which need not have the standard library: it imports nothing later.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from ...errors import show

__all__ = ["find_program", "is_plain_script", "why_not_executed"]

HEAD_BYTES = 4096
LOADER = re.compile(rb"(/[!-~]*/ld[!-~]*)\0")
"""Path of the dynamic loader, which is near the start of a program that needs one."""


def find_program(name: str, path: str) -> str:
    """Return the file that ``name`` runs. Raises OSError: ENOENT, or EACCES if there is only one that is not executable."""
    if "/" in name:
        return name
    number = errno.ENOENT
    for directory in path.split(":"):
        found = f"{directory or '.'}/{name}"
        if os.path.isfile(found):
            if os.access(found, os.X_OK):
                return found
            number = errno.EACCES
    raise OSError(number, "executable file not found in $PATH" if number == errno.ENOENT else os.strerror(number), name)


def why_not_executed(program: str, error: OSError) -> str:
    """Return what is wrong with ``program``, which execve(2) has refused with ``error``."""
    name = show(program)
    if error.errno == errno.ENOENT:
        interpreter = _interpreter(program)
        if interpreter is None:
            return f"{name}: no such file in the container"
        return f"{name} needs {show(interpreter)}, which is not in the container"
    if error.errno == errno.EACCES and os.path.isdir(program):
        return f"{name} is a directory"
    if error.errno == errno.EACCES and not os.access(program, os.X_OK):
        return f"{name} is not executable"
    if error.errno == errno.ENOEXEC:
        return f"{name} is no program for this host's processor"
    return f"{name}: {error.strerror}"


def is_plain_script(program: str) -> bool:
    """Return whether a file is a text without ``#!``, which a shell runs itself."""
    head = _head(program)
    return head is not None and not head.startswith(b"#!") and b"\0" not in head


def _head(program: str) -> bytes | None:
    """Return the beginning of a regular file; None if it cannot be read."""
    try:
        fd = os.open(program, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(fd, HEAD_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)
    except OSError:
        return None


def _interpreter(program: str) -> str | None:
    """Return the interpreter of a script, or the dynamic loader of a program; None if there is no such file."""
    head = _head(program)
    if head is None:
        return None
    if head.startswith(b"#!"):
        words = head[2:].partition(b"\n")[0].split()
        return os.fsdecode(words[0]) if words else "an interpreter"
    found = LOADER.search(head)
    return os.fsdecode(found[1]) if found else "a dynamic loader"
