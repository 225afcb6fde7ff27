"""Problems of pass 1: inodes, block maps, attributes, special inodes, and the metadata of groups."""

from __future__ import annotations

from ..problem import PreenAnswer, Problem

REPAIR, SKIP, STOP = PreenAnswer.REPAIR, PreenAnswer.SKIP, PreenAnswer.STOP

# -- special inodes --------------------------------------------------------------------------------------------------

BAD_BLOCKS_FIELDS = Problem(
    "bad-blocks-inode", "inode 1: the bad blocks inode has a mode, owner, links or attributes", "clear it"
)
BAD_BLOCK_ILLEGAL = Problem(
    "bad-block-illegal", "inode 1: bad block {block} lies outside of the filesystem", "clear the pointer"
)
BAD_BLOCK_POINTERS = Problem(
    "bad-block-pointers", "inode 1: block {block} holds pointers and is in use for something else", "clear the pointer"
)
BAD_BLOCK_PRIMARY = Problem(
    "bad-block-primary",
    "block {block} of the primary superblock or descriptors is on the list of bad blocks",
    "take it off the list",
)
BAD_BLOCK_BACKUP = Problem(
    "bad-block-backup",
    "group {group}: block {block} of a backup of superblock or descriptors is on the list of bad blocks",
    note=True,
)
BAD_BLOCK_BITMAP = Problem("bad-block-bitmap", "group {group}: the {got} in block {block} is a bad block", "move it")
BAD_BLOCK_TABLE = Problem(
    "bad-block-table", "group {group}: block {block} of the inode table is on the list of bad blocks", "take it off the list"
)
ROOT_NOT_DIRECTORY = Problem("root-not-directory", "inode 2: the root is not a directory", "clear it and create a new root")
RESERVED_MODE = Problem("reserved-inode-mode", "inode {ino}: reserved inode with mode {got}", "clear the mode", preen=REPAIR)
JOURNAL_MODE = Problem("journal-inode-mode", "inode 8: the journal has mode {got}", "make it a regular file", preen=REPAIR)
JOURNAL_UNUSED = Problem("journal-inode-unused", "inode 8 is in use, and there is no journal", "clear it", preen=REPAIR)
QUOTA_UNUSED = Problem(
    "quota-inode-unused", "inode {ino}: quota inode is in use, but quotas are no feature of ext3", "clear it", preen=REPAIR
)

# -- fields ----------------------------------------------------------------------------------------------------------

TABLE_UNREADABLE = Problem(
    "inode-table-unreadable", "group {group}: block {block} of the inode table: {got}", "write zeros there"
)
LOW_DTIME = Problem(
    "inode-low-dtime", "inode {ino}: i_dtime is {got}, a leftover of a damaged orphan list", "set it as its links say"
)
ZERO_DTIME = Problem("inode-zero-dtime", "inode {ino}: deleted inode has no deletion time", "set it", preen=REPAIR)
SET_DTIME = Problem("inode-set-dtime", "inode {ino}: in use, and has a deletion time", "clear it", preen=REPAIR)
IMAGIC_FLAG = Problem(
    "inode-imagic-flag", "inode {ino}: i_flags has imagic, but the filesystem lacks the feature", "clear the flag"
)
ENCRYPT_FLAG = Problem(
    "inode-encrypt-flag", "inode {ino}: i_flags has encrypt, but the filesystem lacks the feature", "clear the flag"
)
CASEFOLD_FLAG = Problem(
    "inode-casefold-flag", "inode {ino}: i_flags has casefold, but the filesystem lacks the feature", "clear the flag"
)
IMMUTABLE_SPECIAL = Problem(
    "inode-immutable-special",
    "inode {ino}: special file is immutable or append-only",
    "clear the flags",
    preen=SKIP,
    default=False,
    excused=True,
)
LATER_FLAG_SPECIAL = Problem(
    "inode-later-flag-special",
    "inode {ino}: special file with extents or inline data",
    "clear the flags",
)
SPECIAL_SIZE = Problem("inode-special-size", "inode {ino}: special file has size {got}", "set it to 0", preen=REPAIR)
EXTRA_ISIZE = Problem("inode-extra-isize", "inode {ino}: i_extra_isize is {got}", "set it to {want}", preen=REPAIR)
TIME_EPOCH = Problem(
    "inode-time-epoch", "inode {ino}: a time before 1970 is stored as one after 2310", "correct it", preen=REPAIR, excused=True
)
REALLY_DIRECTORY = Problem(
    "inode-is-directory", "inode {ino}: mode {got} of an inode that looks like a directory", "make it one"
)
INDEX_NOT_DIRECTORY = Problem(
    "index-flag-not-directory", "inode {ino}: i_flags has index, and it is no directory", "clear the flag", preen=REPAIR
)
INDEX_NO_FEATURE = Problem(
    "index-flag-no-feature",
    "inode {ino}: i_flags has index, but the filesystem lacks the feature dir_index",
    "clear the flag",
    preen=REPAIR,
)

# -- block maps ------------------------------------------------------------------------------------------------------

