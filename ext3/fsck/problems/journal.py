"""Problems of the journal. Source of what preening does with each: e2fsprogs ``e2fsck/problem.c``."""

from __future__ import annotations

from ..problem import PreenAnswer, Problem

JOURNAL_UNUSED = Problem(
    "journal-not-a-feature",
    "superblock: s_journal_inum is {got} without the feature has_journal",
    "clear the journal's fields",
    preen=PreenAnswer.REPAIR,
)
RECOVERY_WITHOUT_JOURNAL = Problem(
    "journal-recovery-without-journal",
    "superblock: needs_recovery is set, but there is no journal",
    "clear it",
    preen=PreenAnswer.REPAIR,
)
JOURNAL_INODE = Problem(
    "journal-inode", "{got}: it cannot be the journal", "drop the journal, and make a new one", preen=PreenAnswer.REPAIR
)
JOURNAL_INODE_FROM_BACKUP = Problem(
    "journal-inode-from-backup",
    "{got}: it cannot be the journal, but the copy of it in the superblock is sound",
    "write the inode from the copy",
    preen=PreenAnswer.REPAIR,
)
JOURNAL_NUMBER = Problem(
    "journal-number",
    "superblock: s_journal_inum is {got}, which is no journal; that is in inode {want}",
    "set it",
    preen=PreenAnswer.REPAIR,
)
JOURNAL_HEAD = Problem("journal-superblock", "{got}", "write a new one, of an empty journal", preen=PreenAnswer.REPAIR)
JOURNAL_START = Problem("journal-start", "the journal holds transactions, but {got}", "empty it")
JOURNAL_FEATURES = Problem("journal-features", "journal superblock: unknown features: {got}", "give up")
JOURNAL_LOG = Problem(
    "journal-log", "the journal cannot be replayed: {got}", "empty it, and check everything", preen=PreenAnswer.REPAIR
)
JOURNAL_DATA = Problem(
    "journal-data", "the journal holds transactions, but needs_recovery is clear", "replay it", uncounted=True
)
JOURNAL_FAR_BLOCK = Problem(
    "journal-far-block", "the journal holds content for block {block}, outside of the filesystem; it is left out", note=True
)
JOURNAL_RESET = Problem("journal-reset", "the journal holds transactions that are not replayed", "empty it")
JOURNAL_VERSION_1 = Problem(
    "journal-version", "journal superblock: version 1, with fields of version 2; they are cleared", note=True
)
JOURNAL_FIRST = Problem(
    "journal-first-block", "journal superblock: s_first is {got}, where the log begins; it is set to {want}", note=True
)
JOURNAL_ERROR = Problem("journal-errno", "journal superblock: s_errno is {got}; a full check follows", note=True)
JOURNAL_BACKUP = Problem(
    "journal-inode-backup", "superblock: the copy of the journal inode is not up to date; it is written", note=True
)
JOURNAL_VISIBLE = Problem("journal-visible", "inode {ino}: the journal is the file /{got}; it becomes inode {want}", note=True)
JOURNAL_MISSING = Problem(
    "journal-missing", "the journal was dropped", "make a new one of {want} blocks", preen=PreenAnswer.REPAIR
)
JOURNAL_NO_ROOM = Problem("journal-no-room", "no room for a new journal of {want} blocks: the filesystem has none")
JOURNAL_OLD_INODE = Problem("journal-old-inode", "inode {ino}: still in use, so that there is no new journal")
