"""Recipes of damage that tools/fuzz_fsck.py found first."""

from __future__ import annotations

from ..damage import Damage, Debugfs, Recipe

__all__ = ["RECIPES"]

FAR = 99_999
INDEX, IMMUTABLE = 0x1000, 0x10


def _cleared_with_attributes(damage: Damage) -> None:
    """/large has the attribute block of /file, and so many bad pointers that it is cleared."""
    damage.set("inode[/large].i_file_acl", damage.get("inode[/file].i_file_acl"))
    damage.set("xattr[/file].h_refcount", damage.get("xattr[/file].h_refcount") + 1)
    for number in range(13):
        damage.set(f"map[/large:{number}]", FAR + number)


RECIPES = [
    Recipe("quota-inode-used", "ext3", "quota inode in use without quotas", (("inode[3].i_links_count", 1),)),
    Recipe("quota-inode-blocks", "4k", "quota inode in use without quotas", (("inode[4].i_blocks", 8), ("inode[4].i_block[0]", 300))),
    Recipe("quota-inode-number", "ext3", "number of a quota inode without quotas", (("super.s_usr_quota_inum", 5),)),
    Recipe("quota-inode-number-far", "ext2", "number of a quota inode without quotas", (("super.s_grp_quota_inum", 99_999),)),
    Recipe("uuid-and-entry", "ext3", "UUID all zero, and an entry", (("super.s_uuid", bytes(16)), ("entry[/dir/sub:..].name", b"..z"))),
    Recipe("dotdot-name-too-long", "ext3", "'..' with a name longer than its record", (("entry[/dir:..].name_len", 255),)),
    Recipe("dotdot-name-too-long-root", "ext2", "'..' with a name longer than its record", (("dirent[/:0:12].name_len", 200),)),
    Recipe("special-index-immutable", "ext3", "FIFO with flags of directories and files", (
        ("inode[/fifo].i_flags", INDEX | IMMUTABLE),)),
    Recipe("symlink-index-immutable", "ext2", "symlink with flags of directories and files", (
        ("inode[/slow].i_flags", INDEX | IMMUTABLE),)),
    Recipe("cleared-with-attributes", "ext3", "inode that is cleared and shared an attribute block", (_cleared_with_attributes,)),
    Recipe("mode-zero-unattached", "ext3", "mode 0, and no name", (("inode[/twin].i_mode", 0), Debugfs("unlink twin"))),
    Recipe("symlink-attributes-feature", "bare", "attribute block without the feature", (("inode[/slow].i_file_acl", 18),)),
    Recipe("resize-map-on-inode-bitmap", "ext3", "resize inode's map is a bitmap", (
        ("inode[7].i_block[13]", "group[0].bg_inode_bitmap"),)),
    Recipe("resize-map-on-descriptors", "4k", "resize inode's map leads to descriptors", (
        (lambda damage: damage.set(f"pointer[{damage.get('inode[7].i_block[13]')}:0]", 1)),)),
    Recipe("loop-of-two", "ext3", "two directories in each other", (
        ("entry[/dir/sub:deep].inode", "number[/dir]"), Debugfs("unlink dir")), apart="e2fsck sees a wrong '..' and not the loop"),
]  # fmt: skip
