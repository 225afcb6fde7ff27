"""Reserved inodes checked: bad blocks (1), root (2), resize (7), journal (8), and the others below the first free one.

Source of the rules: e2fsprogs ``e2fsck/pass1.c`` (e2fsck_pass1, process_bad_block).
"""

from __future__ import annotations

from ..constants import BAD_INO, GOOD_INODE_SIZE, JOURNAL_INO, RESIZE_INO, ROOT_INO, S_IFDIR, S_IFMT, S_IFREG
from .block_walk import MapWalk, Pointer
from .context import Context
from .inode_check import InodeCheck
from .later_formats import LATER
from .metadata_relocation import BITMAP_FIELDS, MetadataPlaces
from .problem import Place, Problem
from .problems import inodes as problems
from .record import Record

__all__ = ["check_reserved"]

QUOTA_INOS = (3, 4)
BOOT_LOADER_INO = 5


def check_reserved(context: Context, checks: InodeCheck, places: MetadataPlaces, record: Record, *, low_dtime: bool) -> None:
    """Check an inode with a number below the first that files can have."""
    ino = record.ino
    checks.check_dtime(record, low_dtime=low_dtime)
    if ino not in (BAD_INO, ROOT_INO):
        _check_later_flags(context, checks, record)
    if ino == BAD_INO:
        _check_bad_blocks(context, places, record)
    elif ino == ROOT_INO:
        _check_root(context, checks, record)
    elif ino == JOURNAL_INO and context.field("s_journal_inum") == JOURNAL_INO:
        _check_mode(context, record, problems.JOURNAL_MODE, S_IFREG)
        if record.is_file and not record.links:
            record.core["i_links_count"] = 1  # its table was lost since the journal was judged
        checks.check_blocks(record)
    elif ino == JOURNAL_INO or ino in QUOTA_INOS:
        used = record.links or record.get("i_blocks") or record.words[0]
        problem = problems.JOURNAL_UNUSED if ino == JOURNAL_INO else problems.QUOTA_UNUSED
        if used and context.fix(problem, Place(ino=ino)):
            record.zero()
    else:
        _check_other(context, checks, record)
    record.save(context)


def _check_root(context: Context, checks: InodeCheck, record: Record) -> None:
    if record.form != S_IFDIR and context.fix(problems.ROOT_NOT_DIRECTORY, Place(ino=ROOT_INO)):
        record.delete(context.now)
        record.save(context)
        context.free_inode(ROOT_INO)
        return
    if not record.links:
        if not record.get("i_dtime") and record.mode and context.fix(problems.ZERO_DTIME, Place(ino=ROOT_INO)):
            record.core["i_dtime"] = context.now
        return
    checks.check_used(record)


def _check_other(context: Context, checks: InodeCheck, record: Record) -> None:
    """Check an inode that is reserved for something that ext3 does not have, or the resize inode."""
    form = record.mode & S_IFMT
    if record.ino == BOOT_LOADER_INO:
        bad = form == S_IFDIR
    elif record.ino == RESIZE_INO:
        bad = record.mode != 0 and form != S_IFREG
    else:
        bad = record.mode != 0
    if bad:
        _check_mode(context, record, problems.RESERVED_MODE, 0)
    checks.check_blocks(record)


def _check_later_flags(context: Context, checks: InodeCheck, record: Record) -> None:
    """Clear an inode with flags of later formats, other than the journal's, of which the journal's check decides."""
    journal = record.ino == JOURNAL_INO and context.field("s_journal_inum") == JOURNAL_INO
    if record.flags & LATER and not journal and context.fix(problems.EXTENTS_INVALID, Place(ino=record.ino)):
        record.zero()
    checks.check_flags(record)


def _check_mode(context: Context, record: Record, problem: Problem, want: int) -> None:
    if (want and record.form == want) or record.mode == want:
        return
    if context.fix(problem, Place(ino=record.ino), got=f"{record.mode:o}", want=f"{want:o}"):
        record.core["i_mode"] = want


# -- bad blocks ------------------------------------------------------------------------------------------------------


def _check_bad_blocks(context: Context, places: MetadataPlaces, record: Record) -> None:
    """Check the list of bad blocks, and claim what is on it."""
    fields = ("i_mode", "i_uid", "i_gid", "i_links_count", "i_file_acl")
    if (any(map(record.get, fields)) or record.flags & LATER) and context.fix(problems.BAD_BLOCKS_FIELDS, Place(ino=BAD_INO)):
        record.raw[:GOOD_INODE_SIZE] = bytes(GOOD_INODE_SIZE)
    if not any(record.words):
        return
    walk = MapWalk(context, record.words)
    entered: set[int] = set()

    def enter(pointer: Pointer) -> bool:
        fresh = places.inside(pointer.block) and pointer.block not in entered
        entered.add(pointer.block)
        return fresh

    count = len(context.census.used)
    for pointer in walk.pointers(enter):
        count -= 1
        if count < 0 or not _judge_bad_block(context, places, pointer, entered):
            walk.set(pointer, 0)
    if walk.changed:
        record.words = walk.words


def _judge_bad_block(context: Context, places: MetadataPlaces, pointer: Pointer, entered: set[int]) -> bool:
    """Claim one block of the list. Return whether it stays on the list."""
    census, block = context.census, pointer.block
    place = Place(ino=BAD_INO, block=block, logical=pointer.logical)
    if not places.inside(block):
        return not context.fix(problems.BAD_BLOCK_ILLEGAL, place)
    if pointer.level:
        if census.used[block]:
            return not context.fix(problems.BAD_BLOCK_POINTERS, place)
        census.used[block] = True
        return True
    if not census.used[block]:
        census.used[block] = True
        return True
    found = places.find(block)
    if found is None:
        if block in entered:
            return not context.fix(problems.BAD_BLOCK_POINTERS, place)
        return True
    group, name = found
    place = place._replace(group=group)
    if name == "head":
        if group == 0:
            return not context.fix(problems.BAD_BLOCK_PRIMARY, place)
        context.fix(problems.BAD_BLOCK_BACKUP, place)
    elif name in BITMAP_FIELDS:
        if context.fix(problems.BAD_BLOCK_BITMAP, place, got=BITMAP_FIELDS[name]):
            places.relocate(group, name, copy=True)
    else:
        # An image has no blocks that cannot be used. While it is on the list, its inodes would have to be given up.
        return not context.fix(problems.BAD_BLOCK_TABLE, place)
    return True
