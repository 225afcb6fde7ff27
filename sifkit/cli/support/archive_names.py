"""Names of tar archives, for hints."""

from __future__ import annotations

__all__ = ["is_archive_name"]

_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tzst", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.zstd")


def is_archive_name(name: str) -> bool:
    """True if a file of this name should be a tar archive, which may be compressed."""
    return name.lower().endswith(_SUFFIXES)
