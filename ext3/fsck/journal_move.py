"""Journal that is a visible file, as tune2fs makes it on a mounted filesystem: it becomes the hidden inode 8.

Source: e2fsprogs ``e2fsck/journal.c`` (e2fsck_move_ext3_journal).
"""

from __future__ import annotations

from .context import Context

__all__ = ["hide_journal"]


def hide_journal(context: Context) -> None:
    """TODO."""
