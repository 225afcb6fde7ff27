"""Problems of directories: their blocks and records, what their entries lead to, their index.

Source of the kinds and of what preening repairs: e2fsprogs ``e2fsck/problem.c``.
"""

from __future__ import annotations

from ..problem import PreenAnswer, Problem

__all__ = [
    "BAD_ACL_BLOCK",
    "BAD_ACL_FEATURE",
    "BAD_ACL_HIGH",
    "BAD_BLOCKS_HIGH",
    "BAD_DEVICE",
    "BAD_FIFO",
    "BAD_FRAGMENT",
    "BAD_FRAGMENT_ADDRESS",
    "BAD_MODE",
    "BAD_SIZE_HIGH",
    "BAD_SOCKET",
    "BAD_SYMLINK",
    "BLOCK_HOLE",
    "BLOCK_UNREADABLE",
    "DOTDOT_INODE",
    "DOTDOT_MISSING",
    "DOTDOT_NOT_SECOND",
    "DOTDOT_NOT_TERMINATED",
    "DOTDOT_UNUSED",
    "DOT_INODE",
    "DOT_LONG",
    "DOT_MISSING",
    "DOT_NOT_FIRST",
    "DOT_NOT_TERMINATED",
    "ENTRY_DIRECTORY_LINK",
    "ENTRY_DOT",
    "ENTRY_DOTDOT",
    "ENTRY_DUPLICATE",
    "ENTRY_INODE",
    "ENTRY_NAME",
    "ENTRY_NAME_EMPTY",
    "ENTRY_NAME_TWICE",
    "ENTRY_ROOT",
    "ENTRY_SELF",
    "ENTRY_TYPE",
    "ENTRY_TYPE_FEATURE",
    "ENTRY_TYPE_UNSET",
    "ENTRY_UNUSED",
    "INDEX_BLOCK",
    "INDEX_COUNT",
    "INDEX_LIMIT",
    "INDEX_ORDER",
    "INDEX_ROOT",
    "INDEX_WRONG",
    "LARGE_FILE_FEATURE",
    "MANY_HOLES",
    "NAME_NOT_CHANGED",
    "NAME_TWICE",
    "RECORD_DAMAGED",
    "REVISION_LARGE_FILE",
]

REPAIR = PreenAnswer.REPAIR

# Blocks and records

BLOCK_HOLE = Problem("directory-hole", "directory {ino}: block {logical} is not allocated", "allocate an empty block")
MANY_HOLES = Problem("directory-holes", "directory {ino}: {got} blocks are not allocated", "move the others together")
BLOCK_UNREADABLE = Problem(
    "directory-block-unreadable", "directory {ino}: block {logical} cannot be read", "put an empty block in its place"
)
RECORD_DAMAGED = Problem(
    "directory-record", "directory {ino}, block {logical}, byte {offset}: the record is damaged", "salvage what is left"
)

DOT_MISSING = Problem("dot-missing", "directory {ino}: '.' is missing", "add it")
DOT_NOT_FIRST = Problem("dot-not-first", "directory {ino}: the first entry is '{name}', not '.'", "make it '.'")
DOT_NOT_TERMINATED = Problem("dot-not-terminated", "directory {ino}: no NUL follows the name '.'", "add it")
DOT_INODE = Problem("dot-inode", "directory {ino}: '.' leads to inode {got}", "set it to {want}")
DOT_LONG = Problem("dot-long", "directory {ino}: the record of '.' has {got} bytes", "split it")
DOTDOT_MISSING = Problem("dotdot-missing", "directory {ino}: '..' is missing", "add it")
DOTDOT_NOT_SECOND = Problem("dotdot-not-second", "directory {ino}: the second entry is '{name}', not '..'", "make it '..'")
DOTDOT_NOT_TERMINATED = Problem("dotdot-not-terminated", "directory {ino}: no NUL follows the name '..'", "add it")
DOTDOT_INODE = Problem("dotdot-inode", "directory {ino}: '..' leads to inode {got}, which no file can have", "clear it")
DOTDOT_UNUSED = Problem("dotdot-unused", "directory {ino}: '..' leads to inode {got}, which is free", "clear it", preen=REPAIR)

# Entries

