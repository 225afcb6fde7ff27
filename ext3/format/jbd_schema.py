"""Big-endian structures of the journal (JBD). Source: Linux ``include/linux/jbd2.h``. Declarations only."""

from __future__ import annotations

from .field_kinds import Array, Bytes, Int8ub, Int16ub, Int32ub, Int64ub
from .layout import Layout

JOURNAL_HEADER = Layout("journal_header", "h_magic" / Int32ub, "h_blocktype" / Int32ub, "h_sequence" / Int32ub, size=12)

JOURNAL_SUPERBLOCK = Layout(
    "journal_superblock",
    "h_magic" / Int32ub,
    "h_blocktype" / Int32ub,
    "h_sequence" / Int32ub,
    "s_blocksize" / Int32ub,
    "s_maxlen" / Int32ub,
    "s_first" / Int32ub,
    "s_sequence" / Int32ub,
    "s_start" / Int32ub,
    "s_errno" / Int32ub,
    "s_feature_compat" / Int32ub,
    "s_feature_incompat" / Int32ub,
    "s_feature_ro_compat" / Int32ub,
    "s_uuid" / Bytes(16),
    "s_nr_users" / Int32ub,
    "s_dynsuper" / Int32ub,
    "s_max_transaction" / Int32ub,
    "s_max_trans_data" / Int32ub,
    "s_checksum_type" / Int8ub,
    "s_padding2" / Bytes(3),
    "s_num_fc_blks" / Int32ub,
    "s_head" / Int32ub,
    "s_padding" / Bytes(160),
    "s_checksum" / Int32ub,
    "s_users" / Bytes(768),
    size=1024,
)

JOURNAL_TAG = Layout("journal_block_tag", "t_blocknr" / Int32ub, "t_checksum" / Int16ub, "t_flags" / Int16ub, size=8)
"""Tag of one block in a descriptor; 16 bytes of UUID follow unless its flags include SAME_UUID."""

JOURNAL_REVOKE = Layout(
    "journal_revoke_header", "h_magic" / Int32ub, "h_blocktype" / Int32ub, "h_sequence" / Int32ub, "r_count" / Int32ub, size=16
)
"""Block numbers of 4 bytes follow; ``r_count`` is in bytes and includes this header."""

JOURNAL_COMMIT = Layout(
    "commit_header",
    "h_magic" / Int32ub,
    "h_blocktype" / Int32ub,
    "h_sequence" / Int32ub,
    "h_chksum_type" / Int8ub,
    "h_chksum_size" / Int8ub,
    "h_padding" / Bytes(2),
    "h_chksum" / Array(8, Int32ub),
    "h_commit_sec" / Int64ub,
    "h_commit_nsec" / Int32ub,
    size=60,
)
