"""Recipes of damage to the journal, and of journals that have to be replayed."""

from __future__ import annotations

from ..damage import Damage, Debugfs, Recipe

__all__ = ["RECIPES"]

HAS_JOURNAL, NEEDS_RECOVERY = 0x4, 0x4
ESCAPED = bytes.fromhex("c03b3998") + b"escaped " * 127
PLAIN = b"replayed" * 128
LOG_BLOCK = 1024

JO = "jo\n"
REPLAY = Debugfs("jo\njw -b {map[/twin:0]} FILE\njw -r {map[/file:0]}\njc", PLAIN)
"""A transaction that writes a block of /twin, and one that revokes one of /file."""


def _clear(feature: int, word: str) -> tuple[str, object]:
    return f"super.s_feature_{word}", lambda damage: damage.get(f"super.s_feature_{word}") & ~feature


def _set(feature: int, word: str) -> tuple[str, object]:
    return f"super.s_feature_{word}", lambda damage: damage.get(f"super.s_feature_{word}") | feature


_NO_FLAG = _clear(NEEDS_RECOVERY, "incompat")
_FLAG = _set(NEEDS_RECOVERY, "incompat")
_NO_JOURNAL = _clear(HAS_JOURNAL, "compat")
_NO_COPY = ("super.s_jnl_backup_type", 0)
"""The copy of the journal inode's pointers in the superblock is not valid."""


def _visible(damage: Damage) -> None:
    """The journal as the file /.journal of a mounted filesystem, as tune2fs -j makes it."""
    ino = damage.get("number[/empty]")
    journal, place = damage.inode_offset(8), damage.inode_offset(ino)
    size = damage.superblock.inode_size
    damage.data[place : place + size] = damage.data[journal : journal + size]
    damage.data[journal : journal + size] = bytes(size)
    damage.set("super.s_journal_inum", ino)
    damage.set(f"inode[{ino}].i_links_count", 1)
    damage.debugfs(f"unlink empty\nln <{ino}> .journal")


def _wrapped(damage: Damage) -> None:
    """A transaction whose log runs over the end of the journal to its beginning."""
    _moved(damage, last := damage.get("journal.s_maxlen") - 2)
    damage.set("journal.s_start", last)


def _moved(damage: Damage, start: int) -> None:
    """Move the first blocks of the log to ``start`` and on."""
    first, end = damage.get("journal.s_first"), damage.get("journal.s_maxlen")
    size = damage.size
    blocks = [damage.block_of("8", first + index) * size for index in range(8)]
    content = [bytes(damage.data[offset : offset + size]) for offset in blocks]
    for offset in blocks:
        damage.data[offset : offset + size] = bytes(size)
    at = start
    for data in content:
        offset = damage.block_of("8", at) * size
        damage.data[offset : offset + size] = data
        at = at + 1 if at + 1 < end else first


def _journal_zero(damage: Damage) -> None:
    offset = damage.block_of("8", 0) * damage.size
    damage.data[offset : offset + damage.size] = bytes(damage.size)


