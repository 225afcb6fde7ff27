"""New journal in place of one that was dropped.

Contract: comes before pass 5, which writes the bitmaps and counts of what is allocated here.
Source: e2fsprogs ``lib/ext2fs/mkjournal.c`` (ext2fs_add_journal_inode).
"""

from __future__ import annotations

from .context import Context

__all__ = ["make_journal"]


def make_journal(context: Context) -> None:
    """TODO."""
