"""Journal: its inode and superblock judged, its log replayed, a broken one dropped.

Contract: comes before all other repairs, since what the log holds is newer than anything on storage. Where the policy writes,
the log is replayed on the image itself, and the context reads it anew. Afterwards needs_recovery is clear and the log empty.
Source: e2fsprogs ``e2fsck/journal.c``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..constants import (
    JBD_MAGIC,
    JOURNAL_BACKUP_BLOCKS,
    JOURNAL_INO,
    MIN_JOURNAL_BLOCKS,
    N_BLOCKS,
    S_IFREG,
    STATE_ERROR,
    Compat,
    Incompat,
    JournalBlock,
)
from ..device.block_overlay import BlockOverlay
from ..errors import CorruptError, DeviceError, Ext3Error, UnsupportedError
from ..format.block_map import Extents
from ..format.group_desc_columns import outside_group
from ..format.inode import Inode, parse_inode
from ..format.jbd_schema import JOURNAL_SUPERBLOCK
from ..format.schema import INODE_CORE
from ..format.superblock import limit_violations
from ..format.violation import Violation
from ..journal.log import (
    Journal,
    Replay,
    check_journal_features,
    journal_extents,
    journal_violations,
    parse_journal,
    scan_log,
)
from ..journal.replay import played_back, recover
from .context import Context, GaveUp, Reopen
from .journal_move import hide_journal
from .problem import Place
from .problems.journal import (
    JOURNAL_BACKUP,
    JOURNAL_DATA,
    JOURNAL_ERROR,
    JOURNAL_FAR_BLOCK,
    JOURNAL_FEATURES,
    JOURNAL_FIRST,
    JOURNAL_HEAD,
    JOURNAL_INODE,
    JOURNAL_INODE_FROM_BACKUP,
    JOURNAL_LOG,
    JOURNAL_NUMBER,
    JOURNAL_RESET,
    JOURNAL_START,
    JOURNAL_UNUSED,
    JOURNAL_VERSION_1,
    RECOVERY_WITHOUT_JOURNAL,
)
from .storage import RepairStorage
from .superblock_check import check_locations

__all__ = ["check_journal", "empty_journal_superblock"]

V2_FIELDS = ("s_feature_compat", "s_feature_incompat", "s_feature_ro_compat", "s_nr_users")
UNKNOWN = ("journal_incompat_", "journal_ro_compat_")
NO_UUID = bytes(16)


class _File(NamedTuple):
    """Journal file: its inode and its extents."""

    inode: Inode
    extents: Extents

    @property
    def first_block(self) -> int:
        """Filesystem block of its superblock."""
        return self.extents[0][1]


def check_journal(context: Context) -> None:
    """Check the journal and replay it. Raise UnsupportedError for one that is not ext3's, or lies on another device."""
    superblock = context.superblock
    if not superblock.has_journal and not _fields_cleared(context):
        return
    if not context.superblock.journal_ino and (superblock.journal_dev or superblock.journal_uuid.int):
        raise UnsupportedError(["external_journal"], hint="the journal is on another device, which must be checked with it")
    lost = not _inode_has_a_place(context)
    if lost:
        check_locations(context)
        context.write_groups()
    file = _check_inode(context)
    journal = None if file is None else _check_superblock(context, file)
    if journal is not None and _check_log(context, journal):
        # What the log held may have changed everything, but there is no log any more.
        check_journal(context)
        return
    if lost and file is not None:
        _drop(context, f"journal inode {context.superblock.journal_ino}: its inode table is lost")
    if context.options.journal_only:
        return
    _check_backup(context)
    hide_journal(context)


def _inode_has_a_place(context: Context) -> bool:
    """Return False if the descriptors do not tell where the journal's inode lies: a place in another group is none."""
    superblock = context.superblock
    ino = superblock.journal_ino
    if not 0 < ino <= superblock.inodes_count:
        return True
    group, _ = superblock.geometry.group_of_inode(ino)
    outside = outside_group(superblock, context.groups, "bg_inode_table")
    return bool(context.groups["bg_inode_table"][group]) and not outside[group]


def _check_log(context: Context, journal: Journal) -> bool:
    """Replay the log, or decide that it needs none. Return True if it was replayed."""
    if context.superblock.needs_recovery or _replay_anyway(context, journal):
        return _replay(context, journal)
    if journal.errno:
        context.fix(JOURNAL_ERROR, got=journal.errno)
        context.set_superblock(s_state=context.superblock.state | STATE_ERROR)
        _write_superblock(context, journal, {"s_errno": 0})
    return False


