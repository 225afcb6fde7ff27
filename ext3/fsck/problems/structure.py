"""Problems of the tree: directories that are not connected, ``..``, lost+found, files without a name, link counts."""

from __future__ import annotations

from ..problem import PreenAnswer, Problem

__all__ = [
    "DIRECTORY_LOOP",
    "DIRECTORY_UNCONNECTED",
    "DOTDOT_MISSING",
    "DOTDOT_WRONG",
    "EMPTY_UNATTACHED",
    "INODE_UNATTACHED",
    "LINKS_TOO_MANY",
    "LINK_COUNT",
    "LOST_FOUND_FAILED",
    "LOST_FOUND_FULL",
    "LOST_FOUND_MISSING",
    "LOST_FOUND_NOT_DIRECTORY",
    "ROOT_MISSING",
]

ROOT_MISSING = Problem("root-missing", "there is no root directory", "create it")
DIRECTORY_UNCONNECTED = Problem(
    "directory-unconnected",
    "directory inode {ino} is in no directory ('..': {got})",
    "link it in lost+found as #{ino}",
)
DIRECTORY_LOOP = Problem(
    "directory-loop", "directory inode {ino} lies below itself, in inode {parent}", "move it to lost+found as #{ino}"
)
DOTDOT_WRONG = Problem("directory-parent", "directory inode {ino}: '..' is inode {got}, want {want}", "set it")
DOTDOT_MISSING = Problem("directory-parent-missing", "directory inode {ino}: there is no '..' to set to inode {want}")
LOST_FOUND_MISSING = Problem("lost-found-missing", "there is no /lost+found", "create it", preen=PreenAnswer.REPAIR)
LOST_FOUND_NOT_DIRECTORY = Problem("lost-found-not-directory", "/lost+found is inode {ino}, no directory", "remove the name")
LOST_FOUND_FULL = Problem("lost-found-full", "/lost+found has no room for another name", "add a block to it")
LOST_FOUND_FAILED = Problem("lost-found-failed", "inode {ino} cannot be linked in /lost+found: {got}")

EMPTY_UNATTACHED = Problem(
    "empty-inode-unattached", "inode {ino} is an empty file without a name", "clear it", preen=PreenAnswer.REPAIR
)
INODE_UNATTACHED = Problem("inode-unattached", "inode {ino} is in use and has no name", "link it in lost+found as #{ino}")
LINK_COUNT = Problem("link-count", "inode {ino}: i_links_count is {got}, want {want}", "set it", preen=PreenAnswer.REPAIR)
LINKS_TOO_MANY = Problem("links-too-many", "inode {ino} has {got} links, want {want} or fewer")