RECIPES = [
    # inode and superblock fields of the journal
    Recipe("journal-flag-without-journal", "ext2", "needs_recovery without journal", (_FLAG,)),
    Recipe("journal-feature-missing", "ext3", "journal inode present but has_journal clear", (_NO_JOURNAL,)),
    Recipe("journal-mode", "ext3", "journal inode invalid: mode", (("inode[8].i_mode", 0),)),
    Recipe("journal-mode-directory", "ext3", "journal inode mode not regular", (("inode[8].i_mode", 0o40755), _NO_COPY)),
    Recipe("journal-links", "ext3", "journal inode invalid: links", (("inode[8].i_links_count", 0),), clean="restored with -y only"),
    Recipe("journal-small", "ext3", "journal inode invalid: size < 1024 blocks", (("inode[8].i_size", 4096),)),
    Recipe("journal-hole", "ext3", "journal inode invalid: holes", (("map[8:5]", 0),)),
    Recipe("journal-bad-block", "ext3", "journal inode invalid: bad block", (("map[8:3]", 99_999),)),
    Recipe("journal-indirect-zero", "ext3", "journal inode invalid: holes", (("inode[8].i_block[12]", 0),)),
    Recipe("journal-indirect-bad", "ext3", "journal inode invalid: bad block", (("inode[8].i_block[13]", 99_999),)),
    Recipe("journal-hole-without-copy", "ext3", "journal inode invalid: holes", (("map[8:5]", 0), _NO_COPY)),
    Recipe("journal-bad-without-copy", "ext3", "journal inode invalid: bad block", (("map[8:3]", 99_999), _NO_COPY)),
    Recipe("journal-inside-pointers", "ext3", "journal inode invalid: bad block", (("map[8:300]", 99_999),)),
    Recipe("journal-cleared", "ext3", "journal inode invalid", (lambda d: d.set(f"byte[{d.inode_offset(8)}]", bytes(128)),)),
    Recipe("journal-cleared-without-copy", "ext3", "journal inode invalid", (lambda d: d.set(f"byte[{d.inode_offset(8)}]", bytes(128)), _NO_COPY)),
    Recipe("journal-cleared-dirty", "ext3", "journal inode invalid", (REPLAY, lambda d: d.set(f"byte[{d.inode_offset(8)}]", bytes(128)))),
    Recipe("journal-inum", "ext3", "journal inode invalid", (("super.s_journal_inum", 77),),
           apart="inode 8 is the journal still; e2fsck makes another inode one"),
    Recipe("journal-inum-file", "ext3", "journal inode invalid", (("super.s_journal_inum", "number[/file]"),),
           apart="inode 8 is the journal still; e2fsck makes the file one, and what it held is lost"),
    Recipe("journal-inum-zero", "ext3", "journal inode invalid", (("super.s_journal_inum", 0),)),
    Recipe("journal-inum-large", "ext3", "journal inode invalid", (("super.s_journal_inum", 99_999),)),
    Recipe("journal-external", "ext3", "external journal that is not there", (("super.s_journal_dev", 0x0801), ("super.s_journal_inum", 0)),
           apart="a journal elsewhere may hold changes: it is named, not dropped"),
    Recipe("journal-unused-inode-8", "ext2", "journal inode 8 filled but not in use", (("inode[8].i_mode", 0o100600), ("inode[8].i_links_count", 1))),
    Recipe("journal-blocks-stale", "ext3", "s_jnl_blocks stale", (("super.s_jnl_blocks[3]", 1),), clean="set without a word"),
    Recipe("journal-blocks-missing", "ext3", "s_jnl_blocks stale", (_NO_COPY,), clean="set without a word"),
    Recipe("journal-visible", "ext3", "visible /.journal file as journal inode", (_visible,), clean="moved without a word"),
    Recipe("journal-i-blocks", "ext3", "i_blocks wrong", (("inode[8].i_blocks", 3),)),
    Recipe("journal-uuid", "ext3", "UUID of the journal", (("journal.s_uuid", b"x" * 16),), clean="not compared"),
    # the journal's superblock
    Recipe("journal-superblock-magic", "ext3", "journal superblock corrupt", (("journal.h_magic", 0),)),
    Recipe("journal-superblock-zero", "ext3", "journal superblock corrupt", (_journal_zero,)),
    Recipe("journal-superblock-zero-dirty", "ext3", "journal superblock corrupt", (REPLAY, _journal_zero)),
    Recipe("journal-superblock-type", "ext3", "journal superblock corrupt", (("journal.h_blocktype", 1),)),
    Recipe("journal-superblock-maxlen", "ext3", "journal superblock corrupt", (("journal.s_maxlen", 5000),)),
    Recipe("journal-superblock-short", "ext3", "journal shorter than its inode", (("journal.s_maxlen", 1000),), clean="a shorter journal is good"),
    Recipe("journal-superblock-blocksize", "ext3", "journal superblock corrupt", (("journal.s_blocksize", 4096),)),
    Recipe("journal-superblock-first", "ext3", "journal superblock corrupt", (("journal.s_first", 5000),), clean="not looked at while there is nothing to replay",
           apart="the kernel refuses such a journal, also an empty one"),
    Recipe("journal-superblock-start", "ext3", "journal superblock corrupt", (("journal.s_start", 5000),)),
    Recipe("journal-feature-incompat", "ext3", "unknown incompat journal feature", (("journal.s_feature_incompat", 0x8000),),
           apart="a journal with unknown features is named, not read"),
    Recipe("journal-feature-ro-compat", "ext3", "unknown ro journal feature", (("journal.s_feature_ro_compat", 0x8000),),
           apart="a journal with unknown features is named, not read"),
    Recipe("journal-feature-compat", "ext3", "unknown compat journal feature", (("journal.s_feature_compat", 0x8000),), clean="such features change nothing for readers"),
    Recipe("journal-version-1", "ext3", "v1 journal with v2 fields", (("journal.h_blocktype", 3), ("journal.s_nr_users", 1), ("journal.s_feature_compat", 1)), clean="only a note"),
    Recipe("journal-errno", "ext3", "errno in the journal", (("journal.s_errno", 0xFFFFFFFB),)),
    Recipe("journal-errno-dirty", "ext3", "errno in the journal", (REPLAY, ("journal.s_errno", 0xFFFFFFFB)), clean="not replayed with -n"),
    Recipe("journal-sequence-zero", "ext3", "sequence zero", (("journal.s_sequence", 0),), clean="a number only"),
    # a log to replay
    Recipe("log", "ext3", "replay", (Debugfs("jo\njw -b {map[/twin:0]} FILE\njc", PLAIN),), clean="not replayed with -n"),
    Recipe("log-128", "ext3-128", "replay", (REPLAY,), clean="not replayed with -n"),
    Recipe("log-4k", "4k", "replay", (Debugfs("jo\njw -b {map[/twin:0]} FILE\njc", PLAIN * 4),), clean="not replayed with -n"),
    Recipe("log-escaped", "ext3", "replay of an escaped block", (Debugfs("jo\njw -b {map[/twin:0]} FILE\njc", ESCAPED),), clean="not replayed with -n"),
    Recipe("log-revoke", "ext3", "replay with a revoke", (
        Debugfs("jo\njw -b {map[/twin:0]} FILE\njw -b {map[/twin:1]} FILE\njw -r {map[/twin:0]}\njc", PLAIN),), clean="not replayed with -n"),
    Recipe("log-revoke-then-write", "ext3", "replay of a block written again after its revoke", (
        Debugfs("jo\njw -r {map[/twin:0]}\njw -b {map[/twin:0]} FILE\njc", PLAIN),), clean="not replayed with -n"),
    Recipe("log-uncommitted", "ext3", "replay without a commit block", (Debugfs("jo\njw -b {map[/twin:0]} FILE -c\njc", PLAIN),), clean="not replayed with -n"),
    Recipe("log-wrapped", "ext3", "replay of a log that wraps around", (REPLAY, _wrapped), clean="not replayed with -n"),
    Recipe("log-flag-missing", "ext3", "journal has data, flag clear", (REPLAY, _NO_FLAG)),
    Recipe("log-flag-without-data", "ext3", "flag without data", (_FLAG,), clean="not replayed with -n"),
    Recipe("log-superblock", "ext3", "replay over the superblock", (
        lambda d: d.debugfs("jo\njw -b 1 FILE\njc", bytes(d.data[1024:2048])),), clean="not replayed with -n"),
    Recipe("log-superblock-garbage", "ext3", "replay of a superblock that is none", (Debugfs("jo\njw -b 1 FILE\njc", PLAIN),), clean="not replayed with -n"),
    Recipe("log-bitmap", "ext3", "replay over a bitmap", (
        Debugfs("jo\njw -b {group[1].bg_block_bitmap} FILE\njc", b"\xff" * 1024),), clean="not replayed with -n"),
    Recipe("log-inode-table", "ext3", "replay over an inode table", (
        Debugfs("jo\njw -b {group[0].bg_inode_table} FILE\njc", bytes(1024)),), clean="not replayed with -n"),
    Recipe("log-directory", "ext3", "replay over a directory", (Debugfs("jo\njw -b {map[/dir:0]} FILE\njc", PLAIN),), clean="not replayed with -n"),
    Recipe("log-far-block", "ext3", "replay of a block outside of the filesystem", (Debugfs("jo\njw -b 12287 FILE\njc", PLAIN),), clean="not replayed with -n"),
    Recipe("log-descriptor-damaged", "ext3", "replay, descriptor damaged", (
        REPLAY, lambda d: d.set(f"log[{d.get('journal.s_first')}].h_magic", 0)), clean="not replayed with -n"),
    Recipe("log-descriptor-far", "ext3", "replay, tag of a block outside of the filesystem", (
        REPLAY, lambda d: d.set(f"block[{d.block_of('8', d.get('journal.s_first'))}:12]", b"\0\x0f\0\0")), clean="not replayed with -n", apart="a log that leads out of the filesystem is dropped, and that is said"),
    Recipe("log-commit-damaged", "ext3", "replay, commit block damaged", (
        REPLAY, lambda d: d.set(f"log[{d.get('journal.s_first') + 2}].h_sequence", 99)), clean="not replayed with -n"),
    Recipe("log-revoke-count", "ext3", "replay, count of a revoke block too large", (
        REPLAY, lambda d: d.set(f"block[{d.block_of('8', d.get('journal.s_first') + 3)}:12]", b"\0\0\xff\xff")), clean="not replayed with -n"),
    Recipe("log-with-orphan", "ext3", "replay, then an orphan", (
        Debugfs("unlink third\nsif <{number[/third]}> links_count 0\nssv last_orphan {number[/third]}"), REPLAY)),
    Recipe("log-error-bit", "ext3", "replay with the error bit", (REPLAY, ("super.s_state", 3)), clean="not replayed with -n"),
    Recipe("log-file-block-hole", "ext3", "journal to replay has a hole", (REPLAY, ("map[8:2]", 0))),
    Recipe("log-inode-table-and-damage", "ext3", "replay, then faults", (REPLAY, ("inode[/file].i_links_count", 9))),
]  # fmt: skip