def _fields_cleared(context: Context) -> bool:
    """Clear the fields of a journal in a superblock without the feature. Return True if the journal is to be used after all."""
    superblock = context.superblock
    incompat = superblock.incompat
    if superblock.journal_ino or superblock.journal_dev or superblock.journal_uuid.int:
        if not context.fix(JOURNAL_UNUSED, got=superblock.journal_ino):
            context.set_superblock(s_feature_compat=superblock.compat | Compat.HAS_JOURNAL)
            return True
        context.set_superblock(s_journal_inum=0, s_journal_dev=0, s_journal_uuid=np.void(NO_UUID))
        context.must_check = context.write_backups = True
    if superblock.needs_recovery:
        if not context.fix(RECOVERY_WITHOUT_JOURNAL):
            raise GaveUp("the filesystem needs the replay of a journal that it does not have")
        context.set_superblock(s_feature_incompat=incompat & ~Incompat.NEEDS_RECOVERY)
        context.must_check = True
    return False


# -- the inode -----------------------------------------------------------------------------------------------------------


def _check_inode(context: Context) -> _File | None:
    """Return the journal's file. A broken inode is written from its copy in the superblock, or the journal is dropped."""
    superblock = context.superblock
    ino = superblock.journal_ino
    try:
        if not 0 < ino <= superblock.inodes_count:
            raise CorruptError("superblock", "s_journal_inum", ino, f"from 1 to {superblock.inodes_count}")
        return _file(context, ino)
    except CorruptError as error:
        found = _hidden(context) or _from_backup(context, error)
        if found is None:
            _drop(context, str(error))
        return found


def _file(context: Context, ino: int, raw: bytes = b"") -> _File:
    """Return the journal file of an inode, with the record ``raw`` if that is given. Raise CorruptError if it is none."""
    superblock = context.superblock
    # Only the first 128 bytes matter: pass 1 repairs the extra area.
    inode = parse_inode((raw or context.read_inode(ino))[: INODE_CORE.size], ino)
    where = f"journal inode {inode.stat.ino}"
    extents = journal_extents(context.storage, superblock, inode)
    if extents.blocks < MIN_JOURNAL_BLOCKS:
        raise CorruptError(where, "i_size", inode.stat.size, f"at least {MIN_JOURNAL_BLOCKS} blocks")
    geometry = superblock.geometry
    blocks = np.concatenate([np.arange(first, first + count) for _, first, count in extents])
    group, place = np.divmod(blocks - superblock.first_data_block, superblock.blocks_per_group)
    inside = place < geometry.columns.head_blocks[group]
    if inside.any():
        raise CorruptError(where, "block map", int(blocks[inside][0]), "no block of a superblock or of descriptors")
    return _File(inode, extents)


def _hidden(context: Context) -> _File | None:
    """Return the journal in inode 8 if the superblock names another inode, and make it the one named."""
    ino = context.superblock.journal_ino
    if ino == JOURNAL_INO:
        return None
    try:
        found = _file(context, JOURNAL_INO)
    except CorruptError:
        return None
    if not context.fix(JOURNAL_NUMBER, got=ino, want=JOURNAL_INO):
        return None
    context.set_superblock(s_journal_inum=JOURNAL_INO)
    context.must_check = context.write_backups = True
    return found


def _from_backup(context: Context, error: CorruptError) -> _File | None:
    """Return the journal that the superblock's copy of its inode describes, and write the inode; None if that is broken too."""
    superblock = context.superblock
    ino, backup = superblock.journal_ino, superblock.journal_backup
    if superblock.journal_backup_type != JOURNAL_BACKUP_BLOCKS or not 0 < ino <= superblock.inodes_count:
        return None
    core = INODE_CORE.zeros()
    row = core[0]
    row["i_mode"], row["i_links_count"] = S_IFREG | 0o600, 1
    row["i_block"] = backup[:N_BLOCKS]
    row["i_size_high"], row["i_size"] = backup[N_BLOCKS], backup[N_BLOCKS + 1]
    try:
        found = _file(context, ino, core.tobytes())
    except CorruptError:
        return None
    if not context.fix(JOURNAL_INODE_FROM_BACKUP, Place(ino=ino), got=str(error), want=None):
        return None
    if _inode_has_a_place(context):
        context.write_inode(ino, core.tobytes().ljust(superblock.inode_size, b"\0"))
    context.must_check = True  # pass 1 counts its i_blocks
    return found


