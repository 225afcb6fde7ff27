"""A filesystem kept in plain objects, with the verbs of WritableFilesystem: what an edited image has to look like.

Unlike a directory of the host it has whiteouts, attributes of all prefixes and owners without privileges, and its files may
have holes as large as an image's. Paths lead through directories alone. A verb that cannot be done raises ModelError.
"""

from __future__ import annotations

import copy
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

import ext3
from ext3.constants import FileType
from ext3.format.inode import Stat, file_type_of

__all__ = ["Content", "ModelError", "ModelNode", "ModelTree", "compare"]

PAGE = 1024


class ModelError(Exception):
    """The verb cannot be done; nothing has changed."""


class Content:
    """The bytes of a file: pages that were written, zeros between them."""

    def __init__(self) -> None:
        self.size = 0
        self.pages: dict[int, bytearray] = {}

    def write(self, offset: int, data: bytes) -> None:
        if not data:
            return
        self.size = max(self.size, offset + len(data))
        at = 0
        while at < len(data):
            page, start = divmod(offset + at, PAGE)
            part = data[at : at + PAGE - start]
            self.pages.setdefault(page, bytearray(PAGE))[start : start + len(part)] = part
            at += len(part)

    def truncate(self, size: int) -> None:
        if size < self.size:
            self.punch(size, self.size - size)
        self.size = size

    def punch(self, offset: int, length: int) -> None:
        end = min(offset + length, self.size)
        for page in [page for page in self.pages if page * PAGE < end and (page + 1) * PAGE > offset]:
            low, high = max(offset - page * PAGE, 0), min(end - page * PAGE, PAGE)
            if high - low == PAGE:
                del self.pages[page]
            elif high > low:
                self.pages[page][low:high] = bytes(high - low)

    def read(self, offset: int, size: int) -> bytes:
        found = bytearray(max(0, min(size, self.size - offset)))
        for page in range(offset // PAGE, -(-(offset + len(found)) // PAGE)):
            if page in self.pages:
                low, high = max(page * PAGE, offset), min((page + 1) * PAGE, offset + len(found))
                found[low - offset : high - offset] = self.pages[page][low - page * PAGE : high - page * PAGE]
        return bytes(found)


@dataclass(eq=False)
class ModelNode:
    mode: int
    uid: int = 0
    gid: int = 0
    links: int = 1
    rdev: tuple[int, int] = (0, 0)
    target: bytes = b""
    content: Content = field(default_factory=Content)
    names: dict[bytes, ModelNode] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


class ModelTree:
    """The tree; ``root`` is its top."""

    def __init__(self) -> None:
        self.root = ModelNode(stat.S_IFDIR | 0o755, links=2)

    def copy(self) -> ModelTree:
        """The tree as it is now, which later changes leave alone."""
        return copy.deepcopy(self)

    def walk(self) -> Iterator[tuple[bytes, ModelNode]]:
        """(path, node) of all there is, parents first, the root left out."""
        pending = [(b"", self.root)]
        while pending:
            above, directory = pending.pop()
            for name, node in directory.names.items():
                yield above + b"/" + name, node
                if node.is_dir:
                    pending.append((above + b"/" + name, node))

    def _at(self, path: bytes) -> ModelNode:
        node = self.root
        for name in path.split(b"/"):
            if name:
                if not node.is_dir or name not in node.names:
                    raise ModelError(path)
                node = node.names[name]
        return node

    def _above(self, path: bytes) -> tuple[ModelNode, bytes]:
        above, _, name = path.rpartition(b"/")
        node = self._at(above)
        if not node.is_dir or not name or len(name) > 255:
            raise ModelError(path)
        return node, name

    def _free_name(self, path: bytes) -> tuple[ModelNode, bytes]:
        node, name = self._above(path)
        if name in node.names:
            raise ModelError(path)
        return node, name

    def _enter(self, above: ModelNode, name: bytes, made: ModelNode) -> None:
        if above.mode & stat.S_ISGID:
            made.gid = above.gid
            made.mode |= stat.S_ISGID if made.is_dir else 0
        above.names[name] = made
        above.links += made.is_dir

    # Names

    def mkdir(self, path: bytes, mode: int, uid: int, gid: int) -> None:
        node, name = self._free_name(path)
        self._enter(node, name, ModelNode(stat.S_IFDIR | mode, uid, gid, links=2))

    def mknod(self, path: bytes, mode: int, rdev: tuple[int, int], uid: int, gid: int) -> None:
        node, name = self._free_name(path)
        device = rdev if stat.S_IFMT(mode) in (stat.S_IFCHR, stat.S_IFBLK) else (0, 0)
        self._enter(node, name, ModelNode(mode, uid, gid, rdev=device))

    def symlink(self, target: bytes, path: bytes) -> None:
        node, name = self._free_name(path)
        self._enter(node, name, ModelNode(stat.S_IFLNK | 0o777, target=target))

    def link(self, existing: bytes, path: bytes) -> None:
        old = self._at(existing)
        if old.is_dir:
            raise ModelError(existing)
        node, name = self._free_name(path)
        node.names[name] = old
        old.links += 1

    def unlink(self, path: bytes) -> None:
        node, name = self._above(path)
        if name not in node.names or node.names[name].is_dir:
            raise ModelError(path)
        node.names.pop(name).links -= 1

    def orphan(self, path: bytes) -> None:
        if not self._at(path).is_file:
            raise ModelError(path)
        self.unlink(path)

    def rmdir(self, path: bytes) -> None:
        node, name = self._above(path)
        if name not in node.names or not node.names[name].is_dir or node.names[name].names:
            raise ModelError(path)
        del node.names[name]
        node.links -= 1

    def remove_tree(self, path: bytes) -> None:
        node, name = self._above(path)
        if name not in node.names:
            raise ModelError(path)
        pending = [(node, name)]
        while pending:
            above, name = pending[-1]
            gone = above.names[name]
            if gone.names:
                pending.append((gone, next(iter(gone.names))))
                continue
            pending.pop()
            del above.names[name]
            gone.links -= 1
            above.links -= gone.is_dir

    def rename(self, old: bytes, new: bytes, *, replace: bool = True, whiteout: bool = False) -> None:
        source, old_name = self._above(old)
        goal, new_name = self._above(new)
        moved, target = source.names.get(old_name), goal.names.get(new_name)
        if moved is None or (target is not None and not replace):
            raise ModelError(old)
        if target is moved:
            return
        self._check_not_below(moved, new)
        if target is not None and (moved.is_dir != target.is_dir or target.names):
            raise ModelError(new)
        del source.names[old_name]
        source.links -= moved.is_dir
        if target is not None:
            target.links -= 1
            goal.links -= target.is_dir
        goal.names[new_name] = moved
        goal.links += moved.is_dir
        if whiteout:
            self._enter(source, old_name, ModelNode(stat.S_IFCHR))

    def exchange(self, old: bytes, new: bytes) -> None:
        (source, old_name), (goal, new_name) = self._above(old), self._above(new)
        one, two = source.names.get(old_name), goal.names.get(new_name)
        if one is None or two is None:
            raise ModelError(old)
        if one is two:
            return
        self._check_not_below(one, new)
        self._check_not_below(two, old)
        source.names[old_name], goal.names[new_name] = two, one
        source.links += two.is_dir - one.is_dir
        goal.links += one.is_dir - two.is_dir

    def _check_not_below(self, moved: ModelNode, path: bytes) -> None:
        node = self.root
        for name in path.split(b"/")[1:-1]:
            node = node.names[name]
            if node is moved:
                raise ModelError(path)

    # Content and facts

    def _file(self, path: bytes) -> Content:
        node = self._at(path)
        if not node.is_file:
            raise ModelError(path)
        return node.content

    def write(self, path: bytes, offset: int, data: bytes) -> None:
        self._file(path).write(offset, data)

    def append(self, path: bytes, data: bytes) -> None:
        content = self._file(path)
        content.write(content.size, data)

    def truncate(self, path: bytes, size: int) -> None:
        self._file(path).truncate(size)

    def punch(self, path: bytes, offset: int, length: int) -> None:
        self._file(path).punch(offset, length)

    def write_bytes(self, path: bytes, data: bytes) -> None:
        node, name = self._above(path)
        if name not in node.names:
            self._enter(node, name, ModelNode(stat.S_IFREG | 0o644))
        found = node.names[name]
        if not found.is_file:
            raise ModelError(path)
        found.content.truncate(0)
        found.content.write(0, data)

    def chmod(self, path: bytes, mode: int) -> None:
        node = self._at(path)
        node.mode = stat.S_IFMT(node.mode) | mode

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        node = self._at(path)
        node.uid, node.gid = uid, gid
        if not node.is_dir:
            node.xattrs.pop(b"security.capability", None)
            node.mode &= ~(stat.S_ISUID | (stat.S_ISGID if node.mode & stat.S_IXGRP else 0))

    def set_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        node = self._at(path)
        if name.startswith(b"user.") and not (node.is_dir or node.is_file):
            raise ModelError(path)
        node.xattrs[name] = value

    def remove_xattr(self, path: bytes, name: bytes) -> None:
        if self._at(path).xattrs.pop(name, None) is None:
            raise ModelError(path)


def compare(fs: ext3.Filesystem, tree: ModelTree) -> None:
    """Everything a reader sees of the image is as the model says, to the last byte of the largest hole."""
    seen: dict[int, ModelNode] = {}
    found = {b"/" + path: entry for path, entry in fs.walk("/") if path != b"lost+found"}
    expected = dict(tree.walk())
    assert found.keys() == expected.keys()
    for path, node in [(b"/", tree.root), *expected.items()]:
        ino = found[path].ino if path != b"/" else 2
        assert path == b"/" or found[path].file_type is file_type_of(node.mode), path
        if ino in seen:
            assert seen[ino] is node, path
            continue
        seen[ino] = node
        facts = fs.stat(ino)
        extra = 1 if path == b"/" else 0  # lost+found
        assert facts.links == node.links + extra, path
        assert (facts.mode, facts.uid, facts.gid) == (node.mode, node.uid, node.gid), path
        assert (facts.major, facts.minor) == node.rdev, path
        assert fs.xattrs(ino) == node.xattrs, path
        if facts.file_type is FileType.SYMLINK:
            assert fs.readlink(ino) == node.target, path
        elif node.is_file:
            _compare_content(fs, facts, node.content, path)
    assert len(seen) == len({id(node) for node in seen.values()})


def _compare_content(fs: ext3.Filesystem, facts: Stat, content: Content, path: bytes) -> None:
    assert facts.size == content.size, path
    block_size = fs.superblock.block_size
    mapped: set[int] = set()
    with fs.open_file(facts.ino) as file:
        for logical, _, count in fs.data_extents(facts.ino):
            offset, length = logical * block_size, count * block_size
            mapped.update(range(offset // PAGE, (offset + length) // PAGE))
            file.seek(offset)
            length = min(length, content.size - offset)
            assert file.read(length) == content.read(offset, length), path
    for page, data in content.pages.items():
        assert page in mapped or not any(data), path
