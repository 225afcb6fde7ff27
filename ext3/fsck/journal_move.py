"""Journal that is a visible file, as tune2fs makes it on a mounted filesystem: it becomes the hidden inode 8.

Source: e2fsprogs ``e2fsck/journal.c`` (e2fsck_move_ext3_journal).
"""

from __future__ import annotations

from ..constants import FLAGS_UNSIGNED_HASH, JOURNAL_INO, ROOT_INO, InodeFlag
from ..edit.block_map_edit import BlockMapEditor
from ..edit.directory import Directory, DirectoryRules
from ..errors import DeviceError, Ext3Error
from ..format.bitmap import FREE, USED, GroupBitmap
from ..format.group_desc import metadata_block
from ..format.inode import parse_inode, patch_inode
from .context import Context
from .problem import Place
from .problems.journal import JOURNAL_VISIBLE
from .storage import Stage

__all__ = ["hide_journal"]

NAMES = (b".journal", b"journal", b".journal.dat", b"journal.dat")


def hide_journal(context: Context) -> None:
    """Move a journal with a name in the root directory to inode 8. Where anything is not as expected, it stays where it is."""
    superblock = context.superblock
    ino = superblock.journal_ino
    if not superblock.has_journal or ino in (0, JOURNAL_INO):
        return
    try:
        raw = context.read_inode(ino)
        if parse_inode(raw, ino).stat.links != 1 or parse_inode(context.read_inode(JOURNAL_INO), JOURNAL_INO).stat.mode:
            return
        root = _root(context)
        name = next((name for name in NAMES if (entry := root.find(name)) is not None and entry.ino == ino), None)
        if name is None:
            return
        group, index = superblock.geometry.group_of_inode(ino)
        place = metadata_block(superblock, context.groups, group, "bg_inode_bitmap")
        bitmap = GroupBitmap(context.read(place), superblock.inodes_per_group, f"inode bitmap of group {group}")
        bitmap.change(index, 1, USED, FREE)
        root.remove(name)
    except DeviceError:
        raise
    except Ext3Error:
        return
    context.fix(JOURNAL_VISIBLE, Place(ino=ino), got=name.decode(), want=JOURNAL_INO)
    context.write_inode(JOURNAL_INO, raw)
    context.write_inode(ino, patch_inode(raw, i_links_count=0, i_dtime=context.now, i_block=0, i_blocks=0, i_size=0))
    context.storage.write_block(place, bitmap.pack(), Stage.MAPS)
    context.groups["bg_free_inodes_count"][group] += 1
    context.write_groups()
    context.set_superblock(s_journal_inum=JOURNAL_INO, s_free_inodes_count=context.field("s_free_inodes_count") + 1)
    context.write_backups = True


def _root(context: Context) -> Directory:
    superblock = context.superblock
    inode = parse_inode(context.read_inode(ROOT_INO), ROOT_INO)
    seed = superblock.hash_seed
    mapping = BlockMapEditor(
        context, inode.i_block, first=superblock.first_data_block, end=superblock.blocks_count, where="root directory"
    )
    rules = DirectoryRules(
        seed=(seed[0], seed[1], seed[2], seed[3]),
        inodes=superblock.inodes_count,
        signed=not superblock.flags & FLAGS_UNSIGNED_HASH,
    )
    indexed = bool(inode.stat.flags & InodeFlag.INDEX)
    return Directory(context, mapping, rules, ino=ROOT_INO, size=inode.stat.size, indexed=indexed)
