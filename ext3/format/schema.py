"""Little-endian structures of ext2/ext3, with the kernel's field names.

Source: Linux ``fs/ext4/ext4.h``, ``fs/ext4/xattr.h``; e2fsprogs ``lib/ext2fs/ext2_fs.h``. Declarations only.
"""

from __future__ import annotations

from .field_kinds import Array, Bytes, Int8ul, Int16sl, Int16ul, Int32ul, Int64ul
from .layout import Layout

SUPERBLOCK = Layout(
    "ext3_super_block",
    "s_inodes_count" / Int32ul,
    "s_blocks_count" / Int32ul,
    "s_r_blocks_count" / Int32ul,
    "s_free_blocks_count" / Int32ul,
    "s_free_inodes_count" / Int32ul,
    "s_first_data_block" / Int32ul,
    "s_log_block_size" / Int32ul,
    "s_log_frag_size" / Int32ul,
    "s_blocks_per_group" / Int32ul,
    "s_frags_per_group" / Int32ul,
    "s_inodes_per_group" / Int32ul,
    "s_mtime" / Int32ul,
    "s_wtime" / Int32ul,
    "s_mnt_count" / Int16ul,
    "s_max_mnt_count" / Int16sl,
    "s_magic" / Int16ul,
    "s_state" / Int16ul,
    "s_errors" / Int16ul,
    "s_minor_rev_level" / Int16ul,
    "s_lastcheck" / Int32ul,
    "s_checkinterval" / Int32ul,
    "s_creator_os" / Int32ul,
    "s_rev_level" / Int32ul,
    "s_def_resuid" / Int16ul,
    "s_def_resgid" / Int16ul,
    "s_first_ino" / Int32ul,
    "s_inode_size" / Int16ul,
    "s_block_group_nr" / Int16ul,
    "s_feature_compat" / Int32ul,
    "s_feature_incompat" / Int32ul,
    "s_feature_ro_compat" / Int32ul,
    "s_uuid" / Bytes(16),
    "s_volume_name" / Bytes(16),
    "s_last_mounted" / Bytes(64),
    "s_algorithm_usage_bitmap" / Int32ul,
    "s_prealloc_blocks" / Int8ul,
    "s_prealloc_dir_blocks" / Int8ul,
    "s_reserved_gdt_blocks" / Int16ul,
    "s_journal_uuid" / Bytes(16),
    "s_journal_inum" / Int32ul,
    "s_journal_dev" / Int32ul,
    "s_last_orphan" / Int32ul,
    "s_hash_seed" / Array(4, Int32ul),
    "s_def_hash_version" / Int8ul,
    "s_jnl_backup_type" / Int8ul,
    "s_desc_size" / Int16ul,
    "s_default_mount_opts" / Int32ul,
    "s_first_meta_bg" / Int32ul,
    "s_mkfs_time" / Int32ul,
    "s_jnl_blocks" / Array(17, Int32ul),
    "s_blocks_count_hi" / Int32ul,
    "s_r_blocks_count_hi" / Int32ul,
    "s_free_blocks_count_hi" / Int32ul,
    "s_min_extra_isize" / Int16ul,
    "s_want_extra_isize" / Int16ul,
    "s_flags" / Int32ul,
    "s_raid_stride" / Int16ul,
    "s_mmp_interval" / Int16ul,
    "s_mmp_block" / Int64ul,
    "s_raid_stripe_width" / Int32ul,
    "s_log_groups_per_flex" / Int8ul,
    "s_checksum_type" / Int8ul,
    "s_reserved_pad" / Int16ul,
    "s_kbytes_written" / Int64ul,
    "s_snapshot" / Bytes(20),
    "s_error_log" / Bytes(108),
    "s_mount_opts" / Bytes(64),
    "s_usr_quota_inum" / Int32ul,
    "s_grp_quota_inum" / Int32ul,
    "s_overhead_clusters" / Int32ul,
    "s_reserved_tail" / Bytes(432),
    "s_checksum" / Int32ul,
    size=1024,
)

