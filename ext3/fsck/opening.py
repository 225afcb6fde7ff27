"""Opening of a filesystem whose superblock may be damaged: a backup takes its place, or a value that is known is put right.

Repairs are made in memory; ``accept_superblock`` has them decided on, and writes them before anything else is changed, since
the replay of the journal reads the image itself. Source: e2fsprogs ``e2fsck/unix.c`` (try_open_fs, main).
"""

from __future__ import annotations

from ..constants import (
    EXT3_MAGIC,
    FIRST_INO,
    MIN_BLOCK_SIZE,
    MIN_INODE_SIZE,
    STATE_ERROR,
    STATE_VALID,
    SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE,
)
from ..device.base import BlockDevice
from ..errors import CorruptError, Ext3Error, UnsupportedError
from ..format.geometry import group_count
from ..format.group_desc_columns import read_group_columns
from ..format.schema import GROUP_DESC, SUPERBLOCK
from ..format.superblock import Superblock, limit_violations, parse_superblock, read_superblock, superblock_violations
from ..newfs.stamp import Stamp
from .backup_superblocks import BackupSuperblock, backup_at, descriptors_sound, find_backup, locations_differ
from .context import CheckOptions, Context, GaveUp
from .finding import Finding, Report
from .policy import Policy, Preen, Stopped
from .problem import Place
from .problems.volume import (
    DEVICE_TOO_SMALL,
    INODES_COUNT,
    INODES_PER_GROUP,
    REVISION_0,
    SUPERBLOCK_COPY_CHOSEN,
    SUPERBLOCK_UNUSABLE,
)
from .storage import RepairStorage, Stage

__all__ = ["accept_superblock", "open_context"]


def open_context(
    device: BlockDevice,
    policy: Policy,
    report: Report,
    stamp: Stamp,
    options: CheckOptions,
) -> Context:
    """Return the context of a check of ``device``.

    A superblock that cannot be used is replaced by a backup, except when preening; the rest of the check must begin with
    ``accept_superblock``. Raise NotExt3Error, UnsupportedError or CorruptError if there is no superblock to go on with.
    """
    raw = device.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE) if device.size >= SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE else b""
    findings: list[Finding] = []
    backup: BackupSuperblock | None = None
    if options.superblock:
        backup = backup_at(device, options.superblock, options.block_size)
        findings.append(Finding(SUPERBLOCK_COPY_CHOSEN, Place(), None, backup.block))
    else:
        raw = _with_revision(raw, findings)
        error = _fault(device, raw)
        if error is not None and not isinstance(policy, Preen):
            backup = find_backup(device)
            if backup is not None:
                findings = [Finding(SUPERBLOCK_UNUSABLE, Place(), str(error), backup.block)]
        if error is not None and backup is None:
            _stop_at_size(device, raw, policy)
            raw = _with_inodes_count(device, raw, findings, error)
    if backup is not None:
        raw = backup.raw
    _require_ext3(parse_superblock(raw, device_size=device.size))
    storage = RepairStorage(device, MIN_BLOCK_SIZE << SUPERBLOCK.record(raw)["s_log_block_size"])
    if findings:
        _write_primary(storage, raw, backup)
    context = Context(storage, policy, report, stamp, options)
    context.opening = findings
    return context


def _stop_at_size(device: BlockDevice, raw: bytes, policy: Policy) -> None:
    """Preen: set the error bit of a filesystem that is larger than its device, and raise Stopped."""
    if not isinstance(policy, Preen) or not raw or SUPERBLOCK.record(raw)["s_magic"] != EXT3_MAGIC:
        return
    violations = list(superblock_violations(raw, device_size=device.size))
    if len(violations) != 1 or not isinstance(violations[0].got, int):
        return
    block_size = MIN_BLOCK_SIZE << SUPERBLOCK.record(raw)["s_log_block_size"]
    if violations[0].field != "s_blocks_count" or violations[0].got <= device.size // block_size:
        return
    storage = RepairStorage(device, block_size)
    _set_error(storage)
    storage.flush(final=True)
    policy.repairs(Finding(DEVICE_TOO_SMALL, Place(), violations[0].got, violations[0].want))


def _require_ext3(superblock: Superblock) -> None:
    if superblock.unsupported_features:
        raise UnsupportedError(superblock.unsupported_features, hint="only ext2 and ext3 are checked")


def _fault(device: BlockDevice, raw: bytes) -> Ext3Error | None:
    """Return why the primary superblock or its descriptors cannot be used. Raise UnsupportedError: no backup helps then."""
    try:
        superblock = _parse(device, raw)
    except UnsupportedError:
        raise
    except Ext3Error as error:
        return error
    _require_ext3(superblock)
    for violation in limit_violations(raw):
        return violation.error
    try:
        groups = read_group_columns(device, superblock)
    except CorruptError as error:
        return error
    if not descriptors_sound(superblock, groups):
        return CorruptError("group descriptors", "locations", "impossible", "each inside its group")
    return None


def _parse(device: BlockDevice, raw: bytes) -> Superblock:
    if not raw or raw == device.read(SUPERBLOCK_OFFSET, len(raw)):
        return read_superblock(device)
    return parse_superblock(raw, device_size=device.size)