def _drop(context: Context, why: str) -> None:
    """Take the journal out of the superblock. Pass 1 clears its inode, and a new journal is made after the passes."""
    superblock = context.superblock
    if not context.fix(JOURNAL_INODE, Place(ino=superblock.journal_ino or None), got=why):
        raise GaveUp("the filesystem cannot be checked without its journal")
    context.set_superblock(
        s_feature_compat=superblock.compat & ~Compat.HAS_JOURNAL,
        s_feature_incompat=superblock.incompat & ~Incompat.NEEDS_RECOVERY,
        s_journal_inum=0,
        s_jnl_blocks=0,
    )
    context.make_journal = context.must_check = context.write_backups = True


# -- the superblock of the journal ---------------------------------------------------------------------------------------


def empty_journal_superblock(context: Context, blocks: int) -> bytes:
    """Return the first block of an empty journal of so many blocks. Its sequence number matches nothing that lies there."""
    table = JOURNAL_SUPERBLOCK.zeros()
    row = table[0]
    row["h_magic"], row["h_blocktype"] = JBD_MAGIC, JournalBlock.SUPERBLOCK_V2
    row["s_blocksize"], row["s_maxlen"], row["s_first"] = context.block_size, blocks, 1
    row["s_sequence"], row["s_nr_users"] = context.stamp.journal_sequence, 1
    row["s_uuid"] = np.void(context.superblock.uuid.bytes)
    return table.tobytes().ljust(context.block_size, b"\0")


def _check_superblock(context: Context, file: _File) -> Journal | None:
    """Return the journal; None if it is empty since its superblock was written anew."""
    place = file.first_block * context.block_size
    raw = context.storage.read(place, JOURNAL_SUPERBLOCK.size)
    violations = list(journal_violations(raw, context.block_size, file.extents.blocks))
    if violations and violations[0].field in ("s_first", "s_start"):
        raw, violations = _with_first_block(context, file, raw, violations)
    fields = JOURNAL_SUPERBLOCK.record(raw)
    if fields["h_magic"] == JBD_MAGIC and fields["h_blocktype"] > JournalBlock.REVOKE:
        raise UnsupportedError([f"journal_superblock_type_{fields['h_blocktype']}"])
    # Only a journal on a device of its own can have several users: then the fields of version 2 mean nothing.
    senseless = fields["s_nr_users"] > 1
    if fields["h_magic"] == JBD_MAGIC and fields["h_blocktype"] == JournalBlock.SUPERBLOCK_V2 and not senseless:
        _check_features(context, raw)
    if violations:
        # Without needs_recovery nothing in the log counts: where it begins does not matter then.
        unused = violations[0].field == "s_start" and not context.superblock.needs_recovery
        problem = JOURNAL_START if unused else JOURNAL_HEAD
        if not context.fix(problem, Place(block=file.first_block), got=str(violations[0])):
            raise GaveUp("the filesystem cannot be checked without its journal")
        context.storage.write(place, empty_journal_superblock(context, file.extents.blocks))
        _clear_recovery(context)
        context.must_check = True
        return None
    journal = parse_journal(raw, file.extents)
    if senseless or (journal.version == 1 and any(fields[name] for name in V2_FIELDS)):
        context.fix(JOURNAL_VERSION_1)
        cleared: dict[str, object] = dict.fromkeys(V2_FIELDS, 0)
        journal = _write_superblock(context, journal, cleared)
    return journal


def _with_first_block(context: Context, file: _File, raw: bytes, violations: list[Violation]) -> tuple[bytes, list[Violation]]:
    """Return the superblock with the log's first block as every journal has it, if only that is wrong; else what was given.

    It matters only where the log wraps around, so that it is no reason to lose the log.
    """
    changed = bytearray(raw)
    row = JOURNAL_SUPERBLOCK.view(changed)[0]
    got, row["s_first"] = int(row["s_first"]), 1
    left = list(journal_violations(bytes(changed), context.block_size, file.extents.blocks))
    if left or got == 1:
        return raw, violations
    context.fix(JOURNAL_FIRST, Place(block=file.first_block), got=got, want=1)
    context.storage.write(file.first_block * context.block_size, changed)
    return bytes(changed), left


def _check_features(context: Context, raw: bytes) -> None:
    """Raise UnsupportedError for features that are not ext3's; preening stops at unknown ones."""
    try:
        check_journal_features(raw)
    except UnsupportedError as error:
        if all(name.startswith(UNKNOWN) for name in error.features):
            context.fix(JOURNAL_FEATURES, got=", ".join(error.features))
        raise