GROUP_DESC = Layout(
    "ext2_group_desc",
    "bg_block_bitmap" / Int32ul,
    "bg_inode_bitmap" / Int32ul,
    "bg_inode_table" / Int32ul,
    "bg_free_blocks_count" / Int16ul,
    "bg_free_inodes_count" / Int16ul,
    "bg_used_dirs_count" / Int16ul,
    "bg_flags" / Int16ul,
    "bg_exclude_bitmap" / Int32ul,
    "bg_block_bitmap_csum" / Int16ul,
    "bg_inode_bitmap_csum" / Int16ul,
    "bg_itable_unused" / Int16ul,
    "bg_checksum" / Int16ul,
    size=32,
)

INODE_CORE = Layout(
    "ext3_inode",
    "i_mode" / Int16ul,
    "i_uid" / Int16ul,
    "i_size" / Int32ul,
    "i_atime" / Int32ul,
    "i_ctime" / Int32ul,
    "i_mtime" / Int32ul,
    "i_dtime" / Int32ul,
    "i_gid" / Int16ul,
    "i_links_count" / Int16ul,
    "i_blocks" / Int32ul,
    "i_flags" / Int32ul,
    "i_version" / Int32ul,
    "i_block" / Array(15, Int32ul),
    "i_generation" / Int32ul,
    "i_file_acl" / Int32ul,
    "i_size_high" / Int32ul,
    "i_faddr" / Int32ul,
    "i_blocks_high" / Int16ul,
    "i_file_acl_high" / Int16ul,
    "i_uid_high" / Int16ul,
    "i_gid_high" / Int16ul,
    "i_reserved" / Int32ul,
    size=128,
)
"""First 128 bytes of an inode; all of a 128-byte inode."""

INODE_EXTRA = Layout(
    "ext3_inode_extra",
    "i_extra_isize" / Int16ul,
    "i_checksum_hi" / Int16ul,
    "i_ctime_extra" / Int32ul,
    "i_mtime_extra" / Int32ul,
    "i_atime_extra" / Int32ul,
    "i_crtime" / Int32ul,
    "i_crtime_extra" / Int32ul,
    "i_version_hi" / Int32ul,
    "i_projid" / Int32ul,
    size=32,
)
"""Extra area at byte 128; in-inode xattrs follow at 128 + i_extra_isize."""

DIRENT = Layout("ext3_dir_entry_2", "inode" / Int32ul, "rec_len" / Int16ul, "name_len" / Int8ul, "file_type" / Int8ul, size=8)
"""Head of a directory entry; ``name_len`` bytes of name follow."""

DX_ROOT_INFO = Layout(
    "dx_root_info",
    "reserved_zero" / Int32ul,
    "hash_version" / Int8ul,
    "info_length" / Int8ul,
    "indirect_levels" / Int8ul,
    "unused_flags" / Int8ul,
    size=8,
)
"""Index root at byte 24 of an indexed directory's first block; the entry table follows."""

DX_ENTRY = Layout("dx_entry", "hash" / Int32ul, "block" / Int32ul, size=8)
DX_COUNTLIMIT = Layout("dx_countlimit", "limit" / Int16ul, "count" / Int16ul, size=4)
"""Limit and count of an entry table, in place of the hash of slot 0."""

XATTR_IBODY_HEADER = Layout("ext3_xattr_ibody_header", "h_magic" / Int32ul, size=4)
XATTR_HEADER = Layout(
    "ext3_xattr_header",
    "h_magic" / Int32ul,
    "h_refcount" / Int32ul,
    "h_blocks" / Int32ul,
    "h_hash" / Int32ul,
    "h_checksum" / Int32ul,
    "h_reserved" / Array(3, Int32ul),
    size=32,
)
XATTR_ENTRY = Layout(
    "ext3_xattr_entry",
    "e_name_len" / Int8ul,
    "e_name_index" / Int8ul,
    "e_value_offs" / Int16ul,
    "e_value_inum" / Int32ul,
    "e_value_size" / Int32ul,
    "e_hash" / Int32ul,
    size=16,
)

ACL_HEADER = Layout("ext3_acl_header", "a_version" / Int32ul, size=4)
ACL_ENTRY_SHORT = Layout("ext3_acl_entry_short", "e_tag" / Int16ul, "e_perm" / Int16ul, size=4)
ACL_ENTRY = Layout("ext3_acl_entry", "e_tag" / Int16ul, "e_perm" / Int16ul, "e_id" / Int32ul, size=8)
