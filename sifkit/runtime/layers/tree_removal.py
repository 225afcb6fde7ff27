"""Unpacked trees on the host: their names counted, and the trees removed, whatever their modes and their depth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

__all__ = ["count_names", "remove_tree"]


def count_names(top: str) -> int:
    """Return the number of names below a directory. One that the caller may not list counts as empty."""
    found = 0
    pending = [top]
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                found += 1
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return found


def remove_tree(top: str) -> None:
    """Remove a directory of the caller's and all that is in it; none is needed there. Raises OSError.

    Directories in directories are moved to the top first, so that no path becomes longer than the system allows.
    """
    names = (f"{top}/.removed-{number}" for number in count())
    try:
        os.chmod(top, 0o700)
    except FileNotFoundError:
        return
    while below := _entries(top):
        for entry in below:
            if entry.is_dir(follow_symlinks=False):
                _remove_directory(entry.path, names)
            else:
                os.unlink(entry.path)
    os.rmdir(top)


def _entries(directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return list(entries)


def _remove_directory(path: str, names: Iterator[str]) -> None:
    """Remove a directory; those in it are moved to ``names`` first."""
    os.chmod(path, 0o700)
    for entry in _entries(path):
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o700)  # its entry .. is changed
            os.rename(entry.path, next(name for name in names if not os.path.lexists(name)))
        else:
            os.unlink(entry.path)
    os.rmdir(path)