def _write_superblock(context: Context, journal: Journal, fields: dict[str, object]) -> Journal:
    """Change fields of the journal superblock. Return the journal with them."""
    raw = bytearray(journal.raw)
    row = JOURNAL_SUPERBLOCK.view(raw)[0]
    for name, value in fields.items():
        row[name] = value
    context.storage.write(journal.offset(0), raw)
    return parse_journal(bytes(raw), journal.extents)


def _clear_recovery(context: Context) -> None:
    incompat = context.superblock.incompat
    if incompat & Incompat.NEEDS_RECOVERY:
        context.set_superblock(s_feature_incompat=incompat & ~Incompat.NEEDS_RECOVERY)


# -- the log -------------------------------------------------------------------------------------------------------------


def _replay_anyway(context: Context, journal: Journal) -> bool:
    """Decide what becomes of a log that is not empty although the superblock says so. Return True to replay it.

    A backup superblock never says that there is something to replay.
    """
    if not journal.start:
        return False
    if context.fix(JOURNAL_DATA):
        incompat = context.superblock.incompat
        context.set_superblock(s_feature_incompat=incompat | Incompat.NEEDS_RECOVERY)
        context.must_check = True
        return True
    if context.fix(JOURNAL_RESET):
        _reset(context, journal)
        context.must_check = True
    return False


def _reset(context: Context, journal: Journal) -> None:
    """Empty the log, with a sequence number that matches nothing in it."""
    _write_superblock(context, journal, {"s_start": 0, "s_errno": 0, "s_sequence": context.stamp.journal_sequence})


def _replay(context: Context, journal: Journal) -> bool:
    """Replay the log, and read the filesystem anew. Return False if it cannot be replayed, and was emptied.

    Raises Reopen.
    """
    writes = context.policy.writes
    try:
        if writes:
            context.write_out()
            replay = recover(context.storage.base, context.superblock, journal, leave_out=True)
            context.storage.flushed = True
        else:
            replay = _replay_in_memory(context, journal)
    except DeviceError:
        raise
    except Ext3Error as error:
        if not context.fix(JOURNAL_LOG, got=str(error)):
            raise GaveUp("the filesystem cannot be checked before its journal is replayed") from error
        _reset(context, journal)
        _clear_recovery(context)
        context.must_check = True
        return False
    context.report.replayed += replay.transactions
    for block in replay.outside:
        context.fix(JOURNAL_FAR_BLOCK, Place(block=block))
        context.must_check = True
    try:
        context.reload()
        for violation in limit_violations(context.raw):
            raise violation.error
    except CorruptError as error:
        raise Reopen(context.storage.base if writes else context.storage, error) from error
    if context.superblock.unsupported_features:
        raise UnsupportedError(context.superblock.unsupported_features)
    if not writes:
        _clear_recovery(context)
        if journal.errno:
            context.set_superblock(s_state=context.superblock.state | STATE_ERROR)
    return True


def _replay_in_memory(context: Context, journal: Journal) -> Replay:
    """Put the log's blocks over the image, which stays as it is."""
    superblock, storage = context.superblock, context.storage
    replay = scan_log(storage, journal, blocks_count=superblock.blocks_count, leave_out=True)
    view: BlockOverlay = played_back(storage, superblock, replay)
    context.storage = RepairStorage(view, superblock.block_size)
    _write_superblock(context, journal, {"s_start": 0, "s_errno": 0, "s_sequence": replay.next_sequence})
    return replay


def _check_backup(context: Context) -> None:
    """Update the copy of the journal's inode in the superblock."""
    superblock = context.superblock
    ino = superblock.journal_ino
    if not superblock.has_journal or not ino:
        return
    core = INODE_CORE.view(context.read_inode(ino))[0]
    words = [*core["i_block"].tolist(), int(core["i_size_high"]), int(core["i_size"])]
    if superblock.journal_backup_type in (0, JOURNAL_BACKUP_BLOCKS) and (
        superblock.journal_backup_type == 0 or words[:N_BLOCKS] != list(superblock.journal_backup[:N_BLOCKS])
    ):
        context.fix(JOURNAL_BACKUP)
        context.set_superblock(s_jnl_backup_type=JOURNAL_BACKUP_BLOCKS, s_jnl_blocks=words)
        context.write_backups = True