ENTRY_SELF = Problem("entry-self", "directory {parent}: '{name}' leads to the directory itself", "delete it")
ENTRY_ROOT = Problem("entry-root", "directory {parent}: '{name}' leads to the root directory", "delete it")
ENTRY_INODE = Problem("entry-inode", "directory {parent}: '{name}' leads to inode {ino}, which no file can have", "delete it")
ENTRY_UNUSED = Problem(
    "entry-unused", "directory {parent}: '{name}' leads to inode {ino}, which is free", "delete it", preen=REPAIR
)
ENTRY_DOT = Problem("entry-dot", "directory {parent}: there is a second '.'", "delete it")
ENTRY_DOTDOT = Problem("entry-dotdot", "directory {parent}: there is a second '..'", "delete it")
ENTRY_NAME_EMPTY = Problem("entry-name-empty", "directory {parent}: an entry for inode {ino} has no name", "delete it")
ENTRY_NAME = Problem("entry-name", "directory {parent}: '{name}' has characters that no name can have", "replace them")
ENTRY_DIRECTORY_LINK = Problem(
    "entry-directory-link", "directory {parent}: '{name}' is another link to directory {ino}, which {got} holds", "delete it"
)
ENTRY_TYPE = Problem("entry-type", "directory {parent}: '{name}' has file type {got}, its inode {want}", "set it")
ENTRY_TYPE_UNSET = Problem(
    "entry-type-unset",
    "directory {parent}: '{name}' has no file type, its inode has {want}",
    "set it",
    note=True,
)
ENTRY_TYPE_FEATURE = Problem(
    "entry-type-feature",
    "directory {parent}: '{name}' has a file type, but the filesystem lacks the feature filetype",
    "clear it",
    preen=REPAIR,
)

# Names that are there twice

NAME_TWICE = Problem("directory-name-twice", "directory {ino}: a name is there twice; it will be rebuilt", note=True)
ENTRY_DUPLICATE = Problem("entry-duplicate", "directory {parent}: '{name}' is there twice for inode {ino}", "delete the second")
ENTRY_NAME_TWICE = Problem("entry-name-twice", "directory {parent}: '{name}' is there twice", "rename the second to '{want}'")

NAME_NOT_CHANGED = Problem("entry-name-left", "directory {parent}: there is no room for another name for a second '{name}'")

# Inodes that pass 1 marked

BAD_MODE = Problem("inode-mode", "inode {ino} ('{name}' in {parent}): its mode {got} is no file's", "clear the inode")
BAD_DEVICE = Problem("inode-device", "inode {ino} ('{name}' in {parent}): not a valid device", "clear the inode")
BAD_FIFO = Problem("inode-fifo", "inode {ino} ('{name}' in {parent}): not a valid FIFO", "clear the inode")
BAD_SOCKET = Problem("inode-socket", "inode {ino} ('{name}' in {parent}): not a valid socket", "clear the inode")
BAD_SYMLINK = Problem("inode-symlink", "inode {ino} ('{name}' in {parent}): not a valid symlink", "clear the inode")
BAD_FRAGMENT_ADDRESS = Problem("inode-faddr", "inode {ino}: i_faddr is {got}, want 0", "set it")
BAD_FRAGMENT = Problem("inode-fragment", "inode {ino}: fragment number and size are {got}, want 0", "set them")
BAD_BLOCKS_HIGH = Problem("inode-blocks-high", "inode {ino}: i_blocks_high is {got}, want 0", "set it")
BAD_ACL_HIGH = Problem("inode-file-acl-high", "inode {ino}: i_file_acl_high is {got}, want 0", "set it", preen=REPAIR)
BAD_ACL_BLOCK = Problem("inode-file-acl", "inode {ino}: i_file_acl is {got}, outside of the filesystem", "clear it")
BAD_ACL_FEATURE = Problem(
    "inode-file-acl-feature", "inode {ino}: i_file_acl is {got}, and the filesystem has no extended attributes", "clear it"
)
BAD_SIZE_HIGH = Problem("inode-size-high", "directory {ino}: i_size_high is {got}, want 0", "set it")

# Index

INDEX_ROOT = Problem(
    "index-root", "directory {ino}: the root of the index is not valid", "clear the index and rebuild it", preen=REPAIR
)
INDEX_LIMIT = Problem(
    "index-limit",
    "directory {ino}: block {logical} of the index has limit {got}, want {want}",
    "clear the index and rebuild it",
    preen=REPAIR,
)
INDEX_COUNT = Problem(
    "index-count",
    "directory {ino}: block {logical} of the index has {got} entries, want at most {want}",
    "clear the index and rebuild it",
    preen=REPAIR,
)
INDEX_ORDER = Problem(
    "index-order",
    "directory {ino}: block {logical} of the index has hashes that are not ascending",
    "clear the index and rebuild it",
    preen=REPAIR,
)
INDEX_BLOCK = Problem(
    "index-block",
    "directory {ino}: block {logical} of the index leads to block {got}, outside of the directory",
    "clear the index and rebuild it",
)
INDEX_WRONG = Problem("index-wrong", "directory {ino}: the index is wrong: {got}", "clear the index and rebuild it")

# The filesystem

LARGE_FILE_FEATURE = Problem(
    "large-file-feature",
    "the filesystem has files of 2 GiB or more, but not the feature large_file",
    "set the feature",
    preen=REPAIR,
)
REVISION_LARGE_FILE = Problem(
    "revision-large-file", "the revision of the filesystem is 0, which has no features", "set it to 1", preen=REPAIR
)
