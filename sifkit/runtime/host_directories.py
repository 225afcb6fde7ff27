"""Directories of the caller that hold unpacked trees: names counted, trees removed, whatever their modes and depth."""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["count_names", "remove_tree"]


def count_names(top: str) -> int:
    """Return the number of names below a directory. What the caller may not list counts as empty."""
    count = 0
    pending = [top]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    count += 1
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except OSError:
            continue
    return count


def remove_tree(top: str) -> None:
    """Remove a directory of the caller's and all below it; one that is missing is removed. Raises OSError.

    A directory is moved up before it is emptied, so that no path grows longer than the system allows.
    """
    with suppress(FileNotFoundError):
        _open_up(top)
        pending = [top]
        moved = 0
        while pending:
            directory = pending[-1]
            with os.scandir(directory) as entries:
                below = list(entries)
            for entry in below:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                _open_up(entry.path)
                if directory == top:
                    pending.append(entry.path)
                    continue
                moved += 1
                name = f"{top}/.removed-{moved}"
                while os.path.lexists(name):
                    moved += 1
                    name = f"{top}/.removed-{moved}"
                os.rename(entry.path, name)
                pending.append(name)
            if not below or directory != top:
                os.rmdir(directory)
                pending.remove(directory)


def _open_up(directory: str) -> None:
    os.chmod(directory, 0o700)
