"""Inode cache of an edit session: loads, changes and frees inodes.

A rollback invalidates the cache; ``run`` takes care of that. Functions that change something are called inside an
operation, except ``run`` and ``release``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from ..constants import FLAGS_UNSIGNED_HASH, ROOT_INO, SECTOR, Compat, InodeFlag, RoCompat
from ..errors import CorruptError, JournalFullError, PathError, PathNotDirectoryError, XattrError
from ..format.indirect_blocks import SECTORS_LIMIT
from ..format.inode import Inode, InodeRecord, check_map_flags
from .block_map_edit import BlockMapEditor
from .directory import CheckedBlocks, Directory, DirectoryRules
from .orphan_list import OrphanLinks, cut_in_steps, delete_inode
from .session import Session
from .xattr_edit import AttributeEditor, AttributeSharing

__all__ = ["Node", "InodeCache", "check_changeable"]

T = TypeVar("T")

# Plain ints: each & with an IntFlag member creates a new member.
IMMUTABLE = int(InodeFlag.IMMUTABLE)
FIXED = int(InodeFlag.IMMUTABLE | InodeFlag.APPEND)
INDEX = int(InodeFlag.INDEX)
CACHE_SIZE = 4096
"""Inodes that are cached at most."""


class Node:
    """Cached inode: its ``record``, and once needed its block map and its names."""

    __slots__ = ("checked", "decoded", "directory", "ino", "map", "record")

    def __init__(self, ino: int, record: InodeRecord) -> None:
        self.ino = ino
        self.record = record
        self.map: BlockMapEditor | None = None
        self.directory: Directory | None = None
        self.decoded: Inode | None = None
        """The inode as readers see it, if it was asked for since the last change."""
        self.checked = False
        """True once ``edit`` found that it may be changed."""


def check_changeable(node: Node, name: bytes | str, forbidden: int = FIXED) -> None:
    """Raise PathError (EPERM) if the inode has one of the flags ``forbidden``."""
    if node.record.flags & forbidden:
        raise PathError(name, "Operation not permitted: the file is marked as immutable or append-only", code=errno.EPERM)


class InodeCache:
    """Inode cache of one session; holds at most CACHE_SIZE inodes."""

    def __init__(self, session: Session) -> None:
        superblock = session.superblock
        self.session = session
        self.block_size = session.block_size
        self.inode_size = superblock.inode_size
        self.sectors_per_block = self.block_size // SECTOR
        self._first = superblock.first_data_block
        self._end = superblock.blocks_count
        self._first_ino = superblock.first_ino
        self._dynamic = superblock.revision > 0
        a, b, c, d = superblock.hash_seed
        self.rules = DirectoryRules(
            (a, b, c, d),
            superblock.inodes_count,
            hash_version=superblock.hash_version,
            signed=not superblock.flags & FLAGS_UNSIGNED_HASH,
            filetype=superblock.has_filetype,
            dir_index=bool(superblock.compat & Compat.DIR_INDEX),
        )
        self._sharing = AttributeSharing()
        self._checked_blocks: CheckedBlocks = {}
        self._nodes: dict[int, Node] = {}
        self._unwritten: dict[int, Node] = {}
        """Inodes that the running operation changed. Their records are written once, at its end."""
        self._held: dict[int, int] = {}
        self._orphans: set[int] = set()
        """Inodes that had no name at some time; a rollback or ``unmake_orphan`` may have given them one since."""
        self._orphan_links: OrphanLinks | None = None
        self._rollbacks = session.rollbacks
        self._generation = session.nanoseconds
        self.parents: dict[bytes, int] = {}
        """Resolved paths of directories. Cleared by every change of where one leads."""

    # Operations

    def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` as one operation: all of it takes effect, or nothing. Return its result."""

        def fresh() -> T:
            if self._unwritten or self.session.rollbacks != self._rollbacks:
                self.forget()
            found = work()
            self.write_out()
            return found

        try:
            return self.session.run(fresh)
        except BaseException as error:
            if self._unwritten or self.session.rollbacks != self._rollbacks or not isinstance(error, PathError):
                self.forget()
            raise

    def forget(self) -> None:
        """Empty the cache."""
        self._rollbacks = self.session.rollbacks
        self._nodes.clear()
        self._unwritten.clear()
        self._checked_blocks.clear()
        self._sharing.clear()
        self.parents.clear()
        self._orphan_links = None

    # Inodes

    def load(self, ino: int) -> Node:
        """Return an inode for reading. Raises PathNotFoundError for a number that is no inode, CorruptError."""
        node = self._nodes.get(ino)
        if node is None:
            node = self._unwritten.get(ino) or Node(ino, InodeRecord(self.session.read_inode(ino), ino))
            self._keep(node)
        return node

    def _keep(self, node: Node) -> Node:
        if len(self._nodes) >= CACHE_SIZE:
            for old in list(self._nodes)[: CACHE_SIZE // 2]:
                del self._nodes[old]
        self._nodes[node.ino] = node
        return node

    def edit(self, ino: int) -> Node:
        """Return an inode for changing. Raises CorruptError unless it is in use and not one of the filesystem's own."""
        # Reinserted as the newest, so that directories in use stay in the cache.
        node = self._nodes.pop(ino, None)
        if node is None:
            node = self.load(ino)
        else:
            self._nodes[ino] = node
        if node.checked:
            return node
        try:
            self.check_in_use(ino)
        except CorruptError:
            del self._nodes[ino]
            raise
        check_map_flags(node.record.flags, f"inode {ino}")
        node.checked = True
        return node

    def check_in_use(self, ino: int) -> None:
        """Raise CorruptError unless an inode is in use and not one of the filesystem's own."""
        if (ino != ROOT_INO and ino < self._first_ino) or not self.session.inode_in_use(ino):
            raise CorruptError(f"inode {ino}", "number", ino, "an inode of a file that is in use")

    def inode(self, ino: int) -> Inode:
        """Return an inode as readers see it."""
        node = self.load(ino)
        if node.decoded is None:
            node.decoded = node.record.freeze(ino)
        return node.decoded

    def store(self, node: Node) -> None:
        """Note that the record of an inode was changed."""
        node.decoded = None
        node.record.round_times()
        # The cache may have dropped the node since the caller got it, and loaded another.
        self._unwritten[node.ino] = self._nodes[node.ino] = node

    def write_out(self) -> None:
        """Write the changed records into the inode table, as ``run`` does at the end."""
        for node in self._unwritten.values():
            raw = node.record.pack()
            if len(raw) < self.inode_size:  # keeps an extra area with i_extra_isize 0 as it is
                raw += self.session.read_inode(node.ino)[len(raw) :]
            self.session.write_inode(node.ino, raw)
        self._unwritten.clear()

    def drop(self, ino: int) -> None:
        """Forget an inode that was changed or deleted without the cache. Its own changes must be written already."""
        self._nodes.pop(ino, None)

    # Parts of an inode

    def map(self, node: Node) -> BlockMapEditor:
        """Return the block map of a file, directory or long symlink target."""
        found = node.map
        if found is None:
            record = node.record
            found = node.map = BlockMapEditor(
                self.session,
                record.i_block,
                first=self._first,
                end=self._end,
                where=f"inode {node.ino}",
                sectors=record.sectors,
                metadata=not record.is_file,
            )
        return found

    def update_map(self, node: Node) -> None:
        """Copy a changed map into the record."""
        if node.map is not None:
            node.record.i_block = node.map.i_block
            node.record.sectors = node.map.sectors

    def directory(self, node: Node) -> Directory:
        """Return the names in a directory. Raises PathNotDirectoryError, CorruptError."""
        found = node.directory
        if found is None:
            record = node.record
            if not record.is_dir:
                raise PathNotDirectoryError(node.ino, "not a directory")
            found = node.directory = Directory(
                self.session,
                self.map(node),
                self.rules,
                ino=node.ino,
                size=record.size,
                indexed=bool(record.flags & INDEX),
                checked=self._checked_blocks,
            )
        return found

    def store_directory(self, node: Node, now: int) -> None:
        """Copy a directory whose names were changed at ``now`` into the record."""
        record = node.record
        directory = node.directory
        assert directory is not None
        record.size = directory.size
        if directory.indexed:
            record.flags |= INDEX
        else:
            record.flags &= ~INDEX
        record.i_block, record.sectors = directory.mapping.i_block, directory.mapping.sectors
        record.mtime = record.ctime = now
        self.store(node)

    def has_attributes(self, node: Node) -> bool:
        """Return whether there may be extended attributes."""
        record = node.record
        return bool(record.file_acl) or record.area.count(0) != len(record.area)

    def attributes(self, node: Node) -> AttributeEditor:
        """Return an editor of the attributes of an inode."""
        return AttributeEditor(
            self.session,
            node.record.area,
            node.record.file_acl,
            first=self._first,
            end=self._end,
            where=f"inode {node.ino}",
            goal=self.session.goal_of(node.ino),
            sharing=self._sharing,
        )

    def update_attributes(self, node: Node, editor: AttributeEditor) -> None:
        """Copy changed attributes into the record. Raises CorruptError if its count of sectors leaves no room.

        XattrError (EOPNOTSUPP) for a block in a filesystem of revision 0, which has no feature for attributes.
        """
        record = node.record
        if editor.file_acl and not self._dynamic:
            message = "this old filesystem has no place for attributes"
            raise XattrError(f"inode {node.ino}", message, error=OSError(errno.EOPNOTSUPP, message))
        change = (bool(editor.file_acl) - bool(record.file_acl)) * self.sectors_per_block
        if record.sectors + change > SECTORS_LIMIT:
            raise CorruptError(f"inode {node.ino}", "i_blocks", record.sectors, f"<= {SECTORS_LIMIT - change}")
        record.sectors = max(0, record.sectors + change)
        if node.map is not None:
            node.map.sectors = record.sectors
        record.area, record.file_acl = editor.area, editor.file_acl
        if record.file_acl:
            self.session.add_features(compat=Compat.EXT_ATTR)

    def need_large_file(self, node: Node) -> None:
        """Set the feature large_file, before a file passes 2 GiB. Raises PathError (EFBIG) in revision 0."""
        if not self._dynamic:
            raise PathError(node.ino, "files of this old filesystem end at 2 GiB", code=errno.EFBIG)
        self.session.add_features(ro_compat=RoCompat.LARGE_FILE)

    # Creation and deletion

    def new(self, parent: Node, *, mode: int, uid: int, gid: int, is_dir: bool, now: int) -> Node:
        """Allocate an inode for a child of ``parent``, without links and not written yet. Raises NoFreeInodesError."""
        ino = self.session.allocate_inode(parent.ino, is_dir=is_dir)
        self._generation += 0x9E3779B1
        generation = self._generation ^ ino
        record = InodeRecord.new(self.inode_size, mode=mode, uid=uid, gid=gid, now=now, generation=generation)
        self._nodes.pop(ino, None)
        node = self._keep(Node(ino, record))
        node.checked = True
        return node

    def hold(self, ino: int) -> None:
        """Keep the inode, past its last name, until ``release``: it is open."""
        self._held[ino] = self._held.get(ino, 0) + 1

    def drop_unlinked(self, node: Node) -> None:
        """Delete an inode whose record has no links left; one that is held, when it is released."""
        if node.ino in self._held:
            self.make_orphan(node)
            return
        self._delete(node)

    def make_orphan(self, node: Node) -> None:
        """Make an inode without links an orphan: deleted when released, or after a crash by the next open."""
        self.add_orphan(node)
        self._orphans.add(node.ino)

    def unmake_orphan(self, ino: int) -> Node:
        """Remove an inode from the orphan list, to give it a name. Raises CorruptError if it is not in the list."""
        node = self.edit(ino)
        self.remove_orphan(node)
        return node

    def add_orphan(self, node: Node) -> None:
        """Put an inode at the head of the orphan list, if the list does not hold it, and store it."""
        links = self._links_of_orphans()
        if node.ino not in links:
            node.record.dtime = self.session.last_orphan
            links.add_first(node.ino, self.session.last_orphan)
            self.session.last_orphan = node.ino
        self.store(node)

    def remove_orphan(self, node: Node) -> None:
        """Take an inode out of the orphan list, and store it. Raises CorruptError if the list does not hold it."""
        following = node.record.dtime
        previous = self._links_of_orphans().remove(node.ino, following)
        if previous:
            before = self.load(previous)
            before.record.dtime = following
            self.store(before)
        else:
            self.session.last_orphan = following
        node.record.dtime = 0
        self.store(node)

    def _links_of_orphans(self) -> OrphanLinks:
        if self._orphan_links is None:
            self._orphan_links = OrphanLinks(self.session)
        return self._orphan_links

    def _delete(self, node: Node) -> None:
        self.store(node)
        self.write_out()
        delete_inode(self.session, node.ino)
        self.drop(node.ino)
        if node.record.file_acl:
            self._sharing.clear()

    def release(self, ino: int) -> None:
        """Undo a ``hold``; the last one deletes an inode without names. Not inside an operation.

        After a failed write that is left to the next open.
        """
        left = self._held.get(ino, 0) - 1
        if left > 0:
            self._held[ino] = left
            return
        self._held.pop(ino, None)
        if ino in self._orphans and self.session.usable and not self._has_name(ino):
            try:
                self.run(lambda: self._delete_orphan(ino))
            except JournalFullError:
                cut_in_steps(self.session, ino, 0)
                self.drop(ino)
                self.run(lambda: self._delete_orphan(ino))
        self._orphans.discard(ino)

    def abandon(self) -> None:
        """Drop all holds and delete nothing."""
        self._held.clear()
        self._orphans.clear()

    def release_all(self) -> None:
        """Release all inodes that are held."""
        for ino in list(self._held):
            self._held[ino] = 1
            self.release(ino)

    def _has_name(self, ino: int) -> bool:
        """Return whether an inode that once had no name has one: it was named, or losing the last one was rolled back."""
        if self.session.rollbacks != self._rollbacks:
            self.forget()
        return self.load(ino).record.links > 0

    def _delete_orphan(self, ino: int) -> None:
        self._delete(self.unmake_orphan(ino))
