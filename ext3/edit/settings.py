"""Settings of a filesystem, changed through the journal: label, UUID, blocks reserved for root.

As with tune2fs they are in the superblock and in each of its copies. The superblock of the journal keeps the UUID it was made
with, as there: nothing compares it. Source: e2fsprogs ``misc/tune2fs.c``, tried with 1.47.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..constants import EXT3_MAGIC, LABEL_MAX
from ..errors import GeometryError
from ..format.schema import SUPERBLOCK
from ..format.superblock import Superblock
from .session import Session

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["change_settings"]


def change_settings(
    session: Session, *, label: bytes | None = None, uuid: UUID | None = None, reserved_blocks: int | None = None
) -> None:
    """Change the settings that are not None. ``label``: at most 16 bytes; ``reserved_blocks``: at most half of all blocks.

    Raise GeometryError for other values. The superblock and its copies change in one transaction; only of a filesystem with
    more copies than fit the journal the later ones follow in further transactions (they may differ: a check writes them anew).
    """
    old = session.superblock
    geometry = old.geometry
    if label is not None and len(label) > LABEL_MAX:
        raise GeometryError(f"{len(label)} bytes; a label has at most {LABEL_MAX}", field="label", most=LABEL_MAX)
    most = geometry.blocks // 2
    if reserved_blocks is not None and not 0 <= reserved_blocks <= most:
        message = f"{reserved_blocks} reserved blocks are not from 0 to {most}"
        raise GeometryError(message, field="reserved_blocks", least=0, most=most)
    new = old._replace(
        label=old.label if label is None else label,
        uuid_bytes=old.uuid_bytes if uuid is None else uuid.bytes,
        geometry=geometry if reserved_blocks is None else geometry._replace(reserved_blocks=reserved_blocks),
    )
    if new == old:
        return
    copies = [geometry.first_block(group) for group in geometry.backup_groups]
    at_once = max(1, session.log_space // 4)

    def change(blocks: Sequence[int]) -> None:
        session.change_superblock(new)
        for block in blocks:
            _change_copy(session, block, new)

    for first in range(0, max(1, len(copies)), at_once):
        session.run(partial(change, copies[first : first + at_once]))


def _change_copy(session: Session, block: int, new: Superblock) -> None:
    """Change the copy of the superblock in ``block``. A damaged one is left to a check."""
    data = bytearray(session.read(block))
    row = SUPERBLOCK.at(data)
    if row["s_magic"] != EXT3_MAGIC:
        return
    row["s_volume_name"], row["s_uuid"], row["s_r_blocks_count"] = new.label, new.uuid_bytes, new.reserved_blocks
    session.write_system(block, bytes(data))
