"""Facts of a mounted container: its shells, environment scripts and runscript. Linux only.

Read in the child that runs in the container, after the change of the root: links lead nowhere else then. The files are an
image's, so that sizes and numbers are bounded and nothing but regular files is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from ..errors import FormatError, show
from .run_plan import Command
from .start import ENVIRONMENT_DIRECTORY, RUNSCRIPT, ContainerFacts

__all__ = ["find_executable", "read_container_facts", "read_small_file"]

LARGEST = 1 << 20
"""Bytes of a script or account file that is read here."""
MOST_SCRIPTS = 1000


def read_container_facts(command: Command) -> ContainerFacts:
    """Return the facts that decide how ``command`` starts. Raises FormatError for a file of absurd size."""
    has_shell = is_executable("/bin/sh")
    app = f"/scif/apps/{command.app}" if command.app else ""
    runscript = f"{app}/scif/runscript" if app else RUNSCRIPT
    return ContainerFacts(
        shell=has_shell,
        bash=is_executable("/bin/bash"),
        scripts=tuple(_scripts(read=not has_shell)),
        runscript=runscript if is_executable(runscript) else "",
        has_app=not app or os.path.isdir(app),
        has_asked_shell=bool(command.shell) and is_executable(command.shell),
    )


def is_executable(path: str) -> bool:
    """Return True if ``path`` is a file that this process may execute."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


def find_executable(name: str, path: str) -> str:
    """Return where a program is: ``name`` itself if it has a slash, else in the directories of ``path``.

    Raises FileNotFoundError and PermissionError, which name it.
    """
    candidates = [name] if "/" in name else [os.path.join(directory or ".", name) for directory in path.split(":")]
    denied = False
    for candidate in candidates:
        if is_executable(candidate):
            return candidate
        denied |= os.path.lexists(candidate) and "/" in name
    if denied:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def read_small_file(path: str) -> bytes | None:
    """Return the content of a regular file; None if there is none. Raises FormatError if it is too large."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        raw = bytearray()
        while piece := os.read(fd, LARGEST + 1 - len(raw)):
            raw += piece
            if len(raw) > LARGEST:
                raise FormatError(f"{show(path)} in the container has more than 1 MiB", path=path)
        return bytes(raw)
    except OSError:
        return None
    finally:
        os.close(fd)


def _scripts(*, read: bool) -> Iterator[tuple[str, bytes]]:
    """Yield names and, with ``read``, contents of the environment scripts, in the order in which a shell lists them."""
    try:
        names = sorted(name for name in os.listdir(ENVIRONMENT_DIRECTORY) if name.endswith(".sh") and not name.startswith("."))
    except OSError:
        return
    if len(names) > MOST_SCRIPTS:
        raise FormatError(f"{ENVIRONMENT_DIRECTORY} in the container has more than {MOST_SCRIPTS:,} scripts")
    for name in names:
        yield name, (read_small_file(f"{ENVIRONMENT_DIRECTORY}/{name}") or b"") if read else b""