ILLEGAL_BLOCK = Problem(
    "inode-illegal-block", "inode {ino}: {want} is {got}, outside of the filesystem (block {logical} of the file)", "clear it"
)
POINTER_BLOCK_UNREADABLE = Problem("pointer-block-unreadable", "inode {ino}: {want}: block {block}: {got}", "clear the pointer")
POINTER_BLOCK_REUSED = Problem(
    "pointer-block-reused", "inode {ino}: {want} is {got}, a block of pointers that too many maps share", "clear it"
)
POINTER_BLOCK_ON_METADATA = Problem(
    "pointer-block-on-metadata", "inode {ino}: {want} is {got}, a block of the filesystem's metadata", note=True
)
TOO_BIG_DIRECTORY = Problem(
    "directory-too-big", "inode {ino}: directory has block {logical}, beyond its limit", "clear the pointer"
)
TOO_BIG_FILE = Problem("file-too-big", "inode {ino}: file has more blocks than i_blocks can count", "clear the pointer")
TOO_BIG_SYMLINK = Problem("symlink-too-big", "inode {ino}: symbolic link has block {logical}", "clear the pointer")
TOO_MANY_ILLEGAL = Problem("inode-many-illegal-blocks", "inode {ino}: {got} illegal block numbers", "clear the inode")
TOO_MANY_HOLES = Problem(
    "directory-many-holes", "inode {ino}: directory has {got} holes, too many to fill", "truncate it before them"
)
EMPTY_DIRECTORY = Problem("directory-no-blocks", "inode {ino}: directory has no blocks", "clear the inode", preen=REPAIR)
BAD_SIZE = Problem("inode-size", "inode {ino}: i_size is {got}, want {want}", "set it", preen=REPAIR)
BAD_BLOCKS_COUNT = Problem("inode-blocks-count", "inode {ino}: i_blocks is {got}, want {want}", "set it", preen=REPAIR)

# -- attributes ------------------------------------------------------------------------------------------------------

AREA_NAME = Problem(
    "attribute-name", "inode {ino}: name of {got} bytes leaves the attribute area", "remove the attributes", preen=REPAIR
)
AREA_VALUE = Problem(
    "attribute-value", "inode {ino}: value of {got} bytes leaves the attribute area", "remove the attributes", preen=REPAIR
)
AREA_OVERLAP = Problem("attribute-overlap", "inode {ino}: attributes overlap or have no end", "remove the attributes")
AREA_HASH = Problem("attribute-hash", "inode {ino}: attribute has a wrong hash {got}", "remove the attributes", preen=REPAIR)
AREA_VALUE_INODE = Problem(
    "attribute-value-inode", "inode {ino}: value of an attribute lies in inode {got}", "remove the attributes", preen=REPAIR
)
BLOCK_UNREADABLE = Problem("attribute-block-unreadable", "inode {ino}: attribute block {block}: {got}", "detach it")
BLOCK_MAGIC = Problem("attribute-block-magic", "inode {ino}: attribute block {block} has magic {got}, want {want}", "detach it")
BLOCK_BLOCKS = Problem(
    "attribute-block-count", "inode {ino}: h_blocks of attribute block {block} is {got}, want 1", "detach it"
)
BLOCK_OVERLAP = Problem("attribute-block-overlap", "inode {ino}: entries of attribute block {block} overlap", "detach it")
BLOCK_NAME = Problem("attribute-block-name", "inode {ino}: invalid name index {got} in attribute block {block}", "detach it")
BLOCK_VALUE = Problem("attribute-block-value", "inode {ino}: value of {got} bytes leaves attribute block {block}", "detach it")
BLOCK_HASH = Problem(
    "attribute-block-hash", "inode {ino}: wrong hash {got} in attribute block {block}", "detach it", preen=REPAIR
)
BLOCK_VALUE_INODE = Problem(
    "attribute-block-value-inode",
    "inode {ino}: value of an attribute in block {block} lies in inode {got}",
    "detach it",
    preen=REPAIR,
)
BLOCK_REFCOUNT = Problem("attribute-block-refcount", "attribute block {block}: h_refcount is {got}, want {want}", "set it")

# -- formats of later filesystems ------------------------------------------------------------------------------------

EXTENTS_FLAG = Problem("inode-extents", "inode {ino}: mapped by extents, which ext3 does not have", "give it a block map")
EXTENTS_INVALID = Problem(
    "inode-extents-invalid", "inode {ino}: i_flags has extents, and there is no valid tree of them", "clear the inode"
)
INLINE_FLAG = Problem(
    "inode-inline-data", "inode {ino}: has its data in the inode, which ext3 does not have", "give it a block", preen=REPAIR
)
INLINE_INVALID = Problem(
    "inode-inline-data-invalid", "inode {ino}: i_flags has inline data, and there is no attribute for it", "clear the inode"
)

# -- metadata of groups ----------------------------------------------------------------------------------------------

BLOCK_BITMAP_CONFLICT = Problem(
    "block-bitmap-conflict", "group {group}: block bitmap in block {block}, which is in use", "move it"
)
INODE_BITMAP_CONFLICT = Problem(
    "inode-bitmap-conflict", "group {group}: inode bitmap in block {block}, which is in use", "move it"
)
INODE_TABLE_CONFLICT = Problem(
    "inode-table-conflict", "group {group}: inode table has block {block}, which is in use", "move it"
)
METADATA_MISSING = Problem("group-metadata-missing", "group {group}: {got} is missing", "allocate it", preen=REPAIR)
METADATA_MOVED = Problem("group-metadata-moved", "group {group}: {got} was moved to block {want}", note=True)
