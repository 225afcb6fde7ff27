"""Directory editor: finds, adds, removes and replaces names, and maintains the index.

Linear directories are filled first-fit; where one outgrows its block it gets an index (if the filesystem has
``dir_index``), whose leaves and nodes split as the kernel splits them. An odd index is read over, and dropped by the first
name that is added; a name to remove that it does not lead to is searched in all blocks. Source: Linux ``fs/ext4/namei.c``
(ext4_add_entry, make_indexed_dir, do_split, ext4_dx_add_entry).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..constants import NAME_MAX, FileType, HashVersion
from ..errors import CorruptError, PathError, PathExistsError, PathNotFoundError
from ..format.dirent import BYTES_LIMIT, DOTS, DirentFields, Entry, directory_block_count, read_dirents
from ..format.dirent_block import (
    Record,
    delete_record,
    find_record,
    first_gap,
    fits_packed,
    insert_record,
    is_name,
    pack_block,
    set_inode,
    split_records,
)
from ..format.dirhash import DirHash
from ..format.htree import (
    DxFrame,
    DxNode,
    OddIndexError,
    check_leaf,
    leaves_of,
    pack_node,
    pack_root,
    probe,
    read_node,
    read_root_info,
)
from ..format.schema import DIRENT
from .block_map_edit import BlockMapEditor
from .blocks import Blocks

__all__ = ["CheckedBlocks", "Directory", "DirectoryFullError", "DirectoryRules", "NameExistsError", "NameTooLongError"]

KEPT_BYTES = 32 << 20
"""Most bytes of checked blocks in the cache."""
CheckedBlocks = dict[tuple[int, int], tuple[bytes, int]]
"""Blocks of directories that were found undamaged: (inode, logical block) -> (content, offset of the first gap)."""
_TYPES = {int(kind): kind for kind in FileType}
_Place = tuple[int, bytes, int, int]
"""Place of a name: logical block, its content, offset of the record, offset of the previous one or -1."""


class NameExistsError(PathExistsError):
    """The name exists in the directory."""


class NameTooLongError(PathError):
    """The name is longer than 255 bytes."""

    kind = "name-too-long"
    code = errno.ENAMETOOLONG


class DirectoryFullError(PathError):
    """The index is full, or the directory has its largest size."""

    kind = "directory-full"
    code = errno.ENOSPC


class DirectoryRules(NamedTuple):
    """Directory settings of the superblock: hash seed (four words), version and signedness; features; inodes."""

    seed: tuple[int, int, int, int]
    inodes: int
    hash_version: int = HashVersion.HALF_MD4
    signed: bool = True
    filetype: bool = True
    dir_index: bool = True


class Directory:
    """Directory. ``mapping`` is its inode's block map, ``size`` its i_size in bytes, ``indexed`` its flag INDEX. ``checked``:
    a cache that directories of one filesystem share.

    After a change the caller stores ``size``, ``indexed`` and the map's words and sectors in the inode. The object is stale
    once blocks were rolled back: make a new one.
    """

    def __init__(
        self,
        blocks: Blocks,
        mapping: BlockMapEditor,
        rules: DirectoryRules,
        *,
        ino: int,
        size: int,
        indexed: bool,
        checked: CheckedBlocks | None = None,
    ) -> None:
        self._ino = ino
        self._where = f"directory inode {ino}"
        self._size = blocks.block_size
        self._blocks = blocks
        self._rules = rules
        self._mapping = mapping
        self._count = directory_block_count(size, self._size, self._where)
        self._flag = indexed
        self._checked: CheckedBlocks = {} if checked is None else checked
        self._leaves: set[int] = set()
        """Leaves checked to hold only names that the index locates there."""
        self._physical: dict[int, int] = {}
        self._nodes: dict[int, DxNode] = {}
        self._root: tuple[DxNode, DirHash, int] | None = None
        self._hashes: dict[int, DirHash] = {}
        self._probed: tuple[bytes, int, list[DxFrame]] | None = None
        """Path through the index of the last name looked up, until a change: the name is often added next."""
        self._absent: bytes | None = None
        """Last name not found, until a change."""
        self._last_found = 0
        """Logical block in which the last name to remove was."""

    @property
    def size(self) -> int:
        """Size (i_size), in bytes."""
        return self._count * self._size

    @property
    def indexed(self) -> bool:
        """Flag INDEX of the inode."""
        return self._flag

    @property
    def mapping(self) -> BlockMapEditor:
        return self._mapping

    # -- look ------------------------------------------------------------------------------------------------------

    def find(self, name: bytes) -> Entry | None:
        """Return the entry of a name, None if there is none."""
        if name == self._absent:
            return None
        place = self._place(name)
        if place is None:
            self._absent = name
            return None
        return self._entry(name, place[1], place[2])

    def find_listed(self, name: bytes) -> Entry | None:
        """Return the entry of a name that ``entries`` may have, by a search of all blocks if the index does not lead to it."""
        place = self._listed(name)
        return None if place is None else self._entry(name, place[1], place[2])

    def entries(self) -> Iterator[Entry]:
        """Yield all entries in disk order, including "." and ".."."""
        for logical in range(self._count):
            for ino, file_type, name in self._records(logical):
                yield Entry(name, ino, _TYPES.get(file_type, FileType.UNKNOWN))

    def listed(self) -> list[tuple[bytes, int, int]]:
        """Return (name, inode, file type) of all entries in disk order, including "." and ".."."""
        return [(name, ino, kind) for logical in range(self._count) for ino, kind, name in self._records(logical)]

    def is_empty(self) -> bool:
        """Return True if there are no entries except "." and ".."."""
        return all(entry.name in DOTS for entry in self.entries())

    def has(self, ino: int) -> bool:
        """Return True if it has an entry of this inode."""
        raw = ino.to_bytes(4, "little")
        return any(
            raw in self._load(logical)[0]
            and any(other == ino and name not in DOTS for other, _, name in self._records(logical))
            for logical in range(self._count)
        )

    def own(self) -> int:
        """Return the inode of "."."""
        return self._dot(b".")

    def parent(self) -> int:
        """Return the inode of ".."."""
        return self._dot(b"..")

    def _dot(self, name: bytes) -> int:
        entry = self.find(name)
        if entry is None:
            raise CorruptError(self._where, "directory", f"without {name.decode()}", "with one")
        return entry.ino

    # -- change ----------------------------------------------------------------------------------------------------

    def insert(self, name: bytes, ino: int, file_type: int) -> None:
        """Add a name. Raise NameExistsError, NameTooLongError, DirectoryFullError or NoSpaceError with nothing changed."""
        if not is_name(name):
            if len(name) > NAME_MAX:
                raise NameTooLongError(name, f"a name has {NAME_MAX} bytes at most")
            raise ValueError(f"{name!r} is no name")
        if not self._rules.filetype:
            file_type = 0
        if self._uses_index:
            try:
                self._insert_indexed(name, ino, file_type)
            except OddIndexError:
                # Blocks of the index become ordinary ones, which is how they look to a linear search anyway.
                self._insert_linear(name, ino, file_type, drop_index=True)
        else:
            self._insert_linear(name, ino, file_type, drop_index=False)

    def remove(self, name: bytes) -> Entry:
        """Remove a name. Return its entry. Raise PathNotFoundError."""
        if name in DOTS:
            raise ValueError(f"{name!r} stays")
        logical, block, offset, before = self._require(name)
        entry = self._entry(name, block, offset)
        _, gap = self._load(logical)
        self._store(logical, delete_record(block, offset, before), min(gap, offset if before < 0 else before))
        return entry

    def replace(self, name: bytes, ino: int, file_type: int) -> Entry:
        """Set the inode of a name. Return its former entry. Raise PathNotFoundError."""
        logical, block, offset, _ = self._require(name)
        entry = self._entry(name, block, offset)
        _, gap = self._load(logical)
        self._store(logical, set_inode(block, offset, ino, file_type if self._rules.filetype else 0), gap)
        return entry

    def set_parent(self, ino: int) -> None:
        """Set the inode of ".."."""
        self.replace(b"..", ino, FileType.DIRECTORY)

    # -- blocks ----------------------------------------------------------------------------------------------------

    def _block(self, logical: int) -> int:
        """Return the physical block of a logical one, cached because directories never shrink."""
        known = self._physical.get(logical)
        if known is None:
            known = self._mapping.block(logical)
            if known is None:
                raise CorruptError(self._where, "directory", f"a hole at block {logical}", "a block")
            self._physical[logical] = known
        return known

    def _load(self, logical: int) -> tuple[bytes, int]:
        """Return a block, with its records checked, and its first gap."""
        data = self._blocks.read(self._block(logical))
        known = self._checked.get((self._ino, logical))
        if known is not None and (known[0] is data or known[0] == data):
            return known
        return self._remember(logical, data, first_gap(self._judge(logical, data)))

    def _judge(self, logical: int, data: bytes) -> list[DirentFields]:
        """Return the records of a block. Raise CorruptError if it is damaged."""
        found: list[DirentFields] = []
        read_dirents(data, logical, found, inodes=self._rules.inodes, where=self._where)
        return found

    def _records(self, logical: int) -> list[Record]:
        """Return (inode, file type, name) of the records of a block."""
        dirents = self._judge(logical, self._blocks.read(self._block(logical)))
        return [(ino, file_type, name) for _, ino, _, file_type, name in dirents]

    def _remember(self, logical: int, data: bytes, gap: int) -> tuple[bytes, int]:
        if len(self._checked) * self._size >= KEPT_BYTES:
            self._checked.clear()
        self._checked[self._ino, logical] = known = data, gap
        return known

    def _store(self, logical: int, data: bytes, gap: int) -> None:
        self._write(logical, data)
        self._remember(logical, data, gap)

    def _write(self, logical: int, data: bytes) -> None:
        self._probed = self._absent = None
        self._blocks.write(self._block(logical), data)

    def _append(self, name: bytes, *contents: bytes) -> None:
        """Append blocks to the directory. Changes nothing on failure."""
        if (self._count + len(contents)) * self._size > BYTES_LIMIT:
            raise DirectoryFullError(name, f"{self._where} cannot be larger than {BYTES_LIMIT} bytes")
        self._probed = self._absent = None
        self._mapping.append(self._count, contents, 0)
        self._count += len(contents)

    def _entry(self, name: bytes, block: bytes, offset: int) -> Entry:
        ino, _, _, file_type = DIRENT.packer.unpack_from(block, offset)
        return Entry(name, ino, _TYPES.get(file_type, FileType.UNKNOWN))

    # -- search ----------------------------------------------------------------------------------------------------

    @property
    def _uses_index(self) -> bool:
        return self._flag and self._rules.dir_index

    def _require(self, name: bytes) -> _Place:
        place = self._listed(name)
        if place is None:
            raise PathNotFoundError(name, f"no such name in {self._where}")
        return place

    def _listed(self, name: bytes) -> _Place | None:
        """Return the place of a name, by a search of all blocks if the index does not lead to it.

        The names of a wrong leaf show that an index is odd; once they are removed, nothing does. The block of the last name
        comes first, because directories are emptied block by block: it saves a search of all before it.
        """
        place = self._search((self._last_found,), name) if self._last_found < self._count else None
        if place is None:
            place = self._place(name)
        if place is None and self._uses_index:
            place = self._search(range(self._count), name)
        if place is not None and name not in DOTS:
            self._last_found = place[0]
        return place

    def _place(self, name: bytes) -> _Place | None:
        if name in DOTS:
            return self._search((0,), name)
        if self._uses_index:
            try:
                number, frames = self._probe(name)
                place = self._search(leaves_of(frames, number, self._node, blocks=self._count), name)
                if place is None and frames[-1].child not in self._leaves:
                    self._check_leaf(frames)
                return place
            except OddIndexError:
                pass
        return self._search(range(self._count), name)

    def _search(self, logicals: Iterable[int], name: bytes) -> _Place | None:
        for logical in logicals:
            block, _ = self._load(logical)
            found = find_record(block, name)
            if found:
                return logical, block, *found
        return None

    def _probe(self, name: bytes) -> tuple[int, list[DxFrame]]:
        """Return the hash of a name, and the path to the leaf for it."""
        if self._probed is None or self._probed[0] != name:
            self._probed = name, *self._way(name)
        return self._probed[1:]

    def _way(self, name: bytes) -> tuple[int, list[DxFrame]]:
        node = self._node(0)
        root = self._root
        if root is None or root[0] is not node:
            version, levels = read_root_info(node.data)
            root = self._root = node, self._hash(version), levels
        number = root[1](name)
        return number, probe(number, root[2], self._node)

    def _check_leaf(self, frames: list[DxFrame]) -> None:
        """Raise OddIndexError if the index locates a name in the leaf of ``frames`` elsewhere."""
        leaf = frames[-1].child
        block, _ = self._load(leaf)
        hashed = self._hash(read_root_info(frames[0].node.data)[0])
        check_leaf(block, [hashed(name) for _, _, name in self._records(leaf)], frames)
        self._leaves.add(leaf)

    def _node(self, logical: int) -> DxNode:
        data = self._blocks.read(self._block(logical))
        known = self._nodes.get(logical)
        if known is None or not (known.data is data or known.data == data):
            known = self._nodes[logical] = read_node(data, logical, blocks=self._count)
        return known

    def _hash(self, version: int) -> DirHash:
        found = self._hashes.get(version)
        if found is None:
            found = self._hashes[version] = DirHash(version, self._rules.seed, signed=self._rules.signed)
        return found

    # -- insert ----------------------------------------------------------------------------------------------------

    def _insert_linear(self, name: bytes, ino: int, file_type: int, *, drop_index: bool) -> None:
        place = None
        for logical in range(self._count):
            block, gap = self._load(logical)
            if find_record(block, name):
                raise NameExistsError(name, f"is in {self._where} already")
            if place is None and gap < self._size:
                changed = insert_record(block, gap, name, ino, file_type)
                if changed:
                    place = logical, *changed
        if place:
            self._store(*place)
        elif self._count == 1 and self._rules.dir_index and not drop_index:
            self._make_index(name, ino, file_type)
        else:
            block, gap = pack_block([(ino, file_type, name)], self._size)
            self._append(name, block)
            self._remember(self._count - 1, block, gap)
        if drop_index:
            self._flag = False

    def _make_index(self, name: bytes, ino: int, file_type: int) -> None:
        """Turn the only block into a root over two leaves and add the name; only pack the block if it is full of gaps."""
        found = self._records(0)
        version = self._rules.hash_version
        try:
            hashes = self._hash(version)
        except ValueError:
            raise CorruptError("superblock", "s_def_hash_version", version, "0, 1 or 2") from None
        everything = [*found[2:], (ino, file_type, name)]
        if fits_packed(everything, self._size):
            self._store(0, *pack_block([*found[:2], *everything], self._size))
            return
        numbers = [hashes(name) for _, _, name in everything]
        left, right, border = split_records(everything, numbers)
        (low, low_gap), (high, high_gap) = pack_block(left, self._size), pack_block(right, self._size)
        self._append(name, low, high)
        self._write(0, pack_root(pack_block(found[:2], self._size)[0], version, 0, (0, border), (1, 2)))
        self._checked.pop((self._ino, 0), None)
        self._remember(1, low, low_gap)
        self._remember(2, high, high_gap)
        self._leaves = {1, 2}
        self._flag = True

    def _insert_indexed(self, name: bytes, ino: int, file_type: int) -> None:
        number, frames = self._probe(name)
        leaf = frames[-1].child
        block, gap = self._load(leaf)
        if name != self._absent and self._search(leaves_of(frames, number, self._node, blocks=self._count), name):
            raise NameExistsError(name, f"is in {self._where} already")
        if leaf not in self._leaves:
            self._check_leaf(frames)
        changed = insert_record(block, gap, name, ino, file_type) if gap < self._size else None
        if changed:
            self._store(leaf, *changed)
            return
        everything = self._records(leaf)
        everything.append((ino, file_type, name))
        if fits_packed(everything, self._size):
            self._store(leaf, *pack_block(everything, self._size))
            return
        version, _ = read_root_info(frames[0].node.data)
        hashed = self._hash(version)
        left, right, border = split_records(everything, [*(hashed(other) for _, _, other in everything[:-1]), number])
        (low, low_gap), (high, high_gap) = pack_block(left, self._size), pack_block(right, self._size)
        new_leaf = self._enter(name, frames, border, high)
        self._store(leaf, low, low_gap)
        self._remember(new_leaf, high, high_gap)
        self._leaves.add(new_leaf)

    def _enter(self, name: bytes, frames: list[DxFrame], border: int, content: bytes) -> int:
        """Append a leaf with this content and add it to the index, behind the leaf of ``frames``. Return its block."""
        node, slot, _ = frames[-1]
        if not node.full:
            self._append(name, content)
            self._write(node.block, node.inserted(slot + 1, border, self._count - 1))
            return self._count - 1
        added, leaf = self._count, self._count + 1
        hashes, blocks = node.with_entry(slot + 1, border, leaf)
        if len(frames) == 1:
            # The root becomes the parent of a node, which takes its entries: a node has room for three more.
            version, _ = read_root_info(node.data)
            self._append(name, pack_node(hashes, blocks, self._size), content)
            self._write(0, pack_root(node.data, version, 1, (0,), (added,)))
            return leaf
        root, at, _ = frames[0]
        if root.full:
            raise DirectoryFullError(name, f"{self._where}: the directory index is full")
        middle = len(hashes) // 2
        self._append(name, pack_node([0, *hashes[middle + 1 :]], blocks[middle:], self._size), content)
        self._write(node.block, node.packed(hashes[:middle], blocks[:middle]))
        self._write(0, root.inserted(at + 1, hashes[middle], added))
        return leaf