def _with_revision(raw: bytes, findings: list[Finding]) -> bytes:
    """Return the superblock with revision 1 if it has features, which revision 0 has not."""
    if not raw:
        return raw
    changed = bytearray(raw)
    row = SUPERBLOCK.view(changed)[0]
    if row["s_magic"] != EXT3_MAGIC or row["s_rev_level"]:
        return raw
    if not (row["s_feature_compat"] | row["s_feature_incompat"] | row["s_feature_ro_compat"]):
        return raw
    findings.append(Finding(REVISION_0, Place()))
    row["s_rev_level"] = 1
    size = int(row["s_inode_size"])
    if size < MIN_INODE_SIZE or size & (size - 1):
        row["s_inode_size"] = MIN_INODE_SIZE
    row["s_first_ino"] = max(row["s_first_ino"], FIRST_INO)
    return bytes(changed)


def _with_inodes_count(device: BlockDevice, raw: bytes, findings: list[Finding], error: Ext3Error) -> bytes:
    """Return the superblock with the count of inodes that follows from the groups. Raise ``error`` if it has another fault.

    Descriptors that lead outside of their groups are no reason to give up: the check places that metadata anew.
    """
    if not isinstance(error, CorruptError) or (error.where == "group descriptors" and error.field != "locations"):
        raise error
    if error.field == "locations":
        return raw
    violations = list(superblock_violations(raw, device_size=device.size))
    if [violation.field for violation in violations] != ["s_inodes_count"]:
        raise error
    changed = bytearray(raw)
    per_group = _likelier_per_group(device, raw)
    if per_group:
        findings.append(Finding(INODES_PER_GROUP, Place(), SUPERBLOCK.record(raw)["s_inodes_per_group"], per_group))
        SUPERBLOCK.view(changed)[0]["s_inodes_per_group"] = per_group
    else:
        findings.append(Finding(INODES_COUNT, Place(), violations[0].got, violations[0].want))
        SUPERBLOCK.view(changed)[0]["s_inodes_count"] = violations[0].want
    for violation in limit_violations(changed):
        raise violation.error
    return bytes(changed)


def _likelier_per_group(device: BlockDevice, raw: bytes) -> int:
    """Return the inodes per group that s_inodes_count tells of, if it is this number that is wrong, not the count; else 0.

    Groups have multiples of 8 inodes, and no group has more free ones than there are.
    """
    fields = SUPERBLOCK.record(raw)
    groups = group_count(fields["s_blocks_count"], fields["s_first_data_block"], fields["s_blocks_per_group"])
    now, (likely, rest) = fields["s_inodes_per_group"], divmod(fields["s_inodes_count"], groups)
    if rest or likely % 8 or not 0 < likely <= MIN_BLOCK_SIZE * 8 << fields["s_log_block_size"]:
        return 0
    changed = bytearray(raw)
    SUPERBLOCK.view(changed)[0]["s_inodes_per_group"] = likely
    try:
        most = int(
            read_group_columns(device, parse_superblock(bytes(changed), device_size=device.size))["bg_free_inodes_count"].max()
        )
    except Ext3Error:
        return 0
    return likely if (now % 8 or most > now) and most <= likely else 0


def _write_primary(storage: RepairStorage, raw: bytes, backup: BackupSuperblock | None) -> None:
    """Write the primary superblock, and the descriptors if the backup's place metadata differently, to memory."""
    changed = bytearray(raw)
    row = SUPERBLOCK.view(changed)[0]
    row["s_block_group_nr"] = 0
    row["s_state"] &= ~STATE_VALID & 0xFFFF
    storage.write(SUPERBLOCK_OFFSET, changed, Stage.MAPS)
    if backup is None:
        return
    superblock = backup.superblock
    geometry = superblock.geometry
    try:
        if not locations_differ(read_group_columns(storage, superblock), backup.groups):
            return
    except CorruptError:
        pass
    descriptors = backup.groups.tobytes()
    per_block = geometry.descriptors_per_block * GROUP_DESC.size
    for index in range(geometry.descriptor_blocks):
        part = descriptors[index * per_block : (index + 1) * per_block]
        block = geometry.descriptor_block(index)
        storage.write_block(block, part + storage.read_block(block)[len(part) :], Stage.MAPS)


def accept_superblock(context: Context) -> None:
    """Have the repairs decided on that opening the filesystem took, and write them. Raise GaveUp if one is refused."""
    if not context.opening:
        return
    findings, context.opening = context.opening, []
    try:
        for finding in findings:
            if not context.fix(finding.problem, finding.place, got=finding.got, want=finding.want):
                context.storage.discard()
                context.unusable = True
                raise GaveUp("the superblock cannot be used as it is")
    except Stopped:
        context.storage.discard()
        context.unusable = True
        if findings[0].problem is not SUPERBLOCK_UNUSABLE:
            _set_error(context.storage)
        raise
    context.must_check = True
    context.write_backups = True
    if context.policy.writes:
        context.storage.flush(final=True)


def _set_error(storage: RepairStorage) -> None:
    """Set the error bit in the superblock as it is on storage."""
    raw = bytearray(storage.read(SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE))
    row = SUPERBLOCK.view(raw)[0]
    row["s_state"] = int(row["s_state"]) & ~STATE_VALID | STATE_ERROR
    storage.write(SUPERBLOCK_OFFSET, raw, Stage.MAPS)
